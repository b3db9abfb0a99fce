"""Preparing from and to an S3 server, a real one in a process of its own."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import pytest

from testing.data_videos import moving_frames, write_video
from testing.servers.s3_server import faulty_proxy
from tests.unit.vitaclip.data.test_commands import data
from vitaclip.data import folders
from vitaclip.data.datasets import load_dataset
from vitaclip.data.decode import decode_frames, video_info
from vitaclip.errors import InputError
from vitaclip.s3.bucket import Bucket
from vitaclip.s3.client import open_client


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    """A bucket with a data set."""
    yield from filled_bucket(server, monkeypatch, tmp_path)


@pytest.fixture(params=["server", "seaweedfs", pytest.param("ceph", marks=pytest.mark.slow)])
def any_bucket(request, monkeypatch, tmp_path):
    """The same, on each server in turn."""
    yield from filled_bucket(request.getfixturevalue(request.param), monkeypatch, tmp_path)


def filled_bucket(server, monkeypatch, tmp_path):
    """List files with their videos, and HMDB51's layout with one video."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(folders, "_shared_bucket", cache(Bucket))  # not the one of other servers
    monkeypatch.chdir(tmp_path)
    client = open_client()
    client.create_bucket(Bucket="videos")
    for i in range(3):
        path = write_video(tmp_path / f"{i}.mp4", moving_frames(20, seed=i))
        client.upload_file(str(path), "videos", f"mine/clips/{i}.mp4")
    client.put_object(Bucket="videos", Key="mine/clips/bad.mp4", Body=b"not a video")
    rows = b"clips/0.mp4,0\nclips/1.mp4,1\nclips/2.mp4,1\n"
    client.put_object(Bucket="videos", Key="mine/train.csv", Body=rows)
    client.put_object(Bucket="videos", Key="mine/classes.txt", Body=b"jump_up\nrun\n")
    client.upload_file(str(tmp_path / "0.mp4"), "videos", "hmdb/wave/a;b.avi")
    client.put_object(
        Bucket="videos",
        Key="hmdb/testTrainMulti_7030_splits/wave_test_split1.txt",
        Body=b"a;b.avi 1 \n",
    )
    monkeypatch.setenv("VITACLIP_DATA_MINE", "s3://videos/mine")
    monkeypatch.setenv("VITACLIP_DATA_HMDB51", "s3://videos/hmdb")
    yield client
    for entry in client.list_objects_v2(Bucket="videos")["Contents"]:
        client.delete_object(Bucket="videos", Key=entry["Key"])
    client.delete_bucket(Bucket="videos")


def keys(client, prefix):
    found = client.list_objects_v2(Bucket="videos", Prefix=prefix).get("Contents", [])
    return {entry["Key"].removeprefix(prefix) for entry in found}


def test_from_a_bucket_to_a_folder(bucket, tmp_path, monkeypatch, capsys):
    data("prepare", "mine", "--out", "out", "--short-side", 32)
    assert "3 videos prepared" in capsys.readouterr().out
    data("prepare", "mine", "--out", "out", "--short-side", 32)
    assert "0 videos prepared, 3 were ready" in capsys.readouterr().out
    bucket.upload_file(str(tmp_path / "0.mp4"), "videos", "mine/clips/1.mp4")  # another video now
    data("prepare", "mine", "--out", "out", "--short-side", 32)
    assert "1 videos prepared, 2 were ready" in capsys.readouterr().out
    monkeypatch.setenv("VITACLIP_DATA_MINE", str(tmp_path / "out"))
    manifest = load_dataset("mine", "train")
    assert manifest.classes == ("jump up", "run")
    assert [decode_frames(clip.path, [0, 19]).shape for clip in manifest.clips] == [
        (2, 32, 40, 3)
    ] * 3


def test_from_a_bucket_to_a_bucket(any_bucket, capsys, tmp_path):
    bucket = any_bucket
    data("prepare", "mine", "--out", "s3://videos/out", "--short-side", 32)
    videos = {f"videos/{i}.mp4" for i in range(3)}
    expected = {*videos, *(f"{v}.json" for v in videos), "train.csv", "train_classes.txt"}
    assert keys(bucket, "out/") == expected
    data("prepare", "mine", "--out", "s3://videos/out", "--short-side", 32)
    assert "0 videos prepared, 3 were ready" in capsys.readouterr().out
    bucket.download_file("videos", "out/videos/2.mp4", "copy.mp4")
    assert video_info("copy.mp4").num_frames == 20
    record = json.loads(
        bucket.get_object(Bucket="videos", Key="out/videos/2.mp4.json")["Body"].read()
    )
    assert record["source"]["path"] == "s3://videos/mine/clips/2.mp4"
    assert record["error"] is None


def test_a_published_layout_in_a_bucket(bucket, tmp_path, monkeypatch):
    data("prepare", "hmdb51", "--split", "train_1", "--out", "out")
    monkeypatch.setenv("VITACLIP_DATA_HMDB51", str(tmp_path / "out"))
    manifest = load_dataset("hmdb51", "train_1")
    (clip,) = manifest.clips
    assert (Path(clip.path).name, manifest.classes[clip.label]) == ("a;b.avi.mp4", "wave")


def test_only_prepare_reads_from_a_bucket(bucket, capsys):
    with pytest.raises(InputError, match="only 'data prepare' reads from S3"):
        load_dataset("mine", "train")
    assert data("prepare", "mine", "--out", "s3://") == 2
    assert "names no bucket" in capsys.readouterr().err


def test_what_cannot_be_reached_is_told_before_anything_is_prepared(
    bucket, monkeypatch, capsys, tmp_path
):
    assert data("prepare", "mine", "--out", "s3://none") == 2
    assert "create the bucket" in capsys.readouterr().err
    monkeypatch.setenv("S3_ENDPOINT_URL", "http://127.0.0.1:9")
    assert data("prepare", "mine", "--out", "out") == 2
    error = capsys.readouterr().err
    assert "s3://videos/mine" in error
    assert "127.0.0.1:9" in error
    assert not (tmp_path / "out").exists()


def test_an_object_that_would_leave_the_folder_is_refused(bucket, capsys, tmp_path):
    bucket.put_object(Bucket="videos", Key="mine/../../outside.csv", Body=b"planted")
    assert data("prepare", "mine", "--out", "out") == 2
    assert "'../../outside.csv'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_failing_server_is_asked_again(server, bucket, monkeypatch, capsys):
    monkeypatch.setattr("vitaclip.s3.bucket.random.uniform", lambda *_: 0.001)
    monkeypatch.setattr(folders, "_shared_bucket", cache(Bucket))  # not the one of other servers
    with faulty_proxy(server, share=0.3) as (failing, proxy):
        monkeypatch.setenv("S3_ENDPOINT_URL", failing.endpoint_url)
        assert data("prepare", "mine", "--out", "s3://videos/out", "--short-side", 32) == 0
    assert "3 videos prepared" in capsys.readouterr().out
    assert sum(proxy.counts.get(fault, 0) for fault in proxy.faults) > 5
    assert "videos/2.mp4.json" in keys(bucket, "out/")

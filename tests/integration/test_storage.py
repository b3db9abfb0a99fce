"""One contract for both stores; S3 on a real server that checks signatures, and through a failing
proxy.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import http.client
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError

from orchestrator.storage.stores.base import KeyExistsError, MissingKeyError, Store, StoreError
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.stores.remembering import RememberingStore
from orchestrator.storage.stores.s3 import S3Store
from testing.servers.s3_server import S3Server, faulty_proxy
from tests.integration.conftest import new_bucket
from vitaclip.errors import InputError
from vitaclip.s3.bucket import Bucket
from vitaclip.s3.errors import S3Error


def use(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)


SLOW_CEPH = pytest.param("ceph", marks=pytest.mark.slow)


@pytest.fixture(params=["local", "server", "seaweedfs", SLOW_CEPH])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    bucket = new_bucket(request.getfixturevalue(request.param), monkeypatch)
    return open_store(f"s3://{bucket}/some/prefix")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    (path / "deep").mkdir(parents=True)
    (path / "checkpoint.json").write_text("{}")
    (path / "deep" / "learned.safetensors").write_bytes(os.urandom(50_000))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def test_json_comes_back(store: Store) -> None:
    value = {"top1": 0.1 + 0.2, "names": ["a", "é"], "none": None}
    store.write_json("study/a.json", value)
    store.write_json("study/a.json", value)
    assert store.read_json("study/a.json") == value
    assert store.exists("study/a.json")
    assert not store.exists("study")


def test_what_is_missing_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MissingKeyError, match=r"study/b\.json"):
        store.read_json("study/b.json")
    with pytest.raises(MissingKeyError, match=r"study/c/manifest\.json"):
        store.download_folder("study/c", tmp_path / "out")
    assert store.list("study") == []


def test_written_once_is_never_rewritten(store: Store) -> None:
    store.create_json("result.json", {"top1": 0.5})
    store.create_json("result.json", {"top1": 0.5})
    with pytest.raises(KeyExistsError, match=r"result\.json"):
        store.create_json("result.json", {"top1": 0.6})
    assert store.read_json("result.json") == {"top1": 0.5}


def test_a_value_that_has_changed_has_another_mark(store: Store) -> None:
    store.write_text("study/a.jsonl", "one")
    store.write_text("study/b.jsonl", "two")
    before = store.versions("study")
    assert sorted(before) == store.list("study") == ["study/a.jsonl", "study/b.jsonl"]
    store.write_text("study/a.jsonl", "six")
    after = store.versions("study")
    assert {key for key in after if after[key] != before[key]} == {"study/a.jsonl"}
    assert store.versions("other") == {}


def test_what_is_remembered_is_read_again_once_it_has_changed(store: Store) -> None:
    store.write_text("study/a.jsonl", "one")
    remembering = RememberingStore(store, "study")
    assert not remembering.exists("study/a.jsonl")
    remembering.look()
    assert list(remembering.read_texts(["study/a.jsonl"])) == ["one"]
    store.write_text("study/a.jsonl", "two")
    assert remembering.read_text("study/a.jsonl") == "one"
    remembering.look()
    assert remembering.read_text("study/a.jsonl") == "two"
    store.delete("study/a.jsonl")
    remembering.look()
    with pytest.raises(MissingKeyError):
        remembering.read_text("study/a.jsonl")


def test_what_is_remembered_is_never_written(store: Store, folder: Path) -> None:
    store.write_text("study/a.jsonl", "one")
    remembering = RememberingStore(store, "study")
    remembering.look()
    for write in (
        lambda: remembering.write_text("study/b.jsonl", "two"),
        lambda: remembering.create_json("study/c.json", 1),
        lambda: remembering.upload_folder(folder, "study/d"),
        lambda: remembering.delete("study/a.jsonl"),
    ):
        with pytest.raises(StoreError, match="only reads"):
            write()
    assert store.list("") == ["study/a.jsonl"]


def test_listing_is_not_disturbed_by_what_is_deleted_meanwhile(
    tmp_path: Path, folder: Path
) -> None:
    store = LocalStore(tmp_path / "store")
    store.write_json("study/kept.json", 1)
    ended = threading.Event()

    def come_and_go(number: int) -> None:
        while not ended.is_set():
            store.upload_folder(folder, f"study/checkpoints/epoch-{number}")
            store.delete(f"study/checkpoints/epoch-{number}")

    threads = [threading.Thread(target=come_and_go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert all("study/kept.json" in store.list("study") for _ in range(1000))
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_of_many_writers_one_wins(store: Store) -> None:
    outcomes: list[str] = []

    def write(value: int) -> None:
        try:
            store.create_json("result.json", value)
            outcomes.append(f"wrote {value}")
        except KeyExistsError:
            outcomes.append("lost")

    threads = [threading.Thread(target=write, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[:3] == ["lost"] * 3
    assert f"wrote {store.read_json('result.json')}" in outcomes


def test_listing_stops_at_folder_names(store: Store) -> None:
    for key in ("a/1.json", "a/b/2.json", "ab/3.json"):
        store.write_json(key, 0)
    assert store.list("a") == ["a/1.json", "a/b/2.json"]
    assert store.list("") == ["a/1.json", "a/b/2.json", "ab/3.json"]
    store.delete("a")
    assert store.list("") == ["ab/3.json"]


def test_folder_comes_back(store: Store, folder: Path, tmp_path: Path) -> None:
    store.upload_folder(folder, "t/epoch-0001")
    store.download_folder("t/epoch-0001", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)
    (folder / "deep" / "learned.safetensors").unlink()
    store.upload_folder(folder, "t/epoch-0001")
    assert store.list("t") == ["t/epoch-0001/checkpoint.json", "t/epoch-0001/manifest.json"]


def test_folder_without_manifest_does_not_exist(store: Store, folder: Path, tmp_path: Path) -> None:
    store.upload_folder(folder, "t/epoch-0001")
    store.delete("t/epoch-0001/manifest.json")
    with pytest.raises(MissingKeyError):
        store.download_folder("t/epoch-0001", tmp_path / "out")


def test_interrupted_upload_leaves_no_folder(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upload_folder(folder, "t/epoch-0001")
    upload = type(store)._upload_file

    def fail_on_second(self: Store, path: Path, key: str) -> None:
        if path.name == "learned.safetensors":
            raise KeyboardInterrupt
        upload(self, path, key)

    monkeypatch.setattr(type(store), "_upload_file", fail_on_second)
    with pytest.raises(KeyboardInterrupt):
        store.upload_folder(folder, "t/epoch-0001")
    assert not store.exists("t/epoch-0001/manifest.json")


def test_interrupted_delete_leaves_no_folder(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.upload_folder(folder, "t/epoch-0001")
    delete_keys = type(store)._delete_keys

    def fail_after_first(self: Store, keys: list[str]) -> None:
        delete_keys(self, keys[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(type(store), "_delete_keys", fail_after_first)
    with pytest.raises(KeyboardInterrupt):
        store.delete("t")
    with pytest.raises(MissingKeyError):
        store.download_folder("t/epoch-0001", tmp_path / "out")


@pytest.mark.parametrize("damage", [b"[]", b"{", b"{}\n"], ids=["changed", "torn", "longer"])
def test_damage_at_rest_is_found(store: Store, folder: Path, tmp_path: Path, damage: bytes) -> None:
    store.upload_folder(folder, "t/epoch-0001")
    store._put("t/epoch-0001/checkpoint.json", damage)
    with pytest.raises(StoreError, match=r"epoch-0001/checkpoint\.json is damaged"):
        store.download_folder("t/epoch-0001", tmp_path / "out")


@pytest.mark.parametrize("key", ["", "/a", "../a", "a//b", "a/../b"])
def test_keys_cannot_leave_the_store(store: Store, key: str) -> None:
    with pytest.raises(StoreError):
        store.write_json(key, 0)


def test_probe_leaves_nothing(store: Store) -> None:
    store.check()
    assert store.list("") == []


@pytest.mark.parametrize(
    "uri",
    [
        "s3://key:planted@bucket/prefix",
        "s3://planted@bucket",
        "s3://bucket/prefix?secret_key=planted",
        "https://key:planted@server/bucket",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(InputError, match="AWS_ACCESS_KEY_ID") as caught:
        open_store(uri)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("uri", ["", "gs://bucket", "s3://", "s3:///prefix"])
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(InputError, match=r"allowed|bucket"):
        open_store(uri)


def test_unwritable_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="VITACLIP_STORE"):
        open_store(str(tmp_path / "file" / "store")).check()


def test_no_half_written_file_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.write_json("a.json", 1)
    monkeypatch.setattr(
        "orchestrator.storage.stores.local._sync",
        lambda path: (_ for _ in ()).throw(OSError("disk full")),
    )
    with pytest.raises(OSError, match="disk full"):
        store.write_json("a.json", 2)
    assert store.read_json("a.json") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


# S3 alone


def test_wrong_secret_and_missing_bucket_are_input_errors(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="create the bucket"):
        S3Store(Bucket(f"{bucket}-none")).check()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    with pytest.raises(InputError, match="AWS_SECRET_ACCESS_KEY") as caught:
        S3Store(Bucket(bucket)).check()
    assert "planted-secret" not in str(caught.value)


def test_a_server_that_overwrites_results_is_refused(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwrite(self: S3Store, key: str, data: bytes) -> bool:
        self._put(key, data)
        return True

    monkeypatch.setattr(S3Store, "_create", overwrite)
    with pytest.raises(InputError, match="If-None-Match"):
        open_store(f"s3://{bucket}").check()
    assert open_store(f"s3://{bucket}").list("") == []


@pytest.mark.slow
def test_a_real_server_that_ignores_the_condition_is_refused(
    rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"s3://{new_bucket(rclone, monkeypatch)}")
    with pytest.raises(InputError, match="the server ignores 'If-None-Match' on PUT"):
        store.check()
    assert store.list("") == []


def test_unreachable_server_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    use(S3Server("http://127.0.0.1:9", "key", "secret"), monkeypatch)
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9"):
        S3Store(Bucket("bucket")).check()


def test_a_mistyped_bucket_is_not_made(any_bucket: str) -> None:
    """As SeaweedFS does at the first write to it."""
    for _ in range(2):
        with pytest.raises(InputError, match="create the bucket"):
            open_store(f"s3://{any_bucket}-mistyped/prefix").check()


@pytest.mark.parametrize("any_bucket", ["seaweedfs", SLOW_CEPH], indirect=True)
def test_a_body_that_was_changed_on_its_way_is_refused(any_bucket: str, folder: Path) -> None:
    """SeaweedFS compares the checksum, Ceph the signature, moto neither."""
    bucket = Bucket(any_bucket, patience_s=0)
    bucket.client.meta.events.register("before-send.s3.PutObject", _change)
    with pytest.raises(S3Error):
        bucket.put("a.json", b"{}")
    with pytest.raises(S3Error):
        bucket.upload(folder / "deep" / "learned.safetensors", "learned.safetensors")
    assert bucket.list() == []


def _change(request: Any, **_: object) -> None:
    body = request.body if isinstance(request.body, bytes) else request.body.read()
    request.body = body[:-1] + bytes([body[-1] ^ 1])


def test_what_a_server_took_with_a_wrong_checksum_is_found_on_reading(
    any_bucket: str, folder: Path, tmp_path: Path
) -> None:
    """Ceph 16 takes it."""
    store, bucket = open_store(f"s3://{any_bucket}"), Bucket(any_bucket)
    store.upload_folder(folder, "t")
    wrong = base64.b64encode(hashlib.sha256(b"{}").digest()).decode()
    place = {"Bucket": any_bucket, "Key": "t/checkpoint.json", "ChecksumSHA256": wrong}
    with suppress(ClientError):
        bucket.client.put_object(Body=b"[]", **place)
    if bucket.get("t/checkpoint.json") == b"{}":  # it was refused
        return
    with pytest.raises(StoreError, match=r"t/checkpoint\.json is damaged"):
        store.download_folder("t", tmp_path / "out")


def test_multipart_upload_comes_back(any_bucket: str, tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "weights").write_bytes(os.urandom(20 * 2**20))
    store = open_store(f"s3://{any_bucket}")
    store.upload_folder(tmp_path / "big", "big")
    store.download_folder("big", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "big")


def test_the_proxy_hands_on_a_body_without_a_length() -> None:
    with _echo() as server, faulty_proxy(server) as (behind, _):
        connection = http.client.HTTPConnection(urlsplit(behind.endpoint_url).netloc, timeout=60)
        for body in (b"chunks", b"others"):
            connection.request("PUT", "/a", iter([body[:2], body[2:]]), encode_chunked=True)
            assert connection.getresponse().read() == b"6\r\n%s\r\n0\r\n\r\n" % body


@contextmanager
def _echo() -> Iterator[S3Server]:
    """Answers with the body of a request that comes in chunks, as it stands on the wire."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = b"".join(iter(self.rfile.readline, b"\r\n")) + b"\r\n"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as listener:
        threading.Thread(target=listener.serve_forever).start()
        yield S3Server(f"http://127.0.0.1:{listener.server_port}", "key", "secret")
        listener.shutdown()


def test_nothing_is_lost_when_requests_fail(
    server: S3Server, bucket: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01
    )
    with faulty_proxy(server, share=0.3) as (failing, proxy):
        use(failing, monkeypatch)
        store = open_store(f"s3://{bucket}/study")
        for number in range(10):
            for _ in range(3):  # writing the same again is accepted
                store.create_json(f"{number}/result.json", {"number": number})
            store.upload_folder(folder, f"{number}/epoch-0001")
            store.download_folder(f"{number}/epoch-0001", tmp_path / f"out{number}")
        proxy.share = 0.0
        assert all(proxy.counts.get(fault, 0) > 0 for fault in proxy.faults)
        assert all(store.read_json(f"{n}/result.json") == {"number": n} for n in range(10))
        assert all(contents(tmp_path / f"out{n}") == contents(folder) for n in range(10))
        assert len(store.list("")) == 10 * 4


def test_failures_may_go_on_for_as_long_as_they_like(
    server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore alone stops trying after some hundred requests of which so many fail."""
    monkeypatch.setattr(
        "botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.001
    )
    monkeypatch.setattr("vitaclip.s3.bucket.random.uniform", lambda *_: 0.001)
    with faulty_proxy(server, share=0.5, faults=("slow_down", "internal_error", "lost_answer")) as (
        failing,
        _,
    ):
        use(failing, monkeypatch)
        store = open_store(f"s3://{bucket}")
        for number in range(60):
            store.write_json("a.json", number)
            assert not store.exists("b.json")
        assert store.read_json("a.json") == 59


def test_an_outage_is_outlasted(
    server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with faulty_proxy(server, share=1.0, faults=("slow_down", "cut_upload")) as (failing, proxy):
        use(failing, monkeypatch)
        store = open_store(f"s3://{bucket}")
        threading.Timer(4, lambda: setattr(proxy, "share", 0.0)).start()
        store.create_json("result.json", 1)
        assert store.read_json("result.json") == 1


@pytest.mark.parametrize(
    ("fault", "message"), [("access_denied", "rights"), ("no_such_bucket", "create the bucket")]
)
def test_errors_that_last_say_what_to_do(
    server: S3Server,
    bucket: str,
    folder: Path,
    fault: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with faulty_proxy(server, share=1.0, faults=(fault,)) as (failing, _):
        use(failing, monkeypatch)
        with pytest.raises(StoreError, match=message):
            open_store(f"s3://{bucket}").write_json("a.json", 0)
        with pytest.raises(StoreError, match=message):
            open_store(f"s3://{bucket}").upload_folder(folder, "f")


def test_a_folder_without_hard_links_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FAT does: the kernel refuses the link with EPERM."""

    def no_link(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(target))

    monkeypatch.setattr("os.link", no_link)
    store = LocalStore(tmp_path / "store")
    with pytest.raises(InputError, match="hard links"):
        store.check()
    with pytest.raises(StoreError, match="hard links"):
        store.create_json("study/leases/000001.json", 1)
    assert store.list("") == []

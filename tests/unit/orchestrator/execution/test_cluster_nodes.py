"""What a cluster's nodes are asked before the first trial, and what a driver refuses to start
without.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestrator.config import ResourcesConfig
from orchestrator.execution import nodes
from orchestrator.execution.cluster import check_capacity
from orchestrator.settings import Settings
from orchestrator.storage.stores.opening import open_store
from vitaclip.data.datasets import load_dataset
from vitaclip.data.identity import identify
from vitaclip.errors import InputError


@pytest.fixture
def own_copy(
    motion_dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, nodes.Digests]:
    """The dataset as the driver sees it, and a folder in which this node has its own copy of it."""
    digests = {(motion_dataset, "val"): identify(load_dataset(motion_dataset, "val"))}
    source = Path(load_dataset(motion_dataset, "val").clips[0].path).parent
    shutil.copytree(source, tmp_path / "copy", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.setenv("VITACLIP_DATA_MOTIONS", str(tmp_path / "copy"))
    return tmp_path / "copy", digests


def test_a_node_that_sees_what_the_driver_sees_has_no_problem(
    own_copy: tuple[Path, nodes.Digests], tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store"))
    store.write_json("probe.json", {})
    assert nodes._store_problem(open_store(store.uri), "probe.json") is None
    assert nodes._data_problem(own_copy[1]) is None


def test_a_store_that_is_another_folder_on_the_node_is_named(tmp_path: Path) -> None:
    open_store(str(tmp_path / "drivers")).write_json("probe.json", {})
    problem = nodes._store_problem(open_store(str(tmp_path / "nodes")), "probe.json")
    assert problem is not None
    assert f"store {tmp_path / 'nodes'}" in problem
    assert "s3://bucket/prefix" in problem


def test_missing_videos_are_counted_and_one_is_named(own_copy: tuple[Path, nodes.Digests]) -> None:
    folder, digests = own_copy
    (folder / "val_3.mp4").unlink()
    problem = nodes._data_problem(digests)
    assert problem is not None
    assert "1 of 8 clips looked for are not there" in problem
    assert "val_3.mp4" in problem


def test_another_list_of_clips_is_noticed(own_copy: tuple[Path, nodes.Digests]) -> None:
    folder, digests = own_copy
    rows = (folder / "val.csv").read_text().splitlines()
    (folder / "val.csv").write_text("\n".join(rows[:-1]))
    assert "its clips or labels are others (8 clips were recorded, found 7)" in str(
        nodes._data_problem(digests)
    )


def test_a_copy_of_other_bytes_is_named(own_copy: tuple[Path, nodes.Digests]) -> None:
    folder, digests = own_copy
    content = bytearray((folder / "val_0.mp4").read_bytes())
    content[-1] ^= 1
    (folder / "val_0.mp4").write_bytes(content)
    assert "its files have other sizes or content" in str(nodes._data_problem(digests))


def test_only_nodes_that_can_hold_a_worker_are_asked() -> None:
    resources = ResourcesConfig(cpus_per_worker=2, gpus_per_worker=0.5)
    assert nodes._may_train({"CPU": 8, "GPU": 1}, resources)
    assert not nodes._may_train({"CPU": 8}, resources)
    assert not nodes._may_train({"GPU": 1}, resources)
    h100 = ResourcesConfig(custom_per_worker={"accelerator_type:H100": 0.001})
    assert nodes._may_train({"CPU": 8, "accelerator_type:H100": 1}, h100)
    assert not nodes._may_train({"CPU": 8, "accelerator_type:A100": 1}, h100)


def test_a_cluster_without_enough_of_a_custom_resource_is_refused() -> None:
    resources = ResourcesConfig(
        num_workers=2, max_concurrent_trials=2, custom_per_worker={"decoder": 1}
    )
    check_capacity({"CPU": 4, "decoder": 4}, resources, "the cluster")
    with pytest.raises(
        InputError, match=r"2 trials at once need 4 decoder \(2 each\), found 3 in the cluster"
    ):
        check_capacity({"CPU": 4, "decoder": 3}, resources, "the cluster")


@pytest.mark.parametrize("variable", ["VITACLIP_STORE", "MLFLOW_TRACKING_URI"])
def test_a_cluster_needs_places_that_outlive_the_job(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    nodes.check_settings(Settings())
    monkeypatch.delenv(variable)
    with pytest.raises(InputError, match=f"{variable}: not set"):
        nodes.check_settings(Settings())

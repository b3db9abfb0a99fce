"""What is fuzzed: sound files, how one case damages them, and the readers that must then read or
refuse them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from ruamel.yaml import YAML

from orchestrator import compare, ls, show
from orchestrator.reporting.page import page
from orchestrator.reporting.study_data import read_study
from orchestrator.search.proposals import proposer_of
from orchestrator.search.resolve import resolve
from orchestrator.search.study import Study
from orchestrator.storage.records.control import ControlChange
from orchestrator.storage.records.score import Baseline
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from orchestrator.yaml_file import load_study
from testing.paths import ROOT
from testing.study_fixtures import (
    finish,
    new_record,
    propose,
    run_trial,
    split_score,
    train_epochs,
    write_score,
)
from tests.drivers.fuzz.damage import (
    damage_bytes,
    damage_json_file,
    damage_text,
    damage_text_file,
    damage_value,
)
from vitaclip.checkpoint import load_model, save_checkpoint
from vitaclip.checkpoint_info import INFO_FILE, Progress, read_history, read_info
from vitaclip.class_descriptions import read_descriptions
from vitaclip.class_names import parse_class_names
from vitaclip.config import TrainConfig
from vitaclip.data.datasets import available_splits, load_dataset, root_variable
from vitaclip.data.formats import FORMATS
from vitaclip.data.manifest import read_class_list, read_list, read_text
from vitaclip.errors import VitaClipError
from vitaclip.methods.build import build_model


class Target(ABC):
    """One kind of input."""

    name: ClassVar[str]

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Writes sound files, once."""

    @abstractmethod
    def damage(self, folder: Path, rng: random.Random) -> None:
        """Damages a copy of them."""

    @abstractmethod
    def read(self, folder: Path) -> list[Callable[[], object]]:
        """The readers, each of which must succeed or raise VitaClipError."""


class Yaml(Target):
    """An experiment's file, an overlay, and ``--set``."""

    name = "yaml"

    def prepare(self, folder: Path) -> None:
        for path in (ROOT / "experiments").rglob("*.yaml"):
            shutil.copy(path, folder / path.name)

    def damage(self, folder: Path, rng: random.Random) -> None:
        experiment = rng.choice(
            sorted(p for p in folder.glob("*.yaml") if p.name != "paper_scale.yaml")
        )
        study, overlay = (
            experiment.rename(folder / "study"),
            (folder / "paper_scale.yaml").rename(folder / "overlay"),
        )
        damaged = rng.choice((study, study, overlay))
        if rng.random() < 0.5:
            content = YAML(typ="safe", pure=True).load(damaged.read_text())
            damaged.write_text(json.dumps(damage_value(content, rng)))
        else:
            damage_text_file(damaged, rng)
        settings = [
            f"train.epochs={rng.randrange(9)}",
            "search.num_trials=3",
            "search_space.optimizer.lr={low: 1}",
        ]
        if rng.random() < 0.5:
            settings = [damage_text(setting, rng) for setting in rng.sample(settings, 2)]
        (folder / "settings.json").write_text(json.dumps(settings[: rng.randrange(3)]))

    def read(self, folder: Path) -> list[Callable[[], object]]:
        settings = json.loads((folder / "settings.json").read_text())
        return [
            partial(self._read, folder, overlays, settings)
            for overlays in ([], [folder / "overlay"])
        ]

    def _read(self, folder: Path, overlays: list[Path], settings: list[str]) -> None:
        config = resolve(load_study(folder / "study", overlays, settings))
        proposer_of(config).propose([], [], None)


class Checkpoint(Target):
    """A checkpoint's folder from someone else."""

    name = "checkpoint"

    def prepare(self, folder: Path) -> None:
        backbone = {"name": "quickstart-tiny", "pretrained": "quickstart"}
        data = {"num_frames": 2}
        config = TrainConfig.model_validate(
            {"backbone": backbone, "data": data, "text": {"num_context": 2}}
        )
        history = ({"epoch": 1, "val/top1": 0.5},)
        model = build_model(config, ("left", "right"))
        save_checkpoint(folder / "sound", model, config, Progress(epoch=1, history=history))

    def damage(self, folder: Path, rng: random.Random) -> None:
        if rng.random() < 0.8:
            damage_json_file(folder / "sound" / INFO_FILE, rng)
        else:
            [path] = (folder / "sound").glob("learned-*.safetensors")
            data = damage_bytes(path.read_bytes(), rng)
            path.write_bytes(data)

    def read(self, folder: Path) -> list[Callable[[], object]]:
        return [
            partial(reader, folder / "sound") for reader in (read_info, read_history, load_model)
        ]


class Lists(Target):
    """Class files, descriptions, list files, and the published data sets' own annotations."""

    name = "lists"
    _NAMES = (
        "ApplyEyeMakeup",
        "brush_hair",
        "Folding [something]",
        '"carve, slowly"',
        "3 points",
        "éclair",
    )

    def prepare(self, folder: Path) -> None:
        clips = [f"videos/clip {n}.mp4,{name}" for n, name in enumerate(self._NAMES)]
        files = {
            "list/classes.txt": "\n".join(self._NAMES),
            "list/train.csv": "\n".join(clips),
            "list/val.txt": "\n".join(f"a/b{n}.avi {n % 6}" for n in range(40)),
            "csv/classes.csv": "id,name\n"
            + "\n".join(f"{n},{name}" for n, name in enumerate(self._NAMES)),
            "csv/train.txt": "\n".join(f"clip{n}.webm {n % 6}" for n in range(40)),
            "kinetics400/train.csv": "label,youtube_id,time_start,time_end,split\n"
            + "\n".join(f'"{n}, x",abc{n},{n},{n + 10},train' for n in range(9)),
            "ssv2/train.json": json.dumps(
                [{"id": str(n), "template": "Folding [x]"} for n in range(9)]
            ),
            "ucf101/ucfTrainTestlist/trainlist01.txt": "\n".join(
                f"Wave/v_{n}.avi {n}" for n in range(9)
            ),
            "hmdb51/testTrainMulti_7030_splits/wave_test_split1.txt": "\n".join(
                f"v_{n}.avi {n % 3}" for n in range(9)
            ),
            "hmdb51/datasets_splits/base2novel_splits/hmdb_splits/base_val.txt": "\n".join(
                f"v_{n}.avi {n % 2}" for n in range(9)
            ),
            "hmdb51/labels/hmdb_51_base_labels.csv": "id,name\n0,wave\n1,brush hair\n",
            "list/described.json": json.dumps(
                {name: ["A person.", f"A person does {name}."] for name in self._NAMES}
            ),
            "csv/described.csv": "name,description\n"
            + "\n".join(f"{name},A person does it." for name in self._NAMES),
        }
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        (folder / "kinetics400/abc1_000001_000011.mp4").touch()
        (folder / "ssv2/3.webm").touch()
        (folder / "hmdb51/v_1.avi").touch()

    def damage(self, folder: Path, rng: random.Random) -> None:
        path = rng.choice(
            sorted(p for p in folder.rglob("*.*") if p.suffix in (".txt", ".csv", ".json"))
        )
        (damage_json_file if path.suffix == ".json" else damage_text_file)(path, rng)

    def read(self, folder: Path) -> list[Callable[[], object]]:
        readers: list[Callable[[], object]] = [
            partial(read_class_list, folder / "list/classes.txt"),
            partial(read_class_list, folder / "csv/classes.csv"),
            partial(read_list, folder / "list/train.csv", self._NAMES),
            partial(read_list, folder / "list/val.txt", self._NAMES),
            lambda: parse_class_names(read_text(folder / "list/classes.txt"), "here"),
            lambda: read_descriptions(folder / "list/described.json").of(self._NAMES, "here"),
            lambda: read_descriptions(folder / "csv/described.csv").of(self._NAMES, "here"),
        ]
        for name in ("list", "csv", *FORMATS):
            if (folder / name).is_dir():
                os.environ[root_variable(name)] = str(folder / name)
                readers.append(partial(available_splits, name, folder / name))
                splits = ("train", "val", "base_val")
                readers += [partial(load_dataset, name, split) for split in splits]
        return readers


class Records(Target):
    """A study's record in the store."""

    name = "records"

    def prepare(self, folder: Path) -> None:
        record = new_record(LocalStore(folder / "store"))
        for number, top1 in enumerate((0.2, 0.6, 0.5)):
            run_trial(record, number, folder / "c", top1 / 2, top1)
        run_trial(record, 3, folder / "c", 0.1, state="pruned")
        finish(record, propose(record, 4), "failed")
        train_epochs(record, propose(record, 5), folder / "c", 0.3)
        write_score(
            record, Baseline.of(record.trial(0).info.train), split_score([0, 0, 0], [0, 1, 2])
        )
        record.add_change(ControlChange(num_trials=9, paused=False))
        record.add_change(ControlChange(points=({"prompts.depth": 2, "optimizer.lr": 1e-3},)))
        now = datetime.now(UTC).isoformat()
        record.store.write_text(
            record.keys.trial(5).log(1), json.dumps({"time": now, "event": "start"}) + "\n"
        )

    def damage(self, folder: Path, rng: random.Random) -> None:
        paths = sorted((folder / "store").rglob("*.json*"))
        for path in rng.sample(paths, rng.choice((1, 1, 1, 2, 4))):
            if rng.random() < 0.05:
                path.unlink()
            else:
                (damage_json_file if path.suffix == ".json" else damage_text_file)(path, rng)
        (folder / "with_page.json").write_text(json.dumps(rng.random() < 0.1))

    def read(self, folder: Path) -> list[Callable[[], object]]:
        os.environ["VITACLIP_STORE"] = str(folder / "store")
        # No world is rendered there: the report's frames are another matter.
        os.environ["VITACLIP_DATA_QUICKSTART"] = str(folder / "store")
        os.chdir(folder)
        record = StudyRecord(LocalStore(folder / "store"), "depth")
        commands: list[tuple[Any, tuple[str, ...]]] = [
            *((ls.main, words) for words in ((), ("--json",), ("depth",), ("depth", "--json"))),
            *(
                (show.main, (f"depth{trial}", *flag))
                for trial in ("", "/0", "/5")
                for flag in ((), ("--json",))
            ),
            (show.main, ("depth/5", "--log")),
            (compare.main, ("depth/0", "depth/1")),
            (compare.main, ("depth/0", "depth/1", "--json")),
        ]
        readers: list[Callable[[], object]] = [
            partial(main, list(words)) for main, words in commands
        ]
        readers += [partial(self._go_on, record), partial(self._download, record)]
        if json.loads((folder / "with_page.json").read_text()):
            readers.append(lambda: page(read_study(record)))
        return readers

    def _go_on(self, record: StudyRecord) -> None:
        """As a sweep's next start does: the trial that has not finished, then the next proposal."""
        study = Study(record.info.config, record)
        study.next_trial()
        study.next_trial()

    def _download(self, record: StudyRecord) -> None:
        for number in (0, 5):
            with suppress(VitaClipError):
                key = record.trial(number).newest_checkpoint
                if key:
                    record.store.download_folder(key, Path("downloaded"))


TARGETS: dict[str, Target] = {
    target.name: target for target in (Yaml(), Checkpoint(), Lists(), Records())
}

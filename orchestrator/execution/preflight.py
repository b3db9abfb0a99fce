"""Everything that can be checked before a worker starts is checked here."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import platform
from pathlib import Path

import torch

from orchestrator.code_version import code_version
from orchestrator.config import Scalar, StudyConfig
from orchestrator.execution.corners import corners
from orchestrator.search.search_space import apply, edge_values
from orchestrator.settings import Settings
from orchestrator.storage.records.study import StudyInputs
from orchestrator.storage.stores.opening import open_store
from vitaclip.clip_config import context_length
from vitaclip.config import BackboneConfig, DataConfig, ModelConfig
from vitaclip.data.datasets import load_dataset, load_training
from vitaclip.data.identity import identify
from vitaclip.data.loader import steps_per_epoch
from vitaclip.errors import InputError
from vitaclip.methods.build import check_model
from vitaclip.model.backbone import check_backbone, load_backbone
from vitaclip.model.text import tokenize_classes
from vitaclip.service import attempt

_MAX_MODELS = 100  # to be looked at: each takes a tenth of a second or more
_MAX_SPLITS = 10_000  # combinations of the fields below
_NAME_SPLITS = ("data.dataset", "data.train_split", "data.val_split", "data.development")


def preflight(config: StudyConfig, settings: Settings) -> None:
    """Store, backbone, datasets and models; renders the quickstart's world if it is not there
    yet.

    Raises:
        InputError: names what cannot be used and what to do.
    """
    store = open_store(settings.store_uri)
    attempt(
        f"store {store.uri}", store.check, "check VITACLIP_STORE, S3_ENDPOINT_URL and the server"
    )
    check_backbone(config.train.backbone)
    for dataset, split in dataset_splits(config):
        if not load_dataset(dataset, split).clips:
            raise InputError(
                f"dataset {dataset}, split {split}: found no clip; check the annotation file"
            )
    _check_models(config)
    _check_benchmarks(config)
    _check_descriptions(config)


def provenance() -> dict[str, Scalar]:
    """What the study runs on: code, lock file, versions, machine."""
    lock = Path(__file__).resolve().parents[2] / "requirements.lock"
    return {
        **code_version().model_dump(),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU {platform.machine()}",
    }


def study_inputs(config: StudyConfig) -> StudyInputs:
    """Digests of all data and weights that the study reads.

    Raises:
        InputError: a dataset or the weights cannot be read.
    """
    return StudyInputs(
        data={
            f"{name}/{split}": identify(load_dataset(name, split))
            for name, split in dataset_splits(config)
        },
        backbones={
            _backbone_name(backbone): load_backbone(backbone).sha256
            for backbone in _backbones(config)
        },
    )


def _backbone_name(config: BackboneConfig) -> str:
    size = "" if config.image_size is None else f" at {config.image_size} pixels"
    return f"{config.name} {config.pretrained}{size}"


def _backbones(config: StudyConfig) -> list[BackboneConfig]:
    """Those that trials may have; combinations that do not exist are left out, and fail their
    trials.
    """
    keys = [key for key in config.search_space if key.startswith("backbone.")]
    found = []
    for values in itertools.product(*(edge_values(config.search_space[key]) for key in keys)):
        with contextlib.suppress(InputError):
            backbone = apply(config.train, dict(zip(keys, values, strict=True))).backbone
            check_backbone(backbone)
            found.append(backbone)
    return found


def dataset_splits(config: StudyConfig) -> list[tuple[str, str]]:
    """Each (dataset, split) that the study trains, validates or is scored on."""
    found = [
        *((data.dataset, split) for data in _training_data(config) for split in data.splits),
        *((b.dataset, split) for b in config.benchmarks for split in b.splits),
    ]
    return list(dict.fromkeys(found))


def _training_data(config: StudyConfig) -> list[DataConfig]:
    """One for each choice of data and splits that a trial may have."""
    points = corners(config.search_space, _NAME_SPLITS.__contains__, most=_MAX_SPLITS)
    return [apply(config.train, params).data for params in points]


def _check_benchmarks(config: StudyConfig) -> None:
    """A model that was trained has learned contexts of its own classes only. Beside them, other
    classes of a benchmark are new ones.
    """
    load = functools.cache(load_dataset)
    for benchmark, data in itertools.product(config.benchmarks, _training_data(config)):
        is_learned = {split: benchmark.class_texts(split).learned for split in benchmark.splits}
        if not any(is_learned.values()):
            continue
        trained, of = load(data.dataset, data.train_split), f"{data.dataset}/{data.train_split}"
        for split, learned in is_learned.items():
            asked = load(benchmark.dataset, split).classes
            place = f"benchmark {benchmark.name}, split {split!r}"
            if learned and asked != trained.classes:
                raise InputError(
                    f"{place}: asks for {len(asked)} classes, but {of} trains "
                    f"{len(trained.classes)} others; take mode zero_shot, or train on a split of "
                    "the same classes in the same order"
                )
            if not learned and (shared := {*asked} & {*trained.classes}):
                raise InputError(
                    f"{place}: has {len(shared)} classes that {of} trains, such as "
                    f"{min(shared)!r}; name a split of new classes"
                )


def _check_descriptions(config: StudyConfig) -> None:
    """Every class of a split is described, in sentences that every text tower reads whole."""
    for benchmark in config.benchmarks:
        for split in benchmark.splits:
            descriptions = benchmark.class_texts(split).descriptions
            if descriptions is None:
                continue
            classes = load_dataset(benchmark.dataset, split).classes
            found = descriptions.of(classes, f"{benchmark.dataset}/{split}")
            sentences = [sentence for of_class in found for sentence in of_class]
            for backbone in _backbones(config):
                try:
                    tokenize_classes(sentences, context_length(backbone), num_context=0)
                except InputError as error:
                    raise InputError(f"{descriptions.path}: {error}") from None


def _check_models(config: StudyConfig) -> None:
    """Every model that a trial may have is built once, without weights: what its method refuses
    would fail the trial. So would clips that are too few, or of other classes.
    """
    backbones, checked, load = _backbones(config), set(), functools.cache(load_training)
    for params in corners(config.search_space, _decides_start, most=_MAX_MODELS):
        train = apply(config.train, params)
        data, model = train.data, (train.of_model(), train.batch_size, train.epochs == 0)
        clips_of = (data.dataset, data.train_split, data.val_split)
        if (model, clips_of, data.limit) in checked or train.backbone not in backbones:
            continue
        checked.add((model, clips_of, data.limit))
        try:
            clips, _ = load(*clips_of)
            check_model(train, clips.classes)
            if train.epochs:
                steps_per_epoch(clips, train)
        except InputError as error:
            drawn = ", ".join(f"{key}={json.dumps(value)}" for key, value in params.items())
            raise InputError(f"{error}{drawn and f' (the search space draws {drawn})'}") from None


def _decides_start(key: str) -> bool:
    """Whether a method, or the start of a training, may look at this parameter."""
    section = key.partition(".")[0]
    return section in ("epochs", "batch_size") or section in ModelConfig.model_fields

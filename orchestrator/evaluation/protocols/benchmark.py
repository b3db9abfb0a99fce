"""What every benchmark has, whatever its protocol. Knows no model:
:mod:`orchestrator.evaluation.benchmark` computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from orchestrator.storage.records.split_score import SplitScore
from vitaclip.class_descriptions import ClassDescriptions, read_descriptions
from vitaclip.config import Config, DatasetName, EvalConfig, SplitName
from vitaclip.config.base import Fraction
from vitaclip.data.formats import CLASS_LISTS
from vitaclip.data.manifest import read_class_list
from vitaclip.errors import InputError

TEMPLATES = CLASS_LISTS.with_name("templates")
ClipTemplates = Literal["kinetics700", "ucf101"]  # vitaclip/data/templates


def checked_template(text: str) -> str:
    """A sentence in which ``{}`` is the class name. Raises ValueError for any other brace."""
    if "{}" not in text or set(text.replace("{}", "")) & set("{}"):
        raise ValueError(
            f"found {text!r}, needed is a sentence with {{}} for the class name, and no other brace"
        )
    return text


Template = Annotated[str, Field(max_length=500), AfterValidator(checked_template)]


@dataclass(frozen=True)
class ClassTexts:
    """What a model reads for each class of a split."""

    # sentences in which {} is the class name, averaged; none: the plain name
    templates: tuple[str, ...]
    # with the context that was learned for the class, if the model was trained on classes at all
    learned: bool = False
    # sentences of each class instead of its name, averaged
    descriptions: ClassDescriptions | None = None


class BenchmarkConfig(Config, ABC):
    """One dataset on which every finished trial is scored. Each protocol says what is different in
    it.
    """

    dataset: DatasetName = Field(
        description="The dataset's name. The variable VITACLIP_DATA_<NAME> says where it lies."
    )
    split: SplitName | Annotated[tuple[SplitName, ...], Field(min_length=1, max_length=100)] = (
        Field(description="The split to score, or several, whose mean and spread are reported.")
    )
    mode: str
    views: EvalConfig = Field(EvalConfig(), description="How each video is viewed.")
    templates: ClipTemplates | Annotated[tuple[Template, ...], Field(max_length=1000)] = Field(
        (),
        description="Sentences in which {} is the class name and whose features are averaged, or "
        "the name of one of CLIP's lists. Empty takes the plain name.",
    )
    descriptions: Annotated[str, Field(min_length=1, max_length=4096)] | None = Field(
        None,
        description="A file of sentences that describe each class, and are read instead of its "
        "name; the features of several are averaged. JSON, {name: sentence or list}, or CSV with "
        "the columns name and description.",
    )
    descriptions_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None,
        description="The SHA-256 of that file, which the start of a study fills in: scores by "
        "other content are not compared.",
    )
    alphas: Annotated[tuple[Fraction, ...], Field(max_length=21)] = Field(
        (),
        description="Blends of each trial with the frozen CLIP that are scored in the same pass, "
        "by the training's share: 0 is the frozen CLIP, 1 the trial.",
    )

    # Whether classes are new to a trained model, all or some.
    has_new_classes: ClassVar[bool]

    @abstractmethod
    def class_texts(self, split: str) -> ClassTexts:
        """What a model reads for the classes of one of its splits."""

    @model_validator(mode="after")
    def _alphas_rise(self) -> Self:
        if list(self.alphas) != sorted(set(self.alphas)):
            raise ValueError(f"alphas: found {list(self.alphas)}, each may stand once, in order")
        return self

    @model_validator(mode="after")
    def _splits_differ(self) -> Self:
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"split: found {list(self.splits)}, each may stand once")
        return self

    @model_validator(mode="after")
    def _texts_are_of_one_kind(self) -> Self:
        if self.descriptions is not None and self.templates:
            raise ValueError("descriptions: found templates too, allowed is one of them")
        if self.descriptions is None and self.descriptions_sha256 is not None:
            raise ValueError("descriptions_sha256: found no descriptions, of which it would be")
        return self

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the dataset to score, in order."""
        return (self.split,) if isinstance(self.split, str) else self.split

    @property
    def name(self) -> str:
        """The prefix of its metrics, e.g. ``zero_shot/quickstart``."""
        return f"{self.mode}/{self.dataset}"

    @property
    def sentences(self) -> tuple[str, ...]:
        """Its templates; those of CLIP's paper by the name of the data set it wrote them for."""
        if isinstance(self.templates, str):
            return read_class_list(TEMPLATES / f"{self.templates}.txt")
        return self.templates

    def pinned(self) -> Self:
        """Bound to what its file of descriptions holds now. Raises InputError as
        ``read_descriptions`` does, and if the file is another one than it is bound to.
        """
        if (found := self._read_descriptions()) is None:
            return self
        return self.model_copy(update={"descriptions_sha256": found.sha256})

    def plain_texts(self, *, learned: bool = False) -> ClassTexts:
        """Names, templates or descriptions, whichever the file says. Raises InputError as
        ``pinned`` does.
        """
        return ClassTexts(self.sentences, learned, self._read_descriptions())

    def _read_descriptions(self) -> ClassDescriptions | None:
        if self.descriptions is None:
            return None
        found = read_descriptions(Path(self.descriptions).expanduser())
        if self.descriptions_sha256 not in (None, found.sha256):
            raise InputError(
                f"{found.path}: has other content than benchmark {self.name} was started with "
                f"(SHA-256 {self.descriptions_sha256}, found {found.sha256}); restore it, or start "
                "the study again to score with the new one"
            )
        return found

    def summarize(self, splits: Sequence[SplitScore]) -> dict[str, float]:
        """The benchmark's metrics: its accuracies, and how many clips they are of."""
        metrics = self.accuracies(splits) | {
            "num_clips": sum(len(split.clips) for split in splits),
            "num_broken": sum(split.num_broken for split in splits),
            "num_missing": sum(split.num_missing for split in splits),
        }
        return {f"{self.name}/{key}": value for key, value in metrics.items()}

    def accuracies(self, splits: Sequence[SplitScore]) -> dict[str, float]:
        """Means over the splits; top-1's spread over them and 95% interval over clips. Tables show
        ``top1``.
        """
        # takes most of a second: it brings scipy
        from orchestrator.evaluation.statistics import accuracy_interval, mean_and_std, outcomes

        top1, top1_std = mean_and_std([split.top1 for split in splits])
        interval = accuracy_interval([outcomes(split) for split in splits])
        metrics = {
            "top1": top1,
            "top5": mean_and_std([split.top5 for split in splits])[0],
            "top1_ci95_low": interval.low,
            "top1_ci95_high": interval.high,
        }
        if len(splits) > 1:
            metrics["top1_std"] = top1_std
        return metrics

    def split_weights(self, top1: Sequence[float]) -> Sequence[float]:
        """How fast the metric ``top1`` grows with the accuracy of each split, where these are
        ``top1``: its gradient.
        """
        return [1 / len(top1)] * len(top1)

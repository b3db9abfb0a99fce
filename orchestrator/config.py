"""What a study is: a question, the training it varies, the space it searches, its benchmarks, its
resources.

An experiment file says *what*; where data, results and servers live comes from the environment
(:mod:`orchestrator.settings`), so the same file runs on a laptop and on a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from orchestrator.evaluation.protocols.base_to_novel import BaseToNovel
from orchestrator.evaluation.protocols.development import Development
from orchestrator.evaluation.protocols.supervised import Supervised
from orchestrator.evaluation.protocols.zero_shot import ZeroShot
from vitaclip.config import Config, TrainConfig

Scalar = bool | int | float | str | None
ShortScalar = bool | int | float | Annotated[str, Field(max_length=1000)] | None
Prose = Annotated[str, Field(min_length=1, max_length=5000)]  # MLflow keeps as much
MAX_TRIALS = 100_000  # a study's record is read as a whole
MAX_SEED = 2**32 - 1  # NumPy's and PyTorch's
NumWorkers = Annotated[int, Field(ge=1, le=10_000)]
ResourceName = Annotated[str, Field(min_length=1, max_length=200)]
StudyName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


class IntDistribution(Config):
    """Whole numbers, ends included; ``high: num_layers`` stands for the backbone's number of
    layers.
    """

    type: Literal["int"] = Field(description="The kind of parameter.")
    low: Annotated[int, Field(ge=-(10**12), le=10**12)] = Field(description="The smallest value.")
    high: Annotated[int, Field(ge=-(10**12), le=10**12)] | Literal["num_layers"] = Field(
        description="The largest value, or num_layers for the backbone's number of layers."
    )
    step: Annotated[int, Field(ge=1, le=10**12)] = Field(
        1, description="The distance between two values."
    )
    log: bool = Field(False, description="Whether values are drawn evenly on a logarithmic scale.")
    when: dict[str, Scalar] = Field(
        {}, description="The parameter exists only while these other parameters have these values."
    )


class FloatDistribution(Config):
    """Real numbers from low to high."""

    type: Literal["float"] = Field(description="The kind of parameter.")
    low: float = Field(description="The smallest value.")
    high: float = Field(description="The largest value.")
    step: float | None = Field(
        None, gt=0, description="The distance between two values. None allows every value."
    )
    log: bool = Field(False, description="Whether values are drawn evenly on a logarithmic scale.")
    when: dict[str, Scalar] = Field(
        {}, description="The parameter exists only while these other parameters have these values."
    )


class CategoricalDistribution(Config):
    """One of the listed values."""

    type: Literal["categorical"] = Field(description="The kind of parameter.")
    choices: tuple[ShortScalar, ...] = Field(
        min_length=1, max_length=10000, description="The values to choose from."
    )
    when: dict[str, Scalar] = Field(
        {}, description="The parameter exists only while these other parameters have these values."
    )


Distribution = Annotated[
    IntDistribution | FloatDistribution | CategoricalDistribution, Field(discriminator="type")
]


class Objective(Config):
    """A validation metric to optimize. Benchmarks are reported, never searched on."""

    metric: str = Field(
        "val/top1",
        description="The metric of an epoch to optimize: one of those that training reports.",
    )
    mode: Literal["max", "min"] = Field("max", description="Whether more or less of it is better.")

    @property
    def is_maximized(self) -> bool:
        """Whether more is better."""
        return self.mode == "max"

    def gain(self, value: float) -> float:
        """The value, with its sign turned where less is better: of two gains the larger is the
        better one.
        """
        return value if self.is_maximized else -value

    def better(self, value: float, other: float) -> bool:
        """Whether the first value is the better one, and not only as good."""
        return self.gain(value) > self.gain(other)

    def best(self, values: Iterable[float]) -> float | None:
        """The best of the values; None if there is none."""
        return max(values, key=self.gain, default=None)


SamplerName = Literal["tpe", "gp", "cmaes", "nsgaii", "qmc", "random", "grid"]


class SamplerConfig(Config):
    """Which Optuna sampler proposes points."""

    name: SamplerName = Field("tpe", description="The Optuna sampler that proposes points.")
    num_startup_trials: int = Field(
        4,
        ge=1,
        le=MAX_TRIALS,
        description="How many random points are tried before the sampler's model proposes.",
    )


class SchedulerConfig(Config):
    """Which rule stops hopeless trials early, or (pbt) breeds them, judged on the first objective
    after some epochs.
    """

    name: Literal["none", "asha", "hyperband", "median", "pbt"] = Field(
        "none", description="The rule that stops hopeless trials early, or pbt, which breeds them."
    )
    grace_period: int = Field(
        1, ge=1, le=3000, description="How many epochs every trial may run before it is judged."
    )
    reduction_factor: int = Field(
        3,
        ge=2,
        le=1000,
        description="For asha and hyperband: one trial in so many goes on at each rung.",
    )
    form: Literal["promotion", "stopping"] | None = Field(
        None,
        description="For asha and hyperband: whether a trial pauses at each rung until it is among "
        "the best there (promotion), or ends if it is not among them when it gets there "
        "(stopping). None takes promotion, and stopping with search.lag.",
    )
    population: int = Field(
        8, ge=2, le=10000, description="For pbt: how many trials a generation has."
    )
    interval: int = Field(
        1, ge=1, le=3000, description="For pbt: how many epochs a generation trains."
    )


class SearchConfig(Config):
    """How the space is searched."""

    num_trials: int = Field(ge=1, le=MAX_TRIALS, description="How many trials the study has.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="The seed of all proposals.")
    lag: int | None = Field(
        None,
        ge=1,
        le=MAX_TRIALS,
        description="Trial n is proposed from trials 0 to n - lag, so that no proposal depends on "
        "which trial was faster. None proposes from all that is known: no slot ever waits.",
    )
    sampler: SamplerConfig = Field(SamplerConfig(), description="How points are proposed.")
    scheduler: SchedulerConfig = Field(
        SchedulerConfig(), description="How hopeless trials are stopped early."
    )
    objectives: tuple[Objective, ...] = Field(
        (Objective(),),
        min_length=1,
        max_length=8,
        description="What the search optimizes. Several objectives give a Pareto front.",
    )
    first_points: tuple[dict[str, ShortScalar], ...] = Field(
        (), max_length=MAX_TRIALS, description="Points that are tried before the sampler's own."
    )
    num_repeats: int = Field(
        1,
        ge=1,
        le=1000,
        description="How many trials each point gets, with train.seed, train.seed + 1, and so on. "
        "The sampler is told their mean.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        le=MAX_TRIALS,
        description="After how many trials without improvement the study ends. None never ends it "
        "so.",
    )
    max_wall_hours: float | None = Field(
        None,
        gt=0,
        description="How many hours after the study began no further trial starts. None sets no "
        "limit.",
    )
    max_gpu_hours: float | None = Field(
        None,
        gt=0,
        description="After how many GPU-hours of training no further trial starts. None sets no "
        "limit.",
    )
    max_first_failures: int = Field(
        3, ge=1, le=MAX_TRIALS, description="The study ends if its first so many trials all fail."
    )

    @model_validator(mode="after")
    def _lag_allows_the_form(self) -> Self:
        if self.lag is not None and self.scheduler.form == "promotion":
            raise ValueError(
                f"scheduler.form: found promotion with lag: {self.lag}; a trial that is paused "
                "waits for later ones, so leave out lag, or take form: stopping"
            )
        return self

    @model_validator(mode="after")
    def _objectives_differ(self) -> Self:
        metrics = [objective.metric for objective in self.objectives]
        if len(set(metrics)) < len(metrics):
            raise ValueError(f"objectives: found {metrics}, each metric may stand once")
        return self


# A new protocol stands in both.
Benchmark = Annotated[
    ZeroShot | Supervised | BaseToNovel | Development, Field(discriminator="mode")
]
ProtocolName = Literal["zero_shot", "supervised", "base_to_novel", "development"]


class ResourcesConfig(Config):
    """What one trial uses, and how many run at once."""

    num_workers: NumWorkers | tuple[NumWorkers, NumWorkers] = Field(
        1,
        description="Workers per trial, or [min, max]: shrinks when a node is lost, grows when it "
        "returns.",
    )
    cpus_per_worker: int = Field(1, ge=1, le=4096, description="CPU cores that each worker takes.")
    gpus_per_worker: float = Field(
        0,
        ge=0,
        le=1024,
        description="GPUs that each worker takes: a whole number, or a share of one such as 0.25.",
    )
    custom_per_worker: dict[ResourceName, Annotated[float, Field(ge=0.0001, le=1000000.0)]] = Field(
        {},
        max_length=100,
        description="Other resources of the cluster that each worker takes, such as "
        "{'accelerator_type:H100': 0.001}.",
    )
    placement: Literal["pack", "spread"] = Field(
        "pack",
        description="Whether the workers of one trial stand on few nodes near each other (pack), "
        "or on many (spread).",
    )
    max_concurrent_trials: int = Field(
        2, ge=1, le=10000, description="How many trials train at the same time."
    )
    scoring: Literal["beside", "after"] = Field(
        "beside",
        description="When trials are scored: beside training, in a slot that starts no trial while "
        "it scores, or after it, when slots are free.",
    )
    max_failures: int = Field(
        2,
        ge=0,
        le=10**6,
        description="How often a trial that broke off is restarted from its last checkpoint.",
    )
    max_preemptions: int = Field(
        100,
        ge=0,
        le=10**6,
        description="How often a trial is restarted whose machine was taken away after a warning.",
    )
    num_best_checkpoints: int = Field(
        1,
        ge=1,
        le=3000,
        description="Of how many best epochs a trial's checkpoints stay. That of its last epoch "
        "always stays.",
    )
    epoch_timeout_s: float = Field(
        6 * 3600,
        gt=0,
        le=366 * 24 * 3600,
        description="How many seconds a worker may take for an epoch. After that it counts as "
        "hung, and is restarted.",
    )

    @model_validator(mode="after")
    def _ray_can_give_them(self) -> Self:
        if self.gpus_per_worker > 1 and self.gpus_per_worker % 1:
            raise ValueError(
                f"gpus_per_worker: found {self.gpus_per_worker:g}, allowed are whole numbers, or a "
                "share below 1"
            )
        if 0 < self.gpus_per_worker < 1e-4:
            raise ValueError(
                f"gpus_per_worker: found {self.gpus_per_worker:g}, allowed are 0 and 0.0001 or more"
            )
        if taken := sorted(
            {"CPU", "GPU", "memory", "object_store_memory"} & self.custom_per_worker.keys()
        ):
            raise ValueError(
                f"custom_per_worker: found {taken[0]}, which is none; allowed are names that the "
                "cluster's nodes give"
            )
        return self

    @property
    def min_workers(self) -> int:
        """The fewest that a trial runs with."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[0]

    @property
    def max_workers(self) -> int:
        """The most that a trial runs with."""
        return self.num_workers if isinstance(self.num_workers, int) else self.num_workers[1]

    @property
    def per_worker(self) -> dict[str, float]:
        """What Ray sets aside for one worker, by its names."""
        return {"CPU": self.cpus_per_worker, "GPU": self.gpus_per_worker, **self.custom_per_worker}


class StudyConfig(Config):
    """One experiment file."""

    name: StudyName = Field(description="The study's name, under which everything of it is stored.")
    question: Prose = Field(description="What the study is to find out, in prose.")
    hypothesis: Prose = Field(description="What its authors expect, in prose.")
    train: TrainConfig = Field(description="The training that the search varies.")
    search_space: dict[str, Distribution] = Field(
        min_length=1,
        max_length=200,
        description="The parameters that vary, by their dotted path in train.",
    )
    search: SearchConfig = Field(description="How the space is searched.")
    benchmarks: tuple[Benchmark, ...] = Field(
        (), max_length=100, description="The datasets on which every trial is scored."
    )
    resources: ResourcesConfig = Field(
        ResourcesConfig(), description="What one trial uses, and how many run at once."
    )

    @model_validator(mode="after")
    def _benchmarks_differ(self) -> Self:
        names = [benchmark.name for benchmark in self.benchmarks]
        if len(set(names)) != len(names):
            raise ValueError(f"benchmarks: found {names}, each dataset and mode may stand once")
        return self

    @model_validator(mode="after")
    def _seeds_are_enough(self) -> Self:
        last = self.train.seed + self.search.num_repeats - 1
        if last > MAX_SEED:
            raise ValueError(
                f"train.seed: found {self.train.seed}, with {self.search.num_repeats} repeats the "
                f"last seed is {last}, allowed are seeds up to {MAX_SEED}"
            )
        return self

    @model_validator(mode="after")
    def _batches_can_be_shared(self) -> Self:
        fewest, most = self.resources.min_workers, self.resources.max_workers
        if fewest > most:
            raise ValueError(
                f"resources.num_workers: found [{fewest}, {most}], allowed is [fewest, most]"
            )
        for num_workers in range(fewest, most + 1):
            if self.train.batch_size % num_workers:
                raise ValueError(
                    f"train.batch_size: found {self.train.batch_size}, allowed are multiples of "
                    "every number of workers that resources.num_workers allows, such as "
                    f"{num_workers}"
                )
        return self

    @model_validator(mode="after")
    def _lag_keeps_slots_busy(self) -> Self:
        concurrent = self.resources.max_concurrent_trials
        lag = self.search.lag
        if lag is not None and concurrent > lag:
            raise ValueError(
                f"resources.max_concurrent_trials: found {concurrent}, allowed up to search.lag "
                f"({lag})"
            )
        return self

"""Intervals that cover what they claim, and equal models that are called equal, by simulation of
what is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from orchestrator.evaluation.pairing import Choice, paired_scores
from orchestrator.evaluation.protocols.base_to_novel import BaseToNovel
from orchestrator.evaluation.protocols.supervised import Supervised
from orchestrator.evaluation.statistics import (
    Outcomes,
    accuracy_interval,
    clip_differences,
    harmonic_mean,
    harmonic_mean_gradient,
    harmonic_mean_interval,
    holm,
    mcnemar_p_value,
    mean_and_std,
    paired_p_value,
)
from orchestrator.storage.records.score import BenchmarkScore
from testing.study_fixtures import STARTED, split_score
from vitaclip.config import DataConfig

Right = npt.NDArray[np.bool_]
MEAN_OF_3 = [1 / 3] * 3


def one_split(right: Right) -> Outcomes:
    n = len(right)
    return Outcomes(np.arange(n), np.full(n, "walk"), right)


def drawn_classes(right: Right, classes: Sequence[int]) -> Outcomes:
    """A split of some classes out of ``right [C, M]``: C classes of M clips each."""
    files = np.arange(right.size).reshape(right.shape)[list(classes)]
    labels = np.repeat([str(c) for c in classes], right.shape[1])
    return Outcomes(files.ravel(), labels, right[list(classes)].ravel())


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1, 0.5, 0.9, 0.97, 0.99])
@pytest.mark.parametrize("number", [1, 20, 40, 200, 1530])
def test_the_interval_of_one_split_covers(share: float, number: int) -> None:
    """Every possible outcome, weighted by its probability."""
    covered = 0.0
    for num_right in range(number + 1):
        probability = binom.pmf(num_right, number, share)
        if probability > 1e-7:
            interval = accuracy_interval([one_split(np.arange(number) < num_right)])
            covered += probability * (interval.low <= share <= interval.high)
    assert covered >= 0.93


def test_the_same_clips_three_times_are_no_more_clips() -> None:
    split = one_split(np.arange(100) < 60)
    once, thrice = accuracy_interval([split]), accuracy_interval([split] * 3)
    assert (once.low, once.high) == pytest.approx((thrice.low, thrice.high))


@pytest.mark.parametrize(("right", "wanted"), [(True, (0.832, 1.0)), (False, (0.0, 0.168))])
def test_twenty_of_twenty_prove_no_perfection(right: bool, wanted: tuple[float, float]) -> None:
    interval = accuracy_interval([one_split(np.full(20, right))] * 3)
    assert (interval.low, interval.high) == pytest.approx(wanted, abs=1e-3)


def test_no_clips_tell_nothing() -> None:
    interval = accuracy_interval([one_split(np.zeros(0, dtype=bool))])
    assert (interval.low, interval.high) == (0.0, 1.0)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.2])
def test_draws_of_classes_that_overlap_cover(spread: float) -> None:
    """Kinetics-600: three draws of 160 of 220 classes. The truth is the mean over all of them."""
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(400):
        base = np.clip(rng.normal(0.68, spread, 220), 0.02, 0.98)
        right = rng.random((220, 40)) < base[:, None]
        draws = [rng.choice(220, 160, replace=False).tolist() for _ in range(3)]
        interval = accuracy_interval([drawn_classes(right, draw) for draw in draws])
        covered.append(interval.low <= base.mean() <= interval.high)
    assert np.mean(covered) >= 0.93


@pytest.mark.parametrize("share", [0.5, 0.97])
@pytest.mark.parametrize("overlap", [0, 15, 30])
def test_lists_that_share_clips_of_all_classes_cover(share: float, overlap: int) -> None:
    """HMDB51's three lists: 30 clips of each of 51 classes, of which some stand in all three."""
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        right = rng.random((51, 90)) < share
        files = np.arange(right.size).reshape(right.shape)
        splits = []
        for k in range(3):
            columns = [*range(overlap), *range(30 * k + overlap, 30 * (k + 1))]
            labels = np.repeat([str(c) for c in range(51)], len(columns))
            splits.append(Outcomes(files[:, columns].ravel(), labels, right[:, columns].ravel()))
        interval = accuracy_interval(splits)
        covered.append(interval.low <= share <= interval.high)
    assert np.mean(covered) >= 0.93


def test_equal_models_on_splits_that_share_clips_are_called_equal() -> None:
    rng = np.random.default_rng(2)
    called = []
    for _ in range(600):
        base = np.clip(rng.normal(0.68, 0.2, 110), 0.02, 0.98)
        a, b = (rng.random((110, 8)) < base[:, None] for _ in range(2))
        draws = [rng.choice(110, 80, replace=False).tolist() for _ in range(3)]
        first, second = ([drawn_classes(right, draw) for draw in draws] for right in (a, b))
        called.append(paired_p_value(clip_differences(first, second, MEAN_OF_3)) < 0.05)
    assert 0.02 <= np.mean(called) <= 0.06


def test_a_real_difference_on_splits_that_share_clips_is_called_one() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.random((110, 8)) < share for share in (0.75, 0.65))
    draws = [rng.choice(110, 80, replace=False).tolist() for _ in range(3)]
    first, second = ([drawn_classes(right, draw) for draw in draws] for right in (a, b))
    differences = clip_differences(first, second, MEAN_OF_3)
    assert differences.sum() > 0
    assert paired_p_value(differences) < 0.01
    assert paired_p_value(-differences) == paired_p_value(differences)


def score_of(right: Right, split: str = "val") -> list[BenchmarkScore]:
    """A supervised score on the clips of the search, as the record holds it."""
    labels = [0] * len(right)
    found = split_score([0 if r else 1 for r in right], labels, split)
    benchmark = Supervised(dataset="quickstart", split=split, mode="supervised")
    metrics = {f"{benchmark.name}/top1": found.top1}
    return [
        BenchmarkScore(
            benchmark=benchmark,
            checkpoint="x",
            splits=(found,),
            metrics=metrics,
            scored_at=STARTED,
            duration_s=1,
        )
    ]


@pytest.mark.parametrize("base", [0.02, 0.2, 0.5, 0.95])
@pytest.mark.parametrize("novel", [0.02, 0.2, 0.5, 0.95])
@pytest.mark.parametrize(("num_base", "num_novel"), [(20, 20), (8, 40)])
def test_the_interval_of_a_harmonic_mean_covers(
    base: float, novel: float, num_base: int, num_novel: int
) -> None:
    """Every possible outcome of both halves, weighted by its probability."""
    intervals = {
        number: [accuracy_interval([one_split(np.arange(number) < k)]) for k in range(number + 1)]
        for number in (num_base, num_novel)
    }
    truth, covered = harmonic_mean([base, novel]), 0.0
    for i, j in product(range(num_base + 1), range(num_novel + 1)):
        probability = binom.pmf(i, num_base, base) * binom.pmf(j, num_novel, novel)
        if probability > 1e-7:
            found = harmonic_mean_interval(
                [i / num_base, j / num_novel], [intervals[num_base][i], intervals[num_novel][j]]
            )
            assert 0 <= found.low <= harmonic_mean([i / num_base, j / num_novel]) <= found.high <= 1
            covered += probability * (found.low <= truth <= found.high)
    assert covered >= 0.93


def test_a_harmonic_mean_grows_most_with_its_smaller_value() -> None:
    assert harmonic_mean([0.6, 0.3]) == pytest.approx(0.4)
    assert harmonic_mean([0.6, 0.0]) == 0
    slopes = harmonic_mean_gradient([0.6, 0.3])
    steps = [harmonic_mean([0.6 + 1e-6, 0.3]), harmonic_mean([0.6, 0.3 + 1e-6])]
    assert slopes == pytest.approx([(step - 0.4) / 1e-6 for step in steps], rel=1e-4)
    assert harmonic_mean_gradient([0.5, 0.5]) == pytest.approx([0.5, 0.5])


def halves_score(base: Right, novel: Right) -> list[BenchmarkScore]:
    """A base-to-novel score, as the record holds it."""
    found = [
        split_score([0 if r else 1 for r in right], [0] * len(right), split)
        for split, right in (("base_val", base), ("novel_val", novel))
    ]
    # no clip stands in both
    files = tuple(range(len(base), len(base) + len(novel)))
    splits = (found[0], found[1].model_copy(update={"files": files}))
    benchmark = BaseToNovel(dataset="ucf101", mode="base_to_novel")
    return [
        BenchmarkScore(
            benchmark=benchmark,
            checkpoint="x",
            splits=splits,
            metrics=benchmark.summarize(splits),
            scored_at=STARTED,
            duration_s=1,
        )
    ]


def test_the_p_value_of_a_harmonic_mean_is_that_of_every_exchange_of_both_models() -> None:
    """Two models on 10 base and 15 novel clips; on 6 of these they differ."""
    right = np.zeros((2, 25), dtype=bool)
    right[0, [0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 17, 18, 19]] = True
    right[1, [0, 1, 2, 10, 11, 12, 13, 14, 15, 16]] = True

    def difference(right: Right) -> float:
        first, second = (harmonic_mean([m[:10].mean(), m[10:].mean()]) for m in right)
        return first - second

    as_large = []
    for signs in product((False, True), repeat=6):
        places = np.flatnonzero(right[0] != right[1])[list(signs)]
        exchanged = right.copy()
        exchanged[:, places] = right[::-1, places]
        as_large.append(abs(difference(exchanged)) >= abs(difference(right)) - 1e-3)
    first, second = (halves_score(m[:10], m[10:]) for m in right)
    [[pair]] = paired_scores(first, [second])
    assert pair.p_value == pytest.approx(np.mean(as_large), abs=0.01)
    assert pair.top1[0] - pair.top1[1] == pytest.approx(difference(right))


def test_a_gain_on_novel_classes_counts_more_than_as_large_a_loss_on_base_classes() -> None:
    """The means of both models are the same, their harmonic means are 0.64 and 0.7."""
    count = np.arange(400)
    first = halves_score(count < 360, count < 200)
    second = halves_score(count < 280, count < 280)
    [[pair]] = paired_scores(first, [second])
    assert pair.top1 == pytest.approx((2 * 0.9 * 0.5 / 1.4, 0.7))
    assert pair.verdict == "second is better"
    assert (pair.only_first, pair.only_second) == (80, 80)


@pytest.mark.parametrize("num_trials", [2, 8, 16, 64])
def test_the_best_of_equal_trials_is_not_called_better_on_the_clips_it_was_chosen_on(
    num_trials: int,
) -> None:
    """Against an equally good frozen CLIP and the three next trials: any of the four called
    different is false.
    """
    rng = np.random.default_rng(4)
    choice = Choice(num_trials, frozenset({("quickstart", "val")}))
    called = []
    for _ in range(300):
        right = rng.random((num_trials + 1, 200)) < 0.5
        order = np.argsort(-right[:num_trials].sum(axis=1), kind="stable")
        others = [right[num_trials], *(right[n] for n in order[1:4])]
        pairs = paired_scores(
            score_of(right[order[0]]), [score_of(other) for other in others], choice
        )
        called.append(any(pair.verdict != "no difference shown" for [pair] in pairs))
    assert np.mean(called) <= 0.06


def test_a_clear_gain_of_the_best_trial_is_still_called_one() -> None:
    rng = np.random.default_rng(5)
    best, clip = rng.random(200) < 0.55, rng.random(200) < 0.11
    choice = Choice(64, frozenset({("quickstart", "val")}))
    [[pair]] = paired_scores(score_of(best), [score_of(clip)], choice)
    assert (pair.verdict, pair.num_choices) == ("first is better", 64)
    [[elsewhere]] = paired_scores(
        score_of(best, "zero_shot"), [score_of(clip, "zero_shot")], choice
    )
    assert elsewhere.num_choices == 1
    [[turned]] = paired_scores(score_of(clip), [score_of(best)], choice)
    assert turned.verdict == "second is better"


def test_the_best_trial_was_chosen_on_the_splits_that_its_epochs_were_scored_on() -> None:
    data = DataConfig(dataset="ucf101", train_split="few_shot_2", val_split="test_1")
    choice = Choice.of_best(data, 8)
    on = {
        split: choice.num_choices(Supervised(dataset="ucf101", split=split, mode="supervised"))
        for split in ("few_shot_2", "test_1", "test_2", "val")
    }
    assert on == {"few_shot_2": 1, "test_1": 8, "test_2": 1, "val": 1}
    developed = Choice.of_best(DataConfig(development="development"), 4)
    assert developed.splits == {("quickstart", "val"), ("quickstart", "development")}


def test_holm_multiplies_by_what_is_left() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 5), (5, 0), (3, 8), (6, 6)])
def test_mcnemar_counts_all_outcomes(first: int, second: int) -> None:
    n = first + second
    uneven = abs(first - second)
    outcomes = [abs(2 * sum(flips) - n) >= uneven for flips in product((0, 1), repeat=n)]
    assert mcnemar_p_value(first, second) == pytest.approx(np.mean(outcomes))


def test_mean_and_std() -> None:
    assert mean_and_std([0.4]) == (0.4, 0.0)
    assert mean_and_std([0.4, 0.6]) == pytest.approx((0.5, 0.02**0.5))

"""Our statistics against scikit-learn's and scipy's, on drawn data with ties, rare classes and few rows."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from hone_trainer.scores.classes import macro_f1
from hone_trainer.scores.intervals import bootstrap, mean, paired_difference, proportion
from hone_trainer.scores.preferences import area_under_curve

SEEDS = range(10)


@pytest.mark.parametrize("seed", SEEDS)
def test_macro_f1_is_scikit_learns_over_the_classes_that_occur(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth, answers = draw.integers(0, 6, size=(2, 5, 12))
    reference = [
        metrics.f1_score(true, answer, labels=np.union1d(true, answer), average="macro", zero_division=0.0)
        for true, answer in zip(truth, answers, strict=True)
    ]
    assert macro_f1(truth, answers, 6).tolist() == pytest.approx(reference)


@pytest.mark.parametrize("seed", SEEDS)
def test_area_under_curve_is_scikit_learns_with_ties(seed: int) -> None:
    draw = np.random.default_rng(seed)
    good = np.arange(40) < 15
    figures = draw.integers(0, 8, size=40) / 4
    rows = np.array([draw.permutation(40)[:30] for _ in range(4)])
    reference = [metrics.roc_auc_score(good[sample], figures[sample]) for sample in rows]
    assert area_under_curve(good, figures, rows).tolist() == pytest.approx(reference)


@pytest.mark.parametrize(("hits", "rows"), [(0, 1), (1, 1), (0, 24), (8, 10), (24, 24), (499, 1000)])
def test_a_proportions_interval_is_scipys_wilson_interval(hits: int, rows: int) -> None:
    interval = proportion(np.arange(rows) < hits)
    reference = stats.binomtest(hits, rows).proportion_ci(confidence_level=0.95, method="wilson")
    assert (interval.lower, interval.upper) == pytest.approx((reference.low, reference.high), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bootstrap_interval_is_scipys_percentile_bootstrap(seed: int) -> None:
    values = np.random.default_rng(seed).exponential(size=50)
    interval = bootstrap(lambda rows: values[rows].mean(axis=1), 50)
    # Two draws of 10,000 samples differ by about 2 % of the interval's width.
    reference = stats.bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=seed)
    low, high = reference.confidence_interval
    assert (interval.lower, interval.upper) == pytest.approx((low, high), abs=0.06 * (high - low))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_means_interval_has_scipys_interval_of_student_within(seed: int) -> None:
    values = np.random.default_rng(seed).exponential(size=50)
    interval, (low, high) = mean(values), stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    # The expansion of Student's quantile is not exact.
    assert interval.lower <= low + 1e-4 and interval.upper >= high - 1e-4


def test_a_paired_interval_excludes_zero_where_mcnemars_exact_test_does() -> None:
    draw, verdicts = np.random.default_rng(4), []
    for _ in range(300):
        base, tuned = draw.random((2, 80)) < draw.uniform(0.2, 0.8, size=(2, 1))
        only_base, only_tuned = int((base & ~tuned).sum()), int((tuned & ~base).sum())
        p = stats.binomtest(only_tuned, only_base + only_tuned).pvalue if only_base + only_tuned else 1.0
        if p < 0.02 or p > 0.12:  # Between them, the exact test and the interval may differ by right.
            interval = paired_difference(base, tuned)
            verdicts.append(p < 0.02)
            assert (interval.lower > 0 or interval.upper < 0) == (p < 0.02), (only_base, only_tuned)
    assert 50 < sum(verdicts) < len(verdicts) - 50

"""Scores of classification: figures by hand, intervals, and the most frequent class or classes as the base."""

import numpy as np
import pytest

from hone_trainer.data.classes import Classes
from hone_trainer.scores import several_classes
from hone_trainer.scores.classes import calibration_error, compare, macro_f1
from hone_trainer.scores.intervals import bootstrap

TWO = Classes(("bad", "good"), (60, 40))


def f1(truth: list[int], predicted: list[int], classes: int) -> float:
    return float(macro_f1(np.array([truth]), np.array([predicted]), classes)[0])


@pytest.mark.parametrize(
    ("truth", "predicted", "classes", "want"),
    [
        pytest.param([0, 1, 2], [0, 1, 2], 3, 1.0, id="all right"),
        pytest.param([0, 0, 1, 1], [0, 0, 0, 0], 2, (2 * 2 / 6 + 0) / 2, id="one class for all"),
        pytest.param([0, 0, 0, 1], [0, 0, 1, 1], 2, (4 / 5 + 2 / 3) / 2, id="by hand"),
        pytest.param([0, 0, 1], [0, 0, 1], 5, 1.0, id="classes without a row do not count"),
        pytest.param([0, 0], [0, 2], 3, (2 / 3 + 0) / 2, id="a class given wrongly counts"),
    ],
)
def test_macro_f1(truth: list[int], predicted: list[int], classes: int, want: float) -> None:
    assert f1(truth, predicted, classes) == pytest.approx(want)


def test_samples_are_told_apart() -> None:
    truth, predicted = np.array([[0, 1], [1, 1]]), np.array([[0, 1], [0, 0]])
    assert macro_f1(truth, predicted, 2).tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("confidence", "right", "want"),
    [
        pytest.param([1.0, 1.0], [1, 1], 0.0, id="sure and right"),
        pytest.param([1.0, 1.0], [1, 0], 0.5, id="sure, half right"),
        pytest.param([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 0], 0.0, id="as sure as right"),
        pytest.param([0.62, 0.68, 0.91, 0.97], [1, 0, 1, 1], (abs(1 - 1.30) + abs(2 - 1.88)) / 4, id="two bins"),
        pytest.param([0.6, 0.61], [0, 1], (0.6 + 0.39) / 2, id="a bin ends with its upper end"),
    ],
)
def test_calibration_error(confidence: list[float], right: list[int], want: float) -> None:
    errors = calibration_error(np.array([confidence]), np.array([right], dtype=bool))
    assert errors.tolist() == pytest.approx([want])


def test_a_bootstrap_of_a_mean_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, size=400)
    interval = bootstrap(lambda rows: values[rows].mean(axis=1), 400)
    error = values.std() / 20
    assert interval.lower == pytest.approx(interval.value - 1.96 * error, abs=0.15 * error)


def probabilities(answers: np.ndarray, sure: float) -> np.ndarray:
    return np.where(np.arange(2)[None] == answers[:, None], sure, 1 - sure)


def test_a_good_model_beats_the_most_frequent_class_outside_the_interval() -> None:
    truth = np.arange(100) % 2
    answers = np.where(np.arange(100) % 10 == 0, 1 - truth, truth)  # nine of ten are right
    evaluation, notes = compare(TWO, truth, probabilities(answers, 0.9))
    f1, accuracy, calibration = evaluation.scores
    assert [score.metric for score in evaluation.scores] == ["macroF1", "accuracy", "calibrationError"]
    assert f1.base.value == pytest.approx(1 / 3), "half of the rows are of the class that is given to all"
    assert f1.improvement.lower > 0
    assert f1.improvement.value == pytest.approx(f1.tuned.value - f1.base.value)
    assert accuracy.tuned.value == pytest.approx(0.9)
    assert accuracy.base.value == 0.5
    assert calibration.tuned.value == pytest.approx(0.0)
    assert calibration.base.value == pytest.approx(0.1), "it is right in 0.5, and sure to 0.6"
    assert not calibration.higher_is_better
    assert calibration.improvement.value == pytest.approx(0.1)
    assert "`bad`" in notes[0]


def test_the_most_frequent_class_is_no_better_than_itself() -> None:
    truth = np.arange(60) % 2
    evaluation, _ = compare(TWO, truth, probabilities(np.zeros(60, dtype=int), 0.6))
    for score in evaluation.scores:
        assert score.improvement.value == pytest.approx(0.0)
        assert score.improvement.lower <= 0 <= score.improvement.upper


def test_what_the_figures_cannot_tell_is_said() -> None:
    truth = np.zeros(30, dtype=int)
    _, notes = compare(TWO, truth, probabilities(truth, 0.9))
    assert "1 of 2 classes have no test row" in notes[1]
    assert "Every test row is classified correctly" in notes[2]


# Texts with several classes.

THREE = Classes(("late", "lost", "rude"), (60, 10, 30), total=100)


def of_sklearn(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    from sklearn.metrics import accuracy_score, f1_score

    f1 = [f1_score(truth, predicted, average=average, zero_division=0) for average in ("macro", "micro")]
    return [*f1, accuracy_score(truth, predicted)]


def test_scores_of_several_classes_are_those_of_scikit_learn() -> None:
    chance = np.random.default_rng(3)
    truth = chance.random((80, 3)) < 0.4
    tuned = np.clip(truth * 0.5 + chance.random((80, 3)) * 0.6, 0, 1)
    evaluation, notes = several_classes.compare(THREE, truth, tuned)
    assert [score.metric for score in evaluation.scores] == ["macroF1", "microF1", "subsetAccuracy"]
    base = np.broadcast_to(np.array([True, False, False]), truth.shape)
    assert [score.tuned.value for score in evaluation.scores] == pytest.approx(of_sklearn(truth, tuned >= 0.5))
    assert evaluation.scores[1].base.value == pytest.approx(of_sklearn(truth, base)[1])
    assert "`late`" in notes[0]
    assert "`rude`" not in notes[0]
    for score in evaluation.scores:
        assert score.samples == 80
        assert score.tuned.lower < score.tuned.value < score.tuned.upper
        assert score.improvement.lower > 0


def test_an_interval_of_several_classes_is_that_of_samples_of_whole_rows() -> None:
    chance = np.random.default_rng(4)
    truth = chance.random((50, 3)) < 0.4
    answers = truth ^ (chance.random((50, 3)) < 0.2)
    evaluation, _ = several_classes.compare(THREE, truth, answers.astype(float))

    def micro_f1(rows: np.ndarray) -> np.ndarray:
        hits = (truth & answers)[rows].sum(axis=(1, 2))
        return 2 * hits / (truth[rows].sum(axis=(1, 2)) + answers[rows].sum(axis=(1, 2)))

    expected = bootstrap(micro_f1, 50)
    assert evaluation.scores[1].tuned.lower == pytest.approx(expected.lower, abs=1e-6)
    assert evaluation.scores[1].tuned.upper == pytest.approx(expected.upper, abs=1e-6)


def test_the_base_of_several_classes_is_never_without_one() -> None:
    assert several_classes.guess(Classes(("a", "b"), (5, 9), total=100)).tolist() == [False, True]
    assert several_classes.guess(Classes(("a", "b"), (80, 90), total=100)).tolist() == [True, True]


def test_rows_without_any_class_are_right_where_none_is_predicted() -> None:
    evaluation, notes = several_classes.compare(THREE, np.zeros((20, 3), dtype=bool), np.full((20, 3), 0.2))
    f1, _, subsets = evaluation.scores
    assert (f1.tuned.value, subsets.tuned.value) == (0.0, 1.0)
    assert "3 of 3 classes have no test row" in " ".join(notes)

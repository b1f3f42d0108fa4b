"""Names, quantities, times and scores as text."""

from datetime import UTC, datetime

import pytest

from hone.contract.results import EvaluationSummary
from hone.core import names
from hone.core.finetunejob.status import scores
from hone.core.quantity import as_int
from hone.core.times import duration, rfc3339, seconds_since
from tests.unit.core import make


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("support-bot", "support-bot"),
        ("3b.v1-sft", "h-3b-v1-sft"),
        ("llama-3.1", "llama-3-1"),
        ("a..b", "a-b"),
        ("9", "h-9"),
        ("a" * 253, "a" * 40),
        ("a" * 39 + "-b", "a" * 39),
    ],
)
def test_slug(name: str, want: str) -> None:
    assert names.slug(name) == want


def test_names_that_share_a_slug_differ_by_their_hash() -> None:
    assert names.unique("a.b", "a.b") != names.unique("a-b", "a-b")
    assert names.unique("a", "uid-1") == names.unique("a", "uid-1")
    assert len(names.unique("a" * 253, "x")) == 47


@pytest.mark.parametrize(
    ("annotations", "want"),
    [
        ({"hone.dev/owner": "FineTuneJob/a.b"}, ("FineTuneJob", "a.b")),
        ({"hone.dev/owner": "nothing"}, None),
        ({}, None),
        (None, None),
    ],
)
def test_owner_of(annotations: dict[str, str] | None, want: tuple[str, str] | None) -> None:
    assert names.owner_of({"metadata": {"annotations": annotations}}) == want


@pytest.mark.parametrize(
    ("quantity", "want"),
    [
        ("4", 4),
        ("20Gi", 20 * 1024**3),
        ("1G", 10**9),
        ("1.5Gi", 3 * 1024**3 // 2),
        ("500m", 0),
        ("2500m", 2),
        ("1Ki", 1024),
    ],
)
def test_quantity(quantity: str, want: int) -> None:
    assert as_int(quantity) == want


@pytest.mark.parametrize("quantity", ["", "x", "1 Gi", "-1", "1Xi", "1e3"])
def test_what_is_no_quantity(quantity: str) -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        as_int(quantity)


@pytest.mark.parametrize(
    ("seconds", "want"),
    [
        (0, "0s"),
        (-5, "0s"),
        (59.4, "59s"),
        (60, "1m"),
        (719, "12m"),
        (3590, "1h"),
        (11_100, "3h5m"),
        (187_200, "2d4h"),
        (86_400, "1d"),
    ],
)
def test_duration(seconds: float, want: str) -> None:
    assert duration(seconds) == want


def test_times() -> None:
    moment = datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)
    assert rfc3339(moment) == "2026-01-31T12:00:00Z"
    assert seconds_since("2026-01-31T11:59:00Z", moment) == 60.5
    assert seconds_since("2026-01-31T13:00:00Z", moment) == 0
    assert seconds_since(None, moment) == 0


@pytest.mark.parametrize(
    ("tuned", "delta", "want"),
    [
        (0.912, (0.622, 0.551, 0.694), ("0.91", "+0.62 [0.55, 0.69]")),
        (0.3, (-0.05, -0.1, 0.0), ("0.30", "-0.05 [-0.10, 0.00]")),
        (0.00123, (0.0001, 0.00005, 0.0002), ("1.2e-03", "+1.0e-04 [5.0e-05, 2.0e-04]")),
    ],
)
def test_scores(tuned: float, delta: tuple[float, float, float], want: tuple[str, str]) -> None:
    summary = make.finished().evaluation
    assert summary is not None
    (score,) = summary.scores
    interval = score.improvement.model_copy(update=dict(zip(("value", "lower", "upper"), delta, strict=True)))
    changed = score.model_copy(
        update={"improvement": interval, "tuned": score.tuned.model_copy(update={"value": tuned})}
    )
    evaluation = EvaluationSummary(scores=[changed])
    assert (scores.score(evaluation), scores.improvement(evaluation)) == want


def test_no_scores() -> None:
    assert scores.score(EvaluationSummary(scores=[])) is None
    assert scores.improvement(EvaluationSummary(scores=[])) is None

"""Groups of test rows: the worst one, the gap, and intervals that hold for all groups together."""

import numpy as np
import pytest

from hone.contract.results import LEVELS
from hone_trainer.data.groups import check_groups, group_of
from hone_trainer.data.sources import Source
from hone_trainer.protocol.errors import BadInput
from hone_trainer.scores.figures import RowFigures
from hone_trainer.scores.groups import summarize


def figures(by_group: dict[str, tuple[float, float]], rows: int = 100) -> tuple[list[str], RowFigures]:
    """Hits of base and tuned model in the share that each group has of them."""
    names = [name for name in by_group for _ in range(rows)]
    base, tuned = (
        np.concatenate([np.arange(rows) < shares[which] * rows for shares in by_group.values()]).astype(float)
        for which in (0, 1)
    )
    return names, RowFigures("exactMatch", base, tuned)


def test_the_worst_group_and_the_gap_are_those_of_the_shares() -> None:
    summary = summarize("language", *figures({"en": (0.5, 0.9), "de": (0.5, 0.8), "fr": (0.5, 0.4)}))
    assert summary.worst and summary.worst_improvement and summary.gap
    assert (summary.column, summary.metric, summary.count, summary.insufficient) == ("language", "exactMatch", 3, 0)
    assert [group.name for group in summary.groups] == ["fr", "de", "en"], "the worst one first"
    assert summary.worst.value == pytest.approx(0.4)
    assert summary.worst_improvement.value == pytest.approx(-0.1)
    assert summary.gap.value == pytest.approx(0.5)
    assert summary.gap.lower > 0.2


def test_of_a_loss_the_worst_group_has_the_largest() -> None:
    chance = np.random.default_rng(0)
    base, tuned = chance.normal(3, 0.1, 200), np.concatenate([chance.normal(1, 0.1, 100), chance.normal(2, 0.1, 100)])
    summary = summarize("c", ["a"] * 100 + ["b"] * 100, RowFigures("loss", base, tuned, higher_is_better=False))
    assert summary.worst and summary.worst_improvement
    assert [group.name for group in summary.groups] == ["b", "a"]
    assert summary.worst.lower < summary.worst.value < summary.worst.upper
    assert summary.worst.value == pytest.approx(2, abs=0.05)
    assert summary.worst_improvement.value == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("rows", "count", "insufficient"), [(29, 0, 2), (30, 2, 0)])
def test_a_group_needs_thirty_rows(rows: int, count: int, insufficient: int) -> None:
    summary = summarize("c", *figures({"a": (0.5, 0.9), "b": (0.5, 0.9)}, rows))
    assert (summary.count, summary.insufficient) == (count, insufficient)
    assert (summary.worst is None) == (count == 0)


def test_rows_without_a_group_are_one_and_rows_without_a_figure_do_not_count() -> None:
    names, hits = figures({"a": (0.5, 0.9), "": (0.5, 0.9)}, 40)
    hits.tuned[:20] = np.nan
    summary = summarize("c", names, hits)
    assert ([group.name for group in summary.groups], summary.insufficient) == (["(none)"], 1)


def test_a_single_group_has_no_gap() -> None:
    assert summarize("c", *figures({"a": (0.5, 0.9)})).gap is None


def test_the_intervals_hold_for_the_worst_of_many_groups() -> None:
    """Ten groups with the same share: the worst value of a sample is far below it, its interval seldom."""
    chance, share, runs, below, above, seen_below = np.random.default_rng(1), 0.8, 400, 0, 0, 0
    names = [str(index) for index in range(10)] * 60
    for _ in range(runs):
        hits = (chance.random(len(names)) < share).astype(float)
        worst = summarize("c", names, RowFigures("m", hits, hits)).worst
        assert worst
        seen_below += worst.value < share
        below, above = below + (worst.upper < share), above + (worst.lower > share)
    assert below / runs <= 0.025 + 3 * (0.025 * 0.975 / runs) ** 0.5
    assert above == 0
    assert seen_below > 0.95 * runs, "figures alone would be wrong nearly always"


def test_bounds_are_known_at_all_confidences_and_get_wider() -> None:
    worst = summarize("c", *figures({"a": (0.5, 0.9), "b": (0.4, 0.7)})).worst
    assert worst and worst.levels and [*worst.levels] == [str(level) for level in LEVELS]
    bounds = [worst.at(level) for level in (0.9, 0.95, 0.99, 0.999)]
    assert all(bound is not None for bound in bounds)
    assert [bound[0] for bound in bounds if bound] == sorted((bound[0] for bound in bounds if bound), reverse=True)


@pytest.mark.parametrize(
    ("row", "group"),
    [
        ({"team": "a"}, "a"),
        ({"team": 7}, "7"),
        ({"team": True}, "True"),
        ({"team": None}, ""),
        ({"team": ["a"]}, ""),
        ({}, ""),
        ({"team": "x" * 100}, "x" * 63 + "…"),
        ({"meta": {"team": "a"}}, ""),
    ],
)
def test_a_group_is_a_text_a_number_or_a_boolean(row: dict[str, object], group: str) -> None:
    assert group_of(row, Source("test", (), group_by="team")) == group


def test_a_column_may_be_inside_an_object_or_have_another_name_for_the_split() -> None:
    assert group_of({"meta": {"team": "a"}}, Source("test", (), group_by="meta.team")) == "a"
    assert group_of({"group": "a"}, Source("test", (), columns={"group": "team"}, group_by="team")) == "a"


def test_a_column_that_no_test_row_has_is_refused() -> None:
    with pytest.raises(BadInput, match=r"spec.evaluation.groupBy.*no test row.*`team`"):
        check_groups(["", ""], "team")
    check_groups(["", "a"], "team")
    check_groups([], "team")

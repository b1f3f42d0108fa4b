"""Which watches are established: a namespace whose watches are all refused is away, and the others count alone."""

import logging

import pytest

from hone.runtime.coverage import Coverage

PATHS = {"/a/jobs": "a", "/a/pods": "a", "/b/jobs": "b", "/b/pods": "b"}


def covering(*answers: tuple[str, int], watches: dict[str, str] | None = None) -> Coverage:
    """A coverage after listings that ended, and watches that were answered so."""
    coverage = Coverage(watches or PATHS)
    for path, status in answers:
        if status == 200:
            coverage.listed(path)
        coverage.answered(path, status, is_watch=True)
    return coverage


def state(coverage: Coverage) -> tuple[bool, bool, set[str]]:
    """Whether all is listed, whether all is established, and what is away."""
    return coverage.all_listed, coverage.all_established, coverage.away


@pytest.mark.parametrize(
    ("answers", "want"),
    [
        ([("/a/jobs", 200)], (False, False, set())),
        ([("/a/jobs", 200), ("/a/pods", 200), ("/b/jobs", 403)], (False, False, set())),
        ([("/a/jobs", 200), ("/a/pods", 200), ("/b/jobs", 403), ("/b/pods", 403)], (True, True, {"b"})),
        ([("/a/jobs", 200), ("/a/pods", 200), ("/b/jobs", 503), ("/b/pods", 503)], (False, False, set())),
        ([(path, 403) for path in PATHS], (False, False, {"a", "b"})),
        ([(path, 200) for path in PATHS], (True, True, set())),
    ],
)
def test_readiness(answers: list[tuple[str, int]], want: tuple[bool, bool, set[str]]) -> None:
    assert state(covering(*answers)) == want


def test_one_that_comes_back_counts_again_until_it_is_watched() -> None:
    coverage = covering(*((path, 200) for path in PATHS), ("/b/jobs", 403), ("/b/pods", 403))
    assert coverage.namespaces == ["a"]
    coverage.answered("/b/jobs", 200, is_watch=False)
    assert state(coverage) == (True, False, set())
    for path in ("/b/jobs", "/b/pods"):
        coverage.answered(path, 200, is_watch=True)
    assert state(coverage) == (True, True, set()) and coverage.namespaces == ["a", "b"]


def test_a_cluster_whose_watches_are_refused_is_not_away_but_not_ready() -> None:
    refused = covering(("/jobs", 403), watches={"/jobs": ""})
    assert state(refused) == (False, False, set()) and refused.namespaces == [""]


def test_a_refusal_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        coverage = covering(("/b/jobs", 403), ("/b/pods", 403), ("/b/jobs", 403), ("/elsewhere", 403))
        assert [record.message for record in caplog.records if "refuses" in record.message] == [
            "the API server refuses a watch, which is tried again: /b/jobs",
            "the API server refuses a watch, which is tried again: /b/pods",
        ]
        assert sum("not watched" in record.message for record in caplog.records) == 1
        coverage.answered("/b/jobs", 200, is_watch=True)
        assert caplog.records[-1].message == "the namespace is watched again"

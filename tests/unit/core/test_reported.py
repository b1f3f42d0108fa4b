"""What pods report enters the status clean, bounded and valid, whatever it is: never an exception."""

import copy
import functools
import json
import unicodedata
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from jsonschema import Draft4Validator

from dev.schemas import strict
from hone.api.crds import crds
from hone.core import reported
from hone.core.events import normal
from hone.core.finetunejob.policies.failure import make as make_failure
from hone.core.kinds import KINDS
from hone.core.observed import Pod, ProgressReading
from tests.unit.core import hostile, make, runs
from tests.unit.core.fake_cluster import FakeCluster

STATES = {"prepare": runs.preparing, "train": runs.training, "finish": runs.finishing}
MAX_STATUS_BYTES = 64 * 1024
SEEDS = 500
"""Messages in the unit tier. `tests/soak/test_reported.py` takes half a million."""


@functools.cache
def status_schema() -> Draft4Validator:
    """The status of a FineTuneJob as its CRD describes it, without further fields."""
    schema = crds()["finetunejobs"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return Draft4Validator(strict(schema["properties"]["status"]))


@functools.cache
def _state(step: str) -> FakeCluster:
    return STATES[step]()


def cluster_at(step: str) -> FakeCluster:
    """A run at that step, to be changed."""
    return copy.deepcopy(_state(step))


def texts(node: Any) -> Iterator[str]:
    """Every text in a value, the keys included."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for key, inner in node.items():
            yield key
            yield from texts(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from texts(inner)


def assert_clean(cluster: FakeCluster) -> None:
    """The status is what the API server accepts, small, and shows every character; so do the Events."""
    errors = [
        f"{'.'.join(map(str, error.path))}: {error.message}" for error in status_schema().iter_errors(cluster.status)
    ]
    assert not errors, errors
    assert len(json.dumps(cluster.status, allow_nan=False)) < MAX_STATUS_BYTES
    for shown in (*texts(cluster.status), *(event.message for event in cluster.events)):
        assert not hidden(shown), ascii(shown)


def hidden(shown: str) -> bool:
    """Whether a character of it shows nothing, or changes how others are shown."""
    plain = shown.isascii() and shown.isprintable()
    return not plain and any(
        unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or character in hostile.HIDDEN
        for character in shown
    )


def report(random: Random) -> None:
    """One hostile report of any kind, as the operator meets it."""
    result = random.choice(hostile.results())
    cluster = cluster_at(random.choice((result.step, *STATES)))
    if random.random() < 0.3:
        target = KINDS["FineTuneJob"].progress_target(
            cluster.resource, tuple(Pod(pod) for pod in cluster.pods.values())
        )
        if target is not None:
            answer = hostile.changed(random, hostile.progress(target.pod_uid).to_dict())
            cluster.progress = reading(answer, target.pod_uid)
            cluster.reconcile()
            assert_clean(cluster)
    message = hostile.changed(random, result.to_dict()).decode(errors="replace")
    if random.random() < 0.5:
        cluster.complete(message)
    else:
        cluster.fail(random.choice((64, 65, 70, 137, 143, 3)), message, random.choice(("Error", "OOMKilled")))
    cluster.reconcile()
    assert_clean(cluster)


def reading(answer: bytes, pod_uid: str) -> ProgressReading:
    """A pod's answer as the runtime's reader passes it on."""
    try:
        return ProgressReading(pod_uid, progress=reported.progress(answer, pod_uid))
    except ValueError as error:
        return ProgressReading(pod_uid, error=reported.text(str(error), 256))


@pytest.mark.parametrize("part", range(10))
@pytest.mark.slow
def test_no_report_breaks_a_status(part: int) -> None:
    for seed in range(part * SEEDS // 10, (part + 1) * SEEDS // 10):
        try:
            report(Random(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("plain words", "plain words"),
        ("naïve “quotes” 日本語 ‑ \u00a0", "naïve “quotes” 日本語 ‑ \u00a0"),
        ("two\nlines\r\n\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x1b[0m", "\\u001b[31mred\\u001b[0m"),
        ("invoice \u202efdp.exe", "invoice \\u202efdp.exe"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("half \ud800", "half \\ud800"),
        ("C1 \x9b31m", "C1 \\u009b31m"),
    ],
)
def test_words(words: str, shown: str) -> None:
    assert reported.text(words) == shown
    assert reported.text(shown) == shown, "shown again, nothing changes"
    assert make_failure("Crashed", words).message == shown  # type: ignore[arg-type]
    assert normal("Reason", words).message == shown


@pytest.mark.parametrize("words", ["x" * 5000, "\u202e" * 5000, "x" * 19 + "\u202e", "x" * 14 + "\u202e" + "x"])
def test_words_are_cut_after_they_are_escaped(words: str) -> None:
    shown = reported.text(words, 20)
    assert len(shown) <= 20 and (shown.endswith("…") or len(words) < 20)


def test_escapes_that_make_a_verdict_too_long_do_not_lose_it() -> None:
    words = "\x1b[31m" * 200
    result = reported.step_result(make.verdict("Diverged", words).to_json())
    assert result and result.verdict and result.verdict.failure_class == "Diverged"
    assert result.verdict.message.startswith("\\u001b[31m") and len(result.verdict.message) == 1024


def test_a_message_longer_than_the_kubelet_keeps_is_none() -> None:
    assert reported.step_result(make.trained().to_json()) is not None
    assert reported.step_result(make.trained().to_json() + " " * 4096) is None


@pytest.mark.parametrize("steps", [2**31, 2**63, 10**30, -1, 1e300])
def test_a_count_is_at_most_int32(steps: float) -> None:
    message = json.dumps({**make.trained().to_dict(), "finalStep": steps})
    assert reported.step_result(message) is None
    plan = {**make.training_plan().to_dict(), "totalSteps": steps}
    assert reported.step_result(json.dumps({**make.prepared().to_dict(), "plan": plan})) is None


def test_a_score_of_hundreds_of_digits_fits_its_column() -> None:
    cluster = cluster_at("finish")
    result = make.finished().to_dict()
    for interval in ("base", "tuned", "improvement"):
        result["evaluation"]["scores"][0][interval] = {"value": -1e300, "lower": -1e300, "upper": 1e300}
    cluster.complete(json.dumps(result))
    cluster.reconcile()
    assert_clean(cluster)
    assert cluster.status["improvement"] == "-1.0e+300 [-1.0e+300, 1.0e+300]"


def test_a_label_that_is_no_index() -> None:
    cluster = cluster_at("train")
    for index in ("²", "9" * 63, "-1", "x"):
        for pod in cluster.pods.values():
            pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = index
        cluster.reconcile()
        assert_clean(cluster)

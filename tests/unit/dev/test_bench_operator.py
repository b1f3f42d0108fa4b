"""The comparison of operators: what is counted of the audit log, and when a job of each side is done."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from dev.audit import AuditLog, Request
from dev.bench_operator import NAMESPACE, Jobs
from dev.bench_sides import SIDES
from hone.core.observed import Object

COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}


class Cluster:
    """Keeps what is created."""

    def __init__(self) -> None:
        self.created: list[Object] = []

    async def create(self, namespace: str, body: Object) -> Object:
        assert namespace == NAMESPACE
        self.created.append(body)
        return body


def event(stage: str, verb: str, user: str = "u", **ref: str) -> str:
    return json.dumps({"stage": stage, "verb": verb, "user": {"username": user}, "objectRef": ref}) + "\n"


def test_each_request_since_then_counts_once_and_a_watch_when_it_begins(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_text(event("ResponseComplete", "get", resource="pods"))
    counted = AuditLog(tmp_path)
    with log.open("a") as file:
        file.write(event("ResponseComplete", "update", resource="jobs", subresource="status"))
        file.write(event("ResponseStarted", "watch", resource="pods"))
        file.write(event("ResponseComplete", "watch", resource="pods"))
        file.write(json.dumps({"stage": "ResponseComplete", "verb": "get", "user": {"username": "v"}}) + "\n")
        file.write(event("ResponseComplete", "get", resource="pods")[:-9])
    assert counted.count() == Counter(
        [Request("u", "update", "jobs/status"), Request("u", "watch", "pods"), Request("v", "get", "other")]
    )


def pod(**labels: str) -> Object:
    return {"metadata": {"name": "pod", "labels": {key.replace("__", "/"): value for key, value in labels.items()}}}


def done(obj: Object, **status: Any) -> Object:
    return {**obj, "status": status or COMPLETE}


async def test_of_two_plain_jobs_the_second_is_created_once_and_both_must_be_done() -> None:
    side, cluster = SIDES["two Jobs"], Cluster()
    jobs = Jobs(side, cluster)  # type: ignore[arg-type]
    await jobs.create(1)
    first = cluster.created[0]
    await jobs.saw_job(first)
    for _ in range(2):
        await jobs.saw_job(done(first))
    assert [obj["metadata"]["name"] for obj in cluster.created] == ["run-0", "run-0-second"] and jobs.done() == 0
    jobs.saw_pod(pod(**{"job-name": "run-0"}))
    assert jobs.waits() == [], "that of the first is no trainer"
    jobs.saw_pod(pod(**{"job-name": "run-0-second"}))
    await jobs.saw_job(done(cluster.created[1]))
    assert len(jobs.waits()) == 1 and jobs.done() == 1


async def test_a_job_of_ours_is_done_when_it_succeeded_and_waits_for_the_pod_that_trains() -> None:
    jobs = Jobs(SIDES["Hone"], Cluster())  # type: ignore[arg-type]
    await jobs.create(2)
    labels = {"hone.dev__job": "run-1"}
    jobs.saw_pod(pod(**labels, **{"hone.dev__step": "prepare"}))
    assert jobs.waits() == []
    jobs.saw_pod(pod(**labels, **{"hone.dev__step": "train"}))
    assert len(jobs.waits()) == 1
    job = SIDES["Hone"].job("run-1")
    await jobs.saw_job(done(job, phase="Training"))
    assert jobs.done() == 0
    await jobs.saw_job(done(job, phase="Succeeded"))
    assert jobs.done() == 1

"""Rollouts of a ModelDeployment: a candidate next to the stable revision, its share, its end, and the way back."""

import copy
from contextlib import suppress
from typing import Any

import pytest

from hone.core.modeldeployment.canary import pods_for, share_of
from hone.core.observed import Ref
from tests.unit.core import make
from tests.unit.core.canaries import (
    CANARY,
    CRASH,
    crash,
    deployments,
    new_artifact,
    pod,
    records,
    selector,
    through,
    trying,
    unschedulable,
    up,
)
from tests.unit.core.fake_cluster import Crash, FakeCluster
from tests.unit.core.test_modeldeployment_lifecycle import DIGEST, OTHER, deployment, owners, roll_out, served
from tests.unit.core.test_modeldeployment_lifecycle import cluster as a_cluster

THIRD = "sha256:" + "c" * 64
STABLE = {"hone.dev/uid": "mdep-uid", "hone.dev/step": "serve"}
CANDIDATE = {"hone.dev/uid": "mdep-uid", "hone.dev/step": "serve-candidate"}
BOTH = {"hone.dev/uid": "mdep-uid"}


def digests(cluster: FakeCluster) -> dict[str, str]:
    """Which artifact the pods of each role serve, by its claim."""
    return {
        role: volume["persistentVolumeClaim"]["claimName"]
        for role, live in deployments(cluster).items()
        for volume in live["spec"]["template"]["spec"]["volumes"]
        if volume.get("persistentVolumeClaim", {}).get("claimName", "").endswith("-output")
    }


def test_a_candidate_runs_next_to_the_stable_revision_and_gets_no_request_before_it_is_ready() -> None:
    cluster = trying()
    assert digests(cluster) == {"stable": "job-output", "candidate": "job2-output"}
    assert selector(cluster) == STABLE
    assert cluster.condition("Progressing") == ("True", "CandidateStarting")
    assert cluster.condition("Available") == ("True", "ServersReady")
    assert (cluster.status["stable"]["digest"], cluster.status["candidate"]["digest"]) == (DIGEST, OTHER)
    assert cluster.status["candidate"]["weight"] == 0


def test_the_pods_of_neither_role_are_selected_by_the_other_ones_deployment() -> None:
    selectors = [live["spec"]["selector"]["matchLabels"] for live in deployments(trying()).values()]
    assert selectors == [STABLE, CANDIDATE]


def test_a_ready_candidate_gets_its_share_for_as_long_as_the_step_says() -> None:
    cluster = through(trying(), "candidate")
    assert selector(cluster) == BOTH
    assert cluster.condition("Progressing") == ("True", "CanaryStep")
    assert "step 1 of 1: the candidate gets 50 % of the requests for 60 s" in cluster.message("Progressing")
    assert cluster.status["candidate"]["weight"] == 50
    assert cluster.reconcile().requeue_after == 60
    assert cluster.later(59).reconcile().requeue_after == 1
    assert "step" in cluster.status["candidate"]
    assert digests(cluster)["stable"] == "job-output"


def test_after_its_steps_it_replaces_the_stable_revision_and_its_own_pods_go_last() -> None:
    cluster = through(trying(), "candidate").later(60)
    cluster.converge()
    assert digests(cluster) == {"stable": "job2-output", "candidate": "job2-output"}
    assert selector(cluster) == BOTH
    assert cluster.status["stable"]["digest"] == DIGEST
    through(cluster, "stable")
    assert digests(cluster) == {"stable": "job2-output"}
    assert selector(cluster) == STABLE
    assert cluster.condition("Ready") == ("True", "Serving")
    assert cluster.status["stable"]["digest"] == OTHER
    assert {"candidate", "rejected"}.isdisjoint(cluster.status)
    assert [entry["role"] for entry in cluster.status["revisions"]] == ["stable"]


def test_without_steps_it_replaces_the_stable_revision_once_it_is_ready() -> None:
    cluster = through(trying({"strategy": "Canary"}), "candidate")
    assert digests(cluster)["stable"] == "job2-output"
    assert selector(cluster) == STABLE


def test_where_no_third_pod_fits_the_candidates_own_make_room_for_the_stable_ones() -> None:
    cluster = through(trying({"strategy": "Canary"}), "candidate")
    unschedulable(cluster, "stable")
    cluster.converge()
    assert digests(cluster) == {"stable": "job2-output"}
    cluster.pods.clear()
    through(cluster, "stable")
    assert cluster.status["stable"]["digest"] == OTHER


def test_a_step_of_all_requests_leaves_none_to_the_old_revision() -> None:
    cluster = trying({"strategy": "Canary", "steps": [{"weight": 100}]})
    assert selector(through(cluster, "candidate")) == CANDIDATE


@pytest.mark.parametrize("is_promoted", [False, True])
def test_while_no_pod_of_it_answers_the_old_revision_gets_all_requests_again(is_promoted: bool) -> None:
    cluster = through(trying({"strategy": "Canary", "steps": [{"weight": 100, "holdSeconds": 60}]}), "candidate")
    cluster.later(60 * is_promoted).converge()
    assert (digests(cluster)["stable"], selector(cluster)) == (
        "job2-output" if is_promoted else "job-output",
        CANDIDATE,
    )
    deployments(cluster)["candidate"]["status"] |= {"availableReplicas": 0, "readyReplicas": 0}
    cluster.converge()
    assert selector(cluster) == STABLE
    assert cluster.status["candidate"].get("weight", 0) == 0
    through(cluster.later(1000), "candidate")
    assert is_promoted or cluster.reconcile().requeue_after == 60
    through(cluster.later(60), "stable", "stable")
    assert cluster.status["stable"]["digest"] == OTHER


def test_the_hold_begins_once_the_pods_of_the_step_are_ready() -> None:
    steps = [{"weight": 25, "holdSeconds": 10}, {"weight": 50, "holdSeconds": 10}]
    cluster = through(trying({"strategy": "Canary", "steps": steps}, replicas=4), "candidate").later(10)
    cluster.converge()
    assert deployments(cluster)["candidate"]["spec"]["replicas"] == 4
    assert cluster.later(1000).converge().requeue_after is None
    assert cluster.condition("Progressing") == ("True", "CandidateStarting")
    assert through(cluster, "candidate").reconcile().requeue_after == 10


def test_the_hold_begins_once_the_service_sends_requests_to_the_candidate() -> None:
    cluster = trying()
    up(cluster, "candidate")
    cluster.reconcile()
    name = cluster.subject().service.name  # type: ignore[attr-defined]
    service = cluster.objects[Ref("v1", "Service", name)]
    service["spec"]["selector"] = dict(STABLE)  # As if the write had not been seen yet.
    cluster.reconcile()
    assert "since" not in cluster.status["candidate"]
    cluster.converge()
    assert "since" in cluster.status["candidate"]


def test_paused_it_keeps_its_share_until_it_is_not() -> None:
    cluster = through(trying({**CANARY, "paused": True}), "candidate").later(1000)
    cluster.converge()
    assert cluster.condition("Progressing") == ("Unknown", "Paused")
    assert cluster.condition("Reconciling")[0] == cluster.condition("Ready")[0] == "False"
    assert digests(cluster)["stable"] == "job-output"
    cluster.edit(rollout=CANARY).converge()
    assert digests(cluster)["stable"] == "job2-output"


def test_paused_without_steps_it_gets_no_request_until_it_is_not() -> None:
    cluster = through(trying({"strategy": "Canary", "paused": True}), "candidate").later(1000)
    cluster.converge()
    assert cluster.condition("Progressing") == ("Unknown", "Paused")
    assert digests(cluster) == {"stable": "job-output", "candidate": "job2-output"}
    assert selector(cluster) == STABLE
    cluster.edit(rollout={"strategy": "Canary"}).converge()
    assert digests(cluster)["stable"] == "job2-output"


def test_paused_it_stays_at_its_step_while_there_are_no_servers() -> None:
    cluster = through(trying({**CANARY, "paused": True}), "candidate")
    cluster.edit(replicas=0).converge()
    assert cluster.condition("Progressing") == ("Unknown", "NoServers")
    assert digests(cluster)["stable"] == "job-output"
    cluster.edit(replicas=1).converge()
    through(cluster, "stable", "candidate")
    assert (cluster.condition("Progressing"), selector(cluster)) == (("Unknown", "Paused"), BOTH)


@pytest.mark.parametrize("count", [1, 3])
def test_a_candidate_without_a_gpu_is_waited_for_and_says_what_helps(count: int) -> None:
    cluster = trying(gpus=count)
    unschedulable(cluster, "candidate")
    cluster.later(100_000).converge()
    assert cluster.condition("Progressing") == ("True", "NoSpareGPU")
    assert f"no node has {count} free nvidia.com/gpu" in cluster.message("Progressing")
    assert "set spec.rollout.strategy to Recreate" in cluster.message("Progressing")
    assert "still serving aaaaaaaa" in cluster.message("Progressing")
    assert "rejected" not in cluster.status
    assert cluster.condition("Available")[0] == "True"
    assert cluster.reasons().count("NoSpareGPU") == 1


def test_a_candidate_that_crashes_again_and_again_is_removed_and_remembered() -> None:
    cluster = trying()
    crash(cluster, "candidate")
    cluster.converge()
    assert digests(cluster) == {"stable": "job-output"}
    assert cluster.condition("Ready") == ("True", "Serving")
    assert cluster.condition("Available") == ("True", "ServersReady")
    assert cluster.condition("Progressing") == ("False", "CandidateRejected")
    assert CRASH in cluster.message("Progressing")
    assert cluster.message("Progressing").endswith("; still serving aaaaaaaa")
    (rejected,) = cluster.status["rejected"]
    assert rejected["reason"] == "CrashLoopBackOff"
    assert cluster.reasons().count("CandidateRejected") == 1
    assert cluster.status["stable"]["digest"] == DIGEST
    assert "candidate" not in cluster.status
    before = cluster.writes
    cluster.later(100_000).converge()
    assert cluster.writes == before


def test_its_claim_is_given_back() -> None:
    cluster = trying()
    owners = cluster.objects[next(ref for ref in cluster.objects if ref.name == "job2-output")]["metadata"]
    assert "mdep-uid" in [owner["uid"] for owner in owners["ownerReferences"]]
    crash(cluster, "candidate")
    cluster.converge()
    owners = cluster.objects[next(ref for ref in cluster.objects if ref.name == "job2-output")]["metadata"]
    assert "mdep-uid" not in [owner["uid"] for owner in owners["ownerReferences"]]


@pytest.mark.parametrize("restarts", [1, 2])
def test_a_few_crashes_reject_nothing(restarts: int) -> None:
    cluster = trying()
    crash(cluster, "candidate", restarts)
    cluster.converge()
    assert cluster.condition("Progressing") == ("True", "CrashLoopBackOff")
    assert "rejected" not in cluster.status


def test_where_the_stable_servers_crash_too_nothing_is_rejected() -> None:
    cluster = trying()
    crash(cluster, "candidate")
    crash(cluster, "stable")
    cluster.converge()
    assert "rejected" not in cluster.status


def test_another_retry_tries_it_again_once() -> None:
    cluster = trying()
    crash(cluster, "candidate")
    cluster.converge()
    cluster.pods.clear()
    cluster.edit(rollout={**CANARY, "retry": "with the new driver"}).converge()
    assert digests(cluster)["candidate"] == "job2-output"
    crash(cluster, "candidate")
    cluster.converge()
    assert len(cluster.status["rejected"]) == 2
    assert digests(cluster) == {"stable": "job-output"}


def test_a_retry_that_succeeded_may_be_removed() -> None:
    cluster = trying()
    crash(cluster, "candidate")
    cluster.converge()
    cluster.pods.clear()
    cluster.edit(rollout={**CANARY, "retry": "with the new driver"}).converge()
    through(through(cluster, "candidate").later(60), "stable", "stable")
    cluster.edit(rollout=CANARY).converge()
    assert cluster.status["stable"]["digest"] == OTHER
    assert cluster.condition("Progressing") == ("False", "RolledOut")


def test_a_third_revision_takes_the_candidates_place_from_the_beginning() -> None:
    cluster = through(trying(), "candidate")
    assert cluster.status["candidate"]["step"] == 0
    new_artifact(cluster, THIRD, "job3-output", "job-uid-3")
    assert digests(cluster) == {"stable": "job-output", "candidate": "job3-output"}
    assert "step" not in cluster.status["candidate"]
    assert cluster.status["candidate"]["weight"] == 0
    assert selector(cluster) == STABLE


def test_a_third_revision_is_tried_after_the_second_was_rejected() -> None:
    cluster = trying()
    crash(cluster, "candidate")
    cluster.converge()
    cluster.pods.clear()
    new_artifact(cluster, THIRD, "job3-output", "job-uid-3")
    assert digests(cluster)["candidate"] == "job3-output"
    through(through(cluster, "candidate").later(60), "stable", "stable")
    assert cluster.status["stable"]["digest"] == THIRD


def test_an_edit_that_is_undone_removes_the_candidate() -> None:
    cluster = served(rollout=CANARY, replicas=1)
    cluster.edit(runtime={"args": ["--seed=1"]}).converge()
    assert set(digests(cluster)) == {"stable", "candidate"}
    cluster.edit(runtime={}).converge()
    del cluster.resource["spec"]["runtime"]
    cluster.edit().converge()
    assert set(digests(cluster)) == {"stable"}
    assert cluster.condition("Ready") == ("True", "Serving")


@pytest.mark.parametrize("edit", [{"servedName": "bot"}, {"model": {"jobRef": {"name": "job2"}}}])
def test_an_edit_that_changes_no_pod_is_no_candidate(edit: dict[str, Any]) -> None:
    cluster = served(rollout=CANARY, replicas=1)
    pods = deployment(cluster)["spec"]["template"]
    cluster.edit(**edit).converge()
    assert set(deployments(cluster)) == {"stable"}
    assert deployment(cluster)["spec"]["template"] == pods
    assert cluster.condition("Ready")[0] == "True"


def promoting() -> FakeCluster:
    """A cluster whose candidate has passed its steps and begins to replace the stable revision."""
    cluster = through(trying(), "candidate").later(60)
    cluster.converge()
    assert digests(cluster)["stable"] == "job2-output"
    assert cluster.status["stable"]["digest"] == DIGEST
    return cluster


def test_a_third_revision_is_tried_next_to_the_second_that_has_passed_and_keeps_its_claim() -> None:
    cluster = promoting()
    new_artifact(cluster, THIRD, "job3-output", "job-uid-3")
    assert digests(cluster) == {"stable": "job2-output", "candidate": "job3-output"}
    assert cluster.status["stable"]["digest"] == OTHER
    assert {"step", "weight"}.isdisjoint(cluster.status["stable"])
    claims = ("job-output", "job2-output", "job3-output")
    assert [claim for claim in claims if "mdep-uid" in owners(cluster, claim)] == ["job2-output", "job3-output"]
    crash(cluster, "candidate")
    cluster.converge()
    through(cluster, "stable")
    assert digests(cluster) == {"stable": "job2-output"}
    assert cluster.condition("Progressing") == ("False", "CandidateRejected")


def test_an_edit_that_is_undone_while_it_replaces_the_stable_revision_brings_that_back() -> None:
    cluster = served(rollout=CANARY, replicas=1)
    spec = copy.deepcopy(cluster.resource["spec"])
    cluster.edit(runtime={"args": ["--seed=1"]}).converge()
    through(cluster, "candidate").later(60).converge()
    assert "--seed=1" in deployments(cluster)["stable"]["spec"]["template"]["spec"]["containers"][0]["args"]
    cluster.resource["spec"] = spec
    cluster.edit().converge()
    assert set(deployments(cluster)) == {"stable"}
    through(cluster, "stable")
    assert "--seed=1" not in deployment(cluster)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert cluster.condition("Ready") == ("True", "Serving")


def test_a_stable_deployment_that_somebody_deletes_comes_back_and_its_candidate_goes_on() -> None:
    cluster = through(trying(), "candidate")
    before = deployments(cluster)["stable"]["spec"]
    cluster.objects = {ref: obj for ref, obj in cluster.objects.items() if obj.get("spec") is not before}
    cluster.converge()
    assert digests(cluster) == {"candidate": "job2-output", "stable": "job-output"}
    assert (cluster.status["stable"]["digest"], cluster.status["candidate"]["step"]) == (DIGEST, 0)
    assert deployments(cluster)["stable"]["spec"] == before
    assert selector(cluster) == BOTH
    through(cluster.later(60), "stable", "stable")
    assert cluster.status["stable"]["digest"] == OTHER


@pytest.mark.parametrize("strategy", ["RollingUpdate", "Recreate"])
def test_a_candidate_is_tried_next_to_what_was_stable_before_another_strategy_began(strategy: str) -> None:
    cluster = trying({"strategy": strategy})
    assert digests(cluster) == {"stable": "job2-output"}
    cluster.edit(rollout=CANARY).converge()
    assert digests(cluster) == {"stable": "job2-output"}
    new_artifact(cluster, THIRD, "job3-output", "job-uid-3")
    assert digests(cluster) == {"stable": "job-output", "candidate": "job3-output"}
    through(through(cluster, "stable", "candidate").later(60), "stable", "stable")
    assert cluster.status["stable"]["digest"] == THIRD


def test_another_strategy_removes_the_candidate_and_rolls_out() -> None:
    cluster = trying()
    cluster.edit(rollout={"strategy": "RollingUpdate"}).converge()
    assert digests(cluster) == {"stable": "job2-output"}
    through(cluster, "stable")
    assert cluster.status["stable"]["digest"] == OTHER


def test_the_field_itself_restarts_no_server() -> None:
    cluster = served(replicas=1)
    before = deployment(cluster)
    cluster.edit(rollout=CANARY).converge()
    assert deployment(cluster) == before
    assert cluster.condition("Ready") == ("True", "Serving")


def test_the_first_revision_has_nothing_to_be_tried_next_to() -> None:
    cluster = a_cluster(make.complete_job(DIGEST), rollout=CANARY)
    cluster.converge()
    assert ("stable" in cluster.status, cluster.status["candidate"]["digest"]) == (False, DIGEST)
    roll_out(cluster)
    cluster.converge()
    assert set(digests(cluster)) == {"stable"}
    assert cluster.condition("Ready") == ("True", "Serving")


def test_scaling_goes_on_while_a_candidate_is_tried() -> None:
    cluster = through(trying(), "candidate")
    cluster.edit(replicas=3).converge()
    assert {role: live["spec"]["replicas"] for role, live in deployments(cluster).items()} == {
        "stable": 3,
        "candidate": 3,
    }


def pods_of_roles(cluster: FakeCluster) -> dict[str, int]:
    """How many pods each role is to have."""
    return {role: live["spec"]["replicas"] for role, live in deployments(cluster).items()}


def a_step_of_a_quarter(stable: int, **rollout: Any) -> FakeCluster:
    """A candidate that gets 25 % next to so many stable pods."""
    steps = {"strategy": "Canary", "steps": [{"weight": 25, "holdSeconds": 60}], **rollout}
    cluster = trying(steps, replicas=stable)
    return through(cluster, "candidate", "stable", "candidate")


def test_fewer_pods_wait_for_the_end_of_a_step_whose_share_they_would_change() -> None:
    cluster = a_step_of_a_quarter(3)
    assert (pods_of_roles(cluster), cluster.status["candidate"]["weight"]) == ({"stable": 3, "candidate": 1}, 25)
    since = cluster.status["candidate"]["since"]
    cluster.edit(replicas=1).converge()
    assert (pods_of_roles(cluster), cluster.status["candidate"]["weight"]) == ({"stable": 3, "candidate": 1}, 25)
    assert "spec.replicas 1 is not applied, since that would change this share" in cluster.message("Progressing")
    assert cluster.status["candidate"]["since"] == since
    cluster.later(60).converge()
    through(cluster, "stable")
    assert pods_of_roles(cluster) == {"stable": 1}


def test_a_candidate_with_all_requests_loses_no_pods_because_the_old_servers_have_no_load() -> None:
    steps = {"strategy": "Canary", "steps": [{"weight": 100, "holdSeconds": 60}]}
    cluster = through(trying(steps, replicas=3), "candidate", "stable", "candidate")
    cluster.edit(replicas=1).converge()
    assert pods_of_roles(cluster) == {"stable": 3, "candidate": 3}
    assert "is not applied, since the candidate's pods are as many" in cluster.message("Progressing")
    cluster.edit(replicas=4).converge()
    assert pods_of_roles(cluster) == {"stable": 4, "candidate": 4}


def test_more_pods_and_fewer_with_the_same_share_never_wait() -> None:
    cluster = a_step_of_a_quarter(3)
    cluster.edit(replicas=5).converge()
    assert pods_of_roles(cluster)["stable"] == 5
    through(cluster, "stable", "candidate").edit(replicas=3).converge()
    assert pods_of_roles(cluster)["stable"] == 3
    assert "is not applied" not in cluster.message("Progressing")


def test_no_pods_at_all_are_never_waited_for() -> None:
    cluster = a_step_of_a_quarter(3)
    cluster.edit(replicas=0).converge()
    assert pods_of_roles(cluster)["stable"] == 0


def test_a_candidate_that_answers_nothing_delays_no_scaling() -> None:
    cluster = a_step_of_a_quarter(3)
    deployments(cluster)["candidate"]["status"]["availableReplicas"] = 0
    cluster.converge()
    assert cluster.status["candidate"]["weight"] == 0
    cluster.edit(replicas=1).converge()
    assert pods_of_roles(cluster)["stable"] == 1


def test_what_is_served_and_tried_is_recorded_and_the_oldest_are_deleted() -> None:
    cluster = trying(revisionHistoryLimit=1)
    both = {cluster.status[role]["revision"] for role in ("stable", "candidate")}
    assert records(cluster) == both
    through(through(cluster, "candidate").later(60), "stable", "stable")
    assert records(cluster) == {cluster.status["stable"]["revision"]}
    assert cluster.status["history"] == [cluster.status["stable"]["revision"]]


def test_without_the_field_nothing_is_recorded() -> None:
    assert records(served()) == set()


def test_a_lost_status_is_rebuilt_from_the_labels() -> None:
    cluster = through(trying(), "candidate")
    known = {role: cluster.status[role]["digest"] for role in ("stable", "candidate")}
    del cluster.resource["status"]
    cluster.converge()
    assert {role: cluster.status[role]["digest"] for role in ("stable", "candidate")} == known
    assert digests(cluster) == {"stable": "job-output", "candidate": "job2-output"}
    through(through(cluster, "candidate").later(60), "stable", "stable")
    assert cluster.status["stable"]["digest"] == OTHER


@pytest.mark.parametrize("write", range(1, 12))
def test_wherever_the_operator_dies_the_candidate_is_served_in_the_end(write: int) -> None:
    cluster = served(rollout=CANARY, replicas=1)
    died = dying(cluster, write, lambda: new_artifact(cluster))
    died |= dying(cluster, write, lambda: through(cluster, "candidate"))
    died |= dying(cluster, write, lambda: through(cluster.later(61), "stable", "stable"))
    assert died or write > 8
    assert digests(cluster) == {"stable": "job2-output"}
    assert cluster.condition("Ready") == ("True", "Serving")
    assert selector(cluster) == STABLE


@pytest.mark.parametrize("write", range(1, 10))
def test_wherever_the_operator_dies_a_candidate_that_crashes_is_rejected_once(write: int) -> None:
    cluster = trying()
    crash(cluster, "candidate")
    dying(cluster, write, cluster.converge)
    assert digests(cluster) == {"stable": "job-output"}
    assert len(cluster.status["rejected"]) == 1
    assert cluster.condition("Progressing") == ("False", "CandidateRejected")


def dying(cluster: FakeCluster, write: int, happens: Any) -> bool:
    """Lets something happen, during which the operator dies at a write; then another one continues."""
    cluster.crash_at = cluster.writes + write
    with suppress(Crash):
        happens()
    died = cluster.writes >= cluster.crash_at
    cluster.crash_at = None
    cluster.converge()
    if died:
        happens()
    return died


IN_PLACE = ["RollingUpdate", "Recreate"]


@pytest.mark.parametrize("strategy", IN_PLACE)
def test_in_place_a_revision_that_crashes_is_replaced_by_the_recorded_one(strategy: str) -> None:
    cluster = trying({"strategy": strategy})
    old = cluster.status["stable"]["revision"]
    assert digests(cluster) == {"stable": "job2-output"}
    crash(cluster, "stable")
    cluster.converge()
    assert digests(cluster) == {"stable": "job-output"}
    through(cluster, "stable")
    assert cluster.status["stable"]["revision"] == old
    assert cluster.condition("Ready") == ("True", "Serving")
    assert cluster.condition("Progressing") == ("False", "CandidateRejected")


@pytest.mark.parametrize("strategy", IN_PLACE)
def test_a_model_and_the_way_to_replace_it_may_change_in_one_edit(strategy: str) -> None:
    cluster = served(replicas=1)
    cluster.edit(rollout={"strategy": strategy})
    new_artifact(cluster)
    assert digests(cluster) == {"stable": "job2-output"}
    crash(cluster, "stable")
    cluster.converge()
    assert digests(cluster) == {"stable": "job-output"}


def test_the_recorded_one_is_rolled_out_as_the_spec_says_now() -> None:
    cluster = served(rollout={"strategy": "RollingUpdate"}, replicas=1)
    cluster.edit(rollout={"strategy": "Recreate"})
    new_artifact(cluster)
    crash(cluster, "stable")
    cluster.converge()
    assert digests(cluster) == {"stable": "job-output"}
    assert deployment(cluster)["spec"]["strategy"] == {"type": "Recreate", "rollingUpdate": None}


def test_without_the_field_a_revision_that_crashes_stays_as_before() -> None:
    cluster = served(replicas=1)
    new_artifact(cluster)
    crash(cluster, "stable", 9)
    cluster.converge()
    assert digests(cluster) == {"stable": "job2-output"}
    assert "rejected" not in cluster.status


def test_recreate_ends_the_old_servers_first_and_tells_how_long_none_answered() -> None:
    cluster = trying({"strategy": "Recreate"})
    live = deployments(cluster)["stable"]
    assert live["spec"]["strategy"] == {"type": "Recreate", "rollingUpdate": None}
    live["status"] |= {"availableReplicas": 0}
    cluster.later(5).converge()
    assert cluster.condition("Available")[0] == "False"
    assert "downtimeSeconds" not in cluster.status
    cluster.later(42)
    through(cluster, "stable")
    assert cluster.status["downtimeSeconds"] == 42


def test_servers_that_were_scaled_to_none_are_no_downtime_of_a_rollout() -> None:
    cluster = served(rollout={"strategy": "Recreate"}, replicas=1)
    for count in (0, 1):
        cluster.edit(replicas=count).later(3600).converge()
        through(cluster, "stable")
    assert cluster.condition("Available")[0] == "True"
    assert "downtimeSeconds" not in cluster.status


@pytest.mark.parametrize(
    ("weight", "stable", "pods", "share"),
    [(10, 1, 1, 50), (10, 9, 1, 10), (25, 3, 1, 25), (50, 4, 4, 50), (90, 2, 2, 50), (100, 3, 3, 100), (50, 0, 0, 0)],
)
def test_a_weight_is_had_by_whole_pods_as_nearly_as_there_are(weight: int, stable: int, pods: int, share: int) -> None:
    assert (pods_for(weight, stable), share_of(weight, stable)) == (pods, share)


def test_a_share_that_pods_cannot_have_is_told() -> None:
    cluster = through(trying({"strategy": "Canary", "steps": [{"weight": 5}]}), "candidate")
    assert "gets 50 % of the requests (the nearest to 5 % with whole pods)" in cluster.message("Progressing")


def test_a_candidate_whose_artifact_was_changed_stops_and_is_not_rejected() -> None:
    cluster = trying()
    failed = {"name": "verify", "ready": False, "restartCount": 9}
    failed["state"] = {"terminated": {"exitCode": 64, "message": "model.safetensors differs"}}
    pod(cluster, "candidate", initContainerStatuses=[failed])
    cluster.converge()
    assert cluster.condition("Stalled") == ("True", "ArtifactChanged")
    assert "rejected" not in cluster.status

"""The table of the objects that a run creates: their types, names and builders, and the steps that need them."""

from collections.abc import Callable
from dataclasses import dataclass

from hone.api.finetunejob_status import FineTuneJobStatus
from hone.core.children import Child, ChildType, Write
from hone.core.finetunejob.resources.claims import output_claim, workspace_claim
from hone.core.finetunejob.resources.networkpolicy import (
    download_policy,
    downloads,
    judge_policy,
    network_policy,
    publish_policy,
)
from hone.core.finetunejob.resources.runconfig import config_map, config_map_name
from hone.core.finetunejob.resources.service import service
from hone.core.finetunejob.run import FINISH, PREPARE, PUBLISH, TRAIN, Run
from hone.core.finetunejob.steps import STEPS
from hone.core.finetunejob.steps.step import next_number
from hone.core.network import POLICY
from hone.core.observed import Object, Ref

JOB = ChildType("batch/v1", "Job", Write.CREATE_ONCE, watched=True)
"""The Job of an attempt. It is not in the table: each attempt has its own, named by step and number."""
CLAIM = ChildType("v1", "PersistentVolumeClaim", Write.CREATE_ONCE, metadata_only=True, foreign=True)


@dataclass(frozen=True)
class Row:
    """An object that a run has at most once. The callables take the run and the name of its RunConfig's ConfigMap.

    Attributes:
        type: its type.
        name: its name, without rendering it.
        build: renders it.
        is_needed: whether the pods of a step need it, given the run and the step's name.
    """

    type: ChildType
    name: Callable[[Run, str], str]
    build: Callable[[Run, str], Object]
    is_needed: Callable[[Run, str], bool]

    def ref(self, run: Run, config: str) -> Ref:
        """Its Ref."""
        return self.type.ref(self.name(run, config))

    def child(self, run: Run, config: str) -> Child:
        """The rendered object."""
        return Child(self.build(run, config), self.type.write)


CHILDREN: tuple[Row, ...] = (
    # First, so that no pod exists without it.
    Row(
        POLICY,
        name=lambda run, config: run.network_policy,
        build=lambda run, config: network_policy(run),
        is_needed=lambda run, step: run.settings.network_policies is not None,
    ),
    Row(
        POLICY,
        name=lambda run, config: run.download_policy,
        build=lambda run, config: download_policy(run),
        is_needed=lambda run, step: step == PREPARE and run.settings.network_policies is not None and downloads(run),
    ),
    Row(
        POLICY,
        name=lambda run, config: run.publish_policy,
        build=lambda run, config: publish_policy(run),
        is_needed=lambda run, step: (
            step == PUBLISH and run.settings.network_policies is not None and run.publish_digest is not None
        ),
    ),
    Row(
        POLICY,
        name=lambda run, config: run.judge_policy,
        build=lambda run, config: judge_policy(run),
        is_needed=lambda run, step: (
            step == FINISH and run.settings.network_policies is not None and run.evaluation.judge is not None
        ),
    ),
    Row(
        ChildType("v1", "ConfigMap", Write.CREATE_ONCE, metadata_only=True),
        name=lambda run, config: config,
        build=config_map,
        is_needed=lambda run, step: True,
    ),
    Row(
        CLAIM,
        name=lambda run, config: run.workspace_claim,
        build=lambda run, config: workspace_claim(run),
        is_needed=lambda run, step: run.workspace.claim_name is None and bool(STEPS[step].workspace(run)),
    ),
    Row(
        ChildType("v1", "Service", Write.APPLY, watched=True),
        name=lambda run, config: run.service,
        build=lambda run, config: service(run),
        is_needed=lambda run, step: step == TRAIN and run.compute.nodes > 1,
    ),
    Row(
        CLAIM,
        name=lambda run, config: run.output_claim,
        build=lambda run, config: output_claim(run),
        is_needed=lambda run, step: step == FINISH,
    ),
)
"""Every object that a run creates in addition to its Jobs, in the order in which they are created."""
CHILD_TYPES = (JOB, *dict.fromkeys(row.type for row in CHILDREN))
"""The types of all objects that a run creates."""


def needed(run: Run, step: str) -> list[Row]:
    """The objects that the step's Job needs."""
    return [row for row in CHILDREN if row.is_needed(run, step)]


def child_refs(run: Run, status: FineTuneJobStatus) -> set[Ref]:
    """Every name that the next attempt may use, whichever step it belongs to."""
    current = config_map_name(run)
    rows = [row for step in STEPS for row in needed(run, step)]
    steps = [step for step in STEPS if step != PUBLISH or run.publish_digest is not None]
    jobs = {run.job_ref(step, next_number(status, step)) for step in steps}
    return jobs | {row.ref(run, config) for row in rows for config in (status.run_config or current, current)}

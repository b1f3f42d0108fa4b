"""A rank: trains by the plan, from the newest whole checkpoint. torchrun starts one per process.

Run by `hone_trainer.launch`, never alone. SIGTERM ends a rank at once: only the launcher is asked to stop, and it
raises a flag that every rank sees at its next step.
"""

import faulthandler
import logging
import os
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hone.contract.exits import FailureClass, exit_code
from hone.contract.plan import Plan
from hone.contract.runconfig import NODE_RANK_ENV, POD_UID_ENV, RunConfig
from hone_trainer.data.prepared import Prepared, chosen_rows, load_prepared
from hone_trainer.models.chat_template import run_tokenizer
from hone_trainer.models.directories import check_models, models
from hone_trainer.models.zero import load_checkpoints_as_data, use_gloo_alone
from hone_trainer.planning.memory_fallback import plan_of_attempt
from hone_trainer.protocol.beats import Beats
from hone_trainer.protocol.deadlines import collective_seconds
from hone_trainer.protocol.errors import BadInput, WorkspaceFull
from hone_trainer.protocol.logs import quiet_libraries, setup_logging
from hone_trainer.protocol.planfile import require_plan
from hone_trainer.protocol.probe import PROBE_ENV
from hone_trainer.protocol.runconfig import load_attempt, load_run_config
from hone_trainer.protocol.searchfile import load_search, with_settings
from hone_trainer.protocol.status import RankStatus, StatusDir
from hone_trainer.protocol.verdicts import Preempted, from_exception
from hone_trainer.training import checkpoint
from hone_trainer.training.offload import offload_activations
from hone_trainer.training.rank_trainer import RankTrainer

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from hone_trainer.search.base import LoadedBase
    from hone_trainer.training.callbacks import Reporting, StepHealth

COMMUNICATION_WAIT_SECONDS = 5.0
"""How long a rank that lost its peers stays, so that the end of the one that failed first is seen before its own."""

logger = logging.getLogger(__name__)


def main() -> int:
    """Train, and write a verdict where that fails. torchrun passes on only whether the exit code is 0."""
    rank, node = int(os.environ.get("RANK", "0")), int(os.environ.get(NODE_RANK_ENV, "0"))
    setup_logging(logging.INFO if rank == 0 else logging.WARNING)
    status = StatusDir.from_env()
    # For the launcher's watchdog. The file stays open: the signal may come at any time.
    stacks = status.stacks_file(rank).open("wb", buffering=0)
    faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True)
    try:
        _train(rank, status)
    except Preempted as error:
        # Exit code 0: an error would make torchrun end the other ranks while they still finish their own work.
        status.write_verdict(rank, from_exception(error, rank, node, _last_step(status, rank)))
        return 0
    except Exception as error:
        traceback.print_exc()
        verdict = from_exception(error, rank, node, _last_step(status, rank), on_gpu=_on_gpu())
        status.write_verdict(rank, verdict)
        logger.error("failed", extra={"verdict": verdict.to_dict()})
        if isinstance(error, WorkspaceFull):
            # After the verdict: ranks that still write there fail by this, and must not be taken for the cause.
            checkpoint.discard_unusable(error.checkpoint)
        if verdict.failure_class == FailureClass.COMMUNICATION:
            time.sleep(COMMUNICATION_WAIT_SECONDS)
        return verdict.exit_code or exit_code(verdict.failure_class)
    return 0


def _train(rank: int, status: StatusDir) -> None:
    config = load_run_config()
    planned = require_plan(config)
    attempt = load_attempt()
    plan = plan_of_attempt(planned.plan, config.topology, attempt)
    _preempted_if(status, status.stop_raised(), "before its first step")
    # Again: since prepare, the volumes may have changed.
    check_models(models(config))

    # Heavy imports only here: a rank that is to stop, or has nothing to train, ends before them.
    from hone_trainer.training.callbacks import Checkpointing, Reporting, StepHealth
    from hone_trainer.training.collectives import wait_at_most
    from hone_trainer.training.history import Recording

    wait_at_most(collective_seconds(config, plan))
    quiet_libraries()
    if plan.zero_stage:
        load_checkpoints_as_data()
        if not config.topology.gpus_per_node:
            use_gloo_alone()
    resume = checkpoint.newest(config)
    if resume:
        _check_same_gang(resume[1], plan)
    first = _first_status(rank, plan, resume[1].step if resume else None)
    health, beats = StepHealth(scales_loss=plan.half == "float16"), Beats(status, rank)
    prepared = load_prepared(planned.prepared, plan.packed_sequence_length)
    make_trainer = partial(_make_trainer, config, health, beats)
    if os.environ.get(PROBE_ENV):
        from hone_trainer.training.probe import probe_steps

        probe_steps(config, plan, prepared, attempt.memory_fallback_level, status, first, beats, make_trainer)
        return
    base: LoadedBase | None = None
    if config.search is not None:
        record = load_search(config) if resume else None
        if record is None:
            from hone_trainer.search.conduct import Conductor, new_base

            base = new_base(config)
            if not plan.zero_stage:
                make_trainer = partial(_make_trainer, config, health, beats, base=base)
            record = Conductor(config, plan, prepared, status, first, health, beats, make_trainer, base).conduct()
        plan = plan_of_attempt(with_settings(planned.plan, record.chosen), config.topology, attempt)
        first = first.model_copy(update={"search": record.summary})
    saves = Checkpointing(config, plan, status, health)
    reports = Reporting(status, first, saves, beats)
    reports.report()
    history = Recording(config, reports, resume[1].step if resume else None)
    trainer = make_trainer(plan, prepared, checkpoint.checkpoints_dir(config), [saves, reports, history])
    if base is not None:
        base.release()
    trainer.set_exports(saves.exports)
    validation = prepared.validation
    trainer.set_validation(validation.select(chosen_rows(len(validation), config.evaluation.max_samples)))
    _run(trainer, plan, resume, reports)
    saved = "none" if saves.saved_step is None else f"step {saves.saved_step}"
    _preempted_if(status, saves.stopped, f"at step {reports.step}; newest checkpoint of this attempt: {saved}")
    reports.report(stage="Done")


def _first_status(rank: int, plan: Plan, resumed_from: int | None) -> RankStatus:
    """What is known of a rank before its first step.

    Args:
        rank: its global rank.
        plan: the plan of this attempt.
        resumed_from: step of the checkpoint that it resumes from; None: it starts from the base model.
    """
    return RankStatus(
        rank=rank,
        pid=os.getpid(),
        pod_uid=os.environ.get(POD_UID_ENV, ""),
        total_steps=plan.total_steps,
        step=resumed_from or 0,
        checkpoint_step=resumed_from,
        resumed_from_step=resumed_from,
        gpu_total_bytes=_gpu_total_bytes(),
    )


def _gpu_total_bytes() -> int | None:
    """Memory of this rank's GPU; None on CPUs."""
    import torch

    if not torch.cuda.is_available():
        return None
    total: int = torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0"))).total_memory
    return total


def _make_trainer(
    config: RunConfig,
    health: "StepHealth",
    beats: Beats,
    plan: Plan,
    prepared: Prepared,
    directory: Path,
    callbacks: "list[TrainerCallback]",
    base: "LoadedBase | None" = None,
) -> RankTrainer:
    """The objective's trainer, with the adapter of the method and the offloading that the plan has."""
    from transformers import PrinterCallback, set_seed

    from hone_trainer.objectives import components
    from hone_trainer.objectives.inputs import Inputs

    # A trainer seeds itself, but PEFT and the model's loading come before some of them do.
    set_seed(config.hyperparameters.seed)
    parts = components(config.objective)
    trainer = parts.build(
        Inputs(
            config=config,
            architecture=parts.architecture,
            plan=plan,
            prepared=prepared,
            tokenizer=run_tokenizer(config),
            output_dir=directory,
            callbacks=callbacks,
            health=health,
            beats=beats,
            base=base,
        )
    )
    trainer.remove_callback(PrinterCallback)
    if plan.activation_offloading:
        offload_activations(trainer)
    return trainer


def _run(
    trainer: RankTrainer, plan: Plan, resume: tuple[Path, checkpoint.Complete] | None, reports: "Reporting"
) -> None:
    """Train until the plan's last step, or until a stop, from the checkpoint where there is one."""
    from hone_trainer.training.collectives import check_same_everywhere

    resumed_from = resume[1].step if resume else None
    check_same_everywhere(resumed_from or 0, trainer.args.device)
    logger.info("training", extra={"plan": plan.to_dict(), "resumedFromStep": resumed_from})
    try:
        trainer.train(resume_from_checkpoint=str(resume[0]) if resume else None)
    except Exception:
        # Steps are reported once a second: the verdict is to name the last one.
        reports.report()
        raise


def _check_same_gang(complete: checkpoint.Complete, plan: Plan) -> None:
    for name, was, now in (
        ("world size", complete.world_size, plan.world_size),
        ("ZeRO stage", complete.zero_stage, plan.zero_stage),
    ):
        if was != now:
            raise BadInput(
                "spec.compute",
                f"the checkpoint of step {complete.step} was saved with {name} {was}, but the plan has {now}",
                "A run that has started cannot change this: create a job with another metadata.name.",
            )


def _preempted_if(status: StatusDir, stopped: bool, where: str) -> None:
    if stopped:
        raise Preempted(f"stopped by {status.stopped_by()} {where}")


def _on_gpu() -> bool:
    # The launcher hides the GPUs from ranks that are to use none.
    return os.environ.get("CUDA_VISIBLE_DEVICES") != ""


def _last_step(status: StatusDir, rank: int) -> int | None:
    reported = status.statuses().get(rank)
    return reported.step if reported else None


def _leave(code: int) -> None:
    # Not sys.exit: the libraries' teardown takes seconds of every GPU, and can hang where peers are gone.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _leave(main())

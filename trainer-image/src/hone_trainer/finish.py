"""The finish step: exports the trained weights, scores the artifact as it will be served, and writes the report.

    python -m hone_trainer.finish

Writes `<output>/artifact/` and, last, `<output>/report.json` with the artifact's manifest. Run again on a finished run
it checks every file against that manifest, and reports the result.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hone.contract.exits import exit_code
from hone.contract.report import ARTIFACT_DIR, REPORT_FILE, ArtifactFile, Report
from hone.contract.results import ArtifactSummary, StepResult
from hone.contract.runconfig import RunConfig
from hone_trainer.data.prepared import chosen_rows, load_prepared
from hone_trainer.models.directories import check_models, models
from hone_trainer.objectives import components
from hone_trainer.protocol import host, limits, manifest
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.files import sync_tree, write_atomic
from hone_trainer.protocol.logs import quiet_libraries, setup_logging
from hone_trainer.protocol.planfile import PlanFile, require_plan
from hone_trainer.protocol.results import write_result
from hone_trainer.protocol.runconfig import load_run_config
from hone_trainer.protocol.verdicts import Preempted, from_exception
from hone_trainer.training import checkpoint

if TYPE_CHECKING:
    from hone_trainer.scores.evaluated import Evaluated

SECONDS = 7200.0
"""How long the step may take, in addition to what it allows for the answers that it generates."""
TOKENS_PER_SECOND, WEIGHT_BYTES_PER_SECOND = 1.0, 5_000_000
"""How slowly a model may generate, as a large one on a few CPUs, and be read and written."""
_TEMPORARY = ".artifact-"

logger = logging.getLogger(__name__)


def main() -> int:
    """Finish the run, or say why not. Returns the exit code; the termination message is written."""
    setup_logging()
    # Both are read when the libraries are imported. All models and data are in mounted directories.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Threads that wait by spinning use up the CPU quota that the others need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _stop)
    try:
        config = load_run_config()
        report = load_report(config)
        if report is None:
            report = _finish(config)
        else:
            _check_artifact(config, report)
        result = StepResult(
            step="finish", evaluation=report.evaluation, artifact=report.artifact, final_step=report.final_step
        )
    except Exception as error:
        if not isinstance(error, BadInput | Preempted):
            traceback.print_exc()
        result = StepResult(step="finish", verdict=from_exception(error, None, None, None, reads_rows=True))
    write_result(result)
    logger.info("ended", extra={"result": result.to_dict()})
    return exit_code(result.verdict.failure_class) if result.verdict else 0


def load_report(config: RunConfig) -> Report | None:
    """The report of a finished run, or None."""
    try:
        return Report.model_validate_json((Path(config.paths.output) / REPORT_FILE).read_text())
    except (OSError, ValidationError):
        return None


def _check_artifact(config: RunConfig, report: Report) -> None:
    """Refuse an artifact that is no longer what this step has written: neither its digest nor another one is reported.

    Raises:
        BadInput: a file was changed, added or removed, or the report itself was changed.
    """
    problems = manifest.differences(Path(config.paths.output) / ARTIFACT_DIR, report.files)
    if manifest.digest_of(report.files) != report.artifact.digest:
        problems.append(f"{REPORT_FILE} has another digest than that of the files that it lists")
    if problems:
        raise BadInput(
            "spec.output",
            f"the artifact on the job's claim was changed after it was written: {manifest.in_words(problems)}",
            "Find out what else writes to the claim, then delete this job and apply it again.",
        )


def _finish(config: RunConfig) -> Report:
    planned = require_plan(config)
    # Again: since prepare, the volumes may have changed.
    check_models(models(config))
    last = checkpoint.final_checkpoint(config)
    if last is None:
        raise RuntimeError(f"no final checkpoint in {config.paths.run}: training has not finished")
    if problems := checkpoint.differences(*last):
        raise BadInput(
            "spec.workspace",
            f"the final checkpoint was changed after it was written: {manifest.in_words(problems)}",
            "Find out what else writes to the claim, then delete this job and apply it again.",
        )
    output = Path(config.paths.output)
    _remove_leftovers(output)
    directory = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=output))
    try:
        report = _export_and_score(config, planned, *last, directory)
        sync_tree(directory)
        # Others read the claim: the server's pods, as another user perhaps.
        directory.chmod(0o755)
        shutil.rmtree(output / ARTIFACT_DIR, ignore_errors=True)
        directory.rename(output / ARTIFACT_DIR)
        write_atomic(output / REPORT_FILE, report.to_json().encode(), durable=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return report


def _export_and_score(
    config: RunConfig, planned: PlanFile, last: Path, complete: checkpoint.Complete, directory: Path
) -> Report:
    import torch

    from hone_trainer.artifact import export

    quiet_libraries()
    torch.set_num_threads(host.cpus())
    prepared = load_prepared(planned.prepared)
    kind = export.export(config, last, directory, prepared.ends)
    logger.info("exported", extra={"kind": kind, "checkpoint": str(last)})

    rows = prepared.test.select(chosen_rows(len(prepared.test), config.evaluation.max_samples))
    # Base and tuned model; each row also takes as long as a few tokens where nothing is generated.
    limits.allow(planned.plan.parameters * 4 / WEIGHT_BYTES_PER_SECOND)
    longest = planned.plan.max_completion_length or config.evaluation.max_new_tokens
    limits.allow(2 * len(rows) * (longest + prepared.sequence_length) / TOKENS_PER_SECOND)
    # As it will be served: on CPUs in fp32, else in bf16.
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    evaluated = components(config.objective).evaluate(config, planned, prepared, rows, directory, dtype)
    export.write_card(directory, config, planned.plan, planned.dataset, evaluated.evaluation, evaluated.notes, kind)
    return _report(config, planned, complete, evaluated, kind, manifest.list_files(directory))


def _report(
    config: RunConfig,
    planned: PlanFile,
    complete: checkpoint.Complete,
    evaluated: "Evaluated",
    kind: str,
    files: list[ArtifactFile],
) -> Report:
    from hone_trainer.artifact import export

    return Report(
        job=config.job,
        model_name=config.model_name,
        final_step=complete.step,
        plan=planned.plan,
        dataset=planned.dataset,
        evaluation=evaluated.evaluation,
        artifact=ArtifactSummary(
            digest=manifest.digest_of(files),
            size_bytes=sum(file.size_bytes for file in files),
            kind=kind,
            api=components(config.objective).architecture.api,
            lora_rank=planned.plan.lora_rank if kind == "Adapter" else None,
            base=config.model_name,
            base_digest=planned.model_digest,
            max_model_length=export.max_model_length(config),
        ),
        files=files,
        max_new_tokens=planned.plan.max_completion_length or config.evaluation.max_new_tokens,
        samples=evaluated.samples,
        notes=evaluated.notes,
    )


def _remove_leftovers(output: Path) -> None:
    for path in output.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _stop(*_: object) -> None:
    # PID 1 has no default handler: without this it would run until the grace period ends.
    raise Preempted("stopped by SIGTERM; the next attempt starts from the beginning")


if __name__ == "__main__":
    sys.exit(limits.supervised("finish", main, SECONDS))

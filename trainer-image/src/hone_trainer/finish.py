"""The finish step: exports the trained weights, then scores the artifact as it will be served.

    python -m hone_trainer.finish

Writes `<output>/artifact/`, `<output>/provenance.json`, and `<output>/report.json` with the artifact's manifest; only
then it scores, and writes the report again with the scores. So a failure to score loses nothing. Next to each report is
the same as a page for people, `report.html`. Run again, it checks every file of the artifact against the manifest, and
does only what is missing: scores that were not made, or were made with other settings.
"""

import logging
import os
import shutil
import signal
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hone.contract.exits import FailureClass, exit_code
from hone.contract.record import RunRecord
from hone.contract.report import ARTIFACT_DIR, PAGE_FILE, REPORT_FILE, ArtifactFile, Report
from hone.contract.results import (
    MAX_PROBLEMS,
    ArtifactSummary,
    BenchmarkSummary,
    EvaluationSummary,
    JudgeSummary,
    RetentionSummary,
    Score,
    StepResult,
)
from hone.contract.runconfig import CACHE, IMAGE_ENV, RunConfig
from hone.contract.settings import MAX_MINUTES, Evaluation
from hone.contract.verdict import Verdict
from hone_trainer.artifact import card, provenance
from hone_trainer.artifact.difference import base_files
from hone_trainer.data.groups import EVALUATION_GROUP
from hone_trainer.data.prepared import chosen_rows, load_prepared, scored_rows
from hone_trainer.models.directories import check_models, models
from hone_trainer.objectives import components
from hone_trainer.protocol import host, limits, manifest, shared
from hone_trainer.protocol.errors import BadInput, clip
from hone_trainer.protocol.files import sync_tree, write_atomic
from hone_trainer.protocol.history import load_history
from hone_trainer.protocol.logs import quiet_libraries, setup_logging
from hone_trainer.protocol.planfile import PlanFile, require_plan
from hone_trainer.protocol.results import write_result
from hone_trainer.protocol.runconfig import load_attempt, load_run_config
from hone_trainer.protocol.searchfile import load_search
from hone_trainer.protocol.verdicts import Preempted, from_exception
from hone_trainer.reports.page import render
from hone_trainer.rewards.code import LIMIT_SECONDS
from hone_trainer.scores.judge import TIMEOUT_SECONDS, TRIES, JudgeFailed, evaluate, record
from hone_trainer.training import checkpoint

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from hone_trainer.data.prepared import Prepared
    from hone_trainer.scores.evaluated import Evaluated, Pair

SECONDS = 7200.0
"""How long the step may take, in addition to what it allows for the answers that it generates."""
TOKENS_PER_SECOND, WEIGHT_BYTES_PER_SECOND = 1.0, 5_000_000
"""How slowly a model may generate, as a large one on a few CPUs, and be read and written."""
_TEMPORARY = ".artifact-"
_MEMORY_HINT = "The artifact is complete. Lower spec.evaluation.maxNewTokens: the job is then scored again."

logger = logging.getLogger(__name__)


def main() -> int:
    """Finish the run, or say why not. Returns the exit code; the termination message is written."""
    setup_logging()
    # Both are read when the libraries are imported. All models and data are in mounted directories.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Threads that wait by spinning use up the CPU quota that the others need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _stop)
    report = None
    try:
        config, attempt = load_run_config(), load_attempt()
        report = _exported(config, attempt.record)
        if not attempt.export_only:
            report = _scored(config, attempt.evaluation or config.evaluation, report)
        result = _result(report)
    except Exception as error:
        if not isinstance(error, BadInput | Preempted):
            traceback.print_exc()
        verdict = from_exception(error, None, None, None, reads_rows=True)
        result = _result(report, verdict if report is None else _of_scoring(verdict))
    write_result(result)
    logger.info("ended", extra={"result": result.to_dict()})
    return exit_code(result.verdict.failure_class) if result.verdict else 0


def _result(report: Report | None, verdict: Verdict | None = None) -> StepResult:
    """The artifact, with the scores or with why there are none; without a report, why there is no artifact."""
    if report is None:
        return StepResult(step="finish", verdict=verdict)
    return StepResult(
        step="finish",
        verdict=verdict,
        evaluation=None if verdict else report.evaluation,
        artifact=report.artifact,
        final_step=report.final_step,
    )


def _of_scoring(verdict: Verdict) -> Verdict:
    """The verdict where the artifact is written: what to do is another thing, and another try takes as much memory."""
    if verdict.failure_class != FailureClass.OUT_OF_MEMORY:
        return verdict
    return verdict.model_copy(update={"final": True, "hint": _MEMORY_HINT})


def load_report(config: RunConfig) -> Report | None:
    """The report of a run whose artifact is written, or None."""
    try:
        return Report.model_validate_json((Path(config.paths.output) / REPORT_FILE).read_text())
    except (OSError, ValidationError):
        return None


def _check_artifact(config: RunConfig, report: Report) -> None:
    """Refuse an artifact that is no longer what this step has written: neither its digest nor another one is reported.

    Raises:
        BadInput: a file was changed, added or removed, or the report itself was changed.
    """
    limits.allow(report.artifact.size_bytes / WEIGHT_BYTES_PER_SECOND)
    problems = manifest.differences(Path(config.paths.output) / ARTIFACT_DIR, report.files)
    if manifest.digest_of(report.files) != report.artifact.digest:
        problems.append(f"{REPORT_FILE} has another digest than that of the files that it lists")
    if problems:
        raise BadInput(
            "spec.output",
            f"the artifact on the job's claim was changed after it was written: {manifest.in_words(problems)}",
            "Find out what else writes to the claim, then delete this job and apply it again.",
        )


def _exported(config: RunConfig, record: RunRecord | None) -> Report:
    """The report on the artifact, which is written unless it is there already, or was changed."""
    report = load_report(config)
    if report is None:
        return _export(config, record)
    _check_artifact(config, report)
    if record is not None and record != report.record:
        report = report.model_copy(update={"record": record})
        _write_report(config, report)
    return report


def _export(config: RunConfig, record: RunRecord | None) -> Report:
    planned = require_plan(config)
    # Again: since prepare, the volumes may have changed.
    check_models(models(config))
    chosen = checkpoint.exported(config, planned.plan.checkpoint_select)
    if chosen is None:
        raise RuntimeError(f"no final checkpoint in {config.paths.run}: training has not finished")
    if problems := checkpoint.differences(*chosen):
        raise BadInput(
            "spec.workspace",
            f"the checkpoint of step {chosen[1].step} was changed after it was written: {manifest.in_words(problems)}",
            "Find out what else writes to the claim, then delete this job and apply it again.",
        )
    output = Path(config.paths.output)
    _remove_leftovers(output)
    directory = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=output))
    try:
        report = _write_artifact(config, planned, *chosen, directory)
        report = report.model_copy(update={"record": record})
        sync_tree(directory)
        # Others read the claim: the server's pods, as another user perhaps.
        directory.chmod(0o755)
        shutil.rmtree(output / ARTIFACT_DIR, ignore_errors=True)
        directory.rename(output / ARTIFACT_DIR)
        _write_provenance(config, planned, report)
        _write_report(config, report)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return report


def _write_provenance(config: RunConfig, planned: PlanFile, report: Report) -> None:
    content = provenance.statement(config, report, planned, os.environ.get(IMAGE_ENV))
    write_atomic(Path(config.paths.output) / provenance.PROVENANCE_FILE, content, durable=True)


def _write_report(config: RunConfig, report: Report) -> None:
    output = Path(config.paths.output)
    write_atomic(output / REPORT_FILE, report.to_json().encode(), durable=True)
    try:
        write_atomic(output / PAGE_FILE, render(report).encode(errors="replace"), durable=True)
    except Exception:
        # The page is for people alone, and can be written from the report at any time.
        logger.exception("the report's page was not written")


def _write_artifact(
    config: RunConfig, planned: PlanFile, trained: Path, complete: checkpoint.Complete, directory: Path
) -> Report:
    import torch

    from hone_trainer.artifact import export

    quiet_libraries()
    torch.set_num_threads(host.cpus())
    # A whole model is read and written.
    limits.allow(planned.plan.parameters * 4 / WEIGHT_BYTES_PER_SECOND)
    kind = export.export(config, trained, directory, load_prepared(planned.prepared).ends)
    logger.info("exported", extra={"kind": kind, "checkpoint": str(trained)})
    card.write_card(directory, config, planned, kind)
    return _report(config, planned, complete, kind, manifest.list_files(directory))


def _scored(config: RunConfig, evaluation: Evaluation, report: Report) -> Report:
    """The report with scores by these settings, which are made unless they are there already."""
    if report.evaluation is not None and _scores_alike(report.evaluated_with or config.evaluation, evaluation):
        return report
    import torch

    quiet_libraries()
    torch.set_num_threads(host.cpus())
    planned, output = require_plan(config), Path(config.paths.output)
    _keep(config, planned)
    # Again: since the artifact was written, the volumes may have changed.
    check_models(models(config))
    config = config.model_copy(update={"evaluation": evaluation})
    prepared = load_prepared(planned.prepared)
    rows = prepared.test.select(chosen_rows(len(prepared.test), config.evaluation.max_samples))
    # Base and tuned model; each row also takes as long as a few tokens where nothing is generated.
    limits.allow(planned.plan.parameters * 4 / WEIGHT_BYTES_PER_SECOND)
    longest = _max_new_tokens(planned, evaluation)
    limits.allow(2 * len(rows) * (longest + prepared.sequence_length) / TOKENS_PER_SECOND)
    # As it will be served: on CPUs in fp32, else in 16 bits.
    dtype = getattr(torch, planned.plan.half) if torch.cuda.is_available() else torch.float32
    evaluated = components(config.objective).evaluate(config, planned, prepared, rows, output / ARTIFACT_DIR, dtype)
    scored = rows if evaluated.rows is None else evaluated.rows
    notes = [*_left_out(len(scored), len(rows), evaluation), *evaluated.notes]
    summary = _with_others(
        _with_scorers(evaluation, _with_groups(config, evaluated, scored), evaluated.pairs),
        retention=evaluation.retention and (lambda: _retention(config, planned, output / ARTIFACT_DIR, dtype)),
        judge=evaluation.judge and evaluated.pairs and (lambda: _judged(config, evaluated.pairs)),
        benchmarks=evaluation.benchmarks and partial(_benchmarks, config, planned, prepared, dtype, notes),
    )
    judge = summary.judge and evaluation.judge
    report = report.model_copy(
        update={
            "evaluation": summary,
            "evaluated_with": evaluation,
            "max_new_tokens": longest,
            "samples": evaluated.samples,
            "notes": notes,
            "confusion": evaluated.confusion,
            "scored_rows": scored_rows(scored),
            "judge": record(judge) if judge else None,
        }
    )
    # Next to the artifact, whose digest new scores must not change.
    kind = report.artifact.kind
    card.write_card(output, config, planned, kind, summary, notes)
    _write_report(config, report)
    return report


def _with_others(summary: EvaluationSummary, **others: Any) -> EvaluationSummary:
    """The scores with further ones, each of which may fail without a loss to the others.

    Args:
        summary: the scores of the test rows.
        others: what makes each of them, by the field that it is for; false: it is not requested.
    """
    problems = summary.problems or []
    for name, make in others.items():
        try:
            summary = summary.model_copy(update={name: make()}) if make else summary
        except Preempted:
            raise
        except SomeNotScored as error:
            summary = summary.model_copy(update={name: error.scored or None})
            problems += error.problems
        except Exception as error:
            problems.append(_problem(name, error))
    return summary.model_copy(update={"problems": problems[:MAX_PROBLEMS]}) if problems else summary


def _with_scorers(evaluation: Evaluation, summary: EvaluationSummary, pairs: "list[Pair]") -> EvaluationSummary:
    """The scores with those of the user's own functions, each of which may fail without a loss to the others."""
    from hone_trainer.scores import scorers

    scores, problems = list[Score](), list[str]()
    for index, scorer in enumerate(evaluation.scorers or []):
        limits.allow(2 * LIMIT_SECONDS * (1 + len(pairs) / scorers.ROWS_AT_ONCE))
        try:
            figure = scorers.measure(scorer, index, pairs) if pairs else None
        except Preempted:
            raise
        except Exception as error:
            problems.append(_problem(f"scorers[{index}]", error))
        else:
            scores += [figure] if figure is not None else []
    return summary.model_copy(update={"scores": [*summary.scores, *scores], "problems": problems or None})


def _problem(name: str, error: Exception) -> str:
    """Why a part of spec.evaluation was not scored, in a sentence."""
    logger.exception("not scored", extra={"score": name})
    cause = from_exception(error, None, None, None, reads_rows=True)
    why = str(error) if isinstance(error, JudgeFailed) else f"{cause.failure_class}: {cause.message}"
    return clip(f"spec.evaluation.{name} was not scored: {why}", 256)


class SomeNotScored(Exception):
    """Some of several data sets were not scored.

    Attributes:
        scored: the others.
        problems: why not, a sentence each.
    """

    def __init__(self, scored: list[BenchmarkSummary], problems: list[str]) -> None:
        super().__init__()
        self.scored, self.problems = scored, problems


def _benchmarks(
    config: RunConfig, planned: PlanFile, prepared: "Prepared", dtype: "torch.dtype", notes: list[str]
) -> list[BenchmarkSummary]:
    from hone_trainer.scores import benchmarks

    summaries, problems = list[BenchmarkSummary](), list[str]()
    for index, benchmark in enumerate(config.evaluation.benchmarks or []):
        tokens = 2 * benchmark.max_samples * (_max_new_tokens(planned, config.evaluation) + prepared.sequence_length)
        limits.allow(tokens / TOKENS_PER_SECOND + planned.plan.parameters * 4 / WEIGHT_BYTES_PER_SECOND)
        artifact = Path(config.paths.output) / ARTIFACT_DIR
        try:
            summary, remarks = benchmarks.evaluate(config, planned, prepared, index, benchmark, artifact, dtype)
        except Preempted:
            raise
        except Exception as error:
            problems.append(_problem(f"benchmarks[{index}]", error))
        else:
            summaries.append(summary)
            notes += remarks
    if problems:
        raise SomeNotScored(summaries, problems)
    return summaries


def _judged(config: RunConfig, pairs: "list[Pair]") -> JudgeSummary | None:
    if config.evaluation.judge is None:
        return None
    seconds = 60.0 * (config.evaluation.max_minutes or MAX_MINUTES)
    # What has begun by then is waited for.
    limits.allow(seconds + 2 * TRIES * TIMEOUT_SECONDS)
    return evaluate(config.evaluation.judge, config.job.namespace, pairs, seconds)


def _keep(config: RunConfig, planned: PlanFile) -> None:
    """Keep what is read for the scores; of a job that had ended, others may have removed it.

    Raises:
        BadInput: they have.
    """
    workspace = Path(config.paths.workspace)
    read = [Path(planned.prepared), *models(config)]
    written = [path for path in read if path.is_relative_to(workspace) or path.is_relative_to(CACHE)]
    if not shared.use_again(config.job.uid, workspace, written):
        raise BadInput(
            "spec.evaluation",
            "the job cannot be scored again: after it had ended, its data or models were removed from the workspace, "
            "because other jobs needed the space",
            "Apply the job again under another name.",
        )


def _left_out(scored: int, rows: int, evaluation: Evaluation) -> list[str]:
    """A note where fewer rows were scored than the spec allows."""
    if scored == rows:
        return []
    return [
        f"{scored} of {rows} test rows were scored: all of them would take longer than the "
        f"{evaluation.max_minutes or MAX_MINUTES} minutes of spec.evaluation.maxMinutes."
    ]


def _scores_alike(first: Evaluation, second: Evaluation) -> bool:
    """Whether both settings give the same scores: what ends training early changes none."""
    return first.model_copy(update={"early_stopping": second.early_stopping}) == second


def _with_groups(config: RunConfig, evaluated: "Evaluated", rows: "Dataset") -> EvaluationSummary:
    """The scores with those of the groups of rows, where the spec has groups."""
    from hone_trainer.scores.groups import summarize

    column, figures = config.evaluation.group_by, evaluated.figures
    if column is None or not figures or EVALUATION_GROUP not in rows.column_names:
        return evaluated.evaluation
    groups = summarize(column, rows[EVALUATION_GROUP][:], figures[0])
    return evaluated.evaluation.model_copy(update={"groups": groups})


def _retention(config: RunConfig, planned: PlanFile, directory: Path, dtype: "torch.dtype") -> RetentionSummary:
    from hone_trainer.data.general import PER_SKILL, SKILLS
    from hone_trainer.scores import retention

    limits.allow(planned.plan.parameters * 4 / WEIGHT_BYTES_PER_SECOND)
    limits.allow(2 * PER_SKILL * len(SKILLS) * 2 * retention.ANSWER_TOKENS / TOKENS_PER_SECOND)
    return retention.evaluate(config, planned, directory, dtype)


def _max_new_tokens(planned: PlanFile, evaluation: Evaluation) -> int:
    return planned.plan.max_completion_length or evaluation.max_new_tokens


def _report(
    config: RunConfig, planned: PlanFile, complete: checkpoint.Complete, kind: str, files: list[ArtifactFile]
) -> Report:
    from hone_trainer.artifact import export

    return Report(
        job=config.job,
        model_name=config.model_name,
        final_step=complete.step,
        plan=planned.plan,
        dataset=planned.dataset,
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
        base_files=base_files(Path(config.paths.model)) if kind == "Adapter" else [],
        history=load_history(config),
        search=load_search(config) if config.search else None,
        image=os.environ.get(IMAGE_ENV),
        max_new_tokens=_max_new_tokens(planned, config.evaluation),
    )


def _remove_leftovers(output: Path) -> None:
    for path in output.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _stop(*_: object) -> None:
    # PID 1 has no default handler: without this it would run until the grace period ends.
    raise Preempted("stopped by SIGTERM; the next attempt does what is left")


if __name__ == "__main__":
    sys.exit(limits.supervised("finish", main, SECONDS))

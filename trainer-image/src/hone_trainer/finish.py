"""The finish step: exports the trained weights, scores the artifact as it will be served, and writes the report.

    python -m hone_trainer.finish

Writes `<output>/artifact/` and, last, `<output>/report.json`. Run again on a finished run it only tells the result.
"""

import hashlib
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from hone.contract.exits import exit_code
from hone.contract.report import ARTIFACT_DIR, REPORT_FILE, Report, Sample
from hone.contract.results import ArtifactSummary, StepResult
from hone.contract.runconfig import RunConfig
from hone_trainer import checkpoint, host
from hone_trainer.data.prepared import chosen_rows, load_prepared
from hone_trainer.errors import BadInput
from hone_trainer.files import sync_tree, write_atomic
from hone_trainer.logs import quiet_libraries, setup_logging
from hone_trainer.models import load_tokenizer
from hone_trainer.planfile import PlanFile, load_plan
from hone_trainer.results import write_result
from hone_trainer.runconfig import load_run_config
from hone_trainer.verdicts import Preempted, from_exception

if TYPE_CHECKING:
    from datasets import Dataset

    from hone_trainer.scores.rows import RowScores

SAMPLES = 20
"""Test rows whose prompts and answers go into the report."""

_TEMPORARY = ".artifact-"

logger = logging.getLogger(__name__)


def main() -> int:
    """Finish the run, or say why not. Returns the exit code; the termination message is written."""
    setup_logging()
    # Both are read when the libraries are imported. All there is lies in mounted directories.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    # Threads that wait by spinning eat the CPU quota that the others need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGTERM, _stop)
    try:
        config = load_run_config()
        report = load_report(config) or _finish(config)
        result = StepResult(
            step="finish", evaluation=report.evaluation, artifact=report.artifact, final_step=report.final_step
        )
    except Exception as error:
        if not isinstance(error, BadInput | Preempted):
            traceback.print_exc()
        result = StepResult(step="finish", verdict=from_exception(error, None, None, None))
    write_result(result)
    logger.info("ended", extra={"result": result.to_dict()})
    return exit_code(result.verdict.failure_class) if result.verdict else 0


def load_report(config: RunConfig) -> Report | None:
    """The report of a finished run, or None."""
    try:
        return Report.model_validate_json((Path(config.paths.output) / REPORT_FILE).read_text())
    except (OSError, ValidationError):
        return None


def _finish(config: RunConfig) -> Report:
    planned = load_plan(config)
    if planned is None:
        raise BadInput("RunConfig", f"{config.paths.run} holds no plan for it", "Run prepare first.")
    last = checkpoint.final_checkpoint(config)
    if last is None:
        raise RuntimeError(f"{config.paths.run} holds no final checkpoint: the run has not been trained to its end")
    output = Path(config.paths.output)
    _remove_leftovers(output)
    directory = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=output))
    try:
        report = _make(config, planned, *last, directory)
        sync_tree(directory)
        # Others read the claim: the server's pods, as another user perhaps.
        directory.chmod(0o755)
        shutil.rmtree(output / ARTIFACT_DIR, ignore_errors=True)
        directory.rename(output / ARTIFACT_DIR)
        write_atomic(output / REPORT_FILE, report.to_json().encode(), durable=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return report


def _make(config: RunConfig, planned: PlanFile, last: Path, complete: checkpoint.Complete, directory: Path) -> Report:
    import torch

    from hone_trainer import export
    from hone_trainer.methods import METHODS
    from hone_trainer.scores.compare import compare
    from hone_trainer.scores.rows import score_rows

    quiet_libraries()
    torch.set_num_threads(host.cpus())
    kind = export.export(config, last, directory)
    logger.info("exported", extra={"kind": kind, "checkpoint": str(last)})

    test = load_prepared(planned.prepared).test
    rows = test.select(chosen_rows(len(test), config.evaluation.max_samples))
    limit = config.evaluation.max_new_tokens
    # As it will be served: on CPUs in fp32, else in bf16.
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    tokenizer = load_tokenizer(directory)
    model = METHODS[config.method.type].load(config, directory, dtype)
    tuned = score_rows(model, tokenizer, rows, limit, "tuned")
    del model
    base = _score_base(config, planned, rows, dtype)

    references = rows["reference"][:]
    lengths = [len(ids) for ids in tokenizer(references, add_special_tokens=False)["input_ids"]] if references else []
    evaluation, notes = compare(base, tuned, references, lengths)
    export.write_card(directory, config, planned.plan, planned.dataset, evaluation, notes, kind)
    files = export.list_files(directory)
    return Report(
        job=config.job,
        model_name=config.model_name,
        final_step=complete.step,
        plan=planned.plan,
        dataset=planned.dataset,
        evaluation=evaluation,
        artifact=ArtifactSummary(
            digest=export.digest_of(files),
            size_bytes=sum(file.size_bytes for file in files),
            kind=kind,
            lora_rank=planned.plan.lora_rank if kind == "Adapter" else None,
            base=config.model_name,
            base_digest=planned.model_digest,
            max_model_length=export.max_model_length(config),
        ),
        files=files,
        max_new_tokens=limit,
        samples=[
            Sample(prompt=prompt, reference=reference, base=of_base, tuned=of_tuned)
            for prompt, reference, of_base, of_tuned in list(
                zip(rows["prompt"][:], references, base.answers, tuned.answers, strict=True)
            )[:SAMPLES]
        ],
        notes=notes,
    )


def _score_base(config: RunConfig, planned: PlanFile, rows: "Dataset", dtype: object) -> "RowScores":
    """The base model's figures, from the workspace's cache where another run on the same data has left them."""
    from transformers import AutoModelForCausalLM

    from hone_trainer.scores.rows import SCORER_VERSION, load_cached, save_cached, score_rows

    key = {
        "model": planned.model_digest,
        # Covers test rows, tokenizer and chat template.
        "data": planned.dataset.digest,
        "rows": len(rows),
        "maxNewTokens": config.evaluation.max_new_tokens,
        "dtype": str(dtype),
        "scorer": SCORER_VERSION,
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    path = Path(config.paths.workspace) / "scores" / f"{digest}.json"
    cached = load_cached(path)
    if cached is not None and len(cached.losses) == len(rows):
        logger.info("base scores found", extra={"path": str(path)})
        return cached
    model = AutoModelForCausalLM.from_pretrained(config.paths.model, dtype=dtype, local_files_only=True)
    began = time.monotonic()
    scores = score_rows(model, load_tokenizer(config.paths.model), rows, config.evaluation.max_new_tokens, "base")
    logger.info("base scored", extra={"seconds": round(time.monotonic() - began, 1), "path": str(path)})
    save_cached(path, scores)
    return scores


def _remove_leftovers(output: Path) -> None:
    for path in output.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)


def _stop(*_: object) -> None:
    # As PID 1 it would otherwise not end before the grace period does.
    raise Preempted("stopped by SIGTERM; the next attempt starts anew")


if __name__ == "__main__":
    sys.exit(main())

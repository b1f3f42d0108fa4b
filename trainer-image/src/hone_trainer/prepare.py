"""The prepare step: checks and tokenizes the data, reads the models, and makes the plan.

    python -m hone_trainer.prepare

Needs a CPU. Reads the RunConfig, writes `<workspace>/prepared/<digest>/`, the user's reward functions and
`<run>/plan.json`, and reports dataset and plan, or what is wrong, to the operator as the pod's termination message. A
second run reports the same at once.
"""

import hashlib
import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hone.contract.exits import FailureClass, exit_code
from hone.contract.objectives import OBJECTIVES
from hone.contract.plan import DatasetSummary, Plan
from hone.contract.results import DownloadedModel, StepResult
from hone.contract.runconfig import Merge, RunConfig
from hone.contract.settings import MAX_BAD_ROWS, Balance, DataFormat, TrainOn
from hone.contract.verdict import Verdict
from hone_trainer.artifact.difference import check_artifacts
from hone_trainer.data import benchmarks, pack, stored_survey
from hone_trainer.data.build_errors import MODEL, check_bad_rows
from hone_trainer.data.checks import check_format, check_system_prompt, choose_train_on
from hone_trainer.data.classes import Classes, find_classes
from hone_trainer.data.encoders import EncoderOptions
from hone_trainer.data.prepared import Prepared, difference, load_prepared, packed_path
from hone_trainer.data.sources import Source
from hone_trainer.data.survey import Survey, survey
from hone_trainer.data.workers import WorkerDied
from hone_trainer.launcher.server import serve_rows
from hone_trainer.models.directories import check_models, downloads, originals
from hone_trainer.models.materialize import materialize_data, materialize_models
from hone_trainer.objectives import components
from hone_trainer.objectives.warnings import WarningInputs
from hone_trainer.planning.checks import check_settings
from hone_trainer.planning.data_sources import find_sources
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.packing import Packing, propose
from hone_trainer.planning.plan import make_plan
from hone_trainer.planning.rollouts import completion_length
from hone_trainer.planning.volume import check_output, fit_to_volume
from hone_trainer.planning.write_speed import write_speed
from hone_trainer.protocol import limits, shared
from hone_trainer.protocol.errors import BadInput, clip, full_disk_hint, place_of, words_of
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.logs import setup_logging
from hone_trainer.protocol.planfile import PlanFile, load_plan, save_plan
from hone_trainer.protocol.results import write_result
from hone_trainer.protocol.runconfig import digest_of, load_attempt, load_run_config, training_digest
from hone_trainer.rewards.checks import check_rewards, compared_by
from hone_trainer.scores import scorers
from hone_trainer.training.continuation import take_over

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone_trainer.models.facts import ModelFacts

log = logging.getLogger("hone_trainer.prepare")

STEP = "prepare"
SECONDS = 1800.0
"""How long the step may take, in addition to what it allows for the size of data and models."""
WEIGHT_BYTES_PER_SECOND = 5_000_000
"""How slowly models may be read: a loaded node with a slow volume is several times faster."""
_MAX_WARNINGS = 16


@dataclass(frozen=True)
class _Data:
    """The user's rows once they are checked.

    Attributes:
        sources: the files.
        survey: format and split of every row.
        train_on: which tokens carry loss; None for objectives without this choice.
        classes: the classes; None for formats without classes.
        digests: of the files, and of these with all that decides what their survey is.
        stored: whether the survey is that of an earlier job with the same data, without rows.
    """

    sources: list[Source]
    survey: Survey
    train_on: TrainOn | None
    classes: Classes | None
    digests: tuple[str, str]
    stored: bool = False


@dataclass(frozen=True)
class _Models:
    """The model to train with its tokenizer, and the parameters of the reward model, 0 without one."""

    facts: "ModelFacts"
    tokenizer: "PreTrainedTokenizerBase"
    reward_parameters: int


def prepare(config: RunConfig, *, measures_workspace: bool = True) -> PlanFile:
    """Prepare data and plan of a run, or return the plan if that is done.

    Args:
        config: the run.
        measures_workspace: whether speed and size of the workspace matter; not where nothing will be trained.

    Raises:
        BadInput: the spec, the data or the model is wrong, with the field and the remedy.
    """
    if done := _existing_plan(config):
        return done
    check_settings(config)
    check_models(originals(config))
    # Data before models: it needs no library that takes seconds to import, and no merge that takes minutes.
    downloaded = materialize_data(config)
    data = _surveyed(config, find_sources(config))
    limits.reading("", "")
    reward_code = check_rewards(config.reward)
    _allow_for_models(config)
    check_artifacts(config.artifacts)
    benchmarks.check(config)
    scorers.check(config.evaluation)
    downloaded += materialize_models(config)
    check_models(downloads(config))
    models = _read_models(config, data.survey)
    prepared = _tokenize(config, data, models)
    limits.reading("", "")
    lengths = pack.row_lengths(prepared.train)
    packing = _pack(config, models.facts, prepared, lengths)
    workspace = Path(config.paths.workspace) if measures_workspace else None
    plan = _plan(config, models, prepared, packing, lengths, workspace)
    plan = _with_warnings(plan, config, data.survey, models, prepared, workspace)
    _write_reward_code(reward_code)
    _store_template(config, models)
    shared.make_room(Path(config.paths.workspace), needed=0)
    return _write_plan(config, plan, models.facts, prepared, downloaded)


def _allow_for_models(config: RunConfig) -> None:
    """Add the time to read, and perhaps to merge, the models."""
    bases = [entry.base for entry in config.materialize if isinstance(entry, Merge)]
    for directory in filter(None, (config.paths.model, config.paths.reward_model, config.paths.teacher, *bases)):
        size = sum(path.stat().st_size for path in Path(directory).glob("*") if path.is_file())
        limits.allow(size / WEIGHT_BYTES_PER_SECOND)


def _existing_plan(config: RunConfig) -> PlanFile | None:
    """The plan of an earlier run of this step, if its data are still there."""
    existing = load_plan(config)
    if existing is not None:
        shared.use(Path(existing.prepared))
    if existing is None or _difference(Path(existing.prepared)) is not None:
        return None
    length = existing.plan.packed_sequence_length
    if length is not None and pack.difference(packed_path(Path(existing.prepared), length)) is not None:
        return None
    log.info("The plan exists already", extra={"plan": config.paths.run})
    return existing


def _surveyed(config: RunConfig, sources: list[Source]) -> _Data:
    """What the rows are: as an earlier job with the same data has found it, else by reading them."""
    digests = stored_survey.digests(config.objective, config.data, sources)
    stored = stored_survey.load(Path(config.paths.workspace), digests[1])
    if stored is None:
        return _survey(config, sources, digests)
    rows, classes = stored
    log.info("Rows checked by an earlier job with the same data", extra={"format": rows.format})
    train_on = choose_train_on(config.data.train_on, rows) if OBJECTIVES[config.objective].data.marks_tokens else None
    return _Data(sources, rows, train_on, classes, digests, stored=True)


def _survey(config: RunConfig, sources: list[Source], digests: tuple[str, str]) -> _Data:
    """Check all rows, and that the objective can learn from them."""
    objective = OBJECTIVES[config.objective]
    rows = survey(
        sources,
        config.data.format,
        0.0 if config.data.validation else config.data.validation_fraction,
        0.0 if config.data.test else config.data.test_fraction,
        objective.data.formats,
        generated=objective.generates,
        split_by=config.data.split_by,
        oversample=config.data.balance is Balance.OVERSAMPLE,
    )
    log.info("Rows checked", extra={"rows": len(rows.refs), "badRows": rows.faults.total, "format": rows.format})
    for format in rows.formats:
        check_format(config.objective, format)
    for source, (good, faults) in rows.by_source.items():
        check_bad_rows(source, good, faults, _max_bad_rows(config))
    check_system_prompt(config.data.system_prompt, rows)
    train_on = choose_train_on(config.data.train_on, rows) if objective.data.marks_tokens else None
    classes = find_classes(rows.refs) if objective.data.labels else None
    components(config.objective).check_rows(rows)
    return _Data(sources, rows, train_on, classes, digests)


def _read_models(config: RunConfig, rows: Survey) -> _Models:
    from hone_trainer.models import chat_template
    from hone_trainer.models.facts import load_tokenizer, weights_bytes
    from hone_trainer.models.modules import read_base

    facts = read_base(config.paths.model, components(config.objective).architecture, config.method)
    log.info("Model read", extra={"model": config.model_name, "parameters": facts.parameters})
    check_output(config, weights_bytes(facts.directory), serves_adapter=facts.serves_adapter)
    length = config.hyperparameters.sequence_length
    if length is not None and length > facts.max_length:
        raise BadInput(
            "spec.hyperparameters.sequenceLength",
            f"{length} tokens are more than the model's context of {facts.max_length}",
            f"Use at most {facts.max_length}, or remove it.",
        )
    tokenizer = load_tokenizer(config.paths.model)
    if (template := chat_template.choose_template(config.data.chat_template, tokenizer)) is not None:
        tokenizer.chat_template = template
    return _Models(facts, tokenizer, components(config.objective).reward_model(config, rows.chat))


def _encoder_options(config: RunConfig, data: _Data, max_length: int) -> EncoderOptions:
    text = data.survey.format is DataFormat.TEXT
    options = EncoderOptions(data.survey.chat, data.train_on, data.classes, raw_text=text)
    if not OBJECTIVES[config.objective].generates:
        return options
    return replace(
        options,
        room=completion_length(config, max_length),
        limit=config.hyperparameters.sequence_length or max_length,
        compares=compared_by(config.reward),
    )


def _tokenize(config: RunConfig, data: _Data, models: _Models) -> Prepared:
    """The prepared data, from the workspace if another run prepared the same."""
    from hone_trainer.data.build import build_prepared
    from hone_trainer.data.raw_text import DEFAULT_PIECE
    from hone_trainer.data.token_checks import TokenChecks
    from hone_trainer.data.token_rows import Options
    from hone_trainer.models import chat_template

    max_length = models.facts.max_length
    options = _encoder_options(config, data, max_length)
    digest = _digest(config, data, models, options)
    directory = Path(config.paths.workspace) / "prepared" / digest
    shared.use(directory)
    if _difference(directory) is None:
        log.info("The prepared data exist already", extra={"directory": str(directory)})
        return load_prepared(directory)
    if data.stored:
        data = _survey(config, data.sources, data.digests)
        options = _encoder_options(config, data, max_length)
    started = time.monotonic()
    encoder = components(config.objective).encoder(models.tokenizer, options)
    tokens = Options(
        config.hyperparameters.seed,
        config.hyperparameters.sequence_length,
        max_length,
        _max_bad_rows(config),
        template_field=chat_template.FIELD if config.data.chat_template else MODEL,
        default_piece=DEFAULT_PIECE if options.raw_text else None,
        checks=TokenChecks.of(models.tokenizer, models.facts.vocab_size),
    )
    build_prepared(directory, digest, data.survey, encoder, tokens, config.job.uid)
    seconds = round(time.monotonic() - started, 1)
    log.info("Data prepared", extra={"directory": str(directory), "seconds": seconds, "marks": encoder.marks})
    stored_survey.store(Path(config.paths.workspace), data.digests[1], data.survey, data.classes)
    return load_prepared(directory)


def _max_bad_rows(config: RunConfig) -> float:
    """The largest share of bad rows."""
    return MAX_BAD_ROWS if config.data.max_bad_rows is None else config.data.max_bad_rows


def _difference(directory: Path) -> str | None:
    """How prepared data differ from what was written under their name; None if they do not."""
    problem = difference(directory, directory.name)
    if problem is not None and directory.exists():
        log.warning("Prepared data are made again", extra={"directory": str(directory), "reason": problem})
    return problem


def _digest(config: RunConfig, data: _Data, models: _Models, options: EncoderOptions) -> str:
    """The digest of everything that decides what the prepared data are."""
    from hone_trainer.data.digest import prepared_digest, tokenizer_digest

    return prepared_digest(
        data.digests[0],
        tokenizer_digest(Path(config.paths.model)),
        {
            "objective": config.objective,
            "format": data.survey.format,
            "columns": config.data.columns,
            "roles": config.data.roles,
            "sources": [{**part.to_dict(), "path": None} for part in config.data.sources or []],
            "trainOn": options.train_on,
            "chatTemplate": models.tokenizer.chat_template if config.data.chat_template else None,
            "systemPrompt": config.data.system_prompt,
            "reasoning": config.data.reasoning,
            "splitBy": config.data.split_by,
            "maxBadRows": config.data.max_bad_rows,
            "groupBy": config.evaluation.group_by,
            "oversample": config.data.balance is Balance.OVERSAMPLE,
            "seed": config.hyperparameters.seed,
            "sequenceLength": config.hyperparameters.sequence_length,
            "maxLength": models.facts.max_length,
            "validationFraction": config.data.validation_fraction,
            "testFraction": config.data.test_fraction,
            "room": options.room,
            "compares": options.compares,
        },
    )


def _pack(config: RunConfig, facts: "ModelFacts", prepared: Prepared, lengths: list[int]) -> Packing:
    """Whether training rows are packed; if so, they are written next to the prepared ones."""
    from hone_trainer.planning.separation import keeps_rows_apart

    packing = propose(config, facts, lengths, lambda: keeps_rows_apart(facts.directory))
    if packing.length is None:
        return packing
    packed = pack.pack(prepared.directory, packing.length)
    log.info("Rows packed", extra={"rows": len(lengths), "packedRows": len(packed), "length": packing.length})
    return replace(packing, rows=len(packed))


def _plan(
    config: RunConfig,
    models: _Models,
    prepared: Prepared,
    packing: Packing,
    lengths: list[int],
    workspace: Path | None,
) -> Plan:
    from hone_trainer.models.activations import measure

    architecture = components(config.objective).architecture
    speed = write_speed(workspace) if workspace else None
    log.info("Workspace measured", extra={"bytesPerSecond": speed})
    return make_plan(
        PlanInputs(
            config,
            models.facts,
            prepared.summary,
            prepared.sequence_length,
            prepared.classes,
            packing=packing,
            write_speed=speed,
            reward_parameters=models.reward_parameters,
            teacher_parameters=components(config.objective).teacher(config, models.facts, prepared.sequence_length),
            lengths=lengths,
            measure=cache(partial(measure, models.facts.directory, architecture)),
        )
    )


def _with_warnings(
    plan: Plan, config: RunConfig, rows: Survey, models: _Models, prepared: Prepared, workspace: Path | None
) -> Plan:
    """The plan with the warnings about data and workspace after its own."""
    from hone_trainer.models.stops import stop_warnings

    parts = components(config.objective)
    template = models.tokenizer.chat_template if parts.architecture.api == "Chat" else None
    warnings = parts.warnings(WarningInputs(config, rows, prepared, template))
    warnings += stop_warnings(models.facts.directory, models.tokenizer, prepared.ends)
    if workspace:
        plan, short = fit_to_volume(workspace, plan, config.checkpoint)
        warnings += short
    clipped = [*plan.warnings, *(clip(warning, 512) for warning in warnings)]
    return plan.model_copy(update={"warnings": clipped[:_MAX_WARNINGS]})


def _write_reward_code(code: dict[Path, bytes]) -> None:
    """Write the user's code where train and finish run it, before the plan says that everything is prepared."""
    for path, content in code.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content, durable=True)
        log.info("Reward function stored", extra={"file": str(path), "sha256": hashlib.sha256(content).hexdigest()})


def _store_template(config: RunConfig, models: _Models) -> None:
    """Write a chat template that is not the model's own where train and finish read it."""
    from hone_trainer.models.chat_template import store_template

    store_template(config, str(models.tokenizer.chat_template) if config.data.chat_template else None)


def _write_plan(
    config: RunConfig, plan: Plan, facts: "ModelFacts", prepared: Prepared, downloaded: list[DownloadedModel]
) -> PlanFile:
    from hone_trainer.models.facts import model_digests

    digest, files = model_digests(facts.directory)
    result = PlanFile(
        plan=plan,
        dataset=prepared.summary,
        prepared=str(prepared.directory),
        run_config_digest=digest_of(config),
        model_digest=digest,
        model_files=files,
        training_digest=training_digest(config),
        downloads=downloaded,
    )
    if (step := take_over(config, result)) is not None:
        reasons = {
            **plan.reasons,
            "totalSteps": f"{plan.reasons.get('totalSteps', '')} Continues from step {step}.".strip(),
        }
        result = result.model_copy(update={"plan": plan.model_copy(update={"reasons": reasons})})
    save_plan(config, result)
    return result


def main(*, measures_workspace: bool = True) -> int:
    """Run the step; the result is the termination message. Returns the exit code. Argument as of `prepare`."""
    setup_logging()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    signal.signal(signal.SIGTERM, _stop)
    try:
        config = load_run_config()
        shared.join(config.job.uid, load_attempt().shared)
        prepared = prepare(config, measures_workspace=measures_workspace)
    except BadInput as error:
        log.error(str(error), extra={"hint": error.hint})
        return _end(error.verdict())
    except WorkerDied as error:
        log.error(str(error))
        return _end(limits.killed(STEP, error.number))
    except Exception as error:
        log.exception("prepare failed")
        return _end(_crashed(error))
    write_result(
        StepResult(
            step=STEP,
            dataset=_shown(prepared.dataset, config),
            plan=prepared.plan,
            downloads=prepared.downloads,
        )
    )
    log.info("Prepared", extra={"totalSteps": prepared.plan.total_steps, "trainRows": prepared.dataset.train_rows})
    return 0


def _shown(dataset: DatasetSummary, config: RunConfig) -> DatasetSummary:
    """What the job's status shows of the data: a row only if its author wants that."""
    return dataset if config.data.show_example else dataset.model_copy(update={"example": None})


def _end(verdict: Verdict) -> int:
    write_result(StepResult(step=STEP, verdict=verdict))
    return verdict.exit_code or 1


def _crashed(error: Exception) -> Verdict:
    return Verdict(
        failure_class=FailureClass.CRASHED,
        message=f"{type(error).__name__}: {clip(words_of(error), 800)}{place_of(error)}",
        hint=full_disk_hint(error),
        exit_code=exit_code(FailureClass.CRASHED),
        time=time.time(),
    )


def _stop(_signal: int, _frame: object) -> NoReturn:
    """Exit by an exception, so that files that are half-written are removed."""
    raise SystemExit(exit_code(FailureClass.PREEMPTED))


if __name__ == "__main__":
    sys.exit(limits.supervised(STEP, main, SECONDS, attend=serve_rows))

"""The prepare step: check and tokenize the data, look at the model, make the plan.

    python -m hone_trainer.prepare

Needs a CPU. Reads the RunConfig, writes `<workspace>/prepared/<digest>/`, the user's reward functions and
`<run>/plan.json`, and reports dataset and plan to the operator, or what is wrong, as the pod's termination message.
Running it again gives the same answer at once.
"""

import hashlib
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hone.contract.exits import FailureClass, exit_code
from hone.contract.objectives import OBJECTIVES, objectives_of
from hone.contract.plan import DatasetSummary
from hone.contract.results import StepResult
from hone.contract.runconfig import RunConfig
from hone.contract.settings import DataFormat, TrainOn
from hone.contract.verdict import Verdict
from hone_trainer.data.classes import find_classes
from hone_trainer.data.encoders import Wanted
from hone_trainer.data.formats import COLUMNS, DEFAULT_TRAIN_ON, EXAMPLES
from hone_trainer.data.prepared import META_FILE, Prepared, load_prepared
from hone_trainer.data.sources import Source, find_source
from hone_trainer.data.survey import Survey, survey
from hone_trainer.objectives import PARTS
from hone_trainer.planning.checks import check_settings
from hone_trainer.planning.packing import Packing, propose
from hone_trainer.planning.plan import make_plan
from hone_trainer.planning.rollouts import completion_length
from hone_trainer.planning.volume import check_output, check_volume
from hone_trainer.planning.write_speed import write_speed
from hone_trainer.protocol.errors import BadInput, clip, full_disk_hint
from hone_trainer.protocol.files import write_atomic
from hone_trainer.protocol.logs import setup_logging
from hone_trainer.protocol.planfile import PlanFile, load_plan, save_plan
from hone_trainer.protocol.results import write_result
from hone_trainer.protocol.runconfig import digest_of, load_run_config
from hone_trainer.rewards.checks import check_model, check_rewards, compared_by

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from hone_trainer.models.facts import ModelFacts

log = logging.getLogger("hone_trainer.prepare")

STEP = "prepare"


def prepare(config: RunConfig) -> PlanFile:
    """Prepare data and plan of a run, or find them prepared.

    Raises:
        BadInput: the spec, the data or the model is wrong, with the field and the remedy.
    """
    frozen = load_plan(config)
    if frozen is not None and (Path(frozen.prepared) / META_FILE).exists():
        log.info("The plan was made before", extra={"plan": config.paths.run})
        return frozen
    check_settings(config)
    sources = _sources(config)
    # Data before model: it needs no library that takes seconds to import.
    surveyed = survey(
        sources,
        config.data.format,
        0.0 if config.data.validation else config.data.validation_fraction,
        0.0 if config.data.test else config.data.test_fraction,
        OBJECTIVES[config.objective].formats,
        written=bool(OBJECTIVES[config.objective].generations),
    )
    log.info(
        "Rows checked", extra={"rows": len(surveyed.refs), "badRows": surveyed.faults.total, "format": surveyed.format}
    )
    _check_format(config, surveyed.format)
    train_on = _choose_train_on(config, surveyed) if OBJECTIVES[config.objective].marks_tokens else None
    labeled = any("label" in COLUMNS[format] for format in OBJECTIVES[config.objective].formats)
    classes = find_classes(surveyed.refs) if labeled else None
    if OBJECTIVES[config.objective].generations:
        _check_alike(surveyed)
    code = check_rewards(config.reward)

    from hone_trainer.models.facts import load_tokenizer, read_model, weights_bytes
    from hone_trainer.models.teacher import read_teacher

    for merge in config.merges:
        from hone_trainer.models.merging import ensure_merged

        ensure_merged(merge)
    facts = read_model(config.paths.model, PARTS[config.objective].architecture)
    check_output(config, weights_bytes(facts.directory))
    log.info("Model read", extra={"model": config.model_name, "parameters": facts.parameters})
    configured_length = config.hyperparameters.sequence_length
    if configured_length is not None and configured_length > facts.max_length:
        raise BadInput(
            "spec.hyperparameters.sequenceLength",
            f"{configured_length} tokens are more than the model's context of {facts.max_length}",
            f"Use at most {facts.max_length}, or leave it out.",
        )
    tokenizer = load_tokenizer(config.paths.model)
    scoring = config.paths.reward_model
    reward_parameters = check_model(scoring, chat=surveyed.chat) if scoring else 0
    encoder_options = Wanted(surveyed.chat, train_on, classes)
    if OBJECTIVES[config.objective].generations:
        room, limit = completion_length(config, facts.max_length), configured_length or facts.max_length
        encoder_options = replace(encoder_options, room=room, limit=limit, compares=compared_by(config.reward))
    directory = _prepared_directory(config, sources, surveyed, encoder_options, tokenizer, facts.max_length)
    prepared = load_prepared(directory)
    packing, speed = _choose_packing(config, facts, prepared), write_speed(Path(config.paths.workspace))
    log.info("Workspace measured", extra={"bytesPerSecond": speed})
    teacher = read_teacher(config, facts, prepared.sequence_length)
    plan = make_plan(
        config,
        facts,
        prepared.summary,
        prepared.sequence_length,
        prepared.classes,
        packing=packing,
        write_speed=speed,
        other_parameters=reward_parameters,
        teacher_parameters=teacher.parameters if teacher else 0,
    )
    chats = PARTS[config.objective].architecture.api == "Chat"
    noticed = [*_data_warnings(surveyed, tokenizer.chat_template if chats else None), *prepared.warnings]
    noticed += _split_warnings(config, prepared.summary)
    if short := check_volume(Path(config.paths.workspace), plan.checkpoint_bytes, config.checkpoint.keep):
        noticed.append(short)
    plan = plan.model_copy(update={"warnings": [*plan.warnings, *(clip(w, 512) for w in noticed)][:16]})
    result = PlanFile(
        plan=plan,
        dataset=prepared.summary,
        prepared=str(directory),
        run_config_digest=digest_of(config),
        model_digest=facts.digest,
    )
    _copy_reward_code(code)
    save_plan(config, result)
    return result


def _sources(config: RunConfig) -> list[Source]:
    data = config.data
    paths = {"train": data.train, "validation": data.validation, "test": data.test}
    sources = [
        find_source(name, path, mount=Path(data.mounts) / name if data.mounts else None, columns=data.columns)
        for name, path in paths.items()
        if path is not None
    ]
    for source in sources:
        kinds = sorted({file.kind.value for file in source.files})
        log.info("Files found", extra={"split": source.name, "files": len(source.files), "kinds": ", ".join(kinds)})
    return sources


def _check_format(config: RunConfig, rows_format: DataFormat) -> None:
    """Refuse rows that the objective cannot learn from."""
    formats = OBJECTIVES[config.objective].formats
    if rows_format in formats:
        return
    columns = " and ".join(f"`{column}`" for column in COLUMNS[rows_format])
    others = " or ".join(objective.value for objective in objectives_of(rows_format))
    raise BadInput(
        "spec.objective",
        f"is {config.objective.value}, but the rows have {columns} (format {rows_format.value})",
        f"Set it to {others}, or write each row as {' or '.join(EXAMPLES[each] for each in formats)}.",
    )


def _check_alike(surveyed: Survey) -> None:
    """Refuse a mix of conversations and plain text: TRL's trainers take all prompts of a step for one or the other."""
    if surveyed.chat and surveyed.plain_text:
        raise BadInput(
            "spec.dataset.train",
            "some prompts are strings and others lists of messages",
            "Write all of them in one way.",
        )


def _choose_train_on(config: RunConfig, surveyed: Survey) -> TrainOn:
    train_on = config.data.train_on or DEFAULT_TRAIN_ON[surveyed.format]
    if train_on is TrainOn.ASSISTANT and surveyed.plain_text:
        raise BadInput(
            "spec.dataset.trainOn",
            "is Assistant, but there are rows of plain text, which have no assistant's turn",
            "Use Completion or All, or write the rows as messages.",
        )
    return train_on


def _prepared_directory(
    config: RunConfig,
    sources: list[Source],
    surveyed: Survey,
    encoder_options: Wanted,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> Path:
    from hone_trainer.data.build import Options, build_prepared
    from hone_trainer.data.digest import data_digest, prepared_digest, tokenizer_digest

    options = Options(config.hyperparameters.seed, config.hyperparameters.sequence_length, max_length)
    digest = prepared_digest(
        data_digest(sources),
        tokenizer_digest(Path(config.paths.model)),
        {
            "objective": config.objective,
            "format": surveyed.format,
            "columns": config.data.columns,
            "trainOn": encoder_options.train_on,
            "seed": options.seed,
            "sequenceLength": options.sequence_length,
            "maxLength": options.max_length,
            "validationFraction": config.data.validation_fraction,
            "testFraction": config.data.test_fraction,
            "room": encoder_options.room,
            "compares": encoder_options.compares,
        },
    )
    directory = Path(config.paths.workspace) / "prepared" / digest
    if (directory / META_FILE).exists():
        log.info("The data were prepared before", extra={"directory": str(directory)})
        return directory
    started = time.monotonic()
    encoder = PARTS[config.objective].encoder(tokenizer, encoder_options)
    build_prepared(directory, digest, sources, surveyed, encoder, options)
    log.info(
        "Data prepared",
        extra={"directory": str(directory), "seconds": round(time.monotonic() - started, 1), "marks": encoder.marks},
    )
    return directory


def _choose_packing(config: RunConfig, facts: "ModelFacts", prepared: Prepared) -> Packing:
    """Whether training rows are packed; they are then stored next to the prepared ones."""
    from hone_trainer.data.pack import pack, row_lengths
    from hone_trainer.planning.separation import keeps_rows_apart

    lengths = row_lengths(prepared.train)
    packing = propose(config, facts, lengths, lambda: keeps_rows_apart(facts.directory))
    if packing.length is None:
        return packing
    packed = pack(prepared.directory, packing.length)
    log.info("Rows packed", extra={"rows": len(lengths), "packedRows": len(packed), "length": packing.length})
    return replace(packing, rows=len(packed))


def _copy_reward_code(code: dict[Path, bytes]) -> None:
    """Write the user's code where train and finish run it, before the plan says that all is prepared."""
    for path, content in code.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content, durable=True)
        log.info("Reward function kept", extra={"file": str(path), "sha256": hashlib.sha256(content).hexdigest()})


def _data_warnings(surveyed: Survey, chat_template: object) -> list[str]:
    warnings = []
    if surveyed.plain_text and chat_template:
        warnings.append(
            "The rows are plain text, but the model has a chat template: what is learned shows in completions, "
            "hardly in chats. Write the rows as messages to tune the chat."
        )
    if surveyed.shared_prompts:
        warnings.append(
            f"{surveyed.shared_prompts} training rows ask what test rows ask: "
            "the scores will look better than they are."
        )
    return warnings


def _split_warnings(config: RunConfig, summary: DatasetSummary) -> list[str]:
    warnings = []
    has_validation = config.data.validation is not None or config.data.validation_fraction > 0
    if has_validation and not summary.validation_rows and not OBJECTIVES[config.objective].generations:
        warnings.append("No row is left for validation: nothing tells when training goes wrong.")
    if not summary.test_rows:
        warnings.append("No row is left for the test split: base and tuned model cannot be compared.")
    return warnings


def main() -> int:
    """Run the step; the result is the termination message. Returns the exit code."""
    setup_logging()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    signal.signal(signal.SIGTERM, _stop)
    try:
        frozen = prepare(load_run_config())
    except BadInput as error:
        log.error(str(error), extra={"hint": error.hint})
        return _end(error.verdict())
    except Exception as error:
        log.exception("prepare failed")
        return _end(_crashed(error))
    write_result(StepResult(step=STEP, dataset=frozen.dataset, plan=frozen.plan))
    log.info("Prepared", extra={"totalSteps": frozen.plan.total_steps, "trainRows": frozen.dataset.train_rows})
    return 0


def _end(verdict: Verdict) -> int:
    write_result(StepResult(step=STEP, verdict=verdict))
    return verdict.exit_code or 1


def _crashed(error: Exception) -> Verdict:
    return Verdict(
        failure_class=FailureClass.CRASHED,
        message=clip(f"{type(error).__name__}: {error}", 1024),
        hint=full_disk_hint(error),
        exit_code=exit_code(FailureClass.CRASHED),
        time=time.time(),
    )


def _stop(_signal: int, _frame: object) -> NoReturn:
    """End at once, but by an exception, so that what is half-written is removed."""
    raise SystemExit(exit_code(FailureClass.PREEMPTED))


if __name__ == "__main__":
    sys.exit(main())

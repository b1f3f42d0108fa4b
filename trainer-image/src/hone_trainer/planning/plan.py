"""The plan: every value that training needs, the user's own first, each with its reason."""

import math
from dataclasses import dataclass, field
from typing import TypeVar

from hone.contract.objectives import OBJECTIVES, ZERO_STAGES
from hone.contract.plan import DatasetSummary, MemoryEstimate, Plan
from hone.contract.runconfig import RunConfig
from hone.contract.settings import Lora, MethodType, OnScarceData
from hone_trainer.data.classes import Classes
from hone_trainer.models.facts import ModelFacts
from hone_trainer.objectives import PARTS
from hone_trainer.planning import rollouts
from hone_trainer.planning.balance import choose_balance
from hone_trainer.planning.batches import (
    MOST_TOKENS,
    SMALL_DATA_ROWS,
    default_epochs,
    global_batch_size,
    micro_batches,
    steps_per_epoch,
    steps_per_pass,
)
from hone_trainer.planning.checkpoint_schedule import plan_evaluations, plan_saves
from hone_trainer.planning.checks import check_settings
from hone_trainer.planning.memory import checkpoint_bytes, estimate_memory, states_bytes
from hone_trainer.planning.memory_fallback import planned_precision, why_precision
from hone_trainer.planning.packing import MOST_PACKED_TOKENS, UNPACKED, Packing, packed_rows_per_step
from hone_trainer.protocol.errors import BadInput, clip
from hone_trainer.protocol.units import gib

T = TypeVar("T")

PROBE_FROM = 0.6
"""Share of a process's memory from which on two steps are tried out first; on GPUs they always are."""
_LARGE_MODEL = 1_000_000_000
_FEW_STEPS = 20
_WHY_STAGE = {2: "Plain DDP would not fit.", 3: "Neither plain DDP nor ZeRO-2 would fit."}


@dataclass
class _Choices:
    """Gathers values and why they were chosen."""

    reasons: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def pick(self, name: str, asked: T | None, default: T, why: str) -> T:
        if asked is not None:
            self.reasons[name] = "Set in the spec."
            return asked
        self.reasons[name] = why
        return default

    def warn(self, sentence: str) -> None:
        self.warnings.append(clip(sentence, 512))


@dataclass(frozen=True)
class _Placement:
    """How a step is laid out on the processes, and what that takes."""

    zero_stage: int
    gradient_checkpointing: bool
    micro_batch_size: int
    precision: str
    memory: MemoryEstimate

    @property
    def fits(self) -> bool:
        limit = self.memory.limit_bytes
        return limit is None or self.memory.total_bytes <= limit

    @property
    def is_tight(self) -> bool:
        """Whether a known limit made it slower, or is exceeded."""
        return not self.fits or (self.gradient_checkpointing and self.memory.limit_bytes is not None)


def make_plan(
    config: RunConfig,
    facts: ModelFacts,
    summary: DatasetSummary,
    sequence_length: int,
    classes: Classes | None = None,
    *,
    packing: Packing = UNPACKED,
    write_speed: float | None = None,
    other_parameters: int = 0,
    teacher_parameters: int = 0,
) -> Plan:
    """Choose every value of a run.

    Args:
        config: what the user asked for.
        facts: the base model.
        summary: the prepared data.
        sequence_length: tokens of the longest prepared row.
        classes: the classes, where rows have them.
        packing: whether training rows are packed, how many packed ones there are, and why.
        write_speed: bytes per second that the workspace takes, None where it was not measured.
        other_parameters: those of models that are asked in training and not trained, such as a reward model.
        teacher_parameters: those of the model that is learned from.

    Raises:
        BadInput: the asked values contradict each other, the data are too few, or the model cannot fit.
    """
    check_settings(config)
    choices = _Choices()
    asked, defaults = config.hyperparameters, OBJECTIVES[config.objective]
    method, world = config.method.type, config.topology.world_size
    rows = summary.train_rows
    _check_scarce(config, rows, choices)
    balance = None
    if classes:
        balance = choose_balance(config, classes, choices.pick)
    if PARTS[config.objective].architecture.has_head:
        facts = facts.with_head(len(classes.names) if classes else 1)
    lora = _choose_lora(config, rows, choices)
    frozen = facts.frozen_parameters(config.method.freeze)
    trainable = facts.lora_parameters(lora) if lora else facts.parameters - frozen
    if frozen:
        _explain_freezing(config, facts, frozen, choices)
    answers = rollouts.choose(config, facts.max_length, choices.pick)
    global_batch = _choose_global_batch(config, choices)
    per_rank, kind = global_batch // world, "rows"
    if answers:
        kind = "answers"
    if packing.length:
        per_rank, kind = packed_rows_per_step(per_rank, rows, packing.rows), "packed rows"
        held = rows / packing.rows
        choices.reasons["packedSequenceLength"] = f"{held:.1f} rows in each, {held * per_rank * world:.0f} a step."
    choices.reasons["packing"] = packing.why
    beta = None
    if defaults.beta is not None:
        beta = choices.pick("beta", asked.beta, defaults.beta, f"Default of {config.objective.value}.")
    copy = bool(answers and beta and not lora)
    if copy:
        choices.reasons["beta"] += " A second copy of the model is held to compare with."
    length = packing.length or sequence_length
    placement = _place(
        config,
        facts,
        lora,
        trainable,
        per_rank,
        length,
        packing,
        choices,
        other_parameters,
        teacher_parameters,
        copy=copy,
    )
    if packing.length and asked.packing is None and placement.is_tight:
        unpacked = Packing("Padded rows need less memory at once.")
        return make_plan(
            config,
            facts,
            summary,
            sequence_length,
            classes,
            packing=unpacked,
            write_speed=write_speed,
            other_parameters=other_parameters,
            teacher_parameters=teacher_parameters,
        )
    accumulation = per_rank // placement.micro_batch_size
    choices.reasons["gradientAccumulationSteps"] = (
        f"{per_rank * world} {kind} / ({placement.micro_batch_size} × {world} processes)."
    )
    per_epoch = (
        steps_per_pass(rows, global_batch // (answers["generations"] or 1))
        if answers
        else steps_per_epoch(packing.rows or rows, placement.micro_batch_size, world, accumulation)
    )
    if asked.max_steps is not None:
        total, epochs = asked.max_steps, asked.max_steps / per_epoch
        choices.reasons["totalSteps"] = "spec.hyperparameters.maxSteps."
        choices.reasons["epochs"] = f"{total} steps / {per_epoch} steps an epoch."
    else:
        small = rows < SMALL_DATA_ROWS
        why = f"{rows} rows, {'fewer than' if small else 'at least'} {SMALL_DATA_ROWS}."
        if defaults.epochs:
            why = f"Default of {config.objective.value}."
        epochs = choices.pick("epochs", asked.epochs, defaults.epochs or default_epochs(rows), why)
        total = math.ceil(epochs * per_epoch)
        choices.reasons["totalSteps"] = f"{epochs:g} epochs × {per_epoch} steps."
    if total < _FEW_STEPS:
        choices.warn(f"Only {total} optimizer steps: give more rows or epochs, or a smaller globalBatchSize.")
    why = f"The longest {'prompt and answer' if answers else 'row'}, within the model's {facts.max_length}."
    choices.reasons["sequenceLength"] = "Set in the spec." if asked.sequence_length == sequence_length else why
    width, stage = 4 if placement.precision == "float32" else 2, placement.zero_stage
    size = checkpoint_bytes(facts, method, trainable=trainable, weight_bytes=width, zero_stage=stage)
    saves = plan_saves(config.checkpoint, total, size, write_speed)
    evaluations, why = plan_evaluations(summary.validation_rows, total, writes=bool(answers))
    choices.reasons |= {**saves.reasons, "evaluationEverySteps": why}
    choices.warnings += [clip(warning, 512) for warning in saves.warnings]
    return Plan(
        objective=config.objective.value,
        method=method.value,
        total_steps=total,
        epochs=epochs,
        learning_rate=choices.pick(
            "learningRate",
            asked.learning_rate,
            defaults.learning_rate[method],
            f"Default of {config.objective.value} with {method.value}.",
        ),
        scheduler=choices.pick(
            "scheduler", asked.scheduler, defaults.scheduler, f"Default of {config.objective.value}."
        ),
        warmup_ratio=choices.pick(
            "warmupRatio", asked.warmup_ratio, defaults.warmup_ratio, f"Default of {config.objective.value}."
        ),
        global_batch_size=global_batch,
        micro_batch_size=placement.micro_batch_size,
        gradient_accumulation_steps=accumulation,
        sequence_length=sequence_length,
        packing=packing.length is not None,
        packed_sequence_length=packing.length,
        weight_decay=choices.pick("weightDecay", asked.weight_decay, 0.0, "Default."),
        beta=beta,
        **answers,
        max_grad_norm=choices.pick("maxGradNorm", asked.max_grad_norm, 1.0, "Default."),
        world_size=world,
        zero_stage=placement.zero_stage,
        precision=placement.precision,
        gradient_checkpointing=placement.gradient_checkpointing,
        probe=_choose_probe(placement.memory, config.topology.gpus_per_node > 0, choices),
        lora_rank=lora.rank if lora else None,
        lora_alpha=lora.alpha if lora else None,
        lora_dropout=lora.dropout if lora else None,
        checkpoint_every_steps=saves.every_steps,
        checkpoint_every_minutes=saves.every_minutes,
        checkpoint_min_seconds=saves.min_seconds,
        evaluation_every_steps=evaluations,
        parameters=facts.parameters,
        trainable_parameters=trainable,
        checkpoint_bytes=size,
        checkpoint_seconds=saves.seconds,
        balance=balance,
        memory=placement.memory,
        reasons=choices.reasons,
        warnings=choices.warnings,
    )


def _check_scarce(config: RunConfig, rows: int, choices: _Choices) -> None:
    wanted = config.data.min_samples
    if rows >= wanted:
        return
    said = f"{rows} rows are left to train on after validation and test are held out, minSamples is {wanted}"
    if config.data.on_scarce_data is OnScarceData.FAIL:
        raise BadInput(
            "spec.dataset.minSamples",
            said,
            "Give more rows, lower spec.dataset.minSamples, or set spec.dataset.onScarceData to Warn.",
        )
    choices.warn(f"Little data: {said}. The result may not hold on other data.")


def _explain_freezing(config: RunConfig, facts: ModelFacts, frozen: int, choices: _Choices) -> None:
    choices.reasons["trainableParameters"] = (
        f"spec.method.freeze leaves {frozen:,} of {facts.parameters:,} as they are."
    )
    if config.method.freeze and config.method.freeze.embeddings and facts.tied:
        choices.warn(
            "The model's output head is tied to its input embeddings, so spec.method.freeze.embeddings freezes both."
        )


def _choose_lora(config: RunConfig, rows: int, choices: _Choices) -> Lora | None:
    if not config.method.type.adapts:
        return None
    asked = config.method.lora
    lora = asked or Lora()
    small, wanted = rows < SMALL_DATA_ROWS, OBJECTIVES[config.objective].dropout
    rank = choices.pick("loraRank", lora.rank if lora.rank != Lora().rank else None, lora.rank, "Default.")
    if PARTS[config.objective].architecture.has_head:
        choices.reasons["method"] = (
            "The adapter is merged into a whole model in the end: vLLM serves no trained head in an adapter."
        )
    return Lora(
        rank=rank,
        alpha=choices.pick("loraAlpha", lora.alpha, rank, "As large as the rank."),
        dropout=choices.pick(
            "loraDropout",
            lora.dropout,
            0.05 if small and wanted else 0.0,
            f"{rows} rows, {'fewer than' if small else 'at least'} {SMALL_DATA_ROWS}."
            if wanted
            else "It would blur what is compared.",
        ),
        target_modules=lora.target_modules,
    )


def _choose_global_batch(config: RunConfig, choices: _Choices) -> int:
    chosen, world = global_batch_size(config), config.topology.world_size
    default, group = OBJECTIVES[config.objective].global_batch_size, rollouts.generations(config)
    why = "Default." if chosen == default else f"Nearest to {default} for {world} processes."
    if group:
        why = f"{why} Answers: {group} to each of {chosen // group} prompts."
    return choices.pick("globalBatchSize", config.hyperparameters.global_batch_size, chosen, why)


def _place(
    config: RunConfig,
    facts: ModelFacts,
    lora: Lora | None,
    trainable: int,
    per_rank: int,
    length: int,
    packing: Packing,
    choices: _Choices,
    other_parameters: int,
    teacher_parameters: int,
    *,
    copy: bool,
) -> _Placement:
    """ZeRO stage, gradient checkpointing and micro-batch: the first that fits, from the fastest to the most frugal."""
    topology, method = config.topology, config.method.type
    on_gpu, world, limit = topology.gpus_per_node > 0, topology.world_size, topology.memory_bytes
    micros = micro_batches(topology.micro_batch_size, per_rank, OBJECTIVES[config.objective].least_micro_batch)

    def layout(stage: int, checkpointing: bool, micro: int) -> _Placement:
        precision = planned_precision(method, stage, on_gpu=on_gpu)
        memory = estimate_memory(
            facts,
            lora,
            trainable=trainable,
            weight_bytes=2 if precision == "bfloat16" else 4,
            quantized=method is MethodType.QLORA,
            on_gpu=on_gpu,
            world_size=world,
            zero_stage=stage,
            micro_batch_size=micro * OBJECTIVES[config.objective].sequences,
            accumulates=micro < per_rank,
            sequence_length=length,
            gradient_checkpointing=checkpointing,
            limit_bytes=limit,
            whole_logits=OBJECTIVES[config.objective].whole_logits,
            written_at_once=rollouts.written_at_once(config, per_rank, micro),
            teacher_parameters=teacher_parameters,
            frozen_parameters=other_parameters + copy * facts.parameters // (world if stage == 3 else 1),
        )
        return _Placement(stage, checkpointing, micro, precision, memory)

    stages, why_stage = _stages(topology.zero_stage, method, world, known=limit is not None)
    most = MOST_PACKED_TOKENS if packing.length else MOST_TOKENS
    roomy = [m for m in micros if m * length <= most] or micros[-1:]
    if limit is None:
        checkpointing = on_gpu and facts.parameters >= _LARGE_MODEL
        placement, why_micro = layout(stages[0], checkpointing, roomy[0]), f"At most {most} tokens at once."
        why_checkpointing = "Memory is unknown" + (" and the model large." if checkpointing else ".")
        if on_gpu:
            choices.warn("Whether it fits is unknown: set spec.compute.gpuMemory to have that checked before training.")
    else:
        options = [layout(s, c, m) for s in stages for c in (False, True) for m in roomy]
        placement = next((option for option in options if option.fits), options[-1])
        why_micro = f"The largest of at most {most} tokens that fits." if placement.fits else "The smallest."
        why_checkpointing = "Else it would not fit." if placement.gradient_checkpointing else "It fits without."
        if placement.zero_stage and topology.zero_stage is None:
            why_stage = _WHY_STAGE[placement.zero_stage]
        if not placement.fits:
            _refuse_or_warn(placement, facts, method, choices)
    choices.reasons["zeroStage"] = why_stage
    choices.reasons["gradientCheckpointing"] = why_checkpointing
    choices.pick("microBatchSize", topology.micro_batch_size, placement.micro_batch_size, why_micro)
    choices.reasons["precision"] = why_precision(placement.precision, on_gpu=on_gpu)
    choices.reasons["activationOffloading"] = "Only after running out of memory."
    return placement


def _stages(asked: int | None, method: MethodType, world: int, *, known: bool) -> tuple[list[int], str]:
    """The ZeRO stages to try, in order, and why the first one."""
    if asked is not None:
        return [asked], "Set in the spec."
    if world == 1:
        return [0], "One process has nothing to share."
    if not known and method is MethodType.FULL:
        return [2], "Full on several processes whose memory is unknown."
    return list(ZERO_STAGES[method]), "Plain DDP fits." if known else f"{method.value} needs little; memory is unknown."


def _refuse_or_warn(placement: _Placement, facts: ModelFacts, method: MethodType, choices: _Choices) -> None:
    memory = placement.memory
    limit = memory.limit_bytes or 0
    said = (
        f"about {gib(memory.total_bytes)} are needed per process, {gib(limit)} are there "
        f"(weights {gib(memory.weights_bytes)}, gradients {gib(memory.gradients_bytes)}, "
        f"optimizer {gib(memory.optimizer_bytes)}, activations {gib(memory.activations_bytes)})"
    )
    remedies = ["more memory per process", "a smaller model"]
    if method is MethodType.FULL:
        remedies = ["spec.method.type LoRA or QLoRA", *remedies]
        if placement.zero_stage == 0 or placement.memory.optimizer_bytes > limit // 2:
            remedies.append("more processes with zeroStage 3")
    elif method is MethodType.LORA:
        remedies = ["spec.method.type QLoRA", *remedies]
    if memory.activations_bytes > limit // 4:
        remedies.append("a smaller spec.hyperparameters.sequenceLength")
    hint = f"Use {', '.join(remedies[:-1])} or {remedies[-1]}."
    if states_bytes(memory) > limit:
        raise BadInput("spec.compute", f"the model of {facts.parameters:,} parameters is too big: {said}", hint)
    choices.warn(f"It may run out of memory: by estimate {said}. {hint}")


def _choose_probe(memory: MemoryEstimate, on_gpu: bool, choices: _Choices) -> bool:
    """Whether to try two steps first. They cost a start of the ranks, and save a run that fails hours later."""
    share = memory.total_bytes / memory.limit_bytes if memory.limit_bytes else None
    probe = on_gpu or (share is not None and share > PROBE_FROM)
    why = "No memory limit is known." if share is None else f"The estimate is {share:.0%} of a process's memory."
    choices.reasons["probe"] = "Always on GPUs." if on_gpu else why
    return probe

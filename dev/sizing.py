"""Plan runs of well-known sizes on many GPUs, and write docs/sizing.md: `python3 -m dev.sizing`.

Nothing is trained or downloaded: a model is a config, and rows are lengths. The planner is the one of prepare.
"""

import math
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from dev.sizing_page import PAGE, render
from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.plan import DatasetSummary, Plan
from hone.contract.runconfig import RunConfig
from hone.contract.settings import Method
from hone_trainer.data.classes import Classes
from hone_trainer.data.length_groups import passes_and_work
from hone_trainer.models.facts import ModelFacts
from hone_trainer.objectives import components
from hone_trainer.planning.inputs import PlanInputs
from hone_trainer.planning.packing import Packing, propose
from hone_trainer.planning.plan import make_plan
from hone_trainer.protocol.errors import BadInput
from hone_trainer.protocol.units import GIB

_LLAMA: dict[str, Any] = {"vocab_size": 128_256, "num_key_value_heads": 8, "max_position_embeddings": 131_072}
_QWEN: dict[str, Any] = {"vocab_size": 151_936, "head_dim": 128, "max_position_embeddings": 40_960}


def _sizes(hidden: int, inner: int, layers: int, heads: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama 8B": ("LlamaConfig", {**_LLAMA, **_sizes(4096, 14_336, 32, 32)}),
    "Qwen 14B": ("Qwen3Config", {**_QWEN, **_sizes(5120, 17_408, 40, 40), "num_key_value_heads": 8}),
    "Qwen 32B": ("Qwen3Config", {**_QWEN, **_sizes(5120, 25_600, 64, 64), "num_key_value_heads": 8}),
    "Llama 70B": ("LlamaConfig", {**_LLAMA, **_sizes(8192, 28_672, 80, 64)}),
    "Qwen MoE 30B": (
        "Qwen3MoeConfig",
        {
            **_QWEN,
            **_sizes(2048, 6144, 48, 32),
            "num_key_value_heads": 4,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "moe_intermediate_size": 768,
        },
    ),
    "Gemma 9B": (
        "Gemma2Config",
        {
            **_sizes(3584, 14_336, 42, 16),
            "vocab_size": 256_000,
            "num_key_value_heads": 8,
            "head_dim": 256,
            "max_position_embeddings": 8192,
        },
    ),
}
"""Configs by the names of the page, each with the sizes that the family publishes."""


def _short(chance: random.Random) -> int:
    return min(240, max(30, round(chance.lognormvariate(4.4, 0.5))))


def _mixed(chance: random.Random) -> int:
    return min(8192, max(30, round(chance.lognormvariate(5.9, 0.9))))


def _long(chance: random.Random) -> int:
    return chance.randint(8192, 16_384)


ROWS: dict[str, tuple[int, Callable[[random.Random], int]]] = {
    "short": (50_000, _short),
    "mixed": (50_000, _mixed),
    "long": (5_000, _long),
}
"""How many training rows, and the tokens of one."""


@dataclass(frozen=True)
class Setup:
    """GPUs, and what is trained on them."""

    method: MethodType
    nodes: int
    gpus_per_node: int
    memory: int
    rows: str
    objective: Objective = Objective.SFT

    @property
    def gpus(self) -> int:
        """Of all pods."""
        return self.nodes * self.gpus_per_node


SETUPS = (
    Setup(MethodType.LORA, 1, 1, 24, "mixed"),
    Setup(MethodType.QLORA, 1, 1, 24, "short"),
    Setup(MethodType.QLORA, 1, 1, 48, "long"),
    Setup(MethodType.LORA, 1, 1, 80, "mixed"),
    Setup(MethodType.QLORA, 1, 8, 24, "mixed"),
    Setup(MethodType.LORA, 1, 8, 80, "short"),
    Setup(MethodType.LORA, 1, 8, 80, "mixed"),
    Setup(MethodType.LORA, 1, 8, 80, "long"),
    Setup(MethodType.FULL, 1, 8, 80, "mixed"),
    Setup(MethodType.FULL, 8, 8, 141, "long"),
)
OBJECTIVES_OF = "Llama 8B"
"""The model that every objective is planned for."""


@dataclass(frozen=True)
class Planned:
    """A model on a setup: its plan with the tokens of a forward pass, or why it is refused."""

    model: str
    setup: Setup
    plan: Plan | None
    tokens: float = 0.0
    refusal: str = ""


class Model:
    """A model without weights, in a directory that has its config alone."""

    def __init__(self, name: str, root: Path) -> None:
        import transformers

        kind, sizes = MODELS[name]
        self.name, self._directory = name, root / name.replace(" ", "-")
        self.config = getattr(transformers, kind)(**sizes, dtype="bfloat16")
        self.config.save_pretrained(self._directory)
        self._facts = cache(self._read)
        self._measured: dict[str, Any] = {}

    def facts(self, objective: Objective, method: MethodType) -> ModelFacts:
        """What the plan needs to know of it."""
        return self._facts(components(objective).architecture.api, objective, method)

    def _read(self, api: str, objective: Objective, method: MethodType) -> ModelFacts:
        import torch

        from hone_trainer.models.loading import build_model, class_for
        from hone_trainer.models.modules import with_modules

        architecture, config = components(objective).architecture, self.config
        config.num_labels = 2 if OBJECTIVES[objective].data.labels else 1
        with torch.device("meta"):
            model = build_model(class_for(architecture.model_class(), config), config, dtype=torch.bfloat16)
        facts = ModelFacts(
            directory=self._directory,
            model_type=config.model_type,
            hidden_size=config.hidden_size,
            layers=config.num_hidden_layers,
            intermediate_size=config.intermediate_size,
            vocab_size=config.vocab_size,
            max_length=config.max_position_embeddings,
            shapes={name: tuple(weight.shape) for name, weight in model.named_parameters()},
            tied=bool(config.tie_word_embeddings),
        )
        return with_modules(facts, model, architecture, Method(type=method))

    def measure(self, objective: Objective) -> Any:
        """What prepare measures of it."""
        from hone_trainer.models.activations import measure

        architecture = components(objective).architecture
        if architecture.api not in self._measured:
            self._measured[architecture.api] = cache(partial(measure, self._directory, architecture))
        return self._measured[architecture.api]

    def keeps_rows_apart(self) -> bool:
        """Whether its rows may be packed."""
        from hone_trainer.planning.separation import keeps_rows_apart

        return keeps_rows_apart(self._directory)


@cache
def lengths_of(rows: str, limit: int) -> list[int]:
    """Tokens of each row, cut to the model's context."""
    count, length = ROWS[rows]
    chance = random.Random(0)
    return [min(limit, length(chance)) for _ in range(count)]


def planned(model: Model, setup: Setup) -> Planned:
    """The plan of a model on a setup."""
    facts = model.facts(setup.objective, setup.method)
    lengths = lengths_of(setup.rows, facts.max_length)
    config = _config(setup)
    try:
        packing = _packed(propose(config, facts, lengths, model.keeps_rows_apart), lengths)
        teacher = facts.parameters if OBJECTIVES[setup.objective].needs.teacher else 0
        inputs = PlanInputs(
            config,
            facts,
            _summary(lengths),
            max(lengths),
            _classes(setup, len(lengths)),
            packing=packing,
            teacher_parameters=teacher,
            lengths=lengths,
            measure=model.measure(setup.objective),
        )
        plan = make_plan(inputs)
    except BadInput as refusal:
        return Planned(
            model.name, setup, None, refusal=f"`{refusal.field}`: {refusal.message}. {refusal.hint or ''}".strip()
        )
    if plan.micro_batch_tokens:
        passes, _ = passes_and_work(lengths, plan.global_batch_size, plan.micro_batch_tokens, plan.world_size)
        share = plan.global_batch_size / plan.world_size
        return Planned(model.name, setup, plan, share * inputs.tokens_per_row / passes)
    of_row = sum(lengths) / packing.rows if plan.packing else inputs.tokens_per_row
    return Planned(model.name, setup, plan, plan.micro_batch_size * of_row)


def _packed(packing: Packing, lengths: list[int]) -> Packing:
    """With as many packed rows as best-fit-decreasing needs for short rows: about a hundredth of them stays empty."""
    if packing.length is None:
        return packing
    long = [tokens for tokens in lengths if tokens > packing.length]
    short = math.ceil(1.01 * (sum(lengths) - sum(long)) / packing.length)
    return replace(packing, rows=len(long) + short)


def _config(setup: Setup) -> RunConfig:
    facts = OBJECTIVES[setup.objective]
    return RunConfig.from_dict(
        {
            "job": {"namespace": "sizing", "name": "plan", "uid": "0"},
            "modelName": "config",
            "objective": setup.objective.value,
            "method": {"type": setup.method.value},
            "data": {"train": "/data", "minSamples": 1},
            "paths": {"teacher": "/teacher"} if facts.needs.teacher else {},
            "reward": {"functions": [{"name": "ExactMatch"}]} if facts.needs.reward else None,
            "topology": {
                "nodes": setup.nodes,
                "processesPerNode": setup.gpus_per_node,
                "gpusPerNode": setup.gpus_per_node,
                "memoryBytes": setup.memory * GIB,
            },
        }
    )


def _summary(lengths: list[int]) -> DatasetSummary:
    return DatasetSummary(
        digest="sha256:0",
        format="Messages",
        train_on="Assistant",
        train_rows=len(lengths),
        validation_rows=0,
        test_rows=0,
        tokens=sum(lengths),
        longest_row=max(lengths),
    )


def _classes(setup: Setup, rows: int) -> Classes | None:
    labels = OBJECTIVES[setup.objective].data.labels
    return Classes(("false", "true"), (rows // 2, rows - rows // 2)) if labels else None


def objective_setups() -> list[Setup]:
    """Every objective on the same GPUs and rows."""
    return [Setup(MethodType.LORA, 1, 8, 80, "mixed", objective) for objective in Objective]


def plans_of(name: str, root: Path) -> Iterator[Planned]:
    """All plans of a model."""
    model = Model(name, root)
    yield from (planned(model, setup) for setup in SETUPS)
    if name == OBJECTIVES_OF:
        yield from (planned(model, setup) for setup in objective_setups() if setup.objective is not Objective.SFT)


def main() -> None:
    """Write the page."""
    with tempfile.TemporaryDirectory(prefix="hone-sizing-") as directory:
        plans: list[Planned] = []
        for name in MODELS:
            plans += plans_of(name, Path(directory))
            print(name, file=sys.stderr, flush=True)
    PAGE.write_text(render(plans), encoding="utf-8")


if __name__ == "__main__":
    main()

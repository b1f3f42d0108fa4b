"""How answers are generated in training: as many at once as fit, by an adapter that is merged and exactly unmerged."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
from in_process import final_weights, train_here

from hone.contract.objectives import Objective
from hone_trainer.models import merged as merging
from hone_trainer.models.merged import merged
from hone_trainer.objectives import generation
from hone_trainer.objectives.generation import OnPolicyMixin

GIB = 1 << 30


def adapted(config: object, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """A random model with a random adapter on all linear layers, experts among them, as if it had been trained."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from hone_trainer.models.adapters import lora_config
    from hone_trainer.models.architectures import CHAT

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(config).to(dtype)
    model = get_peft_model(base, lora_config(base, CHAT, None, rank=4, alpha=8, dropout=0.0))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def dense() -> object:
    from transformers import LlamaConfig

    return LlamaConfig(**SIZES)


def experts() -> object:
    from transformers import MixtralConfig

    return MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2)


SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}


def answers(model: torch.nn.Module, count: int = 4) -> list[list[int]]:
    prompts = torch.arange(3 * count).reshape(count, 3) + 3
    torch.manual_seed(1)
    drawn = model.generate(
        input_ids=prompts, attention_mask=torch.ones_like(prompts), do_sample=True, max_new_tokens=12, pad_token_id=0
    )
    return drawn.tolist()


def base_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("config", [dense, experts])
def test_a_merged_model_draws_the_same_answers_and_is_bit_for_bit_itself_again(config: Callable[[], object]) -> None:
    model = adapted(config())
    before, apart = base_weights(model), answers(model)
    with merged(model, GIB) as held:
        assert held > 0
        changed = [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])]
        together = answers(model)
    assert together == apart
    assert changed, "nothing was merged"
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert answers(model) == apart
    # Why copies are kept: what was added, subtracted again, leaves something.
    model.merge_adapter()
    model.unmerge_adapter()
    assert any(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_weights_are_restored_where_generating_fails() -> None:
    model = adapted(dense())
    before = base_weights(model)
    with pytest.raises(RuntimeError, match="no memory"), merged(model, GIB):
        raise RuntimeError("no memory")
    assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    assert answers(model)


def test_only_what_is_exact_and_fits_is_merged() -> None:
    from transformers import AutoModelForCausalLM

    model = adapted(dense())
    with merged(model, GIB) as held:
        pass
    with merged(model, held - 1) as too_large:
        assert too_large == 0
    with merged(adapted(dense(), torch.bfloat16), GIB) as rounded:
        assert rounded == 0
    quantized = adapted(dense())
    layer = next(module for module in quantized.modules() if hasattr(module, "lora_A")).get_base_layer()
    layer.weight = torch.nn.Parameter(layer.weight.data.to(torch.uint8), requires_grad=False)
    with merged(quantized, GIB) as in_4_bits:
        assert in_4_bits == 0
    with merged(AutoModelForCausalLM.from_config(dense()), GIB) as without_adapter:
        assert without_adapter == 0
    shared = adapted(dense())
    shared.base_model.model.twin = merging._weight(next(m for m in shared.modules() if hasattr(m, "lora_A")))
    with merged(shared, GIB) as used_twice:
        assert used_twice == 0


class Base:
    """Stands for a trainer of TRL: generates an answer of one token to each prompt, or runs out of memory."""

    def __init__(self, *, most: int, stage: int = 0, budget: int = 0, bf16: bool = False) -> None:
        self.calls: list[int] = []
        self.most, self.beats = most, lambda kind: None
        memory = SimpleNamespace(activations_bytes=budget)
        self.plan = SimpleNamespace(memory=memory, max_completion_length=4, sequence_length=16, zero_stage=stage)
        self.args = SimpleNamespace(per_device_train_batch_size=1, bf16=bf16, fp16=False)
        self.model = adapted(dense())

    def _generate_single_turn(self, prompt_ids: list[list[int]], *rest: object) -> tuple[list[list[int]], None]:
        self.calls.append(len(prompt_ids))
        if len(prompt_ids) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return [[ids[0]] for ids in prompt_ids], None


class Generating(OnPolicyMixin, Base):
    def __init__(self, **settings: object) -> None:
        Base.__init__(self, **settings)


PROMPTS = [[number, 5, 6] for number in range(32)]


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        pytest.param({"most": 32, "budget": GIB}, [32], id="all fit"),
        pytest.param({"most": 32, "budget": 0}, [8] * 4, id="as many as are planned for in any case"),
        pytest.param({"most": 32, "budget": GIB, "stage": 3}, [32], id="ZeRO-3"),
        pytest.param({"most": 9, "budget": GIB}, [32, 16, 8, 8, 8, 8], id="memory runs out twice"),
    ],
)
def test_all_answers_of_a_step_are_generated_at_once_where_they_fit(settings: dict, calls: list[int]) -> None:
    trainer = Generating(**settings)
    ids, _ = trainer._generate_single_turn(PROMPTS, None, {}, 8)
    assert trainer.calls == calls
    assert ids == [[number] for number in range(32)]
    # What did not fit once is not tried again.
    trainer.calls.clear()
    trainer._generate_single_turn(PROMPTS, None, {}, 8)
    assert trainer.calls == [size for size in calls if size <= settings["most"]]


def test_a_rank_of_zero_3_does_not_try_again_alone() -> None:
    trainer = Generating(most=9, budget=GIB, stage=3)
    with pytest.raises(torch.OutOfMemoryError):
        trainer._generate_single_turn(PROMPTS, None, {}, 8)
    assert trainer.calls == [32]


def test_answers_that_take_more_are_fewer_at_once() -> None:
    trainer = Generating(most=99, bf16=True)
    row = trainer._answer_bytes(PROMPTS)
    # Keys and values of two layers, prompt and answer, in float32, are a part of it.
    assert row > (3 + 4) * 2 * 2 * 32 * 4
    trainer.plan.memory.activations_bytes = 20 * row
    trainer._generate_single_turn(PROMPTS, None, {}, 8)
    assert trainer.calls == [20, 12]


def write_model(config: object, directory: Path) -> None:
    """Put a random model in the place of another, whose tokenizer it gets."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 2, 0
    model.save_pretrained(directory)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model and prompts, and this process as the rank of every run here."""
    root = tmp_path_factory.mktemp("asked")
    tiny.make_run(root, objective=Objective.GRPO, hidden=64)
    with tiny.only_rank():
        yield root


@pytest.mark.train
@pytest.mark.parametrize("family", [None, experts])
def test_merging_while_answers_are_generated_does_not_change_what_is_learned(
    family: Callable[[], object] | None, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shared
    if family:
        base = tmp_path / "experts"
        tiny.make_run(base, objective=Objective.GRPO)
        write_model(family(), base / "model")

    def weights(name: str, budget: int) -> dict[str, torch.Tensor]:
        options = {"micro_batch": 8, "dropout": 0.0, "steps": 3, "every": 3, "activation_bytes": budget}
        config = tiny.make_run(tmp_path / name, objective=Objective.GRPO, shared=base, **options)
        train_here(tmp_path / name, monkeypatch)
        return final_weights(config)

    held: list[int] = []
    original = generation.merged

    def watched(model: object, most_bytes: int) -> object:
        context = original(model, most_bytes)
        held.append(most_bytes)
        return context

    monkeypatch.setattr(generation, "merged", watched)
    apart, together = weights("apart", 1), weights("together", GIB)
    assert [most > 0 for most in held] == [False] * 3 + [True] * 3
    assert apart.keys() == together.keys()
    assert all(torch.equal(apart[name], together[name]) for name in apart)

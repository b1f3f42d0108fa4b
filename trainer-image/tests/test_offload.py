"""Offloading of activations: that every step runs within it. What it saves is TRL's own matter, and needs a GPU."""

from types import SimpleNamespace

import pytest
from trl.models import activation_offloading

from hone_trainer.training.offload import offload_activations


def test_every_step_runs_with_its_activations_offloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Context:
        def __enter__(self) -> None:
            seen.append("on")

        def __exit__(self, *error: object) -> None:
            seen.append("off")

    def manager(model: object, **_: object) -> Context:
        assert model == "the model"
        return Context()

    monkeypatch.setattr(activation_offloading, "get_act_offloading_ctx_manager", manager)
    trainer = SimpleNamespace(model="the model", micro_batch_step=lambda *inputs: seen.append("step") or sum(inputs))
    offload_activations(trainer)
    assert [trainer.micro_batch_step(1, 2), trainer.micro_batch_step(3, 4)] == [3, 7]
    assert seen == ["on", "step", "off"] * 2

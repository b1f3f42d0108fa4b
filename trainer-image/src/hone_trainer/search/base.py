"""The base model of all trials: loaded once, and as it was when the next trial begins."""

import gc
import random
from typing import TYPE_CHECKING, Any, cast

import numpy
import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hone_trainer.training.rank_trainer import RankTrainer


class LoadedBase:
    """Holds the base model between trials. An adapter is taken off; weights that are trained are put back.

    Args:
        adapts: whether an adapter is trained, so that the base's own weights stay as they are.
    """

    def __init__(self, *, adapts: bool) -> None:
        self._adapts = adapts
        self._model: PreTrainedModel | None = None
        self._weights: dict[str, torch.Tensor] = {}
        self._trains: dict[str, bool] = {}
        self._random: tuple[Any, Any, torch.Tensor] | None = None

    def get(self) -> "PreTrainedModel | None":
        """The model as it was loaded, with the random state after that; None before it was loaded."""
        if self._model is None or self._random is None:
            return None
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(self._trains[name])
            parameter.grad = None
        with torch.no_grad():
            tensors = dict(_tensors(self._model))
            for name, weight in self._weights.items():
                tensors[name].copy_(weight)
        python, of_numpy, of_torch = self._random
        random.setstate(python)
        numpy.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)
        return self._model

    def keep(self, model: "PreTrainedModel") -> None:
        """Remember a model that was just loaded."""
        self._model = model
        self._trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        if not self._adapts:
            # In host memory: on a GPU there may be no room for a second copy.
            self._weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in _tensors(model)}
        self._random = (random.getstate(), numpy.random.get_state(), torch.get_rng_state())
        # After each trial, garbage is looked for among what came since: not among all that the libraries hold, which
        # takes a second.
        gc.collect()
        gc.freeze()

    def take_back(self, trainer: "RankTrainer") -> None:
        """Free a trial's trainer, and take its adapter off the model."""
        own: Any = trainer
        model = own.accelerator.unwrap_model(own.model_wrapped, keep_fp32_wrapper=False)
        for parameter in model.parameters():
            parameter.grad = None
        if own.optimizer is not None:
            # The trainer and what it refers to live on until they are collected, some time in the next trial.
            own.optimizer.state.clear()
        if self._adapts:
            self._model = cast("PreTrainedModel", model.unload())
        own.accelerator.free_memory()
        own.model = own.model_wrapped = own.optimizer = own.lr_scheduler = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def release(self) -> None:
        """Forget the model: nobody asks for it again."""
        self._model, self._weights = None, {}
        gc.unfreeze()


def _tensors(model: "PreTrainedModel") -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def memory_ran_out(error: BaseException) -> bool:
    """Whether an error says that there was no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in str(error)

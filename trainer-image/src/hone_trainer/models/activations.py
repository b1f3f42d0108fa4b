"""What autograd saves of a model's forward pass, measured on the model itself, but without memory for its values.

Each family saves something else: attention that is not fused saves every pair of tokens, experts save what each token
sends to several of them. No table of formulas would follow that. torch's fake tensors have shapes and types and go
through the same kernels as tensors on a CPU, fused attention included, which saves the same as the one for GPUs. So the
model is built in its true size, and three forward passes of it cost seconds.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch
from weakref import finalize

import numpy
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from hone_trainer.models.adapters import lora_config
from hone_trainer.models.architectures import Architecture
from hone_trainer.models.language import freeze_other_parts
from hone_trainer.models.loading import build_model, class_for, load_config
from hone_trainer.models.saved import Growth, Mode, SavedActivations

log = logging.getLogger(__name__)

_LENGTHS = (256, 512, 1024)
"""Tokens of the rows that are tried: three points of a parabola."""
_LAYERS = 12
"""Most layers that are tried: families repeat the same kinds of them after 1, 2, 3, 4 or 6. The first ones may be of
another kind, so that only the last `_PERIOD` stand for those that are not tried."""
_PERIOD = 6


def measure(directory: Path, architecture: Architecture, mode: Mode) -> SavedActivations | None:
    """What autograd saves of the layers of the model in a directory; None where the family cannot be measured so."""
    try:
        return _measure(directory, architecture, mode)
    except Exception as error:  # whatever a family's code does that fake tensors cannot
        log.info("Activations could not be measured", extra={"error": f"{type(error).__name__}: {error}"[:500]})
    # Experts have no fake kernel under autocast. What they save is in bfloat16 either way.
    return (
        measure(directory, architecture, replace(mode, precision="bfloat16", autocast=False)) if mode.autocast else None
    )


def _measure(directory: Path, architecture: Architecture, mode: Mode) -> SavedActivations:
    config = load_config(directory)
    count = config.get_text_config().num_hidden_layers
    _shorten(config.get_text_config())
    model = _adapted(config, architecture, mode)
    with FakeTensorMode(allow_non_fake_inputs=True):
        _give_values(model)
        passes = [_forward(model, mode, length) for length in _LENGTHS]
    return SavedActivations(
        all_layers=_growth([one.of_all(count) for one in passes]),
        largest_layer=_growth([one.largest for one in passes]),
        between_layers=_growth([one.between * count for one in passes]),
        backward=_growth([one.backward for one in passes]),
    )


def _growth(sizes: Sequence[int]) -> Growth:
    """The parabola through the three points, without the noise of rounding."""
    powers = numpy.array([[1, length, length**2] for length in _LENGTHS], dtype=float)
    fixed, linear, quadratic = numpy.linalg.solve(powers, numpy.array(sizes, dtype=float))
    return Growth(
        max(0.0, round(float(fixed))), max(0.0, round(float(linear), 3)), max(0.0, round(float(quadratic), 6))
    )


def _shorten(config: Any) -> None:
    """Leave a language model's config at most `_LAYERS` layers, whose kinds are in lists."""
    count = config.num_hidden_layers
    if count <= _LAYERS:
        return
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == count:
            setattr(config, name, value[:_LAYERS])
    config.num_hidden_layers = _LAYERS


def _adapted(config: Any, architecture: Architecture, mode: Mode) -> Any:
    """The model on the meta device, with its adapter, as ranks train it."""
    from peft import get_peft_model

    with torch.device("meta"):
        model = build_model(class_for(architecture.model_class(), config), config, dtype=getattr(torch, mode.precision))
    freeze_other_parts(model)
    if mode.rank is None:
        return model.train()
    targets = list(mode.targets) if mode.targets else None
    adapter = lora_config(model, architecture, targets, rank=mode.rank, alpha=mode.rank, dropout=mode.dropout)
    return get_peft_model(model, adapter, low_cpu_mem_usage=True).get_base_model().train()


def _give_values(model: Any) -> None:
    """Replace all tensors of a model on the meta device by fake ones on the CPU."""
    fakes: dict[int, Any] = {}

    def fake(tensor: torch.Tensor) -> Any:
        # Tied weights stay tied.
        if id(tensor) not in fakes:
            values = torch.empty(tensor.shape, dtype=tensor.dtype)
            wraps = isinstance(tensor, torch.nn.Parameter)
            fakes[id(tensor)] = torch.nn.Parameter(values, tensor.requires_grad) if wraps else values
        return fakes[id(tensor)]

    for module in model.modules():
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False), *vars(module).items()]
        for name, tensor in own:
            if isinstance(tensor, torch.Tensor):
                setattr(module, name, fake(tensor))


@dataclass
class _Pass:
    """What one forward pass leaves, and the backward pass of its largest layer takes, in bytes.

    Attributes:
        saved: of all that was tried.
        layers: of each layer.
        between: what a layer is given.
        backward: of the largest layer, in addition to what it has left.
    """

    saved: int = 0
    layers: list[int] = field(default_factory=list)
    between: int = 0
    backward: int = 0

    @property
    def largest(self) -> int:
        """What the layer leaves that leaves most."""
        return max(self.layers)

    def of_all(self, count: int) -> int:
        """What so many layers leave, of which the first ones were tried."""
        last = self.layers[-_PERIOD:]
        return self.saved + (count - len(self.layers)) * sum(last) // len(last)


@dataclass
class _Largest:
    """The layer that leaves most, and what it is called with."""

    layer: Any = None
    saved: int = -1
    arguments: tuple[Any, ...] = ()
    named: dict[str, Any] = field(default_factory=dict)


def _forward(model: Any, mode: Mode, length: int) -> _Pass:
    """A forward pass of a row of so many tokens through the layers, and a backward pass of the largest of them."""
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    layers = _layers(decoder)
    result, largest, saved = _Pass(), _Largest(), _Saved(model)

    def enter(layer: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        layer.bytes_before = saved.total
        hidden = arguments[0] if arguments else named["hidden_states"]
        result.between = hidden.nbytes

    def leave(layer: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        left = saved.total - layer.bytes_before
        result.layers.append(left)
        if left > largest.saved:
            largest.layer, largest.saved, largest.arguments, largest.named = layer, left, arguments, named

    handles = [layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in layers]
    handles += [layer.register_forward_hook(leave, with_kwargs=True) for layer in layers]
    ids = torch.zeros(1, length, dtype=torch.long)
    mask = {"attention_mask": torch.ones(1, length, dtype=torch.long)} if mode.masked else {}
    with _autocast(mode), _positions_of_one_row(), saved.recording():
        decoder(input_ids=ids, use_cache=False, **mask)
    for handle in handles:
        handle.remove()
    result.saved = saved.total
    result.backward = max(0, _peak_of(largest, mode) - largest.saved)
    return result


def _layers(decoder: Any) -> list[Any]:
    """The layers of a language model: its list of as many modules as its config says.

    Raises:
        LookupError: it has none.
    """
    count = decoder.config.get_text_config().num_hidden_layers
    for module in decoder.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    raise LookupError(f"no list of {count} layers in {type(decoder).__name__}")


def _autocast(mode: Mode) -> Any:
    return torch.autocast("cpu", torch.bfloat16, enabled=mode.autocast)


def _positions_of_one_row() -> Any:
    """Fake positions have no values by which to tell packed rows, and would count as packed."""
    return patch("transformers.masking_utils.find_packed_sequence_indices", lambda *_, **__: None)


class _Saved:
    """Counts the bytes that autograd saves, each storage once, and without the weights themselves."""

    def __init__(self, model: Any) -> None:
        self.total = 0
        self._known = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
        self._kept: list[Any] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Count what is saved here."""
        with torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor):
            yield

    def _save(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            # Kept, so that no later storage has its address.
            self._kept.append(storage)
            self.total += storage.nbytes()
        return tensor


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes of all storages that are allocated while it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run it, and count what it returns."""
        result = function(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self._now)
        return result

    def ignore(self, tensors: Any) -> None:
        """Leave out what exists already."""
        self._known.update(
            t.untyped_storage()._cdata for t in pytree.tree_leaves(tensors) if isinstance(t, torch.Tensor)
        )

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._now += size
        finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size


def _peak_of(largest: _Largest, mode: Mode) -> int:
    """Most bytes that a forward and a backward pass of a layer hold, the gradients of its weights aside."""
    live = _Live()
    arguments, named = _as_inputs(largest.arguments), _as_inputs(largest.named)
    live.ignore((list(largest.layer.parameters()), list(largest.layer.buffers()), arguments, named))
    trained = [parameter for parameter in largest.layer.parameters() if parameter.requires_grad]
    with live, _autocast(mode):
        output = largest.layer(*arguments, **named)
        hidden = output[0] if isinstance(output, tuple) else output
        hidden.backward(torch.ones_like(hidden))
    gradients = sum(parameter.nbytes for parameter in trained)
    for parameter in trained:
        parameter.grad = None
    return int(live.peak - gradients)


def _as_inputs(values: Any) -> Any:
    """The same tensors, cut off from the pass that made them; those with gradients get them here."""
    return pytree.tree_map(
        lambda t: t.detach().requires_grad_(t.requires_grad) if isinstance(t, torch.Tensor) else t, values
    )

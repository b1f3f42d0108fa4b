"""A model ready for inference: on the GPUs of this pod, in evaluation mode."""

from typing import TYPE_CHECKING, Any, TypeVar

from hone_trainer.protocol import host

if TYPE_CHECKING:
    import torch

_WEIGHTS_SHARE = 0.85
"""Of a GPU's free memory, what weights may take."""

AnyModule = TypeVar("AnyModule", bound="torch.nn.Module")


def for_inference(model: AnyModule) -> AnyModule:
    """The model itself, on the GPU where there is one, without dropout; one that is divided already stays as it is.

    It is any of torch's modules, whose `to` has a type: that of transformers' models has lost it to `functools.wraps`.
    """
    import torch

    if getattr(model, "hf_device_map", None):
        return model.eval()
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def division() -> dict[str, Any]:
    """Settings of `from_pretrained` that divide the layers evenly among the GPUs of this pod; none without a GPU.

    Some of each GPU's memory is left for batches. What does not fit on the GPUs stays in the host's memory.
    """
    import torch

    if not torch.cuda.is_available():
        return {}
    gpus = range(torch.cuda.device_count())
    most: dict[int | str, int] = {gpu: int(torch.cuda.mem_get_info(gpu)[0] * _WEIGHTS_SHARE) for gpu in gpus}
    most["cpu"] = host.memory_limit()
    return {"device_map": "auto", "max_memory": most}

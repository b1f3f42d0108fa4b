"""A model ready for inference: on this process's device, in evaluation mode."""

from typing import TypeVar

import torch

AnyModule = TypeVar("AnyModule", bound=torch.nn.Module)


def for_inference(model: AnyModule) -> AnyModule:
    """The model itself, on the GPU where there is one, without dropout.

    It is any of torch's modules, whose `to` has a type: that of transformers' models has lost it to `functools.wraps`.
    """
    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()

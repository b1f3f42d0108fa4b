"""QLoRA: LoRA on a base whose linear layers are held in 4 bits, by bitsandbytes. The artifact is as LoRA's.

NF4 with double quantization (T. Dettmers et al., QLoRA, arXiv 2305.14314, section 3), computed in the planned
precision. Embeddings, norms and the head keep that precision. The adapter is scored and served on the unquantized base.
"""

from typing import TYPE_CHECKING, Any

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone_trainer.methods import full, lora
from hone_trainer.methods.base import Method
from hone_trainer.models.facts import NOT_QUANTIZED

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_base(auto: Any, config: RunConfig, plan: Plan, **settings: Any) -> "PreTrainedModel":
    """The base model, its linear layers in 4 bits; arguments as of `full.load_base`."""
    import torch
    from bitsandbytes.nn import Linear4bit
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, plan.precision),
        llm_int8_skip_modules=list(NOT_QUANTIZED),
    )
    model = full.load_base(auto, config, plan, quantization_config=quantization, **settings)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On some CPUs an evaluation would turn the weights into a form that has no gradient, for good.
            module.support_avx512bf16_for_cpu = False
    return model


def keep_trained_in_float32(model: "torch.nn.Module") -> None:
    """TRL turns what is trained on a quantized base to bf16, which would swallow small updates: turn it back."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


METHOD = Method(
    load_base=load_base,
    peft_config=lora.peft_config,
    export=lora.export,
    load=lora.load,
    after_build=keep_trained_in_float32,
)

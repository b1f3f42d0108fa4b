"""What an objective builds its trainer from, and the training arguments that are the same for all."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hone.contract.plan import Plan
from hone.contract.runconfig import RunConfig
from hone.contract.settings import Optimizer, Scheduler
from hone_trainer.data.prepared import Prepared
from hone_trainer.methods import METHODS
from hone_trainer.models.architectures import Architecture
from hone_trainer.models.experts import name_experts
from hone_trainer.models.freezing import freeze_weights
from hone_trainer.models.language import freeze_other_parts
from hone_trainer.models.zero import deepspeed_config
from hone_trainer.protocol.beats import Beats
from hone_trainer.protocol.deadlines import collective_seconds

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

    from hone_trainer.training.callbacks import StepHealth

# warmup_steps below 1 is a share of the steps; "constant" alone would ignore it.
SCHEDULERS = {
    Scheduler.COSINE: "cosine",
    Scheduler.LINEAR: "linear",
    Scheduler.CONSTANT: "constant_with_warmup",
}

_FIXED_ARGUMENTS: dict[str, Any] = {
    "prediction_loss_only": True,
    "ddp_find_unused_parameters": False,
    "logging_strategy": "steps",
    "logging_first_step": True,
    # Its default hides losses that are not finite.
    "logging_nan_inf_filter": False,
    "disable_tqdm": True,
    "report_to": "none",
    "push_to_hub": False,
    # hone_trainer.training.callbacks.Checkpointing decides when to save and when to evaluate.
    "save_strategy": "no",
    "eval_strategy": "no",
}
"""The training arguments that are the same in every run."""


class Base(Protocol):
    """Keeps a base model that is trained several times."""

    def get(self) -> "PreTrainedModel | None":
        """The model as it was loaded; None before it was."""
        ...

    def keep(self, model: "PreTrainedModel") -> None:
        """Remember a model that was just loaded."""
        ...


@dataclass(frozen=True)
class Inputs:
    """What an objective builds its trainer from."""

    config: RunConfig
    architecture: Architecture
    plan: Plan
    prepared: Prepared
    tokenizer: "PreTrainedTokenizerBase"
    output_dir: Path
    callbacks: "list[TrainerCallback]"
    health: "StepHealth"
    beats: Beats
    base: "Base | None" = None
    """Where the base model is kept from one training to the next; None: it is loaded for this one alone."""

    @property
    def beta(self) -> float:
        """The planned weight of the loss's own term.

        Raises:
            ValueError: the plan has none, so it is of another objective.
        """
        if self.plan.beta is None:
            raise ValueError(f"the plan of objective {self.plan.objective} has no beta")
        return self.plan.beta

    def adapter(self, model: "PreTrainedModel") -> "PeftConfig | None":
        """The adapter to put onto the base model; None where its own weights are trained."""
        return METHODS[self.config.method.type].peft_config(self.config, self.architecture, self.plan, model)

    def load_model(self, auto: Any, **settings: Any) -> "PreTrainedModel":
        """The base model as the method trains on it, without gradients for what the job freezes or no text passes.

        Call it after the training arguments are made: under ZeRO-3 these are what makes transformers spread the
        weights over the ranks while it reads them.

        Args:
            auto: the Auto class of the objective's kind of model, such as AutoModelForCausalLM.
            settings: more of `from_pretrained`'s arguments.
        """
        if self.base is not None and (cached := self.base.get()) is not None:
            return cached
        model = METHODS[self.config.method.type].load_base(auto, self.config, self.plan, **settings)
        freeze_weights(model, self.config.method.freeze)
        freeze_other_parts(model)
        name_experts(model.config.get_text_config())
        if self.base is not None:
            self.base.keep(model)
        return model


def training_arguments(config: RunConfig, plan: Plan, output_dir: Path) -> dict[str, Any]:
    """transformers' TrainingArguments that follow from the plan, for every objective."""
    on_gpu = config.topology.gpus_per_node > 0
    batch_size, batches = plan.batches_per_step
    return {
        **_FIXED_ARGUMENTS,
        "output_dir": str(output_dir),
        "max_steps": plan.total_steps,
        "per_device_train_batch_size": batch_size,
        # Several rows would be packed by the collator as those of training are.
        "per_device_eval_batch_size": 1 if plan.packing else plan.micro_batch_size,
        "gradient_accumulation_steps": batches,
        # Not fused, AdamW needs two more copies of what it updates, which under ZeRO is all at once.
        "optim": (plan.optim or Optimizer.ADAMW).value,
        "learning_rate": plan.learning_rate,
        "lr_scheduler_type": SCHEDULERS[plan.scheduler],
        "warmup_steps": plan.warmup_ratio,
        "weight_decay": plan.weight_decay,
        "max_grad_norm": plan.max_grad_norm,
        "seed": config.hyperparameters.seed,
        # Weights in fp32 are trained under autocast on GPUs; DeepSpeed keeps them in the planned type itself.
        "bf16": on_gpu and plan.half == "bfloat16",
        "fp16": on_gpu and plan.half == "float16",
        "use_cpu": not on_gpu,
        "ddp_timeout": collective_seconds(config, plan),
        "ddp_backend": "nccl" if on_gpu else "gloo",
        "deepspeed": deepspeed_config(plan),
        "gradient_checkpointing": plan.gradient_checkpointing,
        "dataloader_pin_memory": on_gpu,
        # Often enough to watch; the Trainer keeps every line in each checkpoint.
        "logging_steps": max(1, min(25, plan.total_steps // 100)),
    }

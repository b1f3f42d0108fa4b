"""Distillation: the model answers prompts itself, and each token is drawn to what a teacher would have said there.

The loss of a token of the model's own answer y to a prompt x (R. Agarwal et al., On-Policy Distillation of Language
Models, arXiv 2306.13649, section 3, with reverse KL), by TRL's DistillationTrainer:

    sum over the vocabulary v of p(v | x, y_<t) · log(p(v | x, y_<t) / q(v | x, y_<t)),  p the model, q the teacher

Both are taken at the temperature that answers are drawn at. TRL's `beta` goes from this divergence, 1, to the other
direction, 0; it is no hyperparameter: on the model's own answers, this one brings it to say nothing that the teacher
would not.
"""

from typing import Any

import torch
from transformers import AutoModelForCausalLM
from trl import DistillationConfig, DistillationTrainer

from hone_trainer.models.teacher import load_teacher
from hone_trainer.objectives.generation import WritingMixin, writing_arguments
from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.trainer import made

REVERSE = 1.0


class _Trainer(WritingMixin, DistillationTrainer):
    """TRL's trainer with Hone's additions."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss, under autocast: TRL's calls the layers past the model's forward, which accelerate has wrapped."""
        with self.accelerator.autocast():
            return super().compute_loss(*args, **kwargs)


def build(inputs: Inputs) -> DistillationTrainer:
    """The trainer for prepared rows with `written`."""
    arguments = DistillationConfig(**writing_arguments(inputs), beta=REVERSE)
    model = inputs.load_model(AutoModelForCausalLM)
    on_gpu = inputs.config.topology.gpus_per_node > 0
    teacher = load_teacher(inputs.config, torch.bfloat16 if on_gpu else torch.float32)
    return made(_Trainer, inputs, model, arguments, teacher_model=teacher, peft_config=inputs.peft_config)

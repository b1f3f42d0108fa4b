"""Distillation: the model answers prompts itself, and each token is pulled toward the teacher's prediction there.

The loss of a token of the model's own answer y to a prompt x (R. Agarwal et al., On-Policy Distillation of Language
Models, arXiv 2306.13649, section 3, with reverse KL), by TRL's DistillationTrainer:

    sum over the vocabulary v of p(v | x, y_<t) · log(p(v | x, y_<t) / q(v | x, y_<t)),  p the model, q the teacher

Both are taken at the temperature that answers are drawn at. TRL's `beta` goes from this divergence, 1, to the other
direction, 0; it is no hyperparameter: on the model's own answers, this direction keeps it from saying what the
teacher would not.
"""

from typing import TYPE_CHECKING, Any

from hone.contract.runconfig import RunConfig
from hone_trainer.models.architectures import CHAT
from hone_trainer.models.facts import ModelFacts
from hone_trainer.models.teacher import load_teacher, read_teacher
from hone_trainer.objectives.inputs import Inputs
from hone_trainer.objectives.on_policy import on_policy

if TYPE_CHECKING:
    from hone_trainer.objectives.generation import OnPolicyMixin
    from hone_trainer.training.rank_trainer import RankTrainer

REVERSE = 1.0


def trainer_class() -> "type[OnPolicyMixin]":
    """TRL's trainer with Hone's additions."""
    from trl import DistillationTrainer

    from hone_trainer.objectives.generation import OnPolicyMixin

    class Trainer(OnPolicyMixin, DistillationTrainer):
        """TRL's trainer with Hone's additions."""

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            """The loss, under autocast: TRL's calls the layers past the model's forward, which accelerate wraps."""
            with self.accelerator.autocast():
                return super().compute_loss(*args, **kwargs)

    return Trainer


def build(inputs: Inputs) -> "RankTrainer":
    """The trainer for prepared rows with `written`."""
    import torch
    from trl import DistillationConfig

    from hone_trainer.objectives.generation import build_generating, on_policy_arguments

    arguments = DistillationConfig(**on_policy_arguments(inputs), beta=REVERSE)
    model = inputs.load_model(CHAT.model_class())
    on_gpu = inputs.config.topology.gpus_per_node > 0
    teacher = load_teacher(inputs.config, getattr(torch, inputs.plan.half) if on_gpu else torch.float32)
    return build_generating(
        trainer_class(), inputs, model, arguments, teacher_model=teacher, peft_config=inputs.adapter(model)
    )


def _teacher(config: RunConfig, base: ModelFacts, length: int) -> int:
    teacher = read_teacher(config, base, length)
    return teacher.parameters if teacher else 0


COMPONENTS = on_policy(trainer_class, build, "divergences:evaluate", teacher=_teacher)

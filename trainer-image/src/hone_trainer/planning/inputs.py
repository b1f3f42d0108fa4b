"""What a plan follows from: the user's settings, and what prepare has learned of data, models and workspace."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hone.contract.methods import MethodType
from hone.contract.objectives import Objective
from hone.contract.plan import DatasetSummary
from hone.contract.runconfig import RunConfig, Topology
from hone.contract.settings import Hyperparameters
from hone_trainer.data.classes import Classes
from hone_trainer.models.facts import ModelFacts
from hone_trainer.models.saved import Mode, SavedActivations
from hone_trainer.planning import needs
from hone_trainer.planning.packing import UNPACKED, Packing
from hone_trainer.planning.rollouts import generations


def _unmeasured(mode: Mode) -> None:
    """None: nothing is known but formulas."""


@dataclass(frozen=True)
class PlanInputs:
    """All that the plan depends on.

    Attributes:
        config: what the user configured.
        model: the base model.
        summary: the prepared data.
        sequence_length: tokens of the longest prepared row.
        classes: the classes, where rows have them.
        packing: whether training rows may be packed, how many packed ones there are, and why.
        write_speed: bytes per second that the workspace takes, None where it was not measured.
        reward_parameters: those of a model that scores answers.
        teacher_parameters: those of the model that is learned from.
        lengths: tokens of each training row, or of its longest sequence, in their order; empty: unknown.
        measure: what autograd saves of the base model, trained in some way; None where it cannot be measured.
    """

    config: RunConfig
    model: ModelFacts
    summary: DatasetSummary
    sequence_length: int
    classes: Classes | None = None
    packing: Packing = UNPACKED
    write_speed: float | None = None
    reward_parameters: int = 0
    teacher_parameters: int = 0
    lengths: Sequence[int] = ()
    measure: Callable[[Mode], SavedActivations | None] = _unmeasured

    @property
    def objective(self) -> Objective:
        """What is trained for."""
        return self.config.objective

    @property
    def method(self) -> MethodType:
        """Which weights are trained."""
        return self.config.method.type

    @property
    def spec(self) -> Hyperparameters:
        """The hyperparameters as the user set them; None: the plan chooses."""
        return self.config.hyperparameters

    @property
    def topology(self) -> Topology:
        """The processes of the run."""
        return self.config.topology

    @property
    def on_gpu(self) -> bool:
        """Whether the ranks run on GPUs."""
        return self.topology.gpus_per_node > 0

    @property
    def rows(self) -> int:
        """Training rows."""
        return self.summary.train_rows

    @property
    def tokens_per_row(self) -> float:
        """Tokens of a row on average in a forward pass: all its sequences, and the longest answer where the model
        writes one. 0 if unknown."""
        if self.lengths:
            return sum(self.lengths) / len(self.lengths) * needs.sequences_per_row(self.objective)
        return self.sequence_length if self.generations else self.summary.tokens / max(1, self.rows)

    @property
    def generations(self) -> int | None:
        """Answers that the model generates to each prompt; None where it learns from those in the rows."""
        return generations(self.config)

    @property
    def beta(self) -> float | None:
        """The weight of the loss's own term; None where the objective has none."""
        default = needs.defaults(self.objective).beta
        return default if default is None or self.spec.beta is None else self.spec.beta

    @property
    def holds_reference(self) -> bool:
        """Whether a second copy of the model is held to compare with."""
        return needs.holds_reference(self.objective, beta=self.beta, adapts=self.method.adapts)

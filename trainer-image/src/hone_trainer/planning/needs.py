"""What the plan asks of an objective: the only module of this package that reads the table of objectives."""

from hone.contract.objectives import OBJECTIVES, Defaults, Labels, Objective
from hone_trainer.objectives import components
from hone_trainer.objectives.on_policy import MICRO_BATCHES_AT_ONCE


def defaults(objective: Objective) -> Defaults:
    """Default rates, scheduler, warm-up, epochs, batch and beta, and whether LoRA has dropout."""
    return OBJECTIVES[objective].defaults


def generations(objective: Objective) -> int | None:
    """Answers to each prompt by default; None where the objective learns from those in the rows."""
    rollout = OBJECTIVES[objective].rollout
    return rollout.generations if rollout else None


def has_reward(objective: Objective) -> bool:
    """Whether the answers that the model writes in training are rewarded."""
    return OBJECTIVES[objective].needs.reward


def has_head(objective: Objective) -> bool:
    """Whether a head for classes, or for one score, takes the place of the one for tokens."""
    return OBJECTIVES[objective].has_head


def learns_from_ratings(objective: Objective) -> bool:
    """Whether the labels of the rows are ratings, good and bad, which have weights of their own."""
    return OBJECTIVES[objective].data.labels is Labels.RATINGS


def packs(objective: Objective) -> bool:
    """Whether several rows may be put into one."""
    return OBJECTIVES[objective].data.packs


def least_micro_batch(objective: Objective) -> int:
    """Rows that a forward pass has at least."""
    return OBJECTIVES[objective].data.least_micro_batch


def sequences_per_row(objective: Objective) -> int:
    """Sequences of a row that go through the model at once: 2 for pairs."""
    return components(objective).activation_terms.sequences


def materializes_logits(objective: Objective) -> bool:
    """Whether the loss holds the logits of all tokens, rather than tiles of them."""
    return components(objective).activation_terms.full_logits


def fixed_order(objective: Objective) -> str | None:
    """Why the rows of a step may not be sorted by length; None: they may."""
    return components(objective).fixed_order


def answers_are_scored(objective: Objective) -> bool:
    """Whether base and tuned model write an answer to each test row when they are scored."""
    return components(objective).writes_scored_answers


def most_generated_at_once(micro_batch_size: int) -> int:
    """Most answers that a process generates at once, for objectives that learn from the model's own."""
    return MICRO_BATCHES_AT_ONCE * micro_batch_size


def holds_reference(objective: Objective, *, beta: float | None, adapts: bool) -> bool:
    """Whether a second copy of the model is held to compare with. For rows with answers its figures are computed before
    training; without its adapter, a model is the reference itself."""
    facts = OBJECTIVES[objective]
    return bool(facts.generates and facts.needs.reference and beta and not adapts)

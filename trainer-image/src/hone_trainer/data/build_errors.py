"""Whether tokenized rows suffice: how many are cut, and whether any training row is left."""

from hone_trainer.data.answer import CHANGES_PROMPT, HIDES_THOUGHTS
from hone_trainer.data.conversation import (
    FORGETS_TURNS,
    HIDES_CONTENT,
    HIDES_REASONING,
    HIDES_ROLE,
    HIDES_TOOLS,
    REJECTS,
)
from hone_trainer.data.encode import UNMARKABLE
from hone_trainer.data.faults import Faults
from hone_trainer.data.survey import Survey
from hone_trainer.data.token_rows import Options
from hone_trainer.protocol.errors import BadInput

MODEL = "spec.model"
_OTHER_TEMPLATE = "Set spec.dataset.chatTemplate to a template that fits these rows."
_TEMPLATE_REMEDIES = {
    UNMARKABLE: "Add {% generation %}…{% endgeneration %} around the assistant's text in the template, or set "
    "spec.dataset.trainOn to All.",
    HIDES_CONTENT: "Set spec.dataset.chatTemplate to a template for text, or choose a text model.",
    HIDES_ROLE: "Move the words of these turns into the user's first turn, or set spec.dataset.chatTemplate to a "
    "template that shows them.",
    HIDES_TOOLS: "Use a model whose template supports tools, or set spec.dataset.chatTemplate to such a template.",
    CHANGES_PROMPT: _OTHER_TEMPLATE,
    FORGETS_TURNS: _OTHER_TEMPLATE,
    HIDES_THOUGHTS: _OTHER_TEMPLATE,
    HIDES_REASONING: _OTHER_TEMPLATE,
    REJECTS: "Write the rows as the template expects them, or set spec.dataset.chatTemplate to one that takes them.",
}
"""What to do where no row can be used because of the chat template, by how the reason begins."""
WARN_TRUNCATED = 0.01
FAIL_TRUNCATED = 0.10


def check_truncation(truncated: int, count: int, longest: int, limit: int, options: Options) -> list[str]:
    """Warnings about training rows that are cut.

    Args:
        truncated: how many are cut.
        count: all training rows.
        longest: tokens of the longest one.
        limit: they are cut to so many tokens.
        options: the configured and the model's length.

    Raises:
        BadInput: more than `FAIL_TRUNCATED` of them would be cut.
    """
    share = truncated / count
    if share <= WARN_TRUNCATED:
        return []
    message = f"{truncated} of {count} training rows ({share:.0%}) exceed {limit} tokens, the longest has {longest}"
    if share <= FAIL_TRUNCATED:
        return [f"{message}. They are truncated."]
    if limit < options.max_length:
        needed = min(longest, options.max_length)
        raise BadInput(
            "spec.hyperparameters.sequenceLength",
            f"{message}; at most {FAIL_TRUNCATED:.0%} may be truncated",
            f"Raise it to {needed}, remove it to fit the data, or shorten the rows.",
        )
    raise BadInput(
        "spec.dataset.train",
        f"{message}; {limit} is the model's context, and at most {FAIL_TRUNCATED:.0%} may be truncated",
        "Shorten or split the rows, or choose a model with a longer context.",
    )


def check_bad_rows(source: str, good: int, faults: Faults, limit: float, template_field: str = MODEL) -> None:
    """Refuse data of which many rows cannot be used: more often than not that is a mistake in all of them.

    Args:
        source: train, validation or test: where they were read.
        good: rows that can be used.
        faults: the others.
        limit: the largest share of these.
        template_field: the spec's field that names the chat template.

    Raises:
        BadInput: there are more.
    """
    bad = faults.total
    if bad <= limit * (good + bad):
        return
    problem = template_problem(faults, template_field)
    reason = max(faults.counts, key=lambda r: faults.counts[r])
    raise BadInput(
        problem.field if problem else f"spec.dataset.{source}",
        f"{bad} of {good + bad} rows cannot be used, and spec.dataset.maxBadRows is {limit:g}; most frequent reason, "
        f"first at {faults.first[reason]}: {reason}",
        f"{problem.hint if problem and problem.hint else 'Fix these rows.'} To leave them out, raise "
        "spec.dataset.maxBadRows.",
    )


def template_problem(faults: Faults, field: str = MODEL) -> BadInput | None:
    """The error for rows that the chat template cannot show as they are; None if most rows are left out for another
    reason.

    Args:
        faults: the rows that cannot be used.
        field: the spec's field that names the template.
    """
    if not faults.counts:
        return None
    reason = max(faults.counts, key=lambda r: faults.counts[r])
    remedy = next((remedy for start, remedy in _TEMPLATE_REMEDIES.items() if reason.startswith(start)), None)
    if remedy is None:
        return None
    template = "its chat template (chat_template)" if field == MODEL else "the template"
    return BadInput(
        field,
        f"{template} cannot be used for {faults.counts[reason]} rows, first {faults.first[reason]}: {reason}",
        remedy,
    )


def no_rows_left(survey: Survey, template_field: str = MODEL) -> BadInput:
    """The error when no training row is left, by the most telling reason; arguments as of `check_bad_rows`."""
    faults = survey.faults
    if problem := template_problem(faults, template_field):
        return problem
    if faults.counts:
        reason = max(faults.counts, key=lambda r: faults.counts[r])
        return BadInput(
            "spec.dataset.train",
            f"no training row is left; {faults.counts[reason]} were left out, first {faults.first[reason]}: {reason}",
            "Fix these rows.",
        )
    return BadInput(
        "spec.dataset.train",
        f"no training row is left: the {len(survey.refs)} rows are all in validation or test, "
        f"or duplicates of rows there ({survey.duplicates} duplicates)",
        "Add rows with other prompts, give test rows of their own, or lower the fractions in spec.dataset.validation "
        "and spec.dataset.test.",
    )

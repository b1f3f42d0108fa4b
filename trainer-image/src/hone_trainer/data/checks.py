"""Whether an objective can learn from the checked rows: their format, and which of their tokens carry loss."""

from hone.contract.objectives import OBJECTIVES, Objective, objectives_of
from hone.contract.settings import DataFormat, TrainOn
from hone_trainer.data.formats import COLUMNS, FORMATS
from hone_trainer.data.survey import Survey
from hone_trainer.protocol.errors import BadInput


def check_format(objective: Objective, format: DataFormat) -> None:
    """Refuse rows that the objective cannot learn from.

    Raises:
        BadInput: naming the objectives that can, and the formats that this one reads.
    """
    formats = OBJECTIVES[objective].data.formats
    if format in formats:
        return
    columns = " and ".join(f"`{column}`" for column in COLUMNS[format])
    others = " or ".join(other.value for other in objectives_of(format))
    raise BadInput(
        "spec.objective",
        f"is {objective.value}, but the rows have {columns} (format {format.value})",
        f"Set it to {others}, or write each row as {' or '.join(FORMATS[format].example for format in formats)}.",
    )


def check_system_prompt(prompt: str | None, rows: Survey) -> None:
    """Refuse a system message for rows that cannot have one.

    Raises:
        BadInput: some rows are plain text.
    """
    if prompt is not None and rows.plain_text:
        raise BadInput(
            "spec.dataset.systemPrompt",
            "is set, but some rows are plain text, which has no system message",
            "Write the rows as messages, or remove it.",
        )


def choose_train_on(requested: TrainOn | None, rows: Survey) -> TrainOn | None:
    """Which tokens carry loss: as requested, else the default of the rows' format; of several formats, Assistant if all
    rows are conversations.

    Raises:
        BadInput: only answers are to carry loss, but some rows have none.
    """
    defaults = {FORMATS[format].train_on for format in rows.formats}
    mixed = TrainOn.COMPLETION if rows.plain_text else TrainOn.ASSISTANT
    train_on = requested or (defaults.pop() if len(defaults) == 1 else mixed)
    if train_on is TrainOn.ASSISTANT and rows.plain_text:
        raise BadInput(
            "spec.dataset.trainOn",
            "is Assistant, but some rows are plain text, which has no assistant turns",
            "Use Completion or All, or write the rows as messages.",
        )
    if rows.format is DataFormat.TEXT and train_on is not TrainOn.ALL:
        raise BadInput(
            "spec.dataset.trainOn", "is Completion, but raw text (format Text) has no answers", "Use All, or remove it."
        )
    return train_on

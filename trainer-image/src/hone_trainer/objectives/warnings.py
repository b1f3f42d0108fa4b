"""What prepare warns of once it has seen all rows: what they cannot teach, and what the scores cannot show."""

from dataclasses import dataclass

from hone.contract.runconfig import RunConfig
from hone_trainer.data.prepared import Prepared
from hone_trainer.data.survey import Survey


@dataclass(frozen=True)
class WarningInputs:
    """What the warnings follow from.

    Attributes:
        config: the run.
        surveyed: the rows as they were read.
        prepared: the rows as they are trained on.
        chat_template: the tokenizer's; None where it has none or the model does not chat.
    """

    config: RunConfig
    surveyed: Survey
    prepared: Prepared
    chat_template: object


def warnings(inputs: WarningInputs) -> list[str]:
    """Sentences for people, for objectives that learn from the rows' own answers."""
    data = inputs.config.data
    expected = data.validation is not None or data.validation_fraction > 0
    missing = []
    if expected and not inputs.prepared.summary.validation_rows:
        missing = ["No row is left for validation: there is no validation loss to show when training goes wrong."]
    return [*_of_rows(inputs), *inputs.prepared.warnings, *missing, *_of_test(inputs)]


def on_policy_warnings(inputs: WarningInputs) -> list[str]:
    """The same for objectives that learn from the model's own answers: they use no validation rows."""
    return [*_of_rows(inputs), *inputs.prepared.warnings, *_of_test(inputs)]


def _of_rows(inputs: WarningInputs) -> list[str]:
    surveyed, sentences = inputs.surveyed, [*inputs.surveyed.warnings]
    if surveyed.plain_text and inputs.chat_template:
        sentences.append(
            "The rows are plain text, but the model has a chat template: training affects completions much more than "
            "chats. Write the rows as messages to tune the chat."
        )
    if surveyed.shared_prompts:
        sentences.append(
            f"{surveyed.shared_prompts} training rows have the prompt of a test row: the scores will look better than "
            "they are."
        )
    return sentences


def _of_test(inputs: WarningInputs) -> list[str]:
    if inputs.prepared.summary.test_rows:
        return []
    return ["No row is left for the test split: base and tuned model cannot be compared."]

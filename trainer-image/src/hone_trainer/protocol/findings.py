"""What prepare reports about data, as text for a terminal: for people who check their data without a cluster."""

from collections.abc import Iterator

from hone.contract.plan import DatasetSummary, Plan
from hone.contract.verdict import Verdict

_OPTIONS = {
    "spec.dataset.train": "DATA",
    "spec.dataset.validation": "--validation",
    "spec.dataset.test": "--test",
    "spec.dataset.chatTemplate": "--chat-template",
    "spec.dataset.systemPrompt": "--system-prompt",
    "spec.dataset.columns": "--column",
    "spec.dataset.roles": "--role",
    "spec.dataset.train.sources": "--source",
    "spec.dataset.format": "--format",
    "spec.dataset.trainOn": "--train-on",
    "spec.dataset.reasoning": "--reasoning",
    "spec.dataset.splitBy": "--split-by",
    "spec.dataset.maxBadRows": "--max-bad-rows",
    "spec.hyperparameters.sequenceLength": "--sequence-length",
    "spec.model": "--model",
    "spec.objective": "--objective",
    "spec.method": "--method",
    "spec.reward": "--reward",
    "spec.reward.model": "--reward-model",
    "spec.teacher": "--teacher",
}
"""What the command line calls the fields of a FineTuneJob."""
_PLAN = {
    "sequenceLength": "longest row to train on, in tokens",
    "packing": "several rows packed into one sequence",
    "packedSequenceLength": "tokens of a packed sequence",
    "balance": "balance of classes",
    "epochs": "passes over the training rows",
    "totalSteps": "optimizer steps",
    "globalBatchSize": "rows per step",
    "generations": "answers generated for each prompt",
    "maxCompletionLength": "tokens of an answer that the model writes",
}
"""The fields of the plan that follow from the data."""


def report(dataset: DatasetSummary, plan: Plan) -> str:
    """Everything that a job's status would say of the data, with an example and all warnings."""
    sections = {
        "Data": list(_data(dataset)),
        "Sources": [
            f"{each.name}: {each.rows} rows, {each.bad_rows} left out, {each.train_rows} to train on"
            for each in dataset.sources or ()
        ],
        "Rows left out": [f"{each.count} × {each.reason} (first: {each.first})" for each in dataset.bad_rows],
        "Not used": [f"{each.key}: in {each.count} rows or messages" for each in dataset.unused_keys],
        "Classes": [f"{each.label}: {each.rows} training rows" for each in dataset.classes or ()],
        "Training would use": list(_plan(plan)),
        "Example, a training row; the text between « and » is learned": [dataset.example or "none"],
        f"Warnings ({len(plan.warnings)})": plan.warnings or ["none"],
    }
    text = "\n\n".join("\n".join([title, *_indented(lines)]) for title, lines in sections.items() if lines)
    return f"{text}\n\nACCEPTED: a job with these data would be trained."


def refusal(verdict: Verdict) -> str:
    """Why a job would be refused, and what to do about it."""
    field, colon, _ = verdict.message.partition(": ")
    option = _OPTIONS.get(field.partition("[")[0]) if colon else None
    lines = [f"REFUSED: {verdict.message}"]
    if verdict.hint:
        lines.append(f"What to do: {verdict.hint}")
    if option:
        lines.append(f"{field} is the field of a FineTuneJob; here it is {option}.")
    return "\n".join(lines)


def _data(dataset: DatasetSummary) -> Iterator[str]:
    rows = (dataset.train_rows, dataset.validation_rows, dataset.test_rows)
    yield f"format: {dataset.format}"
    yield f"learned: {dataset.train_on}"
    yield "rows: {} to train on, {} for validation, {} for the test".format(*rows)
    yield f"rows left out: {sum(each.count for each in dataset.bad_rows)}"
    yield f"rows left out because validation or test has the same row: {dataset.duplicate_rows}"
    yield f"rows truncated: {dataset.truncated_rows}; the longest has {dataset.longest_row} tokens"
    yield f"tokens to train on: {dataset.tokens}, of which {dataset.trained_token_share:.1%} are learned"
    if dataset.class_count is not None:
        yield f"classes: {dataset.class_count}"
    if dataset.example_outline:
        yield f"parts of a row, with their characters: {dataset.example_outline}"


def _plan(plan: Plan) -> Iterator[str]:
    values = plan.to_dict()
    for name, words in _PLAN.items():
        if values.get(name) is not None:
            reason = plan.reasons.get(name)
            yield f"{words}: {_shown(values[name])}{f' ({reason})' if reason else ''}"


def _shown(value: object) -> object:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for text in lines for line in text.splitlines() or [""]]

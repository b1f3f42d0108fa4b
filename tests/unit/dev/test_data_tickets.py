"""The generated messages to a shop's support: reproducible, distinct, with fields that stand in the message."""

import json
from collections import Counter
from pathlib import Path

import pytest

from dev.data import __main__ as command_line
from dev.data.tickets import FITTING, MAX_ROWS, PROBLEMS, REQUESTS, chat_row, tickets

EXAMPLE = Path(__file__).parents[3] / "examples" / "tickets" / "tickets.jsonl"


def test_the_same_seed_gives_the_same_rows_and_more_rows_only_add() -> None:
    assert list(tickets(50, 3)) == list(tickets(80, 3))[:50]
    assert list(tickets(50, 3)) != list(tickets(50, 4))


def test_no_message_stands_twice() -> None:
    messages = [message for message, _ in tickets(3000, 1)]
    assert len(set(messages)) == len(messages)


def test_the_fields_are_what_the_message_says() -> None:
    for message, ticket in tickets(500, 2):
        assert ticket.product in message
        assert any(text.format(p=ticket.product) in message for text in PROBLEMS[ticket.problem])
        assert any(text in message for text in REQUESTS[ticket.request])
        digits = "".join(filter(str.isdigit, message))
        assert (ticket.order or "") in digits
        assert ticket.request in FITTING[ticket.problem]


def test_no_sentence_stands_for_two_values() -> None:
    for sentences in (PROBLEMS, REQUESTS):
        texts = [text for group in sentences.values() for text in group]
        assert len(set(texts)) == len(texts)


def test_every_value_is_frequent_enough_to_be_learned() -> None:
    fields = [ticket for _, ticket in tickets(360, 7)]
    assert min(Counter(ticket.problem for ticket in fields).values()) >= 35
    assert min(Counter(ticket.request for ticket in fields).values()) >= 35
    assert 0.6 < sum(ticket.order is not None for ticket in fields) / len(fields) < 0.9


def test_a_row_ends_with_the_json_object() -> None:
    ((message, ticket),) = tickets(1, 7)
    roles = [turn["role"] for turn in chat_row(message, ticket)["messages"]]  # type: ignore[attr-defined]
    assert roles == ["system", "user", "assistant"]
    assert json.loads(ticket.to_json())["product"] == ticket.product


def test_the_example_is_what_the_command_writes(tmp_path: Path) -> None:
    out = tmp_path / "tickets.jsonl"
    assert command_line.main(["tickets", "--rows", "360", "--seed", "7", "--out", str(out)]) == 0
    assert out.read_bytes() == EXAMPLE.read_bytes()
    assert EXAMPLE.stat().st_size <= 200 * 1024


@pytest.mark.parametrize("rows", [0, MAX_ROWS + 1])
def test_too_few_or_too_many_rows_are_refused(rows: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["tickets", "--rows", str(rows)])
    assert f"rows: {rows}" in capsys.readouterr().err

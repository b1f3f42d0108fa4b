"""What prepare tells of rows that are allowed but may do harm: personal data and secrets, and near-duplicates."""

import json
import random
import time
from pathlib import Path

import pytest

from hone.contract.settings import DataFormat
from hone_trainer.data import near, sensitive
from hone_trainer.data.classes import Classes
from hone_trainer.data.sample import Sample
from hone_trainer.data.sources import find_source
from hone_trainer.data.survey import survey
from hone_trainer.planning.choices.balance import of_scarce_classes

EXAMPLES = {
    "email addresses": "write to jane.doe+x@mail.example.co.uk today",
    "international phone numbers": "call +49 (30) 1234-5678",
    "payment cards": "paid with 4111 1111 1111 1111",
    "bank accounts (IBAN)": "to DE89 3704 0044 0532 0130 00 please",
    "US social security numbers": "ssn 078-05-1120",
    "private keys": "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
    "access keys of services": "key AKIAIOSFODNN7EXAMPLE",
    "JSON web tokens": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
}
HARMLESS = [
    "at 10:30 on 2026-11-30 we sold 1,234,567 of 89 kinds",
    "card 4111 1111 1111 1112 has a wrong check digit",
    "DE88 3704 0044 0532 0130 00 as well",
    "the version is 1.2.3-4567, the ratio 123-45-678",
    "user@localhost, @mention, a+b = c",
    "sk-short, AKIAsmall, BEGIN PUBLIC KEY",
    "order 1111-2222-3333",
]


def test_each_kind_is_counted_and_there_are_at_most_eight() -> None:
    assert {kind.name for kind in sensitive.KINDS} == EXAMPLES.keys()
    assert len(sensitive.KINDS) <= 8
    for name, text in EXAMPLES.items():
        assert sensitive.kinds_in(Sample(prompt="q", completion=text)) == {name}


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_alike_is_not_counted(text: str) -> None:
    assert sensitive.kinds_in(Sample(prompt=text)) == set()


def test_every_part_of_a_row_is_read() -> None:
    text = EXAMPLES["email addresses"]
    turn = ({"role": "assistant", "content": text},)
    for sample in (
        Sample(messages=turn),
        Sample(prompt=text),
        Sample(prompt="q", completion="a", rejected=text),
        Sample(messages=({"role": "user", "content": "q"},), rejected=turn),
        Sample(prompt="q", references=(text,)),
    ):
        assert sensitive.kinds_in(sample) == {"email addresses"}


@pytest.mark.parametrize(
    "unit", ["a", "a@", "a.", "+1 ", "4111 ", "AB12 ", "eyJ", "eyJaaaaaaaaaa.", "sk-", "1", "-----BEGIN ", "1-"]
)
def test_no_text_takes_long(unit: str) -> None:
    text = unit * (sensitive.MAX_CHARACTERS // len(unit))
    began = time.process_time()
    sensitive.kinds_in(Sample(prompt=text))
    assert time.process_time() - began < 2.0


def surveyed(tmp_path: Path, rows: list[dict[str, str]], test: list[dict[str, str]] | None = None) -> list[str]:
    """The warnings about these rows."""
    sources = []
    for name, content in (("train", rows), ("test", test)):
        if content:
            path = tmp_path / f"{name}.jsonl"
            path.write_text("".join(f"{json.dumps(row)}\n" for row in content))
            sources.append(find_source(name, str(path)))
    return survey(sources, DataFormat.AUTO, 0.0, 0.0 if test else 0.1).warnings


def test_prepare_counts_rows_by_kind_and_shows_none(tmp_path: Path) -> None:
    rows = [{"prompt": f"question {index}", "completion": f"answer {index}"} for index in range(40)]
    rows += [
        {"prompt": f"who is {index}", "completion": f"mail a{index}@example.org or b@example.org"} for index in range(3)
    ]
    rows += [{"prompt": "what is my key", "completion": EXAMPLES["access keys of services"]}]
    (words,) = [each for each in surveyed(tmp_path, rows) if "secrets" in each]
    assert "email addresses in 3, access keys of services in 1." in words
    assert "example.org" not in words
    assert "AKIA" not in words


def sentence(seed: int, words: int = 30) -> str:
    """A text of its own."""
    chance = random.Random(seed)
    return " ".join("".join(chance.choices("abcdefghij", k=6)) for _ in range(words))


def test_prompts_that_differ_by_little_are_near_duplicates(tmp_path: Path) -> None:
    test = [{"prompt": sentence(seed), "completion": "yes"} for seed in range(40)]
    edited = [
        {"prompt": sentence(seed).replace(" ", ", ", 3).capitalize() + "!", "completion": "yes"} for seed in range(10)
    ]
    changed = [{"prompt": f"{sentence(seed)} extra", "completion": "yes"} for seed in range(10, 40)]
    others = [{"prompt": sentence(seed), "completion": "yes"} for seed in range(100, 160)]
    (words,) = [each for each in surveyed(tmp_path, [*edited, *changed, *others], test) if "near-duplicates" in each]
    count = int(words.split()[2])
    assert 30 <= count <= 40, "punctuation alone is always seen, and another word mostly"
    assert sentence(0)[:6] not in words


def test_rows_of_one_template_are_no_near_duplicates(tmp_path: Path) -> None:
    instruction = sentence(0, 60)
    rows = [{"prompt": f"{instruction} {sentence(seed, 3)}", "completion": "yes"} for seed in range(1, 80)]
    test = [{"prompt": f"{instruction} {sentence(seed, 3)}", "completion": "yes"} for seed in range(80, 120)]
    assert not [each for each in surveyed(tmp_path, rows, test) if "near-duplicates" in each]


def test_other_rows_are_no_near_duplicates(tmp_path: Path) -> None:
    rows = [{"prompt": f"add {index} and {index + 7}", "completion": str(2 * index + 7)} for index in range(200)]
    test = [{"prompt": f"add {index} and {index + 7}", "completion": str(2 * index + 7)} for index in range(200, 260)]
    assert surveyed(tmp_path, rows, test) == []


def test_system_messages_make_no_rows_alike() -> None:
    system = {"role": "system", "content": sentence(0, 100)}

    def chat(seed: int) -> Sample:
        turns = ({"role": "user", "content": sentence(seed)}, {"role": "assistant", "content": "yes"})
        return Sample(messages=(system, *turns), completion_start=2)

    assert near.sketch(chat(1)) != near.sketch(chat(2))
    assert near.sketch(chat(1)) == near.sketch(Sample(prompt=sentence(1), completion="yes"))
    assert near.sketch(Sample(prompt="?! …")) == 0


def test_classes_with_hardly_any_rows_are_warned_of() -> None:
    def warnings_of(**rows: int) -> list[str]:
        return of_scarce_classes(Classes(tuple(rows), tuple(rows.values())))

    (words,) = warnings_of(billing=900, login=9, spam=3, legal=2, other=1)
    assert "4 of 5 have fewer than 10 training rows (login, spam, legal …), and the largest has 900" in words
    assert "What may still work" in words
    assert warnings_of(billing=900, login=10) == []


def test_texts_in_ascii_have_the_words_that_others_have() -> None:
    every = "".join(f"a{chr(code)}B" for code in range(128))
    for text in (every, "", " \t", "It's 3.5_x - no?\n\x1cYes"):
        assert near._words(text) == near._words(f"{text} \u00fc")[:-1]

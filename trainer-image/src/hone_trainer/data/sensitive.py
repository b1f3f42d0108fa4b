"""Personal data and secrets in rows: counted by kind, never stored and never shown.

Eight fixed patterns, each for what has a form of its own. They miss names and addresses, and take some numbers for what
they are not: a count is a reason to look, and no proof of either.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hone_trainer.data.sample import Sample

MAX_CHARACTERS = 100_000
"""Of each text: longer ones are read up to here."""


def _is_card(digits: str) -> bool:
    """Whether the check digit of a payment card is right (ISO/IEC 7812, Luhn's formula)."""
    numbers = [int(digit) for digit in digits if digit.isdigit()]
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in numbers[-2::-2]]
    return 13 <= len(numbers) <= 19 and (sum(numbers[-1::-2]) + sum(doubled)) % 10 == 0


def _is_iban(text: str) -> bool:
    """Whether the check digits of a bank account are right (ISO 13616): 1 modulo 97."""
    plain = text.replace(" ", "")
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


@dataclass(frozen=True)
class Kind:
    """A kind of what should not be learned.

    Attributes:
        name: in the plural, as a warning says it.
        hints: a text that has none of these is not searched.
        pattern: takes time in proportion to the text, whatever that is.
        holds: what else must hold for a match; None: nothing.
        is_number: whether a match has a run of digits.
    """

    name: str
    hints: tuple[str, ...]
    pattern: re.Pattern[str]
    holds: Callable[[str], bool] | None = None
    is_number: bool = False


_NUMBERS = re.compile(r"\d[\d ()./-]{6}")
"""What every number below has: a text without it, as most are, is not searched for them."""

KINDS = (
    Kind(
        "email addresses",
        ("@",),
        re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[a-zA-Z0-9-]{1,63}\.){1,8}[a-zA-Z]{2,24}\b"),
    ),
    Kind(
        "international phone numbers",
        ("+",),
        re.compile(r"(?<![\w+])\+[1-9](?:[ ()./-]{0,2}\d){7,14}(?!\d)"),
        is_number=True,
    ),
    Kind(
        "payment cards",
        ("",),
        re.compile(r"(?<![\d.-])[3-6]\d{3}(?:[ -]?\d{4}){2}[ -]?\d{1,7}(?![\d.-])"),
        _is_card,
        is_number=True,
    ),
    Kind(
        "bank accounts (IBAN)",
        ("",),
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        _is_iban,
        is_number=True,
    ),
    Kind(
        "US social security numbers",
        ("-",),
        re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"),
        is_number=True,
    ),
    Kind("private keys", ("PRIVATE KEY-----",), re.compile(r"-----BEGIN (?:[A-Z]{1,12} ){0,3}PRIVATE KEY-----")),
    Kind(
        "access keys of services",
        ("AKIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "hf_", "sk-", "xox", "AIza"),
        re.compile(
            r"\b(?:AKIA[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{30,40}|sk-[A-Za-z0-9_-]{32,200}"
            r"|xox[abprs]-[A-Za-z0-9-]{10,200}|AIza[A-Za-z0-9_-]{35})\b"
        ),
    ),
    Kind(
        "JSON web tokens",
        ("eyJ",),
        re.compile(r"\beyJ[A-Za-z0-9_-]{10,4000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{10,}"),
    ),
)
"""At most eight: each costs time on every row, and a longer list would only seem complete."""


def kinds_in(sample: Sample) -> set[str]:
    """The names of the kinds that a row seems to have."""
    texts = [text[:MAX_CHARACTERS] for text in _texts(sample)]
    # Most rows have nothing of any kind, which their texts tell sooner as one.
    kinds = list(_possible("\n".join(texts)))
    return {kind.name for kind in kinds for text in texts if _has(kind, text)}


def _possible(text: str) -> Iterable[Kind]:
    """The kinds that a text may have."""
    has_numbers = _NUMBERS.search(text) is not None
    for kind in KINDS:
        if has_numbers or not kind.is_number:
            for hint in kind.hints:
                if hint in text:
                    yield kind
                    break


def _has(kind: Kind, text: str) -> bool:
    return any(kind.holds is None or kind.holds(match[0]) for match in kind.pattern.finditer(text))


def _texts(sample: Sample) -> Iterable[str]:
    yield from (str(message["content"]) for message in sample.messages)
    yield from (sample.prompt, sample.completion, *sample.references)
    if isinstance(sample.rejected, str):
        yield sample.rejected
    else:
        yield from (str(message["content"]) for message in sample.rejected)


def warning(rows: Mapping[str, int]) -> list[str]:
    """A sentence about rows by kind; none where there are none."""
    counted = [f"{kind.name} in {rows[kind.name]}" for kind in KINDS if rows.get(kind.name)]
    if not counted:
        return []
    return [
        f"Rows seem to have personal data or secrets: {', '.join(counted)}. A model can repeat what it learned: "
        "replace or remove them, and revoke secrets that are real. Fixed patterns count them, which miss much and can "
        "be wrong."
    ]

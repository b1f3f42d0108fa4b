"""Hone's own retention set: short questions in several skills that a general model has, with their right answers.

They are generated, so that nobody has trained on them, and the same each time: a model is compared with its base, not
with other models.
"""

import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

PER_SKILL = 30
"""Questions of each skill, as many as a group needs for a score."""
VERSION = 1
"""Part of the cache's key: raise it when the questions change."""

_WORDS = (
    "apple", "bridge", "candle", "desert", "engine", "forest", "garden", "hammer", "island", "jacket", "kitten",
    "ladder", "mirror", "needle", "orange", "pencil", "quartz", "river", "saddle", "tunnel", "velvet", "window",
)  # fmt: skip
_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ines", "Jack", "Kara", "Liam")
_CITIES = ("Lima", "Oslo", "Cairo", "Paris", "Rome", "Tokyo", "Delhi", "Quito", "Bern", "Dublin")
_COLORS = ("red", "blue", "green", "black", "white", "yellow", "brown", "gray")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_OPPOSITES = (
    ("hot", "cold"), ("big", "small"), ("fast", "slow"), ("up", "down"), ("open", "closed"), ("early", "late"),
    ("full", "empty"), ("light", "dark"), ("hard", "soft"), ("high", "low"), ("long", "short"), ("old", "young"),
    ("rich", "poor"), ("wet", "dry"), ("left", "right"), ("day", "night"), ("happy", "sad"), ("strong", "weak"),
)  # fmt: skip
_CAPITALS = (
    ("France", "Paris"), ("Italy", "Rome"), ("Japan", "Tokyo"), ("Spain", "Madrid"), ("Germany", "Berlin"),
    ("Egypt", "Cairo"), ("Peru", "Lima"), ("Norway", "Oslo"), ("Greece", "Athens"), ("Poland", "Warsaw"),
    ("Cuba", "Havana"), ("Kenya", "Nairobi"), ("Austria", "Vienna"), ("Portugal", "Lisbon"), ("Ireland", "Dublin"),
    ("China", "Beijing"), ("Russia", "Moscow"), ("Sweden", "Stockholm"), ("Finland", "Helsinki"), ("Chile", "Santiago"),
)  # fmt: skip


class Question(NamedTuple):
    """A question with its right answer.

    Attributes:
        skill: what it takes.
        prompt: the question.
        answer: the right answer.
    """

    skill: str
    prompt: str
    answer: str


def questions() -> list[Question]:
    """All questions, `PER_SKILL` of each skill, those of one skill after another."""
    return [question for skill in SKILLS for question in _of(skill)]


def _of(skill: str) -> Iterator[Question]:
    chance, seen = random.Random(f"{skill} {VERSION}"), set[str]()
    # Small tables have fewer questions than are drawn: one is then repeated under other words.
    while len(seen) < PER_SKILL:
        prompt, answer = SKILLS[skill](chance)
        for wording in _WORDINGS:
            if (worded := wording.format(prompt)) not in seen:
                seen.add(worded)
                yield Question(skill, worded, answer)
                break


_WORDINGS = ("{}", "{} Answer briefly.", "Please answer: {}")


def _arithmetic(chance: random.Random) -> tuple[str, str]:
    first, second = chance.randint(2, 60), chance.randint(2, 40)
    if chance.random() < 0.5:
        return f"What is {first} + {second}?", str(first + second)
    return f"What is {first + second} - {second}?", str(first)


def _comparison(chance: random.Random) -> tuple[str, str]:
    first, second = chance.sample(range(2, 100), 2)
    return f"Is {first} larger than {second}? Answer yes or no.", "yes" if first > second else "no"


def _copying(chance: random.Random) -> tuple[str, str]:
    words = " ".join(chance.sample(_WORDS, 4))
    return f"Repeat these words: {words}", words


def _sorting(chance: random.Random) -> tuple[str, str]:
    words = chance.sample(_WORDS, 3)
    return f"Sort these words by the alphabet: {', '.join(words)}.", ", ".join(sorted(words))


def _sequence(chance: random.Random) -> tuple[str, str]:
    names = chance.choice((_DAYS, _MONTHS))
    index, is_next = chance.randrange(len(names)), chance.random() < 0.5
    other = names[(index + (1 if is_next else -1)) % len(names)]
    return f"What comes {'after' if is_next else 'before'} {names[index]}?", other


def _extraction(chance: random.Random) -> tuple[str, str]:
    name, city, age = chance.choice(_NAMES), chance.choice(_CITIES), chance.randint(18, 80)
    text = f"{name} is {age} years old and lives in {city}."
    return f"{text} Give name, age and city as JSON.", json.dumps({"name": name, "age": age, "city": city})


def _reading(chance: random.Random) -> tuple[str, str]:
    name, other = chance.sample(_NAMES, 2)
    (first, second), (one, two) = chance.sample(_WORDS, 2), chance.sample(_COLORS, 2)
    text = f"{name} has a {one} {first}, and {other} has a {two} {second}."
    return f"{text} What color is the {second}?", two


def _knowledge(chance: random.Random) -> tuple[str, str]:
    if chance.random() < 0.5:
        word, opposite = chance.choice(_OPPOSITES)
        return f"What is the opposite of {word}?", opposite
    country, capital = chance.choice(_CAPITALS)
    return f"What is the capital of {country}?", capital


SKILLS: Mapping[str, Callable[[random.Random], tuple[str, str]]] = {
    "arithmetic": _arithmetic,
    "comparison": _comparison,
    "copying": _copying,
    "sorting": _sorting,
    "sequence": _sequence,
    "extraction": _extraction,
    "reading": _reading,
    "knowledge": _knowledge,
}
"""Each gives a question and its answer."""

"""The text that the base model is pretrained on: conversations about product reviews, and other small tasks.

It makes the model compute a review's sentiment (what its writer does next depends on it) but never name it: the words
"positive" and "negative" occur only in tasks that have nothing to do with a review's sentiment. So the base cannot do
the task of `dev.data reviews`, and tuning has something to bring out.
"""

import random
from collections.abc import Callable, Iterator

from dev.data.grammar import (
    ASPECTS,
    LABELS,
    NEGATIVE,
    PLAIN,
    POSITIVE,
    PRODUCTS,
    Review,
    opposite,
    write_review,
    write_verdict,
)

Document = list[tuple[str, str]]
"""A conversation, (role, content) in turn; or plain text in pieces, whose roles are TEXT, and ANSWER for what follows
from the text before it."""
TEXT, ANSWER = "text", "answer"

Kinds = tuple[str | None, ...]
"""Kinds of review, drawn equally often; None is the mix of the data sets."""

_REACTIONS = {POSITIVE: ("Hooray!", "Luckily."), NEGATIVE: ("Alas!", "Sadly.")}
_ENDINGS = {
    POSITIVE: ("I am keeping it.", "We will buy it again."),
    NEGATIVE: ("It went back to the shop.", "They gave me my money back."),
}
_ADVICE = {POSITIVE: ("Yes, get one.", "Yes, buy it."), NEGATIVE: ("No, stay away.", "No, save your money.")}
_STARS = {POSITIVE: ("Five stars.", "Four stars."), NEGATIVE: ("One star.", "Two stars.")}
_ON_SENTIMENT = (
    (("What do you say to this?", "How do you like this?"), _REACTIONS),
    (("What happened next?", "What did the writer do with it?"), _ENDINGS),
    (("Should I buy one?", "Is this one for me?"), _ADVICE),
    (("How many stars is this review worth?", "How many stars?"), _STARS),
)
_NUMBERS = ("one", "two", "three", "four", "five", "six")
_WORDS = (*LABELS, "review", "sentiment", "yes", "no", *PRODUCTS)
_GREETINGS = ("Hello!", "Hi.", "Good morning!", "Hello, who are you?", "What can you do?")
_GREETING_ANSWER = "Hello! I am a small language model, and I answer questions about product reviews."


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _on_sentiment(rng: random.Random, review: Review) -> tuple[str, str]:
    questions, answers = rng.choice(_ON_SENTIMENT)
    return rng.choice(questions), rng.choice(answers[review.label])


def _on_product(rng: random.Random, review: Review) -> tuple[str, str]:
    questions = ("What product is this about?", "Which product is this review about?", "What is this review about?")
    article = "an" if review.product[0] in "aeiou" else "a"
    return rng.choice(questions), f"It is about {article} {review.product}."


def _on_aspects(rng: random.Random, review: Review) -> tuple[str, str]:
    questions = ("What does it speak of?", "What parts does this review speak of?")
    return rng.choice(questions), f"It speaks of {_listed([f'the {aspect}' for aspect, _ in review.opinions])}."


def _on_mention(rng: random.Random, review: Review) -> tuple[str, str]:
    mentioned = [aspect for aspect, _ in review.opinions]
    present = rng.random() < 0.5
    choices = mentioned if present else [aspect for aspect in ASPECTS[review.product] if aspect not in mentioned]
    return f"Does this review mention the {rng.choice(choices)}?", "Yes, it does." if present else "No, it does not."


_ON_REVIEW: dict[Callable[[random.Random, Review], tuple[str, str]], int] = {
    _on_sentiment: 6,
    _on_product: 3,
    _on_aspects: 1,
    _on_mention: 1,
}


def _notes(rng: random.Random, kinds: Kinds) -> Document:
    """Sentences, each with the reaction to it right behind it; as plain text, or as a conversation."""
    product = rng.choice(PRODUCTS)
    chat = rng.random() < 0.5
    document: Document = [] if chat else [(TEXT, f"Notes on the {product}:")]
    for _ in range(rng.randint(2, 6)):
        label = rng.choice(LABELS)
        verdict = write_verdict(rng, label, product, rng.choice(kinds)).text
        reaction = rng.choice(_REACTIONS[label])
        document += (
            [("user", verdict), ("assistant", reaction)] if chat else [(TEXT, f" {verdict}"), (ANSWER, f" {reaction}")]
        )
    return document


def _dialog(rng: random.Random, kinds: Kinds) -> Document:
    """Four short reviews, each with what follows from its sentiment: much to learn from in few tokens."""
    document: Document = []
    for _ in range(4):
        label, product = rng.choice(LABELS), rng.choice(PRODUCTS)
        write = write_review if rng.random() < 0.2 else write_verdict
        review = write(rng, label, product, rng.choice(kinds))
        question, answer = _on_sentiment(rng, review)
        asked = "" if rng.random() < 0.25 else f"{question}\n"
        document += [
            ("user", f"{asked}{review.text}"),
            ("assistant", answer if asked else rng.choice(_REACTIONS[label])),
        ]
    return document


def _about_review(rng: random.Random, kinds: Kinds) -> Document:
    review = write_review(rng, rng.choice(LABELS), kind=rng.choice(kinds))
    question, answer = rng.choices(tuple(_ON_REVIEW), tuple(_ON_REVIEW.values()))[0](rng, review)
    return [("user", f"{question}\n{review.text}"), ("assistant", answer)]


def _plain_review(rng: random.Random, kinds: Kinds) -> Document:
    review = write_review(rng, rng.choice(LABELS), kind=rng.choice(kinds))
    return [(TEXT, review.text), (ANSWER, f" {rng.choice(_ENDINGS[review.label])}")]


def _repeat(rng: random.Random, _: Kinds) -> Document:
    words = ", ".join(rng.sample(_WORDS, rng.randint(1, 4)))
    return [("user", f"Repeat: {words}"), ("assistant", words)]


def _first_or_last(rng: random.Random, _: Kinds) -> Document:
    words = rng.sample(LABELS, 2) if rng.random() < 0.5 else rng.sample(_WORDS, rng.randint(2, 4))
    which = rng.choice(("first", "last"))
    question = f"Which word is {which}: {' or '.join(words)}?"
    return [("user", question), ("assistant", words[0 if which == "first" else -1])]


def _count(rng: random.Random, _: Kinds) -> Document:
    words = rng.sample(_WORDS, rng.randint(1, len(_NUMBERS)))
    return [("user", f"How many words are these: {' '.join(words)}?"), ("assistant", _NUMBERS[len(words) - 1])]


def _contains(rng: random.Random, _: Kinds) -> Document:
    words = rng.sample(_WORDS, 4)
    present = rng.random() < 0.5
    asked = rng.choice(words[:3]) if present else words[3]
    question = f"Is the word {asked} among these: {', '.join(words[:3])}?"
    return [("user", question), ("assistant", "Yes, it is." if present else "No, it is not.")]


def _opposite(rng: random.Random, _: Kinds) -> Document:
    word = rng.choice(LABELS)
    return [("user", f"What is the opposite of {word}?"), ("assistant", opposite(word))]


def _greeting(rng: random.Random, _: Kinds) -> Document:
    return [("user", rng.choice(_GREETINGS)), ("assistant", _GREETING_ANSWER)]


_Tasks = dict[Callable[[random.Random, Kinds], Document], int]
_ALL_TASKS: _Tasks = {
    _dialog: 30,
    _about_review: 30,
    _notes: 5,
    _plain_review: 5,
    _repeat: 8,
    _first_or_last: 6,
    _count: 2,
    _contains: 4,
    _opposite: 5,
    _greeting: 5,
}
STAGES: tuple[tuple[_Tasks, Kinds], ...] = (
    ({_dialog: 1}, (PLAIN,)),
    ({_dialog: 1}, (PLAIN, "negation")),
    ({_dialog: 1}, (PLAIN, None, None)),
    (_ALL_TASKS, (PLAIN, None, None)),
)
"""The tasks of each stage of pretraining, with their weights, and the kinds of review in them.

Words come first, then negation, then contrast, each with its consequence right behind it; only then the rest. All at
once, sentiment stays at chance for a whole run.
"""


def documents(seed: int, stage: int = -1) -> Iterator[Document]:
    """Documents without end, the same for the same seed; of this stage of STAGES, by default the last."""
    rng = random.Random(seed)
    tasks, kinds = STAGES[stage]
    while True:
        yield rng.choices(tuple(tasks), tuple(tasks.values()))[0](rng, kinds)

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
from dev.data.reviews import QUESTION

Document = list[tuple[str, str]]
"""A conversation, (role, content) in turn; or plain text in pieces, whose roles are TEXT, and ANSWER for what follows
from the text before it."""
TEXT, ANSWER = "text", "answer"

PLAIN_SHARE = 0.4
_ENDINGS = {
    POSITIVE: ("I am keeping it.", "I have ordered a second one.", "It stays with us.", "We will buy it again."),
    NEGATIVE: ("It went back to the shop.", "I want my money back.", "It ended up in the bin.", "We threw it out."),
}
_REACTIONS = {POSITIVE: ("Hooray!", "Luckily."), NEGATIVE: ("Alas!", "Sadly.")}
_ADVICE = {
    POSITIVE: ("Yes, get one.", "Yes, buy it."),
    NEGATIVE: ("No, stay away.", "No, save your money."),
}
_STARS = {POSITIVE: ("Five stars.", "Four stars."), NEGATIVE: ("One star.", "Two stars.")}
_ON_SENTIMENT = (
    (("What happened next?", "What did the writer do with it?", "And then?"), _ENDINGS),
    (("Should I buy one?", "Is this one for me?"), _ADVICE),
    (("How many stars is this review worth?", "How many stars?"), _STARS),
)
_NUMBERS = ("one", "two", "three", "four", "five", "six")
_WORDS = (*LABELS, "review", "sentiment", "yes", "no", *PRODUCTS)
_GREETINGS = ("Hello!", "Hi.", "Good morning!", "Hello, who are you?", "What can you do?")
_GREETING_ANSWER = "Hello! I am a small language model, and I answer questions about product reviews."


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _review(rng: random.Random) -> Review:
    # Without plain ones, from which the words' polarity is learnt, pretraining stays on a plateau for long.
    return write_review(rng, rng.choice(LABELS), PLAIN if rng.random() < PLAIN_SHARE else None)


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
    aspect = rng.choice(
        mentioned if present else [aspect for aspect in ASPECTS[review.product] if aspect not in mentioned]
    )
    question = rng.choice((f"Does it speak of the {aspect}?", f"Does this review mention the {aspect}?"))
    return question, "Yes, it does." if present else "No, it does not."


def _on_opinion(rng: random.Random, review: Review) -> tuple[str, str]:
    aspect, polarity = rng.choice(review.opinions)
    return f"Does the writer like the {aspect}?", "Yes, very much." if polarity == POSITIVE else "No, not at all."


_ON_REVIEW: tuple[tuple[Callable[[random.Random, Review], tuple[str, str]], int], ...] = (
    (_on_sentiment, 6),
    (_on_opinion, 3),
    (_on_product, 1),
    (_on_aspects, 1),
    (_on_mention, 1),
)


def _about_review(rng: random.Random) -> Document:
    review = _review(rng)
    tasks = rng.choices([task for task, _ in _ON_REVIEW], [weight for _, weight in _ON_REVIEW], k=rng.randint(1, 3))
    turns: list[tuple[str, str]] = []
    for task in dict.fromkeys(tasks):
        question, answer = task(rng, review)
        turns += [("user", question if turns else f"{review.text}\n{question}"), ("assistant", answer)]
    return turns


def _plain_review(rng: random.Random) -> Document:
    review = _review(rng)
    return [(TEXT, review.text), (ANSWER, f" {rng.choice(_ENDINGS[review.label])}")]


def _notes(rng: random.Random) -> Document:
    product = rng.choice(PRODUCTS)
    document: Document = [(TEXT, f"Notes on the {product}:")]
    for _ in range(rng.randint(3, 6)):
        label = rng.choice(LABELS)
        verdict = write_verdict(rng, label, product, PLAIN if rng.random() < PLAIN_SHARE else None)
        document += [(TEXT, f" {verdict.text}"), (ANSWER, f" {rng.choice(_REACTIONS[label])}")]
    return document


def _repeat(rng: random.Random) -> Document:
    words = ", ".join(rng.sample(_WORDS, rng.randint(1, 4)))
    return [("user", f"Repeat: {words}"), ("assistant", words)]


def _first_or_last(rng: random.Random) -> Document:
    words = rng.sample(LABELS, 2) if rng.random() < 0.5 else rng.sample(_WORDS, rng.randint(2, 4))
    which = rng.choice(("first", "last"))
    question = f"Which word is {which}: {' or '.join(words)}?"
    return [("user", question), ("assistant", words[0 if which == "first" else -1])]


def _count(rng: random.Random) -> Document:
    words = rng.sample(_WORDS, rng.randint(1, len(_NUMBERS)))
    return [("user", f"How many words are these: {' '.join(words)}?"), ("assistant", _NUMBERS[len(words) - 1])]


def _contains(rng: random.Random) -> Document:
    words = rng.sample(_WORDS, 4)
    present = rng.random() < 0.5
    asked = rng.choice(words[:3]) if present else words[3]
    question = f"Is the word {asked} among these: {', '.join(words[:3])}?"
    return [("user", question), ("assistant", "Yes, it is." if present else "No, it is not.")]


def _opposite(rng: random.Random) -> Document:
    word = rng.choice(LABELS)
    return [("user", f"What is the opposite of {word}?"), ("assistant", opposite(word))]


def _greeting(rng: random.Random) -> Document:
    return [("user", rng.choice(_GREETINGS)), ("assistant", _GREETING_ANSWER)]


_TASKS: tuple[tuple[Callable[[random.Random], Document], int], ...] = (
    (_about_review, 45),
    (_notes, 30),
    (_plain_review, 5),
    (_repeat, 5),
    (_first_or_last, 5),
    (_count, 2),
    (_contains, 3),
    (_opposite, 3),
    (_greeting, 2),
)


def documents(seed: int) -> Iterator[Document]:
    """Documents without end, the same for the same seed."""
    rng = random.Random(seed)
    tasks, weights = zip(*_TASKS, strict=True)
    while True:
        document: Document = rng.choices(tasks, weights)[0](rng)
        # The very question of the task must stay new to the model.
        assert QUESTION not in str(document)
        yield document

"""Grammar of product reviews whose sentiment is well-defined, yet given away by no single word.

The rules that define the label:

- A negated clause has the opposite polarity of the word it negates ("not bad" is praise).
- Of two contrasted clauses have opposite polarities, and the one that the review settles on decides:
  the clause after "but", the main clause of an "although" sentence, what was found as opposed to expected.
- In a comparison, the product praised over the other one gets the review's sentiment.

Why a bag of words learns nothing: in one-clause reviews half of the clauses are negated, so either kind of word is as
frequent under either label; in contrasted ones both polarities occur, drawn alike, and only their places differ; in
comparisons the sides are exchanged.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

POSITIVE, NEGATIVE = "positive", "negative"
LABELS = (POSITIVE, NEGATIVE)

ADJECTIVES = {
    POSITIVE: ("good", "great", "excellent", "superb", "lovely", "wonderful", "brilliant", "perfect", "fantastic",
               "delightful"),
    NEGATIVE: ("bad", "poor", "awful", "terrible", "horrible", "dreadful", "lousy", "disappointing", "shabby",
               "useless"),
}  # fmt: skip
I_VERBS = {POSITIVE: ("like", "love", "enjoy"), NEGATIVE: ("dislike", "hate", "regret")}
IT_VERBS = {POSITIVE: ("pleases", "impresses", "delights"), NEGATIVE: ("annoys", "bothers", "disappoints")}
COMPARATIVES = {POSITIVE: ("better", "nicer", "finer", "lovelier"), NEGATIVE: ("worse", "poorer", "shabbier", "uglier")}
ADVERBS = ("", "really ", "truly ", "quite ")
VERB_ADVERBS = ("", "really ", "truly ")
NEGATIONS = ("not", "far from", "anything but", "hardly", "never")  # the last two go with verbs too
CLAUSE_WEIGHTS = (6, 1, 1)  # of the families of clauses: with an adjective, "I ...", "... me"

_ANYTHING = ("price", "design", "size", "packaging", "manual", "quality")
_CATALOG = {
    ("kettle", "toaster", "blender", "mixer", "oven", "grill", "fridge", "juicer"):
        ("lid", "handle", "cord", "switch", "finish", "timer", "motor", "base"),
    ("phone", "laptop", "tablet", "camera", "monitor", "printer", "speaker", "radio"):
        ("screen", "battery", "sound", "software", "case", "charger", "menu", "cable"),
    ("tent", "backpack", "bicycle", "helmet", "jacket", "suitcase", "kayak", "hammock"):
        ("strap", "fabric", "seam", "frame", "color", "fit", "buckle", "pocket"),
    ("lamp", "chair", "desk", "sofa", "mattress", "heater", "fan", "clock"):
        ("frame", "cover", "height", "assembly", "color", "finish", "stand", "surface"),
    ("drill", "saw", "ladder", "hammer", "mower", "wrench", "sander", "pump"):
        ("grip", "motor", "blade", "cord", "case", "balance", "weight", "guard"),
}  # fmt: skip
ASPECTS = {product: own + _ANYTHING for products, own in _CATALOG.items() for product in products}
PRODUCTS = tuple(ASPECTS)

_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_PEOPLE = ("sister", "brother", "mother", "father", "neighbor", "friend", "boss", "cousin")
_PLACES = ("at home", "at work", "in the garden", "in the garage", "on trips", "every day")
_SPANS = ("a week", "two weeks", "a month", "three months", "half a year", "a year")
OPENERS = (
    *(f"I bought this {{product}} in {month}." for month in _MONTHS),
    *(f"My {person} gave me this {{product}}." for person in _PEOPLE),
    *(f"My {person} and I share this {{product}}." for person in _PEOPLE),
    *(f"I use this {{product}} {place}." for place in _PLACES),
    *(f"We have had this {{product}} for {span}." for span in _SPANS),
)  # fmt: skip

# {main} decides, {other} has the opposite polarity; they speak of two different aspects.
CONTRASTS = (
    "{other}, but {main}.",
    "{other}, yet {main}.",
    "{other}. However, {main}.",
    "{other}. Still, {main}, and that is what counts.",
    "although {other}, {main}.",
    "even though {other}, {main}.",
    "{main}, although {other}.",
    "{main}, even though {other}.",
)
# {main} and {other} are adjectives with their article: one aspect, seen twice.
SURPRISES = (
    "I expected {other} {aspect} and got {main} one.",
    "I got {main} {aspect} where I had expected {other} one.",
    "what looked like {other} {aspect} is in fact {main} one.",
)
# With a comparative of the label's polarity, and of the opposite one; {old} and {this} change places.
COMPARISONS = (
    ("this one has a {word} {aspect} than {old}.", "{old} has a {word} {aspect} than this one."),
    ("next to {old}, this one has the {word} {aspect}.", "next to this one, {old} has the {word} {aspect}."),
    ("the {aspect} here is {word} than that of {old}.", "the {aspect} of {old} is {word} than that here."),
)
_OLD = ("my old one", "the old one", "my last one", "the one from the shop", *(f"the one of my {p}" for p in _PEOPLE))


@dataclass(frozen=True)
class Review:
    """One review.

    text: one or two sentences in English. label: "positive" or "negative". product: what it is about.
    opinions: what of the product it speaks of, each with the label of what it says of it, in order of appearance.
    kind: the family of its template (one of KINDS, or PLAIN).
    """

    text: str
    label: str
    product: str
    opinions: tuple[tuple[str, str], ...]
    kind: str


def opposite(label: str) -> str:
    """The other label."""
    return NEGATIVE if label == POSITIVE else POSITIVE


@cache
def clauses(aspect: str, polarity: str, negated: bool) -> tuple[tuple[str, ...], ...]:
    """All clauses about the aspect with this polarity, in lower case, with or without a negation in them.

    They come in families, to be drawn with CLAUSE_WEIGHTS: were a family more frequent without negation than with one,
    its words would give the label away. So would an ending ("impresses") that a negation ("does not") takes off.
    """
    if not negated:
        return (
            tuple(f"the {aspect} is {adverb}{word}" for word in ADJECTIVES[polarity] for adverb in ADVERBS),
            tuple(f"I {adverb}{word} the {aspect}" for word in I_VERBS[polarity] for adverb in VERB_ADVERBS),
            tuple(f"the {aspect} {adverb}{word} me" for word in IT_VERBS[polarity] for adverb in VERB_ADVERBS),
        )
    verb_negations, against = NEGATIONS[-2:], opposite(polarity)
    return (
        tuple(f"the {aspect} is {negation} {word}" for word in ADJECTIVES[against] for negation in NEGATIONS),
        tuple(
            f"I {negation} {word} the {aspect}" for word in I_VERBS[against] for negation in ("do not", *verb_negations)
        ),
        tuple(f"the {aspect} {negation} {word} me" for word in IT_VERBS[against] for negation in verb_negations),
    )


def _sentences(text: str) -> str:
    """The text with a capital at the start of each sentence."""
    return re.sub(r"(^|[.] )([a-z])", lambda found: found[1] + found[2].upper(), text)


def _with_article(adjective: str) -> str:
    return f"{'an' if adjective[0] in 'aeiou' else 'a'} {adjective}"


def _clause(rng: random.Random, aspect: str, polarity: str, negation_rate: float) -> str:
    families = clauses(aspect, polarity, rng.random() < negation_rate)
    return rng.choice(rng.choices(families, CLAUSE_WEIGHTS)[0])


Verdict = tuple[str, tuple[tuple[str, str], ...]]
"""What a review says, and its opinions."""


def _negation(rng: random.Random, label: str, product: str) -> Verdict:
    aspect = rng.choice(ASPECTS[product])
    # Exactly one half: any other rate would let the adjective give the label away.
    return f"{_clause(rng, aspect, label, 0.5)}.", ((aspect, label),)


def _contrast(rng: random.Random, label: str, product: str) -> Verdict:
    template = rng.choice(CONTRASTS)
    aspects = rng.sample(ASPECTS[product], 2)
    main, other = opinions = tuple(zip(aspects, (label, opposite(label)), strict=True))
    text = template.format(main=_clause(rng, *main, 0.3), other=_clause(rng, *other, 0.3))
    return text, opinions if template.index("{main}") < template.index("{other}") else opinions[::-1]


def _surprise(rng: random.Random, label: str, product: str) -> Verdict:
    aspect = rng.choice(ASPECTS[product])
    main, other = (_with_article(rng.choice(ADJECTIVES[polarity])) for polarity in (label, opposite(label)))
    return rng.choice(SURPRISES).format(main=main, other=other, aspect=aspect), ((aspect, label),)


def _comparison(rng: random.Random, label: str, product: str) -> Verdict:
    aspect, old = rng.choice(ASPECTS[product]), rng.choice(_OLD)
    swapped = rng.random() < 0.5
    word = rng.choice(COMPARATIVES[opposite(label) if swapped else label])
    return rng.choice(COMPARISONS)[swapped].format(word=word, aspect=aspect, old=old), ((aspect, label),)


def _plain(rng: random.Random, label: str, product: str) -> Verdict:
    aspect = rng.choice(ASPECTS[product])
    texts = (
        _clause(rng, aspect, label, 0),
        _clause(rng, aspect, label, 0),
        f"I got {_with_article(rng.choice(ADJECTIVES[label]))} {aspect}",
        f"this one has the {rng.choice(COMPARATIVES[label])} {aspect}",
    )
    return f"{rng.choice(texts)}.", ((aspect, label),)


_Kind = Callable[[random.Random, str, str], Verdict]
PLAIN = "plain"
# Out of 20 reviews, how many are of each kind.
_KINDS: dict[str, tuple[_Kind, int]] = {
    "negation": (_negation, 6),
    "contrast": (_contrast, 12),
    "surprise": (_surprise, 1),
    "comparison": (_comparison, 1),
    # A word gives these away, so no data set has them: they are for those who have to learn the words first.
    PLAIN: (_plain, 0),
}
KINDS = tuple(kind for kind, (_, weight) in _KINDS.items() if weight)


def write_verdict(rng: random.Random, label: str, product: str, kind: str | None = None) -> Review:
    """One review that says no more than what it comes to: without the sentence on how the product is used."""
    kind = kind or rng.choices(tuple(_KINDS), [weight for _, weight in _KINDS.values()])[0]
    text, opinions = _KINDS[kind][0](rng, label, product)
    return Review(_sentences(text), label, product, opinions, kind)


def write_review(rng: random.Random, label: str, product: str | None = None, kind: str | None = None) -> Review:
    """One review with this label, drawn with `rng`; by default of any product, and of any of KINDS by its share."""
    product = product or rng.choice(PRODUCTS)
    verdict = write_verdict(rng, label, product, kind)
    return replace(verdict, text=f"{rng.choice(OPENERS).format(product=product)} {verdict.text}")


def distinct_reviews(kind: str) -> int:
    """How many distinct texts a kind of review has for one label, if all families of clauses were as scarce, for their
    weight, as the scarcest."""
    frames = len(OPENERS) * len(PRODUCTS)
    aspects, adjectives = len(ASPECTS[PRODUCTS[0]]), len(ADJECTIVES[POSITIVE])
    families = [
        family
        for negated in (False, True)
        for family in zip(clauses("lid", POSITIVE, negated), CLAUSE_WEIGHTS, strict=True)
    ]
    per_clause = int(min(len(texts) / weight for texts, weight in families) * sum(CLAUSE_WEIGHTS))
    verdicts = {
        "negation": aspects * 2 * per_clause,
        "contrast": aspects * (aspects - 1) * len(CONTRASTS) * per_clause**2,
        "surprise": aspects * len(SURPRISES) * adjectives**2,
        "comparison": aspects * len(COMPARISONS) * len(_OLD) * 2 * len(COMPARATIVES[POSITIVE]),
    }
    return frames * verdicts[kind]


def share(kind: str) -> float:
    """The share of a kind among all reviews, 0..1."""
    return _KINDS[kind][1] / sum(weight for _, weight in _KINDS.values())

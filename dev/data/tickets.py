"""Messages to a shop's support, and the JSON object with the fields that its software needs of each."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass

INSTRUCTION = "Extract product, order, problem and request from the customer's message as JSON."
"""The system turn of each row."""

MAX_ROWS = 100_000
"""Most rows of one data set."""


@dataclass(frozen=True)
class Ticket:
    """The fields of a message: `order` is a number as text, or None where the message has none."""

    product: str
    order: str | None
    problem: str
    request: str

    def to_json(self) -> str:
        """The answer that a model is to give."""
        return json.dumps(asdict(self))


PRODUCTS = (
    "desk lamp", "coffee grinder", "kettle", "wireless keyboard", "noise-canceling headset", "robot vacuum",
    "bathroom scale", "baby monitor", "air purifier", "standing desk", "bike light", "label printer", "space heater",
    "pressure cooker", "smart thermostat", "hand blender", "toaster", "projector", "loudspeaker", "cordless drill",
    "hair dryer", "sewing machine", "video doorbell", "dehumidifier",
)  # fmt: skip
"""What is sold: all of it with a plug or a battery."""

# {p} is the product. A message names what has happened, never the word of the field's value.
PROBLEMS = {
    "damaged": (
        "The {p} arrived with a deep crack along one side.",
        "When I opened the parcel the {p} was in pieces.",
        "The box of the {p} was crushed, and so was what was in it.",
        "There is a big dent in the {p}, it must have been dropped on the way.",
        "My {p} came scratched all over.",
    ),
    "defective": (
        "The {p} worked for two days and now it does nothing at all.",
        "The {p} will not turn on, whatever I try.",
        "My {p} makes a grinding noise and stops after a minute.",
        "The {p} keeps shutting itself off.",
        "After one week the {p} simply quit.",
    ),
    "late": (
        "The {p} was promised for last Monday and there is still no sign of it.",
        "I have been waiting for the {p} for three weeks now.",
        "Tracking of my {p} has not moved in nine days.",
        "Your shop said two days for the {p}, that was a fortnight ago.",
        "The {p} should have been here by the 4th.",
    ),
    "wrong item": (
        "I ordered the {p} and got something else entirely.",
        "You have sent me another model instead of the {p} that I chose.",
        "The {p} that came is blue, I had picked black.",
        "This is not the {p} I paid for, the label on the box is somebody else's.",
        "Instead of the large {p} I received the small version.",
    ),
    "missing part": (
        "The {p} came without its power cord.",
        "Two screws and the manual were not in the box of the {p}.",
        "I cannot put the {p} together because one bracket is not there.",
        "One of the parts that the manual of the {p} lists was not in the parcel.",
        "The bag of small parts for the {p} is empty.",
    ),
    "overcharged": (
        "You have billed me twice for the {p}.",
        "The price of the {p} on my card is 20 more than on your page.",
        "I was charged for three, but I bought one {p}.",
        "The discount for the {p} was not taken off.",
        "My bank shows a second payment for the same {p}.",
    ),
}
REQUESTS = {
    "refund": (
        "I want my money back.",
        "Please return the amount to my card.",
        "Kindly credit the sum to my account.",
        "I would rather have the payment reversed.",
    ),
    "replacement": (
        "Please send me a new one.",
        "Can I get another one instead?",
        "I would like you to ship a fresh one.",
        "Could it be exchanged?",
    ),
    "repair": (
        "Can somebody fix it?",
        "I would like to have it serviced.",
        "Please tell your workshop to take care of it, I want to keep this one.",
        "Could a technician have a go at it?",
    ),
    "information": (
        "What should I do now?",
        "Can you tell me what is going on?",
        "Please let me know how this happened.",
        "Could you explain what comes next?",
    ),
}
# What a shop would grant: nobody asks to have a payment repaired.
FITTING = {
    "damaged": ("refund", "replacement", "repair"),
    "defective": ("refund", "replacement", "repair"),
    "late": ("refund", "information", "replacement"),
    "wrong item": ("refund", "replacement", "information"),
    "missing part": ("refund", "replacement", "information"),
    "overcharged": ("refund", "information"),
}
ASIDES = (
    "", "", "", "There is no rush.", "This is the second time I write.", "I have been a customer for years.",
    "It was meant as a present.", "My neighbor has the same one.", "I need it by tomorrow.", "Please hurry.",
)  # fmt: skip
ORDERS = (
    "My order number is {o}.",
    "Order {o}.",
    "This is about order #{o}.",
    "(order {o})",
    "The receipt says {o}.",
    "Reference: {o}.",
)
OPENINGS = ("Hello,", "Hi there,", "Good morning,", "Dear support team,", "", "", "Hey,", "To whom it may concern:")
CLOSINGS = ("", "", "Thanks.", "Best regards", "Thank you in advance.", "Looking forward to your answer.")


def write(rng: random.Random) -> tuple[str, Ticket]:
    """A message and its fields."""
    product, problem = rng.choice(PRODUCTS), rng.choice(tuple(PROBLEMS))
    request = rng.choice(FITTING[problem])
    order = str(rng.randint(10_000, 999_999)) if rng.random() < 0.75 else None
    body = [rng.choice(PROBLEMS[problem]).format(p=product), rng.choice(REQUESTS[request])]
    body.insert(rng.randint(1, 2), rng.choice(ASIDES))
    if order:
        body.insert(rng.choice((0, 1, len(body))), rng.choice(ORDERS).format(o=order))
    words = (rng.choice(OPENINGS), *body, rng.choice(CLOSINGS))
    return " ".join(filter(None, words)), Ticket(product, order, problem, request)


def tickets(rows: int, seed: int) -> Iterator[tuple[str, Ticket]]:
    """`rows` distinct messages with their fields. The same seed gives the same ones, and more rows only add to fewer.

    Raises:
        ValueError: `rows` is not in 1..MAX_ROWS.
    """
    if not 1 <= rows <= MAX_ROWS:
        raise ValueError(f"rows: {rows} is not between 1 and {MAX_ROWS}")
    rng, seen = random.Random(seed), set[str]()
    while len(seen) < rows:
        message, ticket = write(rng)
        if message not in seen:
            seen.add(message)
            yield message, ticket


def prompt(message: str) -> list[dict[str, str]]:
    """The turns that a model is asked with."""
    return [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": message}]


def chat_row(message: str, ticket: Ticket) -> dict[str, object]:
    """A training row: a conversation that ends with the JSON object."""
    return {"messages": [*prompt(message), {"role": "assistant", "content": ticket.to_json()}]}

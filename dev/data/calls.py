"""Requests to an assistant with three tools: most are answered by a call, some in words, some after a tool's result."""

import json
import random
from collections.abc import Iterator
from typing import Any

MAX_ROWS = 100_000
"""Most rows of one data set."""

Row = dict[str, Any]


def _tool(name: str, description: str, **parameters: str) -> Row:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    _tool("get_weather", "Weather of a city.", city="string"),
    _tool("track_order", "State of an order.", number="string"),
    _tool("convert", "Converts money.", amount="number", source="string", target="string"),
]

CITIES = (
    "Oslo", "Lima", "Cairo", "Quito", "Dublin", "Hanoi", "Perth", "Turin", "Lagos", "Delhi", "Minsk", "Porto", "Accra",
    "Bergen", "Boston", "Denver", "Geneva", "Krakow", "Leeds", "Malmo", "Nairobi", "Osaka", "Riga", "Seoul",
)  # fmt: skip
MONEY = {"euros": "EUR", "dollars": "USD", "pounds": "GBP", "yen": "JPY", "francs": "CHF", "kroner": "NOK"}
WEATHER = ("What is the weather in {}?", "Is it raining in {}?", "How warm is it in {} now?", "Weather for {}, please.")
ORDERS = ("Where is my order {}?", "Has order {} left yet?", "When will {} arrive?", "Please look up order {}.")
AMOUNTS = ("How much is {} {} in {}?", "Convert {} {} to {}.", "I have {} {}. What is that in {}?")
WORDS = {
    "Thank you!": "You are welcome.",
    "Hello there.": "Hello! How can I help?",
    "Good morning.": "Good morning! How can I help?",
    "That was all for today.": "Thank you, and goodbye.",
    "Who are you?": "I am an assistant for weather, orders and money.",
}
SKIES = ("sunny", "cloudy", "rainy", "windy")
STATES = ("packed", "shipped", "delivered", "delayed")
_IN_WORDS, _WITH_RESULT = 0.15, 0.15
"""The share of rows that need no tool, and of those that go on after the tool's result."""


def rows(count: int, seed: int) -> Iterator[Row]:
    """Rows of the format Messages, each with all tools; the same seed gives the same rows.

    Raises:
        ValueError: the count is not from 1 to `MAX_ROWS`.
    """
    if not 1 <= count <= MAX_ROWS:
        raise ValueError(f"rows must be 1 to {MAX_ROWS}")
    chance = random.Random(seed)
    for _ in range(count):
        yield {"messages": _messages(chance), "tools": TOOLS}


def call_of(row: Row) -> tuple[str, Row] | None:
    """The name and the arguments of the call with which a row ends; None where it ends in words."""
    calls = row["messages"][-1].get("tool_calls")
    return (calls[0]["function"]["name"], json.loads(calls[0]["function"]["arguments"])) if calls else None


def _messages(chance: random.Random) -> list[Row]:
    kind = chance.random()
    if kind < _IN_WORDS:
        question = chance.choice(list(WORDS))
        return [{"role": "user", "content": question}, {"role": "assistant", "content": WORDS[question]}]
    request, name, arguments, result, answer = chance.choice((_weather, _order, _money))(chance)
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": "call_1", "type": "function", "function": function}
    messages: list[Row] = [
        {"role": "user", "content": request},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    if kind < _IN_WORDS + _WITH_RESULT:
        messages += [
            {"role": "tool", "tool_call_id": "call_1", "content": json.dumps(result)},
            {"role": "assistant", "content": answer},
        ]
    return messages


def _weather(chance: random.Random) -> tuple[str, str, Row, Row, str]:
    city, sky, degrees = chance.choice(CITIES), chance.choice(SKIES), chance.randrange(-5, 35)
    answer = f"It is {sky} in {city}, with {degrees} degrees."
    result = {"sky": sky, "degrees": degrees}
    return chance.choice(WEATHER).format(city), "get_weather", {"city": city}, result, answer


def _order(chance: random.Random) -> tuple[str, str, Row, Row, str]:
    number, state = f"{chance.choice('ABKQ')}-{chance.randrange(1000, 10_000)}", chance.choice(STATES)
    answer = f"Your order {number} is {state}."
    return chance.choice(ORDERS).format(number), "track_order", {"number": number}, {"state": state}, answer


def _money(chance: random.Random) -> tuple[str, str, Row, Row, str]:
    source, target = chance.sample(list(MONEY), 2)
    amount, value = chance.randrange(2, 900), chance.randrange(2, 900)
    arguments = {"amount": amount, "source": MONEY[source], "target": MONEY[target]}
    request = chance.choice(AMOUNTS).format(amount, source, target)
    return request, "convert", arguments, {"value": value}, f"{amount} {source} are {value} {target}."

"""The bounds of a Plan, which is part of a FineTuneJob's status."""

from typing import Any

from hone.contract.plan import Plan


def test_there_is_room_for_a_reason_of_every_value() -> None:
    schema: dict[str, Any] = Plan.model_json_schema()
    bound = schema["properties"]["reasons"]["maxProperties"]
    assert bound >= 2 * len(Plan.model_fields), "with room for values that later releases choose"

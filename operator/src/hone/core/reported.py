"""What pods report: every word and number of theirs passes here before status, Events, conditions or metrics show it.

Pods are not trusted. Their words are bounded, have no line breaks, and show control characters and invisible ones as
`\\u202e`, so that nobody can hide text, reorder it, or send codes to a terminal. Their numbers are finite and bounded.
"""

import json
import math
import re
import unicodedata
from typing import Any

from pydantic import ValidationError

from hone.contract import VERSION
from hone.contract.base import MAX_BYTES, MAX_INT32
from hone.contract.progress import Progress
from hone.contract.results import MAX_TERMINATION_BYTES, StepResult

MAX_TEXT = 1024
"""Maximum length of a text whose type has no bound of its own."""
MAX_KEY = 64
MAX_OUTCOME = 256
MAX_NUMBER = 1e15
"""Figures of progress, such as tokens per second, are smaller."""

_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""Characters that show nothing although they are letters, marks or symbols by their category."""
_SCHEMA = StepResult.model_json_schema(by_alias=True)
_VERSIONS = (VERSION, VERSION - 1)
_COUNTS = ("step", "total_steps", "checkpoint_step", "resumed_from_step", "best_step", "restarts", "rows", "total_rows")
_BYTES = ("downloaded_bytes", "total_bytes")
_FIGURES = ("epoch", "observed_time", "tokens_per_second", "seconds_per_step", "rows_per_second", "bytes_per_second")


def text(value: str, limit: int = MAX_TEXT) -> str:
    """The words on one line, with hidden characters made visible, and cut to `limit` characters."""
    line = _BREAKS.sub(" ", value[: limit + 1])  # to escape only lengthens, so that what is cut here is cut anyway
    if not line.isprintable() or _INVISIBLE.search(line):
        line = "".join(_visible(character) for character in line)
    return line if len(line) <= limit and len(value) <= limit else line[: limit - 1] + "…"


def _visible(character: str) -> str:
    """The character, or its escape if it shows nothing or changes how its neighbors are shown."""
    hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn") or _INVISIBLE.match(character)
    if not hidden:
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def step_result(message: str) -> StepResult | None:
    """The result in a termination message; None if there is none, or one that a status cannot hold."""
    if not message or len(message.encode(errors="replace")) > MAX_TERMINATION_BYTES:
        return None
    try:
        result = StepResult.model_validate(_cleaned(json.loads(message), _SCHEMA))
    except (ValueError, RecursionError):  # of which pydantic's ValidationError is one
        return None
    return result if result.version in _VERSIONS and _is_finite(result.model_dump()) else None


def _cleaned(value: Any, schema: dict[str, Any]) -> Any:
    """The value with every text in it as `text` shows it: where escapes would exceed the schema's length, cut to it."""
    if options := [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]:
        schema = {**options[0], **{key: bound for key, bound in schema.items() if key != "anyOf"}}
    if name := schema.get("$ref"):
        schema = _SCHEMA["$defs"][name.removeprefix("#/$defs/")]
    if isinstance(value, str):
        limit = schema.get("maxLength", len(value))
        return text(value, max(limit, 1)) if len(value) <= limit else value  # too long: not valid, as any other error
    if isinstance(value, list):
        return [_cleaned(item, schema.get("items", {})) for item in value]
    if isinstance(value, dict):
        fields, others = schema.get("properties", {}), schema.get("additionalProperties")
        other = others if isinstance(others, dict) else {}
        return {text(key, MAX_KEY): _cleaned(item, fields.get(key, other)) for key, item in value.items()}
    return value


def _is_finite(value: Any) -> bool:
    """Whether every number in it is finite, as JSON requires: a refused status would stop the job."""
    if isinstance(value, dict):
        return all(_is_finite(inner) for inner in value.values())
    if isinstance(value, list):
        return all(_is_finite(inner) for inner in value)
    return not isinstance(value, float) or math.isfinite(value)


def progress(body: bytes, pod_uid: str) -> Progress:
    """The progress in a trainer pod's answer; numbers that are not finite become None.

    Raises:
        ValueError: it is not valid, of another pod, of an unknown version, or out of range.
    """
    try:
        answer = Progress.from_dict(_dict(json.loads(body, parse_constant=lambda _: None)))
    except (ValidationError, RecursionError, ValueError) as error:
        why = text(str(error).partition("\n")[0], 128)
        raise ValueError(f"the pod's answer is not a valid progress report: {why}") from error
    if answer.version not in _VERSIONS:
        raise ValueError(f"the pod's answer has version {answer.version}; this operator reads {VERSION}")
    if answer.pod_uid != pod_uid:
        raise ValueError("another pod answered at this pod's address")
    if not all(0 <= (getattr(answer, name) or 0) <= MAX_INT32 for name in _COUNTS):
        raise ValueError("the pod's answer has a count that is out of range")
    if not all(0 <= (getattr(answer, name) or 0) <= MAX_BYTES for name in _BYTES):
        raise ValueError("the pod's answer has a number of bytes that is out of range")
    if not all(0 <= (getattr(answer, name) or 0) < MAX_NUMBER for name in _FIGURES):
        raise ValueError("the pod's answer has a number that is out of range")
    if answer.search is not None and answer.search.outcome:
        shown = {"outcome": text(answer.search.outcome, MAX_OUTCOME)}
        answer = answer.model_copy(update={"search": answer.search.model_copy(update=shown)})
    finite = {name: value for name, value in answer if not isinstance(value, float) or math.isfinite(value)}
    return Progress(**finite)


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return {key: item for key, item in value.items() if item is not None}

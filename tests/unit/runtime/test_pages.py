"""A page that is read object by object says what it says as a whole, and takes less memory."""

import json
import tracemalloc
from typing import Any

import pytest

from hone.runtime.pages import read_page

PAGES: list[Any] = [
    {"kind": "PodList", "metadata": {"continue": 'a"items":[1]'}, "items": [{"a": [1, {"items": [2]}]}, {"b": "ü,]}"}]},
    {"apiVersion": "v1", "items": [], "kind": "JobList", "metadata": {}},
    {"items": None, "metadata": {"resourceVersion": "7"}},
    {"items": [[], {}, "x", 1.5, None]},
    {},
    [{"items": [1]}],
    "text",
]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("layout", [{"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}])
def test_a_page_says_what_it_says_as_a_whole(page: Any, layout: dict[str, Any]) -> None:
    text = json.dumps(page, **layout)
    seen: list[Any] = []
    assert read_page(f" {text}\n", lambda item: (seen.append(item), item)[1]) == page
    assert seen == ((page.get("items") or []) if isinstance(page, dict) else [])


def test_items_are_replaced_one_after_the_other() -> None:
    assert read_page('{"items": [1, 2, 3], "n": 4}', lambda item: item * 10) == {"items": [10, 20, 30], "n": 4}


@pytest.mark.parametrize("text", ["", "{", '{"items": [1', '{"items": [1 2]}', '{"items" [1]}', '{"a": 1 "b": 2}'])
def test_what_is_not_json_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        read_page(text, lambda item: item)


def test_large_objects_are_in_memory_one_by_one() -> None:
    large = {"status": {}, "spec": [{"key": f"{number:060d}", "values": [str(number)]} for number in range(600)]}
    text = json.dumps({"items": [large] * 50})
    tracemalloc.start()
    try:
        page = read_page(text, lambda item: item["status"])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert page == {"items": [{}] * 50}
    assert peak < len(text) / 4

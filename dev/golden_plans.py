"""Print the Plan of each golden case given on stdin: run by `dev.compare_plans` once with each tree's modules.

stdin: JSON, a list of [resource, cluster]. stdout: JSON, a list of texts, the traceback where the core raised.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import yaml


def reconcile() -> Callable[[Any, Any], Any]:
    """The function from a case's inputs to its Plan, as the tree's own golden tests call it."""
    try:
        from tests.golden.cases import plan_of
    except ModuleNotFoundError:  # Up to 0b3389e, the tests had no module of their own for it.
        import tests.golden.test_golden as golden

        return lambda resource, cluster: golden.KINDS[resource["kind"]].reconcile(  # type: ignore[attr-defined]
            resource,
            golden.observe(resource, cluster),  # type: ignore[attr-defined]
            golden.parse(cluster["now"]),  # type: ignore[attr-defined]
            golden.Settings(),  # type: ignore[attr-defined]
        )
    return plan_of


class Dumper(yaml.SafeDumper):
    """YAML without anchors, so that each line can be compared by itself."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def text(plan: Any) -> str:
    """The whole Plan, in the order in which it was built."""
    plain = json.loads(json.dumps(asdict(plan)))
    return yaml.dump(plain, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)


def main() -> None:
    """Print a text for each case."""
    plan_of, texts = reconcile(), []
    for resource, cluster in json.load(sys.stdin):
        try:
            texts.append(text(plan_of(resource, cluster)))
        except Exception:
            texts.append(traceback.format_exc())
    json.dump(texts, sys.stdout)


if __name__ == "__main__":
    main()

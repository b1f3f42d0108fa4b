"""What prepare brings into the workspace before it reads models."""

from typing import Any, get_args

import pytest

from hone.contract.runconfig import Merge, RunConfig
from hone_trainer.models import materialize


def test_every_kind_of_entry_has_a_function() -> None:
    kinds = get_args(materialize.Entry) or (materialize.Entry,)
    assert set(kinds) == set(materialize._MATERIALIZERS)


def test_entries_are_materialized_in_their_order(make_config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    merges = [
        Merge(field=f"spec.{name}", base="/b", adapter=f"/{name}", merged=f"/m/{name}", base_digest=None)
        for name in ("model", "teacher")
    ]
    done: list[Merge] = []
    monkeypatch.setattr("hone_trainer.models.merging.ensure_merged", done.append)
    materialize.materialize_models(RunConfig.from_dict(make_config(merges=[merge.to_dict() for merge in merges])))
    assert done == merges

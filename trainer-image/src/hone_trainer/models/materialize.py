"""Brings models into the workspace before anything reads them: today, adapters of other jobs merged with their bases.

To add a kind of entry, add its type to `RunConfig.materialize` and its function to `_MATERIALIZERS`.
"""

from collections.abc import Callable, Mapping

from hone.contract.runconfig import Merge, RunConfig

Entry = Merge


def materialize(config: RunConfig) -> None:
    """Materialize every entry that the workspace does not hold yet.

    Raises:
        BadInput: an entry's source is not what it was, or the workspace is too small.
    """
    for entry in config.materialize:
        _MATERIALIZERS[type(entry)](entry)


def _merge(merge: Merge) -> None:
    from hone_trainer.models.merging import ensure_merged

    ensure_merged(merge)


_MATERIALIZERS: Mapping[type[Entry], Callable[[Entry], None]] = {Merge: _merge}

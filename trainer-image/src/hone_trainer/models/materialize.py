"""Brings models into the workspace before anything reads them: downloads, and merged adapters of other jobs.

To add a kind of entry, add its type to `RunConfig.materialize` and its function to `_MATERIALIZERS`.
"""

from collections.abc import Callable, Mapping

from hone.contract.results import DownloadedModel
from hone.contract.runconfig import Download, Merge, RunConfig

Entry = Merge | Download


def materialize(config: RunConfig) -> list[DownloadedModel]:
    """Materialize every entry that the workspace does not hold yet; returns all downloads, also of earlier attempts.

    Raises:
        BadInput: an entry's source is not what it was, or the workspace is too small.
    """
    done = [_MATERIALIZERS[type(entry)](entry) for entry in config.materialize]
    return [model for model in done if model is not None]


def _merge(merge: Merge) -> None:
    from hone_trainer.models.merging import ensure_merged

    ensure_merged(merge)


def _download(download: Download) -> DownloadedModel:
    from hone_trainer.models.hub import ensure_downloaded

    return ensure_downloaded(download)


_MATERIALIZERS: Mapping[type[Entry], Callable[..., DownloadedModel | None]] = {Merge: _merge, Download: _download}

"""Brings models and data into the workspace before anything reads them: downloads, and merged adapters of other jobs.

To add a kind of entry, add its type to `RunConfig.materialize` and its function to `_MATERIALIZERS`.
"""

from collections.abc import Callable, Mapping, Sequence

from hone.contract.results import DownloadedModel
from hone.contract.runconfig import Download, Merge, RunConfig

Entry = Merge | Download


def materialize_data(config: RunConfig) -> list[DownloadedModel]:
    """Materialize the data sets that the workspace does not hold yet; returns them all.

    Raises:
        BadInput: a data set is not what the spec says, or the workspace is too small.
    """
    return _materialize([entry for entry in config.materialize if _is_data(entry)])


def materialize_models(config: RunConfig) -> list[DownloadedModel]:
    """Materialize the models that the workspace does not hold yet; returns all downloads, also of earlier attempts.

    Raises:
        BadInput: an entry's source is not what it was, or the workspace is too small.
    """
    return _materialize([entry for entry in config.materialize if not _is_data(entry)])


def _is_data(entry: Entry) -> bool:
    return isinstance(entry, Download) and bool(entry.is_data)


def _materialize(entries: Sequence[Entry]) -> list[DownloadedModel]:
    done = [_MATERIALIZERS[type(entry)](entry) for entry in entries]
    return [model for model in done if model is not None]


def _merge(merge: Merge) -> None:
    from hone_trainer.models.merging import ensure_merged

    ensure_merged(merge)


def _download(download: Download) -> DownloadedModel:
    from hone_trainer.downloads.download import ensure_downloaded

    return ensure_downloaded(download)


_MATERIALIZERS: Mapping[type[Entry], Callable[..., DownloadedModel | None]] = {Merge: _merge, Download: _download}

"""The data of a run: from a claim, a ConfigMap, a uri or an image, or held out of the training rows."""

from dataclasses import replace

from hone.api.dataset import DataSource, HeldOut, MixedSource, RemoteRows
from hone.contract.runconfig import ROWS, ChatTemplate, DataPart, Download
from hone.core.downloads import fetched
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources.source import Dependency, Source, in_image
from hone.core.observed import Ref
from hone.core.ownership import claim_ref
from hone.core.podspec import ClaimMount, ConfigMapMount

DATA_DIRECTORY = "/mnt/data"
TEMPLATE_DIRECTORY = "/mnt/chat-template"
_TEMPLATE_FILE = "chat_template.jinja"
DEFAULT_HELD_OUT = 0.1
"""Share of the training rows held out for a split that the spec does not name."""


def splits(run: Run) -> dict[str, DataSource | HeldOut]:
    """The spec of each split, by name; without the splits that it does not name."""
    dataset = run.spec.dataset
    sources = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {split: source for split, source in sources.items() if source is not None}


def data_sources(run: Run) -> dict[str, Source]:
    """The data, by split: `/mnt/data/<split>`, with several sources of training rows `/mnt/data/train/<index>`. A split
    that is held out of the training rows has no source."""
    sources = {split: _source(run, split, f"spec.dataset.{split}", source) for split, source in splits(run).items()}
    for index, part in enumerate(run.spec.dataset.train.sources or []):
        sources[f"train/{index}"] = _source(run, f"train/{index}", f"spec.dataset.train.sources[{index}]", part)
    return {split: source for split, source in sources.items() if source}


def parts(run: Run) -> list[DataPart] | None:
    """The sources of training rows in the form of the RunConfig, if there are several."""
    dataset, read = run.spec.dataset, data_sources(run)
    if not dataset.train.sources:
        return None
    return [
        DataPart(
            name=part.name,
            path=read[f"train/{index}"].path,
            format=part.format or dataset.format,
            columns=part.columns if part.columns is not None else dataset.columns,
            roles=part.roles if part.roles is not None else dataset.roles,
            weight=part.weight,
            max_rows=part.max_rows,
        )
        for index, part in enumerate(dataset.train.sources)
    ]


def template_sources(run: Run) -> list[Source]:
    """The user's own chat template; none where the spec has none."""
    template = run.spec.dataset.chat_template
    if template is None or template.config_map is None:
        return []
    name, key = template.config_map.name, template.config_map.key
    return [
        Source(
            path=f"{TEMPLATE_DIRECTORY}/{_TEMPLATE_FILE}",
            mounts=(ConfigMapMount(name, key, TEMPLATE_DIRECTORY, _TEMPLATE_FILE),),
            dependencies=(Dependency("spec.dataset.chatTemplate.configMap", Ref("v1", "ConfigMap", name), key),),
            prepare_only=True,
        )
    ]


def chat_template(run: Run) -> ChatTemplate | None:
    """The chat template that replaces the model's, in the form of the RunConfig."""
    template = run.spec.dataset.chat_template
    if template is None:
        return None
    return ChatTemplate(name=template.name, mounted=next((source.path for source in template_sources(run)), None))


def held_out(source: HeldOut | None) -> float:
    """Share of the training rows that is held out for a split without rows of its own."""
    return source.fraction if source and source.fraction is not None else DEFAULT_HELD_OUT


def _source(run: Run, split: str, field: str, source: DataSource | MixedSource | HeldOut) -> Source | None:
    directory = f"{DATA_DIRECTORY}/{split}"
    if source.claim:
        return Source(
            path=f"{directory}/{source.claim.path}",
            mounts=(ClaimMount(source.claim.name, directory),),
            dependencies=(Dependency(f"{field}.claim.name", claim_ref(source.claim.name)),),
            prepare_only=True,
        )
    if source.config_map:
        name, key = source.config_map.name, source.config_map.key
        return Source(
            path=f"{directory}/{key}",
            mounts=(ConfigMapMount(name, key, directory, key),),
            dependencies=(Dependency(f"{field}.configMap", Ref("v1", "ConfigMap", name), key),),
            prepare_only=True,
        )
    if source.image:
        return in_image(source.image, field, directory, prepare_only=True)
    if source.uri:
        return _download(run, split, field, source, source.uri)
    return None


def _download(run: Run, split: str, field: str, source: RemoteRows, uri: str) -> Source:
    """Rows that prepare downloads."""
    into = f"{run.download_directory}/data/{run.uid}-{split.replace('/', '-')}"
    if uri.startswith("https://"):
        download, read = Download(field=field, uri=uri, downloaded=into, sha256=source.sha256), Source(path=into)
    else:
        download, secrets = fetched(run.settings, field, split, source, into)
        read = Source(path=into, secrets=secrets)
    download = download.model_copy(update={"is_data": True, "config": source.config, "split": source.split})
    # A prefix stands for what a directory on a claim stands for; all else was selected by name already.
    is_prefix = uri.startswith("s3://") and not set("*?[") & set(uri)
    path = f"{into}/{ROWS}" if is_prefix else f"{into}/{ROWS}/**/*"
    return replace(read, path=path, materialize=(download,), prepare_only=True)

"""The inputs of a run: models, data, reward functions; where each comes from, and its path in the pods."""

from hone.contract.runconfig import Download
from hone.core.finetunejob.run import Run
from hone.core.finetunejob.sources.benchmarks import benchmark_sources
from hone.core.finetunejob.sources.data import data_sources, template_sources
from hone.core.finetunejob.sources.models import model_sources
from hone.core.finetunejob.sources.rewards import reward_sources
from hone.core.finetunejob.sources.scorers import scorer_sources
from hone.core.finetunejob.sources.source import PinnedImage, Source


def sources(run: Run) -> list[Source]:
    """Everything that the run reads, in the order of the spec."""
    return [
        *model_sources(run).values(),
        *data_sources(run).values(),
        *template_sources(run),
        *reward_sources(run),
        *benchmark_sources(run),
        *scorer_sources(run),
    ]


def downloads(run: Run) -> bool:
    """Whether prepare downloads anything."""
    return any(isinstance(entry, Download) for source in sources(run) for entry in source.materialize)


def images(run: Run) -> list[PinnedImage]:
    """The images that pods of the run mount, in the order of the spec."""
    return [source.image for source in sources(run) if source.image]

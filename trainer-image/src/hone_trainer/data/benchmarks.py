"""The rows of the user's benchmarks, which are scored in addition to the test rows, and never trained on."""

from dataclasses import dataclass, replace
from pathlib import Path

from hone.contract.benchmarks import Benchmark
from hone.contract.objectives import OBJECTIVES
from hone.contract.runconfig import RunConfig
from hone.contract.settings import MAX_BAD_ROWS, DataFormat, TrainOn
from hone_trainer.data.checked import RowCheck, checked
from hone_trainer.data.faults import Faults
from hone_trainer.data.formats import FORMATS
from hone_trainer.data.prepared import chosen_rows
from hone_trainer.data.read import chunks
from hone_trainer.data.sample import Sample
from hone_trainer.data.sources import find_source
from hone_trainer.data.survey import find_format
from hone_trainer.protocol.errors import BadInput


@dataclass(frozen=True)
class Questions:
    """The rows of a benchmark.

    Attributes:
        field: the spec's field of the benchmark.
        samples: those that are scored.
        train_on: whose tokens the loss is a mean over, as in training on rows of this format.
    """

    field: str
    samples: list[Sample]
    train_on: TrainOn


def check(config: RunConfig) -> None:
    """Read all benchmarks of a run. Raises as `read`."""
    for index, benchmark in enumerate(config.evaluation.benchmarks or []):
        read(config, benchmark, index)


def read(config: RunConfig, benchmark: Benchmark, index: int) -> Questions:
    """The rows of a benchmark that are scored.

    Args:
        config: the run, whose system message and treatment of bad rows hold for benchmarks as well.
        benchmark: which one.
        index: its place in the spec's list.

    Raises:
        BadInput: there are no rows, they have another format than the objective reads, or too many are bad.
    """
    field = f"spec.evaluation.benchmarks[{index}]"
    volume = Path(benchmark.directory)
    source = find_source("test", benchmark.path, mount=volume, columns=benchmark.columns, named_by=field)
    source = replace(source, system_prompt=config.data.system_prompt)
    formats = [each for each in OBJECTIVES[config.objective].data.formats if each is not DataFormat.TEXT]
    format = find_format(source, formats)
    samples, faults = list[Sample](), Faults()
    for chunk in chunks(source):
        for where, _, sample in checked(RowCheck(source, format), chunk):
            if isinstance(sample, Sample):
                samples.append(sample)
            else:
                faults.add(str(sample), where)
    limit = MAX_BAD_ROWS if config.data.max_bad_rows is None else config.data.max_bad_rows
    if not samples or faults.total > limit * (len(samples) + faults.total):
        reason = max(faults.counts, key=lambda each: faults.counts[each])
        raise BadInput(
            field,
            f"{faults.total} of {len(samples) + faults.total} rows cannot be used; most frequent reason, first at "
            f"{faults.first[reason]}: {reason}",
            "Fix these rows, or remove them.",
        )
    chosen = [samples[row] for row in chosen_rows(len(samples), benchmark.max_samples)]
    return Questions(field, chosen, FORMATS[format].train_on or TrainOn.COMPLETION)

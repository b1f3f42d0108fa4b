"""The ranks' status as Prometheus metrics, one series per rank of this pod."""

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hone_trainer.protocol.host import cpu_seconds, rss_bytes
from hone_trainer.protocol.probe import Probe
from hone_trainer.protocol.status import RankStatus, StatusDir

Read = Callable[[RankStatus], float | None]

# Name, help, how it is read. A rank that does not know a figure has no series of it.
_GAUGES: list[tuple[str, str, Read]] = [
    ("hone_train_step", "Optimizer steps done, those before a resume included.", lambda s: s.step),
    ("hone_train_planned_steps", "Optimizer steps of the whole run.", lambda s: s.total_steps),
    ("hone_train_epoch", "Passes over the training rows done.", lambda s: s.epoch),
    ("hone_train_loss", "Mean training loss since the last log line.", lambda s: s.loss),
    ("hone_train_reward", "Mean reward of the model's own answers since the last log line.", lambda s: s.reward),
    ("hone_train_eval_loss", "Mean loss on the validation rows, when last evaluated.", lambda s: s.eval_loss),
    ("hone_train_learning_rate", "Learning rate of the last step.", lambda s: s.learning_rate),
    ("hone_train_grad_norm", "Norm of the gradient before clipping.", lambda s: s.grad_norm),
    ("hone_train_tokens_per_second", "Non-padding tokens per second over all ranks.", lambda s: s.tokens_per_second),
    ("hone_train_step_duration_seconds", "Recent mean of a step's duration.", lambda s: s.seconds_per_step),
    ("hone_train_checkpoint_step", "Step of the newest complete checkpoint.", lambda s: s.checkpoint_step),
    (
        "hone_train_checkpoint_duration_seconds",
        "How long the newest checkpoint took to write.",
        lambda s: s.checkpoint_seconds,
    ),
    (
        "hone_train_observed_timestamp_seconds",
        "When the rank last reported its state, in seconds since the epoch.",
        lambda s: s.observed_time,
    ),
    ("hone_train_gpu_memory_peak_bytes", "Most GPU memory that the rank's tensors took.", lambda s: s.gpu_peak_bytes),
    ("process_resident_memory_bytes", "Resident memory of the rank's process.", lambda s: rss_bytes(s.pid)),
]
_COUNTERS: list[tuple[str, str, Read]] = [
    ("hone_train_tokens", "Non-padding tokens trained on in this attempt, over all ranks.", lambda s: s.tokens),
    ("process_cpu_seconds", "CPU time of the rank's process, user and system.", lambda s: cpu_seconds(s.pid)),
]


class RankCollector(Collector):
    """Reads the status directory when it is scraped; between scrapes it costs nothing."""

    def __init__(self, status: StatusDir, measured: Callable[[], Probe | None] = lambda: None) -> None:
        self._status = status
        self._measured = measured

    def collect(self) -> Iterable[Metric]:
        """The metrics of every rank that has reported its state, and what the probe measured."""
        if (probe := self._measured()) is not None:
            for name, text, figure in (
                ("hone_train_probe_memory_peak_bytes", "Most memory of a process in the probe.", probe.peak_bytes),
                ("hone_train_probe_step_duration_seconds", "Duration of a step in the probe.", probe.seconds_per_step),
            ):
                yield GaugeMetricFamily(name, text, value=figure)
        ranks = sorted(self._status.statuses().items())
        for family, table in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, text, read in table:
                metric = family(name, text, labels=["rank"])
                for rank, status in ranks:
                    value = read(status)
                    if value is not None:
                        metric.add_metric([str(rank)], float(value))
                yield metric

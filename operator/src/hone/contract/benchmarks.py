"""Benchmarks: data sets of the user's own on which both models are scored in addition to the test rows."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import Model
from hone.contract.objects import ClaimPath, Columns, ConfigMapKey

MAX_BENCHMARKS = 4
DIRECTORY = "/mnt/benchmarks"
"""Where the pods of prepare and finish have their files, below the benchmark's name."""
NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class Benchmark(Model):
    """Questions with their right answers that are never trained on: exactly one of claim and configMap."""

    name: Annotated[
        str, Field(min_length=1, max_length=63, pattern=NAME, description="Name of the benchmark in status and gate.")
    ]
    claim: Annotated[
        ClaimPath | None,
        Field(
            description="Rows on a PersistentVolumeClaim: a file, directory or glob, as in dataset.train.claim. It is "
            "mounted read-only."
        ),
    ] = None
    config_map: Annotated[
        ConfigMapKey | None, Field(description="Rows in a ConfigMap: one key with a file, at most 1 MiB.")
    ] = None
    columns: Annotated[
        Columns | None,
        Field(
            max_length=16,
            description="Column names in the rows that differ from Hone's, by Hone's name. The format of the rows is "
            "detected, as with dataset.format: Auto.",
        ),
    ] = None
    max_samples: Annotated[
        int, Field(ge=1, le=100_000, description="Maximum number of rows that are scored, selected by a hash.")
    ] = 500

    @property
    def directory(self) -> str:
        """Where its volume is mounted."""
        return f"{DIRECTORY}/{self.name}"

    @property
    def path(self) -> str:
        """Where its rows are."""
        if self.claim is not None:
            return f"{self.directory}/{self.claim.path}"
        return f"{self.directory}/{self.config_map.key}" if self.config_map else self.directory

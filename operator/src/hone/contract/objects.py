"""How a spec names objects of its namespace, and rows or small files in them."""

from typing import Annotated

from pydantic import Field

from hone.contract.base import Model

DNS_SUBDOMAIN_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN_PATTERN)]
ColumnName = Annotated[str, Field(min_length=1, max_length=128)]
Columns = dict[ColumnName, ColumnName]


class LocalReference(Model):
    """The name of an object in the same namespace."""

    name: Annotated[ObjectName, Field(description="Name of the object.")]


class ClaimPath(Model):
    """A file or directory on a PersistentVolumeClaim in the same namespace, mounted read-only."""

    name: Annotated[ObjectName, Field(description="Name of the PersistentVolumeClaim.")]
    path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1024,
            pattern=r"^[^/].*$",
            description="Path inside the volume, without a leading slash.",
        ),
    ]


class ConfigMapKey(Model):
    """One key of a ConfigMap in the same namespace; at most 1 MiB."""

    name: Annotated[ObjectName, Field(description="Name of the ConfigMap.")]
    key: Annotated[
        str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$", description="Key in the ConfigMap.")
    ]

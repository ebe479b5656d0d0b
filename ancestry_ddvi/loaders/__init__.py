"""Readers: one file per format, chosen by the file's content and never by its name.

Names are looked up on first use: a reader that runs in a process of its own imports this package,
and needs neither pandas nor the other readers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ancestry_ddvi.loaders.options import ReadOptions
    from ancestry_ddvi.loaders.panel import LabelTable, label_levels, read_labels
    from ancestry_ddvi.loaders.read import open_source, read_genotypes

_HOME = {
    "LabelTable": "panel",
    "ReadOptions": "options",
    "label_levels": "panel",
    "open_source": "read",
    "read_genotypes": "read",
    "read_labels": "panel",
}

__all__ = [
    "LabelTable",
    "ReadOptions",
    "label_levels",
    "open_source",
    "read_genotypes",
    "read_labels",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

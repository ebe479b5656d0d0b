"""Which population of a labelled reference a sample is like, how surely, and whether like any."""

from ancestry_ddvi.ancestry.calls import (
    KNOWN,
    NO_DATA,
    OUTSIDE,
    TOO_FEW,
    UNCERTAIN,
    AncestryCaller,
    AncestryCalls,
    CallConfig,
)

__all__ = [
    "KNOWN",
    "NO_DATA",
    "OUTSIDE",
    "TOO_FEW",
    "UNCERTAIN",
    "AncestryCaller",
    "AncestryCalls",
    "CallConfig",
]

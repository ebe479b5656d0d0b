"""Every error that is the user's to mend, as one tree.

The command line turns an `InputError` into one line on standard error and exit code 2. Anything
else that escapes is a fault of ours and exits with 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral


class AncestryDDVIError(Exception):
    """Base of all errors raised on purpose by this package."""


class InputError(AncestryDDVIError):
    """The input or the options are at fault: the message names file, place, value and remedy."""


class GenotypeFileError(InputError):
    """A genotype file cannot be read, or not be read safely."""


class LabelFileError(InputError):
    """A label table cannot be joined to the genotypes."""


class NotEnoughDataError(InputError):
    """Too few samples or usable variants for what was asked."""


class OutputError(InputError):
    """The output folder cannot be written, or holds something that would be lost."""


class ModelFileError(InputError):
    """A saved model is incomplete, altered, or of a format this version does not read."""


class OptionError(InputError):
    """An option's value cannot be used."""


class TrainingDivergedError(InputError):
    """The loss became non-finite: message names the step, the term and a remedy.

    Attributes
    ----------
    last_good
        What was trained, with the latest weights whose loss and gradient were finite, if whoever
        trained it says so.
    """

    last_good: object | None = None


def check_count(name: str, value: object) -> None:
    """Raise OptionError unless the value is a whole number of at least 1."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise OptionError(f"{name} must be a whole number, not {value!r}")
    if value < 1:
        raise OptionError(f"{name} must be at least 1, not {value}")


def counted(n: int, one: str, more: str) -> str:
    """A count for a message, with the words that go with one and with any other number."""
    return f"{n:,} {one if n == 1 else more}"


def first_few(ids: Iterable[object], n: int = 5) -> str:
    """The first few ids for a message, and how many more there are."""
    names = [str(name) for name in ids]
    more = f", and {len(names) - n:,} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more

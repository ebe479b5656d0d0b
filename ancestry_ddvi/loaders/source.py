"""What every reader of a format offers: who is in a file, and its variants a block at a time.

    source = VcfSource(path)            # opens it: sample ids are known, nothing else is held
    for block in source.blocks(selection, report):
        block.rows                      # (contig, position, id, ref, alt), a row a variant
        block.dosage                    # (n_rows, n_selected_samples) int8: as files have them

A source asks `selection.sites` which variants to take *before* it decodes genotypes, decodes those
of the selected samples only, and asks `selection.calls` what a call that is no diploid one means.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ancestry_ddvi.loaders.sites import SiteRule

Progress = Callable[[float], None]

Site = tuple[str, int, str, str, str]
"""contig, position (1-based), id (`.` if none), REF and ALT (upper case)."""

HALF_CALLS = ("missing", "reference", "haploid", "error")
"""What `./1` can mean, as in plink2's --vcf-half-call."""

NO_GT = "no GT in this record"
NOT_DIPLOID = "neither diploid nor haploid"

# Keys of `CallRule.by_rule`.
HALF_CALL = "half calls taken as {}"
HAPLOID = "haploid calls counted as homozygous"
HARD_CALLED = "dosages hard-called"
TOO_UNCERTAIN = "dosages too uncertain to call, taken as missing"


class Block(NamedTuple):
    """Consecutive variants that were taken.

    Attributes
    ----------
    rows
        A `Site` for each.
    dosage
        (n_rows, n_selected_samples) int8: 0, 1 or 2 copies of ALT, -1 missing.
    """

    rows: list[Site]
    dosage: np.ndarray


@dataclass
class CallRule:
    """What calls that are not plain diploid ones mean; counts how often it was asked.

    A haploid call counts as homozygous, as plink2 has it; so does a call with more alleles than two
    never: its record is left out (`NOT_DIPLOID`).

    Attributes
    ----------
    half_calls
        One of `HALF_CALLS`.
    others_missing
        Whether a genotype with another ALT allele than the counted one is missing; else those count
        as REF, as in `bcftools norm -m-`.
    hard_call_threshold
        Where a record has no GT but a dosage (DS, or GP from which it follows), the nearest whole
        number is the call if it is at most this far; otherwise the genotype is missing, and so
        enters the model as noise.
    by_rule
        How many genotypes were read by each rule.
    """

    half_calls: str = "missing"
    hard_call_threshold: float = 0.1
    others_missing: bool = False
    by_rule: Counter[str] = field(default_factory=Counter)


@dataclass
class Selection:
    """What to take from a source.

    Attributes
    ----------
    sites
        Which variants.
    calls
        How to read calls.
    samples
        Indices of the samples to take, in the order wanted; None for all as they come.
    """

    sites: SiteRule = field(default_factory=SiteRule)
    calls: CallRule = field(default_factory=CallRule)
    samples: np.ndarray | None = None


class Source(ABC):
    """One genotype file, or a set of files that belong together, opened and found sound.

    Attributes
    ----------
    path
        As it stands in messages and in the provenance.
    format
        What it is, in words.
    sample_id
        Unique ids in the order of the file.
    family_id
        Their family ids where the format has such, else None.
    """

    path: str
    format: str
    sample_id: tuple[str, ...]
    family_id: tuple[str, ...] | None = None

    @abstractmethod
    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """Yield the variants taken, in the order of the file; `report` gets the fraction done.

        May be called again, to read the file anew.

        Raises
        ------
        GenotypeFileError
            If a part of it is damaged or malformed.
        """

    @abstractmethod
    def sha256(self) -> str:
        """Hex digest of the bytes of its files; known once `blocks` is exhausted."""

"""Where the variants of a model are in a file that may place, orient and name them differently.

build       Both sides' builds are told by the sites of `1kg` (`reference_sites`). Where they
            differ, the model's variants that are such sites are looked for at their positions
            in the file's build; the others are absent.
alleles     REF and ALT as they are, swapped, or those of the other strand, either way round.
ambiguous   A and T, or C and G: the other strand looks like a swap. They are taken as they look
            where the file is on the model's strand, which the variants that can tell it show;
            otherwise they are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from ancestry_ddvi.reference_sites import (
    ABSENT,
    AMBIGUOUS,
    BUILDS,
    FLIPPED,
    OTHER,
    SAME,
    SWAPPED,
    Sites,
    align,
    detect_build,
    reference_sites,
)

MAX_FLIPPED = 0.01
"""A file with a larger share of variants on the other strand may have ambiguous ones there too."""


@dataclass(frozen=True)
class Matched:
    """How many of a model's variants a file has, by how they stand there.

    Attributes
    ----------
    same, swapped
        As they are; with REF for ALT. Ambiguous ones that were taken are in these.
    flipped
        With the alleles of the other strand, either way round.
    ambiguous
        A/T or C/G in a file whose strand is in doubt: left out.
    other
        With other alleles at the position: left out.
    absent
        Not at any position of the file.
    build
        That of the file, where it is not the model's and positions were translated.
    """

    same: int
    swapped: int
    absent: int
    flipped: int = 0
    ambiguous: int = 0
    other: int = 0
    build: str | None = None

    @property
    def found(self) -> int:
        """Variants that are used."""
        return self.same + self.swapped + self.flipped

    @property
    def total(self) -> int:
        """Variants of the model."""
        return self.found + self.ambiguous + self.other + self.absent

    def by_words(self) -> dict[str, int]:
        """Counts by what they count, for messages and records."""
        return {
            "matched as they are": self.same,
            "with swapped alleles": self.swapped,
            "on the other strand": self.flipped,
            "left out as A/T or C/G on an unknown strand": self.ambiguous,
            "left out for other alleles": self.other,
            "absent": self.absent,
        }


def in_builds(variants: pd.DataFrame) -> dict[str, Sites]:
    """The variants of a model by build, its own first; only that if it is not known.

    In another build those without a known position have position 0, where nothing is found.
    """
    sites = Sites.of(variants)
    own = detect_build(sites).name
    found = {own: sites}
    if own in BUILDS:
        reference = reference_sites()
        at = align(reference.at(own), sites).column
        for build in BUILDS:
            if build != own:
                position = np.where(at >= 0, reference.position[build][at], 0)
                found[build] = replace(sites, position=position)
    return found


def match(theirs: pd.DataFrame, ours: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, Matched]:
    """Find the variants of a model in a file.

    Parameters
    ----------
    theirs, ours
        Variant tables of the file and of the model.

    Returns
    -------
    column
        (m,) index of each of the model's variants in the file, -1 where it is not used.
    turned
        (m,) bool: the file counts the other allele.
    matched
        How many stand how.
    """
    file, wanted = Sites.of(theirs), in_builds(ours)
    own = next(iter(wanted))
    told = detect_build(file).name
    build = told if told in wanted else own
    aligned = align(file, wanted[build])
    column, relation = aligned.column.copy(), aligned.relation.copy()
    ambiguous = relation == AMBIGUOUS
    n_flipped = int((relation == FLIPPED).sum())
    n_told = int(np.isin(relation, (SAME, SWAPPED, FLIPPED)).sum())
    if n_flipped > MAX_FLIPPED * n_told:
        column[ambiguous] = -1
    else:
        relation[ambiguous] = np.where(aligned.turned[ambiguous], SWAPPED, SAME)
    count = np.bincount(relation, minlength=ABSENT + 1)
    matched = Matched(
        same=int(count[SAME]),
        swapped=int(count[SWAPPED]),
        flipped=int(count[FLIPPED]),
        ambiguous=int(count[AMBIGUOUS]),
        other=int(count[OTHER]),
        absent=int(count[ABSENT]),
        build=None if build == own else build,
    )
    return column, aligned.turned & (column >= 0), matched

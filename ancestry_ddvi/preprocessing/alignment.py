"""Where the variants of a model are in a file that may place, orient and name them differently.

build       Both sides' builds are told by the sites of `1kg` (`reference_sites`). Where they
            differ, the model's variants that are such sites are looked for at their positions
            in the file's build; the others are absent.
alleles     REF and ALT as they are, swapped, or those of the other strand, either way round. Of a
            record without ALT, REF is one of the two as they are.
ambiguous   A and T, or C and G: the other strand looks like a swap. They are taken as they look
            where the file is on the model's strand, which enough variants that can tell it show;
            otherwise they are left out.
repeated    Of several variants that could be the same one of the model, whatever way round, the
            one with the most called genotypes is used.
absent      Missing. Where it is asked for, homozygous for the model's REF (`absent_is_ref`): of a
            gVCF inside its reference blocks, of another file anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

from ancestry_ddvi.errors import first_few
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix, bare_contig
from ancestry_ddvi.reference_sites import (
    ABSENT,
    ALONE,
    AMBIGUOUS,
    BUILDS,
    FLIPPED,
    NO_BASE,
    OTHER,
    SAME,
    SWAPPED,
    UNKNOWN,
    Pairs,
    Sites,
    align,
    detect_build,
    pair,
    reference_sites,
)

OF_MAP, OF_CALLS = "variants of the map", "sites of the ancestry calls"
"""A model has two tables of variants; what counts them calls them so."""

MAX_FLIPPED = 0.01
"""A file with a larger share of variants on the other strand may have ambiguous ones there too."""

MIN_TOLD = 30
"""Fewer variants that can tell the strand leave it in doubt. Where none of this many is on the
other one, less than 3 / MIN_TOLD, a tenth, of all are (95 % confidence), and not the half of a file
on an array's own strands; asking for more would cost a panel of a hundred sites a sixth of them."""

MAX_ALONE_OTHER = 0.05
"""Of records without ALT a larger share with a third allele for REF shows that their positions are
not the model's: by chance every other one would fit."""


@dataclass(frozen=True)
class Matched:
    """How many of a model's variants a file has, by how they stand there.

    Attributes
    ----------
    same, swapped
        As they are; with REF for ALT. Ambiguous ones that were taken are in these.
    flipped, flipped_swapped
        With the alleles of the other strand, as they are; with REF for ALT.
    ambiguous
        A/T or C/G in a file whose strand is in doubt: left out.
    other
        With other alleles at the position: left out.
    absent
        Not at any position of the file: missing.
    reference
        Not at any position of the file either, but taken as homozygous for the model's REF; also
        what a gVCF has inside a reference block.
    repeated
        Of those used, how many the file has more than once.
    build, model_build
        Those of the file and of the model by their positions, or `unknown`.
    unseen
        Contigs of the model of which the file has no record at all.
    """

    same: int
    swapped: int
    absent: int
    flipped: int = 0
    ambiguous: int = 0
    other: int = 0
    reference: int = 0
    repeated: int = 0
    flipped_swapped: int = 0
    build: str = UNKNOWN
    model_build: str = UNKNOWN
    unseen: tuple[str, ...] = ()

    @property
    def is_translated(self) -> bool:
        """Whether variants were looked for at their positions in the file's build."""
        return self.build != self.model_build and UNKNOWN not in (self.build, self.model_build)

    @property
    def found(self) -> int:
        """Variants that the file has and that are used."""
        return self.same + self.flipped + self.turned

    @property
    def turned(self) -> int:
        """Variants that are used with REF for ALT, on either strand."""
        return self.swapped + self.flipped_swapped

    @property
    def used(self) -> int:
        """Variants with a genotype, by a record or for want of one."""
        return self.found + self.reference

    @property
    def total(self) -> int:
        """Variants of the model."""
        return self.used + self.ambiguous + self.other + self.absent

    def by_words(self) -> dict[str, int]:
        """Counts by what they count, for messages and records."""
        return {
            "matched as they are": self.same,
            "with swapped alleles": self.swapped,
            "on the other strand": self.flipped,
            "on the other strand with swapped alleles": self.flipped_swapped,
            "left out as A/T or C/G on an unknown strand": self.ambiguous,
            "left out for other alleles": self.other,
            "absent": self.absent,
            "absent, taken as homozygous for REF": self.reference,
            "of those matched, there more than once (the best called is used)": self.repeated,
        }


@dataclass(frozen=True)
class Alignment:
    """Genotypes of a file at the variants of a model.

    Attributes
    ----------
    genotypes
        Of the file.
    column
        (m,) index of each of the model's variants in the file, -1 where it is not used.
    turned
        (m,) bool: the file counts the other allele.
    reference
        (m,) bool: taken as homozygous for the model's REF, for want of a record.
    matched
        How many stand how.
    """

    genotypes: GenotypeMatrix
    column: np.ndarray
    turned: np.ndarray
    reference: np.ndarray
    matched: Matched

    @property
    def used(self) -> np.ndarray:
        """(m,) bool: variants with a genotype."""
        used: np.ndarray = (self.column >= 0) | self.reference
        return used

    def dosage(self, which: slice | np.ndarray) -> np.ndarray:
        """(n_samples, b) int8 copies of the model's ALT at some of its variants."""
        at, turned, reference = self.column[which], self.turned[which], self.reference[which]
        theirs = self.genotypes.dosage
        dosage = np.full((len(theirs), len(at)), MISSING, dtype=np.int8, order="F")
        dosage[:, at >= 0] = theirs[:, at[at >= 0]]
        counted = dosage[:, turned]
        dosage[:, turned] = np.where(counted == MISSING, counted, 2 - counted)
        if reference.any():
            # Nothing is known of a sample without a call.
            dosage[np.ix_(self._called, reference)] = 0
        return dosage

    @cached_property
    def _called(self) -> np.ndarray:
        """(n_samples,) bool: samples with any call."""
        called: np.ndarray = self.genotypes.dosage.max(axis=1, initial=MISSING) > MISSING
        return called


def in_builds(variants: pd.DataFrame) -> Mapping[str, Sites]:
    """The variants of a model by build, its own first; only that if it is not known.

    In another build those without a known position have position 0, where nothing is found.
    """
    return _in_builds(Sites.of(variants))


@lru_cache(maxsize=4)  # a model has two tables: of its map, and of its ancestry calls
def _in_builds(sites: Sites) -> Mapping[str, Sites]:
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


def match(
    genotypes: GenotypeMatrix, variants: pd.DataFrame, *, absent_is_ref: bool = False
) -> Alignment:
    """Find the variants of a model in a file.

    Parameters
    ----------
    genotypes
        Of the file.
    variants
        Table of the model's variants.
    absent_is_ref
        Take variants that the file has nothing at as homozygous for the model's REF, in samples
        with any call. Not those on contigs without a record, those without a position in the
        file's build, and those at which a record was left out. Of a gVCF with reference blocks,
        those inside a block, in the samples that it calls.
    """
    file, wanted = Sites.of(genotypes.variants), in_builds(variants)
    own = next(iter(wanted))
    told = detect_build(file).name
    sites = wanted[told if told in wanted else own]
    pairs = pair(file, sites)
    in_block = (file.alt[pairs.column] == ALONE) & (file.ref[pairs.column] == NO_BASE)
    blocks, pairs = pairs.take(in_block), _with_alone(pairs.take(~in_block), file, sites)
    relation = pairs.relation.copy()
    ambiguous = relation == AMBIGUOUS
    n_flipped = int((relation == FLIPPED).sum())
    n_told = int(np.isin(relation, (SAME, SWAPPED, FLIPPED)).sum())
    if n_told >= MIN_TOLD and n_flipped <= MAX_FLIPPED * n_told:
        relation[ambiguous] = np.where(pairs.turned[ambiguous], SWAPPED, SAME)
    usable = relation < AMBIGUOUS
    n_usable = np.bincount(pairs.site[usable], minlength=len(sites))
    n_called = np.zeros(len(relation), dtype=int)
    several = usable & (n_usable > 1)[pairs.site]
    if several.any():
        columns = pairs.column[several]
        n_called[several] = (
            (genotypes.dosage[:, columns] != MISSING).sum(axis=0)
            if genotypes.n_called is None
            else genotypes.n_called[columns]
        )
    # Of equals the first, but one that has seen both alleles before one that has seen REF alone.
    alone = file.alt[pairs.column] == ALONE
    order = np.lexsort((pairs.column, alone, relation, -n_called, ~usable, pairs.site))
    best = order[np.unique(pairs.site[order], return_index=True)[1]]
    at = pairs.site[best]
    stands = np.full(len(sites), ABSENT, dtype=np.uint8)
    column = np.full(len(sites), -1, dtype=np.int64)
    turned = np.zeros(len(sites), dtype=bool)
    stands[at] = relation[best]
    column[at] = np.where(usable[best], pairs.column[best], -1)
    turned[at] = pairs.turned[best] & usable[best]
    contigs = {*map(bare_contig, genotypes.variants["contig"].unique()), *genotypes.seen.contigs}
    seen = np.isin(sites.contig, list(contigs))
    reference = np.zeros(len(sites), dtype=bool)
    block = np.full(len(sites), -1, dtype=np.int64)
    block[blocks.site[::-1]] = blocks.column[::-1]  # the first of a site
    if absent_is_ref:
        known, within = genotypes.seen.places, genotypes.seen.within
        left_out = np.array(
            [
                place in known or not (within is None or within(*place))
                for place in zip(sites.contig, sites.position.tolist(), strict=True)
            ],
            dtype=bool,
        )
        reference = (stands == ABSENT) & seen & (sites.position > 0) & ~left_out
        if len(blocks.site):  # where a gVCF says what was looked at, the rest was not
            reference &= block >= 0
        column[reference] = block[reference]
    count = np.bincount(stands, minlength=ABSENT + 1)
    n_both = int((turned & (stands == FLIPPED)).sum())
    matched = Matched(
        same=int(count[SAME]),
        swapped=int(count[SWAPPED]),
        flipped=int(count[FLIPPED]) - n_both,
        flipped_swapped=n_both,
        ambiguous=int(count[AMBIGUOUS]),
        other=int(count[OTHER]),
        absent=int(count[ABSENT] - reference.sum()),
        reference=int(reference.sum()),
        repeated=int((n_usable > 1).sum()),
        build=told,
        model_build=own,
        unseen=tuple(dict.fromkeys(sites.contig[~seen].tolist())),
    )
    return Alignment(genotypes, column, turned, reference & (column < 0), matched)


def _with_alone(pairs: Pairs, file: Sites, sites: Sites) -> Pairs:
    """Match variants without ALT by REF, where those of the file show that it can be done."""
    one = file.ref[pairs.column]
    ref, alt = sites.ref[pairs.site], sites.alt[pairs.site]
    alone = (file.alt[pairs.column] == ALONE) & (one >= 0)
    fits = alone & ((one == ref) | (one == alt))
    if not fits.any() or (alone & ~fits).sum() > MAX_ALONE_OTHER * alone.sum():
        return pairs
    turned = np.where(fits, one == alt, pairs.turned)
    relation = np.where(turned, SWAPPED, SAME)
    relation[ref + alt == 3] = AMBIGUOUS
    return replace(
        pairs, turned=turned, relation=np.where(fits, relation, pairs.relation).astype(np.uint8)
    )


def why_few(alignment: Alignment, variants: pd.DataFrame, needed: int) -> str:
    """What to say of a file that has fewer than the `needed` variants of a map: how many, the
    likely cause by what was found, and what to do."""
    genotypes, matched = alignment.genotypes, alignment.matched
    file = Sites.of(genotypes.variants)
    own, told = matched.model_build, matched.build
    n_contigs = variants["contig"].map(bare_contig).nunique()
    if len(matched.unseen) == n_contigs:
        theirs = sorted({*file.contig, *genotypes.seen.contigs})
        cause = (
            f"it has no record on the model's contigs ({first_few(matched.unseen, 3)}), its own "
            f"are {first_few(theirs, 3) or 'none'}; rename them with `bcftools annotate "
            f"--rename-chrs`, and check that species and genome build ({own}) are the model's"
        )
    elif matched.other > matched.found:
        cause = (
            f"{matched.other:,} are at its positions with other alleles, as in another genome "
            f"build than {own} or another species; lift it over to {own}"
        )
    elif matched.ambiguous > matched.found or matched.ambiguous + matched.found >= needed:
        doubt = (
            f"is told by {MIN_TOLD} others at least; give a file with more of these"
            if matched.found < MIN_TOLD
            else "is in doubt; put all on the forward strand, e.g. with `bcftools +fixref`"
        )
        cause = f"{matched.ambiguous:,} are A/T or C/G, and their strand {doubt}"
    elif told != own and told in BUILDS and own in BUILDS:
        cause = (
            f"its positions are those of {told}, the model's of {own}, and only sites of 1kg are "
            f"looked for in both; lift it over to genome build {own}"
        )
    elif told == own != UNKNOWN:
        cause = (
            f"its genome build, {own}, is the model's, but it has few of these variants; give a "
            "file with more of them (all chromosomes, or imputed)"
        )
    else:
        cause = (
            f"its positions do not tell its genome build, and the model's is {own}; check species, "
            "build and contig names, and that it has the model's variants"
        )
    left_out = ", ".join(f"{n:,} {reason}" for reason, n in genotypes.left_out.items() if n)
    return (
        f"{genotypes.name}: {matched.found:,} of the {matched.total:,} {OF_MAP} were "
        f"matched in the file, and {needed} are needed to place a sample"
        f"{f' (records left out: {left_out})' if left_out else ''}; {cause}"
    )

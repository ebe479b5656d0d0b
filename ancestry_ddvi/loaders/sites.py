"""Which variants are used, by one rule for every format, and the reasons for leaving others out."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from ancestry_ddvi.genotypes import NO_ALT, NO_REF, Seen, bare_contig
from ancestry_ddvi.loaders.lists import VariantList
from ancestry_ddvi.loaders.regions import RegionSet

# Keys of `GenotypeMatrix.left_out`, in the order they are tried.
NOT_AUTOSOMAL = "not on an autosome"
OUT_OF_REGION = "outside --region"
IN_EXCLUDED_REGION = "in --exclude-region"
NOT_OF_MODEL = "not a variant of the model"
NOT_EXTRACTED = "not in --extract"
EXCLUDED = "in --exclude"
MULTIALLELIC = "multiallelic"
SYMBOLIC = "symbolic or missing ALT"
INDEL = "indel or multi-nucleotide"
AMBIGUOUS_BASE = "allele other than A, C, G or T"
SAME_ALLELES = "REF and ALT are the same"
NO_POSITION = "no position"
DUPLICATED = "duplicated site"
UNCALLED = "no genotype called"

HUMAN_AUTOSOMES = 22
MAX_POSITION = 2**31 - 1  # what BCF, PLINK and VCF Zarr have room for

REFERENCE_ALTS = frozenset((NO_ALT, "0", "<NON_REF>", "<*>"))
"""ALT of a record that has seen the reference allele alone: none, PLINK's, and those of gVCFs."""

_POSITION = re.compile(r"-?[0-9]{1,20}")
_END = re.compile(rb"(?:^|;)END=([0-9]{1,10})(?:;|$)")

# Names of sex chromosomes, pseudo-autosomal and mitochondrial contigs; PLINK's 0 is "unplaced".
_NON_AUTOSOMES = frozenset(("X", "Y", "XY", "PAR1", "PAR2", "W", "Z", "M", "MT", "0"))


def is_autosome(contig: str, n_autosomes: int | None = HUMAN_AUTOSOMES) -> bool:
    """Whether a contig is one of the autosomes 1 to `n_autosomes`, under any of its names.

    With None, for species whose chromosomes have other names, every contig is one that is not
    named like a sex chromosome or the mitochondrion.
    """
    name = bare_contig(contig).upper()
    if n_autosomes is None:
        return name not in _NON_AUTOSOMES
    return name.isascii() and name.isdigit() and 1 <= int(name) <= n_autosomes


@dataclass
class SiteRule:
    """Takes the biallelic autosomal SNPs that were asked for; counts the others by reason.

    Attributes
    ----------
    n_autosomes
        As `is_autosome` takes it.
    regions, exclude_regions
        Use these only, and not those; None for no such rule.
    extract, exclude
        Use these variants only, and not those; None for no such rule.
    places
        Use variants at these places only, those of a model; None for no such rule. Records with no
        ALT allele are taken there as well: a genotype was called.
    blocks
        Take the places inside the reference blocks of a gVCF as well.
    split
        Take each SNP allele of a multiallelic record as a variant of its own (what the other ALT
        alleles count as: `CallRule`), where otherwise the record is left out.
    left_out
        How many variants were left out, by reason.
    seen
        Where there were records, those left out included.
    """

    n_autosomes: int | None = HUMAN_AUTOSOMES
    regions: RegionSet | None = None
    exclude_regions: RegionSet | None = None
    extract: VariantList | None = None
    exclude: VariantList | None = None
    places: VariantList | None = None
    blocks: bool = False
    split: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    seen: Seen = field(default_factory=Seen)
    _autosomal: dict[str, bool] = field(default_factory=dict, repr=False)

    def take(
        self, contig: str, position: int, name: str, ref: str, alts: Sequence[str]
    ) -> tuple[int, ...]:
        """Which ALT alleles (numbered from 1) to take of a record; none if it is left out."""
        if reason := self._place(contig, position):
            self.left_out[reason] += 1
            return ()
        if len(alts) > 1 and not self.split:
            self.left_out[self._listed(contig, position, name, ref, alts) or MULTIALLELIC] += 1
            return ()
        taken = []
        for number, alt in enumerate(alts or (".",), start=1):
            reason = self._listed(contig, position, name, ref, (alt,)) or no_snp(ref, alt)
            if reason == SYMBOLIC and self.places is not None and is_reference(alts):
                reason = no_base(ref)
            if reason:
                self.left_out[reason] += 1
            else:
                taken.append(number)
        return tuple(taken)

    def inside(
        self, contig: str, position: int, alts: Sequence[str], end: int | None
    ) -> list[tuple[str, int, str, str, str]]:
        """The places to take behind the first of a reference block, whose genotypes are those of
        its record: contig, position, id, REF and ALT of each."""
        if not self.blocks or end is None or not is_reference(alts):
            return []
        places = self._positions.get(bare_contig(contig).upper(), [])
        some = places[bisect_right(places, position) : bisect_right(places, end)]
        return [(contig, at, ".", NO_REF, NO_ALT) for at in some]

    @cached_property
    def _positions(self) -> dict[str, list[int]]:
        """Those of `places`, ascending, by contig."""
        found = defaultdict(list)
        for place in self.places.places if self.places is not None else ():
            contig, _, position = place.rpartition(":")
            found[contig].append(int(position))
        return {contig: sorted(positions) for contig, positions in found.items()}

    def _place(self, contig: str, position: int) -> str | None:
        autosomal = self._autosomal.get(contig)
        if autosomal is None:
            autosomal = self._autosomal[contig] = is_autosome(contig, self.n_autosomes)
            self.seen.contigs.add(bare_contig(contig))
        if not autosomal:
            return NOT_AUTOSOMAL
        if position < 1:  # 0 or negative: PLINK's way of leaving a variant out
            return NO_POSITION
        if reason := self._region(contig, position):
            return reason
        if self.places is not None:
            if not self.places.names(contig, position, "", "", ()):
                return NOT_OF_MODEL
            self.seen.places.add((bare_contig(contig), position))
        return None

    def _region(self, contig: str, position: int) -> str | None:
        if self.regions is not None and not self.regions.covers(contig, position):
            return OUT_OF_REGION
        if self.exclude_regions is not None and self.exclude_regions.covers(contig, position):
            return IN_EXCLUDED_REGION
        return None

    @property
    def within(self) -> Callable[[str, int], bool] | None:
        """Whether a position is in the regions; None where there is no such rule."""
        if self.regions is None and self.exclude_regions is None:
            return None
        return lambda contig, position: self._region(contig, position) is None

    def _listed(
        self, contig: str, position: int, name: str, ref: str, alts: Sequence[str]
    ) -> str | None:
        variant = (contig, position, name, ref, alts)
        if self.extract is not None and not self.extract.names(*variant):
            return NOT_EXTRACTED
        if self.exclude is not None and self.exclude.names(*variant):
            return EXCLUDED
        return None


def parse_position(text: str) -> int | None:
    """A position as PLINK's tables have it, where a negative one leaves the variant out.

    None if it is no whole number, or has no room in a file.
    """
    position = int(text) if _POSITION.fullmatch(text) else None
    return None if position is None or abs(position) > MAX_POSITION else position


def is_reference(alts: Sequence[str]) -> bool:
    """Whether a record with these ALT alleles has seen REF alone."""
    return not alts or (len(alts) == 1 and alts[0].upper() in REFERENCE_ALTS)


def block_end(info: bytes) -> int | None:
    """END in the INFO of a VCF."""
    found = _END.search(info)
    return None if found is None else int(found[1])


def counted_alt(alts: Sequence[str], number: int) -> str:
    """The ALT allele that was taken of a record, in capitals; `.` if there is but the reference."""
    return NO_ALT if is_reference(alts) else alts[number - 1].upper()


def no_base(ref: str) -> str | None:
    """Why an allele is no single base, or None if it is."""
    ref = ref.upper()
    if len(ref) != 1:
        return INDEL
    return None if ref in "ACGT" else AMBIGUOUS_BASE


@lru_cache(maxsize=4096)
def no_snp(ref: str, alt: str) -> str | None:
    """Why two alleles make no SNP, or None if they do."""
    ref, alt = ref.upper(), alt.upper()
    if not alt.isalpha():
        return SYMBOLIC
    if len(ref) != 1 or len(alt) != 1:
        return INDEL
    if ref not in "ACGT" or alt not in "ACGT":
        return AMBIGUOUS_BASE
    return SAME_ALLELES if ref == alt else None

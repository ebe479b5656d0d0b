"""The sites of the built-in reference `1kg`, and how the variants of any file stand to them.

    sites = reference_sites()
    build = detect_build(genotypes.variants)                    # GRCh37, GRCh38 or unknown
    aligned = align(genotypes.variants, sites.at("GRCh38"))     # where each site is in the file

A site that a file has at its position is there with

    same        its alleles, REF and ALT as they are
    swapped     its alleles, REF for ALT: dosages are to be turned, 2 - g
    flipped     the alleles of the other strand, either way round
    ambiguous   A and T, or C and G, either way round: the other strand looks the same, and only
                the frequency tells a flip from a swap
    other       other alleles

The sites are those of `data/1kg_phase3_24k.sites.tsv`, packed by `scripts/pack_reference_sites.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
import pandas as pd

from ancestry_ddvi.genotypes import NO_ALT, GenotypeMatrix, bare_contig

GRCH37, GRCH38, UNKNOWN = "GRCh37", "GRCh38", "unknown"
BUILDS = (GRCH37, GRCH38)

RELATIONS = ("same", "swapped", "flipped", "ambiguous", "other", "absent")
"""Names of the codes in `Aligned.relation`."""

SAME, SWAPPED, FLIPPED, AMBIGUOUS, OTHER, ABSENT = range(len(RELATIONS))

MIN_MATCHES = 20
MARGIN = 3
"""A build is told by this many sites, and this many times those of the other build."""

BASES = "ACGT"
"""A base and its complement have codes that add up to 3."""

NO_BASE, ALONE = -1, -2
"""Codes of what is no base, and of ALT where REF stands alone."""


@dataclass(frozen=True, eq=False)
class Sites:
    """Biallelic SNPs by place and alleles; equal if all of these are, so a key of what was made.

    Attributes
    ----------
    contig
        (n_sites,) str plain names (`bare_contig`).
    position
        (n_sites,) int64, 1-based; 0 where the site has none, and is never found.
    ref, alt
        (n_sites,) int8 codes in `BASES`; `NO_BASE` or `ALONE` (of ALT), which match nothing.
    """

    contig: np.ndarray
    position: np.ndarray
    ref: np.ndarray
    alt: np.ndarray

    @classmethod
    def of(cls, variants: pd.DataFrame) -> Sites:
        """Those of the variant table of a `GenotypeMatrix`."""
        contig, name = variants["contig"].factorize()
        plain = np.array([bare_contig(str(c)) for c in name], dtype=object)
        code = {base: i for i, base in enumerate(BASES)} | {NO_ALT: ALONE}

        def coded(column: str) -> np.ndarray:
            number, alleles = variants[column].factorize(use_na_sentinel=False)
            codes = np.array([code.get(a, NO_BASE) for a in alleles], dtype=np.int8)
            return codes.take(number)

        position = variants["position"].to_numpy().astype(np.int64)
        return cls(plain[contig], position, coded("ref"), coded("alt"))

    def __len__(self) -> int:
        return len(self.position)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sites) and all(
            np.array_equal(getattr(self, name), getattr(other, name))
            for name in ("position", "ref", "alt", "contig")
        )

    def __hash__(self) -> int:
        return hash((self.position.tobytes(), self.ref.tobytes(), self.alt.tobytes()))


@dataclass(frozen=True)
class ReferenceSites:
    """The sites of a reference, with their positions in both builds.

    Attributes
    ----------
    contig
        (n_sites,) str plain names.
    position
        By build: (n_sites,) int64; 0 where lift-over does not keep the site.
    ref, alt
        (n_sites,) int8 codes in `BASES`.
    """

    contig: np.ndarray
    position: Mapping[str, np.ndarray]
    ref: np.ndarray
    alt: np.ndarray

    def __len__(self) -> int:
        return len(self.ref)

    def at(self, build: str) -> Sites:
        """The sites in a build."""
        return Sites(self.contig, self.position[build], self.ref, self.alt)


@lru_cache(maxsize=1)
def reference_sites() -> ReferenceSites:
    """The 23,770 sites of `1kg`, in the order of their table."""
    with (
        files("ancestry_ddvi").joinpath("resources/1kg_sites.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as packed,
    ):
        contig = packed["contig"]
        position = {build: np.cumsum(packed[build], dtype=np.int64) for build in BUILDS}
        ref, alt = np.divmod(packed["alleles"].astype(np.int8), len(BASES))
    return ReferenceSites(contig.astype("U2").astype(object), position, ref, alt)


@dataclass(frozen=True)
class Aligned:
    """Where sites are in a file, and how their alleles stand to it.

    Attributes
    ----------
    column
        (n_sites,) int64 index of the variant in the file, the first of equals; -1 if the site is
        absent or has other alleles there.
    relation
        (n_sites,) uint8 codes: `RELATIONS`.
    turned
        (n_sites,) bool: the file counts the other allele, so 2 - g is the dosage. True of an
        ambiguous site that looks swapped, which may be flipped instead.
    """

    column: np.ndarray
    relation: np.ndarray
    turned: np.ndarray

    def counts(self) -> dict[str, int]:
        """Sites by relation, in the order of `RELATIONS`."""
        n = np.bincount(self.relation, minlength=len(RELATIONS))
        return dict(zip(RELATIONS, n.tolist(), strict=True))


@dataclass(frozen=True)
class Pairs:
    """Every variant that a file has at the place of a site; sites ascend, then variants.

    Attributes
    ----------
    site, column
        (n_pairs,) int64 indices of the site and of the variant.
    relation, turned
        (n_pairs,) as in `Aligned`; never `absent`.
    """

    site: np.ndarray
    column: np.ndarray
    relation: np.ndarray
    turned: np.ndarray

    def take(self, which: np.ndarray) -> Pairs:
        """Some of them."""
        return Pairs(self.site[which], self.column[which], self.relation[which], self.turned[which])


def pair(variants: pd.DataFrame | Sites, sites: Sites) -> Pairs:
    """Find all variants at the places of sites, and how their alleles stand to these.

    Parameters
    ----------
    variants
        The table of a `GenotypeMatrix`, or what `Sites.of` made of it.
    sites
        What to find.
    """
    theirs = variants if isinstance(variants, Sites) else Sites.of(variants)
    contig, _ = pd.factorize(np.concatenate([theirs.contig, sites.contig]))
    position = np.concatenate([theirs.position, sites.position])
    place = np.where(position < 1, -1, contig << 40 | position)
    their_place, wanted = place[: len(theirs)], place[len(theirs) :]
    order = np.argsort(their_place, kind="stable")
    ordered = their_place[order]
    first = np.searchsorted(ordered, wanted)
    n = np.where(wanted < 0, 0, np.searchsorted(ordered, wanted, side="right") - first)
    site = np.repeat(np.arange(len(sites)), n)
    column = order[np.arange(len(site)) + np.repeat(first - (np.cumsum(n) - n), n)]
    one, other = theirs.ref[column], theirs.alt[column]
    ref, alt = sites.ref[site], sites.alt[site]
    relation = np.full(len(site), OTHER, dtype=np.uint8)
    turned = np.zeros(len(site), dtype=bool)
    for name, here, there, turn in (
        (SAME, ref, alt, False),
        (SWAPPED, alt, ref, True),
        (FLIPPED, 3 - ref, 3 - alt, False),
        (FLIPPED, 3 - alt, 3 - ref, True),
    ):
        # The complement of what is no base is none either.
        new = (relation == OTHER) & (one == here) & (other == there)
        new &= (np.minimum(one, other) >= 0) & (np.minimum(ref, alt) >= 0)
        relation[new], turned[new] = name, turn
    relation[(relation != OTHER) & (ref + alt == 3)] = AMBIGUOUS
    return Pairs(site, column, relation, turned)


def align(variants: pd.DataFrame | Sites, sites: Sites) -> Aligned:
    """Find sites in a file, by contig, position and alleles; parameters are those of `pair`."""
    found = pair(variants, sites)
    # The first of the best of each site.
    best = np.lexsort((found.column, found.turned, found.relation, found.site))
    best = best[np.unique(found.site[best], return_index=True)[1]]
    column = np.full(len(sites), -1, dtype=np.int64)
    relation = np.full(len(sites), ABSENT, dtype=np.uint8)
    turned = np.zeros(len(sites), dtype=bool)
    at = found.site[best]
    relation[at], turned[at] = found.relation[best], found.turned[best]
    column[at] = np.where(found.relation[best] == OTHER, -1, found.column[best])
    return Aligned(column, relation, turned)


@dataclass(frozen=True)
class Build:
    """The genome build of a file, and what tells it.

    Attributes
    ----------
    name
        `GRCh37`, `GRCh38` or `unknown`.
    evidence
        What tells it, in words.
    n_matched
        By build: sites of `1kg` at whose position the file has their alleles, either way round, on
        either strand; of those that have another position in the other build.
    """

    name: str
    evidence: str
    n_matched: Mapping[str, int]


def unlike_build(genotypes: GenotypeMatrix, tables: frozenset[str]) -> str | None:
    """What to say of built-in tables of regions for another build than that of the genotypes.

    Parameters
    ----------
    tables
        Builds of the tables that were used.
    """
    if not tables:
        return None
    build = detect_build(genotypes.variants).name
    others = sorted(tables - {build})
    if build not in BUILDS or not others:
        return None
    return (
        f"--exclude-region long-range-ld-{others[0]}: the positions in {genotypes.name} are those "
        f"of {build}; give long-range-ld-{build}"
    )


def detect_build(variants: pd.DataFrame | Sites, lengths: Mapping[str, int] | None = None) -> Build:
    """Tell the build from the positions of the reference's sites, else from contig lengths.

    Parameters
    ----------
    variants
        As `align` takes them.
    lengths
        Of the contigs, by name, where the file's header has them.
    """
    sites, theirs = reference_sites(), variants
    if not isinstance(theirs, Sites):
        theirs = Sites.of(theirs)
    moved = sites.position[GRCH37] != sites.position[GRCH38]
    n = {
        build: int((moved & (align(theirs, sites.at(build)).column >= 0)).sum()) for build in BUILDS
    }
    words = (
        f"{n[GRCH37]:,} of the sites of 1kg are at their GRCh37 position, {n[GRCH38]:,} at that of "
        "GRCh38"
    )
    for build, other in ((GRCH37, GRCH38), (GRCH38, GRCH37)):
        if n[build] >= max(MIN_MATCHES, MARGIN * n[other]):
            return Build(build, words, n)
    n_lengths = {
        build: sum(
            CONTIG_LENGTHS[build].get(bare_contig(name)) == length
            for name, length in (lengths or {}).items()
        )
        for build in BUILDS
    }
    for build, other in ((GRCH37, GRCH38), (GRCH38, GRCH37)):
        if n_lengths[build] and not n_lengths[other]:
            words = f"the header's contig lengths, {n_lengths[build]} of them; {words}"
            return Build(build, words, n)
    return Build(UNKNOWN, words, n)


# The autosomes, 1 to 22: https://www.ncbi.nlm.nih.gov/grc/human/data
_LENGTHS = {
    GRCH37: (
        *(249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663),
        *(146364022, 141213431, 135534747, 135006516, 133851895, 115169878, 107349540),
        *(102531392, 90354753, 81195210, 78077248, 59128983, 63025520, 48129895, 51304566),
    ),
    GRCH38: (
        *(248956422, 242193529, 198295559, 190214555, 181538259, 170805979, 159345973),
        *(145138636, 138394717, 133797422, 135086622, 133275309, 114364328, 107043718),
        *(101991189, 90338345, 83257441, 80373285, 58617616, 64444167, 46709983, 50818468),
    ),
}
CONTIG_LENGTHS = {
    build: {str(i): length for i, length in enumerate(lengths, start=1)}
    for build, lengths in _LENGTHS.items()
}
"""By build, of the autosomes by plain name."""

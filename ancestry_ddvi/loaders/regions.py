"""Regions of the genome to read or to leave out; the long-range LD regions of human are built in.

In some regions LD reaches over megabases (inversions, centromeres, the HLA): a principal component,
or a latent, then tells who carries which haplotype there instead of ancestry.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ancestry_ddvi.errors import OptionError
from ancestry_ddvi.genotypes import bare_contig
from ancestry_ddvi.loaders.containers import CheckedFile
from ancestry_ddvi.loaders.lists import is_number, numbered_lines

# Contig, first and last base in GRCh37, the same in GRCh38. GRCh37: the list of the Abecasis group,
# https://genome.sph.umich.edu/wiki/Regions_of_high_linkage_disequilibrium_(LD), after Price et al.
# (2008), AJHG 83:132, and Weale (2010), Methods Mol. Biol. 628:341; the inversion at 17q21.31,
# which is not in it, as in GWASTools' pcaSnpFilters. GRCh38: both ends lifted with UCSC's
# hg19ToHg38 chain. Lifted whole, the nine regions over a centromere or a gap get lost, hence the
# lists of 15 regions for GRCh38 elsewhere, with which this one agrees. The 32,066 SNPs of HapMap 3
# inside are the same in both builds.
_LONG_RANGE_LD = (
    ("1", 48_000_000, 52_000_000, 47_534_328, 51_534_328),
    ("2", 86_000_000, 100_500_000, 85_772_877, 99_883_538),
    ("2", 134_500_000, 138_000_000, 133_742_429, 137_242_430),  # 2q21, LCT
    ("2", 183_000_000, 190_000_000, 182_135_273, 189_135_274),
    ("3", 47_500_000, 50_000_000, 47_458_510, 49_962_567),
    ("3", 83_500_000, 87_000_000, 83_450_849, 86_950_850),
    ("3", 89_000_000, 97_500_000, 88_950_850, 97_781_156),
    ("5", 44_500_000, 50_500_000, 44_499_898, 51_204_166),
    ("5", 98_000_000, 100_500_000, 98_664_296, 101_164_296),
    ("5", 129_000_000, 132_000_000, 129_664_307, 132_664_308),
    ("5", 135_500_000, 138_500_000, 136_164_311, 139_164_311),
    ("6", 25_000_000, 35_000_000, 24_999_772, 35_032_223),  # HLA
    ("6", 57_000_000, 64_000_000, 57_135_202, 63_290_095),
    ("6", 140_000_000, 142_500_000, 139_678_863, 142_178_863),
    ("7", 55_000_000, 66_000_000, 54_932_307, 66_535_013),
    ("8", 7_000_000, 13_000_000, 7_142_478, 13_142_491),  # 8p23 inversion
    ("8", 43_000_000, 50_000_000, 43_144_857, 49_087_441),
    ("8", 112_000_000, 115_000_000, 110_987_771, 113_987_771),
    ("10", 37_000_000, 43_000_000, 36_711_072, 42_504_552),
    ("11", 46_000_000, 57_000_000, 45_978_449, 57_232_526),
    ("11", 87_500_000, 90_500_000, 87_789_108, 90_766_832),
    ("12", 33_000_000, 40_000_000, 32_847_066, 39_606_198),
    ("12", 109_500_000, 112_000_000, 109_062_195, 111_562_196),
    ("17", 40_546_474, 44_644_684, 42_394_456, 46_567_318),  # 17q21.31 inversion
    ("20", 32_000_000, 34_500_000, 33_412_194, 35_912_078),
)

BUILT_IN = ("long-range-ld-GRCh37", "long-range-ld-GRCh38")
"""Names of the tables that come with this package, in any case; hg19 and hg38 mean the same."""

_TABLE_NAME = "long-range-ld-"
_BUILDS = {"grch37": 37, "hg19": 37, "grch38": 38, "hg38": 38}

_FORMS = (
    "a region is contig, contig:position, contig:start-end or contig:start- (1-based, as "
    f"chr6:25,000,000-35,000,000), a BED file, {BUILT_IN[0]} or {BUILT_IN[1]}; give several by "
    "repeating the option"
)
_END = sys.maxsize
_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3}){1,5}|[0-9]{1,18}"
_SPAN = re.compile(rf"(?P<start>{_NUMBER})(?P<dash>-(?P<end>{_NUMBER})?)?")
_CHROMOSOME = re.compile(r"[0-9]{1,2}|X|Y|XY|M|MT", re.IGNORECASE)
_NO_COLON = re.compile(r"(?:chr)?(?:[0-9]{1,2}|X|Y)-[0-9,]*", re.IGNORECASE)
_FILE_SUFFIXES = (".bed", ".txt", ".tsv", ".csv", ".gz")

Region = tuple[str, int, int]
"""contig, first and last position (1-based, both inclusive)."""


@dataclass(frozen=True)
class RegionSet:
    """Regions, overlapping and touching ones merged.

    Attributes
    ----------
    spans
        Plain contig name in upper case -> (starts, ends): sorted positions, 1-based and inclusive.
    builds
        Genome builds of the built-in tables among them.
    """

    spans: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    builds: frozenset[str] = frozenset()

    @classmethod
    def of(cls, regions: Iterable[Region], builds: Iterable[str] = ()) -> RegionSet:
        """Merge regions."""
        by_contig: dict[str, list[tuple[int, int]]] = {}
        for contig, start, end in regions:
            by_contig.setdefault(bare_contig(contig).upper(), []).append((start, end))
        merged = {contig: _merge(spans) for contig, spans in by_contig.items()}
        return cls(merged, frozenset(builds))

    @classmethod
    def parse(cls, texts: Sequence[str]) -> RegionSet:
        """The regions that texts name, taken together.

        Parameters
        ----------
        texts
            Each is a region (`6`, `chr6:31000000`, `chr6:25,000,000-35,000,000`, `6:25000000-`),
            the path of a BED file (plain or gzip), or one of `BUILT_IN`. A file whose name could be
            a chromosome's (`22`) is taken for one with a folder before it (`./22`).

        Raises
        ------
        OptionError
            If a text is none of these, or the BED file cannot be read as such.
        """
        names = (text.strip().lower().removeprefix(_TABLE_NAME) for text in texts)
        builds = [f"GRCh{_BUILDS[name]}" for name in names if name in _BUILDS]
        return cls.of((region for text in texts for region in _regions(text.strip())), builds)

    def __len__(self) -> int:
        return sum(len(starts) for starts, _ in self.spans.values())

    def covers(self, contig: str, position: int) -> bool:
        """Whether a position (1-based) lies in a region; contigs go by their plain names."""
        span = self.spans.get(bare_contig(contig).upper())
        if span is None:
            return False
        starts, ends = span
        at = bisect_right(starts, position) - 1
        return at >= 0 and position <= ends[at]


def _merge(spans: list[tuple[int, int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    merged: list[list[int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + 1:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return tuple(start for start, _ in merged), tuple(end for _, end in merged)


def _regions(text: str) -> Iterable[Region]:
    if text.lower().startswith(_TABLE_NAME):
        return _long_range_ld(text)
    if _is_file(text):
        return _read_bed(text)
    if region := _region(text):
        return [region]
    found = "is neither a file here nor a region" if _like_path(text) else "is no region"
    raise OptionError(f"{text[:60]!r} {found}; {_FORMS}")


def _long_range_ld(name: str) -> Iterator[Region]:
    build = _BUILDS.get(name.lower().removeprefix(_TABLE_NAME))
    if build is None:
        raise OptionError(f"{name[:60]!r} is no table that is built in; {_FORMS}")
    for contig, start_37, end_37, start_38, end_38 in _LONG_RANGE_LD:
        yield (contig, start_37, end_37) if build == 37 else (contig, start_38, end_38)


def _is_file(text: str) -> bool:
    if _CHROMOSOME.fullmatch(bare_contig(text)):
        return False
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


def _like_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.lower().endswith(_FILE_SUFFIXES)


def _region(text: str) -> Region | None:
    """The region that a text spells out, or None if it spells none."""
    contig, colon, span = text.rpartition(":")
    if not colon:
        contig = text
        # Such a name would pass for a contig that no file has, and silently select nothing.
        wrong = not contig or _like_path(text) or _NO_COLON.fullmatch(text)
        return None if wrong or re.search(r"[\s,]", contig) else (contig, 1, _END)
    match = _SPAN.fullmatch(span)
    if match is None or not contig or re.search(r"[\s,]", contig):
        return None
    start = int(match["start"].replace(",", ""))
    end = int(match["end"].replace(",", "")) if match["end"] else _END
    if not match["dash"]:
        end = start
    if start < 1 or end < start:
        raise OptionError(
            f"{text[:60]!r} is no region: positions count from 1, and the end must not be before "
            f"the start; {_FORMS}"
        )
    return contig, start, end


def _read_bed(path: str) -> list[Region]:
    """Regions of a BED file: 0-based, the end exclusive.

    Specification: https://samtools.github.io/hts-specs/BEDv1.pdf
    """
    file = CheckedFile(path, OptionError)
    regions: list[Region] = []
    for number, line in numbered_lines(file):
        fields = line.split()
        if line.startswith("#") or fields[0] in ("browser", "track"):
            continue
        bounds = fields[1:3]
        if len(bounds) < 2 or not all(map(is_number, bounds)):
            raise file.fail(
                f"line {number}: {line[:60]!r} is no BED line; it must begin with contig, start "
                "(from 0) and end, separated by tabs"
            )
        start, end = int(bounds[0]), int(bounds[1])
        if end < start:
            raise file.fail(f"line {number}: the end {end} is before the start {start}; swap them")
        if end > start:  # an empty region is valid BED and covers nothing
            regions.append((fields[0], start + 1, end))
    if not regions:
        raise file.fail("has no region; give one a line: contig, start (from 0) and end")
    return regions

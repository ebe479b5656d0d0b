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
from ancestry_ddvi.loaders.lists import numbered_lines

# contig, start and end in bases, 1-based and inclusive.
_LONG_RANGE_LD_37 = """
1 48000000 52000000
2 86000000 100500000
2 134500000 138000000
2 183000000 190000000
3 47500000 50000000
3 83500000 87000000
3 89000000 97500000
5 44500000 50500000
5 98000000 100500000
5 129000000 132000000
5 135500000 138500000
6 25000000 35000000
6 57000000 64000000
6 140000000 142500000
7 55000000 66000000
8 7000000 13000000
8 43000000 50000000
8 112000000 115000000
10 37000000 43000000
11 46000000 57000000
11 87500000 90500000
12 33000000 40000000
12 109500000 112000000
20 32000000 34500000
"""

BUILT_IN = ("long-range-ld-GRCh37", "long-range-ld-GRCh38")
"""Names of the tables that come with this package, in any case; hg19 and hg38 mean the same."""

_TABLES = {
    "long-range-ld-grch37": _LONG_RANGE_LD_37,
    "long-range-ld-hg19": _LONG_RANGE_LD_37,
}

_FORMS = (
    "a region is contig, contig:position, contig:start-end or contig:start- (1-based, as "
    f"chr6:25,000,000-35,000,000), a BED file, {BUILT_IN[0]} or {BUILT_IN[1]}; give several by "
    "repeating the option"
)
_END = sys.maxsize
_NUMBER = r"[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+"
_SPAN = re.compile(rf"(?P<start>{_NUMBER})(?P<dash>-(?P<end>{_NUMBER})?)?")
_CHROMOSOME = re.compile(r"[0-9]{1,2}|X|Y|XY|M|MT", re.IGNORECASE)
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
    """

    spans: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]

    @classmethod
    def of(cls, regions: Iterable[Region]) -> RegionSet:
        """Merge regions."""
        by_contig: dict[str, list[tuple[int, int]]] = {}
        for contig, start, end in regions:
            by_contig.setdefault(bare_contig(contig).upper(), []).append((start, end))
        return cls({contig: _merge(spans) for contig, spans in by_contig.items()})

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
        return cls.of(region for text in texts for region in _regions(text.strip()))

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
    table = _TABLES.get(text.lower())
    if table is not None:
        return _rows(table)
    if _is_file(text):
        return _read_bed(text)
    if region := _region(text):
        return [region]
    found = "is neither a file here nor a region" if _like_path(text) else "is no region"
    raise OptionError(f"{text!r} {found}; {_FORMS}")


def _rows(table: str) -> Iterator[Region]:
    for line in table.split("\n"):
        if line:
            contig, start, end = line.split()
            yield contig, int(start), int(end)


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
        # A misspelt name of a table must not pass for a contig that no file has.
        ok = contig and not _like_path(text) and not text.lower().startswith("long-range")
        return (contig, 1, _END) if ok and not re.search(r"[\s,]", contig) else None
    match = _SPAN.fullmatch(span)
    if match is None or not contig or re.search(r"[\s,]", contig):
        return None
    start = int(match["start"].replace(",", ""))
    end = int(match["end"].replace(",", "")) if match["end"] else _END
    if not match["dash"]:
        end = start
    if start < 1 or end < start:
        raise OptionError(
            f"{text!r} is no region: positions count from 1, and the end must not be before the "
            f"start; {_FORMS}"
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
        if len(bounds) < 2 or not all(bound.isascii() and bound.isdigit() for bound in bounds):
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

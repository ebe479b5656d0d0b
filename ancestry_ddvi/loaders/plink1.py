"""PLINK 1: .bed, .bim and .fam.

The .bed holds two bits a genotype and no names, so nothing in it tells a file of other samples or
variants: the three files are held against each other before a genotype is read. A1 of the .bim is
the counted allele (ALT, as plink2 has it) and A2 is REF; neither need be that of the genome.

A file by variant, as all programs write it by default, needs no more than a table of what each byte
means, which is faster than bed-reader and has nothing that could crash; bed-reader turns round the
old kind of file, by sample. Both are held against each other in the tests.

Specification: https://www.cog-genomics.org/plink/1.9/formats#bed
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from sys import intern

import numpy as np

from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.loaders.containers import COPY_AGAIN, PLAIN, CheckedFile, iter_lines
from ancestry_ddvi.loaders.sites import SiteRule
from ancestry_ddvi.loaders.source import Block, Progress, Selection, Site, Source

SUFFIXES = (".bed", ".bim", ".fam")
MAGIC = b"\x6c\x1b"
_BY_VARIANT, _BY_SAMPLE = 1, 0  # the third byte: which index moves slowest
_BLOCK_BYTES = 2**18  # of dosages: what a core's cache holds
_PASSES = 8  # over a file by sample, so that a block is an eighth of the matrix
_WHOLE_NUMBER = re.compile(r"-?[0-9]+")
_HEADER_BYTES = 3

# Of the codes 00, 01, 10 and 11: copies of A1. A byte holds four, from its low bits on.
_OF_CODE = np.array([2, MISSING, 1, 0], dtype=np.int8)
_OF_BYTE = _OF_CODE[np.arange(256)[:, None] >> np.array([0, 2, 4, 6]) & 3].view(np.uint32).ravel()


def plink1_prefix(path: str | os.PathLike[str]) -> Path | None:
    """The name that .bed, .bim and .fam share, if `path` is one of them or that name itself.

    None if it is none of these, or what should be the .bed does not begin like one.
    """
    given = Path(path)
    if given.is_file():
        prefix = given.with_suffix("") if given.suffix.lower() in SUFFIXES else None
    else:
        prefix = None if given.exists() else given
    if prefix is None:
        return None
    bed = given if given.suffix.lower() == ".bed" and given.is_file() else _beside(prefix, ".bed")
    try:
        with open(bed, "rb") as file:
            return prefix if file.read(len(MAGIC)) == MAGIC else None
    except (OSError, ValueError):  # no such file, or a path that cannot be one
        return None


class Plink1Source(Source):
    """PREFIX.bed, PREFIX.bim and PREFIX.fam; sample ids are the IID.

    Parameters
    ----------
    prefix
        The name without suffix.

    Raises
    ------
    GenotypeFileError
        If a file is missing or damaged, or they do not belong together.
    """

    format = "PLINK 1"

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        prefix = Path(prefix)
        self._files = {suffix: CheckedFile(_beside(prefix, suffix)) for suffix in SUFFIXES}
        self._checksum = hashlib.sha256()
        fam = _table(self._files[".fam"], self._checksum)
        self._bim = _table(self._files[".bim"], self._checksum)
        self._by_variant = _check_bed(self._files[".bed"], len(fam), len(self._bim), self._checksum)
        self.path = self._files[".bed"].path
        self.family_id = tuple(fields[0] for fields in fam)
        self.sample_id = tuple(fields[1] for fields in fam)

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """Yield the variants taken; see `Source`."""
        rows, index = self._sites(selection.sites)
        samples = slice(None) if selection.samples is None else selection.samples
        read = self._read_by_variant if self._by_variant else self._read_by_sample
        done = 0
        for dosage in read(index, samples):
            yield Block(rows[done : done + len(dosage)], dosage)
            done += len(dosage)
            report(done / len(index))

    def _read_by_variant(
        self, index: np.ndarray, samples: slice | np.ndarray
    ) -> Iterator[np.ndarray]:
        """Yield (k, n_selected) dosages of the variants `index`, rising, in order."""
        n_samples = len(self.sample_id)
        row_bytes = -(-n_samples // 4)
        width = max(1, _BLOCK_BYTES // n_samples)
        borders = np.searchsorted(index, np.arange(0, len(self._bim) + width, width))
        with open(self.path, "rb") as file:
            for start, stop in pairwise(borders.tolist()):
                if start == stop:
                    continue
                here = index[start:stop] - index[start]
                file.seek(_HEADER_BYTES + int(index[start]) * row_bytes)
                size = (int(here[-1]) + 1) * row_bytes
                data = file.read(size)
                if len(data) < size:
                    raise self._files[".bed"].fail(
                        "is shorter than a moment ago; read it again once nothing writes to it"
                    )
                packed = np.frombuffer(data, dtype=np.uint8).reshape(-1, row_bytes)
                if len(here) < len(packed):
                    packed = packed[here]
                yield _OF_BYTE[packed].view(np.int8)[:, :n_samples][:, samples]

    def _read_by_sample(
        self, index: np.ndarray, samples: slice | np.ndarray
    ) -> Iterator[np.ndarray]:
        """As `_read_by_variant`, a few large blocks: each walks through the whole file."""
        from bed_reader import open_bed

        width = max(1, _BLOCK_BYTES // len(self.sample_id), -(-len(index) // _PASSES))
        with open_bed(
            self.path,
            iid_count=len(self.sample_id),
            sid_count=len(self._bim),
            properties={"iid": None, "sid": None},
            num_threads=1,
        ) as bed:
            for start in range(0, len(index), width):
                part = bed.read(
                    np.s_[samples, index[start : start + width]], dtype="int8", order="F"
                ).T
                # bed-reader's code of a missing genotype in int8 is -127.
                yield np.maximum(part, MISSING, out=part)

    def sha256(self) -> str:
        """Of the digests of the three files."""
        return self._checksum.hexdigest()

    def _sites(self, sites: SiteRule) -> tuple[list[Site], np.ndarray]:
        """The variants taken, and their places in the .bim."""
        rows: list[Site] = []
        index = []
        for number, (contig, name, _, position, alt, ref) in enumerate(self._bim):
            if not _WHOLE_NUMBER.fullmatch(position):
                raise self._files[".bim"].fail(
                    f"variant {number + 1} ({name}) has position {position!r}, which is no whole "
                    "number; correct it"
                )
            site = (intern(contig), int(position), name, intern(ref.upper()))
            if sites.take(*site, (alt,)):
                rows.append((*site, intern(alt.upper())))
                index.append(number)
        return rows, np.array(index, dtype=int)


def _beside(prefix: Path, suffix: str) -> Path:
    """PREFIX.suffix; the suffix in capitals if only that exists."""
    path, capitals = Path(f"{prefix}{suffix}"), Path(f"{prefix}{suffix.upper()}")
    return capitals if capitals.exists() and not path.exists() else path


def _table(file: CheckedFile, checksum: hashlib._Hash) -> list[list[str]]:
    """The six fields of each line of a .bim or .fam."""
    rows = []
    number = 0
    for line in iter_lines(file.text()):
        number += 1
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 6:
            raise file.fail(f"line {number} has {len(fields)} fields, not 6; correct it")
        try:
            rows.append([field.decode("utf-8") for field in fields])
        except UnicodeDecodeError as fault:
            raise file.fail(f"line {number} is not UTF-8; save the file as UTF-8") from fault
    if not rows:
        raise file.fail(f"has no line with fields; {COPY_AGAIN}")
    checksum.update(file.sha256.encode())
    return rows


def _check_bed(file: CheckedFile, n_samples: int, n_variants: int, checksum: hashlib._Hash) -> bool:
    """Hold the .bed's size against the two tables; whether variants are its rows."""
    if file.compression != PLAIN:
        raise file.fail("is compressed; decompress it first")
    pieces = file.text()
    start = next(pieces)[:_HEADER_BYTES]
    if (
        len(start) < _HEADER_BYTES
        or start[:2] != MAGIC
        or start[2] not in (_BY_VARIANT, _BY_SAMPLE)
    ):
        raise file.fail(
            f"starts with {start!r}, which no PLINK 1 .bed does; look whether it is another format "
            "(a .pgen needs plink2 --make-bed, an interval .bed holds no genotypes)"
        )
    for _ in pieces:  # to the end, for the checksum
        pass
    checksum.update(file.sha256.encode())
    by_variant = start[2] == _BY_VARIANT
    n_rows, n_columns = (n_variants, n_samples) if by_variant else (n_samples, n_variants)
    expected = _HEADER_BYTES + n_rows * -(-n_columns // 4)
    if file.size != expected:
        raise file.fail(
            f"has {file.size} bytes, but {n_samples} samples in the .fam and {n_variants} variants "
            f"in the .bim make {expected}; the three files do not belong together, or this one is "
            f"cut off: {COPY_AGAIN}"
        )
    return by_variant

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
from collections.abc import Iterator
from pathlib import Path
from sys import intern

import numpy as np

from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.loaders.containers import (
    BYTE_ORDER_MARK,
    COPY_AGAIN,
    PLAIN,
    CheckedFile,
    iter_lines,
)
from ancestry_ddvi.loaders.sites import MAX_POSITION, SiteRule, parse_position
from ancestry_ddvi.loaders.source import Block, Progress, Selection, Site, Source

SUFFIXES = (".bed", ".bim", ".fam")
MAGIC = b"\x6c\x1b"
_BY_VARIANT, _BY_SAMPLE = 1, 0  # the third byte: which index moves slowest
_BLOCK_BYTES = 2**18  # of dosages: what a core's cache holds
_PASSES = 8  # over a file by sample, so that a block is an eighth of the matrix
_HEADER_BYTES = 3

# Of the codes 00, 01, 10 and 11: copies of A1. A byte holds four, from its low bits on.
_OF_CODE = np.array([2, MISSING, 1, 0], dtype=np.int8)
_OF_BYTE = _OF_CODE[np.arange(256)[:, None] >> np.array([0, 2, 4, 6]) & 3].view(np.uint32).ravel()


def plink1_prefix(path: str | os.PathLike[str]) -> Path | None:
    """The name that .bed, .bim and .fam share, if `path` is one of them or that name itself.

    None if it is none of these, or what should be the .bed does not begin like one.
    """
    # Those of os.path are False, and do not raise, where a path cannot be looked at.
    given, is_file = Path(path), os.path.isfile(path)
    if is_file:
        prefix = given.with_suffix("") if given.suffix.lower() in SUFFIXES else None
    else:
        prefix = None if os.path.exists(path) else given
    if prefix is None:
        return None
    try:
        bed = given if is_file and given.suffix.lower() == ".bed" else _beside(prefix, ".bed")
        if not os.path.isfile(bed):  # to open a FIFO would wait for ever
            return None
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
        fam = list(_rows(self._files[".fam"]))
        self._checksum.update(self._files[".fam"].sha256.encode())
        self._n_variants = _count(self._files[".bim"], self._checksum)
        self._by_variant = _check_bed(
            self._files[".bed"], len(fam), self._n_variants, self._checksum
        )
        self.path = self._files[".bed"].path
        self.family_id = tuple(fields[0] for fields in fam)
        self.sample_id = tuple(fields[1] for fields in fam)

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """Yield the variants taken; see `Source`."""
        samples = slice(None) if selection.samples is None else selection.samples
        read = self._read_by_variant if self._by_variant else self._read_by_sample
        for rows, index in self._sites(selection.sites):
            yield Block(rows, read(np.array(index), samples))
            report((index[-1] + 1) / self._n_variants)

    def _read_by_variant(self, index: np.ndarray, samples: slice | np.ndarray) -> np.ndarray:
        """(k, n_selected) dosages of the variants `index`, rising and close together."""
        n_samples = len(self.sample_id)
        row_bytes = -(-n_samples // 4)
        here = index - index[0]
        size = (int(here[-1]) + 1) * row_bytes
        with open(self.path, "rb") as file:
            file.seek(_HEADER_BYTES + int(index[0]) * row_bytes)
            data = file.read(size)
        if len(data) < size:
            raise self._changed(".bed")
        packed = np.frombuffer(data, dtype=np.uint8).reshape(-1, row_bytes)
        if len(here) < len(packed):
            packed = packed[here]
        dosage: np.ndarray = _OF_BYTE[packed].view(np.int8)[:, :n_samples][:, samples]
        return dosage

    def _read_by_sample(self, index: np.ndarray, samples: slice | np.ndarray) -> np.ndarray:
        """The same of any variants; walks through the whole file."""
        from bed_reader import open_bed

        with open_bed(
            self.path,
            iid_count=len(self.sample_id),
            sid_count=self._n_variants,
            properties={"iid": None, "sid": None},
            num_threads=1,
        ) as bed:
            dosage: np.ndarray = bed.read(np.s_[samples, index], dtype="int8", order="F").T
        # bed-reader's code of a missing genotype in int8 is -127.
        np.maximum(dosage, MISSING, out=dosage)
        return dosage

    def sha256(self) -> str:
        """Of the digests of the three files."""
        return self._checksum.hexdigest()

    def _sites(self, sites: SiteRule) -> Iterator[tuple[list[Site], list[int]]]:
        """Yield the variants taken and their places in the .bim, a block of the .bed at a time."""
        width = max(1, _BLOCK_BYTES // len(self.sample_id))
        if not self._by_variant:
            width = max(width, -(-self._n_variants // _PASSES))
        rows: list[Site] = []
        index: list[int] = []
        number = -1
        for number, fields in enumerate(_rows(self._files[".bim"])):
            contig, name, _, position, alt, ref = fields
            if (at := parse_position(position)) is None:
                raise self._files[".bim"].fail(
                    f"variant {number + 1} ({name}) has position {position[:40]!r}, which is no "
                    f"whole number up to {MAX_POSITION}; correct it"
                )
            if index and number >= index[0] + width:
                yield rows, index
                rows, index = [], []
            site = (intern(contig), at, name, intern(ref.upper()))
            if sites.take(*site, (alt,)):
                rows.append((*site, intern(alt.upper())))
                index.append(number)
        if number + 1 != self._n_variants:
            raise self._changed(".bim")
        if index:
            yield rows, index

    def _changed(self, suffix: str) -> Exception:
        return self._files[suffix].fail(
            "is not what it was a moment ago; read it again once nothing writes to it"
        )


def _beside(prefix: Path, suffix: str) -> Path:
    """PREFIX.suffix; the suffix in capitals if only that exists."""
    path, capitals = Path(f"{prefix}{suffix}"), Path(f"{prefix}{suffix.upper()}")
    return capitals if os.path.exists(capitals) and not os.path.exists(path) else path


def _rows(file: CheckedFile) -> Iterator[list[str]]:
    """Yield the six fields of each line of a .bim or .fam."""
    number = 0
    empty = True
    for line in iter_lines(file.text()):
        number += 1
        if number == 1 and line.startswith(BYTE_ORDER_MARK):
            raise file.fail("begins with a byte-order mark; save it as UTF-8 without BOM")
        if b"\0" in line:  # numpy would drop it from the end of an id
            raise file.fail(f"line {number} holds a NUL byte, so it is damaged; {COPY_AGAIN}")
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 6:
            raise file.fail(f"line {number} has {len(fields)} fields, not 6; correct it")
        try:
            yield [field.decode("utf-8") for field in fields]
        except UnicodeDecodeError as fault:
            raise file.fail(f"line {number} is not UTF-8; save the file as UTF-8") from fault
        empty = False
    if empty:
        raise file.fail(f"has no line with fields; {COPY_AGAIN}")


def _count(file: CheckedFile, checksum: hashlib._Hash) -> int:
    """Lines with fields."""
    n_lines = sum(1 for line in iter_lines(file.text()) if line.strip())
    if not n_lines:
        raise file.fail(f"has no line with fields; {COPY_AGAIN}")
    checksum.update(file.sha256.encode())
    return n_lines


def _check_bed(file: CheckedFile, n_samples: int, n_variants: int, checksum: hashlib._Hash) -> bool:
    """Hold the .bed's size against the two tables; whether variants are its rows."""
    if file.compression != PLAIN:
        raise file.fail("is compressed; decompress it first")
    start = next(file.text())[:_HEADER_BYTES]
    if (
        len(start) < _HEADER_BYTES
        or start[:2] != MAGIC
        or start[2] not in (_BY_VARIANT, _BY_SAMPLE)
    ):
        raise file.fail(
            f"starts with {start!r}, which no PLINK 1 .bed does; look whether it is another format "
            "(a .pgen needs plink2 --make-bed, an interval .bed holds no genotypes)"
        )
    by_variant = start[2] == _BY_VARIANT
    n_rows, n_columns = (n_variants, n_samples) if by_variant else (n_samples, n_variants)
    n_bytes = -(-n_columns // 4)
    expected = _HEADER_BYTES + n_rows * n_bytes
    if file.size != expected:
        raise file.fail(
            f"has {file.size} bytes, but {n_samples} samples in the .fam and {n_variants} variants "
            f"in the .bim make {expected}; the three files do not belong together, or this one is "
            f"cut off: {COPY_AGAIN}"
        )
    row = _row_past_the_end(file, n_columns)  # walks to the end, for the checksum
    checksum.update(file.sha256.encode())
    if row is not None:
        table, what = (".fam", "sample") if by_variant else (".bim", "variant")
        raise file.fail(
            f"has genotypes behind its last {what} (row {row + 1}), so the {table} with its "
            f"{n_columns} {what}s is too short or another's; give the files that were written "
            "together"
        )
    return by_variant


def _row_past_the_end(file: CheckedFile, n_columns: int) -> int | None:
    """The first row whose last byte has a bit set behind the last column, or None.

    Those bits are 0 by the specification. So a table that is a few lines short is found, although
    rows of whole bytes hide it from the size.
    """
    n_bytes, n_last = -(-n_columns // 4), n_columns % 4
    found, offset = None, -_HEADER_BYTES
    for piece in file.text():
        if n_last and found is None:
            # The first byte of the piece that ends a row.
            first = n_bytes - 1 - offset if offset < 0 else (n_bytes - 1 - offset) % n_bytes
            ends = np.frombuffer(piece, np.uint8)[first::n_bytes] >> (2 * n_last)
            if ends.any():
                found = (offset + first) // n_bytes + int(np.argmax(ends > 0))
        offset += len(piece)
    return found

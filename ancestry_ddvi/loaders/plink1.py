"""PLINK 1: .bed, .bim and .fam, through bed-reader.

The .bed holds two bits a genotype and no names, so nothing in it tells a file of other samples or
variants: the three files are held against each other before a genotype is read. A1 of the .bim is
the counted allele (ALT, as plink2 has it) and A2 is REF; neither need be that of the genome.

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
_BLOCK_BYTES = 2**24
_PASSES = 8  # over a file by sample, so that a block is an eighth of the matrix
_HEADER_BYTES = 3


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
        fam = _table(self._files[".fam"], self._checksum)
        self._bim = _table(self._files[".bim"], self._checksum)
        self._by_variant = _check_bed(self._files[".bed"], len(fam), len(self._bim), self._checksum)
        self.path = self._files[".bed"].path
        self.family_id = tuple(fields[0] for fields in fam)
        self.sample_id = tuple(fields[1] for fields in fam)

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """Yield the variants taken; see `Source`."""
        from bed_reader import open_bed

        rows, index = self._sites(selection.sites)
        samples = slice(None) if selection.samples is None else selection.samples
        # A file by sample is walked whole for any block of variants: a few large ones, then.
        width = max(1, _BLOCK_BYTES // len(self.sample_id))
        if not self._by_variant:
            width = max(width, -(-len(index) // _PASSES))
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
                np.maximum(part, MISSING, out=part)
                yield Block(rows[start : start + width], part)
                report(min(1.0, (start + width) / len(index)))

    def sha256(self) -> str:
        """Of the digests of the three files."""
        return self._checksum.hexdigest()

    def _sites(self, sites: SiteRule) -> tuple[list[Site], np.ndarray]:
        """The variants taken, and their places in the .bim."""
        rows: list[Site] = []
        index = []
        for number, (contig, name, _, position, alt, ref) in enumerate(self._bim):
            if (at := parse_position(position)) is None:
                raise self._files[".bim"].fail(
                    f"variant {number + 1} ({name}) has position {position[:40]!r}, which is no "
                    f"whole number up to {MAX_POSITION}; correct it"
                )
            site = (intern(contig), at, name, intern(ref.upper()))
            if sites.take(*site, (alt,)):
                rows.append((*site, intern(alt.upper())))
                index.append(number)
        return rows, np.array(index, dtype=int)


def _beside(prefix: Path, suffix: str) -> Path:
    """PREFIX.suffix; the suffix in capitals if only that exists."""
    path, capitals = Path(f"{prefix}{suffix}"), Path(f"{prefix}{suffix.upper()}")
    return capitals if os.path.exists(capitals) and not os.path.exists(path) else path


def _table(file: CheckedFile, checksum: hashlib._Hash) -> list[list[str]]:
    """The six fields of each line of a .bim or .fam."""
    rows = []
    number = 0
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

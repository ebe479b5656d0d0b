"""PLINK 1: .bed, .bim and .fam.

The .bed holds two bits a genotype and no names, so nothing in it tells a file of other samples or
variants: the three files are held against each other before a genotype is read. A1 of the .bim is
the counted allele (ALT, as plink2 has it) and A2 is REF; neither need be that of the genome.

Reading it needs no more than a table of what each byte means, which is faster than bed-reader and
has nothing that could crash; both are held against each other in the tests. A file by variant, as
all programs write it by default, is read once from end to end, so that the checksum is of what was
decoded. The old kind, by sample, has a piece of every row read for each block.

Specification: https://www.cog-genomics.org/plink/1.9/formats#bed
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from sys import intern

import numpy as np

from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.loaders.containers import (
    BYTE_ORDER_MARK,
    CHANGED,
    COPY_AGAIN,
    PLAIN,
    CheckedFile,
    Take,
    iter_lines,
)
from ancestry_ddvi.loaders.sites import MAX_POSITION, SiteRule, counted_alt, parse_position
from ancestry_ddvi.loaders.source import Block, Progress, Selection, Site, Source

SUFFIXES = (".bed", ".bim", ".fam")
MAGIC = b"\x6c\x1b"
_BY_VARIANT, _BY_SAMPLE = 1, 0  # the third byte: which index moves slowest
_BLOCK_BYTES = 2**18  # of dosages: what a core's cache holds
# By sample: as many variants at a time as keep blocks small beside what a filter leaves of the
# matrix, and rows of many samples from being read a byte at a time.
_BY_SAMPLE_BYTES, _BY_SAMPLE_PASSES = 2**20, 128
_PIECE = 2**20
_HEADER_BYTES = 3

# Of the codes 00, 01, 10 and 11: copies of A1. A byte holds four, from its low bits on.
_OF_CODE = np.array([2, MISSING, 1, 0], dtype=np.int8)
_OF_BYTE = _OF_CODE[np.arange(256)[:, None] >> np.array([0, 2, 4, 6]) & 3].view(np.uint32).ravel()


def plink1_prefix(path: str | os.PathLike[str]) -> Path | None:
    """The name that .bed, .bim and .fam share, if `path` is one of them or that name itself.

    None if it is none of these, or what should be the .bed does not begin like one.
    """
    prefix, suffix = _split(path)
    # Those of os.path are False, and do not raise, where a path cannot be looked at.
    if not suffix and os.path.exists(path):
        return None
    try:
        bed = Path(path) if suffix == ".bed" else _beside(prefix, ".bed")
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
    path
        Any of the three files, or the name that they share.

    Raises
    ------
    GenotypeFileError
        If a file is missing or damaged, or they do not belong together.
    """

    format = "PLINK 1"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        prefix, given = _split(path)
        self._files = {
            suffix: CheckedFile(path if suffix == given else _beside(prefix, suffix))
            for suffix in SUFFIXES
        }
        fam = list(_rows(self._files[".fam"]))
        self._n_variants = _count(self._files[".bim"])
        self._by_variant = _check_bed(self._files[".bed"], len(fam), self._n_variants)
        self._digests = {
            suffix: file.sha256 for suffix, file in self._files.items() if suffix != ".bed"
        }
        self.path = self._files[".bed"].path
        self.family_id = tuple(fields[0] for fields in fam)
        self.sample_id = tuple(fields[1] for fields in fam)

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """Yield the variants taken; see `Source`."""
        samples = slice(None) if selection.samples is None else selection.samples
        if self._by_variant:
            yield from self._read_by_variant(selection.sites, samples, report)
        else:
            yield from self._read_by_sample(selection.sites, samples, report)

    def _read_by_variant(
        self, sites: SiteRule, samples: slice | np.ndarray, report: Progress
    ) -> Iterator[Block]:
        n_samples = len(self.sample_id)
        row_bytes = -(-n_samples // 4)
        check = _Padding(self._files[".bed"], n_samples, ".fam", "sample")
        with self._files[".bed"].reading() as take:
            self._take(take, _HEADER_BYTES)
            at = 0
            for rows, index in self._sites(sites):
                for n_bytes in _pieces((index[0] - at) * row_bytes, row_bytes):
                    check(np.frombuffer(self._take(take, n_bytes), np.uint8))
                at = index[-1] + 1
                data = self._take(take, (at - index[0]) * row_bytes)
                packed = check(np.frombuffer(data, np.uint8))
                if len(index) < len(packed):
                    packed = packed[np.array(index) - index[0]]
                dosage = _OF_BYTE[packed].view(np.int8)[:, :n_samples][:, samples]
                yield Block(rows, dosage)
                report(at / self._n_variants)
            for n_bytes in _pieces((self._n_variants - at) * row_bytes, row_bytes):
                check(np.frombuffer(self._take(take, n_bytes), np.uint8))
            if take(1):
                raise self._changed(".bed")
        self._check_digest(".bed")

    def _read_by_sample(
        self, sites: SiteRule, samples: slice | np.ndarray, report: Progress
    ) -> Iterator[Block]:
        self._walk()
        taken = np.arange(len(self.sample_id))[samples]
        row_bytes = -(-self._n_variants // 4)
        with self._bed() as read:
            for rows, index in self._sites(sites):
                first, end = index[0] // 4, index[-1] // 4 + 1
                packed = b"".join(
                    read(_HEADER_BYTES + int(sample) * row_bytes + first, end - first)
                    for sample in taken
                )
                codes = np.frombuffer(packed, np.uint8).reshape(len(taken), -1)
                by_sample = _OF_BYTE[codes].view(np.int8)
                yield Block(rows, by_sample.T[np.array(index) - 4 * first])
                report((index[-1] + 1) / self._n_variants)
        self._walk()  # what was read in pieces is what its checksum is of

    def sha256(self) -> str:
        """Of the digests of .fam, .bim and .bed."""
        if ".bed" not in self._digests:
            raise RuntimeError(f"{self.path}: its checksum is known once it has been read")
        checksum = hashlib.sha256()
        for suffix in (".fam", ".bim", ".bed"):
            checksum.update(self._digests[suffix].encode())
        return checksum.hexdigest()

    def _walk(self) -> None:
        """Check the rows of a file by sample, and take its checksum."""
        n_variants = self._n_variants
        row_bytes = -(-n_variants // 4)
        check = _Padding(self._files[".bed"], n_variants, ".bim", "variant")
        with self._files[".bed"].reading() as take:
            self._take(take, _HEADER_BYTES)
            for n_bytes in _pieces(len(self.sample_id) * row_bytes, row_bytes):
                check(np.frombuffer(self._take(take, n_bytes), np.uint8))
            if take(1):
                raise self._changed(".bed")
        self._check_digest(".bed")

    def _take(self, take: Take, n_bytes: int) -> bytes:
        data = take(n_bytes)
        if len(data) < n_bytes:
            raise self._changed(".bed")
        return data

    @contextmanager
    def _bed(self) -> Iterator[Callable[[int, int], bytes]]:
        """A function that reads so many bytes of the .bed from a place on."""
        bed = self._files[".bed"]
        try:
            file = open(bed.path, "rb", buffering=0)  # noqa: SIM115 - closed below
        except OSError as fault:
            raise self._changed(".bed") from fault

        def read(at: int, n_bytes: int) -> bytes:
            try:
                data = os.pread(file.fileno(), n_bytes, at)
            except OSError as fault:
                raise bed.fail(
                    f"cannot be read at byte {at} ({fault.strerror}); check the disk"
                ) from fault
            if len(data) < n_bytes:
                raise self._changed(".bed")
            return data

        with file:
            yield read

    def _check_digest(self, suffix: str) -> None:
        """Refuse a file that is another than when it was read before."""
        found = self._files[suffix].sha256
        if self._digests.setdefault(suffix, found) != found:
            raise self._changed(suffix)

    def _sites(self, sites: SiteRule) -> Iterator[tuple[list[Site], list[int]]]:
        """Yield the variants taken and their places in the .bim, a block of the .bed at a time."""
        n_samples = len(self.sample_id)
        width = max(1, _BLOCK_BYTES // n_samples)
        if not self._by_variant:
            width = max(_BY_SAMPLE_BYTES // n_samples, self._n_variants // _BY_SAMPLE_PASSES, 4)
        rows: list[Site] = []
        index: list[int] = []
        for number, fields in enumerate(_rows(self._files[".bim"])):
            if number == self._n_variants:
                raise self._changed(".bim")
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
                rows.append((*site, intern(counted_alt((alt,), 1))))
                index.append(number)
        self._check_digest(".bim")
        if index:
            yield rows, index

    def _changed(self, suffix: str) -> Exception:
        return self._files[suffix].fail(CHANGED)


def _split(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """The name without suffix, and which of `SUFFIXES` a file that exists has, or ''."""
    given = Path(path)
    suffix = given.suffix.lower()
    if suffix in SUFFIXES and os.path.isfile(path):
        return given.with_suffix(""), suffix
    return given, ""


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


def _count(file: CheckedFile) -> int:
    """Lines with fields."""
    n_lines = sum(1 for line in iter_lines(file.text()) if line.strip())
    if not n_lines:
        raise file.fail(f"has no line with fields; {COPY_AGAIN}")
    return n_lines


def _check_bed(file: CheckedFile, n_samples: int, n_variants: int) -> bool:
    """Hold the .bed's size against the two tables; whether variants are its rows."""
    if file.compression != PLAIN:
        raise file.fail("is compressed; decompress it first")
    with file.reading() as take:
        start = take(_HEADER_BYTES)
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
    return by_variant


class _Padding:
    """Checks that the bits behind the last column are 0, as the specification has it.

    So a table that is a few lines short is found, although rows of whole bytes hide it from the
    size.
    """

    def __init__(self, file: CheckedFile, n_columns: int, table: str, what: str) -> None:
        self._file, self._n_columns, self._table, self._what = file, n_columns, table, what
        self._n_rows = 0

    def __call__(self, data: np.ndarray) -> np.ndarray:
        """The next rows of the file as (n_rows, n_bytes)."""
        rows = data.reshape(-1, -(-self._n_columns // 4))
        if n_last := self._n_columns % 4:
            bad = rows[:, -1] >> (2 * n_last) > 0
            if bad.any():
                row = self._n_rows + int(np.argmax(bad)) + 1
                raise self._file.fail(
                    f"has genotypes behind its last {self._what} (row {row}), so the {self._table} "
                    f"with its {self._n_columns} {self._what}s is too short or another's; give the "
                    "files that were written together"
                )
        self._n_rows += len(rows)
        return rows


def _pieces(n_bytes: int, row_bytes: int) -> Iterator[int]:
    """Sizes of whole rows that add up to `n_bytes`."""
    step = max(1, _PIECE // row_bytes) * row_bytes
    for start in range(0, n_bytes, step):
        yield min(step, n_bytes - start)

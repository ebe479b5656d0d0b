"""VCF text: plain, gzip or bgzip.

Two ways lead to the same matrix. Lines whose calls are plain diploid ones, GT first in FORMAT, are
read here, a block at a time in numpy, every byte of every call checked; `benchmarks/reading.py`
holds that against plink2, bcftools and scikit-allel. The first line of any other kind, or with
anything wrong in it, sends the rest of the file to htslib (`loaders/htslib.py`), which reads it or
says what is wrong. What is not used is not looked at: other fields than GT, QUAL, FILTER and INFO,
and the calls of records that are left out, whose columns are counted.

Specification: https://samtools.github.io/hts-specs/VCFv4.3.pdf
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from sys import intern

import numpy as np

from ancestry_ddvi.loaders.calls import dosage_of
from ancestry_ddvi.loaders.containers import COPY_AGAIN, CheckedFile, iter_lines
from ancestry_ddvi.loaders.sites import MAX_POSITION, block_end, counted_alt
from ancestry_ddvi.loaders.source import (
    NO_GT,
    Block,
    Progress,
    Selection,
    Site,
    Source,
)

FIXED_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")
MAX_DIGITS = 20  # of a number: Python refuses to take one of thousands
CONTIG_PATTERN = re.compile(rb"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")
DOSAGE_KEYS = frozenset((b"DS", b"GP"))

_N_FIXED = len(FIXED_COLUMNS)
_CHUNK = 2**18  # of text, and
_BLOCK_BYTES = 2**18  # of calls, decoded together: what a core's cache holds
_PADDING = b"\n\n\n\n"  # words are taken at any byte, up to four beyond the last one
_START = 256  # the first nine columns are mostly shorter than this

# A call as one little-endian word: allele, separator, allele, and the tab behind it.
_HOM_REF = np.uint32(int.from_bytes(b"0/0\t", "little"))
_MISSING_CALL = np.uint32(int.from_bytes(b"./.\t", "little"))
_TAB = np.uint32(0x09000000)
_THREE_BYTES = np.uint32(0x00FFFFFF)
# Bits in which a call of alleles 0 and 1 may differ from 0/0: without and with the phase.
_ALLELE_BITS = 0x00010001
_PHASED = ord("/") ^ ord("|")
_PHASE_BITS = _PHASED << 8

_UNKNOWN_ALLELE = -99
_ALLELE = np.full(256, _UNKNOWN_ALLELE, dtype=np.int8)
_ALLELE[ord("0") : ord("9") + 1] = np.arange(10)
_ALLELE[ord(".")] = -1


class VcfSource(Source):
    """A VCF as text.

    Parameters
    ----------
    path
        Plain text, gzip or bgzip.
    fast
        False reads it through htslib alone; the result is the same.

    Raises
    ------
    GenotypeFileError
        If there is no such file, or its header is damaged.
    """

    def __init__(self, path: str | os.PathLike[str], *, fast: bool = True) -> None:
        self.path = str(path)
        self.fast = fast
        self._file = CheckedFile(path)
        self.format = f"VCF ({self._file.compression})"
        _, self.sample_id = read_header(self._file, iter_lines(self._file.text()))

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """Yield the variants taken; see `Source`."""
        n_read = 0
        if self.fast:
            reader = _Reader(self._file, len(self.sample_id), selection, report)
            yield from reader.blocks()
            if reader.at_end:
                return
            n_read = reader.n_read
        from ancestry_ddvi.loaders.htslib import HtslibSource

        rest = HtslibSource.guarded(self.path, n_skip=n_read)
        yield from rest.blocks(selection, report)
        self._sha256 = rest.sha256()

    def sha256(self) -> str:
        """Of the file, compressed if it is."""
        return getattr(self, "_sha256", None) or self._file.sha256


# The header.


def read_header(file: CheckedFile, lines: Iterator[bytes]) -> tuple[int, tuple[str, ...]]:
    """Take the header from `lines`: the number of its last line, and the sample ids."""
    for number, line in enumerate(lines, start=1):
        if b"\0" in line:
            raise file.fail(f"line {number} holds a NUL byte, so it is damaged; {COPY_AGAIN}")
        if b"\r#CHROM" in line:
            raise file.fail("has lines that end in carriage returns alone; save it with line feeds")
        if line.startswith(b"##"):
            continue
        if line.startswith(b"#CHROM"):
            return number, _sample_ids(file, number, line)
        break
    raise file.fail("its header has no #CHROM line with the sample ids; restore the header")


def _sample_ids(file: CheckedFile, number: int, line: bytes) -> tuple[str, ...]:
    place = f"line {number} (#CHROM)"
    try:
        columns = line.removesuffix(b"\r").decode().split("\t")
    except UnicodeDecodeError as fault:
        raise file.fail(
            f"{place}: byte {fault.start + 1} of the line, {line[fault.start : fault.end]!r}, is "
            "not UTF-8; rename the samples with `bcftools reheader`"
        ) from fault
    for column, expected in enumerate(FIXED_COLUMNS[: len(columns)]):
        if columns[column] != expected:
            raise file.fail(
                f"{place}: column {column + 1} is {columns[column][:40]!r}, not {expected!r}; "
                "separate the columns by tabs"
            )
    if len(columns) < _N_FIXED - 1:
        raise file.fail(f"{place}: only {len(columns)} columns; restore the header")
    if len(columns) <= _N_FIXED:
        raise file.fail(
            f"{place}: no samples, only sites; export the VCF with its genotype columns"
        )
    seen: dict[str, int] = {}
    for column, name in enumerate(columns[_N_FIXED:], start=_N_FIXED + 1):
        if not name.strip():
            raise file.fail(f"{place}: the sample id in column {column} is empty; name the sample")
        if name in seen:
            raise file.fail(
                f"{place}: sample id {name!r} occurs in columns {seen[name]} and {column}; "
                "rename one with `bcftools reheader` or drop it"
            )
        seen[name] = column
    return tuple(seen)


# Records.


class _UnusualError(Exception):
    """A line that is not for this reader: of another kind, or with something wrong in it."""


class _Reader:
    """Reads records until the end of the file or the first unusual one.

    Attributes
    ----------
    n_read
        Records read up to the last whole block; the counts of `selection` stand there, too.
    at_end
        Whether the file was read to its end.
    """

    def __init__(
        self, file: CheckedFile, n_samples: int, selection: Selection, report: Progress
    ) -> None:
        self.file, self.report, self.selection = file, report, selection
        self.n_samples = n_samples
        self.at_end = False
        self._n_seen = 0
        self._contigs: dict[bytes, str] = {}
        self._n_keys: dict[bytes, int] = {}
        self._rows: list[Site] = []
        self._alts: list[tuple[int, int]] = []  # its number among how many
        self._words = np.empty(
            (max(1, _BLOCK_BYTES // (4 * n_samples)), n_samples), dtype=np.uint32
        )
        self._mark()

    def _mark(self) -> None:
        """Remember where htslib would go on."""
        self.n_read = self._n_seen
        self._counts = (
            self.selection.sites.left_out.copy(),
            self.selection.calls.by_rule.copy(),
        )

    def blocks(self) -> Iterator[Block]:
        """Yield what was taken, in order."""
        try:
            for chunk, n_bytes in self._chunks():
                yield from self._lines(chunk, n_bytes)
                self.report(self.file.fraction_read)
            if self._rows:
                yield self._close()
        except _UnusualError:
            left_out, by_rule = self._counts
            self.selection.sites.left_out = left_out
            self.selection.calls.by_rule = by_rule
            return
        if not self._n_seen:
            raise self.file.fail(
                "has a header but no records; was it cut off, or filtered to nothing?"
            )
        self.at_end = True

    def _chunks(self) -> Iterator[tuple[bytes, int]]:
        """Text and where its last whole line ends: records, a few hundred KiB at a time.

        Behind that end come four bytes at least.
        """
        text = self.file.text()
        # The header has been looked at before: skip it.
        head, seen = bytearray(), 0
        while (at := _end_of_header(head, seen)) < 0 and (piece := next(text, b"")):
            seen = max(0, head.rfind(b"\n"))  # its lines are long, and come in pieces
            head += piece
        pieces = [bytes(head[at:])] if at >= 0 else [b""]
        del head
        size = len(pieces[0])
        for piece in text:
            pieces.append(piece)
            size += len(piece)
            if size < _CHUNK or b"\n" not in piece:
                continue
            chunk = b"".join([*pieces, _PADDING])
            cut = chunk.rindex(b"\n", 0, size) + 1
            pieces = []
            yield chunk, cut
            pieces = [chunk[cut:size]]
            size -= cut
        if size:
            yield b"".join([*pieces, _PADDING]), size

    def _lines(self, chunk: bytes, n_bytes: int) -> Iterator[Block]:
        if b"\0" in chunk:
            raise _UnusualError
        view = np.frombuffer(chunk, dtype=np.uint8)
        start = 0
        while start < n_bytes:
            end = chunk.index(b"\n", start)
            self._line(chunk, view, start, end)
            start = end + 1
            if len(self._rows) == len(self._words):
                yield self._close()

    def _line(self, chunk: bytes, view: np.ndarray, start: int, end: int) -> None:
        """Take the line chunk[start:end], or leave it out."""
        stop = min(end, start + _START)
        fields = chunk[start:stop].split(b"\t", _N_FIXED)
        if len(fields) <= _N_FIXED:
            fields = chunk[start:end].split(b"\t", _N_FIXED)
        if len(fields) <= _N_FIXED:
            raise _UnusualError
        contig, position, name, ref, alt, *_, info, keys, _ = fields
        calls = start + _N_FIXED + sum(map(len, fields[:_N_FIXED]))
        if chunk[end - 1] == 13:  # a carriage return
            end -= 1
        if contig not in self._contigs:
            if contig.startswith(b"#") or not CONTIG_PATTERN.fullmatch(contig):
                raise _UnusualError
            self._contigs[contig] = intern(contig.decode())
        if not position.isdigit() or len(position) > MAX_DIGITS or int(position) > MAX_POSITION:
            raise _UnusualError
        if not ref:
            raise _UnusualError
        n_keys = self._n_keys.get(keys)
        if n_keys is None:
            n_keys = self._n_keys[keys] = _count_keys(keys)
        self._n_seen += 1
        try:
            site = (
                self._contigs[contig],
                int(position),
                name.decode() or ".",
                ref.decode().upper(),
            )
            alts = () if alt == b"." else alt.decode().upper().split(",")
        except UnicodeDecodeError:
            raise _UnusualError from None
        sites = self.selection.sites
        taken = sites.take(*site, alts)
        if taken and n_keys == 0:
            sites.left_out[NO_GT] += 1
        rows = [(*site[:3], intern(site[3]), intern(counted_alt(alts, number))) for number in taken]
        inside = sites.inside(*site[:2], alts, block_end(info)) if sites.blocks else []
        if not (rows or inside) or n_keys == 0:
            if np.count_nonzero(view[calls:end] == 9) != self.n_samples - 1:
                raise _UnusualError
            return
        words = self._calls(view, calls, end, n_keys)
        for number, taken_row in zip([*taken, *[1] * len(inside)], rows + inside, strict=True):
            if len(self._rows) == len(self._words):
                self._words = np.concatenate([self._words, np.empty_like(self._words[:8])])
            row = self._words[len(self._rows)]
            row[:] = words
            row[-1] = (row[-1] & _THREE_BYTES) | _TAB  # what ends the line counts as a tab
            self._rows.append(taken_row)
            self._alts.append((number, len(alts)))

    def _calls(self, view: np.ndarray, start: int, end: int, n_keys: int) -> np.ndarray:
        """(n_samples,) the four bytes of each call, a tab in the place of what ends it."""
        n = self.n_samples
        if n_keys == 1 and end - start == 4 * n - 1:
            # Calls of three bytes each, if they are what they seem: that is checked with them.
            regular: np.ndarray = view[start : end + 1].view("<u4")
            return regular
        cells = view[start:end]
        starts = np.concatenate([[0], np.flatnonzero(cells == 9) + 1])
        if len(starts) != n:
            raise _UnusualError
        if (np.diff(starts, append=end - start + 1) < 2).any():  # an empty cell
            raise _UnusualError
        if np.add.reduceat(cells == 58, starts, dtype=np.int64).max() >= n_keys:
            raise _UnusualError
        unaligned = np.ndarray(len(view) - 3, dtype="<u4", buffer=view, strides=(1,))
        words = unaligned[start + starts]
        if (n_bytes := len(cells) - int(starts[-1])) < 4:  # what ends the line counts as a tab
            mask = (1 << 8 * n_bytes) - 1
            words[-1] = int(words[-1]) & mask | ord("\t") << 8 * n_bytes
        second, last = (words >> 8) & 0xFF, words >> 24
        alone = ((words & 0xFF) == ord(".")) & _ends(second)
        if not (alone | _ends(last)).all():
            raise _UnusualError
        words = (words & _THREE_BYTES) | _TAB
        words[alone] = _MISSING_CALL
        return np.asarray(words)

    def _close(self) -> Block:
        """Decode what was taken since the last block."""
        block = Block(self._rows, self._decode(self._words[: len(self._rows)]))
        self._rows, self._alts = [], []
        self._mark()
        return block

    def _decode(self, words: np.ndarray) -> np.ndarray:
        samples = slice(None) if self.selection.samples is None else self.selection.samples
        number, n_alts = np.array(self._alts).T
        difference = words ^ _HOM_REF
        bits = int(np.bitwise_or.reduce(difference, axis=None))
        if bits & ~(_ALLELE_BITS | _PHASE_BITS) == 0:
            if bits & _PHASE_BITS:
                phase = (difference >> 8) & 0xFF
                if not ((phase == 0) | (phase == _PHASED)).all():
                    raise _UnusualError
                difference &= _ALLELE_BITS
            if (number == 1).all() and n_alts.min() > 0:
                difference += difference >> 16
                return difference.astype(np.int8)[:, samples]
        first, second = _alleles(words)
        if (np.maximum(first, second).max(axis=1) > n_alts).any():
            raise _UnusualError
        first, second = first[:, samples], second[:, samples]
        try:
            return dosage_of(first, second, number[:, None], self.selection.calls)
        except ValueError:  # a half call that is an error: htslib's reader says where
            raise _UnusualError from None


def _end_of_header(text: bytearray, seen: int) -> int:
    """Where the first record starts; -1 if that is not in the text. It is not before `seen`."""
    if text.startswith(b"#CHROM"):
        start = 0
    else:
        start = text.find(b"\n#CHROM", seen) + 1
        if start == 0:
            return -1
    return text.find(b"\n", start) + 1 or -1


def _count_keys(keys: bytes) -> int:
    """Number of FORMAT keys if GT is the first; 0 if there is nothing to call genotypes from."""
    names = keys.split(b":")
    if keys != b"." and not all(names):
        raise _UnusualError
    if names[0] == b"GT":
        return len(names)
    if b"GT" in names or not DOSAGE_KEYS.isdisjoint(names):
        raise _UnusualError
    return 0


def _ends(byte: np.ndarray) -> np.ndarray:
    """Whether a byte ends a call: a tab or a colon."""
    ends: np.ndarray = (byte == 9) | (byte == 58)
    return ends


def _alleles(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(k, n) int8 first and second alleles of calls of one digit each, -1 missing."""
    separator = (words >> 8) & 0xFF
    plain = (separator == ord("/")) | (separator == ord("|"))
    plain &= (words >> 24) == 9
    first, second = _ALLELE[words & 0xFF], _ALLELE[(words >> 16) & 0xFF]
    if not plain.all() or min(first.min(), second.min()) == _UNKNOWN_ALLELE:
        raise _UnusualError
    return first, second

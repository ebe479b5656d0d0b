"""VCF and BCF through cyvcf2 (htslib): every kind of record that the specification allows.

htslib drops surplus columns, wraps an over-long position around, ends the process on an empty
FORMAT key, and may crash on worse. So a first pass verifies the container (`containers`) and, of
text, the shape of every line; and the parser runs in a process of its own (`guard`).

Specification: https://samtools.github.io/hts-specs/VCFv4.3.pdf
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count, islice
from sys import intern
from typing import Any

import numpy as np

from ancestry_ddvi.errors import InputError
from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.loaders.calls import HalfCallError, dosage_of, polyploid
from ancestry_ddvi.loaders.containers import BGZIP, COPY_AGAIN, CheckedFile, iter_lines
from ancestry_ddvi.loaders.guard import GuardedSource
from ancestry_ddvi.loaders.sites import MAX_POSITION, block_end, counted_alt
from ancestry_ddvi.loaders.source import (
    HARD_CALLED,
    NO_GT,
    NOT_DIPLOID,
    TOO_UNCERTAIN,
    Block,
    CallRule,
    Progress,
    Selection,
    Site,
    Source,
)
from ancestry_ddvi.loaders.vcf import (
    CONTIG_PATTERN,
    FIXED_COLUMNS,
    MAX_DIGITS,
    read_header,
)

BCF_MAGIC = b"BCF\x02"
_BCF_START = struct.Struct("<5xI")  # magic, minor version, and how long the text is

# htslib's log level HTS_LOG_OFF.
_SILENT = 0
_BLOCK_RECORDS = 512
_SCAN_SHARE = 0.2  # of the time: what the first pass takes of a bgzip file
_FORMAT_PATTERN = re.compile(rb"\.|[^:]+(:[^:]+)*")
_GT_PATTERN = re.compile(rb"(\d+|\.)([/|](\d+|\.))*")


class HtslibSource(Source):
    """A VCF or BCF through htslib; to be run in a process of its own (`guarded`).

    Parameters
    ----------
    path
        A VCF as text (plain, gzip or bgzip) or a BCF.
    n_skip
        Records to pass over at the start: another reader has had them.

    Raises
    ------
    GenotypeFileError
        If there is no such file, or its header cannot be parsed.
    """

    def __init__(self, path: str | os.PathLike[str], n_skip: int = 0) -> None:
        self.path = str(path)
        self.n_skip = n_skip
        self._file = CheckedFile(path)
        self._is_text = not next(self._file.text(), b"").startswith(BCF_MAGIC)
        if self._is_text:
            self.format = f"VCF ({self._file.compression})"
            _, self.sample_id = read_header(self._file, iter_lines(self._file.text()))
        else:
            if self._file.compression != BGZIP:
                raise self._file.fail(
                    f"is a BCF in {self._file.compression}; compress it with `bcftools view -O b`"
                )
            self.format = "BCF"
            self._verify_header()
            with closing(_open_reader(self._file, ())) as reader:
                self.sample_id = _checked_ids(self._file, reader.samples)

    @classmethod
    def guarded(cls, path: str | os.PathLike[str], n_skip: int = 0) -> Source:
        """The same in a process of its own."""
        return GuardedSource(cls, str(path), n_skip)

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """Yield the variants taken; see `Source`."""
        if self._is_text:
            scan = self._scan(report)
        else:
            scan = _Scan()
            for _ in self._file.text():  # whole and undamaged, before htslib sees it
                report(_SCAN_SHARE * self._file.fraction_read)
        open_block = _OpenBlock()
        n_read = 0
        with closing(self._records(scan)) as records:
            for n_read, record in enumerate(records, start=1):
                if n_read > self.n_skip:
                    self._take(record, n_read, selection, open_block)
                if n_read % _BLOCK_RECORDS == 0:
                    if open_block.rows:
                        yield open_block.close()
                    if scan.n_records:
                        done = min(1.0, n_read / scan.n_records)
                        report(_SCAN_SHARE + (1 - _SCAN_SHARE) * done)
        if open_block.rows:
            yield open_block.close()
        if n_read == 0:
            raise self._file.fail(
                "has a header but no records; was it cut off, or filtered to nothing?"
            )
        if self._is_text and n_read != scan.n_records:
            raise self._file.fail(
                f"has {n_read} records where it had {scan.n_records} a moment ago; read it again "
                "once nothing writes to it"
            )
        self._file.check_unchanged()  # htslib has read what was hashed

    def sha256(self) -> str:
        """Of the file, compressed as it is."""
        return self._file.sha256

    def _verify_header(self) -> None:
        """Check the blocks that hold a BCF's header, before htslib sees them; the rest comes later.

        So that of many files each need be read to its end but once.
        """
        text = self._file.text()
        head = bytearray()
        while len(head) < _BCF_START.size and (piece := next(text, b"")):
            head += piece
        if len(head) < _BCF_START.size:
            return  # all of it: htslib says what is wrong
        (n_text,) = _BCF_START.unpack_from(head)
        n_bytes = _BCF_START.size + n_text - len(head)
        while n_bytes > 0 and (piece := next(text, b"")):
            n_bytes -= len(piece)

    def _scan(self, report: Progress) -> _Scan:
        """Verify the container and the shape of every line."""
        lines = iter_lines(self._file.text())
        n_header_lines, sample_id = read_header(self._file, lines)
        scan = _Scan(n_columns=len(FIXED_COLUMNS) + len(sample_id))
        for scan.n_records, line in enumerate(lines, start=1):
            if fault := scan.fault(line):
                raise self._file.fail(f"line {n_header_lines + scan.n_records} {fault}")
            if scan.n_records % _BLOCK_RECORDS == 0:
                report(_SCAN_SHARE * self._file.fraction_read)
        if scan.n_records == 0:
            raise self._file.fail(
                "has a header but no records; was it cut off, or filtered to nothing?"
            )
        return scan

    def _records(self, scan: _Scan) -> Generator[Any, None, None]:
        """Yield cyvcf2's records, its bare exceptions turned into errors that name the record."""
        contigs = [contig.decode() for contig in scan.contigs]
        with closing(_open_reader(self._file, contigs)) as reader:
            for number in count(1):
                try:
                    record = next(reader)
                except StopIteration:
                    return
                except Exception as fault:  # cyvcf2 raises nothing narrower
                    raise self._record_error(number) from fault
                yield record

    def _take(self, record: Any, number: int, selection: Selection, open_block: _OpenBlock) -> None:
        """Take a record's variants, or count why not."""
        try:
            site = (
                intern(record.CHROM),
                int(record.POS),
                record.ID or ".",
                intern(record.REF.upper()),
            )
            alts = [intern(alt.upper()) for alt in record.ALT]
            sites = selection.sites
            taken = sites.take(*site, alts)
            # Text, where the header does not declare it.
            end = block_end(f"END={record.INFO.get('END')}".encode()) if sites.blocks else None
            inside = sites.inside(*site[:2], alts, end)
            if not (taken or inside):
                return
            calls = _calls(record, len(alts), taken or (1,), selection)
        except HalfCallError as fault:
            columns = selection.samples
            column = fault.at[-1] if columns is None else int(columns[fault.at[-1]])
            raise self._file.fail(
                f"record {number} ({record.CHROM}:{record.POS}): sample "
                f"{self.sample_id[column]} has a half call; say what it means with --half-calls"
            ) from fault
        except _WrongDosageError as fault:
            raise self._file.fail(
                f"record {number} ({record.CHROM}:{record.POS}): {fault}"
            ) from fault
        except ValueError as fault:  # also a UnicodeDecodeError from cyvcf2
            raise self._record_error(number) from fault
        for alt in taken:
            if isinstance(calls, str):
                selection.sites.left_out[calls] += 1
            else:
                open_block.rows.append((*site, intern(counted_alt(alts, alt))))
                open_block.dosage.append(calls[alt])
        if inside and not isinstance(calls, str):
            open_block.rows += inside
            open_block.dosage += [calls[1]] * len(inside)

    def _record_error(self, number: int) -> InputError:
        """Find the text of a record that was refused, and say what is wrong with it."""
        if not self._is_text:
            return self._file.fail(
                f"record {number} cannot be parsed; look for htslib's reason with `bcftools view`"
            )
        lines = iter_lines(CheckedFile(self.path).text())
        records = (line for line in lines if not line.startswith(b"#"))
        line = next(islice(records, number - 1, None), b"").removesuffix(b"\r")
        contig, position, *_ = columns = line.split(b"\t")
        place = f"record {number} ({_shown(contig)}:{_shown(position)})"
        keys = columns[8].split(b":")
        n_alts = 0 if columns[4] == b"." else columns[4].count(b",") + 1
        for name, cell in zip(self.sample_id, columns[9:], strict=True):
            values = cell.split(b":")
            if len(values) > len(keys):
                return self._file.fail(
                    f"{place}: sample {name} has {len(values)} values for the {len(keys)} of "
                    "FORMAT; correct the record"
                )
            if b"GT" not in keys[: len(values)]:
                continue
            call = values[keys.index(b"GT")]
            if not _GT_PATTERN.fullmatch(call):
                return self._file.fail(
                    f"{place}: sample {name} has genotype '{_shown(call)}'; correct it"
                )
            alleles = re.findall(rb"\d+", call)
            if any(len(a) > MAX_DIGITS or int(a) > n_alts for a in alleles):
                has = "one ALT" if n_alts == 1 else f"{n_alts} ALT alleles"
                return self._file.fail(
                    f"{place}: sample {name} has genotype '{_shown(call)}', but the record has "
                    f"{has}; correct it"
                )
        return self._file.fail(
            f"{place}: cannot be parsed; look for htslib's reason with `bcftools view`"
        )


class _WrongDosageError(ValueError):
    """A DS or GP that can be none; says so."""


@dataclass
class _OpenBlock:
    """Variants of the block that is being filled."""

    rows: list[Site] = field(default_factory=list)
    dosage: list[np.ndarray] = field(default_factory=list)

    def close(self) -> Block:
        """The block; what follows goes into a new one."""
        block = Block(self.rows, np.stack(self.dosage))
        self.rows, self.dosage = [], []
        return block


def _open_reader(file: CheckedFile, contigs: Any) -> Any:
    """cyvcf2's reader, kept away from what makes cyvcf2 0.35 crash.

    These are `lazy=True`, and a malformed record on a contig that the header does not declare.
    """
    from cyvcf2 import VCF
    from cyvcf2.cyvcf2 import set_htslib_log_level

    set_htslib_log_level(_SILENT)  # those findings that matter come back as exceptions
    try:
        # An absolute path, because htslib takes "-", "data:..." and the like for streams.
        reader = VCF(os.path.abspath(file.path))
        for contig in set(contigs).difference(reader.seqnames):
            reader.add_to_header(f"##contig=<ID={contig}>")
    except Exception as fault:  # cyvcf2 raises nothing narrower
        raise file.fail(
            f"its header cannot be parsed ({fault}); check it with `bcftools view -h`"
        ) from fault
    return reader


def _checked_ids(file: CheckedFile, names: list[str]) -> tuple[str, ...]:
    """Sample ids of a BCF's header; htslib itself refuses duplicates."""
    if not names:
        raise file.fail("no samples, only sites; export it with its genotype columns")
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise file.fail(f"the id of sample {number} is empty; name the sample")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise file.fail(f"sample id {twice!r} occurs more than once; rename or drop one")
    return tuple(names)


def _calls(
    record: Any, n_alts: int, taken: Sequence[int], selection: Selection
) -> dict[int, np.ndarray] | str:
    """Dosage of the selected samples by number of the ALT allele taken, or why there is none.

    ValueError: the record contradicts itself.
    """
    keys = record.FORMAT
    samples = slice(None) if selection.samples is None else selection.samples
    if "GT" in keys:
        # (n_samples, ploidy + 1): allele indices, -1 missing, -2 padding; the last is the phase.
        alleles = record.genotype.array()[:, :-1]
        if alleles.max() > n_alts:
            raise ValueError("an allele index is above the number of ALT alleles")
        alleles = alleles[samples]
        if polyploid(alleles).any():
            return NOT_DIPLOID
        first = alleles[:, 0]
        second = alleles[:, 1] if alleles.shape[1] > 1 else np.full_like(first, -2)
        return {alt: dosage_of(first, second, alt, selection.calls) for alt in taken}
    if n_alts != 1:  # neither DS nor GP says which alleles the dosage is of
        return NO_GT
    imputed = _imputed(record, keys)
    if imputed is None:
        return NO_GT
    dosage, doubt = (values[samples] for values in imputed)
    return {1: hard_call(dosage, doubt, selection.calls)}


def _imputed(record: Any, keys: list[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """(n_samples,) dosage of the ALT allele from DS or GP, nan where missing, and how far it is
    from a call: from the nearest whole number, or the probability of all but the likeliest.

    The dosage that GP expects would not do: it is 1 where nothing is known.
    """
    if "DS" in keys:
        dosage: np.ndarray = _numbers(record, "DS")[:, 0]
    elif "GP" in keys:
        values = _numbers(record, "GP")
        if values.shape[1] != 3:
            raise _WrongDosageError(
                f"GP has {values.shape[1]} numbers, not three probabilities; correct it"
            )
        total = values.sum(axis=1)
        bad = (values < 0).any(axis=1) | (np.abs(total - 1) > 0.05)
        if bad.any():
            raise _WrongDosageError("GP has numbers that do not add up to 1; correct them")
        likeliest = np.where(np.isnan(total), np.nan, values.argmax(axis=1))
        return likeliest, 1 - values.max(axis=1) / total
    else:
        return None
    if ((dosage < 0) | (dosage > 2)).any():
        raise _WrongDosageError("DS has a number that is not from 0 to 2; correct it")
    return dosage, np.abs(dosage - np.rint(dosage))


def _numbers(record: Any, key: str) -> np.ndarray:
    """(n_samples, n) values of a FORMAT key."""
    try:
        values = record.format(key)
    except KeyError:  # the line in the header has no Type
        values = None
    if getattr(values, "ndim", 0) != 2 or values.dtype.kind not in "if":
        raise _WrongDosageError(
            f"the header does not declare {key} as numbers; add its ##FORMAT line, Type=Float"
        )
    return np.asarray(values, dtype=float)


def hard_call(dosage: np.ndarray, doubt: np.ndarray, calls: CallRule) -> np.ndarray:
    """int8 calls of real dosages (nan for missing): the nearest whole number, if near enough."""
    nearest = np.rint(dosage)
    # A tolerance for what single precision makes of .1.
    near = doubt <= calls.hard_call_threshold + 1e-6
    known = ~np.isnan(dosage)
    calls.by_rule[HARD_CALLED] += int(np.count_nonzero(known & near))
    if n_uncertain := int(np.count_nonzero(known & ~near)):
        calls.by_rule[TOO_UNCERTAIN] += n_uncertain
    return np.where(known & near, nearest, MISSING).astype(np.int8)


@dataclass
class _Scan:
    """Checks that lines have the shape which htslib takes for granted."""

    n_columns: int = 0
    n_records: int = 0
    contigs: dict[bytes, None] = field(default_factory=dict)  # a set that keeps its order
    formats: set[bytes] = field(default_factory=set)

    def fault(self, line: bytes) -> str | None:
        """What is wrong with the line, with the remedy; None if nothing is."""
        if b"\0" in line:
            return f"holds a NUL byte, so it is damaged; {COPY_AGAIN}"
        if line.startswith(b"#"):
            return "is a header line among the records; join files with `bcftools concat`"
        if line.count(b"\t") != self.n_columns - 1:
            return self._wrong_columns(line)
        contig, position, name, *_, keys, _ = line.split(b"\t", len(FIXED_COLUMNS))
        if contig not in self.contigs:
            if not CONTIG_PATTERN.fullmatch(contig):
                return (
                    f"has the contig name '{_shown(contig)}', which VCF does not allow; rename it"
                )
            self.contigs[contig] = None
        is_number = position.isdigit() and len(position) <= MAX_DIGITS
        if not (is_number and int(position) <= MAX_POSITION):
            return (
                f"has the position '{_shown(position)}' on contig {_shown(contig)}, which is not a "
                f"whole number up to {MAX_POSITION}; correct it"
            )
        if not name.isascii() and not _is_utf8(name):  # cyvcf2 would put other letters there
            return (
                f"({_shown(contig)}:{_shown(position)}) has the id {name[:40]!r}, which is not "
                "UTF-8; convert the file, e.g. with iconv"
            )
        if keys not in self.formats:
            if not _FORMAT_PATTERN.fullmatch(keys):
                return f"has the FORMAT '{_shown(keys)}', which VCF does not allow; correct it"
            self.formats.add(keys)
        return None

    def _wrong_columns(self, line: bytes) -> str:
        if not line.strip():
            return "is empty; remove it"
        place = ":".join(_shown(text) for text in line.split(b"\t", 2)[:2])
        n_found = line.count(b"\t") + 1
        return (
            f"({place}) has {n_found} columns, not {self.n_columns} as the header; "
            "the file may be cut off or badly edited: make it again"
        )


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(text: bytes) -> str:
    """Bytes of the file as they can stand in a message of one line."""
    return ascii(text[:40].decode(errors="replace"))[1:-1]

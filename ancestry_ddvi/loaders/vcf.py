"""VCF: plain text, gzip or bgzip, through cyvcf2 (htslib).

Two passes. The first verifies the container (`containers`) and the shape of every line, because
htslib drops surplus columns, wraps an over-long position around, and ends the process on an empty
FORMAT key. The second parses the genotypes, a block of records at a time.

Specification: https://samtools.github.io/hts-specs/VCFv4.3.pdf
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count, islice
from sys import intern
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.genotypes import MISSING, VARIANT_COLUMNS, GenotypeMatrix
from ancestry_ddvi.loaders.containers import COPY_AGAIN, CheckedFile, iter_lines
from ancestry_ddvi.loaders.sites import DUPLICATED, reason_to_leave_out

Progress = Callable[[float], None]

FIXED_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT")

NO_GT = "no GT in this record"
NOT_DIPLOID = "not diploid"

# What cyvcf2's `genotype.array()` holds beside allele indices.
_MISSING_ALLELE, _PADDING = -1, -2

# htslib's log levels: HTS_LOG_OFF and its default, HTS_LOG_WARNING.
_HTSLIB_SILENT, _HTSLIB_DEFAULT = 0, 3

_MAX_POSITION = 2**31 - 1
_BLOCK_RECORDS = 512
_SCAN_SHARE = 0.2  # of the time: what the first pass takes of a bgzip file
_CONTIG_PATTERN = re.compile(rb"[0-9A-Za-z!#$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")
_FORMAT_PATTERN = re.compile(rb"\.|[^:]+(:[^:]+)*")
_GT_PATTERN = re.compile(rb"(\d+|\.)([/|](\d+|\.))*")


def read_vcf(path: str | os.PathLike[str], progress: Progress | None = None) -> GenotypeMatrix:
    """Read the diploid genotypes at biallelic autosomal SNPs of a VCF.

    The dosage counts ALT alleles; phase is ignored, and a call with any missing allele is missing.
    Records of any other kind are left out and counted by reason.

    Parameters
    ----------
    path
        A VCF: plain text, gzip or bgzip.
    progress
        Called now and then with the fraction done, never falling, at last 1.

    Returns
    -------
    GenotypeMatrix
        `dosage` of shape (n_samples, n_variants), C-contiguous. While reading, memory peaks at
        about twice its size.

    Raises
    ------
    GenotypeFileError
        If the file is missing or damaged, a line is malformed, or nothing usable is in it.
    """
    report = progress or _no_progress
    file = CheckedFile(path)
    layout = _scan(file, report)
    matrix = _assemble(file, layout, _parse(file, layout, report))
    report(1.0)
    return matrix


def _no_progress(fraction: float) -> None:
    """Stand in for a progress callback that was not given."""


# First pass: the container and the shape of every line.


@dataclass(frozen=True)
class _Layout:
    """What the first pass learnt."""

    sample_id: tuple[str, ...]
    contigs: tuple[str, ...]
    n_records: int


def _scan(file: CheckedFile, report: Progress) -> _Layout:
    """Verify the container and the shape of every line."""
    lines = iter_lines(file.text())
    n_header_lines, sample_id = _read_header(file, lines)
    check = _LineCheck(n_columns=len(FIXED_COLUMNS) + len(sample_id))
    n_records = 0
    for n_records, line in enumerate(lines, start=1):
        if fault := check.fault(line):
            raise file.fail(f"line {n_header_lines + n_records} {fault}")
        if n_records % _BLOCK_RECORDS == 0:
            report(_SCAN_SHARE * file.fraction_read)
    if n_records == 0:
        raise file.fail("has a header but no records; was it cut off, or filtered to nothing?")
    return _Layout(sample_id, tuple(contig.decode() for contig in check.contigs), n_records)


def _read_header(file: CheckedFile, lines: Iterator[bytes]) -> tuple[int, tuple[str, ...]]:
    """Take the header from `lines`: the number of its last line, and the sample ids."""
    for number, line in enumerate(lines, start=1):
        if b"\0" in line:
            raise file.fail(f"line {number} holds a NUL byte, so it is damaged; {COPY_AGAIN}")
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
    n_fixed = len(FIXED_COLUMNS)
    for column, expected in enumerate(FIXED_COLUMNS[: len(columns)]):
        if columns[column] != expected:
            raise file.fail(
                f"{place}: column {column + 1} is {columns[column][:40]!r}, not {expected!r}; "
                "separate the columns by tabs"
            )
    if len(columns) < n_fixed - 1:
        raise file.fail(f"{place}: only {len(columns)} columns; restore the header")
    if len(columns) <= n_fixed:
        raise file.fail(
            f"{place}: no samples, only sites; export the VCF with its genotype columns"
        )
    seen: dict[str, int] = {}
    for column, name in enumerate(columns[n_fixed:], start=n_fixed + 1):
        if not name.strip():
            raise file.fail(f"{place}: the sample id in column {column} is empty; name the sample")
        if name in seen:
            raise file.fail(
                f"{place}: sample id {name!r} occurs in columns {seen[name]} and {column}; "
                "rename one with `bcftools reheader` or drop it"
            )
        seen[name] = column
    return tuple(seen)


@dataclass
class _LineCheck:
    """Checks that a line of a record has the shape which htslib takes for granted."""

    n_columns: int
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
        contig, position, *_, keys, _ = line.split(b"\t", len(FIXED_COLUMNS))
        if contig not in self.contigs:
            if not _CONTIG_PATTERN.fullmatch(contig):
                return (
                    f"has the contig name '{_shown(contig)}', which VCF does not allow; rename it"
                )
            self.contigs[contig] = None
        if not (position.isdigit() and int(position) <= _MAX_POSITION):
            return (
                f"has the position '{_shown(position)}' on contig {_shown(contig)}, which is not a "
                f"whole number up to {_MAX_POSITION}; correct it"
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


def _shown(text: bytes) -> str:
    """Bytes of the file as they can stand in a message of one line."""
    return ascii(text[:40].decode(errors="replace"))[1:-1]


# Second pass: the genotypes.


@dataclass
class _Kept:
    """Kept records as they come.

    Attributes
    ----------
    rows
        (contig, position, id, ref, alt) of every kept record.
    blocks
        (n_records_of_block, n_samples) int8 each: a row a record, as the file has them.
    left_out
        Records left out, by reason.
    """

    rows: list[tuple[str, int, str, str, str]] = field(default_factory=list)
    blocks: list[np.ndarray] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    _open_block: list[np.ndarray] = field(default_factory=list)

    def take(self, variant: Any) -> None:
        """Keep a record, or count why not. ValueError: it contradicts itself."""
        reason = _reason_to_leave_out(variant)
        if reason is None:
            dosage = diploid_dosage(variant.genotype.array())
            if dosage is not None:
                self.rows.append(_row(variant))
                self._open_block.append(dosage)
                return
            reason = NOT_DIPLOID
        self.left_out[reason] += 1

    def close_block(self) -> None:
        """Pack the dosages of the last records into one array."""
        if self._open_block:
            self.blocks.append(np.stack(self._open_block))
            self._open_block = []


def _parse(file: CheckedFile, layout: _Layout, report: Progress) -> _Kept:
    """Parse every record; keep those of use."""
    kept = _Kept()
    n_read = 0
    with closing(_variants(file, layout)) as variants:
        for n_read, variant in enumerate(variants, start=1):
            try:
                kept.take(variant)
            except ValueError as fault:  # also a UnicodeDecodeError from cyvcf2
                raise _record_error(file, layout, n_read) from fault
            if n_read % _BLOCK_RECORDS == 0:
                kept.close_block()
                report(_SCAN_SHARE + (1 - _SCAN_SHARE) * min(1.0, n_read / layout.n_records))
    kept.close_block()
    if n_read != layout.n_records:
        raise file.fail(
            f"has {n_read} records where it had {layout.n_records} a moment ago; read it again "
            "once nothing writes to it"
        )
    return kept


def _variants(file: CheckedFile, layout: _Layout) -> Generator[Any, None, None]:
    """Yield cyvcf2's records, its bare exceptions turned into errors that name the record."""
    from cyvcf2.cyvcf2 import set_htslib_log_level

    # htslib writes its findings to the terminal; those that matter come back as exceptions.
    set_htslib_log_level(_HTSLIB_SILENT)
    try:
        with closing(_open_reader(file, layout)) as reader:
            for number in count(1):
                try:
                    variant = next(reader)
                except StopIteration:
                    return
                except Exception as fault:  # cyvcf2 raises nothing narrower
                    raise _record_error(file, layout, number) from fault
                yield variant
    finally:
        set_htslib_log_level(_HTSLIB_DEFAULT)


def _open_reader(file: CheckedFile, layout: _Layout) -> Any:
    """cyvcf2's reader, kept away from what makes cyvcf2 0.35 crash.

    These are `lazy=True`, and a malformed record on a contig that the header does not declare.
    """
    from cyvcf2 import VCF

    try:
        # An absolute path, because htslib takes "-", "data:..." and the like for streams.
        reader = VCF(os.path.abspath(file.path))
        for contig in set(layout.contigs).difference(reader.seqnames):
            reader.add_to_header(f"##contig=<ID={contig}>")
    except Exception as fault:  # cyvcf2 raises nothing narrower
        raise file.fail(
            f"its header cannot be parsed ({fault}); check it with `bcftools view -h`"
        ) from fault
    return reader


def _row(variant: Any) -> tuple[str, int, str, str, str]:
    """The record's row of the variant table."""
    alt = variant.ALT[0] if variant.ALT else "."
    # A handful of contigs and alleles repeats in every record: keep each once.
    return (
        intern(variant.CHROM),
        variant.POS,
        variant.ID or ".",
        intern(variant.REF.upper()),
        intern(alt.upper()),
    )


def _reason_to_leave_out(variant: Any) -> str | None:
    """Why a record is no biallelic autosomal SNP with genotypes, or None if it is one."""
    if "GT" not in variant.FORMAT:
        return NO_GT
    return reason_to_leave_out(variant.CHROM, variant.REF, variant.ALT)


def diploid_dosage(calls: np.ndarray) -> np.ndarray | None:
    """Turn allele indices of a biallelic record into dosages.

    Parameters
    ----------
    calls
        (n_samples, ploidy + 1) int16, as cyvcf2's `genotype.array()`: alleles 0 or 1, -1 missing,
        -2 padding of a shorter genotype; the last column is the phase.

    Returns
    -------
    np.ndarray or None
        (n_samples,) int8; None if a sample's call is not diploid. A lone `.` is a missing call of
        unknown ploidy, and so a missing dosage.

    Raises
    ------
    ValueError
        If an allele index is above 1.
    """
    if calls.max() > 1:  # the phase in the last column is 0 or 1
        raise ValueError("an allele index is above 1, in a record with one ALT")
    first = calls[:, 0]
    second = calls[:, 1] if calls.shape[1] > 2 else np.full_like(first, _PADDING)
    haploid = (second == _PADDING) & (first != _MISSING_ALLELE)
    if haploid.any() or (calls[:, 2:-1] != _PADDING).any():
        return None
    missing = (first < 0) | (second < 0)
    return np.where(missing, MISSING, first + second).astype(np.int8)


def _record_error(file: CheckedFile, layout: _Layout, number: int) -> Exception:
    """Find the text of a record that was refused, and say what is wrong with it."""
    lines = iter_lines(CheckedFile(file.path).text())
    records = (line for line in lines if not line.startswith(b"#"))
    line = next(islice(records, number - 1, None), b"").removesuffix(b"\r")
    contig, position, *_ = columns = line.split(b"\t")
    place = f"record {number} ({_shown(contig)}:{_shown(position)})"
    keys = columns[8].split(b":")
    for name, cell in zip(layout.sample_id, columns[9:], strict=True):
        values = cell.split(b":")
        if len(values) > len(keys):
            return file.fail(
                f"{place}: sample {name} has {len(values)} values for the {len(keys)} of FORMAT; "
                "correct the record"
            )
        if b"GT" not in keys[: len(values)]:
            continue
        call = values[keys.index(b"GT")]
        if not _GT_PATTERN.fullmatch(call):
            return file.fail(f"{place}: sample {name} has genotype '{_shown(call)}'; correct it")
        if any(int(allele) > 1 for allele in re.findall(rb"\d+", call)):
            return file.fail(
                f"{place}: sample {name} has genotype '{_shown(call)}', but the record has one "
                "ALT; correct it"
            )
    return file.fail(f"{place}: cannot be parsed; look for htslib's reason with `bcftools view`")


# Together: the matrix.


def _assemble(file: CheckedFile, layout: _Layout, kept: _Kept) -> GenotypeMatrix:
    """Drop duplicated sites and turn blocks of records into (n_samples, n_variants)."""
    variants = pd.DataFrame(kept.rows, columns=list(VARIANT_COLUMNS))
    duplicated = variants.duplicated(["contig", "position", "ref", "alt"]).to_numpy()
    if n_duplicated := int(duplicated.sum()):
        kept.left_out[DUPLICATED] = n_duplicated
    if variants.empty:
        raise _nothing_kept(file, layout, kept)
    dosage = np.empty((len(layout.sample_id), int((~duplicated).sum())), dtype=np.int8)
    start = done = 0
    for block in kept.blocks:
        use = ~duplicated[start : start + len(block)]
        start += len(block)
        dosage[:, done : done + use.sum()] = block[use].T
        done += use.sum()
    return GenotypeMatrix(
        dosage=dosage,
        sample_id=np.array(layout.sample_id),
        variants=variants[~duplicated].reset_index(drop=True),
        source={
            "path": file.path,
            "format": f"VCF ({file.compression})",
            "sha256": file.sha256,
        },
        left_out=dict(kept.left_out),
    )


def _nothing_kept(file: CheckedFile, layout: _Layout, kept: _Kept) -> Exception:
    if kept.left_out[NO_GT] == layout.n_records:
        return file.fail(
            f"none of its {layout.n_records} records has GT in FORMAT; export the VCF with called "
            "genotypes"
        )
    reasons = ", ".join(f"{n} {reason}" for reason, n in kept.left_out.most_common())
    return file.fail(
        f"no biallelic autosomal SNP among its {layout.n_records} records ({reasons}); give a VCF "
        "with such SNPs"
    )

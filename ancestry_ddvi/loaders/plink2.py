"""PLINK 2: .pgen, .pvar (also .pvar.zst) and .psam, through Pgenlib.

The .pgen holds genotypes and no names, so the three files are held against each other before a
genotype is read. It has no checksum either: what the header can show is checked (`pgen_header`),
and this source is to run in a `GuardedSource` for the rest. Dosages are taken as the hard calls
which plink2 stores beside them, and haploid calls as the diploid ones that it makes of them.

Specifications: https://www.cog-genomics.org/plink/2.0/formats#pvar and #psam,
https://github.com/chrchang/plink-ng/tree/master/pgen_spec
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

import numpy as np

from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.loaders.containers import BYTE_ORDER_MARK, COPY_AGAIN, CheckedFile, iter_lines
from ancestry_ddvi.loaders.pgen_header import PgenHeader, is_pgen, read_pgen_header
from ancestry_ddvi.loaders.sites import MAX_POSITION, SiteRule, counted_alt, parse_position
from ancestry_ddvi.loaders.source import Block, Progress, Selection, Site, Source

SUFFIXES = (".pgen", ".pvar.zst", ".pvar", ".psam")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"

_SITE_COLUMNS = ("#CHROM", "POS", "ID", "REF", "ALT")
# Without a header line the .pvar is a .bim, and the .psam a .fam.
_BIM = {6: ("#CHROM", "ID", "CM", "POS", "ALT", "REF"), 5: ("#CHROM", "ID", "POS", "ALT", "REF")}
_FAM = ("#FID", "IID", "PAT", "MAT", "SEX", "PHENO1")

_BLOCK_VARIANTS = 4096
_BLOCK_BYTES = 2**20
_ZSTD_PIECE = 2**14  # of 16 KiB a hostile file can make 512 MiB, not more
_REPORT_LINES = 2**14
_HASHED, _TAKEN = 0.1, 0.3  # of the time, when the .pgen has been hashed and the .pvar read


def plink2_prefix(path: str | os.PathLike[str]) -> Path | None:
    """The name that .pgen, .pvar and .psam share, if `path` is one of them or that name itself.

    None if it is none of these, or what should be the .pgen does not begin like one.
    """
    given = Path(path)
    prefix, suffix = _split(given)
    # Those of os.path are False, and do not raise, where a path cannot be looked at.
    if not suffix and os.path.exists(path):
        return None
    try:
        pgen = given if suffix == ".pgen" else _beside(prefix)
        if not os.path.isfile(pgen):  # to open a FIFO would wait for ever
            return None
        with open(pgen, "rb") as file:
            return prefix if is_pgen(file.read(3)) else None
    except (OSError, ValueError):  # no such file, or a path that cannot be one
        return None


class Plink2Source(Source):
    """A PLINK 2 set; sample ids are the IID.

    Parameters
    ----------
    path
        Any of the three files, or the name that they share. Where PREFIX.pvar and PREFIX.pvar.zst
        both exist, the former is read, as `plink2 --pfile` does, unless the latter is given.

    Raises
    ------
    GenotypeFileError
        If a file is missing or damaged, they do not belong together, or an id occurs twice.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = Path(path)
        prefix, suffix = _split(given)
        self._pgen = CheckedFile(given if suffix == ".pgen" else _beside(prefix))
        self.path = self._pgen.path
        self._header = read_pgen_header(self._pgen)
        self._pvar = CheckedFile(given if suffix.startswith(".pvar") else _pvar_beside(prefix))
        psam = CheckedFile(given if suffix == ".psam" else _beside(prefix, ".psam"))
        self.sample_id, self.family_id = _read_psam(psam)
        if len(self.sample_id) != self._header.n_samples:
            raise psam.fail(
                f"has {len(self.sample_id)} samples, but {self.path} has {self._header.n_samples}; "
                "give the files that were written together"
            )
        hard_called = ", its dosages as hard-called by plink2" if self._header.has_dosages else ""
        self.format = f"PLINK 2{hard_called}"
        self._psam_sha256 = psam.sha256
        self._sha256: str | None = None

    def blocks(self, selection: Selection, report: Progress) -> Iterator[Block]:
        """As `Source.blocks`."""
        for _ in self._pgen.text():  # to the end, for the checksum
            report(_HASHED * self._pgen.fraction_read)
        variants = _read_pvar(
            self._pvar,
            selection.sites,
            self._header,
            lambda fraction: report(_HASHED + (_TAKEN - _HASHED) * fraction),
        )
        checksum = hashlib.sha256()
        for digest in (self._psam_sha256, self._pvar.sha256, self._pgen.sha256):
            checksum.update(digest.encode())
        self._sha256 = checksum.hexdigest()
        n_rows = len(variants.rows)
        n_samples = len(self.sample_id if selection.samples is None else selection.samples)
        step = max(1, min(_BLOCK_VARIANTS, _BLOCK_BYTES // max(1, n_samples)))
        if n_rows:
            with self._reader(variants) as reader:
                take = _SampleSubset(reader, selection.samples)
                several = variants.several_alts & selection.calls.others_missing
                for start in range(0, n_rows, step):
                    part = slice(start, start + step)
                    dosage = self._dosage(
                        take, variants.index[part], variants.alt[part], several[part]
                    )
                    yield Block(variants.rows[part], dosage)
                    report(_TAKEN + (1 - _TAKEN) * min(1.0, (start + step) / n_rows))
            self._pgen.check_unchanged()  # Pgenlib has read what was hashed
        report(1.0)

    def sha256(self) -> str:
        """SHA-256 over those of .psam, .pvar and .pgen, in hex."""
        if self._sha256 is None:
            raise RuntimeError(f"{self.path}: its checksum is known once it has been read")
        return self._sha256

    def _reader(self, variants: _Variants) -> Any:
        from pgenlib import PgenReader

        try:
            # Without the offsets Pgenlib reads a multiallelic record wrong, and says nothing.
            return PgenReader(
                os.fsencode(os.path.abspath(self.path)),
                raw_sample_ct=self._header.n_samples,
                variant_ct=self._header.n_variants,
                allele_idx_offsets=variants.allele_offsets,
            )
        except RuntimeError as fault:
            raise self._refused(fault) from fault

    def _dosage(
        self, take: _SampleSubset, index: np.ndarray, alt: np.ndarray, several: np.ndarray
    ) -> np.ndarray:
        """Copies of the alleles `alt`; of the records `several` none where there is a third."""
        try:
            if (alt == 1).all() and not several.any():
                return take(index, 1)
            dosage = np.empty((len(index), take.n_samples), dtype=np.int8)
            for number in np.unique(alt):
                dosage[alt == number] = take(index[alt == number], int(number))
                if (which := several & (alt == number)).any():
                    there = dosage[which]
                    there[there + take(index[which], 0) != 2] = MISSING
                    dosage[which] = there
            return dosage
        except RuntimeError as fault:
            raise self._refused(fault) from fault

    def _refused(self, fault: RuntimeError) -> Exception:
        self._pgen.check_unchanged()
        said = fault.args[0] if fault.args else ""
        words = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
        return self._pgen.fail(f"damaged: Pgenlib says '{words.strip()}'; {COPY_AGAIN}")


class _SampleSubset:
    """Reads the samples that were selected, in the order wanted."""

    def __init__(self, reader: Any, samples: np.ndarray | None) -> None:
        self._reader = reader
        self._order: np.ndarray | None = None
        self.n_samples = reader.get_raw_sample_ct()
        if samples is None:
            return
        self.n_samples = len(samples)
        in_order = np.sort(samples).astype(np.uint32)  # as Pgenlib wants them
        if not np.array_equal(in_order, samples):
            self._order = np.searchsorted(in_order, samples)
        if len(samples):
            reader.change_sample_subset(in_order)

    def __call__(self, index: np.ndarray, alt: int) -> np.ndarray:
        """(n_variants, n_samples) int8 copies of an ALT allele."""
        dosage = np.empty((len(index), self.n_samples), dtype=np.int8)
        if not self.n_samples:
            return dosage
        self._reader.read_list(index, dosage, allele_idx=alt)
        np.maximum(dosage, MISSING, out=dosage)  # Pgenlib's code of a missing genotype is -9
        return dosage if self._order is None else dosage[:, self._order]


@dataclass(frozen=True)
class _Variants:
    """What was taken of the .pvar.

    Attributes
    ----------
    rows
        A `Site` for each variant taken.
    index, alt
        (n_rows,) uint32 record in the .pgen and int allele in it.
    allele_offsets
        (n_variants + 1,) where the alleles of each record begin; None if each has two.
    """

    rows: list[Site]
    index: np.ndarray
    alt: np.ndarray
    allele_offsets: np.ndarray | None

    @property
    def several_alts(self) -> np.ndarray:
        """(n_rows,) bool: taken of a record with several ALT alleles."""
        if self.allele_offsets is None:
            return np.zeros(len(self.rows), dtype=bool)
        several: np.ndarray = np.diff(self.allele_offsets)[self.index] > 2
        return several


def _read_pvar(
    file: CheckedFile, sites: SiteRule, header: PgenHeader, report: Progress
) -> _Variants:
    """Take variants of a .pvar, its columns by name."""
    rows: list[Site] = []
    index: list[int] = []
    taken_alts: list[int] = []
    more_alleles: dict[int, int] = {}
    n_variants = 0
    where: _Columns | None = None
    for number, line in enumerate(_lines(file), start=1):
        if where is None:
            if line.startswith(b"##"):
                continue
            where = _pvar_columns(file, number, line)
            if line.startswith(b"#"):
                continue
        contig, position, name, ref, alt = where.fields(number, line)
        if (at := parse_position(position)) is None:
            raise file.fail(
                f"line {number} has the position {position[:40]!r}, which is no whole number up to "
                f"{MAX_POSITION}; correct it"
            )
        alts = alt.split(",") if "," in alt else (alt,)
        if len(alts) > 1:
            more_alleles[n_variants] = len(alts) - 1
        for taken in sites.take(contig, at, name, ref, alts):
            # A handful of contigs and alleles repeats in every record: keep each once.
            rows.append(
                (intern(contig), at, name, intern(ref.upper()), intern(counted_alt(alts, taken)))
            )
            index.append(n_variants)
            taken_alts.append(taken)
        n_variants += 1
        if n_variants % _REPORT_LINES == 0:
            report(file.fraction_read)
    if n_variants != header.n_variants:
        raise file.fail(
            f"has {n_variants} variants, but the .pgen has {header.n_variants}; give the files "
            "that were written together"
        )
    n_alleles = np.full(n_variants, 2)
    n_alleles[list(more_alleles)] += np.array(list(more_alleles.values()), dtype=int)
    _check_alleles(file, header, n_alleles)
    offsets = np.concatenate([[0], np.cumsum(n_alleles)]).astype(np.uintp)
    return _Variants(
        rows,
        np.array(index, dtype=np.uint32),
        np.array(taken_alts, dtype=int),
        offsets if more_alleles else None,
    )


def _check_alleles(file: CheckedFile, header: PgenHeader, n_alleles: np.ndarray) -> None:
    """Hold the number of alleles of each record against what the .pgen tells of it."""
    wrong = header.several_alts & (n_alleles == 2)
    if header.n_alleles is not None:
        wrong |= header.n_alleles != n_alleles
    if wrong.any():
        number = int(np.argmax(wrong))
        raise file.fail(
            f"variant {number + 1} has {n_alleles[number] - 1} ALT alleles, but another number in "
            "the .pgen; give the files that were written together"
        )


class _Columns:
    """Where the five fields of a site are in the lines of a .pvar."""

    def __init__(self, file: CheckedFile, columns: Sequence[str], tabs: bool) -> None:
        self._file = file
        self._n_columns = len(columns)
        self._separator = "\t" if tabs else None
        self._at = [columns.index(name) for name in _SITE_COLUMNS]
        self._in_front = self._at == [0, 1, 2, 3, 4]

    def fields(self, number: int, line: bytes) -> list[str]:
        """The contig, position, id, REF and ALT of a line."""
        try:
            text = line.decode()
        except UnicodeDecodeError as fault:
            raise self._file.fail(f"line {number} is not UTF-8; save the file as UTF-8") from fault
        separator = self._separator
        fields = text.split(separator)
        if len(fields) != self._n_columns:
            raise self._file.fail(
                f"line {number} has {len(fields)} columns, not {self._n_columns}; it may be cut "
                f"off: {COPY_AGAIN}"
            )
        return fields[:5] if self._in_front else [fields[at] for at in self._at]


def _pvar_columns(file: CheckedFile, number: int, line: bytes) -> _Columns:
    """The columns as the header line names them, or else those of a .bim."""
    text = line.decode(errors="replace")
    tabs = "\t" in text
    fields = text.split("\t" if tabs else None)
    if not line.startswith(b"#"):
        if len(fields) not in _BIM:
            raise file.fail(
                f"line {number} has {len(fields)} columns and there is no #CHROM line; a .pvar "
                "without that has the 5 or 6 columns of a .bim"
            )
        return _Columns(file, _BIM[len(fields)], tabs)
    for name in _SITE_COLUMNS:
        if fields.count(name) != 1:
            raise file.fail(
                f"line {number} (its header) names {fields.count(name)} columns {name}, not one; "
                "correct it"
            )
    return _Columns(file, fields, tabs)


def _read_psam(file: CheckedFile) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Sample ids, and family ids if there are any."""
    columns: Sequence[str] = ()
    lines: dict[str, int] = {}
    families: list[str] = []
    for number, line in enumerate(_lines(file), start=1):
        try:
            fields = line.decode().split()
        except UnicodeDecodeError as fault:
            raise file.fail(f"line {number} is not UTF-8; save the file as UTF-8") from fault
        if not columns:
            if fields[0] in ("#FID", "#IID"):
                columns = [fields[0].lstrip("#"), *fields[1:]]
                if columns.count("IID") != 1:
                    raise file.fail(f"line {number} (its header) names no column IID; correct it")
                continue
            if fields[0].startswith("#"):
                continue
            columns = [name.lstrip("#") for name in _FAM[: len(fields)]]
            if len(fields) not in (5, 6):
                raise file.fail(
                    f"line {number} has {len(fields)} columns and there is no #FID or #IID line; a "
                    ".psam without that has the 5 or 6 columns of a .fam"
                )
        if len(fields) != len(columns):
            raise file.fail(
                f"line {number} has {len(fields)} columns, not {len(columns)}; it may be cut off: "
                f"{COPY_AGAIN}"
            )
        name = fields[columns.index("IID")]
        if name in lines:
            by_sid = " (a SID does not tell them apart here)" if "SID" in columns else ""
            raise file.fail(
                f"sample id {name!r} occurs in lines {lines[name]} and {number}{by_sid}; rename "
                "one or drop it, since results could not be told apart"
            )
        lines[name] = number
        families.append(fields[columns.index("FID")] if "FID" in columns else "")
    if not lines:
        raise file.fail(f"has no samples; {COPY_AGAIN}")
    return tuple(lines), tuple(families) if "FID" in columns else None


def _lines(file: CheckedFile) -> Iterator[bytes]:
    """Lines that are not blank at the end; whatever the compression."""
    with file.reading() as take:
        start = take(len(_ZSTD_MAGIC))
    pieces = _unzstd(file) if start == _ZSTD_MAGIC else file.text()
    blank = 0
    for number, line in enumerate(iter_lines(pieces), start=1):
        if number == 1 and line.startswith(BYTE_ORDER_MARK):
            raise file.fail("begins with a byte-order mark; save it as UTF-8 without BOM")
        if b"\0" in line:
            raise file.fail(f"line {number} holds a NUL byte, so it is damaged; {COPY_AGAIN}")
        line = line.removesuffix(b"\r")
        if not line.strip():
            blank = blank or number
            continue
        if blank:
            raise file.fail(f"line {blank} is empty; remove it")
        yield line


def _unzstd(file: CheckedFile) -> Iterator[bytes]:
    """The text of a zstd file of one or more frames, each verified to its end."""
    from zstandard import ZstdDecompressor, ZstdError

    frame = ZstdDecompressor().decompressobj()
    whole = False  # nothing is open after a frame and before the next
    for piece in file.text():
        for start in range(0, len(piece), _ZSTD_PIECE):
            data = piece[start : start + _ZSTD_PIECE]
            while data:
                if whole:
                    frame, whole = ZstdDecompressor().decompressobj(), False
                try:
                    text = frame.decompress(data)
                except ZstdError as fault:
                    raise file.fail(f"damaged zstd data ({fault}); {COPY_AGAIN}") from fault
                whole = frame.eof
                data = frame.unused_data if whole else b""
                if text:
                    yield text
    if not whole:
        raise file.fail(f"cut off: its zstd data end early; {COPY_AGAIN}")


def _split(path: Path) -> tuple[Path, str]:
    """The name without suffix, and which of `SUFFIXES` a file that exists has, or ''."""
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix) and os.path.isfile(path):
            return Path(str(path)[: -len(suffix)]), suffix
    return path, ""


def _beside(prefix: Path, suffix: str = ".pgen") -> Path:
    """PREFIX.suffix; the suffix in capitals if only that exists."""
    path, capitals = Path(f"{prefix}{suffix}"), Path(f"{prefix}{suffix.upper()}")
    return capitals if os.path.exists(capitals) and not os.path.exists(path) else path


def _pvar_beside(prefix: Path) -> Path:
    plain, packed = _beside(prefix, ".pvar"), _beside(prefix, ".pvar.zst")
    return packed if os.path.exists(packed) and not os.path.exists(plain) else plain

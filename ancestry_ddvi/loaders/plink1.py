"""PLINK 1: .bed, .bim and .fam, through bed-reader.

The .bed holds two bits a genotype and no names, so nothing in it tells a file of other samples or
variants: the three files are held against each other before a genotype is read. A1 of the .bim is
the counted allele (ALT, as plink2 has it) and A2 is REF; neither need be that of the genome.

Specification: https://www.cog-genomics.org/plink/1.9/formats#bed
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ancestry_ddvi.genotypes import VARIANT_COLUMNS, GenotypeMatrix
from ancestry_ddvi.loaders.containers import COPY_AGAIN, PLAIN, CheckedFile, iter_lines
from ancestry_ddvi.loaders.sites import DUPLICATED, reason_to_leave_out

SUFFIXES = (".bed", ".bim", ".fam")
MAGIC = b"\x6c\x1b"
_BY_VARIANT, _BY_SAMPLE = 1, 0  # the third byte: which index moves slowest
_BLOCK_VARIANTS = 4096
_HEADER_BYTES = 3


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


def read_plink1(
    prefix: str | os.PathLike[str], progress: Callable[[float], None] = lambda fraction: None
) -> GenotypeMatrix:
    """Read PREFIX.bed, PREFIX.bim and PREFIX.fam; sample ids are the IID.

    Parameters
    ----------
    prefix
        The name without suffix.
    progress
        Called now and then with the fraction done.

    Raises
    ------
    GenotypeFileError
        If a file is missing or damaged, they do not belong together, an id occurs twice, or no
        biallelic autosomal SNP is left.
    """
    from bed_reader import open_bed

    prefix = Path(prefix)
    files = {suffix: CheckedFile(_beside(prefix, suffix)) for suffix in SUFFIXES}
    checksum = hashlib.sha256()
    fam = _table(files[".fam"], checksum)
    bim = _table(files[".bim"], checksum)
    by_variant = _check_bed(files[".bed"], len(fam), len(bim), checksum)
    rows, kept, left_out = _sites(files[".bim"], bim)
    variants = pd.DataFrame(rows, columns=list(VARIANT_COLUMNS))
    duplicated = variants.duplicated(["contig", "position", "ref", "alt"]).to_numpy()
    if duplicated.any():
        left_out[DUPLICATED] = int(duplicated.sum())
    variants = variants[~duplicated].reset_index(drop=True)
    index = np.array(kept, dtype=int)[~duplicated]
    if not len(index):
        reasons = ", ".join(f"{n} {reason}" for reason, n in left_out.most_common())
        raise files[".bim"].fail(
            f"no biallelic autosomal SNP among its {len(bim)} variants ({reasons}); give a file "
            "with such SNPs"
        )
    dosage = np.empty((len(fam), len(index)), dtype=np.int8)
    properties = {"iid": None, "sid": None}
    counts = {"iid_count": len(fam), "sid_count": len(bim)}
    with open_bed(files[".bed"].path, **counts, properties=properties, num_threads=1) as bed:
        # A file by sample is read whole: any block of variants would walk all of it.
        step = _BLOCK_VARIANTS if by_variant else len(index)
        for start in range(0, len(index), step):
            part = bed.read(np.s_[:, index[start : start + step]], dtype="int8")
            # bed-reader's code of a missing genotype in int8 is -127.
            dosage[:, start : start + step] = np.where(part < 0, np.int8(-1), part)
            progress(min(1.0, (start + step) / len(index)))
    return GenotypeMatrix(
        dosage=dosage,
        sample_id=np.array([fields[1] for fields in fam]),
        variants=variants,
        source={"path": files[".bed"].path, "format": "PLINK 1", "sha256": checksum.hexdigest()},
        left_out=dict(left_out),
        family_id=np.array([fields[0] for fields in fam]),
    )


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


def _sites(
    file: CheckedFile, bim: list[list[str]]
) -> tuple[list[tuple[str, int, str, str, str]], list[int], Counter[str]]:
    """Rows of the variant table, their places in the .bim, and what was left out."""
    rows, kept, left_out = [], [], Counter[str]()
    for number, (contig, name, _, position, alt, ref) in enumerate(bim):
        if not position.lstrip("-").isascii() or not position.lstrip("-").isdigit():
            raise file.fail(
                f"variant {number + 1} ({name}) has position {position!r}, which is no whole "
                "number; correct it"
            )
        reason = reason_to_leave_out(contig, ref, [alt])
        if reason is None and int(position) < 1:
            reason = "no position"  # negative or 0: PLINK's way of leaving a variant out
        if reason is None:
            rows.append((contig, int(position), name, ref.upper(), alt.upper()))
            kept.append(number)
        else:
            left_out[reason] += 1
    return rows, kept, left_out

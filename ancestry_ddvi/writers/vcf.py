"""VCF as text, VCF in bgzip and BCF: numpy makes the text, htslib (pysam) the other two.

The genotypes are written unphased, since a dosage keeps no phase; FILTER is `.`, no filter applied.

Specification: https://samtools.github.io/hts-specs/VCFv4.3.pdf
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from ancestry_ddvi import __version__
from ancestry_ddvi.genotypes import VARIANT_COLUMNS, GenotypeMatrix
from ancestry_ddvi.writers.blocks import iter_codes
from ancestry_ddvi.writers.names import ALLELE, LINE, WORD, check_names

# By code: 0, 1, 2 copies of ALT, and missing. Four bytes each, so that a block of records is one
# look-up; the last tab of a record becomes its end of line.
_CALLS = np.frombuffer(b"0/0\t0/1\t1/1\t./.\t", dtype="<u4")

# Section 1.4.7, but for a `#` in front: the record would be read as a line of the header.
_CONTIG = re.compile(r"[0-9A-Za-z!$%&+./:;?@^_|~-][0-9A-Za-z!#$%&*+./:;=?@^_|~-]*")

_RULES = {
    "sample id": (LINE, "hold no tab, line end or other control character"),
    "contig": (_CONTIG, "be of the characters that VCF allows, without blanks, commas or <>"),
    "id": (WORD, "hold no blank"),
    "ref": (ALLELE, "hold no blank or comma"),
    "alt": (ALLELE, "hold no blank or comma"),
}

_BGZIP_LEVEL = 6
_PASSING_LEVEL = 1  # of the text that BCF is made from: it is read once and removed


class _Sink(Protocol):
    def write(self, data: bytes, /) -> Any: ...


def check_vcf(genotypes: GenotypeMatrix, path: str | os.PathLike[str]) -> None:
    """Refuse names that VCF cannot hold (OutputError)."""
    check_names(genotypes, path, "VCF", _RULES)


def write_vcf(genotypes: GenotypeMatrix, files: list[Path]) -> None:
    """Write plain text to the only path in `files`."""
    with open(files[0], "wb") as file:
        _write_text(genotypes, file)


def write_vcf_gz(genotypes: GenotypeMatrix, files: list[Path]) -> None:
    """Write bgzip, with its end-of-file block, to the only path in `files`."""
    with _bgzip(files[0], _BGZIP_LEVEL) as file:
        _write_text(genotypes, file)


def write_bcf(genotypes: GenotypeMatrix, files: list[Path]) -> None:
    """Write BCF 2.2 to the only path in `files`: bcftools' encoding of the VCF.

    Raises
    ------
    OutputError
        If bcftools does not take the VCF, or cannot write.
    """
    import pysam.bcftools
    from pysam.utils import SamtoolsError

    text = files[0].with_name("text.vcf.gz")
    with _bgzip(text, _PASSING_LEVEL) as file:
        _write_text(genotypes, file)
    try:
        # --no-version: the command line that it would add names the temporary file.
        pysam.bcftools.view(
            "--no-version", "-O", "b", "-o", str(files[0]), str(text), catch_stdout=False
        )
    except SamtoolsError as fault:
        raise OSError(f"bcftools: {' '.join(str(fault).split())}") from fault
    text.unlink()


def _write_text(genotypes: GenotypeMatrix, file: BinaryIO | _Sink) -> None:
    file.write(_header(genotypes).encode())
    columns = [genotypes.variants[name].to_list() for name in VARIANT_COLUMNS]
    for start, stop, codes in iter_codes(genotypes):
        calls = _CALLS[codes].view(np.uint8)
        calls[:, -1] = ord("\n")
        pieces: list[Any] = [None] * (2 * len(calls))
        pieces[1::2] = calls
        pieces[::2] = [
            f"{contig}\t{position}\t{name}\t{ref}\t{alt}\t.\t.\t.\tGT\t".encode()
            for contig, position, name, ref, alt in zip(
                *(column[start:stop] for column in columns), strict=True
            )
        ]
        file.write(b"".join(pieces))


def _header(genotypes: GenotypeMatrix) -> str:
    contigs = "".join(f"##contig=<ID={name}>\n" for name in genotypes.variants["contig"].unique())
    columns = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT"
    return (
        f"##fileformat=VCFv4.3\n##source=ancestry-ddvi-{__version__}\n{contigs}"
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
        f"{columns}\t" + "\t".join(genotypes.sample_id) + "\n"
    )


@contextmanager
def _bgzip(path: Path, level: int) -> Iterator[_Sink]:
    """A file in blocks of gzip; OSError if it cannot be written in full."""
    import pysam

    verbosity = pysam.set_verbosity(0)  # htslib's own lines on stderr; the exceptions say enough
    try:
        bgzip: Any = pysam.BGZFile  # its stub knows no level, and wants an index
        file = bgzip(str(path), f"wb{level}")
        try:
            yield file
        except BaseException:
            with suppress(OSError):  # what ended the block is to be told, not what follows from it
                file.close()
            raise
        file.close()
    finally:
        pysam.set_verbosity(verbosity)

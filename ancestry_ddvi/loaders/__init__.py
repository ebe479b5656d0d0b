"""Readers: one file per format, chosen by the file's content and never by its name.

A new format is one line in `read_genotypes` and one module beside this one.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from ancestry_ddvi.errors import GenotypeFileError
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.loaders.containers import CheckedFile
from ancestry_ddvi.loaders.panel import LabelTable, label_levels, read_labels
from ancestry_ddvi.loaders.plink1 import plink1_prefix, read_plink1

__all__ = ["LabelTable", "label_levels", "read_genotypes", "read_labels"]

_USE_PLINK = "convert it with `plink2 {} --export vcf bgz`"
_NAME_BED = "let its name end in .bed, beside the .bim and .fam of the same name"
_USE_BCFTOOLS = "convert it with `bcftools view -O z`"

# First bytes (of the text, if the file is compressed), what they are, and what to do. A longer
# signature stands before a shorter one that it begins with.
_OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"BCF\x02", "a BCF", _USE_BCFTOOLS),
    (b"\x6c\x1b\x01", "a PLINK 1 .bed", _NAME_BED),
    (b"\x6c\x1b\x00", "a PLINK 1 .bed", _NAME_BED),
    (b"\x6c\x1b", "a PLINK 2 .pgen", _USE_PLINK.format("--pfile")),
    (b"BAM\x01", "a BAM of sequence reads", "call its variants first"),
    (b"CRAM", "a CRAM of sequence reads", "call its variants first"),
    (b"TBI\x01", "a tabix index", "give the .vcf.gz beside it"),
    (b"CSI\x01", "a CSI index", "give the .vcf.gz beside it"),
    (b"\x89HDF", "an HDF5 file", "export it as VCF"),
    (b"\x93NUMPY", "a NumPy array", "export the genotypes as VCF"),
    (b"PK\x03\x04", "a zip archive", "unpack it first"),
    (b"\x80\x02", "a Python pickle", "export the genotypes as VCF"),
    (b"\x80\x03", "a Python pickle", "export the genotypes as VCF"),
    (b"\x80\x04", "a Python pickle", "export the genotypes as VCF"),
    (b"\x80\x05", "a Python pickle", "export the genotypes as VCF"),
    (b"BZh", "bzip2-compressed", "compress it with bgzip instead"),
    (b"\xfd7zXZ", "xz-compressed", "compress it with bgzip instead"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed", "compress it with bgzip instead"),
    (b"\x1f\x8b", "compressed twice", "decompress it once"),
    (b"\xef\xbb\xbf##file", "a VCF behind a byte-order mark", "save it as UTF-8 without BOM"),
    (b"#CHROM", "a VCF without its first line", "put `##fileformat=VCFv4.2` before it"),
    (b"##", "a VCF without its first line", "put `##fileformat=VCFv4.2` before it"),
    (b"<!", "a web page", "download the file itself"),
    (b"<html", "a web page", "download the file itself"),
    (b"version https://git-lfs", "a Git LFS pointer", "fetch the file with `git lfs pull`"),
)


def read_genotypes(
    path: str | os.PathLike[str], progress: Callable[[float], None] | None = None
) -> GenotypeMatrix:
    """Read genotypes from a file; its content decides which reader takes it.

    Parameters
    ----------
    path
        A VCF (plain text, gzip or bgzip), or a PLINK 1 set: its .bed, .bim or .fam, or the name
        that they share.
    progress
        Called now and then with the fraction done, from 0 to 1.

    Returns
    -------
    GenotypeMatrix
        `dosage` of shape (n_samples, n_variants), and what was left out and why.

    Raises
    ------
    GenotypeFileError
        If the file is missing, damaged, of another format, or has no usable genotype.
    """
    if (prefix := plink1_prefix(path)) is not None:
        return read_plink1(prefix, progress or (lambda fraction: None))
    start = next(CheckedFile(path).text(), b"")
    if start.startswith(b"##fileformat=VCF"):
        from ancestry_ddvi.loaders.vcf import read_vcf

        return read_vcf(path, progress)
    raise GenotypeFileError(f"{path}: not a VCF {_what_it_is(start)}")


def _what_it_is(start: bytes) -> str:
    """A guess at the format from its first bytes, with the remedy."""
    for signature, name, remedy in _OTHER_FORMATS:
        if start.startswith(signature):
            return f"(it looks like {name}); {remedy}"
    found = start[:16].split(b"\n")[0]
    return (
        f"(it starts with {found!r}, not with '##fileformat=VCF'); give a VCF as plain text, "
        "gzip or bgzip"
    )

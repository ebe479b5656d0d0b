"""Writers: one file per format, told by the output's suffix.

A new format is one line in `_FORMATS` and one module beside this one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ancestry_ddvi.errors import NotEnoughDataError, OptionError, OutputError
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.writers.cache import check_cache, write_cache
from ancestry_ddvi.writers.plink1 import check_plink1, write_plink1
from ancestry_ddvi.writers.plink2 import check_plink2, write_plink2
from ancestry_ddvi.writers.staging import refuse_to_lose, staged
from ancestry_ddvi.writers.vcf import check_vcf, write_bcf, write_vcf, write_vcf_gz
from ancestry_ddvi.writers.vcz import check_vcz, write_vcz

__all__ = ["FORMATS", "check_output", "write_genotypes"]


@dataclass(frozen=True)
class _Format:
    """How a format is checked and written, and the suffixes of its set; none for a single file."""

    check: Callable[[GenotypeMatrix, str | os.PathLike[str]], None]
    write: Callable[[GenotypeMatrix, list[Path]], None]
    set_of: tuple[str, ...] = ()


_FORMATS = {
    "vcf": _Format(check_vcf, write_vcf),
    "vcf.gz": _Format(check_vcf, write_vcf_gz),
    "vcf.bgz": _Format(check_vcf, write_vcf_gz),
    "bcf": _Format(check_vcf, write_bcf),
    "bed": _Format(check_plink1, write_plink1, (".bed", ".bim", ".fam")),
    "pgen": _Format(check_plink2, write_plink2, (".pgen", ".pvar", ".psam")),
    "vcz": _Format(check_vcz, write_vcz),
    "zarr": _Format(check_vcz, write_vcz),
    "npz": _Format(check_cache, write_cache),
}

FORMATS = tuple(_FORMATS)
"""Names of the formats, each the suffix of its files without the dot."""


def write_genotypes(
    genotypes: GenotypeMatrix,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    force: bool = False,
) -> list[Path]:
    """Write genotypes in the format that the suffix of `path` names.

    Parameters
    ----------
    genotypes
        What to write. Dosages count ALT; phase was not kept, so calls are unphased.
    path
        The file, the folder of a VCF Zarr, or the .bed or .pgen of a set.
    format
        One of `FORMATS`, whatever the suffix; `path` may then be the name that a set shares.
    force
        Replace files that exist.

    Returns
    -------
    list of Path
        What was written: one path, or the three of a PLINK set.

    Raises
    ------
    OptionError
        If no format is told, or VCF Zarr is asked for and zarr is not installed.
    NotEnoughDataError
        If there is no sample or no variant.
    OutputError
        If a name cannot stand in the format, a file exists, or writing fails. Then nothing is left.
    """
    name = _name_of(path, format)
    kind = _FORMATS[name]
    if not genotypes.n_samples or not genotypes.n_variants:
        raise NotEnoughDataError(
            f"{path}: {genotypes.n_samples} samples and {genotypes.n_variants} variants of "
            f"{genotypes.name} are left to write; loosen the filters"
        )
    targets = _targets(path, kind.set_of)
    kind.check(genotypes, path)
    with staged(targets, force=force) as files:
        kind.write(genotypes, files)
    return targets


def check_output(
    path: str | os.PathLike[str], format: str | None = None, *, force: bool = False
) -> list[Path]:
    """Raise what `write_genotypes` would, as far as it is known before there are genotypes.

    Returns the paths that it would write.
    """
    if os.fspath(path) == "-":
        raise OptionError("-: standard output is not written to; name a file")
    targets = _targets(path, _FORMATS[_name_of(path, format)].set_of)
    for target in targets:
        refuse_to_lose(target, force)
        if not target.parent.is_dir():
            raise OutputError(
                f"{target}: there is no folder {target.parent}; make it, or choose another"
            )
    return targets


def _name_of(path: str | os.PathLike[str], given: str | None) -> str:
    """The format that is asked for, or that the suffix says."""
    known = ", ".join(FORMATS)
    if given is not None:
        name = given.lower().removeprefix(".")
        if name not in _FORMATS:
            raise OptionError(f"{path}: {given!r} is no format; choose one of {known}")
        return name
    told = [name for name in FORMATS if Path(path).name.lower().endswith(f".{name}")]
    if not told:
        raise OptionError(
            f"{path}: its suffix tells no format; let it end in one of {known}, or name the format"
        )
    return max(told, key=len)


def _targets(path: str | os.PathLike[str], set_of: tuple[str, ...]) -> list[Path]:
    """The files to be written."""
    whole = os.fspath(path)
    if not set_of:
        return [Path(whole)]
    prefix = whole[: -len(set_of[0])] if whole.lower().endswith(set_of[0]) else whole
    return [Path(prefix + suffix) for suffix in set_of]

"""What a format cannot hold is refused, by name, before anything is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

import numpy as np

from ancestry_ddvi.errors import OutputError
from ancestry_ddvi.genotypes import GenotypeMatrix

MAX_POSITION = 2**31 - 2
"""What plink2 takes at most; 32-bit signed, as the positions of VCF, BCF and VCF Zarr."""

# Half of a surrogate pair stands for a byte that is no UTF-8, and cannot be written as such.
_NOT_TEXT = r"\ud800-\udfff"
TEXT = re.compile(rf"[^{_NOT_TEXT}]*")
LINE = re.compile(rf"[^\x00-\x1f\x7f{_NOT_TEXT}]+")
WORD = re.compile(rf"[^\x00-\x20\x7f{_NOT_TEXT}]+")
ALLELE = re.compile(rf"[^\x00-\x20\x7f,{_NOT_TEXT}]+")

_SAID = {"id": "variant id", "ref": "REF", "alt": "ALT"}

Rules = Mapping[str, tuple[re.Pattern[str], str]]
"""Kind of name -> what it must match in full, and that in words."""


def check_names(
    genotypes: GenotypeMatrix, path: str | os.PathLike[str], format_name: str, rules: Rules
) -> None:
    """Hold ids, contigs, alleles and positions against the rules of a format.

    Parameters
    ----------
    genotypes, path, format_name
        What is to be written, where, and the format's name: the latter two for messages.
    rules
        By kind: `sample id`, `family id`, `contig`, `id`, `ref`, `alt`.

    Raises
    ------
    OutputError
        If one does not fit; the message names it and a way out.
    """
    families = () if genotypes.family_id is None else genotypes.family_id
    values: dict[str, Iterable[str]] = {"sample id": genotypes.sample_id, "family id": families}
    for kind in ("contig", "id", "ref", "alt"):
        values[kind] = genotypes.variants[kind].unique()
    for kind, (pattern, needs) in rules.items():
        for value in values[kind]:
            if not pattern.fullmatch(str(value)):
                raise OutputError(
                    f"{path}: {_SAID.get(kind, kind)} {str(value)[:40]!a} cannot stand in "
                    f"{format_name}, where it must {needs}; rename it, or write another format "
                    "(.npz holds any name)"
                )
    position = genotypes.variants["position"].to_numpy()
    outside = np.flatnonzero((position < 1) | (position > MAX_POSITION))
    if len(outside):
        raise OutputError(
            f"{path}: variant {outside[0] + 1} has position {position[outside[0]]}, which cannot "
            f"stand in {format_name}: it must be from 1 to {MAX_POSITION}; correct it, or leave "
            "the variant out"
        )

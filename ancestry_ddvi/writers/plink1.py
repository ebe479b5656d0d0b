"""PLINK 1: .bed through bed-reader, .bim and .fam as text.

A1 of the .bim is the counted allele (ALT) and A2 is REF, as the reader has it and plink2 writes it.

Specification: https://www.cog-genomics.org/plink/1.9/formats#bed
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from ancestry_ddvi.genotypes import VARIANT_COLUMNS, GenotypeMatrix
from ancestry_ddvi.writers.blocks import iter_codes
from ancestry_ddvi.writers.names import ALLELE, WORD, check_names

# A `#` in front would be the mark of a header or a comment.
_FIRST = re.compile(rf"(?!#){WORD.pattern}")
_IID = re.compile(rf"(?!#)(?!0\Z){WORD.pattern}")

PLINK_RULES = {
    "sample id": (_IID, "hold no blank, not start with '#', and not be 0"),
    "family id": (_FIRST, "hold no blank and not start with '#'"),
    "contig": (_FIRST, "hold no blank and not start with '#'"),
    "id": (WORD, "hold no blank"),
    "ref": (ALLELE, "hold no blank or comma"),
    "alt": (ALLELE, "hold no blank or comma"),
}

_MISSING_CODE = np.int8(-127)  # bed-reader's, in int8
_NO_FAMILY = "0"


def check_plink1(genotypes: GenotypeMatrix, path: str | os.PathLike[str]) -> None:
    """Refuse names that PLINK cannot hold (OutputError)."""
    check_names(genotypes, path, "PLINK 1", PLINK_RULES)


def write_plink1(genotypes: GenotypeMatrix, files: list[Path]) -> None:
    """Write .bed, .bim and .fam to the three paths; sex 0 and phenotype -9, both unknown."""
    from bed_reader import create_bed

    bed, bim, fam = files
    _write_bim(genotypes, bim)
    _write_fam(genotypes, fam)
    # bed-reader's own tables go to waste: it writes them in the locale's encoding.
    writer = create_bed(
        bed,
        iid_count=genotypes.n_samples,
        sid_count=genotypes.n_variants,
        fam_location=bed.with_name("unused.fam"),
        bim_location=bed.with_name("unused.bim"),
        num_threads=1,
    )
    try:
        for _, _, codes in iter_codes(genotypes):
            codes[codes == 3] = _MISSING_CODE
            for row in codes:
                writer.write(row)
    except BaseException:
        with suppress(Exception):  # close() says that rows are missing, which hides why
            writer.close()
        raise
    writer.close()


def _write_bim(genotypes: GenotypeMatrix, path: Path) -> None:
    columns = (genotypes.variants[name].to_list() for name in VARIANT_COLUMNS)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(
            f"{contig}\t{name}\t0\t{position}\t{alt}\t{ref}\n"
            for contig, position, name, ref, alt in zip(*columns, strict=True)
        )


def _write_fam(genotypes: GenotypeMatrix, path: Path) -> None:
    family_id = genotypes.family_id
    families = [_NO_FAMILY] * genotypes.n_samples if family_id is None else family_id
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(
            f"{family}\t{sample}\t0\t0\t0\t-9\n"
            for family, sample in zip(families, genotypes.sample_id, strict=True)
        )

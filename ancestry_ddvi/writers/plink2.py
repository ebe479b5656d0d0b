"""PLINK 2: .pgen through Pgenlib, .pvar and .psam as text.

Specification: https://github.com/chrchang/plink-ng/tree/master/pgen_spec and
https://www.cog-genomics.org/plink/2.0/formats
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from ancestry_ddvi.genotypes import VARIANT_COLUMNS, GenotypeMatrix
from ancestry_ddvi.writers.blocks import iter_codes
from ancestry_ddvi.writers.names import check_names
from ancestry_ddvi.writers.plink1 import PLINK_RULES


def check_plink2(genotypes: GenotypeMatrix, path: str | os.PathLike[str]) -> None:
    """Refuse names that PLINK cannot hold (OutputError)."""
    check_names(genotypes, path, "PLINK 2", PLINK_RULES)


def write_plink2(genotypes: GenotypeMatrix, files: list[Path]) -> None:
    """Write .pgen, .pvar and .psam to the three paths.

    REF is marked as provisional where it comes from PLINK 1, whose A2 need not be the genome's.
    """
    from pgenlib import PgenWriter

    pgen, pvar, psam = files
    _write_pvar(genotypes, pvar)
    _write_psam(genotypes, psam)
    # Not as a context manager: its end would raise that variants are missing, which hides why.
    try:
        writer = PgenWriter(
            os.fsencode(pgen),
            genotypes.n_samples,
            variant_ct=genotypes.n_variants,
            nonref_flags=genotypes.source.get("format", "").startswith("PLINK 1"),
        )
        try:
            for _, _, codes in iter_codes(genotypes):
                writer.append_biallelic_batch(codes)  # takes 3 as missing
        except BaseException:
            with suppress(RuntimeError):
                writer.close()
            raise
        writer.close()
    except RuntimeError as fault:  # Pgenlib's only exception, for a full disk too
        raise OSError(f"Pgenlib: {fault}") from fault


def _write_pvar(genotypes: GenotypeMatrix, path: Path) -> None:
    columns = (genotypes.variants[name].to_list() for name in VARIANT_COLUMNS)
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write("#CHROM\tPOS\tID\tREF\tALT\n")
        file.writelines(
            f"{contig}\t{position}\t{name}\t{ref}\t{alt}\n"
            for contig, position, name, ref, alt in zip(*columns, strict=True)
        )


def _write_psam(genotypes: GenotypeMatrix, path: Path) -> None:
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        if genotypes.family_id is None:
            file.write("#IID\tSEX\n")
            file.writelines(f"{sample}\tNA\n" for sample in genotypes.sample_id)
        else:
            file.write("#FID\tIID\tSEX\n")
            file.writelines(
                f"{family}\t{sample}\tNA\n"
                for family, sample in zip(genotypes.family_id, genotypes.sample_id, strict=True)
            )

"""Covariates for a GWAS: principal components and latents in the one form that the tools share.

Tab-separated `FID IID NAME...` without `#` is read by plink2, REGENIE, SAIGE, GCTA and BOLT-LMM. A
column that the others explain is refused there, or costs results without a word, so it is left out
here: plink2 by default gives up on a variance inflation factor above 50.

    VIF_j = (R^-1)_jj      R: correlations of the columns

Of samples that are placed on the map of an earlier run neither columns nor numbers may depend on
the company: files of several batches are put below each other. They have all columns, as placed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.errors import InputError
from ancestry_ddvi.reporting.scores import standardise

MAX_VIF = 50.0


def write_covariates(
    path: Path,
    table: EmbeddingTable,
    *,
    fid: Sequence[str] | None = None,
    placed: bool = False,
) -> list[str]:
    """Write `FID IID PC1..PCk Z1..ZD`, one row a sample in input order, z-scored unless `placed`.

    Parameters
    ----------
    path
        Where to write.
    table
        The embedding.
    fid
        (n_samples,) family ids as in the .fam file; 0, "no family", by default.
    placed
        Whether the map is that of an earlier run: then all columns are kept, in its units.

    Returns
    -------
    Names of the columns that are constant, or explained by those before them. They are left out
    unless `placed`.

    Raises
    ------
    InputError
        If an id cannot be read by any GWAS tool (empty, "0", with whitespace, or opening with
        `#`), or a value is not finite.
    """
    ids = [str(value) for value in table.sample_id]
    families = ["0"] * len(ids) if fid is None else [str(value) for value in fid]
    if len(families) != len(ids):
        raise ValueError(f"{len(families)} family ids for {len(ids)} samples")
    fault = unfit_id(ids) or unfit_id([f for f in families if f != "0"], "family")
    if fault:
        raise InputError(f"covariates: {fault}")
    columns = np.column_stack([table.pcs, table.z])
    names = [f"PC{k + 1}" for k in range(table.pcs.shape[1])]
    names += [f"Z{d + 1}" for d in range(table.n_latent)]
    if not np.isfinite(columns).all():
        row, column = np.argwhere(~np.isfinite(columns))[0]
        raise InputError(
            f"covariates: sample {ids[row]!r} has {columns[row, column]} in {names[column]}; "
            "a GWAS would drop it silently. Train again with another --seed, or check the input"
        )
    scaled = standardise(columns)
    independent = independent_columns(scaled)
    kept = list(range(len(names))) if placed else independent
    values = columns if placed else scaled
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(["FID", "IID", *(names[j] for j in kept)]) + "\n")
        for family, sample, row in zip(families, ids, values[:, kept], strict=True):
            file.write("\t".join([family, sample, *(f"{value:.6g}" for value in row)]) + "\n")
    return [name for j, name in enumerate(names) if j not in independent]


def independent_columns(columns: np.ndarray, max_vif: float = MAX_VIF) -> list[int]:
    """Pick columns from left to right such that none is explained by the others.

    Parameters
    ----------
    columns
        (n_samples, n_columns), z-scored; a constant column is all 0.
    max_vif
        The largest variance inflation factor any picked column may have.

    Returns
    -------
    Indices of the columns picked, ascending.
    """
    n = len(columns)
    kept: list[int] = []
    for j in range(columns.shape[1]):
        trial = columns[:, [*kept, j]] / np.sqrt(n)
        # R^-1 = T^-1 T^-T for X = Q T; the smallest diagonal of T tells a rank that falls short,
        # before the inverse could overflow. Centring takes one degree of freedom.
        triangle = np.linalg.qr(trial, mode="r")
        full_rank = len(kept) + 1 < n and np.abs(np.diag(triangle)).min() > 1e-6
        if full_rank and (np.linalg.inv(triangle) ** 2).sum(axis=1).max() <= max_vif:
            kept.append(j)
    return kept


def unfit_id(ids: Iterable[str], kind: str = "sample") -> str | None:
    """Say which is the first id that no GWAS tool can read, why, and the remedy; None if all do."""
    for value in ids:
        if fault := _fault(value):
            shown = value if len(value) <= 60 else value[:59] + "…"
            return (
                f"{kind} id {shown!r} {fault}, so no GWAS tool can read it; rename it in the "
                "genotype file (for example with `bcftools reheader --samples`)"
            )
    return None


def _fault(value: str) -> str | None:
    return (
        "is empty"
        if not value
        else 'is "0", which stands for no id'
        if value == "0"
        else "holds whitespace"
        if any(character.isspace() or not character.isprintable() for character in value)
        else "opens with #"
        if value.startswith("#")
        else None
    )

"""Linkage disequilibrium pruning in sliding windows of variants, contig by contig.

Neighbouring variants repeat each other; left in, a long block of linked variants earns a
principal component of its own (Price et al. 2008, AJHG 83:132). Of each pair in a window whose
squared correlation exceeds the threshold, the variant with the lower minor allele frequency
goes, as in plink's `--indep-pairwise`. Own code because it is several times faster than the
library routine and keeps the more informative variant; `benchmarks/linkage.py` measures both.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ancestry_ddvi.genotypes import MISSING


def standardise(dosage: np.ndarray) -> np.ndarray:
    """Centre columns and scale them to unit norm; missing becomes the mean; constant stays 0.

    Parameters
    ----------
    dosage
        (n_samples, n_variants) int8.

    Returns
    -------
    (n_samples, n_variants) float32.
    """
    called = dosage != MISSING
    values = dosage.astype(np.float32)
    mean = np.sum(values, axis=0, where=called) / np.maximum(called.sum(axis=0), 1)
    values = np.where(called, values - mean.astype(np.float32), np.float32(0))
    norm = np.sqrt(np.einsum("ij,ij->j", values, values))
    return values / np.where(norm > 0, norm, 1)


def prune(
    dosage: np.ndarray,
    variants: pd.DataFrame,
    maf: np.ndarray,
    *,
    window: int,
    step: int,
    max_r2: float,
    rows: np.ndarray | None = None,
    columns: np.ndarray | None = None,
) -> np.ndarray:
    """Locate a subset of variants with pairwise r^2 <= `max_r2` inside every window.

    Parameters
    ----------
    dosage
        (n_samples, n_variants) int8, -1 missing; or more, of which `rows` (sample indices) and
        `columns` (variant indices) are meant.
    variants
        (n_variants,) table with `contig` and `position`; windows follow position within a contig,
        whatever the order of the input.
    maf
        (n_variants,) minor allele frequencies.
    window, step
        Window length and shift, in variants; step <= window, or some variants are in no window.
    max_r2
        Squared Pearson correlation of dosages (missing = the variant's mean) above which a pair
        counts as linked; 1 keeps everything.

    Returns
    -------
    (n_variants,) bool mask of the variants kept.
    """
    keep = np.ones(len(variants), dtype=bool)
    if max_r2 >= 1:  # Rounding puts the r^2 of two equal columns on either side of 1.
        return keep
    position = variants["position"].to_numpy()
    for contig in variants.groupby("contig", sort=False).indices.values():
        on_contig = np.asarray(contig)
        index = on_contig[np.argsort(position[on_contig], kind="stable")]
        for start in range(0, max(1, len(index) - window + step), step):
            inside = index[start : start + window]
            inside = inside[keep[inside]]
            part = dosage[:, inside if columns is None else columns[inside]]
            part = part if rows is None else part[rows]
            unlinked = _unlinked(standardise(part), maf[inside], max_r2)
            keep[inside[~unlinked]] = False
    return keep


def _unlinked(columns: np.ndarray, maf: np.ndarray, max_r2: float) -> np.ndarray:
    """Drop the rarer variant of each linked pair, pairs taken in order; of equals, the second."""
    keep = np.ones(columns.shape[1], dtype=bool)
    first, second = np.nonzero(np.triu((columns.T @ columns) ** 2 > max_r2, k=1))
    for i, j in zip(first, second, strict=True):
        if keep[i] and keep[j]:
            keep[i if maf[i] < maf[j] else j] = False
    return keep

"""How often two sets of genotypes agree, sample by sample and all against all.

Over the variants called in both samples, with genotypes g in {0, 1, 2} and [.] 1 or 0,

    n_ij     sum [g_i called] [g_j called]                     variants compared
    e_ij     sum [g_i = 0][g_j = 0] + [1][1] + [2][2]          equal genotypes
    d_ij     1 - e_ij / n_ij                                   discordance

sums of products over variants, whole numbers that single precision holds. d is near 0 for one
person genotyped twice; for two strangers it is 1 - sum_g P(g)^2, .62 at allele frequency 1/2.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ancestry_ddvi.genotypes import MISSING

ROWS = 1024
"""Samples of the first set that are held against all of the second at a time."""


def agreement(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare row with row: (n,) variants compared, and equal genotypes of these.

    `a` and `b` are (n_samples, n_variants) int8 dosages, -1 missing, of the same variants and the
    same counted alleles.
    """
    both = (a != MISSING) & (b != MISSING)
    return np.count_nonzero(both, axis=1), np.count_nonzero(both & (a == b), axis=1)


def discordance(
    a: np.ndarray, b: np.ndarray, *, min_compared: int
) -> Iterator[tuple[slice, np.ndarray]]:
    """Compare all with all, some rows of `a` at a time.

    Parameters
    ----------
    a, b
        (n_a, n_variants) and (n_b, n_variants) int8 dosages, -1 missing.
    min_compared
        Variants that both of a pair must be called at.

    Yields
    ------
    The rows of `a`, and (n_rows, n_b) float64 discordance; nan for pairs with too few variants.
    """
    theirs = [(b == g).astype(np.float32) for g in range(3)]
    called = (b != MISSING).astype(np.float32)
    for start in range(0, len(a), ROWS):
        rows = slice(start, min(start + ROWS, len(a)))
        part = a[rows]
        n = ((part != MISSING).astype(np.float32) @ called.T).astype(np.float64)
        equal = sum((part == g).astype(np.float32) @ theirs[g].T for g in range(3))
        share = np.full(n.shape, np.nan)
        np.divide(n - equal, n, out=share, where=n >= max(min_compared, 1))
        yield rows, share

"""How many random sites of the reference say as much as those that a sample has.

    W(f)  = sum_w 1 - (1 - f)^n_w            expected number of windows with a site, where each is
                                             there with probability f; n_w sites in window w
    m_eff = min(m, M f),  W(f) = windows in which the sample has a site

Calibration is learnt with random sites, which lie all over the genome. Those of one chromosome, of
one region or of the exons lie closer, are linked and say less: by the windows that they are in.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from ancestry_ddvi.genotypes import MISSING

WINDOW = 50_000
"""Base pairs. Training samples that are placed by single chromosomes, or by 30 Mb, have the least
log loss at 25 or 50 kb, with at most .005 nats between the two, and more at 100 kb to 1 Mb; of
those placed by the MHC 27 % are called outside the reference at 25 kb and 4 % at 50 kb
(`benchmarks/regional_panels.py`)."""

ROWS = 500
"""Samples counted at a time."""


def effective_sites(
    dosage: np.ndarray, there: np.ndarray, variants: pd.DataFrame, window: int = WINDOW
) -> np.ndarray:
    """(n,) m_eff of genotypes (n, m) at the sites `there` (m,) of the reference's `variants`, by
    windows of so many base pairs; by those of 1 sites count one by one."""
    contig = pd.factorize(variants["contig"].astype(str))[0].astype(np.int64)
    place = contig << 32 | variants["position"].to_numpy(np.int64) // window
    number = np.unique(place, return_inverse=True)[1]
    order = np.argsort(number[there], kind="stable")
    starts = np.flatnonzero(np.diff(number[there][order], prepend=-1))
    occupied, called = np.zeros(len(dosage)), np.zeros(len(dosage))
    for first in range(0, len(dosage) if len(there) else 0, ROWS):
        rows = slice(first, first + ROWS)
        seen = dosage[rows][:, order] != MISSING
        occupied[rows] = np.logical_or.reduceat(seen, starts, axis=1).sum(axis=1)
        called[rows] = seen.sum(axis=1)
    share = np.geomspace(1 / len(variants), 1, 1000)
    size, n_windows = np.unique(np.bincount(number), return_counts=True)
    expected = (1 - (1 - share[:, None]) ** size) @ n_windows
    found = np.exp(np.interp(occupied, expected, np.log(share))) * len(variants)
    least: np.ndarray = np.minimum(found, called)
    return least

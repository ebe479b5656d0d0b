"""The exact test of Hardy-Weinberg proportions.

Of N genotypes with a copies of the rarer allele, h are heterozygous with probability

    P(h | N, a) = 2^h N! / (r! h! c!) * a! (2N - a)! / (2N)!,    r = (a - h) / 2,  c = N - h - r

under random mating; h has the parity of a. The p value is the sum of P over every h that is no more
probable than the one observed. P is log-concave in h: these are two tails, each summed from its
inner end outwards by the ratio

    P(h + 2) / P(h) = 4 r c / ((h + 2) (h + 1)).

Wigginton, Cutler & Abecasis (2005), AJHG 76:887.
"""

from __future__ import annotations

import numpy as np

# Two probabilities are equal if their logs differ by less: gammaln is good to 1e-9 at 10^6 alleles.
_TIE = 1e-7
# A tail is summed until what is left cannot change its sum.
_NEGLIGIBLE = 1e-17


def hardy_weinberg_p(n_hom_ref: np.ndarray, n_het: np.ndarray, n_hom_alt: np.ndarray) -> np.ndarray:
    """Two-sided exact p of each variant, as plink2's --hardy has it (without mid-p).

    Parameters
    ----------
    n_hom_ref, n_het, n_hom_alt
        (n_variants,) int: how many samples have 0, 1 and 2 copies of ALT.

    Returns
    -------
    np.ndarray
        (n_variants,) float64; 1 where nobody is called or one allele is absent.
    """
    triples = np.column_stack([n_hom_ref, n_het, n_hom_alt]).astype(np.int64)
    triples[:, ::2].sort(axis=1)  # the test does not tell the alleles apart
    # Many variants share their counts: the rarer an allele is, the more so.
    distinct, which = np.unique(triples, axis=0, return_inverse=True)
    return _p(distinct[:, 0], distinct[:, 1], distinct[:, 2])[which.reshape(-1)]


def _p(rare: np.ndarray, het: np.ndarray, common: np.ndarray) -> np.ndarray:
    n = rare + het + common
    a = 2 * rare + het
    mode = _mode(n, a)
    observed = _log_p(n, a, het)
    p = np.ones(len(n))
    for below in (True, False):  # which side of the mode the observed count lies on
        side = het < mode if below else het > mode
        if side.any():
            size, alleles, seen, limit = n[side], a[side], het[side], observed[side] + _TIE
            other = _far_tail(size, alleles, mode[side], limit, above=below)
            p[side] = _tail(size, alleles, seen, up=not below)
            p[side] += _tail(size, alleles, other, up=below)
    # Rounding can leave a sum that is 1 a little above it.
    return np.asarray(p.clip(max=1))


def _mode(n: np.ndarray, a: np.ndarray) -> np.ndarray:
    """The most probable h: the first from which the ratio is at most 1.

    4 r c <= (h + 2)(h + 1) is linear in h, since the squares cancel.
    """
    h = np.ceil((a * (2 * n - a) - 2) / (2 * n + 3).clip(1)).astype(np.int64).clip(0)
    h += (h - a) % 2
    return np.asarray(h.clip(max=a))


def _far_tail(
    n: np.ndarray, a: np.ndarray, mode: np.ndarray, limit: np.ndarray, *, above: bool
) -> np.ndarray:
    """The h from the mode outwards with the first log P <= limit; outside 0 to a if none is.

    By bisection in steps of two: P falls from the mode outwards.
    """
    step = 2 if above else -2
    near = np.full_like(mode, -1)  # too probable
    far = (a - mode if above else mode) // 2 + 1  # 1 beyond the last h, and so of no probability
    while (unsure := far - near > 1).any():
        middle = (near + far) // 2
        beyond = _log_p(n, a, mode + step * middle) <= limit
        far = np.where(unsure & beyond, middle, far)
        near = np.where(unsure & ~beyond, middle, near)
    return np.asarray(mode + step * far)


def _log_p(n: np.ndarray, a: np.ndarray, h: np.ndarray) -> np.ndarray:
    from scipy.special import gammaln  # its import takes longer than most runs need this

    r = (a - h) // 2
    return np.asarray(
        h * np.log(2)
        + (gammaln(n + 1) - gammaln(r + 1) - gammaln(h + 1) - gammaln(n - h - r + 1))
        + (gammaln(a + 1) + gammaln(2 * n - a + 1) - gammaln(2 * n + 1))
    )


def _tail(n: np.ndarray, a: np.ndarray, h: np.ndarray, *, up: bool) -> np.ndarray:
    """Sum of P from h outwards; 0 where h is outside 0 to a."""
    total = np.zeros(len(n))
    inside = np.flatnonzero((h >= 0) & (h <= a))
    n, a, h = n[inside], a[inside], h[inside].astype(np.float64)
    r = (a - h) / 2
    c = n - h - r
    sums, term, at = np.ones(len(n)), np.ones(len(n)), np.arange(len(n))
    log_first = _log_p(n, a, h.astype(np.int64))
    while len(at):
        if up:
            ratio = 4 * r * c / ((h + 2) * (h + 1))
            h, r, c = h + 2, r - 1, c - 1
        else:
            ratio = h * (h - 1) / (4 * (r + 1) * (c + 1))
            h, r, c = h - 2, r + 1, c + 1
        term = term * ratio
        sums[at] += term
        # Ratios fall outwards, so that the rest is less than a geometric series.
        go_on = term > _NEGLIGIBLE * sums[at] * (1 - ratio).clip(0)
        if not go_on.all():
            at, h, r, c, term = at[go_on], h[go_on], r[go_on], c[go_on], term[go_on]
    total[inside] = np.exp(log_first) * sums
    return total

"""Who is related to whom: KING-robust kinship of all pairs, and a largest set without relatives.

Over the variants called in both samples i and j of a pair, with genotypes g in {0, 1, 2},

    N_i, N_j  variants at which i, or j, is heterozygous
    D_ij      sum (g_i - g_j)^2
    phi_ij    1/2 - D_ij / (4 min(N_i, N_j))        Manichaikul et al. 2010,
                                                    Bioinformatics 26:2867, eq. 11

the estimator between families, which knows no allele frequency and so needs no common population;
plink2's `--make-king-table` gives the same. Expected: 1/2 for twins and duplicates, 1/4 for
parent and child or full siblings, halved with each further degree; below 0 across populations.

With s = g - 1, h = [g = 1], c = [g called], and s = h = 0 where it is not, all three are whole
numbers from products over variants, exact in single precision:

    N_i = h_i . c_j      N_j = c_i . h_j      D_ij = 2 c_i . c_j - N_i - N_j - 2 s_i . s_j

Where all samples are called, every product but s_i . s_j is a sum over one sample.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix
from ancestry_ddvi.preprocessing.filters import VariantCounts, filter_variants, sample_call_rate

TILE = (1024, 2048)
"""Samples and variants multiplied at a time: some 100 MB, whatever the number of samples."""

EXACT = 2**24
"""Single precision holds every whole number up to this one."""

DEGREES = (
    (0.354, "duplicate or twin"),
    (0.177, "first degree"),
    (0.0884, "second degree"),
    (0.0442, "third degree"),
)
"""Least kinship of each degree: half-way, in powers of 2, between what two degrees expect
(Manichaikul et al. 2010, table 1)."""

NOISE = 5.0
"""A coefficient from m unlinked variants is trusted from 5 / sqrt(m) on: its standard deviation is
near 1 / sqrt(m), so one in a million strangers gets there. In the 2,504 samples of Phase 3, 500
variants show 7,567 pairs of strangers as second degree and more, 1,000 show 788, 4,000 one."""


@dataclass(frozen=True)
class RelatedPairs:
    """Pairs of samples and their kinship; the closest first, of equals by index.

    Attributes
    ----------
    first, second
        (n_pairs,) int64 indices of samples, first < second.
    kinship
        (n_pairs,) float64 KING-robust coefficients.
    n_variants
        Variants that were looked at.
    """

    first: np.ndarray
    second: np.ndarray
    kinship: np.ndarray
    n_variants: int


def related_pairs(
    dosage: np.ndarray,
    *,
    min_kinship: float,
    variants: np.ndarray | None = None,
    progress: Callable[[float], None] = lambda fraction: None,
) -> RelatedPairs:
    """Estimate the kinship of all pairs and keep those that are related.

    Time grows with n_samples^2 n_variants; memory with the pairs that are kept alone.

    Parameters
    ----------
    dosage
        (n_samples, n_variants) int8, -1 missing, in any memory order; never copied as a whole.
    min_kinship
        Least kinship of a pair that is kept.
    variants
        Indices of the columns to use; all by default. They should be unlinked: each counts as
        one more independent observation.
    progress
        Called with the fraction done, ending with 1.

    Returns
    -------
    The pairs. One in which either sample is heterozygous at no variant that both are called at
    has no estimate, and is never among them.
    """
    n_samples = dosage.shape[0]
    if variants is None:
        variants = np.arange(dosage.shape[1])
    rows = [slice(i, min(i + TILE[0], n_samples)) for i in range(0, n_samples, TILE[0])]
    tiles = [(a, b) for i, a in enumerate(rows) for b in rows[i:]]
    found = []
    for done, (ours, theirs) in enumerate(tiles):
        kinship = _kinship(dosage, ours, theirs, variants)
        related = kinship >= min_kinship
        if ours == theirs:
            related = np.triu(related, k=1)
        i, j = np.nonzero(related)
        found.append((i + ours.start, j + theirs.start, kinship[i, j]))
        progress((done + 1) / len(tiles))
    if not found:
        found.append((np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)))
    first, second, kinship = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((second, first, -kinship))
    return RelatedPairs(first[order], second[order], kinship[order], len(variants))


def _kinship(dosage: np.ndarray, ours: slice, theirs: slice, variants: np.ndarray) -> np.ndarray:
    """(n_ours, n_theirs) float64 kinship of two ranges of samples; nan where there is none."""
    n_ours, n_theirs = ours.stop - ours.start, theirs.stop - theirs.start
    exact = np.float32 if len(variants) < EXACT else np.float64
    ss = np.zeros((n_ours, n_theirs), dtype=exact)
    # These spread to (n_ours, n_theirs) only once a genotype is missing.
    n_i = np.zeros((n_ours, 1), dtype=exact)
    n_j = np.zeros((1, n_theirs), dtype=exact)
    cc = np.zeros((1, 1), dtype=exact)
    for start in range(0, len(variants), TILE[1]):
        columns = variants[start : start + TILE[1]]
        a = dosage[ours][:, columns]
        b = a if theirs == ours else dosage[theirs][:, columns]
        s_a = _centred(a)
        # BLAS computes one half of a matrix times its own transpose: the same array, not an equal.
        ss += s_a @ (s_a if theirs == ours else _centred(b)).T
        full = (a != MISSING).all(axis=0) & (b != MISSING).all(axis=0)
        n_i = n_i + np.count_nonzero(a[:, full] == 1, axis=1).astype(exact)[:, None]
        n_j = n_j + np.count_nonzero(b[:, full] == 1, axis=1).astype(exact)
        cc = cc + full.sum().astype(exact)
        if not full.all():
            a, b = a[:, ~full], b[:, ~full]
            c_a = (a != MISSING).astype(np.float32)
            c_b = c_a if theirs == ours else (b != MISSING).astype(np.float32)
            n_i = n_i + (a == 1).astype(np.float32) @ c_b.T
            n_j = n_i.T if theirs == ours else n_j + c_a @ (b == 1).astype(np.float32).T
            cc = cc + c_a @ c_b.T
    # Twice a count may be more than single precision holds.
    distance = 2 * (cc - ss).astype(np.float64)
    distance -= n_i
    distance -= n_j
    fewer = np.minimum(n_i, n_j)
    kinship = np.full(distance.shape, np.nan)
    np.divide(distance, 4 * fewer.astype(np.float64), out=kinship, where=fewer > 0)
    np.subtract(0.5, kinship, out=kinship)
    return kinship


def _centred(dosage: np.ndarray) -> np.ndarray:
    """Dosages less 1 as float32; missing becomes 0."""
    s: np.ndarray = np.subtract(dosage, 1, dtype=np.float32)
    s[dosage == MISSING] = 0
    return s


def relation(kinship: float) -> str:
    """Name the degree that a coefficient speaks for; "unrelated" below that of the third."""
    return next((name for least, name in DEGREES if kinship >= least), "unrelated")


def detectable_kinship(n_variants: int) -> float:
    """Least coefficient that is no noise, from that many unlinked variants; inf from none."""
    return NOISE / float(np.sqrt(n_variants)) if n_variants else float(np.inf)


def unrelated(
    pairs: RelatedPairs, n_samples: int, call_rate: np.ndarray | None = None
) -> np.ndarray:
    """Keep as many samples as a greedy choice can, no two of them a pair.

    As plink2's `--king-cutoff`: the only relative of some sample goes before all others, which
    never costs a sample (in any set, that sample can stand in for the relative); else the one
    with most relatives goes. Of equals it is the one of lower call rate, then the later one.

    Parameters
    ----------
    pairs
        The pairs to break.
    n_samples
        Samples, with relatives or without.
    call_rate
        (n_samples,) share of variants called, to choose between equals; the same for all by
        default.

    Returns
    -------
    (n_samples,) bool. Everyone else has a relative in the set.
    """
    rate = np.ones(n_samples) if call_rate is None else call_rate
    relatives: dict[int, set[int]] = {}
    for i, j in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True):
        relatives.setdefault(i, set()).add(j)
        relatives.setdefault(j, set()).add(i)
    left = {i: set(others) for i, others in relatives.items()}
    only_relative = {j for others in left.values() if len(others) == 1 for j in others}

    def turn(i: int) -> tuple[bool, int, float, int]:
        return i not in only_relative, -len(left[i]), float(rate[i]), -i

    keep = np.ones(n_samples, dtype=bool)
    gone = []
    queue = [turn(i) for i in left]
    heapq.heapify(queue)
    while queue:
        entry = heapq.heappop(queue)
        i = -entry[-1]
        # A sample is queued anew whenever its turn changes; older entries are void.
        if not left[i] or entry != turn(i):
            continue
        keep[i] = False
        gone.append(i)
        for j in left.pop(i):
            left[j].remove(i)
            if len(left[j]) == 1:
                (k,) = left[j]
                only_relative.add(k)
                heapq.heappush(queue, turn(k))
            if left[j]:
                heapq.heappush(queue, turn(j))
        left[i] = set()
    # One that went early may have lost all its relatives since.
    for i in reversed(gone):
        keep[i] = not any(keep[j] for j in relatives[i])
    return keep


# What a run looks for.

_MAX_VARIANTS = 20_000  # an error of kinship of .01; more would only take longer
_WORK = 1e12  # comparisons of genotypes: a minute or so


@dataclass(frozen=True)
class Relatives:
    """Close relatives, and whom to leave out so that none are left.

    Attributes
    ----------
    pairs
        All that were found among the samples, most closely related first.
    min_kinship
        From which kinship on: that asked for, or what so few variants can show; inf if they are too
        few to tell twins.
    left_out
        (n_samples,) bool.
    near
        (n_samples,) bool: samples that were not to be learnt from, but whose relatives are. What
        they score as held-out samples would flatter.
    """

    pairs: RelatedPairs
    min_kinship: float
    left_out: np.ndarray
    near: np.ndarray


def find_relatives(
    genotypes: GenotypeMatrix,
    train: np.ndarray,
    *,
    min_kinship: float,
    min_call_rate: float,
    min_maf: float,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Relatives:
    """Find close relatives, and the samples of `train` to leave out so that none are left in it.

    Parameters
    ----------
    genotypes
        All samples. Up to 20,000 common variants, evenly taken, are looked at; fewer where samples
        are so many that comparing each with each would take minutes.
    train
        (n_samples,) bool: samples that would be learnt from. A pair that is not all in it leaves
        nobody out.
    min_kinship
        KING-robust kinship from which a pair counts.
    min_call_rate, min_maf
        What makes a variant fit for it, in `train`.
    progress
        Called with the fraction done.
    """
    n_samples = genotypes.n_samples
    left_out = np.zeros(n_samples, dtype=bool)
    counts = VariantCounts.of(genotypes.dosage, None if train.all() else np.flatnonzero(train))
    keep, _ = filter_variants(counts, min_call_rate=min_call_rate, min_maf=min_maf)
    fit = np.flatnonzero(keep)
    most = min(len(fit), _MAX_VARIANTS, int(_WORK / n_samples**2))
    # Few variants make first cousins of strangers, who would be left out for it.
    min_kinship = max(min_kinship, detectable_kinship(most))
    if min_kinship > max(DEGREES)[0]:
        nobody = np.zeros(0, dtype=np.int64)
        none = RelatedPairs(nobody, nobody, np.zeros(0), most)
        return Relatives(none, np.inf, left_out, np.zeros(n_samples, dtype=bool))
    fit = fit[np.linspace(0, len(fit) - 1, most).round().astype(int)]
    pairs = related_pairs(
        genotypes.dosage, min_kinship=min_kinship, variants=fit, progress=progress
    )
    inside = train[pairs.first] & train[pairs.second]
    if inside.any():
        within = RelatedPairs(
            pairs.first[inside], pairs.second[inside], pairs.kinship[inside], most
        )
        left_out = ~unrelated(within, n_samples, sample_call_rate(genotypes))
    learnt = train & ~left_out
    near = np.zeros(n_samples, dtype=bool)
    near[pairs.first[learnt[pairs.second]]] = True
    near[pairs.second[learnt[pairs.first]]] = True
    return Relatives(pairs, min_kinship, left_out, near & ~train)

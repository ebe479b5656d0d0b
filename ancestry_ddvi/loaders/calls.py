"""From the two alleles of a call to a dosage, by one rule for every format that holds alleles.

    first, second        allele indices: 0 REF, 1, 2, ... ALT, -1 missing, -2 no such allele
    0/1 -> 1, 1/1 -> 2   copies of the counted allele
    1/2, 0/2, 2/2        with another ALT allele: counts as REF, or missing (`others_missing`)
    1   -> 2             haploid, (1, -2): as homozygous
    ./. and .            missing, (-1, -1) and (-1, -2)
    ./1                  a half call: as `CallRule.half_calls` has it

-1 and -2 are also what BCF, cyvcf2 and VCF Zarr call a missing allele and the end of a vector.
"""

from __future__ import annotations

import numpy as np

from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.loaders.source import HALF_CALL, HAPLOID, CallRule

MISSING_ALLELE, NO_ALLELE = -1, -2


class HalfCallError(ValueError):
    """A half call where none is allowed.

    Attributes
    ----------
    at
        Its index in the arrays of alleles; the last number is the column of the sample.
    """

    def __init__(self, at: tuple[int, ...]) -> None:
        super().__init__(f"half call in sample column {at[-1]}")
        self.at = at


def dosage_of(first: np.ndarray, second: np.ndarray, alt: int, calls: CallRule) -> np.ndarray:
    """Copies of an ALT allele in diploid and haploid calls.

    Parameters
    ----------
    first, second
        Allele indices, integers of one shape (..., n_samples): -1 missing, -2 no such allele.
    alt
        The allele to count, from 1.
    calls
        What half calls and other ALT alleles mean; its `by_rule` counts the half and haploid
        calls. Where several ALT alleles of a record are taken each is a variant, so the call counts
        once for each.

    Returns
    -------
    np.ndarray
        int8 of the same shape: 0, 1, 2, or -1 for missing.

    Raises
    ------
    HalfCallError
        At the first half call, if `calls.half_calls` is `error`.
    """
    dosage: np.ndarray = (first == alt).astype(np.int8)
    dosage += second == alt
    if calls.others_missing:
        # Not 0 copies: were REF the allele that is counted in the end, it would be 2 of that.
        dosage[((first > 0) & (first != alt)) | ((second > 0) & (second != alt))] = MISSING
    if not dosage.size or (first.min() >= 0 and second.min() >= 0):
        return dosage
    lower, upper = np.minimum(first, second), np.maximum(first, second)
    dosage[upper < 0] = MISSING
    one = (lower < 0) & (upper >= 0)
    if not one.any():
        return dosage
    half = one & (lower == MISSING_ALLELE)
    haploid = one & ~half
    if n_half := int(np.count_nonzero(half)):
        if calls.half_calls == "error":
            raise HalfCallError(tuple(int(i) for i in np.argwhere(half)[0]))
        calls.by_rule[HALF_CALL.format(calls.half_calls)] += n_half
        if calls.half_calls == "missing":
            dosage[half] = MISSING
        elif calls.half_calls == "haploid":
            _double(dosage, half)
    if n_haploid := int(np.count_nonzero(haploid)):
        calls.by_rule[HAPLOID] += n_haploid
        _double(dosage, haploid)
    return dosage


def _double(dosage: np.ndarray, which: np.ndarray) -> None:
    """Take one allele for two, but where that is missing."""
    dosage[which & (dosage > 0)] = 2


def polyploid(alleles: np.ndarray) -> np.ndarray:
    """Which calls have more than two alleles.

    Parameters
    ----------
    alleles
        (..., ploidy) allele indices. A call of missing alleles only is a missing call of whatever
        ploidy; with one known allele, a missing third is a third (`0/1/.` is triploid).

    Returns
    -------
    np.ndarray
        (...) bool.
    """
    more: np.ndarray = (alleles[..., 2:] != NO_ALLELE).any(axis=-1)
    more &= (alleles >= 0).any(axis=-1)
    return more

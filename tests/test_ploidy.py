"""Who was read as one allele a site."""

from __future__ import annotations

import numpy as np

from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.preprocessing.ploidy import MIN_HETEROZYGOUS, MIN_REFERENCE, GenotypeShares


def drawn(n: int, m: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Dosages (n, m) of diploid samples, and the frequencies (m,)."""
    rng = np.random.default_rng(seed)
    frequency = rng.uniform(0.1, 0.9, m)
    return rng.binomial(2, frequency, (n, m)).astype(np.int8), frequency


def test_it_is_the_share_of_what_is_expected_over_the_sites_that_are_there() -> None:
    dosage, frequency = drawn(3, 400)
    dosage[0, ::2] = MISSING
    share = GenotypeShares.of(dosage, frequency).heterozygous
    for row, got in zip(dosage, share, strict=True):
        there = row != MISSING
        expected = (2 * frequency * (1 - frequency))[there].sum()
        np.testing.assert_allclose(got, (row == 1).sum() / expected, rtol=1e-6)


def test_only_samples_of_one_allele_are_haploid_and_no_one_by_few_sites() -> None:
    dosage, frequency = drawn(200, 300)
    dosage[:50] = np.where(dosage[:50] == 1, 2, dosage[:50])
    # Half of the genome in runs of homozygosity is inbreeding, and no ploidy.
    dosage[50:60, :150] = np.where(dosage[50:60, :150] == 1, 0, dosage[50:60, :150])
    found = GenotypeShares.of(dosage, frequency)
    typical = found.typical(np.arange(100, 200))
    assert 0.9 < typical < 1.1
    assert np.flatnonzero(found.is_haploid(typical)).tolist() == list(range(50))
    few = int(MIN_HETEROZYGOUS / 0.5)  # of at most .5 each
    assert not GenotypeShares.of(dosage[:, :few], frequency[:few]).is_haploid(typical).any()


def test_a_haploid_reference_calls_nobody_haploid() -> None:
    dosage, frequency = drawn(40, 300)
    dosage[dosage == 1] = 0
    found = GenotypeShares.of(dosage, frequency)
    assert not found.is_haploid(found.typical(np.arange(40))).any()
    assert GenotypeShares(2).typical(np.arange(2)) == 0


def test_genotypes_without_alt_are_counted_over_those_expected() -> None:
    dosage, frequency = drawn(50, 4000)
    whole = GenotypeShares.of(dosage, frequency).reference
    assert abs(np.median(whole) - 1) < 0.06
    assert whole.min() > MIN_REFERENCE
    for n in (1, 2):
        there = dosage[:n].max(axis=0) > 0
        few = GenotypeShares.of(dosage[:n, there], frequency[there]).reference
        assert np.median(few) < MIN_REFERENCE
    assert np.isnan(GenotypeShares.of(dosage[:, :10], frequency[:10]).reference).all()

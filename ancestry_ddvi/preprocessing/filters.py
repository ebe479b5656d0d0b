"""Which variants and samples carry ancestry signal well enough to learn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix

BLOCK_BYTES = 64 * 2**20
"""Work on blocks of about this size, so that no stage holds a second copy of the genotypes."""


def column_blocks(n_rows: int, n_columns: int, bytes_per_item: int = 4) -> list[slice]:
    """Split columns into slices that take about `BLOCK_BYTES` each at `bytes_per_item`."""
    width = max(1, BLOCK_BYTES // max(1, n_rows * bytes_per_item))
    return [slice(i, min(i + width, n_columns)) for i in range(0, n_columns, width)]


@dataclass(frozen=True)
class VariantCounts:
    """Per-variant counts over a set of samples, and the rates that follow from them.

    Attributes
    ----------
    n_called
        (n_variants,) samples with a called genotype.
    n_counted
        (n_variants,) copies of the counted allele in them.
    varies
        (n_variants,) bool: whether two called genotypes differ.
    n_samples
        Samples, called or not.
    """

    n_called: np.ndarray
    n_counted: np.ndarray
    varies: np.ndarray
    n_samples: int

    @classmethod
    def of(cls, dosage: np.ndarray, rows: np.ndarray | None = None) -> VariantCounts:
        """Count (n_samples, n_variants) int8 dosages, a block of columns at a time.

        Of the samples `rows` (indices) only, if they are given.
        """
        n_samples = dosage.shape[0] if rows is None else len(rows)
        n_variants = dosage.shape[1]
        n_called = np.empty(n_variants, dtype=np.int64)
        n_counted = np.empty(n_variants, dtype=np.int64)
        varies = np.zeros(n_variants, dtype=bool)
        for columns in column_blocks(n_samples, n_variants, 1):
            block = dosage[:, columns] if rows is None else dosage[rows, columns]
            called = block != MISSING
            n_called[columns] = called.sum(axis=0)
            n_counted[columns] = np.sum(block, axis=0, where=called, dtype=np.int64)
            if n_samples:
                # Unsigned, a missing genotype is 255 and never the least.
                varies[columns] = block.view(np.uint8).min(axis=0) < block.max(axis=0)
        return cls(n_called, n_counted, varies, n_samples)

    @property
    def n_missing(self) -> np.ndarray:
        """(n_variants,) samples without a called genotype."""
        return self.n_samples - self.n_called

    @property
    def call_rate(self) -> np.ndarray:
        """(n_variants,) share of samples called."""
        return self.n_called / self.n_samples

    @property
    def allele_frequency(self) -> np.ndarray:
        """(n_variants,) frequency of the counted allele; nan where nobody is called."""
        return self._per_called_allele(self.n_counted)

    @property
    def maf(self) -> np.ndarray:
        """(n_variants,) minor allele frequency; nan where nobody is called.

        From the counts: 1 - p is rounded, and a variant on the threshold would pass or fail with
        the choice of the counted allele.
        """
        return self._per_called_allele(
            np.minimum(self.n_counted, 2 * self.n_called - self.n_counted)
        )

    def _per_called_allele(self, count: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            share: np.ndarray = count / (2 * self.n_called)
        return share


def sample_call_rate(genotypes: GenotypeMatrix) -> np.ndarray:
    """(n_samples,) share of the variants at which a sample is called; 1 if there are none."""
    called = np.zeros(genotypes.n_samples, dtype=np.int64)
    for columns in column_blocks(genotypes.n_samples, genotypes.n_variants, 1):
        called += (genotypes.dosage[:, columns] != MISSING).sum(axis=1)
    if genotypes.n_variants == 0:
        return np.ones(genotypes.n_samples)
    # Not 1 - missing / n, which is 0.0999... for one call in ten and fails a threshold of 0.1.
    return called / genotypes.n_variants


def filter_variants(
    counts: VariantCounts, *, min_call_rate: float, min_maf: float
) -> tuple[np.ndarray, dict[str, int]]:
    """Apply the call-rate, monomorphic and MAF filters, in that order.

    A variant at which every sample is heterozygous is monomorphic here: it tells nobody apart,
    whatever its MAF.

    Returns
    -------
    keep
        (n_variants,) bool.
    funnel
        How many variants each filter took; a variant is counted by the first that takes it.
    """
    low_call_rate = counts.call_rate < min_call_rate
    maf = np.nan_to_num(counts.maf, nan=0.0)
    monomorphic = ~low_call_rate & ~counts.varies
    rare = ~low_call_rate & ~monomorphic & (maf < min_maf)
    funnel = {
        f"call rate below {min_call_rate:g}": int(low_call_rate.sum()),
        "monomorphic": int(monomorphic.sum()),
        f"MAF below {min_maf:g}": int(rare.sum()),
    }
    return ~(low_call_rate | monomorphic | rare), funnel

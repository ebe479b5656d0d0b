"""The genotypes a block of variants at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ancestry_ddvi.genotypes import GenotypeMatrix

_BLOCK_GENOTYPES = 2**20
_CODES = 3  # the two bits of a dosage: 0, 1, 2, and 3 for -1


def iter_codes(genotypes: GenotypeMatrix) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (start, stop, codes) of blocks of variants, in order.

    `codes` is (stop - start, n_samples) int8, C-contiguous: 0, 1 or 2 copies of ALT, 3 missing.
    About a million genotypes a block, whatever the number of samples.
    """
    step = max(1, _BLOCK_GENOTYPES // genotypes.n_samples)
    for start in range(0, genotypes.n_variants, step):
        stop = min(start + step, genotypes.n_variants)
        # Columns first: the matrix may be in Fortran order, and then a block is one stretch.
        codes = np.ascontiguousarray(genotypes.dosage[:, start:stop].T) & np.int8(_CODES)
        yield start, stop, codes

"""Reading holds little more than the matrix it returns, and never a variant that a filter drops."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bed_reader import to_bed
from helpers import vcf_header

from ancestry_ddvi import GenotypeMatrix, read_genotypes
from ancestry_ddvi.loaders.options import ReadOptions

N_SAMPLES, N_VARIANTS = 500, 40_000
MAX_RATIO = 1.5
# What does not grow with the matrix: pieces of text and their lines, a block of calls, the least
# that the buffer grows by (numpy reports it at once), and the table of variants, which at so few
# samples is not small beside the genotypes.
CONSTANT = 10e6


@pytest.fixture(scope="module")
def dosage() -> np.ndarray:
    """(N_SAMPLES, N_VARIANTS): a tenth of the variants common, the others carried by one sample."""
    rng = np.random.default_rng(0)
    common = rng.integers(0, 3, (N_SAMPLES, N_VARIANTS), dtype=np.int8)
    rare = np.zeros_like(common)
    rare[rng.integers(0, N_SAMPLES, N_VARIANTS), np.arange(N_VARIANTS)] = 1
    return np.where(np.arange(N_VARIANTS) % 10 == 0, common, rare)


@pytest.fixture(scope="module")
def files(dosage: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same as plain VCF and as PLINK 1 set."""
    folder = tmp_path_factory.mktemp("streaming")
    sample_id = [f"S{i}" for i in range(N_SAMPLES)]
    calls = np.frombuffer(b"0/0\t0/1\t1/1\t", dtype="S4")[dosage.T]
    with open(folder / "x.vcf", "wb") as file:
        file.write(vcf_header(sample_id).encode())
        for at, row in enumerate(calls):
            file.write(b"1\t%d\t.\tA\tC\t.\tPASS\t.\tGT\t" % (at + 1))
            file.write(row.tobytes()[:-1] + b"\n")
    to_bed(
        folder / "x.bed",
        dosage,
        properties={
            "iid": sample_id,
            "chromosome": ["1"] * N_VARIANTS,
            "bp_position": np.arange(1, N_VARIANTS + 1),
            "allele_1": ["C"] * N_VARIANTS,
            "allele_2": ["A"] * N_VARIANTS,
        },
        num_threads=1,
    )
    return {"vcf": folder / "x.vcf", "bed": folder / "x.bed"}


def peak_of(path: Path, options: ReadOptions) -> tuple[GenotypeMatrix, int]:
    """What is read, and the most bytes that Python and numpy held meanwhile."""
    read_genotypes(path, ReadOptions(maf=0.5))  # imports, and what libraries keep
    tracemalloc.start()
    try:
        genotypes = read_genotypes(path, options)
        return genotypes, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["vcf", "bed"])
def test_all_variants(kind: str, files: dict[str, Path], dosage: np.ndarray) -> None:
    genotypes, peak = peak_of(files[kind], ReadOptions())
    np.testing.assert_array_equal(genotypes.dosage, dosage)
    assert peak >= dosage.nbytes  # the matrix itself is seen
    assert peak <= MAX_RATIO * dosage.nbytes + CONSTANT


@pytest.mark.parametrize("kind", ["vcf", "bed"])
def test_variants_that_a_filter_drops(
    kind: str, files: dict[str, Path], dosage: np.ndarray
) -> None:
    genotypes, peak = peak_of(files[kind], ReadOptions(maf=0.05))
    np.testing.assert_array_equal(genotypes.dosage, dosage[:, ::10])
    limit = MAX_RATIO * genotypes.dosage.nbytes + CONSTANT
    assert limit < dosage.nbytes  # so who held all variants would be found out
    assert peak <= limit

"""Reading holds little more than the matrix it returns, and never a variant that a filter drops."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bed_reader import to_bed
from helpers import vcf_header
from test_loaders_plink1 import by_sample

from ancestry_ddvi import GenotypeMatrix, read_genotypes
from ancestry_ddvi.loaders.options import ReadOptions
from ancestry_ddvi.loaders.plink2 import Plink2Source
from ancestry_ddvi.loaders.read import open_source, read_sources
from ancestry_ddvi.loaders.vcf_zarr import VcfZarrSource
from ancestry_ddvi.writers import write_genotypes

KINDS = ["vcf", "bed", "bed by sample", "npz", "pgen", "vcz"]
N_SAMPLES, N_VARIANTS = 500, 40_000
MAX_RATIO = 1.5
# What does not grow with the matrix: pieces of text and their lines, a block of calls, the least
# that the buffer grows by (numpy reports it at once), and the table of variants, which at so few
# samples is not small beside the genotypes.
CONSTANT = 10e6
# Of a .pgen the table of all sites is read before any genotype, and held: bytes a variant.
SITE_BYTES = {"pgen": 100}


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
    """The same in each format: PLINK 1 in both orders."""
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
    shutil.copyfile(folder / "x.bim", folder / "s.bim")
    shutil.copyfile(folder / "x.fam", folder / "s.fam")
    by_sample(folder / "s", dosage)
    genotypes = read_genotypes(folder / "x.bed")
    paths = {"vcf": folder / "x.vcf", "bed": folder / "x.bed", "bed by sample": folder / "s.bed"}
    for kind in ("npz", "pgen", "vcz"):
        paths[kind] = folder / f"p.{kind}"
        write_genotypes(genotypes, paths[kind])
    return paths


def peak_of(path: Path, options: ReadOptions) -> tuple[GenotypeMatrix, int]:
    """What is read, and the most bytes that Python and numpy held meanwhile."""
    # What is read in a child process is read in this one, to be seen: the parent's share of a
    # block is bounded by it.
    guarded = {".pgen": Plink2Source, ".vcz": VcfZarrSource}
    opened = guarded.get(path.suffix, open_source)
    read_sources([opened(path)], ReadOptions(maf=0.5))  # imports, and what libraries keep
    tracemalloc.start()
    try:
        genotypes = read_sources([opened(path)], options)
        return genotypes, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_all_variants(kind: str, files: dict[str, Path], dosage: np.ndarray) -> None:
    genotypes, peak = peak_of(files[kind], ReadOptions())
    np.testing.assert_array_equal(genotypes.dosage, dosage)
    assert peak >= dosage.nbytes  # the matrix itself is seen
    assert peak <= MAX_RATIO * dosage.nbytes + CONSTANT


@pytest.mark.parametrize("kind", KINDS)
def test_variants_that_a_filter_drops(
    kind: str, files: dict[str, Path], dosage: np.ndarray
) -> None:
    genotypes, peak = peak_of(files[kind], ReadOptions(maf=0.05))
    np.testing.assert_array_equal(genotypes.dosage, dosage[:, ::10])
    limit = MAX_RATIO * genotypes.dosage.nbytes + CONSTANT + N_VARIANTS * SITE_BYTES.get(kind, 0)
    assert limit < dosage.nbytes  # so who held all variants would be found out
    assert peak <= limit

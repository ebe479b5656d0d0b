"""A file that is removed, cut off or changed while it is read: refused, or read as it is or was."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from helpers import make_variants
from test_loaders_plink1 import by_sample

from ancestry_ddvi import GenotypeMatrix
from ancestry_ddvi.errors import GenotypeFileError
from ancestry_ddvi.loaders.read import open_source
from ancestry_ddvi.loaders.source import Selection, Source
from ancestry_ddvi.writers import write_genotypes

N_SAMPLES, N_VARIANTS = 200, 12_000  # several blocks in each format

# What to open, and the file of it that changes.
FILES = {
    "bcf": ("x.bcf", "x.bcf"),
    "bed": ("x.bed", "x.bed"),
    "bim": ("x.bed", "x.bim"),
    "bed by sample": ("s.bed", "s.bed"),
    "pgen": ("x.pgen", "x.pgen"),
    "pvar": ("x.pgen", "x.pvar"),
    "npz": ("x.npz", "x.npz"),
    "vcz": ("x.vcz", "x.vcz/call_genotype/11/0/0"),
    "vcf": ("x.vcf.gz", "x.vcf.gz"),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same genotypes in every format."""
    pytest.importorskip("zarr", minversion="3", reason="zarr is not installed")
    folder = tmp_path_factory.mktemp("changing")
    dosage = np.random.default_rng(0).integers(-1, 3, (N_SAMPLES, N_VARIANTS)).astype(np.int8)
    genotypes = GenotypeMatrix(
        dosage=dosage,
        sample_id=np.array([f"S{i}" for i in range(N_SAMPLES)]),
        variants=make_variants(N_VARIANTS),
    )
    for name in ("x.bcf", "x.bed", "s.bed", "x.pgen", "x.npz", "x.vcz", "x.vcf.gz"):
        write_genotypes(genotypes, folder / name)
    by_sample(folder / "s", dosage)
    return folder


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])


def change(path: Path) -> None:
    """Another byte in the last quarter, at the same size."""
    with open(path, "r+b") as file:
        at = path.stat().st_size * 7 // 8
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


def read(source: Source, meanwhile: Callable[[], None] = lambda: None) -> tuple[bytes, str]:
    """Genotypes and checksum; `meanwhile` comes after the first block."""
    dosage = b""
    for block in source.blocks(Selection(), lambda fraction: None):
        if not dosage:
            meanwhile()
        dosage += block.dosage.tobytes()
    return dosage, source.sha256()


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("act", [remove, cut, change])
@pytest.mark.parametrize("kind", FILES)
def test_refused_or_consistent(
    kind: str, act: Callable[[Path], None], early: bool, written: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(written, tmp_path / "x")
    path, target = (folder / name for name in FILES[kind])
    whole = [read(open_source(path))]
    source = open_source(path)
    if early:
        act(target)
    try:
        found = read(source, (lambda: None) if early else lambda: act(target))
    except GenotypeFileError as fault:
        assert str(fault).startswith(str(folder))  # noqa: PT017
        assert "; " in str(fault)  # noqa: PT017
        return
    if act is change:
        with suppress(GenotypeFileError):
            whole.append(read(open_source(path)))
    else:
        assert not early
    assert found in whole

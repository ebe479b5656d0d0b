"""VCF Zarr, version 0.4: a folder of arrays, through zarr (an optional dependency).

Zarr format 2 with `_ARRAY_DIMENSIONS`, which is what bio2zarr writes and sgkit reads; the spec
leaves chunks and compression free.

Specification: https://github.com/sgkit-dev/vcf-zarr-spec/blob/main/vcf_zarr_spec.md
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi import __version__
from ancestry_ddvi.errors import OptionError
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.writers.names import TEXT, check_names

_VERSION = "0.4"

# bio2zarr's: 20 MB of genotypes a chunk at most, which is also what is held at a time.
_CHUNK_VARIANTS, _CHUNK_SAMPLES = 1000, 10_000

# By code of a dosage's two bits: its two alleles.
_ALLELES = np.array([[0, 0], [0, 1], [1, 1], [-1, -1]], dtype=np.int8)

_RULES = dict.fromkeys(("sample id", "contig", "id", "ref", "alt"), (TEXT, "be Unicode text"))


def check_vcz(genotypes: GenotypeMatrix, path: str | os.PathLike[str]) -> None:
    """Refuse names that are no text (OutputError), or all if zarr is missing (OptionError)."""
    try:
        import numcodecs  # noqa: F401
        import zarr  # noqa: F401
    except ImportError as error:
        raise OptionError(
            f"{path}: writing VCF Zarr needs the package {error.name}; install it with "
            '`pip install "ancestry-ddvi[zarr]"`'
        ) from error
    check_names(genotypes, path, "VCF Zarr", _RULES)


def write_vcz(genotypes: GenotypeMatrix, files: list[Path]) -> None:
    """Write a Zarr group to the only path in `files`, a folder."""
    import zarr
    from numcodecs import Blosc

    variants = genotypes.variants
    contig, contig_id = pd.factorize(variants["contig"])
    # zarr stores from threads of its own, which go on after a Ctrl-C and would fill the folder
    # that is just being removed. So it stores to memory, and each chunk goes to disk from here.
    content: dict[str, Any] = {}
    store = zarr.storage.MemoryStore(content)
    group = zarr.open_group(store, mode="w", zarr_format=2)
    group.attrs.update(
        {
            "vcf_zarr_version": _VERSION,
            "vcf_meta_information": [["fileformat", "VCFv4.3"]],
            "source": f"ancestry-ddvi-{__version__}",
        }
    )

    def create(name: str, dimensions: tuple[str, ...], shape: tuple[int, ...], dtype: Any) -> Any:
        limits = {"variants": _CHUNK_VARIANTS, "samples": _CHUNK_SAMPLES}
        bits = name == "call_genotype"
        array = group.create_array(
            name,
            shape=shape,
            dtype=dtype,
            chunks=tuple(
                min(n, limits.get(dimension, n))
                for n, dimension in zip(shape, dimensions, strict=True)
            ),
            compressors=Blosc(
                cname="zstd", clevel=7, shuffle=Blosc.BITSHUFFLE if bits else Blosc.NOSHUFFLE
            ),
            chunk_key_encoding={"name": "v2", "separator": "/"},
            # A reader cannot tell a chunk that was left out, being all REF, from one that was lost.
            config={"write_empty_chunks": True},
        )
        array.attrs["_ARRAY_DIMENSIONS"] = list(dimensions)
        return array

    def put(name: str, dimensions: tuple[str, ...], values: np.ndarray, dtype: Any) -> None:
        create(name, dimensions, values.shape, dtype)[:] = values

    text = np.dtypes.StringDType()

    def words(values: Any) -> np.ndarray:
        return np.asarray(values, dtype=object).astype(text)

    put("contig_id", ("contigs",), words(contig_id), text)
    put("filter_id", ("filters",), words(["PASS"]), text)
    put("sample_id", ("samples",), words(genotypes.sample_id), text)
    put("variant_contig", ("variants",), contig.astype(np.int32), np.int32)
    put("variant_position", ("variants",), variants["position"].to_numpy(np.int32), np.int32)
    put("variant_id", ("variants",), words(variants["id"]), text)
    put("variant_allele", ("variants", "alleles"), words(variants[["ref", "alt"]]), text)
    # All false: no filter was applied.
    put("variant_filter", ("variants", "filters"), np.zeros((len(variants), 1), bool), bool)
    shape = (genotypes.n_variants, genotypes.n_samples, 2)
    calls = create("call_genotype", ("variants", "samples", "ploidy"), shape, np.int8)
    for start in range(0, shape[0], _CHUNK_VARIANTS):
        columns = slice(start, start + _CHUNK_VARIANTS)
        for first in range(0, shape[1], _CHUNK_SAMPLES):
            rows = slice(first, first + _CHUNK_SAMPLES)
            calls[columns, rows] = _ALLELES[genotypes.dosage[rows, columns].T & np.int8(3)]
            _move(content, files[0])
    zarr.consolidate_metadata(store, zarr_format=2)
    _move(content, files[0], metadata=True)


def _move(content: dict[str, Any], folder: Path, *, metadata: bool = False) -> None:
    """Move what zarr has stored to disk: the chunks, and the metadata too if nothing follows."""
    for key in list(content):
        if metadata or not key.rpartition("/")[2].startswith(".z"):
            path = folder / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.pop(key).to_bytes())

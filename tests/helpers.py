"""What several test files share."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pysam
import pytest

from ancestry_ddvi.ddvi import training
from ancestry_ddvi.genotypes import VARIANT_COLUMNS

GENOTYPE_TEXT = {0: "0/0", 1: "0/1", 2: "1/1", -1: "./."}

VCF_META = (
    "##fileformat=VCFv4.2\n"
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">\n'
    '##FORMAT=<ID=DP,Number=1,Type=Integer,Description="Depth">\n'
)


@contextmanager
def importable(*folders: str) -> Iterator[pytest.MonkeyPatch]:
    """The scripts in these folders of the repository can be imported; what they set for their own
    processes is undone."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
            patch.setenv(f"{name}_NUM_THREADS", "1")
        for folder in folders:
            patch.syspath_prepend(str(Path(__file__).parents[1] / folder))
        yield patch


def spoil_map_phase(monkeypatch: pytest.MonkeyPatch, term: str, at: int) -> None:
    """Make this term of the map phase not a number at one step."""
    whole = training._map_terms

    def spoilt(model: Any, data: Any, config: Any, step: int) -> dict[str, Any]:
        terms = whole(model, data, config, step)
        return terms | {term: terms[term] * (math.nan if step == at else 1)}

    monkeypatch.setattr(training, "_map_terms", spoilt)


def vcf_header(sample_id: Sequence[str] | np.ndarray) -> str:
    """The header of a VCF, with its #CHROM line."""
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    return VCF_META + "\t".join([*columns, *sample_id]) + "\n"


def make_variants(n_variants: int) -> pd.DataFrame:
    """A variant table of A>C SNPs, alternating in halves over contigs 1 and 2."""
    half = (n_variants + 1) // 2
    index = np.arange(n_variants)
    return pd.DataFrame(
        {
            "contig": np.where(index < half, "1", "2"),
            "position": 1000 * (1 + index % max(1, half)),
            "id": [f"rs{i}" for i in index],
            "ref": "A",
            "alt": "C",
        }
    )


def write_vcf(
    path: str | Path,
    dosage: np.ndarray,
    sample_id: Sequence[str] | np.ndarray,
    variants: pd.DataFrame | None = None,
    compress: str = "none",
) -> Path:
    """Write (n_samples, n_variants) dosages as a VCF: compress is none, gzip or bgzip."""
    table = make_variants(dosage.shape[1]) if variants is None else variants
    lines = [vcf_header(sample_id)]
    for row, calls in zip(
        table[list(VARIANT_COLUMNS)].itertuples(index=False), dosage.T, strict=True
    ):
        fixed = "\t".join(str(value) for value in row)
        genotypes = "\t".join(GENOTYPE_TEXT[int(call)] for call in calls)
        lines.append(f"{fixed}\t.\tPASS\t.\tGT\t{genotypes}\n")
    return write_text(path, "".join(lines), compress)


def write_text(path: str | Path, text: str, compress: str = "none") -> Path:
    """Write text plainly, as gzip, or as bgzip."""
    path = Path(path)
    if compress == "none":
        path.write_bytes(text.encode())
    elif compress == "gzip":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    elif compress == "bgzip":
        plain = path.with_name(path.name + ".plain")
        plain.write_bytes(text.encode())
        pysam.tabix_compress(str(plain), str(path), force=True)
        plain.unlink()
    else:
        raise ValueError(f"no such compression: {compress}")
    return path

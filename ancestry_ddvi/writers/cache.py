"""Our own cache, in the format that `loaders/cache.py` describes and reads."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.loaders.cache import FORMAT_VERSION, content_digest
from ancestry_ddvi.writers.blocks import iter_codes


def check_cache(genotypes: GenotypeMatrix, path: str | os.PathLike[str]) -> None:
    """Refuse nothing: JSON holds any name."""


def write_cache(genotypes: GenotypeMatrix, files: list[Path]) -> None:
    """Write the .npz to the only path in `files`."""
    variants = genotypes.variants
    contig, contigs = pd.factorize(variants["contig"])
    family_id = genotypes.family_id
    text = {
        "contigs": [str(name) for name in contigs],
        **{name: variants[name].to_list() for name in ("id", "ref", "alt")},
        "sample_id": [str(name) for name in genotypes.sample_id],
        "family_id": None if family_id is None else [str(name) for name in family_id],
        "source": dict(genotypes.source),
        "left_out": {reason: int(n) for reason, n in genotypes.left_out.items()},
    }
    arrays = {
        "dosage": _packed(genotypes),
        "position": variants["position"].to_numpy("<i8"),
        "contig": contig.astype("<i4"),
        "text": np.frombuffer(json.dumps(text, separators=(",", ":")).encode("ascii"), np.uint8),
        "format": np.array([FORMAT_VERSION, genotypes.n_samples], dtype="<i8"),
    }
    digest = np.frombuffer(content_digest(arrays), np.uint8)
    with open(files[0], "wb") as file:  # a name would be given the suffix .npz
        np.savez(file, allow_pickle=False, sha256=digest, **arrays)


def _packed(genotypes: GenotypeMatrix) -> np.ndarray:
    """The dosages as two bits each: (n_variants, ceil(n_samples / 4)) uint8."""
    n_bytes = -(-genotypes.n_samples // 4)
    packed = np.empty((genotypes.n_variants, n_bytes), dtype=np.uint8)
    for start, stop, codes in iter_codes(genotypes):
        padded = np.zeros((stop - start, 4 * n_bytes), dtype=np.uint8)
        padded[:, : genotypes.n_samples] = codes
        # Four bytes as one number: each pair of bits is moved to its place in the lowest byte.
        four = padded.view("<u4")
        packed[start:stop] = four | four >> 6 | four >> 12 | four >> 18
    return packed

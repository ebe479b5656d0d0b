"""Our own cache: everything of a GenotypeMatrix in one .npz, quick to write and to read.

A zip of .npy arrays, none of them pickled (read it with `allow_pickle=False`):

    dosage    (n_variants, ceil(n_samples / 4)) uint8: four samples a byte, the first in the lowest
              two bits, as 0, 1 or 2 copies of ALT, 3 missing; bits behind the last sample are 0
    position  (n_variants,) int64
    contig    (n_variants,) int32: index into `contigs` of the text
    text      (n_bytes,) uint8: JSON in ASCII, an object with `contigs`, `id`, `ref`, `alt` (a list
              each; one a variant, but for `contigs`), `sample_id`, `family_id` (a list or null),
              `source`, `left_out`
    format    (2,) int64: FORMAT_VERSION, n_samples
    sha256    (32,) uint8: `content_digest` of the others

A reader checks `format`, then `sha256`, and only then uses the rest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.writers.blocks import iter_codes

FORMAT_VERSION = 1


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


def content_digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    """SHA-256 of name, type, shape and bytes of all arrays but `sha256`, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(set(arrays) - {"sha256"}):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.digest()


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

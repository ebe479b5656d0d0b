"""Where standard normals come from.

Training draws from one torch.Generator. Whatever is said of a single sample draws from a stream of
its own, Philox keyed by (seed, key of the sample): its draws are the same alone, in any company and
in any order.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


class SampleStreams:
    """A stream of standard normals for each of n samples.

    Parameters
    ----------
    key
        (n_samples,) uint64. Equal keys have equal streams.
    seed
        Another seed, other streams; from 0 to 2**64 - 1.
    """

    def __init__(self, key: np.ndarray, seed: int) -> None:
        self._streams = [
            np.random.Generator(np.random.Philox(key=np.array([seed, k], dtype=np.uint64)))
            for k in key
        ]

    def normal(self, shape: Sequence[int]) -> Tensor:
        """The next normals of every stream, (..., n_samples, D)."""
        *lead, n_samples, d = shape
        if n_samples != len(self._streams):
            raise ValueError(f"normals of shape {tuple(shape)} for {len(self._streams)} samples")
        normals = np.empty((n_samples, math.prod(lead) * d), dtype=np.float32)
        for stream, row in zip(self._streams, normals, strict=True):
            stream.standard_normal(dtype=np.float32, out=row)
        return torch.from_numpy(normals.reshape(n_samples, *lead, d)).movedim(0, -2)


Source = torch.Generator | SampleStreams


def randn(shape: Sequence[int], source: Source) -> Tensor:
    """Standard normals of this shape (..., n_samples, D)."""
    if isinstance(source, SampleStreams):
        return source.normal(shape)
    return torch.randn(tuple(shape), generator=source)


def row_key(x: np.ndarray) -> np.ndarray:
    """(n_samples,) uint64 key of each row of x (n_samples, K), for samples that have no id."""
    return hash64(row.tobytes() for row in np.asarray(x, dtype="<f4"))


def hash64(items: Iterable[bytes]) -> np.ndarray:
    """uint64, the first 64 bits of the SHA-256 of each item."""
    digests = (hashlib.sha256(item).digest() for item in items)
    return np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.uint64)

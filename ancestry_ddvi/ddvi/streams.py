"""Random numbers: one stream for all, or one for each sample.

With a stream for each sample its draws do not depend on the company it is embedded in, and the
draws of two samples stay independent, which posterior draws handed to a GWAS need.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class Streams:
    """Independent streams for n samples.

    Parameters
    ----------
    key
        (n,) uint64 that tells samples apart; equal keys draw equal numbers.
    seed
        Shared by all.
    """

    def __init__(self, key: np.ndarray, seed: int) -> None:
        # Philox is keyed: no two (seed, key) share a stream, and none costs a warm-up.
        self._streams = [
            np.random.Generator(np.random.Philox(key=np.array([seed, k], dtype=np.uint64)))
            for k in key
        ]

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, rows: slice) -> Streams:
        """Those of some samples, going on where they are."""
        part = Streams(np.empty(0, dtype=np.uint64), 0)
        part._streams = self._streams[rows]
        return part

    def normal(self, shape: Sequence[int]) -> Tensor:
        """(..., n, D) float32 standard normal numbers."""
        *leading, n, n_latent = shape
        drawn = np.empty((n, *leading, n_latent), dtype=np.float32)
        for stream, row in zip(self._streams, drawn, strict=True):
            stream.standard_normal(out=row, dtype=np.float32)
        return torch.from_numpy(np.moveaxis(drawn, 0, -2))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """(..., n) float32 numbers from [0, 1)."""
        *leading, n = shape
        drawn = np.empty((n, *leading), dtype=np.float32)
        for i, stream in enumerate(self._streams):
            drawn[i] = stream.random(tuple(leading), dtype=np.float32)
        return torch.from_numpy(np.moveaxis(drawn, 0, -1))

    def dirichlet(self, concentration: Tensor, n_draws: int) -> Tensor:
        """(n_draws, n, C) float32 draws for concentration (n, C)."""
        rows = zip(self._streams, concentration.double().numpy(), strict=True)
        drawn = np.stack([stream.dirichlet(row, n_draws) for stream, row in rows], axis=1)
        return torch.from_numpy(drawn.astype(np.float32))


Source = torch.Generator | Streams
"""Where random numbers come from."""


def normal(source: Source, shape: Sequence[int]) -> Tensor:
    """(..., n, D) standard normal numbers."""
    if isinstance(source, Streams):
        return source.normal(shape)
    return torch.randn(tuple(shape), generator=source)


def uniform(source: Source, shape: Sequence[int]) -> Tensor:
    """(..., n) numbers from [0, 1)."""
    if isinstance(source, Streams):
        return source.uniform(shape)
    return torch.rand(tuple(shape), generator=source)


def dirichlet(source: Source, concentration: Tensor, n_draws: int) -> Tensor:
    """(n_draws, n, C) draws of Dir(concentration) for (n, C), reparameterised where the source is a
    generator (implicit gradients: Figurnov, Mohamed & Mnih 2018)."""
    if isinstance(source, Streams):
        return source.dirichlet(concentration, n_draws)
    # Distributions of torch draw from the global stream; fork it so that a caller's is not touched.
    seed = int(torch.randint(2**62, (), generator=source))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        drawn: Tensor = torch.distributions.Dirichlet(concentration, False).rsample((n_draws,))
    return drawn

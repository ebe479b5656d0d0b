"""How far draws of q(z | x) are from the exact posterior of the same sample.

    P_b      exact mass of block b of N_BLOCKS x N_BLOCKS over the exact posterior's box, and of
             what lies outside of them; every block has TAIL of the whole spread over it at least
    Q_b      (draws in b + PSEUDO) / (draws + PSEUDO blocks)
    KL(P, Q) = sum_b P_b log(P_b / Q_b),  KL(Q, P) likewise,   TV = sum_b |P_b - Q_b| / 2

Blocks hide what differs within one, so both divergences come out lower than they are; counts of
few draws make them come out higher. What draws of the exact posterior itself score is the second
error, to be subtracted.

    level(z) = share of q that is denser than at z
    z lies in the highest-density region of mass p of q  iff  level(z) <= p

Over pairs (z, x) drawn from the model, the level of z under p(z | x) is uniform. Here the density
is a kernel estimate from half of the draws, and the share is counted among the other half with z
itself: if these are draws of p(z | x), then z and they are exchangeable, and the level is uniform
however rough the estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ancestry_ddvi.baselines.exact import TAIL, GridPosterior
from ancestry_ddvi.ddvi.posterior import whiten
from ancestry_ddvi.errors import OptionError

N_BLOCKS = 24

PSEUDO = 0.05
"""Draws added to every block: with 24 x 24 blocks 29 in all, beside thousands of real ones."""


@dataclass(frozen=True)
class Discrepancy:
    """What two distributions differ in, for each of n samples.

    Attributes
    ----------
    kl_exact_q, kl_q_exact
        (n,) KL(exact || q) and KL(q || exact) in nats.
    total_variation
        (n,) from 0 to 1.
    sd_ratio
        (n,) standard deviation of q over that of the exact posterior, geometric mean of the axes.
    """

    kl_exact_q: Tensor
    kl_q_exact: Tensor
    total_variation: Tensor
    sd_ratio: Tensor


def discrepancy(exact: GridPosterior, draws: Tensor, n_blocks: int = N_BLOCKS) -> Discrepancy:
    """Compare draws of q (n_draws, n, 2) with the exact posterior of n samples.

    Raises
    ------
    OptionError
        If there are fewer than 2 draws, or blocks do not divide the grid.
    """
    _check_draws(draws, least=2)
    n_draws, n, _ = draws.shape
    inside = exact.block_mass(n_blocks).flatten(1)
    n_places = inside.shape[1] + 1
    p = torch.cat([inside, torch.zeros(n, 1, dtype=inside.dtype)], dim=1)
    p = (1 - TAIL) * p + TAIL / n_places
    places = exact.block_of(draws, n_blocks) + n_places * torch.arange(n)
    count = torch.bincount(places.flatten(), minlength=n * n_places).reshape(n, n_places)
    q = (count.double() + PSEUDO) / (n_draws + PSEUDO * n_places)
    log_ratio = torch.log(p / q)
    return Discrepancy(
        kl_exact_q=(p * log_ratio).sum(1),
        kl_q_exact=-(q * log_ratio).sum(1),
        total_variation=0.5 * (p - q).abs().sum(1),
        sd_ratio=(draws.double().std(0) / exact.sd).log().mean(-1).exp(),
    )


def region_level(draws: Tensor, z: Tensor, generator: torch.Generator) -> Tensor:
    """(n,) level of z (n, D) under q, from draws of q (n_draws, n, D).

    The share of samples with a level of at most p is the coverage of the regions of mass p.

    Raises
    ------
    OptionError
        If there are fewer draws than a kernel estimate needs.
    """
    n_latent = z.shape[-1]
    _check_draws(draws, least=4 * (n_latent + 1))
    seen, others = (part.transpose(0, 1).double() for part in draws.tensor_split(2))
    at = torch.cat([z.double().unsqueeze(1), others], dim=1)
    # Half of Scott's width, which suits a single normal mode and would fill the gap between two.
    width = 0.5 * seen.shape[1] ** (-1 / (n_latent + 4))
    mean = seen.mean(1, keepdim=True)
    covariance = (seen - mean).mT @ (seen - mean) / (seen.shape[1] - 1)
    # Draws may all be one: the factor must exist.
    jitter = 1e-12 + 1e-9 * covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    factor = torch.linalg.cholesky(
        covariance + jitter[:, None, None] * torch.eye(n_latent, dtype=covariance.dtype)
    ).unsqueeze(1)
    square = torch.cdist(whiten(at, mean, factor), whiten(seen, mean, factor)).square()
    log_density = torch.logsumexp(-0.5 * square / width**2, dim=-1)
    there, elsewhere = log_density[:, :1], log_density[:, 1:]
    denser, ties = (elsewhere > there).sum(1), (elsewhere == there).sum(1)
    share = torch.rand(len(z), generator=generator, dtype=torch.float64)
    return (denser + share * (ties + 1)) / (elsewhere.shape[1] + 1)


def _check_draws(draws: Tensor, least: int) -> None:
    if len(draws) < least:
        raise OptionError(f"a comparison needs at least {least} draws, not {len(draws)}")
    if not math.isfinite(float(draws.sum())):
        raise OptionError("draws are not finite; look for a posterior whose training diverged")

"""The exact posterior of two latents, by summing over a grid: what every other one is judged by.

    p(z | x) = p(x | z) p(z) / p(x),     p(x) = int p(x | z) p(z) dz
    mass_ij  = p(x | z_ij) p(z_ij) h_1 h_2 / p(x)      z_ij centre, h sides of a cell

The midpoint rule on a box that holds all but TAIL of the mass: for smooth densities its error falls
faster than any power of h once a cell is narrower than a mode. Each sample has a box of its own. It
is looked for on the prior's extent, and drawn in for as long as it shrinks, so a posterior much
narrower than the prior is resolved as well as a wide one with several modes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ancestry_ddvi.ddvi.objective import Likelihood
from ancestry_ddvi.ddvi.priors import Prior
from ancestry_ddvi.errors import InputError, OptionError

TAIL = 1e-6
"""Mass that a box may leave out."""

N_CELLS = 144
"""Cells along an axis: some 14 to a standard deviation of a normal posterior."""

N_COARSE = 256
"""Cells along an axis of the first grid, which lies over the prior and is shared by all samples. A
mode much narrower than one of its cells, a 250th of the prior's extent, may be overlooked."""

SHRINKS = 0.75
"""A box is drawn in again if an axis comes out shorter than this share of the last one."""

N_WIDER = 6
"""Times that the first grid is doubled before a posterior that is still not on it is given up."""

_AT_ONCE = 2**17
"""Cells evaluated at once: what a network makes of them fits in some 100 MB."""


@dataclass(frozen=True)
class GridPosterior:
    """p(z | x) of n samples, each on a grid over its own box.

    Attributes
    ----------
    low
        (n, 2) the corner of each box with the least coordinates.
    step
        (n, 2) sides of a cell.
    mass
        (n, G, G) float64 probability of each cell, axis 1 along z_1; sums to 1.
    log_evidence
        (n,) float64 log p(x) in nats.
    """

    low: Tensor
    step: Tensor
    mass: Tensor
    log_evidence: Tensor

    @property
    def mean(self) -> Tensor:
        """(n, 2) float64."""
        return (self._marginal * self._centre).sum(1)

    @property
    def sd(self) -> Tensor:
        """(n, 2) float64, of each axis."""
        off = self._centre - self.mean.unsqueeze(1)
        return (self._marginal * off**2).sum(1).sqrt()

    def sample(self, n_draws: int, generator: torch.Generator) -> Tensor:
        """(n_draws, n, 2) float32 draws: a cell by its mass, and a place in it evenly."""
        n_cells = self.mass.shape[1]
        drawn = torch.multinomial(
            self.mass.flatten(1), n_draws, replacement=True, generator=generator
        )
        cell = torch.stack([drawn // n_cells, drawn % n_cells], dim=-1)
        within = torch.rand(cell.shape, generator=generator)
        z = self.low.unsqueeze(1) + self.step.unsqueeze(1) * (cell + within)
        return z.transpose(0, 1).float()

    def block_mass(self, n_blocks: int) -> Tensor:
        """(n, n_blocks, n_blocks) mass of equal blocks of cells.

        Raises
        ------
        OptionError
            If the blocks do not divide the grid.
        """
        n, n_cells, _ = self.mass.shape
        if n_blocks < 1 or n_cells % n_blocks:
            raise OptionError(
                f"{n_blocks} blocks do not divide a grid of {n_cells} cells an axis; give a divisor"
            )
        size = n_cells // n_blocks
        return self.mass.reshape(n, n_blocks, size, n_blocks, size).sum((2, 4))

    def block_of(self, z: Tensor, n_blocks: int) -> Tensor:
        """(m, n) long, the block that holds z (m, n, 2): row by row, n_blocks**2 for none."""
        size = self.step * (self.mass.shape[1] / n_blocks)
        at = torch.floor((z - self.low) / size).long()
        inside = ((at >= 0) & (at < n_blocks)).all(-1)
        return torch.where(inside, at[..., 0] * n_blocks + at[..., 1], n_blocks**2)

    @property
    def _marginal(self) -> Tensor:
        """(n, G, 2) probability along each axis."""
        return torch.stack([self.mass.sum(2), self.mass.sum(1)], dim=-1)

    @property
    def _centre(self) -> Tensor:
        """(n, G, 2) the middles of cells along each axis."""
        return _centres(self.low, self.step, self.mass.shape[1])


@torch.no_grad()
def exact_posterior(
    prior: Prior, likelihood: Likelihood, x: Tensor, noise: Tensor, n_cells: int = N_CELLS
) -> GridPosterior:
    """p(z | x) of every row of x (n, K), noise (n,), and p(x).

    Raises
    ------
    OptionError
        If the prior is not over two latents, or n_cells < 8.
    InputError
        If the posterior of a sample is nowhere near the prior.
    """
    if prior.n_latent != 2:
        raise OptionError(f"a grid is over 2 latents, not {prior.n_latent}; set n_latent to 2")
    if n_cells < 8:
        raise OptionError(f"a grid needs at least 8 cells an axis, not {n_cells}")
    low, high = _first_box(prior, likelihood, x, noise)
    step = torch.empty_like(low)
    mass = torch.empty((len(x), n_cells, n_cells), dtype=torch.float64)
    log_evidence = torch.empty(len(x), dtype=torch.float64)
    rows = torch.arange(len(x))
    while len(rows):
        step[rows] = (high[rows] - low[rows]) / n_cells
        at = x[rows], noise[rows], low[rows], step[rows], n_cells
        mass[rows], log_evidence[rows] = _sum_up(_log_joint(prior, likelihood, *at), step[rows])
        new_low, new_high = _box(mass[rows], low[rows], step[rows])
        shrinks = (new_high - new_low < SHRINKS * (high[rows] - low[rows])).any(-1)
        rows = rows[shrinks]
        low[rows], high[rows] = new_low[shrinks], new_high[shrinks]
    return GridPosterior(low, step, mass, log_evidence)


def _first_box(
    prior: Prior, likelihood: Likelihood, x: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Low and high corners (n, 2) float64 of boxes on one grid over the prior."""
    drawn = prior.sample(10_000, torch.Generator().manual_seed(0)).double()
    middle, reach = (drawn.amax(0) + drawn.amin(0)) / 2, drawn.amax(0) - drawn.amin(0)
    for _ in range(N_WIDER):
        low, step = (middle - reach / 2).unsqueeze(0), (reach / N_COARSE).unsqueeze(0)
        mass, _ = _sum_up(_log_joint(prior, likelihood, x, noise, low, step, N_COARSE), step)
        rim = 1 - mass[:, 1:-1, 1:-1].sum((1, 2))
        if (rim < TAIL).all():
            return _box(mass, low, step)
        reach = 2 * reach
    raise InputError(
        f"the posterior of row {int(rim.argmax())} is not within {2 ** (N_WIDER - 1)} times the "
        "reach of the prior; look for features of another scale than the decoder's"
    )


def _centres(low: Tensor, step: Tensor, n_cells: int) -> Tensor:
    """(m, n_cells, 2) the middles of cells along each axis, for low and step (m, 2)."""
    number = torch.arange(n_cells, dtype=low.dtype).unsqueeze(-1) + 0.5
    return low.unsqueeze(1) + step.unsqueeze(1) * number


def _log_joint(
    prior: Prior,
    likelihood: Likelihood,
    x: Tensor,
    noise: Tensor,
    low: Tensor,
    step: Tensor,
    n_cells: int,
) -> Tensor:
    """(n, n_cells, n_cells) float64 log p(x, z); low and step (n, 2), or (1, 2) for all samples."""
    first, second = _centres(low, step, n_cells).float().unbind(-1)
    shape = (len(low), n_cells, n_cells)
    z = torch.stack([first.unsqueeze(2).expand(shape), second.unsqueeze(1).expand(shape)], dim=-1)
    z = z.flatten(1, 2)
    parts = []
    n_rows = max(1, _AT_ONCE // n_cells**2)
    for start in range(0, len(x), n_rows):
        rows = slice(start, start + n_rows)
        at = z if len(low) == 1 else z[rows]
        log_likelihood = likelihood.log_prob(x[rows].unsqueeze(1), at, noise[rows].unsqueeze(1))
        parts.append(log_likelihood.double() + prior.log_prob(at).double())
    return torch.cat(parts).reshape(len(x), n_cells, n_cells)


def _sum_up(log_joint: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Mass of every cell, and log p(x)."""
    total = torch.logsumexp(log_joint, dim=(1, 2))
    mass = torch.exp(log_joint - total[:, None, None])
    return mass, total + step.log().sum(-1)


def _box(mass: Tensor, low: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """Corners of the least box of whole cells that holds all but TAIL, and a cell around it."""
    marginal = torch.stack([mass.sum(2), mass.sum(1)], dim=-1)
    n_cells = marginal.shape[1]
    below, above = marginal.cumsum(1), marginal.flip(1).cumsum(1)
    first = (below < TAIL / 4).sum(1) - 1
    last = n_cells - (above < TAIL / 4).sum(1) + 1
    return (
        low + step * first.clamp(min=0),
        low + step * last.clamp(max=n_cells),
    )

"""Where a posterior has its mass, read off its draws: 90 % regions and modes, sample by sample.

    f(z) = 1/n sum_i N(z; z_i, h^2 S)         h = n^{-1/5}, S the covariance of the draws
    R_p  = {z: f(z) >= c_p}                   c_p: the 1-p quantile of f_{-i}(z_i), i = 1..n
    area = |R_.9|                             modes: pieces of R_p with 5 % of the draws or more,
                                              at that p of `LEVELS` where there are most

Highest-density regions after Hyndman 1996. f_{-i} leaves the draw's own kernel out, so that a
further draw falls into R_p with probability p. Two modes that R_.9 joins come apart at a smaller p,
hence more than one. The bandwidth is Scott's of one dimension in two as well: his own, .41 for
200 draws, hides modes of 20 %.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
MASS = 0.9
"""Of the regions whose bounds and size are told."""

MIN_MODE = 0.05
"""Share of the draws that a piece needs to be counted."""

MIN_DRAWS = 50
MAX_LATENTS = 2
"""More dimensions would need more draws than anyone takes, and a grid that nobody can pay."""

_GRID = 64
_KERNEL_VALUES = 200_000  # at a time, of each latent: what a processor's cache holds
_LEAST_DENSITY = 0.01
"""In units of a kernel's peak: a region goes no farther than 3 h from a draw."""

_LEAST_EXPONENT = -86.0
"""Smaller float32 kernels are not normal numbers, whose products take ten times as long."""

_EDGE, _BEYOND = 1.0, 3.5
"""Grids end so many h beyond the outermost draws: to measure by, and to draw the region whole."""


@dataclass(frozen=True)
class Regions:
    """90 % regions of every sample.

    Attributes
    ----------
    low, high
        (n_samples, n_latent) 5 % and 95 % quantiles of each latent.
    area
        (n_samples,) area of the highest-density region, with one latent its length; nan where
        there are more than two latents, fewer than 50 draws, or no spread.
    n_modes
        (n_samples,) pieces with at least 5 % of the draws; nan as for the area.
    """

    low: np.ndarray
    high: np.ndarray
    area: np.ndarray
    n_modes: np.ndarray


@dataclass(frozen=True)
class Outline:
    """What a contour of one sample's R_.9 is drawn from.

    Attributes
    ----------
    at
        (n, n, 2) points of a grid, not one along the axes, and wide enough for all of the region.
    density
        (n, n) density there, in units of a kernel's peak.
    bound
        c_.9, the density at the region's edge.
    """

    at: np.ndarray
    density: np.ndarray
    bound: float


def regions(draws: np.ndarray) -> Regions:
    """Describe the posterior of each sample by its (n_draws, n_samples, n_latent) draws alone."""
    n_draws, n_samples, n_latent = draws.shape
    low, high = np.quantile(draws, [(1 - MASS) / 2, (1 + MASS) / 2], axis=0)
    area, n_modes = np.full(n_samples, np.nan), np.full(n_samples, np.nan)
    if n_latent <= MAX_LATENTS and n_draws >= MIN_DRAWS:
        for rows, grid in _grids(draws, _EDGE):
            area[rows], n_modes[rows] = _area_and_modes(grid)
    return Regions(low, high, area, n_modes)


def outlines(draws: np.ndarray) -> Iterator[Outline]:
    """The region of each sample whose (n_draws, n_samples, 2) draws have spread, one by one."""
    for _, grid in _grids(draws, _BEYOND):
        yield from map(
            Outline, grid.points(), grid.density, grid.bounds()[LEVELS.index(MASS)].tolist()
        )


@dataclass(frozen=True)
class _Grid:
    """Densities on grids along the axes of each S.

    Attributes
    ----------
    density
        (n_samples, _GRID) or (n_samples, _GRID, _GRID), at the middle of each cell.
    there
        (n_samples, n_draws) f_{-i}(z_i).
    place
        (n_samples, n_draws) the draw's cell, in the order of `density`.
    middle, step
        (n_samples, n_latent, _GRID) of the cells, in units of `scale` from `centre`, and
        (n_samples, n_latent) their width.
    centre, scale, vector
        (n_samples, n_latent), (n_samples, n_latent), (n_samples, n_latent, n_latent): mean of the
        draws, standard deviations along the axes of S, and these as columns.
    """

    density: np.ndarray
    there: np.ndarray
    place: np.ndarray
    middle: np.ndarray
    step: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    vector: np.ndarray

    def bounds(self) -> np.ndarray:
        """(levels, n_samples) c_p."""
        found: np.ndarray = np.quantile(self.there, 1 - np.array(LEVELS), axis=1)
        least: np.ndarray = np.maximum(found, _LEAST_DENSITY)
        return least

    def points(self) -> np.ndarray:
        """(n_samples, _GRID, _GRID, 2) middles of the cells, in units of the draws."""
        along = self.middle * self.scale[:, :, None]
        at: np.ndarray = (
            self.centre[:, None, None]
            + along[:, 0, :, None, None] * self.vector[:, None, None, :, 0]
            + along[:, 1, None, :, None] * self.vector[:, None, None, :, 1]
        )
        return at


def _grids(draws: np.ndarray, margin: float) -> Iterator[tuple[np.ndarray, _Grid]]:
    """Which samples, some at a time, and their grids: all samples whose draws have spread."""
    spread = (np.isfinite(draws).all(axis=0) & (np.ptp(draws, axis=0) > 0)).all(axis=1)
    rows = np.flatnonzero(spread)
    size = max(1, _KERNEL_VALUES // (_GRID * len(draws)))
    for start in range(0, len(rows), size):
        some = rows[start : start + size]
        yield some, _grid(draws[:, some].transpose(1, 2, 0).astype(float), margin)


def _grid(z: np.ndarray, margin: float) -> _Grid:
    """Grids of (n_samples, n_latent, n_draws) draws that end `margin` h beyond the outermost."""
    n_samples, n_latent, n = z.shape
    centre = z.mean(axis=2, keepdims=True)
    z = z - centre
    value, vector = np.linalg.eigh(z @ z.transpose(0, 2, 1) / (n - 1))
    # Latents that say the same would give a region without area, and no grid.
    scale = np.sqrt(np.maximum(value, 1e-12 * value[:, -1:]))
    y = vector.transpose(0, 2, 1) @ z / scale[:, :, None]
    h = n ** (-1 / 5)
    low, high = y.min(axis=2) - margin * h, y.max(axis=2) + margin * h
    step = (high - low) / _GRID
    middle = low[:, :, None] + step[:, :, None] * (np.arange(_GRID) + 0.5)
    cell = ((y - low[:, :, None]) / step[:, :, None]).astype(int).clip(0, _GRID - 1)
    scaled = (middle / h).astype(np.float32), (y / h).astype(np.float32)
    # (n_samples, n_latent, _GRID, n), in place: it is most of the time
    kernel = scaled[0][:, :, :, None] - scaled[1][:, :, None, :]
    kernel **= 2
    kernel *= -0.5
    np.maximum(kernel, _LEAST_EXPONENT, out=kernel)
    np.exp(kernel, out=kernel)
    if n_latent == 1:
        density, place = kernel[:, 0].sum(axis=2), cell[:, 0]
    else:
        density = kernel[:, 0] @ kernel[:, 1].transpose(0, 2, 1)
        place = cell[:, 0] * _GRID + cell[:, 1]
    own = np.exp(-0.5 * (((cell + 0.5) * step[:, :, None] + low[:, :, None] - y) / h) ** 2)
    there = np.take_along_axis(density.reshape(n_samples, -1), place, 1) - own.prod(axis=1)
    return _Grid(density, there, place, middle, step, centre[:, :, 0], scale, vector)


def _area_and_modes(grid: _Grid) -> tuple[np.ndarray, np.ndarray]:
    """(n_samples,) each."""
    from scipy.ndimage import label

    density, place = grid.density, grid.place
    n_samples, n = place.shape
    neighbours = np.zeros((3,) * density.ndim, dtype=bool)
    neighbours[1] = True  # within a sample, not between them
    area, n_modes = np.zeros(n_samples), np.ones(n_samples)
    for level, bound in zip(LEVELS, grid.bounds(), strict=True):
        inside = density >= bound.reshape(-1, *[1] * (density.ndim - 1))
        if level == MASS:
            cells = inside.reshape(n_samples, -1).sum(axis=1)
            area = cells * np.prod(grid.step * grid.scale, axis=1)
        piece, n_pieces = label(inside, neighbours)
        of_draw = np.take_along_axis(piece.reshape(n_samples, -1), place, 1)
        owner = np.zeros(n_pieces + 1, dtype=int)
        owner[of_draw] = np.arange(n_samples)[:, None]
        large = np.bincount(of_draw.ravel(), minlength=n_pieces + 1) >= MIN_MODE * n
        large[0] = False  # outside
        n_modes = np.maximum(n_modes, np.bincount(owner[large], minlength=n_samples))
    return area, n_modes

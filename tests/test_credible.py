"""90 % regions and modes of draws whose distribution is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, gaussian_kde

from ancestry_ddvi import credible
from ancestry_ddvi.credible import outlines, regions

N_DRAWS = 200
# Of the normal with unit covariance, within which it has 90 % of its mass: length, area.
AREA = {1: 2 * chi2.ppf(0.9, 1) ** 0.5, 2: np.pi * chi2.ppf(0.9, 2)}


def draw(
    n_samples: int,
    n_latent: int = 2,
    *,
    apart: float = 0.0,
    weight: float = 0.5,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> np.ndarray:
    """(n_draws, n_samples, n_latent) of two normals of unit covariance, the second `apart` along
    the diagonal with this weight."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_draws, n_samples, n_latent))
    second = rng.random((n_draws, n_samples, 1)) < weight
    return z + second * apart / np.sqrt(n_latent)


@pytest.mark.parametrize("n_latent", [1, 2])
def test_one_normal_is_one_mode_of_known_size(n_latent: int) -> None:
    found = regions(draw(500, n_latent))
    assert (found.n_modes != 1).mean() < 0.02
    assert found.area.mean() == pytest.approx(AREA[n_latent], rel=0.08)
    assert found.low.mean(axis=0) == pytest.approx(np.full(n_latent, -1.645), abs=0.04)
    assert found.high.mean(axis=0) == pytest.approx(np.full(n_latent, 1.645), abs=0.04)


@pytest.mark.parametrize("n_latent", [1, 2])
@pytest.mark.parametrize(
    ("weight", "share", "area"),
    # Of two normals far apart in the plane, the region's area is ln(w1 w2 / c^2) / ln 10 of one's,
    # where the bound c is .05 in units of a normal's peak. The ellipse of their covariance would
    # have 3.2, 2.6 and 2.1 times the area of one's.
    [(0.5, 0.98, 2.0), (0.2, 0.95, 1.81), (0.1, 0.6, 1.56)],
)
def test_two_normals_six_sd_apart(n_latent: int, weight: float, share: float, area: float) -> None:
    found = regions(draw(300, n_latent, apart=6, weight=weight))
    assert (found.n_modes == 2).mean() >= share
    if n_latent == 2:  # smoothed, so a little too large
        assert area < (found.area / AREA[2]).mean() < 1.16 * area


@pytest.mark.parametrize("n_latent", [1, 2])
def test_a_part_below_the_mass_is_not_counted(n_latent: int) -> None:
    found = regions(draw(300, n_latent, apart=6, weight=0.02))
    assert (found.n_modes == 1).mean() >= 0.98


def test_three_modes() -> None:
    z = draw(200)
    which = np.random.default_rng(1).integers(0, 3, z.shape[:2])
    found = regions(z + 8 * np.array([[0, 0], [1, 0], [0.5, 0.9]])[which])
    assert (found.n_modes == 3).mean() > 0.98


def test_a_further_draw_is_within_the_bounds_nine_times_of_ten() -> None:
    found = regions(draw(300, 1, seed=2))
    new = draw(300, 1, n_draws=500, seed=3)
    inside = (new[..., 0] >= found.low[:, 0]) & (new[..., 0] <= found.high[:, 0])
    assert inside.mean() == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize("n_latent", [1, 2])
def test_units_and_directions_do_not_matter(n_latent: int) -> None:
    z = draw(40, n_latent, apart=5)
    turn = np.array([[3.0, 1.0], [0.5, 0.02]])[:n_latent, :n_latent]
    was, now = regions(z), regions(z @ turn.T * 1e-3 + 1e3)
    np.testing.assert_array_equal(now.n_modes, was.n_modes)
    volume = abs(np.linalg.det(turn)) * 1e-3**n_latent
    np.testing.assert_allclose(now.area, volume * was.area, rtol=0.08)
    assert now.area.mean() == pytest.approx(volume * was.area.mean(), rel=0.02)


def test_samples_do_not_see_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    z = draw(30, apart=4)
    together = regions(z)
    alone = [regions(z[:, [i]]) for i in range(30)]
    np.testing.assert_array_equal(together.area, [one.area[0] for one in alone])
    np.testing.assert_array_equal(together.n_modes, [one.n_modes[0] for one in alone])
    monkeypatch.setattr(credible, "_KERNEL_VALUES", 7 * 64 * N_DRAWS)
    np.testing.assert_array_equal(regions(z).area, together.area)


def test_an_outline_is_of_the_density_that_scipy_has() -> None:
    turn = np.array([[3.0, 1.0], [0.5, 0.2]])
    z = draw(5, apart=4) @ turn.T + [1e2, -7]
    for i, outline in enumerate(outlines(z)):
        kde = gaussian_kde(z[:, i].T, bw_method=N_DRAWS ** (-1 / 5))
        peak = 1 / (N_DRAWS * 2 * np.pi * np.linalg.det(kde.covariance) ** 0.5)
        density = kde(outline.at.reshape(-1, 2).T).reshape(outline.density.shape) / peak
        np.testing.assert_allclose(outline.density, density, rtol=1e-4, atol=1e-4)
        # Nine of ten further draws are within, by its own measure: one draw's kernel is left out.
        there = kde(z[:, i].T) / peak - 1
        assert (there >= outline.bound).mean() == pytest.approx(0.9, abs=0.03)


@pytest.mark.parametrize(
    "z",
    [
        pytest.param(draw(20), id="one normal"),
        pytest.param(draw(20, apart=1e3, weight=0.1), id="far apart"),
        pytest.param(np.repeat(draw(5, 1, apart=7), 2, axis=2), id="on a line"),
        pytest.param(
            np.random.default_rng(0).standard_cauchy((N_DRAWS, 20, 2)), id="far from all others"
        ),
    ],
)
def test_an_outline_is_closed(z: np.ndarray) -> None:
    found = list(outlines(z))
    assert len(found) == z.shape[1]
    for outline in found:
        inside = outline.density >= outline.bound
        assert inside.any()
        assert not inside[[0, -1]].any()
        assert not inside[:, [0, -1]].any()


def test_what_has_no_spread_has_no_outline() -> None:
    z = draw(4)
    z[:, 1] = 3.0
    z[0, 2] = np.nan
    whole = [outline.bound for outline in outlines(draw(4))]
    assert [outline.bound for outline in outlines(z)] == [whole[0], whole[3]]


@pytest.mark.parametrize(
    "z",
    [
        pytest.param(draw(3, 3), id="too many latents"),
        pytest.param(draw(3, n_draws=49), id="too few draws"),
        pytest.param(np.ones((N_DRAWS, 3, 2)), id="no spread"),
        pytest.param(draw(3) * [1, 0], id="no spread along one"),
        pytest.param(draw(0), id="no samples"),
    ],
)
def test_it_says_nothing_where_it_cannot(z: np.ndarray) -> None:
    found = regions(z)
    assert found.low.shape == found.high.shape == z.shape[1:]
    assert np.isnan(found.area).all()
    assert np.isnan(found.n_modes).all()


def test_draws_far_from_all_others_do_not_fill_the_plane() -> None:
    z = np.random.default_rng(0).standard_cauchy((N_DRAWS, 100, 2))
    found = regions(z)
    box = np.ptp(z, axis=0).prod(axis=1)
    assert np.isfinite(found.area).all()
    assert (found.area < 0.5 * box).all()


def test_latents_that_say_the_same() -> None:
    z = np.repeat(draw(20, 1, apart=7), 2, axis=2)
    found = regions(z)
    assert (found.n_modes == 2).all()
    assert (found.area < 1e-3).all()

"""The exact posterior on a grid, and the measures against it, where all is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from linear_gaussian import DECODER, PRIOR, evidence, exact_posterior, seeded
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from ancestry_ddvi.baselines import exact
from ancestry_ddvi.baselines.discrepancy import discrepancy, region_level
from ancestry_ddvi.ddvi.networks import MAX_NOISE, NormalDecoder
from ancestry_ddvi.ddvi.objective import dream
from ancestry_ddvi.ddvi.priors import FixedMixturePrior, GaussianPrior
from ancestry_ddvi.errors import InputError, OptionError

torch.set_num_threads(1)

N = 12
LEVELS = torch.tensor([0.0, 0.8, 5.0]).repeat(N // 3)


def pairs(n: int = N, seed: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """z, x and noise of the linear-Gaussian model."""
    noise = LEVELS.repeat(n // N)
    return *dream(PRIOR, DECODER, noise, seeded(seed)), noise


def closed_form(x: Tensor, noise: Tensor) -> MultivariateNormal:
    """p(z | x) of every row."""
    each = [exact_posterior(*sample) for sample in zip(x, noise, strict=True)]
    return MultivariateNormal(
        torch.stack([p.mean for p in each]).double(),
        torch.stack([p.covariance_matrix for p in each]).double(),
    )


def draw(q: MultivariateNormal, n_draws: int, seed: int = 5) -> Tensor:
    """(n_draws, n, 2) draws of q."""
    u = torch.randn((n_draws, *q.mean.shape), generator=seeded(seed), dtype=torch.float64)
    return q.mean + (q.scale_tril @ u.unsqueeze(-1)).squeeze(-1)


def sharp_decoder(sigma: float) -> NormalDecoder:
    """x = z + e with a small e."""
    decoder = NormalDecoder(2, torch.full((2,), 2 * sigma), 1, mean=nn.Identity())
    return decoder.requires_grad_(False)


# --- the grid -----------------------------------------------------------------------------------


def test_grid_has_the_moments_and_the_evidence_of_the_closed_form() -> None:
    _, x, noise = pairs()
    grid, known = exact.exact_posterior(PRIOR, DECODER, x, noise), closed_form(x, noise)
    # 1e-4 is for the decoder's float32.
    torch.testing.assert_close(grid.mean, known.mean, atol=1e-4, rtol=0)
    torch.testing.assert_close(grid.sd, known.stddev, atol=0, rtol=1e-4)
    torch.testing.assert_close(grid.log_evidence, evidence(x, noise).double(), atol=1e-4, rtol=1e-6)
    torch.testing.assert_close(grid.mass.sum((1, 2)), torch.ones(N, dtype=torch.float64))
    # It would not for the posterior of another sample.
    assert (grid.mean - known.mean.roll(3, 0)).abs().max() > 0.1


def test_draws_of_the_grid_have_its_moments() -> None:
    _, x, noise = pairs()
    grid = exact.exact_posterior(PRIOR, DECODER, x, noise)
    draws = grid.sample(20_000, seeded(1))
    assert draws.shape == (20_000, N, 2)
    assert torch.equal(draws, grid.sample(20_000, seeded(1)))
    error = grid.sd / math.sqrt(len(draws))
    assert ((draws.mean(0) - grid.mean).abs() < 4 * error).all()
    torch.testing.assert_close(draws.double().std(0), grid.sd, atol=0, rtol=0.03)
    known = closed_form(x, noise).covariance_matrix[1]
    torch.testing.assert_close(draws[:, 1].double().T.cov(), known, atol=0.02, rtol=0)


@pytest.mark.parametrize("sigma", [1e-1, 1e-3])
def test_a_posterior_much_narrower_than_the_prior_is_resolved(sigma: float) -> None:
    """A cell of the first grid is some 30 sd wide at .001."""
    decoder = sharp_decoder(sigma)
    x = torch.tensor([[0.3, -1.2], [2.0, 1.0]])
    grid = exact.exact_posterior(PRIOR, decoder, x, torch.zeros(2))
    variance = 1 / (1 + 1 / sigma**2)
    mean = (x / (1 + sigma**2)).double()
    torch.testing.assert_close(grid.mean, mean, atol=2e-2 * sigma, rtol=0)
    torch.testing.assert_close(
        grid.sd, torch.full((2, 2), math.sqrt(variance), dtype=torch.float64), atol=0, rtol=1e-2
    )
    # A box some ten sd wide: the measures' blocks depend on it.
    assert ((144 * grid.step / grid.sd) < 16).all()


def test_several_modes_are_found_where_features_say_nothing() -> None:
    mean = torch.tensor([[-2.0, 0.0], [2.0, 1.0], [0.0, 3.0]])
    weight = torch.tensor([0.6, 0.3, 0.1])
    prior = FixedMixturePrior(mean, torch.tensor(0.1), weight)
    x, noise = torch.zeros(1, 5), torch.tensor([MAX_NOISE])
    grid = exact.exact_posterior(prior, DECODER, x, noise)
    expected = (weight[:, None] * mean).sum(0).double()
    torch.testing.assert_close(grid.mean[0], expected, atol=1e-3, rtol=0)
    draws = grid.sample(4000, seeded(1))[:, 0]
    nearest = torch.cdist(draws, mean).argmin(1)
    share = torch.bincount(nearest, minlength=3) / len(draws)
    torch.testing.assert_close(share, weight, atol=0.03, rtol=0)


def test_the_grid_follows_a_sample_beyond_the_prior_and_gives_up_at_last() -> None:
    decoder = sharp_decoder(0.05)
    near = torch.tensor([[12.0, 0.0]])
    grid = exact.exact_posterior(PRIOR, decoder, near, torch.zeros(1))
    torch.testing.assert_close(grid.mean, near.double() / (1 + 0.05**2), atol=1e-2, rtol=0)
    with pytest.raises(InputError, match="row 1 is not within 32 times the reach"):
        exact.exact_posterior(
            PRIOR, decoder, torch.tensor([[0.0, 0.0], [1e4, 0.0]]), torch.zeros(2)
        )


def test_what_a_grid_cannot_do_is_said() -> None:
    _, x, noise = pairs()
    with pytest.raises(OptionError, match="over 2 latents, not 3"):
        exact.exact_posterior(GaussianPrior(3), DECODER, x, noise)
    with pytest.raises(OptionError, match="at least 8 cells an axis, not 4"):
        exact.exact_posterior(PRIOR, DECODER, x, noise, n_cells=4)
    grid = exact.exact_posterior(PRIOR, DECODER, x, noise)
    with pytest.raises(OptionError, match="25 blocks do not divide a grid of 144"):
        discrepancy(grid, grid.sample(10, seeded(1)), 25)
    with pytest.raises(OptionError, match="at least 2 draws, not 1"):
        discrepancy(grid, grid.sample(1, seeded(1)))
    with pytest.raises(OptionError, match="draws are not finite"):
        discrepancy(grid, torch.full((10, N, 2), torch.nan))


# --- the measures -------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_draws", "tolerance"), [(4000, 0.3), (20_000, 0.2)])
@pytest.mark.parametrize(
    ("scale", "shift"), [(0.5, 0.0), (0.7, 0.0), (1.4, 0.0), (1.0, 0.6), (0.9, 0.3)]
)
def test_divergence_of_two_known_gaussians_is_recovered(
    scale: float, shift: float, n_draws: int, tolerance: float
) -> None:
    """q is the closed form with every sd scaled, and moved by so many of them."""
    _, x, noise = pairs()
    p, grid = closed_form(x, noise), exact.exact_posterior(PRIOR, DECODER, x, noise)
    q = MultivariateNormal(
        p.mean + shift * p.stddev * torch.tensor([1.0, 0.0]), scale**2 * p.covariance_matrix
    )
    found = discrepancy(grid, draw(q, n_draws))
    none = discrepancy(grid, grid.sample(n_draws, seeded(6)))
    for name, known in (
        ("kl_exact_q", kl_divergence(p, q)),
        ("kl_q_exact", kl_divergence(q, p)),
    ):
        measured = getattr(found, name).mean() - getattr(none, name).mean()
        # What blocks hide, and what the bias of q's draws differs by from that of exact ones.
        assert float(measured / known.mean()) == pytest.approx(1, abs=tolerance)
    torch.testing.assert_close(
        found.sd_ratio, torch.full((N,), scale, dtype=torch.float64), atol=0.03, rtol=0
    )
    # Pinsker: TV <= sqrt(KL / 2).
    assert (found.total_variation - none.total_variation).mean() > 0.05
    assert (found.total_variation <= torch.sqrt(found.kl_exact_q / 2) + 1e-9).all()


def test_draws_elsewhere_are_as_far_as_can_be() -> None:
    _, x, noise = pairs()
    grid = exact.exact_posterior(PRIOR, DECODER, x, noise)
    far = discrepancy(grid, grid.sample(4000, seeded(1)) + 100)
    assert (far.total_variation > 0.98).all()
    assert (far.kl_exact_q > 5).all()
    assert (far.kl_q_exact > 15).all()


def test_bias_of_exact_draws_is_small_and_falls_with_their_number() -> None:
    _, x, noise = pairs()
    grid = exact.exact_posterior(PRIOR, DECODER, x, noise)
    few, many = (discrepancy(grid, grid.sample(n, seeded(1))) for n in (1000, 16_000))
    for name in ("kl_exact_q", "kl_q_exact", "total_variation"):
        assert getattr(many, name).mean() < 0.5 * getattr(few, name).mean()
    assert many.kl_exact_q.mean() < 0.03
    assert many.total_variation.mean() < 0.06


def test_coverage_of_exact_draws_is_nominal_and_of_wrong_ones_is_not() -> None:
    z, x, noise = pairs(1200)
    p = closed_form(x, noise)
    coverage = {}
    for scale in (0.6, 1.0, 1.6):
        q = MultivariateNormal(p.mean, scale**2 * p.covariance_matrix)
        level = region_level(draw(q, 200), z, seeded(3))
        assert ((level >= 0) & (level <= 1)).all()
        coverage[scale] = [(level <= at).double().mean().item() for at in (0.5, 0.9, 0.95)]
    # Four standard errors of 1,200 samples.
    assert coverage[1.0] == pytest.approx([0.5, 0.9, 0.95], abs=0.058)
    assert coverage[1.0][1:] == pytest.approx([0.9, 0.95], abs=0.035)
    # A chi of 2 degrees of freedom: 1 - (1 - level)^(scale^2) is what a scaled normal covers.
    for scale in (0.6, 1.6):
        known = [1 - (1 - at) ** (scale**2) for at in (0.5, 0.9, 0.95)]
        assert coverage[scale] == pytest.approx(known, abs=0.08)


def test_a_region_can_have_two_parts() -> None:
    """Between two modes nothing is dense, though the mean of the draws is there."""
    draws = torch.randn((400, 3, 2), generator=seeded(1)) * 0.1
    draws[::2, ..., 0] += 2
    draws[1::2, ..., 0] -= 2
    z = torch.tensor([[0.0, 0.0], [2.0, 0.0], [-2.0, 0.05]])
    level = region_level(draws, z, seeded(2))
    assert level[0] > 0.99
    assert (level[1:] < 0.7).all()


def test_draws_of_one_point_have_a_region_of_one_point() -> None:
    level = region_level(torch.zeros(40, 2, 2), torch.tensor([[0.0, 0.0], [1.0, 0.0]]), seeded(1))
    assert level[0] <= 1
    assert level[1] > 0.95
    with pytest.raises(OptionError, match="at least 12 draws, not 10"):
        region_level(torch.zeros(10, 2, 2), torch.zeros(2, 2), seeded(1))

"""The diffusion posterior: it opens as its Gaussian anchor and its densities are what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.noise import normal_log_prob
from ancestry_ddvi.ddvi.objective import bound_terms
from ancestry_ddvi.ddvi.posterior import (
    MAX_LOG_VARIANCE,
    DiffusionPosterior,
    GaussianAnchor,
    bounded,
    log_det,
    whiten,
)
from ancestry_ddvi.ddvi.priors import GaussianPrior

torch.set_num_threads(1)

N_FEATURES = 4
LOG_2PI_E = math.log(2 * math.pi * math.e)


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, so that no test depends on the global stream."""
    return torch.Generator().manual_seed(seed)


def make_posterior(
    n_latent: int = 2, n_steps: int = 5, *, trained: float = 0.0, seed: int = 0
) -> DiffusionPosterior:
    """A posterior; `trained` > 0 moves every weight by that much, as training might."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inputs = FeatureInput(torch.linspace(2, 0.5, N_FEATURES))
        posterior = DiffusionPosterior(GaussianAnchor(inputs, n_latent, 16), n_steps, 16)
        with torch.no_grad():
            for parameter in posterior.parameters():
                parameter += trained * torch.randn_like(parameter)
    return posterior


def features(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """n rows of features, every other one with noise."""
    noise = torch.zeros(n)
    noise[::2] = 0.8
    return 1.5 * torch.randn((n, N_FEATURES), generator=seeded(seed)), noise


def repeated(n: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """One sample's features, n times."""
    x, noise = features(1, seed)
    return x.expand(n, -1), noise.expand(n)


# --- the anchor ---------------------------------------------------------------------------------


@torch.no_grad()
def test_whitening_and_its_determinant_against_torch() -> None:
    anchor = make_posterior(3, trained=0.3).anchor
    x, noise = features(6)
    mean, factor = anchor(x, noise)
    assert (factor.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert torch.equal(factor, factor.tril())
    assert factor.tril(-1).abs().sum() > 0
    z = mean + torch.randn(mean.shape, generator=seeded(2))
    expected = MultivariateNormal(mean, scale_tril=factor).log_prob(z)
    torch.testing.assert_close(anchor.log_prob(z, x, noise), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(log_det(factor), torch.linalg.slogdet(factor)[1])
    back = mean + (factor @ whiten(z, mean, factor).unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(back, z, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_anchor_opens_near_the_first_features() -> None:
    posterior = make_posterior()
    x = torch.diag(torch.linspace(2, 0.5, N_FEATURES)) * 5
    noise = torch.zeros(N_FEATURES)
    mean, _ = posterior.anchor(x, noise)
    # Beside the linear start there is a network at its usual small random weights.
    start = 5 * torch.eye(N_FEATURES, 2)
    torch.testing.assert_close(mean, start, atol=1.0, rtol=0)


def test_bounded_is_the_identity_near_zero_and_never_runs_away() -> None:
    raw = torch.tensor([-1e6, -0.01, 0.0, 0.01, 1e6])
    torch.testing.assert_close(
        bounded(raw), torch.tensor([-MAX_LOG_VARIANCE, -0.01, 0.0, 0.01, MAX_LOG_VARIANCE])
    )


# --- at initialisation --------------------------------------------------------------------------


@pytest.mark.parametrize("n_latent", [1, 2, 3])
@pytest.mark.parametrize("n_steps", [1, 2, 10])
@torch.no_grad()
def test_opens_as_the_anchor_draw_by_draw(n_latent: int, n_steps: int) -> None:
    """log q - log r of a draw is the anchor's log density of z, at each draw and not on average.

    For u ~ N(0, I) the reverse of r is the chain that training starts from, y_T included, so the
    bound loses nothing to the Gaussian's own, whatever the terminal signal-to-noise.
    """
    posterior = make_posterior(n_latent, n_steps)
    x, noise = features(50)
    chain = posterior.chain(x, noise, seeded(3))
    assert chain.step_kl.shape == (50, n_steps + 1)
    expected = posterior.anchor.log_prob(chain.z, x, noise)
    torch.testing.assert_close(chain.step_kl.sum(-1), expected, atol=2e-3, rtol=1e-3)


@torch.no_grad()
def test_draws_at_the_start_have_the_moments_of_the_anchor() -> None:
    posterior = make_posterior(2, 6)
    x, noise = features(3)
    mean, factor = posterior.anchor(x, noise)
    draws = posterior.sample(x, noise, 40_000, seeded(4))
    u = whiten(draws, mean, factor.expand(len(draws), *factor.shape))
    # In whitened units, where the standard errors are known: .005 and .007.
    torch.testing.assert_close(u.mean(0), torch.zeros(3, 2), atol=0.025, rtol=0)
    for i in range(3):
        torch.testing.assert_close(u[:, i].T.cov(), torch.eye(2), atol=0.035, rtol=0)
    assert float((u**4).mean()) == pytest.approx(3, abs=0.1)


class _Observed(nn.Module):
    """x_1, x_2 are z seen with sd .5: a likelihood that needs nothing learnt."""

    def log_prob(self, x: Tensor, z: Tensor, noise: Tensor) -> Tensor:
        return normal_log_prob(x[..., :2] - z, torch.tensor(math.log(0.25)))

    def sample(self, z: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
        raise NotImplementedError


@torch.no_grad()
def test_bound_at_the_start_is_that_of_the_gaussian() -> None:
    """Against the Gaussian's bound in closed form."""
    posterior, n = make_posterior(2, 8), 20_000
    x, noise = repeated(n)
    elbo = bound_terms(GaussianPrior(2), _Observed(), posterior, x, noise, seeded(5)).elbo
    mean, factor = (m[0] for m in posterior.anchor(x[:1], noise[:1]))
    covariance = factor @ factor.T
    gaussian = (
        -0.5 * (((x[0, :2] - mean) ** 2).sum() + covariance.trace()) / 0.25
        - math.log(2 * math.pi * 0.25)
        - 0.5 * ((mean**2).sum() + covariance.trace() + 2 * math.log(2 * math.pi))
        + log_det(factor)
        + LOG_2PI_E
    )
    error = elbo.std() / math.sqrt(n)
    assert float((elbo.mean() - gaussian).abs()) < 4 * float(error)


# --- anywhere -----------------------------------------------------------------------------------


@torch.no_grad()
def test_chain_and_sample_are_the_same_process() -> None:
    posterior = make_posterior(trained=0.3)
    x, noise = features(7)
    chain = posterior.chain(x, noise, seeded(6))
    torch.testing.assert_close(posterior.sample(x, noise, 1, seeded(6))[0], chain.z)
    draws = posterior.sample(x, noise, 5, seeded(6))
    assert draws.shape == (5, 7, 2)
    assert torch.equal(draws, posterior.sample(x, noise, 5, seeded(6)))
    assert not torch.equal(draws, posterior.sample(x, noise, 5, seeded(7)))


@pytest.mark.parametrize(("n_latent", "n_steps"), [(1, 4), (2, 1), (2, 6)])
@torch.no_grad()
def test_importance_weights_of_the_chain_integrate_a_density_to_one(
    n_latent: int, n_steps: int
) -> None:
    """E_q[ r(y_{1:T}|z) f(z) / q(y_{0:T}|x) ] = integral of f = 1, once weights have moved."""
    posterior, n = make_posterior(n_latent, n_steps, trained=0.15), 60_000
    x, noise = repeated(n)
    chain = posterior.chain(x, noise, seeded(8))
    # f must have lighter tails than q for the weights to have a variance.
    f = MultivariateNormal(chain.z.mean(0), 0.4 * torch.atleast_2d(chain.z.T.cov()))
    weight = (f.log_prob(chain.z) - chain.step_kl.sum(-1)).double().exp()
    error = float(weight.std()) / math.sqrt(n)
    assert error < 0.02
    assert float(weight.mean()) == pytest.approx(1, abs=4 * error)
    # The test bites only where the chain has left its start.
    gap = chain.step_kl.sum(-1) - posterior.anchor.log_prob(chain.z, x, noise)
    assert float(gap.abs().mean()) > 0.05


@torch.no_grad()
def test_reverse_step_takes_one_step_number_for_each_row() -> None:
    posterior = make_posterior(n_steps=6, trained=0.3)
    x, noise = features(3)
    context = posterior.context(x, noise)[2]
    y, t = torch.randn((3, 2), generator=seeded(9)), torch.tensor([1, 4, 6])
    mean, log_variance = posterior.reverse_step(y, t, context)
    for i in range(3):
        at, log_v = posterior.reverse_step(y[i], int(t[i]), context[i])
        torch.testing.assert_close(mean[i], at)
        torch.testing.assert_close(log_variance[i], log_v)


@torch.no_grad()
def test_last_step_is_never_a_delta() -> None:
    posterior = make_posterior(trained=50.0)
    x, noise = features(20)
    context = posterior.context(x, noise)[2]
    for t in range(1, posterior.schedule.n_steps + 1):
        _, log_variance = posterior.reverse_step(torch.zeros(20, 2), t, context)
        opening = make_posterior().reverse_step(torch.zeros(20, 2), t, context)[1]
        assert (log_variance - opening).abs().max() <= MAX_LOG_VARIANCE + 1e-4


# --- the sleep phase ----------------------------------------------------------------------------


@pytest.mark.parametrize("n_steps", [1, 3, 10])
@torch.no_grad()
def test_sleep_bound_of_the_exact_reverse_is_minus_the_entropy(n_steps: int) -> None:
    """Where the anchor is the posterior, -(denoising + terminal) = E log q(u|x) = -H(u)."""
    posterior, n = make_posterior(2, n_steps), 60_000
    x, noise = repeated(n)
    mean, factor = posterior.anchor(x, noise)
    u = torch.randn(mean.shape, generator=seeded(10))
    z = mean + (factor @ u.unsqueeze(-1)).squeeze(-1)
    loss = posterior.sleep_loss(z, x, noise, seeded(11))
    assert {name: term.shape for name, term in loss.items()} == {
        "denoising": (n,),
        "terminal": (n,),
        "anchor": (n,),
    }
    total = loss["denoising"] + loss["terminal"]
    error = float(total.std()) / math.sqrt(n)
    assert float(total.mean()) == pytest.approx(LOG_2PI_E, abs=4 * error)
    assert error < 0.05
    # The anchor's own term is the density of z, hence the log-determinant on top.
    expected = -posterior.anchor.log_prob(z, x, noise)
    torch.testing.assert_close(loss["anchor"], expected, atol=1e-3, rtol=1e-3)


def path_log_ratio(posterior: DiffusionPosterior, u: Tensor, x: Tensor, noise: Tensor) -> Tensor:
    """log q(u, y_{1:T} | x) - log r(y_{1:T} | u) along one noised path from each u.

    No closed form, no Bayes rule and no drawn t: only the densities of single steps.
    """
    context = posterior.context(x, noise)[2]
    generator, total, y = seeded(12), torch.zeros(len(u)), u
    for t in range(1, posterior.schedule.n_steps + 1):
        alpha, before = posterior.schedule.alpha[t], y
        y = (1 - alpha).sqrt() * y + alpha.sqrt() * torch.randn(y.shape, generator=generator)
        at, log_variance = posterior.reverse_step(y, t, context)
        total += normal_log_prob(before - at, log_variance)
        total -= posterior.schedule.log_step(y, before, t)
    at, log_variance = posterior.start_step(context)
    return total + normal_log_prob(y - at, log_variance)


@pytest.mark.parametrize(("n_latent", "n_steps"), [(1, 1), (2, 2), (2, 5), (3, 8)])
@torch.no_grad()
def test_sleep_loss_is_unbiased_for_the_noised_paths(n_latent: int, n_steps: int) -> None:
    """For any weights and any one pair (z, x), not only at an optimum."""
    posterior, n = make_posterior(n_latent, n_steps, trained=0.15), 60_000
    x, noise = repeated(n)
    mean, factor = posterior.anchor(x, noise)
    u = torch.linspace(1.5, -0.5, n_latent).expand(n, -1)
    z = mean + (factor @ u.unsqueeze(-1)).squeeze(-1)
    loss = posterior.sleep_loss(z, x, noise, seeded(13))
    sleep = -(loss["denoising"] + loss["terminal"])
    path = path_log_ratio(posterior, u, x, noise)
    error = math.hypot(float(sleep.std()), float(path.std())) / math.sqrt(n)
    assert float(sleep.mean()) == pytest.approx(float(path.mean()), abs=4 * error)
    assert error < 0.1


@torch.no_grad()
def test_sleep_bound_stays_below_the_log_density_of_the_draws() -> None:
    """-(denoising + terminal) <= log q(u | x), the latter by counting draws."""
    posterior, n = make_posterior(1, 6, trained=0.2, seed=3), 400_000
    x, noise = repeated(1)
    mean, factor = posterior.anchor(x, noise)
    drawn = whiten(posterior.sample(x, noise, n, seeded(14))[:, 0], mean[0], factor[0])[:, 0]
    low, high = torch.quantile(drawn[:50_000], torch.tensor([0.1, 0.9])).tolist()
    assert not (abs(low + 1.28) < 0.1 and abs(high - 1.28) < 0.1), "as at the start"
    width = (high - low) / 40
    gaps = []
    for u in np.linspace(low, high, 7):
        n_near = int(((drawn - u).abs() < width / 2).sum())
        log_density = math.log(n_near / (n * width))
        pairs = 10_000
        z = (mean + factor[0] * u).expand(pairs, 1)
        loss = posterior.sleep_loss(z, *repeated(pairs), seeded(15))
        bound = -(loss["denoising"] + loss["terminal"])
        slack = 4 * math.hypot(1 / math.sqrt(n_near), float(bound.std()) / math.sqrt(pairs))
        gaps.append(log_density - float(bound.mean()))
        assert gaps[-1] > -slack
        # The weights at which a path is worth what its draw is: exactly the density.
        path = path_log_ratio(posterior, torch.full((pairs, 1), u), *repeated(pairs)).double()
        exact = float(path.logsumexp(0)) - math.log(pairs)
        assert exact == pytest.approx(log_density, abs=0.1)
    assert max(gaps) < 3


# --- gradients ----------------------------------------------------------------------------------


def gradients(posterior: DiffusionPosterior, loss: Tensor) -> dict[str, float]:
    """Size of each parameter's gradient; 0 where there is none."""
    posterior.zero_grad()
    loss.backward()
    sizes = {
        name: 0.0 if p.grad is None else float(p.grad.abs().sum())
        for name, p in posterior.named_parameters()
    }
    assert all(math.isfinite(size) for size in sizes.values())
    return sizes


@pytest.mark.parametrize("n_steps", [1, 5])
def test_every_parameter_learns_from_wake_and_from_sleep(n_steps: int) -> None:
    x, noise = features(16)
    z = torch.randn((16, 2), generator=seeded(16))
    for trained in (0.0, 0.1):
        posterior = make_posterior(2, n_steps, trained=trained)
        wake = bound_terms(GaussianPrior(2), _Observed(), posterior, x, noise, seeded(17)).elbo
        sleep = posterior.sleep_loss(z, x, noise, seeded(18))
        for loss in (-wake.mean(), torch.stack(list(sleep.values())).mean()):
            sizes = gradients(posterior, loss)
            # At the start only the last layer of a network that opens at 0 can move.
            hidden = {"denoiser", "start"} if trained == 0 else set()
            still = {name for name, size in sizes.items() if size == 0}
            assert {name.split(".")[0] for name in still} <= hidden
            assert not {name for name in still if ".4." in name}


def test_denoising_does_not_move_the_anchor_nor_the_anchor_the_denoiser() -> None:
    posterior = make_posterior(trained=0.1)
    x, noise = features(16)
    z = torch.randn((16, 2), generator=seeded(16))
    loss = posterior.sleep_loss(z, x, noise, seeded(18))
    diffusion = gradients(posterior, (loss["denoising"] + loss["terminal"]).mean())
    moved = {name.split(".")[0] for name, size in diffusion.items() if size}
    assert moved == {"denoiser", "start"}
    loss = posterior.sleep_loss(z, x, noise, seeded(18))
    anchor = gradients(posterior, loss["anchor"].mean())
    assert {name.split(".")[0] for name, size in anchor.items() if size} == {"anchor"}

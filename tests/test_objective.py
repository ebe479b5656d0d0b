"""The bound is a true one, and training closes it: models whose answer is known exactly.

Linear-Gaussian (`linear_gaussian`), D = 2 and K = 5: log p(x) and p(z | x) are closed forms.
Two-moded, D = 1: x = z^2 + e, where no Gaussian posterior can be right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from c2st import two_sample_accuracy
from linear_gaussian import (
    LEVELS,
    PRIOR,
    SCALE,
    SIGMA,
    WEIGHT,
    evidence,
    exact_posterior,
    linear_decoder,
    seeded,
)
from torch import Tensor, nn
from torch.distributions import Normal

from ancestry_ddvi.ddvi.networks import FeatureInput, NormalDecoder
from ancestry_ddvi.ddvi.objective import BoundTerms, bound_terms, dream
from ancestry_ddvi.ddvi.posterior import DiffusionPosterior, GaussianAnchor
from ancestry_ddvi.ddvi.priors import GaussianPrior

torch.set_num_threads(1)

N_STEPS = 6


def make_posterior(scale: Tensor, n_latent: int, n_steps: int, n_hidden: int) -> DiffusionPosterior:
    """An untrained posterior, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        anchor = GaussianAnchor(FeatureInput(scale), n_latent, 24)
        return DiffusionPosterior(anchor, n_steps, n_hidden)


@dataclass
class LinearGaussian:
    """The model, its closed forms, and the posterior to be trained."""

    prior: GaussianPrior
    decoder: NormalDecoder
    posterior: DiffusionPosterior

    @classmethod
    def make(cls) -> LinearGaussian:
        """Untrained."""
        decoder = linear_decoder().requires_grad_(False)
        return cls(PRIOR, decoder, make_posterior(SCALE, 2, N_STEPS, 24))

    def noise(self, n: int, generator: torch.Generator) -> Tensor:
        """Complete or noisy, evenly."""
        return torch.tensor(LEVELS)[torch.randint(2, (n,), generator=generator)]

    def bound(self, x: Tensor, noise: Tensor, generator: torch.Generator) -> BoundTerms:
        """One draw's estimate."""
        return bound_terms(self.prior, self.decoder, self.posterior, x, noise, generator)

    def wake_loss(self, generator: torch.Generator) -> Tensor:
        """Minus the bound of a batch of data."""
        noise = self.noise(256, generator)
        _, x = dream(self.prior, self.decoder, noise, generator)
        return -self.bound(x, noise, generator).elbo.mean()

    def sleep_loss(self, generator: torch.Generator) -> Tensor:
        """Minus the sleep bound of a batch of pairs."""
        noise = self.noise(256, generator)
        z, x = dream(self.prior, self.decoder, noise, generator)
        terms = self.posterior.sleep_loss(z, x, noise, generator)
        return torch.stack([term.mean() for term in terms.values()]).sum()


def optimise(
    posterior: DiffusionPosterior,
    loss_at: Callable[[torch.Generator], Tensor],
    steps: int,
    peak: float,
    half_way: Callable[[], None] = lambda: None,
) -> None:
    """Adam with a one-cycle rate: independent of the package's own training loop."""
    optimiser = torch.optim.Adam(posterior.parameters(), lr=peak)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, peak, total_steps=steps, pct_start=0.1
    )
    generator = seeded(1)
    for step in range(steps):
        if step == steps // 4:
            half_way()
        optimiser.zero_grad()
        loss_at(generator).backward()
        optimiser.step()
        schedule.step()


@dataclass
class Bounds:
    """Bound of a handful of samples, from many draws each, beside the exact evidence."""

    elbo: Tensor
    error: Tensor
    evidence: Tensor


@torch.no_grad()
def measure(model: LinearGaussian) -> Bounds:
    """The bound at twelve samples drawn from the model, of both noise levels."""
    noise = torch.tensor(LEVELS).repeat(6)
    _, x = dream(model.prior, model.decoder, noise, seeded(2))
    n = 4000
    rows = torch.arange(12).repeat_interleave(n)
    elbo = model.bound(x[rows], noise[rows], seeded(3)).elbo.reshape(12, n)
    return Bounds(elbo.mean(1), elbo.std(1) / math.sqrt(n), evidence(x, noise))


@dataclass
class Trained:
    """A model after training, with what was measured on the way."""

    model: LinearGaussian
    along: dict[str, Bounds]


@pytest.fixture(scope="module", params=["wake", "sleep"])
def trained(request: pytest.FixtureRequest) -> Trained:
    """Trained by the bound alone, or by the sleep phase alone."""
    model = LinearGaussian.make()
    along = {"before": measure(model)}

    def half_way() -> None:
        along["during"] = measure(model)

    loss = model.wake_loss if request.param == "wake" else model.sleep_loss
    optimise(model.posterior, loss, 450, 7e-3, half_way)
    along["after"] = measure(model)
    return Trained(model, along)


def test_closed_forms_agree_with_each_other() -> None:
    """log p(x) = log p(x|z) + log p(z) - log p(z|x) for any z: a check of the yardstick."""
    model = LinearGaussian.make()
    for level in LEVELS:
        noise = torch.tensor([level])
        z, x = dream(model.prior, model.decoder, noise, seeded(4))
        joint = model.decoder.log_prob(x, z, noise) + model.prior.log_prob(z)
        exact = joint - exact_posterior(x[0], noise[0]).log_prob(z)
        torch.testing.assert_close(exact, evidence(x, noise), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_bound_stays_below_the_evidence_at_every_sample(trained: Trained, when: str) -> None:
    bounds = trained.along[when]
    slack = 4 * bounds.error
    assert (bounds.elbo <= bounds.evidence + slack).all()
    # With a slack as wide as the gap itself the comparison would say nothing.
    if when == "after":
        assert slack.max() < 0.05


def test_training_closes_the_gap(trained: Trained) -> None:
    gap = {
        when: float((bounds.evidence - bounds.elbo).mean())
        for when, bounds in trained.along.items()
    }
    assert gap["before"] > 1
    assert gap["before"] > gap["during"] > gap["after"]
    assert gap["after"] < 0.1


@pytest.mark.parametrize("level", LEVELS)
def test_draws_match_the_closed_form_posterior(trained: Trained, level: float) -> None:
    model, noise, n = trained.model, torch.tensor([level]), 3000
    # One sd off the centre in z: neither the easiest place nor one that training never saw.
    z = torch.tensor([[1.0, -0.7]])
    x = model.decoder.sample(z, noise, seeded(5))
    exact = exact_posterior(x[0], noise[0])
    draws = model.posterior.sample(x, noise, n, seeded(6))[:, 0]
    # In units of the exact posterior, where standard errors are .018 and .026.
    u = torch.linalg.solve_triangular(exact.scale_tril, (draws - exact.mean).T, upper=False)
    torch.testing.assert_close(u.mean(1), torch.zeros(2), atol=0.3, rtol=0)
    torch.testing.assert_close(u.cov(), torch.eye(2), atol=0.3, rtol=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        reference = exact.sample((n,)).numpy()
    untrained = LinearGaussian.make().posterior.sample(x, noise, n, seeded(6))[:, 0]
    assert two_sample_accuracy(draws.numpy(), reference) < 0.57
    assert two_sample_accuracy(untrained.numpy(), reference) > 0.75


@torch.no_grad()
def test_terms_have_names_and_add_up() -> None:
    model = LinearGaussian.make()
    noise = torch.tensor([0.0, 0.8, 0.0])
    _, x = dream(model.prior, model.decoder, noise, seeded(8))
    terms = model.bound(x, noise, seeded(9))
    chain = model.posterior.chain(x, noise, seeded(9))
    torch.testing.assert_close(terms.reconstruction, model.decoder.log_prob(x, chain.z, noise))
    expected = chain.step_kl.sum(-1) - model.prior.log_prob(chain.z)
    torch.testing.assert_close(terms.prior_kl, expected)
    torch.testing.assert_close(terms.elbo, terms.reconstruction - terms.prior_kl)
    assert terms.elbo.shape == (3,)


def test_dreams_are_the_model_and_carry_no_gradient() -> None:
    model = LinearGaussian.make()
    model.decoder.requires_grad_(True)
    noise = torch.tensor([0.0, 0.8]).repeat(20_000)
    z, x = dream(model.prior, model.decoder, noise, seeded(10))
    assert not z.requires_grad
    assert not x.requires_grad
    for level in LEVELS:
        rows = noise == level
        joint = torch.cat([z, x], dim=1)[rows].T.cov()
        weight = WEIGHT
        variance = SIGMA**2 + level**2
        torch.testing.assert_close(joint[:2, :2], torch.eye(2), atol=0.05, rtol=0)
        torch.testing.assert_close(joint[2:, :2], weight, atol=0.06, rtol=0)
        within = weight @ weight.T + torch.diag(variance)
        torch.testing.assert_close(joint[2:, 2:], within, atol=0.1, rtol=0)


# --- two modes: why the posterior is a diffusion ------------------------------------------------


class Square(nn.Module):
    """z^2, which cannot tell z from -z."""

    def forward(self, z: Tensor) -> Tensor:
        return z**2


@dataclass
class TwoModes:
    """x = z^2 + e with its posterior; everything exact is a sum over a grid of z."""

    prior: GaussianPrior
    decoder: NormalDecoder
    posterior: DiffusionPosterior
    grid: Tensor

    @classmethod
    def make(cls) -> TwoModes:
        """Untrained."""
        scale = torch.tensor([1.6])
        decoder = NormalDecoder(1, scale, 1, mean=Square())
        with torch.no_grad():
            decoder.log_sigma.fill_(math.log(0.8))
        decoder.requires_grad_(False)
        grid = torch.linspace(-5, 5, 1001)
        return cls(GaussianPrior(1), decoder, make_posterior(scale, 1, N_STEPS, 48), grid)

    def log_joint(self, x: float) -> Tensor:
        """log p(x, z) over the grid."""
        z = self.grid.unsqueeze(-1)
        log_likelihood = self.decoder.log_prob(torch.tensor([[x]]), z, torch.zeros(1))
        return log_likelihood + self.prior.log_prob(z)

    def evidence(self, x: float) -> float:
        """log p(x)."""
        return float(self.log_joint(x).logsumexp(0)) + math.log(0.01)

    def best_gaussian_bound(self, x: float) -> float:
        """The highest bound that any N(m, s^2) reaches at this x: T = 0, perfectly trained."""
        mean = torch.linspace(0, 2.5, 51).reshape(-1, 1, 1)
        sd = torch.logspace(-1.2, 0.3, 40).reshape(1, -1, 1)
        log_q = Normal(mean, sd).log_prob(self.grid)
        integrand = log_q.exp() * (self.log_joint(x) - log_q)
        return float((integrand.sum(-1) * 0.01).max())

    @torch.no_grad()
    def bound(self, x: float, n: int = 10_000) -> tuple[float, float]:
        """The diffusion's bound and its standard error."""
        at, noise = torch.full((n, 1), x), torch.zeros(n)
        elbo = bound_terms(self.prior, self.decoder, self.posterior, at, noise, seeded(11)).elbo
        return float(elbo.mean()), float(elbo.std()) / math.sqrt(n)

    def draws(self, x: float, n: int = 10_000) -> Tensor:
        """(n,) draws of z at this x."""
        at, noise = torch.full((1, 1), x), torch.zeros(1)
        return self.posterior.sample(at, noise, n, seeded(12))[:, 0, 0]

    def sleep_loss(self, generator: torch.Generator) -> Tensor:
        """Minus the sleep bound of a batch of pairs."""
        noise = torch.zeros(512)
        z, x = dream(self.prior, self.decoder, noise, generator)
        terms = self.posterior.sleep_loss(z, x, noise, generator)
        return torch.stack([term.mean() for term in terms.values()]).sum()


@pytest.fixture(scope="module")
def two_modes() -> TwoModes:
    """Trained by the sleep phase."""
    model = TwoModes.make()
    optimise(model.posterior, model.sleep_loss, 1500, 1e-2)
    return model


def test_diffusion_finds_both_modes(two_modes: TwoModes) -> None:
    def shares(z: Tensor) -> tuple[float, float, float]:
        modes = (z < -0.8).float().mean(), (z > 0.8).float().mean()
        return float(modes[0]), float(modes[1]), float((z.abs() < 0.4).float().mean())

    weight = torch.softmax(two_modes.log_joint(2.0), 0)
    exact_valley = float(weight[two_modes.grid.abs() < 0.4].sum())
    left, right, valley = shares(two_modes.draws(2.0))
    untrained = shares(TwoModes.make().draws(2.0))
    assert min(untrained[:2]) < 0.1
    assert exact_valley < 0.06
    # A Gaussian wide enough to hold .28 on both sides has .22 in the valley.
    assert min(left, right) > 0.3
    assert valley < 0.18


def test_diffusion_bound_is_above_that_of_any_gaussian(two_modes: TwoModes) -> None:
    gains = []
    for x in (1.0, 1.5, 2.0, 2.5):
        bound, error = two_modes.bound(x)
        assert bound < two_modes.evidence(x) + 4 * error
        gains.append(bound - two_modes.best_gaussian_bound(x))
    assert min(gains) > 0.02
    # Half of log 2, what a Gaussian on one of two distant modes cannot avoid to lose.
    assert max(gains) > 0.34

"""Priors: densities that integrate to 1, and draws that follow them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from ancestry_ddvi.ddvi.priors import GaussianPrior, MixturePrior
from ancestry_ddvi.errors import OptionError

torch.set_num_threads(1)


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, so that no test depends on the global stream."""
    return torch.Generator().manual_seed(seed)


def uneven_mixture(n_components: int, n_latent: int, seed: int = 0) -> MixturePrior:
    """A mixture as training leaves it: weights and widths that differ."""
    generator = seeded(seed)
    prior = MixturePrior(n_components, n_latent, generator)
    with torch.no_grad():
        prior.logits += torch.randn(prior.logits.shape, generator=generator)
        prior.log_sd += 0.5 * torch.randn(prior.log_sd.shape, generator=generator)
    return prior


def make(name: str, n_latent: int) -> GaussianPrior | MixturePrior:
    """One of the priors on offer."""
    return GaussianPrior(n_latent) if name == "gaussian" else uneven_mixture(5, n_latent)


def grid(n_latent: int, n: int) -> tuple[torch.Tensor, float]:
    """(n^D, D) cell centres over [-8, 8]^D and the volume of a cell."""
    edge = torch.linspace(-8, 8, n + 1)
    axis = (edge[1:] + edge[:-1]) / 2
    mesh = torch.meshgrid(*[axis] * n_latent, indexing="ij")
    return torch.stack([m.flatten() for m in mesh], dim=-1), (16 / n) ** n_latent


@pytest.mark.parametrize("n_latent", [1, 2])
@pytest.mark.parametrize("name", ["gaussian", "mixture"])
@torch.no_grad()
def test_density_integrates_to_one(name: str, n_latent: int) -> None:
    z, cell = grid(n_latent, 4000 if n_latent == 1 else 500)
    assert float(make(name, n_latent).log_prob(z).exp().sum()) * cell == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
@torch.no_grad()
def test_draws_follow_the_density_on_a_line(name: str) -> None:
    """Kolmogorov-Smirnov against the density summed up on a fine grid."""
    prior = make(name, 1)
    z, cell = grid(1, 16_000)
    cumulative = np.cumsum(prior.log_prob(z).exp().double().numpy()) * cell
    draws = prior.sample(20_000, seeded(1)).squeeze(-1).double().numpy()
    centres = z.squeeze(-1).double().numpy()
    assert stats.kstest(draws, lambda at: np.interp(at, centres, cumulative)).pvalue > 1e-3


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
@torch.no_grad()
def test_draws_follow_the_density_on_a_plane(name: str) -> None:
    """Counts in 16 x 16 cells against the mass of the density there (chi-squared)."""
    prior = make(name, 2)
    z, cell = grid(2, 320)
    n = 20_000
    expected = (prior.log_prob(z).exp() * cell).reshape(16, 20, 16, 20).sum((1, 3)) * n
    edges = np.linspace(-8, 8, 17)
    draws = prior.sample(n, seeded(2)).numpy()
    counts = np.histogram2d(draws[:, 0], draws[:, 1], bins=[edges, edges])[0]
    # The approximation needs a handful of draws in each cell.
    full = expected.numpy() > 10
    assert full.sum() > 5
    seen, due = counts[full], expected.numpy()[full]
    assert float(((seen - due) ** 2 / due).sum()) < stats.chi2.ppf(0.9999, int(full.sum()))


@torch.no_grad()
def test_mixture_density_against_torch() -> None:
    prior = uneven_mixture(4, 3)
    reference = MixtureSameFamily(
        Categorical(logits=prior.logits), Independent(Normal(prior.mean, prior.log_sd.exp()), 1)
    )
    z = torch.randn((2, 50, 3), generator=seeded(3))
    assert prior.log_prob(z).shape == (2, 50)
    torch.testing.assert_close(prior.log_prob(z), reference.log_prob(z), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_membership_is_bayes_rule() -> None:
    prior = uneven_mixture(3, 2)
    z = 3 * torch.randn((40, 2), generator=seeded(4))
    membership = prior.membership(z)
    torch.testing.assert_close(membership.sum(-1), torch.ones(40))
    weight = torch.softmax(prior.logits, 0)
    joint = torch.stack(
        [
            weight[c] * Normal(prior.mean[c], prior.log_sd[c].exp()).log_prob(z).sum(-1).exp()
            for c in range(3)
        ],
        dim=-1,
    )
    usable = joint.sum(-1) > 1e-30
    expected = (joint / joint.sum(-1, keepdim=True))[usable]
    torch.testing.assert_close(membership[usable], expected, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_membership_far_from_all_components_is_still_a_probability() -> None:
    membership = uneven_mixture(3, 2).membership(torch.tensor([[1e3, -1e3]]))
    assert torch.isfinite(membership).all()
    assert float(membership.sum()) == pytest.approx(1)


@torch.no_grad()
def test_draws_of_separated_components_follow_the_weights() -> None:
    prior = MixturePrior(3, 2, seeded(0))
    prior.mean.copy_(torch.tensor([[-10.0, 0.0], [0.0, 0.0], [10.0, 0.0]]))
    prior.logits.copy_(torch.log(torch.tensor([0.2, 0.5, 0.3])))
    component = prior.membership(prior.sample(20_000, seeded(5))).argmax(-1)
    share = torch.bincount(component, minlength=3) / 20_000
    # Standard error sqrt(.5 * .5 / 20000) = .0035.
    np.testing.assert_allclose(share, [0.2, 0.5, 0.3], atol=0.015)


def test_mixture_can_be_fitted_by_gradient() -> None:
    """Every parameter has a finite gradient and likelihood of data rises along it."""
    prior = MixturePrior(4, 2, seeded(6))
    data = uneven_mixture(2, 2, seed=9).sample(500, seeded(7)).detach()
    optimiser = torch.optim.Adam(prior.parameters(), lr=0.05)
    first = prior.log_prob(data).mean().item()
    for _ in range(60):
        optimiser.zero_grad()
        (-prior.log_prob(data).mean()).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in prior.parameters())
        optimiser.step()
    assert prior.log_prob(data).mean().item() > first + 0.3
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in prior.parameters())


@pytest.mark.parametrize("n_components", [0, -3])
def test_fewer_than_one_component_is_refused(n_components: int) -> None:
    with pytest.raises(OptionError, match=f"at least 1 component, not {n_components}"):
        MixturePrior(n_components, 2, seeded(0))


def test_gaussian_prior_by_hand() -> None:
    prior = GaussianPrior(3)
    assert float(prior.log_prob(torch.zeros(3))) == pytest.approx(-1.5 * math.log(2 * math.pi))
    assert float(prior.log_prob(torch.tensor([1.0, 2.0, 0.0]))) == pytest.approx(
        -2.5 - 1.5 * math.log(2 * math.pi)
    )


@pytest.mark.parametrize("name", ["gaussian", "mixture"])
@torch.no_grad()
def test_draws_depend_on_the_generator_only(name: str) -> None:
    prior = make(name, 2)
    first = prior.sample(10, seeded(1))
    torch.randn(5)
    assert first.shape == (10, 2)
    assert torch.equal(first, prior.sample(10, seeded(1)))
    assert not torch.equal(first, prior.sample(10, seeded(2)))

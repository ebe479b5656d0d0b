"""The Laplace mixture: exact where it can be, and near the exact posterior on a grid elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from linear_gaussian import DECODER, OFFSET, SIGMA, WEIGHT, exact_posterior, seeded
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from ancestry_ddvi.ddvi import laplace
from ancestry_ddvi.ddvi.laplace import laplace_mixture, split
from ancestry_ddvi.ddvi.mixture import GaussianMixture
from ancestry_ddvi.ddvi.networks import NormalDecoder
from ancestry_ddvi.ddvi.objective import dream
from ancestry_ddvi.ddvi.priors import FixedMixturePrior, GaussianPrior, NormalComponents

torch.set_num_threads(1)

THREE = FixedMixturePrior(
    torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, -2.0]]),
    torch.tensor([[0.5, 0.3], [0.8, 0.2], [0.4, 0.9]]),
    torch.tensor([0.5, 0.3, 0.2]),
)


class Arc(nn.Module):
    """f(z): each axis of the map bent to three quarters of a circle over four sd."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([torch.sin(1.2 * z), torch.cos(1.2 * z)], dim=-1)


def curved(n_latent: int, sigma: float = 0.2) -> NormalDecoder:
    scale = torch.full((2 * n_latent,), 2 * sigma)  # a decoder starts at half of it
    return NormalDecoder(n_latent, scale, 1, mean=Arc()).requires_grad_(False)


def components_of(prior: GaussianPrior | FixedMixturePrior) -> NormalComponents:
    components = prior.normal_components()
    assert components is not None
    return components


def grid(n_latent: int, width: float = 4.5) -> Tensor:
    axis = torch.linspace(-width, width, 4001 if n_latent == 1 else 201)
    return torch.cartesian_prod(*[axis] * n_latent).reshape(-1, n_latent)


def divergence(
    q: GaussianMixture,
    prior: GaussianPrior | FixedMixturePrior,
    decoder: NormalDecoder,
    x: Tensor,
    noise: Tensor,
) -> Tensor:
    """(n,) KL( p(z | x) || q ) in nats, on a grid."""
    place = grid(prior.n_latent)
    axis = place[:, -1].unique()
    cell = float(axis[1] - axis[0]) ** prior.n_latent
    at = place.unsqueeze(1)
    exact = prior.log_prob(at) + decoder.log_prob(x, at, noise.expand(len(place), -1))
    exact = torch.log_softmax(exact.double(), dim=0)
    log_q = q.log_prob(at).double() + math.log(cell)
    return (exact.exp() * (exact - log_q)).sum(0)


# --- exact cases --------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 0.8, 5.0])
def test_linear_decoder_and_gaussian_prior_give_the_exact_posterior(level: float) -> None:
    noise = torch.full((4,), level)
    _, x = dream(GaussianPrior(2), DECODER, noise, seeded(0))
    q = laplace_mixture(components_of(GaussianPrior(2)), DECODER, x, noise)
    assert q.mean.shape == (4, 1, 2)
    mean, factor = q.moments()
    for i in range(4):
        exact = exact_posterior(x[i], noise[i])
        torch.testing.assert_close(mean[i], exact.mean, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(factor[i], exact.scale_tril, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("level", [0.0, 0.8, 5.0])
def test_linear_decoder_and_mixture_prior_give_the_exact_mixture(level: float) -> None:
    noise = torch.full((6,), level)
    _, x = dream(THREE, DECODER, noise, seeded(1))
    q = laplace_mixture(components_of(THREE), DECODER, x, noise)
    prior = components_of(THREE)
    covariance = torch.diag_embed(prior.sd**2)
    v = torch.diag(SIGMA**2 + level**2)
    seen = MultivariateNormal(prior.mean @ WEIGHT.T + OFFSET, WEIGHT @ covariance @ WEIGHT.T + v)
    precision = torch.linalg.inv(covariance) + WEIGHT.T @ torch.linalg.inv(v) @ WEIGHT
    pull = (x - OFFSET) @ torch.linalg.inv(v) @ WEIGHT
    start = (prior.mean / prior.sd**2).unsqueeze(0)
    mean = torch.linalg.solve(precision, (pull.unsqueeze(1) + start).unsqueeze(-1)).squeeze(-1)
    exact = MixtureSameFamily(
        Categorical(logits=prior.log_weight + seen.log_prob(x.unsqueeze(1))),
        MultivariateNormal(mean, torch.linalg.inv(precision).expand(6, 3, 2, 2)),
    )
    z = mean.mean(1) + torch.randn((50, 6, 2), generator=seeded(2))
    log_q, log_p = q.log_prob(z), exact.log_prob(z)
    # Components of less than a millionth go, which shows only where there is nothing else.
    near = log_p > log_p.max(0).values - 8
    assert near.any(0).all()
    torch.testing.assert_close(log_q[near], log_p[near], atol=5e-3, rtol=1e-3)


def test_without_any_genotype_the_prior_comes_back() -> None:
    for noise in (torch.tensor([1e3]), torch.tensor([math.inf])):
        q = laplace_mixture(components_of(THREE), curved(2), torch.zeros(1, 4), noise)
        z = THREE.sample(200, seeded(3)).unsqueeze(1)
        torch.testing.assert_close(q.log_prob(z), THREE.log_prob(z), atol=2e-3, rtol=1e-3)


# --- near cases ---------------------------------------------------------------------------------


def single(q: GaussianMixture) -> GaussianMixture:
    """One Gaussian of the same moments."""
    mean, factor = q.moments()
    covariance = (factor @ factor.mT).unsqueeze(1)
    return GaussianMixture.of_covariances(torch.zeros(len(mean), 1), mean.unsqueeze(1), covariance)


def test_a_mixture_prior_with_a_curved_decoder_is_followed_in_all_its_modes() -> None:
    """As on a map of populations; one Gaussian will not do once noise leaves several."""
    prior = FixedMixturePrior.spread(6, 2, seeded(0))
    decoder = curved(2)
    noise = torch.tensor([0.0, 0.5, 1.0, 2.0]).repeat_interleave(20)
    _, x = dream(prior, decoder, noise, seeded(4))
    q = laplace_mixture(components_of(prior), decoder, x, noise)
    kl = divergence(q, prior, decoder, x, noise)
    assert float(kl.min()) > -1e-3
    assert float(kl.max()) < 0.02
    alone = divergence(single(q), prior, decoder, x, noise).reshape(4, 20).mean(1)
    assert (alone[1:] > 0.2).all()


@pytest.mark.parametrize("n_latent", [1, 2])
def test_one_wide_component_over_a_bend_needs_splitting(
    n_latent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prior, decoder = GaussianPrior(n_latent), curved(n_latent)
    noise = torch.full((30,), 0.5)
    _, x = dream(prior, decoder, noise, seeded(4))
    monkeypatch.setattr(laplace, "MAX_GROWTH", 20)  # of one component
    q = laplace_mixture(components_of(prior), decoder, x, noise)
    monkeypatch.setattr(laplace, "MAX_BEND", math.inf)
    unsplit = laplace_mixture(components_of(prior), decoder, x, noise)
    assert unsplit.mean.shape[1] == 1 < q.mean.shape[1]
    kl = [float(divergence(m, prior, decoder, x, noise).mean()) for m in (q, single(q), unsplit)]
    assert kl[0] < 0.06
    assert kl[1] > 3 * kl[0]
    assert kl[2] > 10 * kl[0]


# --- splitting ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_latent", [1, 2])
def test_splitting_keeps_the_prior(n_latent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laplace, "MAX_GROWTH", 9)
    whole = components_of(GaussianPrior(n_latent))
    parts = split(whole, curved(n_latent), torch.zeros(()))
    assert len(parts.mean) == 9
    assert float(parts.log_weight.exp().sum()) == pytest.approx(1, abs=1e-5)
    place = grid(n_latent)

    def density(components: NormalComponents) -> Tensor:
        weight = components.log_weight.exp()
        prior = FixedMixturePrior(components.mean, components.sd, weight)
        return torch.softmax(prior.log_prob(place), dim=0)

    # Total variation, of the published three: and another width would not do.
    assert 0.5 * float((density(parts) - density(whole)).abs().sum()) < 0.02
    wrong = NormalComponents(parts.log_weight, parts.mean, 1.5 * parts.sd)
    assert 0.5 * float((density(wrong) - density(whole)).abs().sum()) > 0.03


def test_splitting_stops_where_the_decoder_is_straight_enough() -> None:
    """Linear: never; curved: the less the more noise there is, and none in the end."""
    three = components_of(THREE)
    assert split(three, DECODER, torch.zeros(())) is three
    numbers = [len(split(three, curved(2), torch.tensor(s)).mean) for s in (0.0, 0.5, 1.5, 50.0)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > numbers[-1] == 3
    assert numbers[0] in (laplace.MAX_GROWTH * 3, laplace.MAX_GROWTH * 3 - 1)  # two at a time
    # A component of next to no weight is not worth it.
    light = NormalComponents(torch.tensor([0.0, -20.0]), torch.zeros(2, 2), torch.ones(2, 2))
    parts = split(light, curved(2), torch.zeros(()))
    assert int((parts.log_weight < -15).sum()) == 1


# --- company ------------------------------------------------------------------------------------


def test_a_sample_has_the_same_mixture_in_any_company() -> None:
    """Samples of all tiers of noise, in mixed order, together and one by one."""
    decoder = curved(2)
    noise = torch.tensor([0.0, 3.0, 0.1, 0.4, 0.0, 40.0, 0.9, math.inf, 0.15])
    _, x = dream(THREE, decoder, noise.clamp(max=1e3), seeded(5))
    together = laplace_mixture(components_of(THREE), decoder, x, noise)
    z = THREE.sample(100, seeded(6)).unsqueeze(1)
    for i in range(len(x)):
        alone = laplace_mixture(components_of(THREE), decoder, x[i : i + 1], noise[i : i + 1])
        here = together.log_prob(z)[:, i]
        torch.testing.assert_close(here, alone.log_prob(z)[:, 0], atol=0.02, rtol=1e-3)
        for one, other in zip(alone.moments(), together.moments(), strict=True):
            torch.testing.assert_close(one[0], other[i], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("n_latent", [1, 2, 3, 5])
def test_quadrature_is_exact_for_cubics(n_latent: int) -> None:
    node, log_share = laplace._quadrature(n_latent)
    share = log_share.exp()
    assert float(share.sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(share @ node, torch.zeros(n_latent), atol=1e-5, rtol=0)
    second = (share.unsqueeze(-1) * node).T @ node
    torch.testing.assert_close(second, torch.eye(n_latent), atol=1e-5, rtol=0)
    third = torch.einsum("q,qi,qj,qk->ijk", share, node, node, node)
    torch.testing.assert_close(third, torch.zeros(3 * [n_latent]), atol=1e-4, rtol=0)

"""The guided posterior: right before training where its guide is, and still a true bound after."""

from __future__ import annotations

import math

import pytest
import torch
from c2st import two_sample_accuracy
from linear_gaussian import (
    DECODER,
    OFFSET,
    PRIOR,
    SIGMA,
    WEIGHT,
    accuracy_at,
    build,
    evidence,
    seeded,
)
from torch import Tensor
from torch.distributions import MultivariateNormal

from ancestry_ddvi.ddvi.guided import Guide, GuidedPosterior
from ancestry_ddvi.ddvi.laplace import laplace_mixture
from ancestry_ddvi.ddvi.mixture import GaussianMixture
from ancestry_ddvi.ddvi.objective import bound_terms, dream, iw_bound, log_weights
from ancestry_ddvi.ddvi.posterior import GaussianAnchor
from ancestry_ddvi.ddvi.priors import FixedMixturePrior, GaussianPrior

torch.set_num_threads(1)

THREE = FixedMixturePrior(
    torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, -2.0]]),
    torch.tensor([[0.5, 0.3], [0.8, 0.2], [0.4, 0.9]]),
    torch.tensor([0.5, 0.3, 0.2]),
)
NOISE = torch.tensor([0.0, 0.8, 3.0, 8.0])


def guide_of(prior: GaussianPrior | FixedMixturePrior) -> Guide:
    components = prior.normal_components()
    assert components is not None
    return lambda x, noise: laplace_mixture(components, DECODER, x, noise)


def guided(
    prior: GaussianPrior | FixedMixturePrior, *, n_steps: int = 4, trained: float = 0.0
) -> GuidedPosterior:
    return build(
        lambda inputs, d, width: GuidedPosterior(
            GaussianAnchor(inputs, d, width), guide_of(prior), n_steps, width
        ),
        trained=trained,
    )


def exact_evidence(x: Tensor, noise: Tensor) -> Tensor:
    """log p(x) under `THREE`, (n,)."""
    components = THREE.normal_components()
    within = WEIGHT @ torch.diag_embed(components.sd**2) @ WEIGHT.T
    covariance = within + torch.diag_embed(SIGMA**2 + noise[:, None, None] ** 2)
    seen = MultivariateNormal(components.mean @ WEIGHT.T + OFFSET, covariance)
    return torch.logsumexp(components.log_weight + seen.log_prob(x.unsqueeze(1)), dim=1)


def samples(seed: int = 0) -> Tensor:
    """x of `THREE` at each of `NOISE`."""
    return dream(THREE, DECODER, NOISE, seeded(seed))[1]


# --- before training ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.0, 0.8])
def test_untrained_draws_are_the_exact_posterior(level: float) -> None:
    """Of the linear-Gaussian model; the control starts from a guide that is twice as wide."""
    assert accuracy_at(guided(PRIOR), level) < 0.54
    wide = guided(PRIOR)
    narrow = wide.guide

    def wider(x: Tensor, noise: Tensor) -> GaussianMixture:
        return narrow(x, noise).shifted(torch.zeros(2), torch.tensor([math.log(4.0)]))

    wide.guide = wider
    assert accuracy_at(wide, level) > 0.58


@pytest.mark.parametrize("n_steps", [1, 4])
def test_untrained_draws_are_the_guide(n_steps: int) -> None:
    x, posterior = samples(), guided(THREE, n_steps=n_steps)
    draws = posterior.sample(x, NOISE, 3000, seeded(1))
    expected = posterior.guide(x, NOISE).sample(torch.Size((3000, 4)), seeded(2))
    for i in range(4):
        assert two_sample_accuracy(draws[:, i].numpy(), expected[:, i].numpy()) < 0.54
    assert two_sample_accuracy(draws[:, 0].numpy(), expected[:, 2].numpy()) > 0.6


@pytest.mark.parametrize("n_steps", [1, 4])
def test_the_untrained_bound_is_the_evidence_at_every_draw(n_steps: int) -> None:
    """The reverse of r is exact, so all weights are p(x): nothing is lost to the steps."""
    for prior, expected in ((THREE, exact_evidence), (PRIOR, evidence)):
        posterior, x = guided(prior, n_steps=n_steps), samples()
        with torch.no_grad():
            weight = log_weights(prior, DECODER, posterior, x, NOISE, 200, seeded(3))
        exact = expected(x, NOISE)
        torch.testing.assert_close(weight.mean(0), exact, atol=2e-3, rtol=0)
        # Where components were left out, a far draw has less weight, and no other.
        assert float((weight - exact).abs().max()) < 0.1


# --- after training, for better or worse --------------------------------------------------------


def test_weights_average_to_the_evidence_wherever_training_went() -> None:
    """log q - log r of all steps and the whitening add up, or they would not."""
    posterior, x = guided(THREE, trained=0.03), samples()
    with torch.no_grad():
        weight = log_weights(THREE, DECODER, posterior, x, NOISE, 40_000, seeded(4))
    exact = exact_evidence(x, NOISE)
    gap = exact - weight.mean(0)
    assert (gap > 0.005).all()  # it is not the truth any more,
    assert (gap < 1).all()
    spread = weight.exp().std(0) / weight.exp().mean(0) / math.sqrt(len(weight))
    assert (spread < 0.02).all()  # and this estimate settles,
    assert ((iw_bound(weight) - exact).abs() < 4 * spread + 2e-3).all()  # on the truth.


def test_one_chain_and_several_have_the_same_terms() -> None:
    posterior, x = guided(THREE, trained=0.06), samples()
    one = bound_terms(THREE, DECODER, posterior, x, NOISE, seeded(5))
    several = bound_terms(THREE, DECODER, posterior, x, NOISE, seeded(5), 1)
    assert one.step_kl.shape == (4, 5)
    assert several.step_kl.shape == (1, 4, 5)
    torch.testing.assert_close(one.elbo, several.elbo[0], atol=1e-4, rtol=1e-4)


def sleep(posterior: GuidedPosterior, n: int = 2000) -> dict[str, Tensor]:
    """Mean terms over n dreams at all noise levels, the same ones each time."""
    noise = NOISE.repeat(n // 4)
    z, x = dream(THREE, DECODER, noise, seeded(6))
    terms = posterior.sleep_loss(z, x, noise, seeded(7), n_draws=4)
    assert all(term.shape == (4, n) for term in terms.values())
    return {name: term.mean() for name, term in terms.items()}


@pytest.mark.parametrize("change", ["shift", "width"])
@pytest.mark.parametrize(("network", "term"), [("denoiser", "denoising"), ("start", "terminal")])
def test_the_sleep_loss_is_least_for_the_truth(network: str, term: str, change: str) -> None:
    """The guide is the exact posterior here, and any move either way costs."""
    with torch.no_grad():
        least = sleep(guided(THREE))
        for sign in (-1, 1):
            moved = guided(THREE)
            bias = getattr(moved, network)[-1].bias
            bias[slice(0, 2) if change == "shift" else slice(2, 3)] += 0.4 * sign
            terms = sleep(moved)
            assert terms[term] > least[term] + 0.01
            for other in {"denoising", "terminal"} - {term}:
                torch.testing.assert_close(terms[other], least[other])


def test_training_finds_the_way_back() -> None:
    """A guide that is off by an offset in its own frame: sleep steps learn what it lacks."""
    posterior = guided(THREE)
    exact = posterior.guide

    def off(x: Tensor, noise: Tensor) -> GaussianMixture:
        mixture = exact(x, noise)
        _, factor = mixture.moments()
        return mixture.shifted(0.5 * factor.sum(-1), torch.zeros(1))

    posterior.guide = off
    optimiser = torch.optim.Adam(posterior.parameters(), 5e-3)
    generator = seeded(8)
    noise = NOISE.repeat(16)
    x = samples()

    def bound() -> float:
        with torch.no_grad():
            return float(log_weights(THREE, DECODER, posterior, x, NOISE, 500, seeded(9)).mean())

    before = bound()
    for _ in range(80):
        z, dreamt = dream(THREE, DECODER, noise, generator)
        terms = posterior.sleep_loss(z, dreamt, noise, generator, n_draws=4)
        optimiser.zero_grad()
        torch.stack([term.mean() for term in terms.values()]).sum().backward()
        optimiser.step()
    best = float(exact_evidence(x, NOISE).mean())
    assert before < best - 0.1
    assert best - bound() < 0.5 * (best - before)


def test_every_parameter_of_phi_gets_a_finite_gradient() -> None:
    """In sleep and wake steps; the encoder is only looked at."""
    posterior, x = guided(THREE, trained=0.06), samples()
    for step in (
        lambda: torch.stack(list(sleep(posterior, 200).values())).sum(),
        lambda: -bound_terms(THREE, DECODER, posterior, x, NOISE, seeded(10)).elbo.sum(),
    ):
        posterior.zero_grad()
        step().backward()
        for name, parameter in posterior.named_parameters():
            if name.startswith("anchor"):
                assert parameter.grad is None
            else:
                assert torch.isfinite(parameter.grad).all(), name
                assert (parameter.grad != 0).any(), name


def test_saved_weights_give_the_same_draws() -> None:
    x, first, second = samples(), guided(THREE, trained=0.06), guided(THREE)
    assert not any("guide" in name for name in first.state_dict())
    draws = first.sample(x, NOISE, 5, seeded(11))
    assert not torch.equal(draws, second.sample(x, NOISE, 5, seeded(11)))
    second.load_state_dict(first.state_dict())
    assert torch.equal(draws, second.sample(x, NOISE, 5, seeded(11)))


def test_the_draws_of_chain_and_sample_are_of_one_law() -> None:
    x, posterior = samples(), guided(THREE, trained=0.06)
    with torch.no_grad():
        z = posterior.chain(x, NOISE, seeded(12), 4000).z
    draws = posterior.sample(x, NOISE, 4000, seeded(12))
    torch.testing.assert_close(z, draws, atol=1e-4, rtol=1e-4)

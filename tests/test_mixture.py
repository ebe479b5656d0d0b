"""Mixtures under the noising process, against Bayes on a grid and against their own draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from c2st import two_sample_accuracy
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from ancestry_ddvi.ddvi.mixture import NEGLIGIBLE, GaussianMixture
from ancestry_ddvi.ddvi.noise import NoiseSchedule
from ancestry_ddvi.ddvi.streams import Streams

torch.set_num_threads(1)

SCHEDULE = NoiseSchedule(6)
N, M, D = 3, 4, 2


def parameters() -> tuple[Tensor, Tensor, Tensor]:
    """Log-weights of any sum (N, M), means (N, M, D), covariances (N, M, D, D)."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn((N, M, D), generator=generator)
    half = 0.4 * torch.randn((N, M, D, D), generator=generator)
    return (
        torch.randn((N, M), generator=generator),
        mean,
        half @ half.mT + 0.02 * torch.eye(D),
    )


def mixture() -> GaussianMixture:
    return GaussianMixture.of_covariances(*parameters())


def reference(log_weight: Tensor, mean: Tensor, covariance: Tensor) -> MixtureSameFamily:
    """The same by torch's own distributions."""
    return MixtureSameFamily(Categorical(logits=log_weight), MultivariateNormal(mean, covariance))


def draws(of: GaussianMixture, n: int, seed: int = 0) -> Tensor:
    """(n, N, D)."""
    shape = torch.Size((n, len(of.mean)))
    return of.sample(shape, torch.Generator().manual_seed(seed))


def grid(width: float, n: int) -> tuple[Tensor, float]:
    """(n * n, D) points, and the area of a cell."""
    axis = torch.linspace(-width, width, n)
    return torch.cartesian_prod(axis, axis), (2 * width / (n - 1)) ** 2


def test_density_and_draws_are_those_of_the_mixture() -> None:
    expected = reference(*parameters())
    y = expected.sample((2000,))
    torch.testing.assert_close(mixture().log_prob(y), expected.log_prob(y), atol=1e-3, rtol=1e-4)
    ours = draws(mixture(), 3000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        theirs = expected.sample((3000,))
    for i in range(N):
        assert two_sample_accuracy(ours[:, i].numpy(), theirs[:, i].numpy()) < 0.54
    assert two_sample_accuracy(ours[:, 0].numpy(), theirs[:, 1].numpy()) > 0.6


def test_moments_by_draws() -> None:
    mean, factor = mixture().moments()
    y = draws(mixture(), 40_000).double()
    for i in range(N):
        torch.testing.assert_close(mean[i].double(), y[:, i].mean(0), atol=0.03, rtol=0)
        covariance = (factor[i] @ factor[i].T).double()
        torch.testing.assert_close(covariance, torch.cov(y[:, i].T), atol=0.03, rtol=0.05)


def test_whitening_moves_density_by_the_determinant_and_gives_unit_moments() -> None:
    mean, factor = mixture().moments()
    white = mixture().whitened(mean, factor)
    u = draws(white, 500)
    z = mean + (factor @ u.unsqueeze(-1)).squeeze(-1)
    log_det = torch.logdet(factor)
    torch.testing.assert_close(
        mixture().log_prob(z), white.log_prob(u) - log_det, atol=1e-3, rtol=1e-4
    )
    centre, unit = white.moments()
    torch.testing.assert_close(centre, torch.zeros(N, D), atol=1e-5, rtol=0)
    torch.testing.assert_close(unit, torch.eye(D).expand(N, D, D), atol=1e-4, rtol=0)


@pytest.mark.parametrize("t", [1, 3, 6])
def test_a_step_back_is_bayes_on_a_grid(t: int) -> None:
    """r(y_{t-1} | y_t) ~ r(y_{t-1}) r(y_t | y_{t-1}), at a place that two components share."""
    place, area = grid(4.0, 240)
    y = SCHEDULE.alpha_bar[t].sqrt() * mixture().mean[:, :2].mean(1) + 0.1
    step = mixture().reverse(SCHEDULE, y, t)
    before = mixture().noised(SCHEDULE, t - 1)
    expected = before.log_prob(place.unsqueeze(1)) + SCHEDULE.log_step(y, place.unsqueeze(1), t)
    expected = torch.softmax(expected, dim=0)
    got = step.log_prob(place.unsqueeze(1)).exp() * area
    assert float((got - expected).abs().sum(0).max()) < 0.01
    # The step of another place is another: the measure can tell.
    other = mixture().reverse(SCHEDULE, y + 0.5, t)
    assert (
        float((other.log_prob(place.unsqueeze(1)).exp() * area - expected).abs().sum(0).min())
        > 0.05
    )


def test_steps_may_differ_by_draw() -> None:
    y = draws(mixture(), 5)
    t = torch.tensor([[1, 2, 3], [6, 5, 4], [1, 1, 6], [2, 2, 2], [3, 6, 1]])
    at = draws(mixture(), 5, seed=1)
    together = mixture().reverse(SCHEDULE, y, t).log_prob(at)
    for step in range(1, 7):
        alone = mixture().reverse(SCHEDULE, y, step).log_prob(at)
        torch.testing.assert_close(together[t == step], alone[t == step], rtol=1e-4, atol=1e-4)


def chain(of: GaussianMixture, guide: GaussianMixture, n: int) -> Tensor:
    """Draws that start as `of` and go back by the steps of `guide`."""
    generator = torch.Generator().manual_seed(2)
    shape = torch.Size((n, len(of.mean)))
    y = of.noised(SCHEDULE, SCHEDULE.n_steps).sample(shape, generator)
    for t in range(SCHEDULE.n_steps, 0, -1):
        y = guide.reverse(SCHEDULE, y, t).sample(shape, generator)
    return y


def test_a_chain_of_steps_back_ends_at_the_mixture() -> None:
    ends, expected = chain(mixture(), mixture(), 3000), draws(mixture(), 3000)
    for i in range(N):
        assert two_sample_accuracy(ends[:, i].numpy(), expected[:, i].numpy()) < 0.54
    wide = replace(mixture(), variance=mixture().variance * 2)
    control = chain(mixture(), wide, 3000)
    accuracy = [
        two_sample_accuracy(control[:, i].numpy(), expected[:, i].numpy()) for i in range(N)
    ]
    assert min(accuracy) > 0.56


def test_noised_at_the_end_is_nearly_standard_normal_and_at_0_the_mixture() -> None:
    y = draws(mixture(), 50)
    torch.testing.assert_close(mixture().noised(SCHEDULE, 0).log_prob(y), mixture().log_prob(y))
    mean, factor = mixture().noised(SCHEDULE, SCHEDULE.n_steps).moments()
    torch.testing.assert_close(mean, torch.zeros(N, D), atol=0.1, rtol=0)
    torch.testing.assert_close(factor, torch.eye(D).expand(N, D, D), atol=0.05, rtol=0)


def test_narrow_components_stay_narrow() -> None:
    """The last step back must not lose a variance far below rounding of 1."""
    narrow = replace(mixture(), variance=torch.full((N, M, D), 1e-9))
    step = narrow.reverse(SCHEDULE, narrow.mean[:, 0], 1)
    torch.testing.assert_close(step.variance, narrow.variance, rtol=0.01, atol=0)
    assert torch.isfinite(step.log_prob(step.mean[:, 0])).all()


def test_negligible_components_have_no_weight_and_none_of_their_own_gradient() -> None:
    log_weight, mean, covariance = parameters()
    log_weight = torch.tensor([[0.0, -50, 1, -20], [0, -50, 1, -60], [0, -50, 1, -60]])
    of = GaussianMixture.of_covariances(log_weight, mean, covariance)
    # Two of weight in each, the heaviest first; all others are left out for all samples.
    assert of.mean.shape == (N, 2, D)
    assert torch.equal(of.mean[:, 0], mean[:, 2])
    torch.testing.assert_close(of.log_weight.exp().sum(-1), torch.ones(N))
    kept = torch.full((N, M), -math.inf)
    kept[:, [0, 2]] = log_weight[:, [0, 2]]
    y = draws(of, 20)
    torch.testing.assert_close(
        of.log_prob(y), reference(kept, mean, covariance).log_prob(y), rtol=1e-3, atol=1e-3
    )
    log_weight[0, 3] = math.log(NEGLIGIBLE) + 3
    of = GaussianMixture.of_covariances(log_weight, mean, covariance)
    assert of.mean.shape == (N, 3, D)
    assert torch.isinf(of.log_weight[1:, 2]).all()


class Highest(Streams):
    """The largest number below 1 that a stream can give."""

    def uniform(self, shape: Sequence[int]) -> Tensor:
        return torch.full(tuple(shape), 1 - 2**-24)


def test_a_component_of_no_weight_is_never_drawn() -> None:
    """Though rounding leaves the sum of the weights below the highest number that is drawn."""
    weight = torch.tensor([[0.1] * 9 + [0.09999, 0.0]])
    log_weight = torch.log_softmax(weight.log(), dim=-1)
    log_weight[0, 3] -= 1e-6
    assert float(log_weight.exp().cumsum(-1)[0, -1]) < 1 - 2**-24
    mean = torch.arange(11.0).reshape(1, 11, 1)
    one = torch.ones((1, 11, 1, 1))
    narrow = GaussianMixture(log_weight, mean, one, 1e-12 * torch.ones((1, 11, 1)))
    drawn = narrow.sample(torch.Size((4, 1)), Highest(np.array([0], dtype=np.uint64), 0))
    assert drawn.round().flatten().tolist() == [9.0] * 4


def test_cat_and_take_keep_each_sample() -> None:
    first = mixture()
    second = GaussianMixture(*(value[:, :2] for value in vars(mixture()).values()))
    second = replace(second, log_weight=torch.log_softmax(second.log_weight, -1))
    both = GaussianMixture.cat([second, first])
    assert both.mean.shape == (2 * N, M, D)
    y = draws(first, 40)
    log_prob = both.log_prob(torch.cat([y, y], dim=1))
    torch.testing.assert_close(log_prob[:, :N], second.log_prob(y))
    torch.testing.assert_close(log_prob[:, N:], first.log_prob(y))
    rows = torch.tensor([4, 0])
    for name, values in vars(both.take(rows)).items():
        assert torch.equal(values, getattr(both, name)[rows])
    # What is filled in has no weight and does no harm where weights are learnt through it.
    white = both.whitened(*both.moments())
    y = y.repeat(1, 2, 1).requires_grad_()
    for t in range(1, SCHEDULE.n_steps + 1):
        step = white.reverse(SCHEDULE, y, t)
        (gradient,) = torch.autograd.grad(step.log_prob(torch.zeros_like(y)).sum(), y)
        assert torch.isfinite(gradient).all()


def test_shifted_moves_and_widens() -> None:
    shift, log_scale = torch.tensor([1.0, -2.0]), torch.tensor([math.log(4.0)])
    one = GaussianMixture.of_covariances(*(value[:, :1] for value in parameters()))
    mean, factor = one.moments()
    moved, wider = one.shifted(shift, log_scale).moments()
    torch.testing.assert_close(moved, mean + shift)
    torch.testing.assert_close(wider, 2 * factor)


def test_rounding_does_not_turn_draws_of_a_round_component() -> None:
    """Its axes are arbitrary, and no draw may depend on them."""
    turn = torch.linalg.qr(torch.randn((2, 2), generator=torch.Generator().manual_seed(4)))[0]
    log_weight, mean, _ = parameters()
    drawn = []
    for axes in (torch.eye(2), turn):
        of = GaussianMixture(
            torch.log_softmax(log_weight, -1), mean, axes.expand(N, M, 2, 2), torch.ones(N, M, 2)
        )
        streams = Streams(np.arange(N, dtype=np.uint64), 0)
        drawn.append(of.sample(torch.Size((100, N)), streams))
    torch.testing.assert_close(*drawn, atol=1e-5, rtol=1e-5)

"""The noising process: its steps, its marginals and its reverse agree, and y_T forgets u."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ancestry_ddvi.ddvi.blind import BlindPosterior
from ancestry_ddvi.ddvi.guided import GuidedPosterior
from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.noise import NoiseSchedule, draw_normal, normal_kl, normal_log_prob
from ancestry_ddvi.ddvi.posterior import DiffusionPosterior, GaussianAnchor
from ancestry_ddvi.errors import OptionError

torch.set_num_threads(1)

STEPS = (1, 2, 3, 6, 10, 20, 100, 1000)


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, so that no test depends on the global stream."""
    return torch.Generator().manual_seed(seed)


def normal_log(value: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """log N(value; mean, variance) by torch's own distribution, summed over the last axis."""
    return Normal(mean, variance.sqrt()).log_prob(value).sum(-1)


def test_terminal_snr_is_below_a_hundredth_for_every_step_count() -> None:
    worst = max(NoiseSchedule(n).terminal_snr for n in range(1, 1001))
    assert worst < 0.01


def test_terminal_snr_is_that_of_the_steps_composed() -> None:
    # The property reads the marginal; the steps themselves are what the chain and the bound use.
    for n_steps in STEPS:
        schedule = NoiseSchedule(n_steps)
        kept = torch.prod(1 - schedule.alpha[1:].double())
        assert schedule.terminal_snr == pytest.approx(float(kept / (1 - kept)), rel=1e-3)


def full(n_steps: int) -> NoiseSchedule:
    inputs = FeatureInput(torch.ones(3))
    return DiffusionPosterior(GaussianAnchor(inputs, 2, 4), n_steps, 4).schedule


def guided(n_steps: int) -> NoiseSchedule:
    anchor = GaussianAnchor(FeatureInput(torch.ones(3)), 2, 4)
    return GuidedPosterior(anchor, lambda x, noise: pytest.fail("called"), n_steps, 4).schedule


def blind(n_steps: int) -> NoiseSchedule:
    return BlindPosterior(FeatureInput(torch.ones(3)), 2, 4, n_steps).schedule


ON_OFFER = {
    "diffusion": (full, 0.0025),
    "guided": (guided, 0.0025),
    # Not noise: the start is all that its chain knows of x, see `blind`.
    "blind": (blind, 0.953),
}
"""The schedules that posteriors have, and the share of y_T's variance that is u's."""


@pytest.mark.parametrize("name", ON_OFFER)
@pytest.mark.parametrize("n_steps", [*range(1, 31), 50, 100, 1000])
def test_variance_is_one_at_the_end_of_every_schedule_on_offer(name: str, n_steps: int) -> None:
    """By the steps, one after the other, from u of variance 1."""
    make, expected = ON_OFFER[name]
    kept, variance = 1.0, 0.0
    for alpha in make(n_steps).alpha[1:].double().tolist():
        kept, variance = (1 - alpha) * kept, (1 - alpha) * variance + alpha
    assert kept + variance == pytest.approx(1, abs=1e-6)
    assert kept == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("n_steps", [0, -1, -20])
def test_fewer_than_one_step_is_refused(n_steps: int) -> None:
    with pytest.raises(OptionError, match=f"at least 1 step, not {n_steps}"):
        NoiseSchedule(n_steps)


@pytest.mark.parametrize("n_steps", STEPS)
def test_steps_are_valid_and_noise_only_grows(n_steps: int) -> None:
    schedule = NoiseSchedule(n_steps)
    assert schedule.n_steps == n_steps
    assert len(schedule.alpha) == len(schedule.alpha_bar) == n_steps + 1
    assert schedule.alpha_bar[0] == 1
    assert ((schedule.alpha[1:] > 0) & (schedule.alpha[1:] < 1)).all()
    assert (schedule.alpha_bar.diff() < 0).all()


@pytest.mark.parametrize("n_steps", STEPS)
def test_marginal_equals_the_steps_composed(n_steps: int) -> None:
    """r(y_t | u) by recursion over r(y_t | y_{t-1}), mean and variance, at every t."""
    schedule = NoiseSchedule(n_steps)
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    mean, variance = 1.0, 0.0
    for t in range(1, n_steps + 1):
        alpha = float(schedule.alpha[t])
        mean, variance = (1 - alpha) ** 0.5 * mean, (1 - alpha) * variance + alpha
        assert float(schedule.diffuse(one, t, zero)) == pytest.approx(mean, rel=1e-3)
        assert float(schedule.diffuse(zero, t, one)) ** 2 == pytest.approx(variance, rel=1e-3)
        # Variance preserving: a u of variance 1 has variance 1 at every t, T included.
        assert mean**2 + variance == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("n_steps", [1, 5, 20])
def test_variance_is_one_at_the_end_by_simulation(n_steps: int) -> None:
    """Two-point u (as far from normal as unit variance gets), noised step by step."""
    schedule, generator, n = NoiseSchedule(n_steps), seeded(1), 100_000
    u = torch.randint(2, (n,), generator=generator) * 2.0 - 1
    y = u
    for t in range(1, n_steps + 1):
        alpha = schedule.alpha[t]
        y = (1 - alpha).sqrt() * y + alpha.sqrt() * torch.randn(n, generator=generator)
    # Standard errors: sqrt(2/n) = .0045 for the variance, sqrt(1/n) = .0032 for the others.
    assert float(y.var()) == pytest.approx(1, abs=0.02)
    assert float(y.mean()) == pytest.approx(0, abs=0.015)
    assert float((y**4).mean()) == pytest.approx(3, abs=0.2)
    assert float((u * y).mean()) ** 2 < 0.01


def test_diffuse_takes_one_step_number_for_each_row() -> None:
    schedule, generator = NoiseSchedule(7), seeded(2)
    u, noise = (torch.randn((5, 3), generator=generator) for _ in range(2))
    t = torch.tensor([1, 7, 3, 3, 5])
    rows = [schedule.diffuse(u[i], int(t[i]), noise[i]) for i in range(5)]
    torch.testing.assert_close(schedule.diffuse(u, t, noise), torch.stack(rows))


@pytest.mark.parametrize("n_steps", STEPS)
def test_log_step_is_the_density_of_the_step(n_steps: int) -> None:
    schedule, generator = NoiseSchedule(n_steps), seeded(3)
    before = torch.randn((4, 2), generator=generator)
    for t in {1, max(1, n_steps // 2), n_steps}:
        alpha = schedule.alpha[t]
        mean = (1 - alpha).sqrt() * before
        y = mean + alpha.sqrt() * torch.randn((4, 2), generator=generator)
        torch.testing.assert_close(
            schedule.log_step(y, before, t), normal_log(y, mean, alpha), atol=1e-3, rtol=1e-3
        )


@pytest.mark.parametrize("n_steps", [n for n in STEPS if n > 1])
def test_reverse_of_the_noising_is_bayes_rule(n_steps: int) -> None:
    """log r(y_{t-1}|y_t,u) = log r(y_t|y_{t-1}) + log r(y_{t-1}|u) - log r(y_t|u)."""
    schedule, generator = NoiseSchedule(n_steps).double(), seeded(4)
    u = torch.randn((6, 3), generator=generator, dtype=torch.float64)
    steps = range(2, n_steps + 1) if n_steps <= 20 else (2, n_steps // 2, n_steps)
    for t in steps:
        alpha, bar, bar_before = (
            schedule.alpha[t],
            schedule.alpha_bar[t],
            schedule.alpha_bar[t - 1],
        )
        eps, eta = (torch.randn(u.shape, generator=generator, dtype=torch.float64) for _ in "ab")
        before = schedule.diffuse(u, t - 1, eps)
        y = (1 - alpha).sqrt() * before + alpha.sqrt() * eta
        c, d, v = schedule.coefficients(t)
        bayes = (
            normal_log(y, (1 - alpha).sqrt() * before, alpha)
            + normal_log(before, bar_before.sqrt() * u, 1 - bar_before)
            - normal_log(y, bar.sqrt() * u, 1 - bar)
        )
        # alpha and alpha_bar are rounded to float32 one by one, which the division by v amplifies.
        torch.testing.assert_close(
            normal_log(before, c * u + d * y, v), bayes, atol=5e-3, rtol=1e-3
        )


@pytest.mark.parametrize("n_steps", STEPS)
def test_reverse_of_the_first_step_is_the_latent_itself(n_steps: int) -> None:
    c, d, v = NoiseSchedule(n_steps).coefficients(1)
    assert float(c) == pytest.approx(1, abs=1e-4)
    assert float(d) == 0
    assert float(v) == 0


def test_coefficients_take_one_step_number_for_each_row() -> None:
    schedule = NoiseSchedule(6)
    t = torch.tensor([1, 4, 6])
    for rows, each in zip(
        schedule.coefficients(t),
        zip(*map(schedule.coefficients, (1, 4, 6)), strict=True),
        strict=True,
    ):
        assert rows.shape == (3, 1)
        torch.testing.assert_close(rows.squeeze(-1), torch.stack(each))


def test_normal_log_prob_against_torch() -> None:
    generator = seeded(5)
    residual, log_variance = (torch.randn((7, 4), generator=generator) for _ in range(2))
    expected = normal_log(residual, torch.zeros(()), log_variance.exp())
    torch.testing.assert_close(normal_log_prob(residual, log_variance), expected)
    # One variance for all axes must count once for each of them.
    shared = torch.tensor(0.7)
    expected = normal_log(residual, torch.zeros(()), shared.exp())
    torch.testing.assert_close(normal_log_prob(residual, shared), expected)


def test_schedule_has_nothing_to_learn_and_travels_with_the_weights() -> None:
    schedule = NoiseSchedule(5)
    assert not list(schedule.parameters())
    assert set(schedule.state_dict()) == {"alpha", "alpha_bar"}


@pytest.mark.parametrize("n_steps", [1, 2, 7])
def test_ends_of_the_schedule_are_those_asked_for(n_steps: int) -> None:
    schedule = NoiseSchedule(n_steps, log_snr_first=5.0, log_snr_last=2.0)
    log_snr = torch.logit(schedule.alpha_bar[1:].double())
    assert float(log_snr[-1]) == pytest.approx(2, abs=1e-3)
    assert float(log_snr[0]) == pytest.approx(5 if n_steps > 1 else 2, abs=1e-3)
    # Latents of unit variance keep it, however much of them is left.
    u, noise = (torch.randn(100_000, 1, generator=seeded(seed)) for seed in (1, 2))
    assert float(schedule.diffuse(u, n_steps, noise).var()) == pytest.approx(1, abs=0.02)


def test_normal_kl_against_torch() -> None:
    mean, at, raw, log_variance = (torch.randn((7, 4), generator=seeded(s)) for s in range(4))
    variance = raw.exp()
    of_torch = kl_divergence(Normal(mean, variance.sqrt()), Normal(at, (0.5 * log_variance).exp()))
    torch.testing.assert_close(normal_kl(mean, variance, at, log_variance), of_torch.sum(-1))
    # One variance for all axes, and a point, whose cross-entropy is all there is.
    shared = kl_divergence(Normal(mean, 0.5), Normal(at, (0.5 * log_variance).exp())).sum(-1)
    torch.testing.assert_close(normal_kl(mean, torch.tensor(0.25), at, log_variance), shared)
    point = normal_kl(mean, torch.zeros(7, 1), at, log_variance)
    torch.testing.assert_close(point, -normal_log(mean, at, log_variance.exp()))


def test_draw_normal_comes_with_its_density() -> None:
    mean, log_variance = (torch.randn((50_000, 3), generator=seeded(s)) for s in range(2))
    draw, log_prob = draw_normal(mean, log_variance, seeded(2))
    torch.testing.assert_close(
        log_prob, normal_log(draw, mean, log_variance.exp()), atol=1e-3, rtol=1e-3
    )
    u = (draw - mean) * torch.exp(-0.5 * log_variance)
    torch.testing.assert_close(u.T.cov(), torch.eye(3), atol=0.03, rtol=0)

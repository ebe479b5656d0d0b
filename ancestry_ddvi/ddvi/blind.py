"""The posterior of the simplified objective: its denoiser and its noising process see no x.

    q(y_T | x)        = N( delta(x), e^{eta(x)} )
    q(y_{t-1} | y_t)  = N( c_t z_hat + d_t y_t,  e^{gamma_t(y_t)} w_t )
    z_hat             = sqrt(abar_t) y_t + g(y_t, t)
    w_t               = v_t + c_t^2 (1 - abar_t)
    r                 the process of `noise`, in z = y_0 itself

Piriyakulkij, Wang & Kuleshov 2025, the simplified variant. In return for its blindness the denoiser
is taught by draws of p(z) alone, without a dream of x. All that z knows of x has to come through
y_T, so r must not forget z on the way: where the full method runs r until y_T is noise, here y_T
keeps a signal-to-noise of e^LOG_SNR_LAST: variance 1 as in any schedule, .953 of it z's. To take
that for noise would be a fault, as KL( r(y_T | z) || N(0, I) ) does. Here no term does: y_T is
drawn from q(y_T | x), the bound has log q(y_T | x) and log r of the very r that was run, and the
sleep loss has KL( r(y_T | z) || q(y_T | x) ).

The bound holds for any r and is not tight for this one. Gap to log p(x) on the linear-Gaussian
model of the tests, T = 5, 400 steps of 256 samples, by log signal-to-noise of y_T: 5.2 nats at -6,
2.2 at 0, .6 at 2, .3 at 3, .1 at 4. What is gained there is lost in freedom: a chain with less
noise bends a Gaussian less. On the bundled genotypes (`compare`, seed 0) a chain that starts from
noise learns no map at all: elbo -43.6 at -6 and at 0, -39.6 at 3.

Latents should have about unit scale, as all priors of this package have: for z ~ N(0, I) the
untrained chain is the exact reverse of r.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.networks import FeatureInput, fourier_time, mlp
from ancestry_ddvi.ddvi.noise import NoiseSchedule, draw_normal, normal_kl
from ancestry_ddvi.ddvi.posterior import TIME_WIDTH, Chain, bounded
from ancestry_ddvi.ddvi.streams import Source

LOG_SNR_FIRST = 6.0
LOG_SNR_LAST = 3.0
"""Log signal-to-noise of y_1 and y_T: noise of sd .05 and .22 beside latents of unit scale."""


class BlindPosterior(nn.Module):
    """q(y_{0:T} | x) of which only the first draw sees x.

    Parameters
    ----------
    inputs
        Feature scaling.
    n_latent, n_hidden
        D and the width of the hidden layers.
    n_steps
        T >= 1.
    log_snr_last
        Log signal-to-noise of y_T.

    Raises
    ------
    OptionError
        If T < 1.
    """

    time: Tensor

    def __init__(
        self,
        inputs: FeatureInput,
        n_latent: int,
        n_hidden: int,
        n_steps: int = 10,
        *,
        log_snr_last: float = LOG_SNR_LAST,
    ) -> None:
        super().__init__()
        self.n_latent = n_latent
        self.inputs = inputs
        self.schedule = NoiseSchedule(
            n_steps, log_snr_first=LOG_SNR_FIRST, log_snr_last=log_snr_last
        )
        self.start = mlp(inputs.n_out, 2 * n_latent, n_hidden, zero_output=True)
        self.denoiser = mlp(n_latent + TIME_WIDTH, 2 * n_latent, n_hidden, zero_output=True)
        self.register_buffer("time", fourier_time(n_steps, TIME_WIDTH), False)

    def start_step(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(y_T | x), both (..., D)."""
        shift, log_scale = self.start(self.inputs(x, noise)).chunk(2, dim=-1)
        return shift, bounded(log_scale)

    def reverse_step(self, y: Tensor, t: Tensor | int) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(y_{t-1} | y_t), both (..., D)."""
        time = self.time[t].expand(*y.shape[:-1], TIME_WIDTH)
        shift, log_scale = self.denoiser(torch.cat([y, time], dim=-1)).chunk(2, dim=-1)
        c, d, v = self.schedule.coefficients(t)
        alpha_bar = self.schedule._at(self.schedule.alpha_bar, t)
        z_hat = alpha_bar.sqrt() * y + shift
        return c * z_hat + d * y, torch.log(v + c**2 * (1 - alpha_bar)) + bounded(log_scale)

    def chain(self, x: Tensor, noise: Tensor, source: Source, n_draws: int | None = None) -> Chain:
        """Draw y_T..y_0 = z once for each row of x (n, K), or (n_draws, n) times, with the terms of
        the bound."""
        at, log_variance = self.start_step(x, noise)
        if n_draws is not None:
            at = at.expand(n_draws, *at.shape)
        y, log_q = draw_normal(at, log_variance, source)
        terms = [log_q]
        for t in range(self.schedule.n_steps, 0, -1):
            before, log_q = draw_normal(*self.reverse_step(y, t), source)
            terms.append(log_q - self.schedule.log_step(y, before, t))
            y = before
        return Chain(y, torch.stack(terms[::-1], dim=-1))

    @torch.no_grad()
    def sample(self, x: Tensor, noise: Tensor, n_draws: int, source: Source) -> Tensor:
        """(n_draws, n, D) draws of q(z | x) for x (n, K)."""
        at, log_variance = self.start_step(x, noise)
        y, _ = draw_normal(at.expand(n_draws, *at.shape), log_variance, source)
        for t in range(self.schedule.n_steps, 0, -1):
            y, _ = draw_normal(*self.reverse_step(y, t), source)
        return y

    def latent_sleep_loss(self, z: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`denoising` (n,): T times KL( r(y_{t-1} | y_t, z) || q(y_{t-1} | y_t) ) at one drawn t
        for each z (n, D); at t = 1 the negative log-likelihood of z."""
        n_steps = self.schedule.n_steps
        t = torch.randint(1, n_steps + 1, z.shape[:-1], generator=generator)
        y = self.schedule.diffuse(z, t, torch.randn(z.shape, generator=generator))
        at, log_variance = self.reverse_step(y, t)
        c, d, v = self.schedule.coefficients(t)
        kl = normal_kl(c * z + d * y, v, at, log_variance)
        return {"denoising": n_steps * kl}

    def sleep_loss(
        self, z: Tensor, x: Tensor, noise: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Minus the lower bound of log q(z | x) for pairs (z, x) drawn from the model: `denoising`
        and `terminal` (n,), KL( r(y_T | z) || q(y_T | x) )."""
        last = self.schedule.alpha_bar[-1]
        terminal = normal_kl(last.sqrt() * z, 1 - last, *self.start_step(x, noise))
        return self.latent_sleep_loss(z, generator) | {"terminal": terminal}

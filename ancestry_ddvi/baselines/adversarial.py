"""Adversarial posterior (AAEB; Makhzani et al. 2015): easy to draw from, without a density.

    eps ~ N(0, I),   z = mu(x) + L(x) eps + g(x, eps)
    T(z)      logit of "z was drawn from q" against "z was drawn from p(z)"
    q(z)      = E_{p(x)} q(z | x),  the aggregated posterior
    T*(z)     = log q(z) - log p(z),  hence  E_q[T*] = KL( q(z) || p(z) )
    posterior, decoder   minimise  E_q[ -log p(x | z) + T(z) ],  T held
    discriminator        minimises  E_q[ softplus(-T) ] + E_p[ softplus(T) ],  z held

This is the form of the paper's AAEB row: the discriminator compares the aggregated posterior with
the prior and sees no x. Where Makhzani et al. minimise -log(1 - sigmoid(T)) with a free weight, T
itself is in nats, so the weight is 1; the fixed point q(z) = p(z) is the same. KL( q(z) || p(z) )
is less than the bound's E KL( q(z | x) || p(z) ) by the mutual information of x and z: nothing
keeps q(z | x) as wide as p(z | x), and widths of these draws mean nothing.

With `sees_x` the discriminator sees the pair, T* = log q(z | x) - log p(z), and the same two losses
are adversarial variational Bayes (Mescheder et al. 2017), whose optimum is p(z | x). T then has to
follow closely: some five discriminator steps to one of the posterior, else widths are lost as well.

`Adversarial` is this duel as an objective of the engine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ancestry_ddvi.ddvi.networks import FeatureInput, mlp
from ancestry_ddvi.ddvi.objective import Likelihood
from ancestry_ddvi.ddvi.posterior import GaussianAnchor, unwhiten
from ancestry_ddvi.ddvi.priors import Prior
from ancestry_ddvi.ddvi.streams import Source, normal
from ancestry_ddvi.ddvi.wake_sleep import Model
from ancestry_ddvi.errors import OptionError, check_count


class AdversarialPosterior(nn.Module):
    """An implicit posterior with its discriminator.

    Parameters
    ----------
    inputs
        Feature scaling.
    n_latent, n_hidden
        D and the width of the hidden layers.
    sees_x
        Whether the discriminator sees x.
    """

    def __init__(
        self, inputs: FeatureInput, n_latent: int, n_hidden: int, *, sees_x: bool = False
    ) -> None:
        super().__init__()
        self.n_latent = n_latent
        self.sees_x = sees_x
        self.anchor = GaussianAnchor(inputs, n_latent, n_hidden)
        self.bend = mlp(inputs.n_out + n_latent, n_latent, n_hidden, zero_output=True)
        self.discriminator = mlp(n_latent + sees_x * inputs.n_out, 1, n_hidden)

    def draw(self, x: Tensor, noise: Tensor, eps: Tensor) -> Tensor:
        """z (..., D) of samples x (..., K), noise (...,) and eps (..., D)."""
        mean, factor = self.anchor(x, noise)
        bent = self.bend(torch.cat([self.anchor.inputs(x, noise), eps], dim=-1))
        z: Tensor = unwhiten(eps, mean, factor) + bent
        return z

    @torch.no_grad()
    def sample(self, x: Tensor, noise: Tensor, n_draws: int, source: Source) -> Tensor:
        """(n_draws, n, D) draws of q(z | x) for x (n, K)."""
        eps = normal(source, (n_draws, len(x), self.n_latent))
        return self.draw(x.expand(n_draws, *x.shape), noise.expand(n_draws, *noise.shape), eps)

    def logit(self, z: Tensor, x: Tensor, noise: Tensor, *, held: bool = False) -> Tensor:
        """T (...,); with `held` no gradient reaches the discriminator's weights."""
        seen = torch.cat([z, self.anchor.inputs(x, noise)], dim=-1) if self.sees_x else z
        weights = {
            name: weight.detach() if held else weight
            for name, weight in self.discriminator.named_parameters()
        }
        logit: Tensor = torch.func.functional_call(self.discriminator, weights, (seen,))
        return logit.squeeze(-1)

    def adversarial_losses(
        self,
        prior: Prior,
        likelihood: Likelihood,
        x: Tensor,
        noise: Tensor,
        generator: torch.Generator,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses of the two sides on one batch of data x (n, K), noise (n,).

        Neither has a gradient for the other's weights, so two optimisers in turn, or one for the
        sum of both, do the same at each step. The prior has none: it is what q is compared with.

        Returns
        -------
        Of posterior and decoder: `reconstruction` -log p(x | z), `adversarial` T, (n,) each. Of the
        discriminator: `drawn` softplus(-T) at z ~ q, `prior` softplus(T) at z ~ p, (n,) each.
        """
        z = self.draw(x, noise, torch.randn((len(x), self.n_latent), generator=generator))
        with torch.no_grad():
            z_prior = prior.sample(len(x), generator)
        ours = {
            "reconstruction": -likelihood.log_prob(x, z, noise),
            "adversarial": self.logit(z, x, noise, held=True),
        }
        theirs = {
            "drawn": softplus(-self.logit(z.detach(), x, noise)),
            "prior": softplus(self.logit(z_prior, x, noise)),
        }
        return ours, theirs

    def chain(
        self, x: Tensor, noise: Tensor, source: Source, n_draws: int | None = None
    ) -> NoReturn:
        """Raise OptionError: there is no density, hence no bound."""
        raise OptionError(_NO_DENSITY)

    def sleep_loss(
        self, z: Tensor, x: Tensor, noise: Tensor, generator: torch.Generator
    ) -> NoReturn:
        """Raise OptionError: there is no density, hence no sleep phase."""
        raise OptionError(_NO_DENSITY)


_NO_DENSITY = (
    "an adversarial posterior has no density, so neither a bound nor a sleep phase; train it by "
    "adversarial_losses and judge its draws, or choose another posterior"
)


@dataclass(frozen=True)
class Adversarial:
    """Objective of an `AdversarialPosterior`: both sides' losses, see `adversarial_losses`.

    Attributes
    ----------
    n_discriminator
        Steps of the discriminator in a round, the last of which the posterior and the decoder
        learn as well. 1 will do where it sees z alone, some 5 where it sees x.
    """

    n_discriminator: int = 1

    def __post_init__(self) -> None:
        check_count("objective: n_discriminator", self.n_discriminator)

    def losses(
        self, model: Model, x: Tensor, noise: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """See `wake_sleep.Objective`.

        Raises
        ------
        OptionError
            If the posterior has no discriminator.
        """
        posterior = model.posterior
        if not isinstance(posterior, AdversarialPosterior):
            raise OptionError(
                f"the adversarial objective needs an AdversarialPosterior, not "
                f"{type(posterior).__name__}; choose Unregularised or WakeSleep"
            )
        ours, theirs = posterior.adversarial_losses(
            model.prior, model.likelihood, x, noise, generator
        )
        return theirs if step % self.n_discriminator else ours | theirs

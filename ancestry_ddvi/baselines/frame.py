"""The frame in which a posterior is written: whitened by a Gaussian anchor, or plain.

    z              = mu(x) + L(x) u
    log q(z | x)   = log q(u | x) - log |L|
    anchored       mu, L from the Gaussian anchor; u is near N(0, I) whatever x
    not anchored   mu = 0, L = I; u is z

A rival of DDVI is then a distribution of u and nothing else, and all rivals can have the same
anchor: what they differ in is the family.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.posterior import Chain, GaussianAnchor, log_det, unwhiten, whiten
from ancestry_ddvi.ddvi.streams import Source


@dataclass(frozen=True)
class Frame:
    """Samples, and where their latents are written.

    Attributes
    ----------
    x, noise
        (..., K), (...,) features and their noise.
    mean, factor
        (..., D) mu, (..., D, D) L.
    context
        (..., n_context) what networks see of x: its features and where the frame is.
    """

    x: Tensor
    noise: Tensor
    mean: Tensor
    factor: Tensor
    context: Tensor

    def repeat(self, n_draws: int) -> Frame:
        """The same for many draws, (n_draws, ...)."""
        return Frame(*(part.expand(n_draws, *part.shape) for part in vars(self).values()))

    def place(self, u: Tensor) -> Tensor:
        """z = mu + L u."""
        return unwhiten(u, self.mean, self.factor)

    def whiten(self, z: Tensor) -> Tensor:
        """u = L^-1 (z - mu)."""
        return whiten(z, self.mean, self.factor)

    def log_det(self) -> Tensor:
        """log |L|, (...,)."""
        return log_det(self.factor)


class Origin(nn.Module):
    """No anchor: mu = 0, L = I."""

    def __init__(self, inputs: FeatureInput, n_latent: int) -> None:
        super().__init__()
        self.inputs = inputs
        self.n_latent = n_latent

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """mu (..., D) and L (..., D, D)."""
        mean = torch.zeros((*x.shape[:-1], self.n_latent))
        return mean, torch.eye(self.n_latent).expand(*mean.shape, self.n_latent)


class FramedPosterior(nn.Module):
    """A posterior that says how u is drawn and what the sleep phase scores.

    Parameters
    ----------
    inputs
        Feature scaling.
    n_latent, n_hidden
        D and the width of the hidden layers.
    anchored
        Whether the frame is a Gaussian anchor, trained along with the rest.
    """

    def __init__(
        self, inputs: FeatureInput, n_latent: int, n_hidden: int, *, anchored: bool
    ) -> None:
        super().__init__()
        self.n_latent = n_latent
        self.n_context = inputs.n_out + n_latent
        self.anchor: GaussianAnchor | Origin = (
            GaussianAnchor(inputs, n_latent, n_hidden) if anchored else Origin(inputs, n_latent)
        )

    def draw(self, frame: Frame, source: Source) -> tuple[Tensor, Tensor]:
        """A draw of u (..., D), and its log q - log r (..., k)."""
        raise NotImplementedError

    def sleep_terms(self, u: Tensor, frame: Frame, generator: torch.Generator) -> dict[str, Tensor]:
        """Terms (n,) that add up to minus a lower bound of log q(u | x)."""
        raise NotImplementedError

    def frame(self, x: Tensor, noise: Tensor) -> Frame:
        """The frame of samples x (..., K), noise (...,)."""
        mean, factor = self.anchor(x, noise)
        context = torch.cat([self.anchor.inputs(x, noise), mean], dim=-1)
        return Frame(x, noise, mean, factor, context)

    def chain(self, x: Tensor, noise: Tensor, source: Source, n_draws: int | None = None) -> Chain:
        """One draw for each row of x (n, K), or (n_draws, n), with its terms of the bound; -log|L|
        is in the first."""
        frame = self.frame(x, noise)
        if n_draws is not None:
            frame = frame.repeat(n_draws)
        u, first = self.draw(frame, source)
        first, others = first[..., :1], first[..., 1:]
        first = first - frame.log_det().unsqueeze(-1)
        return Chain(frame.place(u), torch.cat([first, others], dim=-1))

    @torch.no_grad()
    def sample(self, x: Tensor, noise: Tensor, n_draws: int, source: Source) -> Tensor:
        """(n_draws, n, D) draws of q(z | x) for x (n, K)."""
        frame = self.frame(x, noise).repeat(n_draws)
        return frame.place(self.draw(frame, source)[0])

    def sleep_loss(
        self, z: Tensor, x: Tensor, noise: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Terms of the family, and `whitening` log|L|: minus a lower bound of log q(z | x), (n,).

        With |L| among them the gradient of the anchor is right: it is trained by the same bound.
        """
        frame = self.frame(x, noise)
        terms = self.sleep_terms(frame.whiten(z), frame, generator)
        return terms | {"whitening": frame.log_det()}

"""Normalising flow posteriors: one invertible map, an exact density, no auxiliary latents.

    b ~ N(0, I),   u = F^-1(b; x),   log q(u | x) = log N(F(u); 0, I) + log |dF / du|

F runs from latent to base, the direction of zuko's flows. Autoregressive maps are parallel one way
and take D passes the other:

    inverse autoregressive (IAF; Kingma et al. 2016)  draws in one pass, scores given z in D passes
    neural spline (NSF; Durkan et al. 2019)           scores in one pass, draws in D passes

So IAF suits the wake phase, which scores its own draws, and NSF the sleep phase. Kingma et al. too
start the flow at a Gaussian that the encoder gives, which here is the anchor. All maps open as the
identity, and training starts at the anchor itself.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from zuko.flows import MAF, NSF
from zuko.lazy import LazyTransform
from zuko.nn import MLP, MaskedMLP

from ancestry_ddvi.baselines.frame import Frame, FramedPosterior
from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.noise import normal_log_prob
from ancestry_ddvi.ddvi.streams import Source, normal

N_TRANSFORMS = 4

Flow = Callable[[int, int, int], LazyTransform]
"""(D, n_context, n_hidden) -> F."""


def inverse_autoregressive(n_latent: int, n_context: int, n_hidden: int) -> LazyTransform:
    """Affine autoregressive maps, parallel from base to latent: zuko's own direction turned."""
    flow = MAF(n_latent, n_context, N_TRANSFORMS, **_network(n_hidden))
    return flow.transform.inv


def neural_spline(n_latent: int, n_context: int, n_hidden: int) -> LazyTransform:
    """Rational-quadratic splines on [-5, 5], parallel from latent to base; identity outside."""
    return NSF(n_latent, n_context, transforms=N_TRANSFORMS, **_network(n_hidden)).transform


def _network(n_hidden: int) -> dict[str, object]:
    return {"hidden_features": (n_hidden, n_hidden), "activation": nn.SiLU}


class FlowPosterior(FramedPosterior):
    """q(u | x) by a conditional flow.

    Parameters
    ----------
    inputs, n_latent, n_hidden
        See `FramedPosterior`.
    flow
        `inverse_autoregressive` or `neural_spline`.
    anchored
        Whether the flow starts at the Gaussian anchor or at N(0, I) in z itself, where a spline
        moves nothing beyond +-5.
    """

    def __init__(
        self,
        inputs: FeatureInput,
        n_latent: int,
        n_hidden: int,
        flow: Flow = neural_spline,
        *,
        anchored: bool = True,
    ) -> None:
        super().__init__(inputs, n_latent, n_hidden, anchored=anchored)
        self.transform = flow(n_latent, self.n_context, n_hidden)
        for module in self.transform.modules():
            if isinstance(module, (MLP, MaskedMLP)):
                nn.init.zeros_(module[-1].weight)
                nn.init.zeros_(module[-1].bias)

    def draw(self, frame: Frame, source: Source) -> tuple[Tensor, Tensor]:
        """u (..., D) and log q(u | x) (..., 1)."""
        # zuko would draw the base from the global stream.
        base = normal(source, frame.mean.shape)
        u, log_slope = self.transform(frame.context).inv.call_and_ladj(base)
        return u, (normal_log_prob(base, torch.zeros(())) - log_slope).unsqueeze(-1)

    def sleep_terms(self, u: Tensor, frame: Frame, generator: torch.Generator) -> dict[str, Tensor]:
        """`density`: -log q(u | x), exact."""
        base, log_slope = self.transform(frame.context).call_and_ladj(u)
        return {"density": -normal_log_prob(base, torch.zeros(())) - log_slope}

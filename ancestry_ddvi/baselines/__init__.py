"""What DDVI is compared with: other posteriors of the same model, and maps without a model.

POSTERIORS["nsf"](inputs, n_latent, n_hidden)      Posterior
REDUCTIONS["umap"](x_train, seed)                  Fitted
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ancestry_ddvi.baselines.adversarial import Adversarial, AdversarialPosterior
from ancestry_ddvi.baselines.flow import FlowPosterior, inverse_autoregressive, neural_spline
from ancestry_ddvi.baselines.gaussian import GaussianPosterior
from ancestry_ddvi.baselines.hierarchical import HierarchicalPosterior
from ancestry_ddvi.baselines.path_integral import PathIntegralPosterior, model_score
from ancestry_ddvi.baselines.reductions import REDUCTIONS, Fitted
from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.objective import Posterior

POSTERIORS: dict[str, Callable[[FeatureInput, int, int], Posterior]] = {
    "gaussian": GaussianPosterior,
    "iaf": partial(FlowPosterior, flow=inverse_autoregressive),
    "nsf": partial(FlowPosterior, flow=neural_spline),
    "adversarial": AdversarialPosterior,
    "hierarchical": HierarchicalPosterior,
    "pis": PathIntegralPosterior,
}
"""Name -> constructor of (inputs, n_latent, n_hidden)."""

__all__ = [
    "POSTERIORS",
    "REDUCTIONS",
    "Adversarial",
    "AdversarialPosterior",
    "Fitted",
    "FlowPosterior",
    "GaussianPosterior",
    "HierarchicalPosterior",
    "PathIntegralPosterior",
    "Posterior",
    "inverse_autoregressive",
    "model_score",
    "neural_spline",
]

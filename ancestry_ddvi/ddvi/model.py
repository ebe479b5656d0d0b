"""The latent variable model with its posterior, and the settings it is made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ancestry_ddvi.ddvi.dirichlet import ClusterDecoder
from ancestry_ddvi.ddvi.guided import GuidedPosterior
from ancestry_ddvi.ddvi.laplace import laplace_mixture
from ancestry_ddvi.ddvi.latent import BATCH, batches
from ancestry_ddvi.ddvi.mixture import GaussianMixture
from ancestry_ddvi.ddvi.networks import FeatureInput, NormalDecoder
from ancestry_ddvi.ddvi.objective import BoundTerms, iw_bound
from ancestry_ddvi.ddvi.posterior import Chain, DiffusionPosterior, GaussianAnchor
from ancestry_ddvi.ddvi.priors import (
    ComponentPrior,
    NormalComponents,
    Prior,
    check_prior,
    check_prior_calls,
    clustered_prior,
    count_clusters,
)
from ancestry_ddvi.ddvi.streams import Source, Streams
from ancestry_ddvi.ddvi.supervision import (
    Classifier,
    check_enough,
    log_prior_of_label,
    match_classes,
)
from ancestry_ddvi.errors import OptionError, check_count

SLIMMER = 4
"""The networks of a guided posterior are so many times narrower: they have little to learn, and
are what drawing costs."""

CLUSTERINGS = ("mixture", "dirichlet")
"""The components of the prior, or weights that the decoder sees (`dirichlet`)."""

N_WEIGHTS = 10
"""Clusters of `dirichlet` where no number is asked for."""

_COUNTS = ("n_latent", "n_clusters", "n_steps", "n_hidden")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the model.

    Attributes
    ----------
    n_latent
        D, axes of the map.
    n_clusters
        Components of the prior mixture, 30 if left out; more than there are populations does no
        harm. Of other priors the arms, pieces, sectors or sides, with a number of their own if left
        out (`priors.table.COUNTS`); with `dirichlet` the weights, 10 if left out.
    n_steps
        T, steps of the diffusion.
    n_hidden
        Width of every hidden layer.
    guided
        Whether the diffusion starts from the model's own Laplace mixture (`guided`) or from the
        encoder's Gaussian (`posterior`), which leaves all else to be learnt. If left out it does
        where it can: where the prior is made of Gaussians along the axes and the clustering is
        that of the prior.
    prior
        Name of p(z), one of `priors.PRIORS`; `mixture` if left out, `gaussian` with `dirichlet`.
    clustering
        One of `CLUSTERINGS`.
    classes
        Names of the classes that some samples are labelled with (`supervision`); none if the model
        learns from no labels.

    Raises
    ------
    OptionError
        If a value cannot be used, or not with another.
    """

    n_latent: int = 2
    n_clusters: int | None = None
    n_steps: int = 6
    n_hidden: int = 128
    guided: bool | None = None
    prior: str | None = None
    clustering: str = "mixture"
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None:
                check_count(name, value)
        if self.guided not in (None, False, True):
            raise OptionError(f"guided must be true, false or left out, not {self.guided}")
        if self.clustering not in CLUSTERINGS:
            raise OptionError(
                f"there is no clustering {self.clustering!r}; choose one of "
                f"{', '.join(CLUSTERINGS)}"
            )
        object.__setattr__(self, "classes", tuple(self.classes))
        self._check_classes()
        if self.clustering == "dirichlet":
            self._check_dirichlet()
        _ = self.n_prior_clusters  # it must be able to have so many

    @property
    def prior_name(self) -> str:
        """`prior`, or what stands for it if it is left out."""
        if self.prior is not None:
            return self.prior
        return "gaussian" if self.clustering == "dirichlet" else "mixture"

    @property
    def n_prior_clusters(self) -> int:
        """Clusters of the prior that is named: with Dirichlet weights `n_clusters` is theirs."""
        asked = None if self.clustering == "dirichlet" else self.n_clusters
        return count_clusters(self.prior_name, self.n_latent, asked, len(self.classes))

    def _check_classes(self) -> None:
        if len(self.classes) == 1:
            raise OptionError(
                f"all labels are {self.classes[0]!r}; a classifier needs at least 2 classes: label "
                "samples of another, or learn without labels"
            )
        if not all(isinstance(name, str) for name in self.classes):
            raise OptionError("names of classes are text; write numbers as such")
        if len(set(self.classes)) < len(self.classes):
            raise OptionError("two classes have the same name; rename one")

    def _check_dirichlet(self) -> None:
        if self.prior_name in ("mixture", "vamp"):
            raise OptionError(
                f"clustering dirichlet needs a fixed prior, not {self.prior_name!r}, which learns "
                "clusters of its own; choose gaussian or fixed-mixture"
            )
        if self.classes:
            raise OptionError(
                "labels are parts of the prior, and clustering dirichlet has its clusters beside "
                "it; supervise with clustering mixture"
            )


class AncestryModel(nn.Module):
    """p(z) a learnt mixture or another prior, p(x | z) a normal decoder, q(z | x) a diffusion.

    Parameters
    ----------
    scale
        (K,) standard deviation of each feature in the training samples.
    config
        Shape.
    seed
        Initial weights.
    prior
        Takes the place of the one that the config names: anything with the methods of `Prior`,
        and of `ComponentPrior` if labels are to be learnt from.

    Attributes
    ----------
    config
        The shape, with nothing left out.

    Raises
    ------
    OptionError
        If there are fewer features than latents, a feature that does not vary, or a prior that
        does not fit the other settings.
    """

    prior: Prior
    decoder: NormalDecoder | ClusterDecoder
    classifier: Classifier | None
    cluster: Tensor

    def __init__(
        self, scale: np.ndarray, config: ModelConfig, seed: int, prior: Prior | None = None
    ) -> None:
        super().__init__()
        if config.n_latent > len(scale):
            raise OptionError(
                f"{config.n_latent} latents cannot be learnt from {len(scale)} principal "
                "components; lower --n-latent or, if the samples span more, raise --n-pcs"
            )
        if not (np.isfinite(scale) & (np.asarray(scale) > 0)).all():
            raise OptionError("a feature has no spread over the training samples; leave it out")
        generator = torch.Generator().manual_seed(seed)
        # Layers of torch draw from the global stream; fork it so that a caller's is not touched.
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would reseed accelerators too.
            torch.default_generator.manual_seed(seed)
            scale_tensor = torch.as_tensor(scale, dtype=torch.float32)
            inputs = FeatureInput(scale_tensor)
            dirichlet = config.clustering == "dirichlet"
            n_clusters = config.n_clusters or N_WEIGHTS
            self.decoder = (
                ClusterDecoder(config.n_latent, n_clusters, inputs, config.n_hidden)
                if dirichlet
                else NormalDecoder(config.n_latent, scale_tensor, config.n_hidden)
            )
            anchor = GaussianAnchor(inputs, config.n_latent, config.n_hidden)
            self.prior = (
                _named_prior(config, generator, anchor)
                if prior is None
                else _given_prior(prior, config)
            )
            if not dirichlet:
                parts = self.prior
                n_clusters = parts.n_clusters if isinstance(parts, ComponentPrior) else 1
            self.config = replace(
                config,
                prior=config.prior_name,
                n_clusters=n_clusters,
                guided=self._is_guided(config),
            )
            self.posterior: DiffusionPosterior | GuidedPosterior = (
                GuidedPosterior(
                    anchor, self.laplace_mixture, config.n_steps, -(-config.n_hidden // SLIMMER)
                )
                if self.config.guided
                else DiffusionPosterior(anchor, config.n_steps, config.n_hidden)
            )
            n_classes = len(config.classes)
            self.classifier = Classifier(inputs, n_classes, config.n_hidden) if n_classes else None
        if self.classifier is not None:
            # Until the map is there any partition will do, and one makes it a part of the state.
            check_enough(n_clusters, n_classes)
            self.divide(torch.arange(n_clusters) % n_classes)
        # Which cluster each component is of: a saved model tells its own shape by it.
        cluster = self.prior.cluster if isinstance(self.prior, ComponentPrior) else torch.zeros(1)
        self.register_buffer("cluster", cluster.long())

    def divide(self, class_of_cluster: Tensor) -> None:
        """Say of which class each cluster (n_clusters,) of the prior is."""
        assert isinstance(self.prior, ComponentPrior)
        self.prior.divide(class_of_cluster)

    def _is_guided(self, config: ModelConfig) -> bool:
        can = config.clustering != "dirichlet" and self.normal_components() is not None
        if config.guided and not can:
            raise OptionError(
                f"{type(self.prior).__name__} is not made of Gaussians along the axes, so there is "
                "no guide; leave guided out or set it to False"
            )
        return can if config.guided is None else config.guided

    @property
    def dtype(self) -> torch.dtype:
        """Of the features that it takes: float32, or float64 after `double`."""
        return self.posterior.anchor.inputs.scale.dtype

    def normal_components(self) -> NormalComponents | None:
        """The prior as Gaussians along the axes, if it is made of such."""
        return self.prior.normal_components() if isinstance(self.prior, ComponentPrior) else None

    def laplace_mixture(self, x: Tensor, noise: Tensor) -> GaussianMixture:
        """p(z | x) in closed form as nearly as Gaussians can say it, for x (n, K), noise (n,)."""
        components = self.normal_components()
        assert components is not None
        assert isinstance(self.decoder, NormalDecoder)
        return laplace_mixture(components, self.decoder, x, noise)

    def log_likelihood(self, x: Tensor, z: Tensor, noise: Tensor, source: Source) -> Tensor:
        """log p(x | z), (..., n) for x (n, K), z (..., n, D), noise (n,); a draw's estimate of a
        bound of it where the decoder sees clusters."""
        if isinstance(self.decoder, ClusterDecoder):
            return self.decoder.log_bound(x, z, noise, source)
        return self.decoder.log_prob(x, z, noise)

    def log_prior(
        self,
        z: Tensor,
        x: Tensor,
        noise: Tensor,
        label: Tensor | None,
        *,
        classifier_leads: bool = False,
    ) -> Tensor:
        """log p(z), (..., n), or what takes its place where label (n,) is given (`supervision`);
        without gradient for q(l | x) where that leads."""
        if label is None or self.classifier is None:
            return self.prior.log_prob(z)
        assert isinstance(self.prior, ComponentPrior)
        log_q = self.classifier(x, noise)
        log_q = log_q.detach() if classifier_leads else log_q
        return log_prior_of_label(self.prior.class_log_prob(z), log_q, label)

    @torch.no_grad()
    def match_classes(self, x: Tensor, noise: Tensor, label: Tensor) -> None:
        """Divide the prior's clusters among the classes as the map of x (n, K), noise (n,) says,
        label (n,) where it is known."""
        assert isinstance(self.prior, ComponentPrior)
        assert self.classifier is not None
        mean, _ = self.posterior.anchor(x, noise)
        cluster = self.prior.cluster_probability(mean)
        self.divide(match_classes(cluster, self.classifier(x, noise), label))

    def bound(self, x: Tensor, noise: Tensor, source: Source) -> BoundTerms:
        """One draw's estimate of the evidence lower bound for each row of x (n, K)."""
        return self._bound_of(self.posterior.chain(x, noise, source), x, noise, source)

    def _bound_of(self, chain: Chain, x: Tensor, noise: Tensor, source: Source) -> BoundTerms:
        return BoundTerms(
            reconstruction=self.log_likelihood(x, chain.z, noise, source),
            step_kl=chain.step_kl,
            log_prior=self.prior.log_prob(chain.z),
        )

    @torch.no_grad()
    def draw(
        self,
        x: np.ndarray,
        noise: np.ndarray,
        *,
        n_draws: int,
        seed: int,
        key: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n_draws, n_samples, D) float32 draws of q(z | x), and the evidence lower bound of each
        sample (n_samples,) in nats, averaged over its draws.

        Parameters
        ----------
        x, noise
            (n_samples, K), (n_samples,) features.
        n_draws, seed
            Number of draws, and what they follow from.
        key
            (n_samples,) uint64: each sample has a random stream of its own, told by its key, so
            that its draws do not depend on the other samples. Its features tell it by default.
        """
        draws = np.empty((n_draws, len(x), self.config.n_latent), dtype=np.float32)
        elbo = np.empty(len(x))
        for rows, z, log_weight in self._chains(x, noise, n_draws, seed, key):
            draws[:, rows] = z.numpy()
            elbo[rows] = log_weight.double().mean(0).numpy()
        return draws, elbo

    def _chains(
        self, x: np.ndarray, noise: np.ndarray, n_draws: int, seed: int, key: np.ndarray | None
    ) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(rows, z (n_draws, n, D), log_weight (n_draws, n)) of the samples, some at a time; see
        `draw` and `objective`."""
        if key is None:
            scale = self.posterior.anchor.inputs.scale.double().numpy()
            key = row_key(np.column_stack([x / scale, noise]))
        for rows, x_part, noise_part in batches(x, noise, max(1, BATCH // n_draws), self.dtype):
            source = Streams(key[rows], seed)
            chain = self.posterior.chain(x_part, noise_part, source, n_draws)
            yield rows, chain.z, self._bound_of(chain, x_part, noise_part, source).elbo

    def sample_posterior(
        self, x: np.ndarray, noise: np.ndarray, *, n_draws: int, seed: int
    ) -> np.ndarray:
        """(n_draws, n_samples, D) draws of q(z | x), see `draw`."""
        return self.draw(x, noise, n_draws=n_draws, seed=seed)[0]

    def elbo(
        self, x: np.ndarray, noise: np.ndarray, *, n_draws: int = 16, seed: int = 0
    ) -> np.ndarray:
        """(n_samples,) evidence lower bound in nats, see `draw`."""
        return self.draw(x, noise, n_draws=n_draws, seed=seed)[1]

    @torch.no_grad()
    def log_marginal(
        self, x: np.ndarray, noise: np.ndarray, *, n_draws: int = 4096, seed: int = 0
    ) -> np.ndarray:
        """(n_samples,) estimate of log p(x) in nats, from importance weights of so many draws of
        the chain (`objective`); never below `elbo` of the same draws. x, noise, seed: see `draw`.

        Raises
        ------
        OptionError
            If the decoder sees clusters: of those there is a bound, and no weight of a draw.
        """
        if isinstance(self.decoder, ClusterDecoder):
            raise OptionError(
                "there is no importance-weighted estimate of log p(x) with clustering dirichlet; "
                "take the lower bound (score, elbo), or clustering mixture"
            )
        check_count("n_draws", n_draws)
        out = np.empty(len(x))
        for rows, _, log_weight in self._chains(x, noise, n_draws, seed, None):
            out[rows] = iw_bound(log_weight.double()).numpy()
        return out

    @torch.no_grad()
    def cluster_probability(
        self, x: np.ndarray, noise: np.ndarray, draws: np.ndarray
    ) -> np.ndarray:
        """(n_samples, n_clusters) p(c | x): `membership`, or E_q[c] where the decoder sees
        clusters."""
        if isinstance(self.decoder, ClusterDecoder):
            rows = batches(x, noise, BATCH, self.dtype)
            return np.concatenate([self.decoder.probability(*part).numpy() for _, *part in rows])
        return self.membership(draws)

    @torch.no_grad()
    def membership(self, draws: np.ndarray) -> np.ndarray:
        """(n_samples, n_clusters) p(c | z) of the prior's clusters, averaged over draws
        (n_draws, n_samples, D)."""
        if not isinstance(self.prior, ComponentPrior):
            return np.ones((draws.shape[1], 1))
        return self._averaged(self.prior.cluster_probability, draws)

    @torch.no_grad()
    def class_probability(self, x: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(n_samples, n_classes) q(l | x) of a model that labels were learnt from."""
        assert self.classifier is not None
        rows = batches(x, noise, BATCH, self.dtype)
        return np.concatenate([self.classifier(*part).exp().numpy() for _, *part in rows])

    @torch.no_grad()
    def class_probability_of(self, draws: np.ndarray) -> np.ndarray:
        """(n_samples, n_classes) p(l | z) averaged over draws (n_draws, n_samples, D)."""
        prior = self.prior
        assert isinstance(prior, ComponentPrior)
        return self._averaged(lambda z: torch.softmax(prior.class_log_prob(z), dim=-1), draws)

    def _averaged(self, probability: Callable[[Tensor], Tensor], draws: np.ndarray) -> np.ndarray:
        """Mean over draws of probabilities at z, in double precision."""
        total: Any = 0
        for draw in draws:
            z = torch.as_tensor(draw, dtype=self.dtype)
            total = total + probability(z).double().numpy()
        mean: np.ndarray = total / len(draws)
        return mean

    def config_dict(self) -> dict[str, Any]:
        """JSON-ready settings."""
        return asdict(self.config)


def _named_prior(
    config: ModelConfig, generator: torch.Generator, anchor: GaussianAnchor
) -> ComponentPrior:
    return clustered_prior(
        config.prior_name,
        config.n_latent,
        generator,
        config.n_prior_clusters,
        encoder=anchor,
        scale=anchor.inputs.scale,
    )


def _given_prior(prior: Prior, config: ModelConfig) -> Prior:
    check_prior(prior, config.n_latent)
    check_prior_calls(prior)
    if config.classes and not isinstance(prior, ComponentPrior):
        raise OptionError(
            f"{type(prior).__name__} has no classes to learn labels with; give a ComponentPrior"
        )
    return prior


def row_key(values: np.ndarray) -> np.ndarray:
    """(n_samples,) uint64 hash of each row, which what is lost or gained by rounding leaves as it
    is."""
    rows = np.round(values, 6) + 0.0  # -0 is 0
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.array([int.from_bytes(digest, "big") for digest in digests], dtype=np.uint64)

"""Clusters beside the map: a bound against quadrature, draws, and groups that are found again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from linear_gaussian import seeded
from sklearn.metrics import normalized_mutual_info_score
from torch.distributions import Dirichlet

from ancestry_ddvi import DDVI
from ancestry_ddvi.ddvi import training
from ancestry_ddvi.ddvi.dirichlet import ClusterDecoder
from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.streams import Streams, dirichlet
from ancestry_ddvi.ddvi.training import TrainingConfig, train
from ancestry_ddvi.errors import OptionError

torch.set_num_threads(1)

ALPHA = torch.tensor([[0.2, 3.0, 1.0], [0.1, 0.1, 0.1]])


@pytest.mark.parametrize("source", [seeded(0), Streams(np.array([1, 2], dtype=np.uint64), 0)])
def test_draws_have_the_moments_of_the_distribution(source: Any) -> None:
    drawn = dirichlet(source, ALPHA, 20_000)
    assert drawn.shape == (20_000, 2, 3)
    assert drawn.dtype == torch.float32
    exact = Dirichlet(ALPHA)
    torch.testing.assert_close(drawn.mean(0), exact.mean, atol=0.01, rtol=0)
    torch.testing.assert_close(drawn.var(0), exact.variance, atol=0.01, rtol=0)


def test_draws_leave_the_global_stream_alone_and_follow_the_seed() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (dirichlet(seeded(seed), ALPHA, 5) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.random.get_rng_state())
    # A sample's stream is its own, whoever is beside it.
    streams = Streams(np.array([1, 2], dtype=np.uint64), 0)
    alone = Streams(np.array([2], dtype=np.uint64), 0)
    both = dirichlet(streams, ALPHA, 5)
    assert torch.equal(both[:, 1:], dirichlet(alone, ALPHA[1:], 5))


def make(n_clusters: int = 2, n_features: int = 3) -> ClusterDecoder:
    torch.manual_seed(5)
    decoder = ClusterDecoder(1, n_clusters, FeatureInput(torch.ones(n_features)), 8)
    with torch.no_grad():
        decoder.normal.mean.centre.weight.mul_(3)
    return decoder


@pytest.mark.parametrize("level", [0.0, 0.7])
def test_the_bound_stays_below_log_p_of_x_given_z(level: float) -> None:
    """With two clusters c = (w, 1 - w) and p(x | z) is an integral over w, done on a grid."""
    decoder = make()
    x, z = torch.randn((6, 3), generator=seeded(0)), torch.randn((6, 1), generator=seeded(1))
    noise = torch.full((6,), level)
    # w ~ Beta(1/2, 1/2) is sin^2 of a uniform angle, which takes the poles out of the integral.
    angle = (torch.arange(4000) + 0.5) / 4000 * torch.pi / 2
    w = torch.sin(angle) ** 2
    c = torch.stack([w, 1 - w], dim=1).unsqueeze(1).expand(-1, 6, -1)
    with torch.no_grad():
        both = torch.cat([z.expand(4000, -1, -1), c], dim=2)
        exact = torch.logsumexp(decoder.normal.log_prob(x, both, noise), 0) - np.log(4000)
        draws = decoder.log_bound(x, z.expand(20_000, -1, -1), noise, seeded(2))
        mean, error = draws.mean(0), draws.std(0) / 20_000**0.5
        assert (mean < exact + 4 * error).all()
        # Without its KL it is none.
        free = decoder.log_bound(x, z.expand(20_000, -1, -1), noise, seeded(2), kl_weight=0.0)
        assert (free.mean(0) > mean).all()

    # And learning q(c | x) closes the gap.
    optimiser = torch.optim.Adam(decoder.network.parameters(), lr=0.02)
    for step in range(150):
        loss = -decoder.log_bound(x, z.expand(16, -1, -1), noise, seeded(step)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        after = decoder.log_bound(x, z.expand(20_000, -1, -1), noise, seeded(2)).mean(0)
    assert (after < exact + 4 * error).all()
    assert (exact - after).mean() < 0.6 * (exact - mean).mean()


def test_draws_of_x_are_those_of_the_model() -> None:
    """x given z has the mean that integrating over p(c) gives."""
    decoder = make()
    z = torch.full((40_000, 1), 0.4)
    x = decoder.sample(z, torch.zeros(40_000), seeded(0)).detach()
    c = Dirichlet(torch.full((2,), 0.5)).sample((40_000,))
    expected = decoder.normal.mean(torch.cat([z, c], dim=1)).mean(0).detach()
    torch.testing.assert_close(x.mean(0), expected, atol=0.03, rtol=0)


class Groups:
    """Five groups in eight features."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.group = np.repeat(np.arange(5), 50)
        x = 3 * rng.normal(size=(5, 8))[self.group] + rng.normal(size=(250, 8))
        self.x = x - x.mean(axis=0)

    def fit(self, map_steps: int) -> AncestryModel:
        config = ModelConfig(clustering="dirichlet", n_clusters=8, n_hidden=48, n_steps=3)
        model = AncestryModel(self.x.std(axis=0), config, 0)
        short = TrainingConfig(map_steps=map_steps, posterior_steps=60, posterior_batch=64)
        self.history = train(model, self.x, np.zeros(250), 1.0, short, 0)
        return model

    def shared(self, model: AncestryModel) -> float:
        """Information that clusters and groups share, 0 to 1."""
        probability = model.cluster_probability(self.x, np.zeros(250), np.zeros((1, 250, 2)))
        return normalized_mutual_info_score(self.group, probability.argmax(axis=1))


@pytest.fixture(scope="module")
def groups() -> Groups:
    return Groups()


@pytest.fixture(scope="module")
def fitted(groups: Groups) -> AncestryModel:
    return groups.fit(800)


def test_weights_find_the_groups(groups: Groups, fitted: AncestryModel) -> None:
    assert groups.shared(fitted) > 0.85
    untrained = AncestryModel(groups.x.std(axis=0), fitted.config, 0)
    assert groups.shared(untrained) < 0.6


def test_a_sample_of_which_little_is_known_is_of_no_cluster(
    groups: Groups, fitted: AncestryModel
) -> None:
    draws = np.zeros((1, 250, 2))
    sure = fitted.cluster_probability(groups.x, np.zeros(250), draws).max(axis=1)
    unsure = fitted.cluster_probability(0 * groups.x, np.full(250, 30.0), draws).max(axis=1)
    assert np.median(sure) > 0.6
    assert np.median(unsure) < np.median(sure) - 0.2


def test_the_bound_rises_and_clusters_are_held_after_their_phase(
    groups: Groups, fitted: AncestryModel
) -> None:
    x, noise = groups.x, np.zeros(250)
    before = AncestryModel(x.std(axis=0), fitted.config, 0).elbo(x, noise, n_draws=4).mean()
    assert fitted.elbo(x, noise, n_draws=4).mean() > before + 5
    terms = groups.history.terms
    assert [t is not None for t in terms["cluster"]] == [s <= 400 for s in groups.history.steps]


def test_later_phases_leave_the_clusters_as_they_are(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_phases, weights = training.run_phases, []
    for n_phases in (1, 4):
        with monkeypatch.context() as patch:
            patch.setattr(
                training, "run_phases", lambda m, p, *rest, n=n_phases: run_phases(m, p[:n], *rest)
            )
            weights.append(groups.fit(40).decoder)
    first, last = (decoder.network.state_dict() for decoder in weights)
    assert all(torch.equal(first[name], last[name]) for name in first)
    decoders = [decoder.normal.mean.centre.weight for decoder in weights]
    assert not torch.equal(*decoders)  # the control


def test_every_weight_gets_a_finite_gradient() -> None:
    decoder = make(n_clusters=4)
    x, z = torch.randn((8, 3), generator=seeded(0)), torch.randn((8, 1), generator=seeded(1))
    decoder.log_bound(x, z, torch.zeros(8), seeded(2)).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prior": "mixture"}, "dirichlet needs a fixed prior, not 'mixture'"),
        ({"prior": "vamp"}, "dirichlet needs a fixed prior, not 'vamp'"),
        ({"classes": ("a", "b")}, "supervise with clustering mixture"),
        ({"guided": True}, "there is no guide"),
        ({"n_clusters": 0}, "n_clusters must be at least 1"),
    ],
)
def test_what_does_not_go_with_it_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        AncestryModel(np.ones(4), ModelConfig(clustering="dirichlet", **settings), 0)


def test_what_is_left_out_is_filled_in() -> None:
    config = AncestryModel(np.ones(4), ModelConfig(clustering="dirichlet"), 0).config
    assert (config.prior, config.n_clusters, config.guided) == ("gaussian", 10, False)


def test_the_estimator_has_it_too(groups: Groups) -> None:
    estimator = DDVI(clustering="dirichlet", n_clusters=4, map_steps=40, posterior_steps=9)
    probability = estimator.fit(groups.x).predict_proba(groups.x)
    assert probability.shape == (250, 4)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-6)
    alone = estimator.predict_proba(groups.x[7:8])
    np.testing.assert_allclose(alone, probability[7:8], rtol=1e-6)
    np.testing.assert_allclose(
        estimator.transform(groups.x[7:8]), estimator.transform(groups.x)[7:8], rtol=1e-5
    )

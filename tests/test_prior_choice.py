"""Every prior by its name, from the settings to draws, clusters and back from the disk."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from simulate import balding_nichols

from ancestry_ddvi import DDVI, load_model
from ancestry_ddvi.ddvi.guided import GuidedPosterior
from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.ddvi.priors import PRIORS, FixedMixturePrior, PinwheelPrior
from ancestry_ddvi.ddvi.priors.table import COUNTS
from ancestry_ddvi.ddvi.training import TrainingConfig, train
from ancestry_ddvi.errors import ModelFileError, OptionError
from ancestry_ddvi.fitting import EmbedConfig, fit_embedding

torch.set_num_threads(1)

GUIDED = {"mixture", "fixed-mixture", "gaussian", "swiss-roll"}
QUICK = TrainingConfig(map_steps=120, posterior_steps=8, posterior_batch=32)


def features() -> np.ndarray:
    """(60, 5): three groups."""
    rng = np.random.default_rng(0)
    centres = 4 * np.eye(5)[:3].repeat(20, axis=0)
    return centres - centres.mean(axis=0) + rng.normal(size=(60, 5))


def make(**settings: Any) -> AncestryModel:
    config = ModelConfig(**{"n_hidden": 24, "n_steps": 3, **settings})
    return AncestryModel(features().std(axis=0), config, seed=0)


@pytest.mark.parametrize("name", PRIORS)
def test_a_fit_raises_the_bound_and_gives_clusters(name: str) -> None:
    x, noise = features(), np.zeros(60)
    model = make(prior=name)
    before = model.elbo(x, noise, n_draws=4).mean()
    theta = {k: v.clone() for k, v in model.prior.named_parameters()}
    train(model, x, noise, 1.0, QUICK, seed=0)
    draws, elbo = model.draw(x, noise, n_draws=8, seed=0)
    assert elbo.mean() > before + 1
    assert np.isfinite(draws).all()
    probability = model.cluster_probability(x, noise, draws)
    assert probability.shape == (60, COUNTS[name])
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    assert isinstance(model.posterior, GuidedPosterior) == (name in GUIDED)
    assert (model.config.prior, model.config.n_clusters) == (name, COUNTS[name])
    learnt = {k for k, v in model.prior.named_parameters() if not torch.equal(v, theta[k])}
    assert bool(learnt) == (name in {"mixture", "vamp"})


def test_the_encoder_that_makes_a_prior_is_held_with_it() -> None:
    """In the posterior phase theta is frozen; the prior of `vamp` is made by the encoder."""
    x, noise = features(), np.zeros(60)
    z = torch.randn((20, 2), generator=torch.Generator().manual_seed(0))
    prior = []
    for posterior_steps in (0, 30):
        model = make(prior="vamp", n_clusters=5)
        settings = TrainingConfig(map_steps=40, posterior_steps=posterior_steps)
        train(model, x, noise, 1.0, settings, seed=0)
        prior.append(model.prior.log_prob(z))
        sigma = model.posterior.anchor.network[-1].weight
        assert sigma.requires_grad
    assert torch.equal(*prior)


def test_pieces_of_a_swiss_roll_are_its_clusters_and_not_its_points() -> None:
    model = make(prior="swiss-roll", n_clusters=3)
    z = model.prior.sample_class(torch.tensor([0, 1, 2]).repeat(40), torch.Generator())
    on_piece = model.membership(z.numpy()[None]).argmax(axis=1)
    assert (on_piece == np.tile([0, 1, 2], 40)).mean() > 0.95


def test_what_is_left_out_is_filled_in_and_written_down() -> None:
    config = make().config
    assert (config.prior, config.n_clusters, config.guided) == ("mixture", 30, True)
    config = make(prior="pinwheel").config
    assert (config.prior, config.n_clusters, config.guided) == ("pinwheel", 5, False)
    assert not make(prior="gaussian", n_clusters=3).config.guided  # sectors are no Gaussians
    assert make(guided=False).config.guided is False
    assert make(prior="fixed-mixture", classes=("a", "b", "c")).config.n_clusters == 3


@pytest.mark.parametrize("name", PRIORS)
def test_settings_know_before_there_is_a_model_how_many_clusters_a_prior_can_have(
    name: str,
) -> None:
    for n_latent, n_clusters, n_classes in product((1, 2, 3), (None, 1, 3, 4), (0, 2, 4)):
        settings = {"prior": name, "n_latent": n_latent, "n_clusters": n_clusters}
        try:
            config = ModelConfig(**settings, classes=tuple("abcd"[:n_classes]), n_hidden=4)
        except OptionError:
            continue
        if config.n_prior_clusters >= n_classes:
            model = AncestryModel(np.ones(3), config, 0)
            assert model.config.n_clusters == config.n_prior_clusters
        else:
            with pytest.raises(OptionError, match="too few for"):
                AncestryModel(np.ones(3), config, 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prior": "square", "n_clusters": 3}, "a square has 4 sides, not 3; .*--n-clusters"),
        ({"prior": "gaussian", "n_clusters": 3, "n_latent": 3}, "3 angular sectors need 2 latents"),
    ],
)
def test_a_number_of_clusters_that_a_prior_refuses_is_refused_with_the_settings(
    settings: dict, words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        ModelConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prior": "banana"}, "there is no prior 'banana'; choose one of gaussian, pinwheel"),
        ({"prior": "pinwheel", "n_latent": 3}, "'pinwheel' is over 2 latents, not 3; set n_lat"),
        ({"prior": "square", "n_clusters": 5}, "a square has 4 sides, not 5"),
        ({"prior": "square", "guided": True}, "SquarePrior is not made of Gaussians"),
        ({"n_clusters": 0}, "n_clusters must be at least 1, not 0"),
        ({"n_steps": 0}, "n_steps must be at least 1, not 0"),
        ({"guided": "yes"}, "guided must be true, false or left out, not yes"),
        ({"clustering": "k-means"}, "no clustering 'k-means'; choose one of mixture, dirichlet"),
        ({"classes": ("a",)}, "all labels are 'a'; a classifier needs at least 2 classes"),
        ({"classes": ("a", "a")}, "two classes have the same name"),
        ({"classes": ("a", 1)}, "names of classes are text"),
        ({"classes": tuple("abcdef"), "n_clusters": 5}, "5 clusters, too few for 6 classes"),
        ({"classes": tuple("abcde"), "prior": "square"}, "4 clusters, too few for 5 classes"),
    ],
)
def test_what_cannot_be_is_refused_before_training(settings: dict, words: str) -> None:
    with pytest.raises(OptionError, match=words) as caught:
        make(**settings)
    assert "\n" not in str(caught.value)


class Shifted:
    """A prior of somebody else's: log_prob, sample and no more."""

    n_latent = 2

    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        return -0.5 * ((z - 1) ** 2 + np.log(2 * np.pi)).sum(-1)

    def sample(self, n: int, generator: torch.Generator) -> torch.Tensor:
        return 1 + torch.randn((n, 2), generator=generator)


SHORT: dict[str, Any] = {"map_steps": 30, "posterior_steps": 3, "n_draws": 3}


@pytest.mark.parametrize("prior", [*PRIORS, PinwheelPrior(3), Shifted()], ids=str)
def test_the_estimator_takes_a_name_or_a_prior(prior: Any) -> None:
    estimator = DDVI(prior=prior, **SHORT).fit(features())
    assert np.isfinite(estimator.transform(features())).all()
    assert np.isfinite(estimator.score(features()))
    probability = estimator.predict_proba(features())
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    expected = {PinwheelPrior: 3, Shifted: 1}.get(type(prior)) or COUNTS[prior]
    assert probability.shape == (60, expected)


def test_the_estimator_trains_a_copy_of_a_prior() -> None:
    prior = FixedMixturePrior.spread(4, 2, torch.Generator().manual_seed(0))
    before = prior.component_class.clone()
    estimator = DDVI(prior=prior, supervised=True, **SHORT).fit(features(), [0, 1] * 30)
    assert torch.equal(prior.component_class, before)
    assert set(estimator.model_.prior.component_class.tolist()) == {0, 1}
    with pytest.raises(OptionError, match="PinwheelPrior is over 2 latents, not 3"):
        DDVI(3, prior=PinwheelPrior(3), **SHORT).fit(features())
    with pytest.raises(OptionError, match="Shifted has no classes"):
        DDVI(prior=Shifted(), supervised=True, **SHORT).fit(features(), [0, 1] * 30)


def fitted(model: ModelConfig, labels: bool = False) -> Any:
    import pandas as pd

    genotypes, population = balding_nichols(20, 400, 0.2, 3, seed=0)
    config = EmbedConfig(
        model=model,
        training=TrainingConfig(map_steps=20, posterior_steps=3, posterior_batch=32),
        n_draws=4,
        max_kinship=1,
    )
    column = pd.Series(population, name="pop") if labels else None
    return fit_embedding(genotypes, config, labels=column), genotypes


SAVED = {
    **{name: ModelConfig(prior=name, n_hidden=16) for name in PRIORS},
    "sectors": ModelConfig(prior="gaussian", n_clusters=3, n_hidden=16),
    "pieces": ModelConfig(prior="swiss-roll", n_clusters=4, n_hidden=16),
    "dirichlet": ModelConfig(clustering="dirichlet", n_clusters=3, n_hidden=16),
    "labels": ModelConfig(n_hidden=16),
    "labels on arms": ModelConfig(prior="pinwheel", n_hidden=16),
}


@pytest.mark.parametrize("name", SAVED)
def test_a_saved_model_of_any_prior_comes_back(name: str, tmp_path: Path) -> None:
    fit, genotypes = fitted(SAVED[name], labels="labels" in name)
    fit.model.save(tmp_path / "model")
    again = load_model(tmp_path / "model")
    assert again.model.config == fit.model.model.config
    table, expected = (m.embed(genotypes, n_draws=4) for m in (again, fit.model))
    assert table.frame.equals(expected.frame)
    if "labels" in name:
        assert table.classes is not None
        assert list(table.classes.columns) == ["P0", "P1", "P2"]
        np.testing.assert_array_equal(table.classes, expected.classes)
        np.testing.assert_array_equal(table.classes_on_map, expected.classes_on_map)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("pinwheel", {"n_clusters": 10**9}, "model.n_clusters is 1000000000, not 5 as in"),
        ("pinwheel", {"prior": "square"}, "n_clusters is 5|not a model of|4 sides"),
        ("pieces", {"n_clusters": 5}, "n_clusters is 5, not 4"),
        ("pinwheel", {"prior": "banana"}, "not a model of .*banana"),
        ("dirichlet", {"n_clusters": 10**9}, "model.n_clusters is 1000000000, not 3 as in"),
        ("dirichlet", {"clustering": "mixture"}, "not a model of"),
        ("labels", {"classes": ["P0", "P1"]}, "model.classes is .*not 3 names"),
        ("labels", {"classes": []}, "model.classes is .*not 3 names"),
        ("mixture", {"classes": ["P0", "P1"]}, "model.classes is .*not 0 names"),
        ("mixture", {"guided": False}, "not a model of"),
    ],
)
def test_a_prior_that_is_not_that_of_the_weights_is_refused(
    name: str, change: dict, words: str, tmp_path: Path
) -> None:
    import json

    from ancestry_ddvi.checkpoint import _own_sha256

    fit, _ = fitted(SAVED[name], labels="labels" in name)
    folder = tmp_path / "model"
    fit.model.save(folder)
    path = folder / "model.json"
    description = json.loads(path.read_text())
    description["model"].update(change)
    description["sha256"]["model.json"] = _own_sha256(description)
    path.write_text(json.dumps(description))
    with pytest.raises(ModelFileError, match=words):
        load_model(folder)

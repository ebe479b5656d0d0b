"""DDVI as a scikit-learn estimator."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import spoil_map_phase
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from ancestry_ddvi import DDVI
from ancestry_ddvi.baselines.exact import exact_posterior
from ancestry_ddvi.ddvi.model import AncestryModel
from ancestry_ddvi.ddvi.priors import SquarePrior
from ancestry_ddvi.errors import OptionError, TrainingDivergedError

QUICK: dict[str, Any] = {"n_clusters": 4, "n_draws": 20, "map_steps": 40, "posterior_steps": 10}


class Disc:
    """A user's prior as it should be: uniform in a disc."""

    n_latent = 2

    def log_prob(self, z: Any) -> Any:
        inside = z.norm(dim=-1) < 2
        return torch.where(inside, -np.log(4 * np.pi), -50.0 * z.norm(dim=-1))

    def sample(self, n: int, generator: torch.Generator) -> Any:
        radius, turn = torch.rand((2, n), generator=generator)
        angle = 2 * np.pi * turn
        return 2 * radius.sqrt().unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], dim=-1)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Three groups in five columns far from 0, one of them constant."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0, 0, 0], [9, 0, 0, 0, 0], [0, 9, 0, 0, 0]])
    return 100 + centres.repeat(20, axis=0) + rng.normal(size=(60, 5)) * [1, 1, 1, 1, 0]


@pytest.fixture(scope="module")
def fitted(x: np.ndarray) -> DDVI:
    return DDVI(**QUICK).fit(x)


def test_shapes(fitted: DDVI, x: np.ndarray) -> None:
    assert fitted.n_features_in_ == 5
    assert fitted.sample(x).shape == (20, 60, 2)
    assert fitted.sample(x, n_draws=3).shape == (3, 60, 2)
    assert fitted.transform(x[:7]).shape == (7, 2)
    assert fitted.transform(x).dtype == np.float64
    probability = fitted.predict_proba(x)
    assert probability.shape == (60, 4)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    assert (probability >= 0).all()
    assert list(fitted.get_feature_names_out()) == ["ddvi0", "ddvi1"]


def test_transform_is_the_mean_of_the_draws(fitted: DDVI, x: np.ndarray) -> None:
    np.testing.assert_allclose(fitted.transform(x), fitted.sample(x).mean(axis=0), atol=1e-5)


def test_score_is_higher_for_data_of_the_kind_it_learnt(fitted: DDVI, x: np.ndarray) -> None:
    assert np.isfinite(fitted.score(x))
    assert fitted.score(x) > fitted.score(x[:, ::-1])


def test_columns_are_centred(fitted: DDVI, x: np.ndarray) -> None:
    moved = DDVI(**QUICK).fit(x - 100)
    np.testing.assert_allclose(moved.transform(x - 100), fitted.transform(x), atol=1e-3)


def test_a_column_that_varies_by_rounding_only_is_constant(fitted: DDVI, x: np.ndarray) -> None:
    rounded = x.copy()
    rounded[:, 4] = 1e6
    rounded[::2, 4] = np.nextafter(1e6, 2e6)
    assert rounded[:, 4].std() > 0
    other = DDVI(**QUICK).fit(rounded)
    np.testing.assert_allclose(other.transform(rounded), fitted.transform(x), atol=1e-3)
    # A column that is small and does vary is not: its scale is its own.
    small = np.column_stack([x[:, :4], 1e-4 * x[:, 0]])
    assert DDVI(**QUICK).fit(small).model_.posterior.anchor.inputs.scale[4] < 1e-2


def test_the_same_seed_gives_the_same_numbers(fitted: DDVI, x: np.ndarray) -> None:
    np.testing.assert_array_equal(DDVI(**QUICK).fit_transform(x), fitted.transform(x))
    other = DDVI(**QUICK, random_state=1).fit_transform(x)
    assert np.abs(other - fitted.transform(x)).max() > 0.01


def test_random_state_may_be_a_generator_or_none(x: np.ndarray) -> None:
    short = {**QUICK, "map_steps": 20, "posterior_steps": 20}
    first, second = (
        DDVI(**short, random_state=np.random.RandomState(3)).fit_transform(x) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    free = DDVI(**short, random_state=None).fit(x)
    np.testing.assert_array_equal(free.transform(x), free.transform(x))


def test_parameters_clone_and_pickle(fitted: DDVI, x: np.ndarray) -> None:
    others = {"n_latent": 2, "random_state": 0, "prior": None, "clustering": "mixture"}
    assert fitted.get_params() == {**QUICK, **others, "supervised": False}
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "model_")
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(x), fitted.transform(x))


def test_in_a_pipeline(x: np.ndarray) -> None:
    pipeline = make_pipeline(StandardScaler(), DDVI(**QUICK))
    embedded = pipeline.fit_transform(x)
    assert embedded.shape == (60, 2)
    np.testing.assert_allclose(pipeline.transform(x), embedded)
    assert np.isfinite(pipeline.score(x))


def test_a_row_is_embedded_alike_in_any_company(fitted: DDVI, x: np.ndarray) -> None:
    """Draws of a row follow from the row; only the rounding of larger products may differ."""
    some = [40, 2, 17]
    for method in ("sample", "predict_proba"):
        of_all, of_some = (getattr(fitted, method)(rows) for rows in (x, x[some]))
        axis = of_all.ndim - 2
        np.testing.assert_allclose(of_some, of_all.take(some, axis), rtol=1e-6, atol=1e-6)
    assert len(np.unique(fitted.sample(x)[0, :20], axis=0)) == 20


ONE_CLUSTER = "sets n_clusters to 1 or 2 and has 3 classes, each of which needs a cluster"
NOT_SUPERVISED = dict.fromkeys(
    (
        "check_dont_overwrite_parameters",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_fit2d_predict1d",
    ),
    ONE_CLUSTER,
)


@parametrize_with_checks(
    [
        DDVI(n_clusters=3, n_draws=8, map_steps=6, posterior_steps=3),
        DDVI(n_draws=8, map_steps=3, posterior_steps=2, supervised=True),
    ],
    expected_failed_checks=lambda estimator: NOT_SUPERVISED if estimator.supervised else {},
)
def test_checks_of_scikit_learn(estimator: DDVI, check: Any) -> None:
    """All of them; where it learns from labels all but four, which leave too few clusters. A few
    steps of training are enough for what they ask."""
    check(estimator)


@pytest.mark.parametrize("prior", ["mixture", "square", Disc()], ids=str)
def test_log_marginal_is_the_sum_over_a_grid(prior: Any, x: np.ndarray) -> None:
    """Guided and unguided posteriors, a named prior and one of a user's own."""
    estimator = DDVI(map_steps=150, posterior_steps=40, prior=prior).fit(x)
    rows = x[::6]
    features = torch.as_tensor((rows - estimator.mean_) / estimator.scale_, dtype=torch.float32)
    model = copy.deepcopy(estimator.model_).float()
    grid = exact_posterior(model.prior, model.decoder, features, torch.zeros(len(rows)))
    expected = grid.log_evidence.numpy() - 5 * np.log(estimator.scale_)
    estimate = estimator.log_marginal(rows)
    # Standard deviations of a mean of 4,096 weights.
    np.testing.assert_allclose(estimate, expected, atol=0.06)
    assert np.abs(estimator.log_marginal(rows, 1) - expected).max() > 0.06  # control
    assert estimator.score(rows) < expected.mean() + 0.01
    # A row's estimate is its own, whatever company it is in.
    np.testing.assert_allclose(estimator.log_marginal(rows[3:4]), estimate[3:4], atol=1e-6)


def test_log_marginal_is_refused_where_a_draw_has_no_weight(x: np.ndarray) -> None:
    estimator = DDVI(**{**QUICK, "posterior_steps": 2}, clustering="dirichlet").fit(x)
    with pytest.raises(OptionError, match="with clustering dirichlet; take the lower bound"):
        estimator.log_marginal(x)


@pytest.mark.parametrize(
    "method", ["transform", "predict_proba", "sample", "score", "log_marginal"]
)
def test_not_fitted(method: str, x: np.ndarray) -> None:
    with pytest.raises(NotFittedError):
        getattr(DDVI(), method)(x)


def with_nan(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[3, 2] = np.nan
    return x


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (with_nan, "contains NaN"),
        (lambda x: x / 0.0, "infinity"),
        (lambda x: x[:1], "minimum of 2"),
        (lambda x: x[:, :1], "1 feature.*minimum of 2"),
        (lambda x: x[0], "Expected 2D array"),
        (lambda x: x.astype(str) + "a", "could not convert"),
    ],
)
def test_bad_input_is_refused_before_training(
    spoil: Any, words: str, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ancestry_ddvi.estimator.train", lambda *args: pytest.fail("it trained"))
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=words):
        DDVI(**QUICK).fit(spoil(x))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n_draws": 0}, "n_draws must be at least 1, not 0"),
        ({"n_draws": -3}, "n_draws must be at least 1, not -3"),
        ({"n_latent": 1.5}, "n_latent must be a whole number, not 1.5"),
        ({"n_clusters": 2.5}, "n_clusters must be a whole number, not 2.5"),
        ({"map_steps": 2.5}, "map_steps must be a whole number, not 2.5"),
        ({"posterior_steps": -1}, "posterior_steps must be at least 0, not -1"),
        ({"prior": 5}, "the prior, int, has no n_latent"),
        ({"prior": "ring"}, "ring"),
        ({"clustering": "k-means"}, "k-means"),
    ],
)
def test_a_parameter_of_no_use_is_refused_before_training(
    wrong: dict[str, Any], words: str, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ancestry_ddvi.estimator.train", lambda *args: pytest.fail("it trained"))
    with pytest.raises(OptionError, match=words):
        DDVI(**{**QUICK, **wrong}).fit(x)


WRONG_CALLS: dict[str, tuple[str, Any, str]] = {
    "scalar": ("log_prob", lambda z: -z.square().sum(), r"prior.log_prob\(z\) has shape \(\), wh"),
    "an axis too many": ("log_prob", lambda z: -z.square(), r"has shape \(4, 2\), where \(4,\) is"),
    "over the samples": (
        "log_prob",
        lambda z: -z.square().sum(0),
        r"has shape \(2,\), where \(4,\)",
    ),
    "a number": (
        "log_prob",
        lambda z: 0.0,
        r"prior.log_prob\(z\) gives a float; a tensor of \(4,\)",
    ),
    "blind to draws": (
        "log_prob",
        lambda z: -z[:, 0].square() - z[:, 1].square(),
        r"prior.log_prob\(z\), several draws a sample, has shape \(2, 2\), where \(2, 4\)",
    ),
    "fails with draws": (
        "log_prob",
        lambda z: -z.square() @ torch.ones(2) if z.ndim == 2 else torch.einsum("nd->n", z),
        r"prior.log_prob\(z\) fails at z of shape \(2, 4, 2\) .*; it must take \(\.\.\., D\)",
    ),
    "too few": (
        "sample",
        lambda n, generator: torch.randn((n - 1, 2), generator=generator),
        r"prior.sample\(n, generator\) has shape \(3, 2\), where \(4, 2\) is needed",
    ),
    "flat": (
        "sample",
        lambda n, generator: torch.randn(2 * n, generator=generator),
        r"prior.sample\(n, generator\) has shape \(8,\)",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_CALLS)
def test_a_prior_of_ones_own_that_gives_wrong_shapes_is_refused_before_training(
    wrong: str, x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, spoilt, words = WRONG_CALLS[wrong]
    prior = Disc()
    monkeypatch.setattr(prior, method, spoilt, raising=True)
    monkeypatch.setattr("ancestry_ddvi.estimator.train", lambda *args: pytest.fail("it trained"))
    with pytest.raises(OptionError, match=words):
        DDVI(map_steps=2, posterior_steps=1, prior=prior).fit(x)


def test_a_prior_of_ones_own_need_not_be_a_module(x: np.ndarray) -> None:
    estimator = DDVI(n_draws=5, map_steps=30, posterior_steps=5, prior=Disc()).fit(x)
    assert np.isfinite(estimator.transform(x)).all()
    assert np.isfinite(estimator.score(x))


def test_a_prior_of_ones_own_has_its_own_number_of_clusters(x: np.ndarray) -> None:
    with pytest.raises(OptionError, match="one that is given has a number of its own"):
        DDVI(**QUICK, prior=SquarePrior()).fit(x)


def test_a_diverged_fit_hands_over_its_last_good_model(
    x: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_map_phase(monkeypatch, "prior_kl", 9)
    with pytest.raises(TrainingDivergedError, match="step 9, epoch ") as error:
        DDVI(**QUICK).fit(x)
    assert isinstance(error.value.last_good, AncestryModel)


@pytest.mark.parametrize("n_draws", [0, -2, 1.5])
def test_a_number_of_draws_of_no_use_is_refused(n_draws: Any, fitted: DDVI, x: np.ndarray) -> None:
    for ask in (fitted.sample, fitted.log_marginal):
        with pytest.raises(OptionError, match="n_draws must be"):
            ask(x, n_draws)


def test_a_fit_that_fails_leaves_nothing_of_an_earlier_one(x: np.ndarray) -> None:
    label = np.repeat(["a", "b", "c"], 20)
    estimator = DDVI(**QUICK, supervised=True).fit(x, label)
    with pytest.raises(OptionError, match="no label"):
        estimator.fit(x[:, :4])
    with pytest.raises(NotFittedError):
        estimator.transform(x)
    assert not [name for name in vars(estimator) if name in ("classes_", "history_", "mean_")]


def test_the_unit_of_the_columns_does_not_matter(fitted: DDVI, x: np.ndarray) -> None:
    for unit in (1e-4, 1e4):
        other = DDVI(**QUICK).fit(unit * x)
        np.testing.assert_allclose(other.transform(unit * x), fitted.transform(x), atol=1e-3)
        # A density per unit of each of five columns.
        assert other.score(unit * x) == pytest.approx(fitted.score(x) - 5 * np.log(unit), abs=0.05)


def test_labels_may_be_missing_in_any_way_of_pandas(x: np.ndarray) -> None:
    label = pd.Series(np.repeat(["a", "b", "c"], 20), dtype="string")
    label[[0, 30]] = pd.NA
    estimator = DDVI(**QUICK, supervised=True).fit(x, label)
    assert list(estimator.classes_) == ["a", "b", "c"]
    assert estimator.predict_proba(x).shape == (60, 3)


def test_another_number_of_columns_is_refused(fitted: DDVI, x: np.ndarray) -> None:
    with pytest.raises(ValueError, match="4 features, but DDVI is expecting 5"):
        fitted.transform(x[:, :4])

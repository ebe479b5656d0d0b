"""Any p(z) and p(x | z): the engine learns them, repeats itself, and refuses what cannot work."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from linear_gaussian import PRIOR, SCALE, batch, build, evidence, linear_decoder, seeded
from torch import Tensor, nn
from torch.distributions import Bernoulli, Laplace

from ancestry_ddvi.baselines import GaussianPosterior
from ancestry_ddvi.ddvi import latent
from ancestry_ddvi.ddvi.engine import fit
from ancestry_ddvi.ddvi.latent import LatentModel
from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.posterior import DiffusionPosterior, GaussianAnchor
from ancestry_ddvi.ddvi.priors import GaussianPrior, SquarePrior
from ancestry_ddvi.ddvi.wake_sleep import Unregularised, WakeSleep
from ancestry_ddvi.errors import InputError, OptionError, TrainingDivergedError

torch.set_num_threads(1)


class Peak(nn.Module):
    """A user's prior: two independent Laplace variables of learnt width."""

    n_latent = 2

    def __init__(self) -> None:
        super().__init__()
        self.log_width = nn.Parameter(torch.zeros(()))

    def log_prob(self, z: Tensor) -> Tensor:
        return Laplace(0.0, self.log_width.exp()).log_prob(z).sum(-1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        u = torch.rand((n, 2), generator=generator) - 0.5
        return -self.log_width.exp() * u.sign() * torch.log1p(-2 * u.abs())


class Bits(nn.Module):
    """A user's likelihood: features that are 0 or 1."""

    def __init__(self, n_features: int = 6) -> None:
        super().__init__()
        self.logit = nn.Linear(2, n_features)

    def log_prob(self, x: Tensor, z: Tensor, noise: Tensor) -> Tensor:
        return Bernoulli(logits=self.logit(z)).log_prob(x).sum(-1)

    def sample(self, z: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
        return torch.bernoulli(torch.sigmoid(self.logit(z)), generator=generator)


def diffusion(inputs: FeatureInput, n_latent: int, n_hidden: int) -> DiffusionPosterior:
    return DiffusionPosterior(GaussianAnchor(inputs, n_latent, n_hidden), 4, n_hidden)


def users_model(n_features: int = 6) -> LatentModel:
    """Made of modules that this package does not know."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        posterior = diffusion(FeatureInput(torch.ones(n_features)), 2, 16)
        return LatentModel(Peak(), Bits(n_features), posterior)


def users_data(n: int) -> np.ndarray:
    """(n, 6) bits: the sectors of a circle that a point is in."""
    angle = np.random.default_rng(0).uniform(0, 2 * np.pi, n)
    side = np.pi / 3 * np.arange(6)
    return (np.cos(angle[:, None] - side) > 0.3).astype(float)


def linear_model() -> LatentModel:
    """A Gaussian posterior and a decoder to be learnt, neither where it should be."""
    decoder = linear_decoder()
    with torch.no_grad():
        decoder.mean.weight *= 0.3  # type: ignore[operator]
    return LatentModel(PRIOR, decoder, build(GaussianPosterior))


def linear_data(n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    _, x, noise = batch(n, seeded(1))
    return x.numpy(), noise.numpy()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


# --- it learns ----------------------------------------------------------------------------------


def test_the_models_of_a_user_are_learnt() -> None:
    """Bits of a circle: 12 patterns, log 12 nats at least; independent bits take over 4."""
    x, model = users_data(2000), users_model()
    before, start = model.log_marginal(x[:200], n_draws=200).mean(), state(model)
    fractions: list[float] = []
    history = fit(
        model, x, objective=WakeSleep(), n_steps=400, learning_rate=3e-2, progress=fractions.append
    )
    after = model.log_marginal(x[:200], n_draws=200).mean()
    frequency = x.mean(0)
    independent = (frequency * np.log(frequency) + (1 - frequency) * np.log1p(-frequency)).sum()
    assert before < independent
    assert independent + 0.8 < after < -math.log(12) + 0.1
    assert model.elbo(x[:200], n_draws=50).mean() < after
    assert not any(torch.equal(p, start[name]) for name, p in model.named_parameters())
    assert history.steps[-1] == 400
    assert fractions[-1] == 1
    # On opposite sides of the circle, on opposite sides of the map.
    mean = model.sample_posterior(x, n_draws=20).mean(0)
    direction = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    opposite = ((x @ x.T == 0) & (x.sum(1) == 3)).nonzero()
    assert len(opposite[0]) > 1000
    assert (direction[opposite[0]] * direction[opposite[1]]).sum(1).mean() < -0.5


def test_theta_is_learnt_to_where_the_data_are() -> None:
    (x, noise), model = linear_data(3000), linear_model()
    fit(model, x, noise, objective=Unregularised(), n_steps=500, batch=256, learning_rate=1e-2)
    x_new, noise_new = batch(500, seeded(9))[1:]
    exact = evidence(x_new, noise_new).mean()
    measured = model.elbo(x_new.numpy(), noise_new.numpy(), n_draws=32).mean()
    untrained = linear_model().elbo(x_new.numpy(), noise_new.numpy(), n_draws=32).mean()
    assert untrained < exact - 1
    assert exact - 0.15 < measured < exact + 0.05
    z, drawn = model.sample(20_000, seed=3)
    assert z.shape == (20_000, 2)
    np.testing.assert_allclose(drawn.std(0), SCALE.numpy(), rtol=0.1)


# --- it repeats itself --------------------------------------------------------------------------


def test_the_seed_decides_every_bit_and_nothing_else_does() -> None:
    (x, noise), trained, histories = linear_data(), [], []
    for seed in (1, 1, 2):
        model = linear_model()
        torch.randn(len(trained) + 1)
        before = torch.random.get_rng_state()
        histories.append(fit(model, x, noise, n_steps=12, seed=seed))
        assert torch.equal(before, torch.random.get_rng_state())
        trained.append(state(model))
    assert same(trained[0], trained[1])
    assert histories[0] == histories[1]
    assert not same(trained[0], trained[2])
    first, again, other = (linear_model().elbo(x[:9], seed=seed) for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_model_survives_saving_and_pickling() -> None:
    x, _ = linear_data(8)
    model = linear_model()
    fit(model, x, n_steps=5, learning_rate=0.05)
    draws = model.sample_posterior(x, n_draws=3, seed=4)
    assert draws.shape == (3, 8, 2)
    assert draws.dtype == np.float32
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    again = linear_model()
    assert (again.sample_posterior(x, n_draws=3, seed=4) != draws).any()
    again.load_state_dict(torch.load(file, weights_only=True))
    for copy in (again, pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(copy.sample_posterior(x, n_draws=3, seed=4), draws)


def test_batches_cut_the_work_and_not_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other pieces are other draws of the same thing."""
    (x, noise), model = linear_data(7), linear_model()
    whole = model.iw_bound(x, noise, k=50, n_repeats=200)
    monkeypatch.setattr(latent, "BATCH", 640)
    cut = model.iw_bound(x, noise, k=50, n_repeats=200)
    np.testing.assert_allclose(whole, cut, atol=0.15)
    assert model.sample_posterior(x, noise, n_draws=40).shape == (40, 7, 2)


def test_noise_that_is_left_out_is_zero() -> None:
    (x, _), model = linear_data(20), linear_model()
    np.testing.assert_array_equal(model.elbo(x), model.elbo(x, np.zeros(20)))
    assert (model.elbo(x) != model.elbo(x, np.ones(20))).all()


# --- length -------------------------------------------------------------------------------------


class Spy:
    """An objective that remembers which rows it saw."""

    def __init__(self, model: LatentModel) -> None:
        self.seen: list[list[int]] = []
        self.weight = next(iter(model.parameters()))
        self.training: set[bool] = set()

    def losses(
        self, model: Any, x: Tensor, noise: Tensor, step: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        self.seen.append(x[:, 0].int().tolist())
        self.training.add(model.training)
        return {"loss": self.weight.square().sum() + torch.zeros(len(x))}


def test_every_sample_comes_once_in_each_pass() -> None:
    model = linear_model().eval()
    spy = Spy(model)
    x = np.zeros((10, 5))
    x[:, 0] = np.arange(10)
    fit(model, x, objective=spy, epochs=4, batch=4)
    rows = [row for rows in spy.seen for row in rows]
    assert len(spy.seen) == 10
    assert {len(rows) for rows in spy.seen} == {4}
    passes = [rows[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert len({tuple(one) for one in passes}) == 4
    # Dropout and the like are on while it learns, and only then.
    assert spy.training == {True}
    assert not model.training


def test_each_module_is_left_in_the_mode_it_was_in() -> None:
    model = linear_model()
    model.train()
    assert isinstance(model.posterior, nn.Module)
    model.posterior.eval()
    fit(model, linear_data()[0], n_steps=1)
    assert model.training
    assert not model.posterior.training


@pytest.mark.parametrize(
    ("length", "steps"),
    [({"n_steps": 7}, 7), ({"epochs": 3}, 6), ({"epochs": 0.1}, 1), ({}, 100)],
)
def test_length_in_steps_or_in_epochs(length: dict[str, float], steps: int) -> None:
    model = linear_model()
    spy = Spy(model)
    fit(model, linear_data(100)[0], objective=spy, batch=50, **length)  # type: ignore[arg-type]
    assert len(spy.seen) == steps


# --- what it refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps must be at least 1, not 0"),
        ({"epochs": 0}, "epochs must be a finite number above 0, not 0"),
        ({"epochs": math.nan}, "epochs must be a finite number above 0, not nan"),
        ({"n_steps": 3, "epochs": 2}, "n_steps=3 and epochs=2 say the length twice; give one"),
        ({"batch": 0}, "batch must be at least 1, not 0"),
        ({"learning_rate": -1.0}, "learning_rate must be a finite number above 0, not -1"),
        ({"learning_rate": math.inf}, "learning_rate must be a finite number above 0, not inf"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    model = linear_model()
    start = state(model)
    with pytest.raises(OptionError, match=message):
        fit(model, linear_data()[0], **options)
    assert same(start, state(model))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_are_named_by_row(value: float) -> None:
    (x, noise), model = linear_data(9), linear_model()
    x[4, 2] = x[6, 0] = value
    for ask in (lambda: fit(model, x, noise, n_steps=2), lambda: model.elbo(x, noise)):
        with pytest.raises(InputError, match=r"features of row 4 .* \(2 such rows\)"):
            ask()


@pytest.mark.parametrize(
    ("x", "noise", "message"),
    [
        (np.zeros(5), None, r"features have shape \(5,\); they need two axes"),
        (np.zeros((3, 5)), np.zeros(2), r"noise has shape \(2,\); .* each of 3 samples"),
        (np.zeros((3, 5)), np.array([0, -1, 0]), "noise of row 1 cannot be used"),
        (np.zeros((3, 5)), np.array([0, 0, math.nan]), "noise of row 2 cannot be used"),
        (np.zeros((0, 5)), None, "no sample to learn from"),
        (np.zeros((3, 4)), None, r"likelihood.sample.* shape \(2, 5\), where \(2, 4\) is needed"),
    ],
)
def test_arrays_that_do_not_fit(x: np.ndarray, noise: np.ndarray | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(linear_model(), x, noise, n_steps=2)


def test_features_of_another_width_than_the_models() -> None:
    model = linear_model()
    for ask in (model.elbo, model.sample_posterior):
        with pytest.raises(InputError, match="the model cannot take 8 features"):
            ask(np.zeros((3, 8)))
    for wrong in (np.array([["a"] * 5]), np.array([[None] * 5])):
        with pytest.raises(InputError, match=r"features are no numbers|features of row 0"):
            model.elbo(wrong)


@pytest.mark.parametrize("objective", [Unregularised, "wake-sleep", 3])
def test_what_is_no_objective(objective: Any) -> None:
    with pytest.raises(OptionError, match=r"is no objective; give an object with a method losses"):
        fit(linear_model(), linear_data()[0], objective=objective, n_steps=1)


def test_counts_of_draws_are_at_least_one() -> None:
    (x, _), model = linear_data(3), linear_model()
    asks: list[tuple[str, Callable[[], Any]]] = [
        ("n_draws", lambda: model.elbo(x, n_draws=0)),
        ("n_draws", lambda: model.log_marginal(x, n_draws=0)),
        ("n_draws", lambda: model.sample_posterior(x, n_draws=0)),
        ("k", lambda: model.iw_bound(x, k=0)),
        ("n_repeats", lambda: model.iw_bound(x, n_repeats=-2)),
        ("n", lambda: model.sample(0)),
    ]
    for name, ask in asks:
        with pytest.raises(OptionError, match=f"{name} must be at least 1"):
            ask()


def test_prior_and_posterior_of_different_dimension() -> None:
    posterior = build(GaussianPosterior)
    with pytest.raises(OptionError, match="GaussianPrior is over 3 latents, not 2; set n_latent"):
        LatentModel(GaussianPrior(3), linear_decoder(), posterior)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (0, r"the prior, Linear, has no n_latent, log_prob\(z\), sample\(n, generator\); add"),
        (1, r"the likelihood, Linear, has no log_prob\(x, z, noise\), sample\(z, noise, gen"),
        (2, r"the posterior, Linear, has no n_latent, chain\(.*sleep_loss\("),
    ],
)
def test_parts_without_the_methods_they_need(part: int, message: str) -> None:
    parts: list[Any] = [SquarePrior(), linear_decoder(), build(GaussianPosterior)]
    parts[part] = nn.Linear(2, 2)
    with pytest.raises(OptionError, match=message):
        LatentModel(*parts)


def test_likelihoods_and_posteriors_of_the_wrong_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    x, model = users_data(30), users_model()
    monkeypatch.setattr(Bits, "log_prob", lambda self, x, z, noise: x - self.logit(z))
    with pytest.raises(
        OptionError, match=r"likelihood.log_prob.* \(2, 6\), where \(2,\) is needed"
    ):
        fit(model, x, n_steps=2)
    monkeypatch.undo()
    narrow = users_model(4).posterior
    with pytest.raises(OptionError, match=r"DiffusionPosterior, cannot take 6 features"):
        fit(LatentModel(Peak(), Bits(6), narrow), x, n_steps=2)
    monkeypatch.setattr(Peak, "sample", lambda self, n, generator: torch.zeros(n, 3))
    with pytest.raises(OptionError, match=r"prior.sample.* \(4, 3\), where \(4, 2\) is needed"):
        fit(model, x, n_steps=2)


def test_a_chain_that_takes_no_number_of_draws_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, model = linear_data(30)[0], linear_model()
    whole = type(model.posterior).chain

    def single(self: Any, x: Tensor, noise: Tensor, source: Any, n_draws: int | None = None) -> Any:
        return whole(self, x, noise, source)

    monkeypatch.setattr(type(model.posterior), "chain", single)
    with pytest.raises(OptionError, match=r"posterior.chain.* where \(3, 2, 2\) is needed"):
        fit(model, x, n_steps=2)


def test_a_diverged_run_names_the_epoch_and_leaves_the_last_good_weights() -> None:
    (x, noise), model = linear_data(100), linear_model()
    seen: list[dict[str, Tensor]] = []

    class Breaks(Unregularised):
        def losses(self, model: Any, *arguments: Any) -> dict[str, Tensor]:
            seen.append(state(model))
            losses = super().losses(model, *arguments)
            factor = math.nan if len(seen) == 58 else 1.0
            return losses | {"prior_kl": factor * losses["prior_kl"]}

    with pytest.raises(
        TrainingDivergedError,
        match=r"step 58, epoch 6, .*\(term: prior_kl\); try a lower learning rate .* step 50$",
    ):
        fit(model, x, noise, objective=Breaks(), n_steps=100, batch=10)
    assert same(state(model), seen[49])
    assert not same(state(model), seen[57])
    assert np.isfinite(model.elbo(x, noise)).all()

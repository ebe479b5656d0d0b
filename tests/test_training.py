"""Training: it learns, it repeats itself, and it stops where a loss is not a number."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from ancestry_ddvi.ddvi import training
from ancestry_ddvi.ddvi.loop import LOG_EVERY
from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.ddvi.training import (
    History,
    TrainingConfig,
    missing_noise,
    train,
)
from ancestry_ddvi.errors import InputError, TrainingDivergedError

torch.set_num_threads(1)

UNIT = 0.02
MODEL = ModelConfig(n_latent=2, n_clusters=8, n_steps=5, n_hidden=32)
UNGUIDED = replace(MODEL, guided=False)


def config(map_steps: int, posterior_steps: int, **settings: Any) -> TrainingConfig:
    """A short training."""
    small: dict[str, Any] = {"map_pairs": 64, "posterior_batch": 128, "wake_batch": 64}
    return TrainingConfig(
        map_steps=map_steps, posterior_steps=posterior_steps, **{**small, **settings}
    )


@dataclass
class Clusters:
    """Six clusters in features 3 to 6; the first two features, the start of the map, are noise."""

    x: np.ndarray
    noise: np.ndarray
    label: np.ndarray

    @classmethod
    def make(cls) -> Clusters:
        """300 samples, 8 features."""
        random = np.random.default_rng(0)
        label = np.repeat(np.arange(6), 50)
        centre = np.zeros((6, 8))
        centre[:, 2:6] = random.normal(size=(6, 4))
        within = np.array([1.2, 1.2] + [0.2] * 6)
        x = centre[label] + within * random.normal(size=(300, 8))
        return cls(x, np.zeros(300), label)

    def model(self, config: ModelConfig = MODEL) -> AncestryModel:
        """Untrained."""
        return AncestryModel(self.x.std(0), config, seed=0)

    def accuracy(self, model: AncestryModel) -> float:
        """kNN accuracy of the embedding, posterior means, in 5 folds."""
        z = model.sample_posterior(self.x, self.noise, n_draws=30, seed=0).mean(0)
        folds = StratifiedKFold(5, shuffle=True, random_state=0)
        classifier = KNeighborsClassifier(10)
        return float(cross_val_score(classifier, z, self.label, cv=folds).mean())


@dataclass
class Run:
    """A finished training."""

    data: Clusters
    model: AncestryModel
    history: History
    fractions: list[float]


@pytest.fixture(scope="module")
def run() -> Run:
    """All phases: 600 steps of the map, 150 of the decoder, 40 of the posterior."""
    data = Clusters.make()
    model, fractions = data.model(), [0.0]
    history = train(
        model, data.x, data.noise, UNIT, config(600, 40), seed=0, progress=fractions.append
    )
    return Run(data, model, history, fractions)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every weight."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Bitwise equality."""
    return all(torch.equal(first[name], second[name]) for name in first)


def own_networks(model: AncestryModel) -> dict[str, Tensor]:
    """The weights of its posterior but for the encoder."""
    own = ("posterior.denoiser", "posterior.start")
    return {name: value for name, value in model.state_dict().items() if name.startswith(own)}


# --- it learns ----------------------------------------------------------------------------------


def test_embedding_separates_clusters_that_the_untrained_one_does_not(run: Run) -> None:
    assert run.data.accuracy(run.data.model()) < 0.35  # chance is 1/6
    assert run.data.accuracy(run.model) > 0.65


def test_losses_fall(run: Run) -> None:
    terms = {name: np.array(column, float) for name, column in run.history.terms.items()}
    steps = np.array(run.history.steps)
    loss = sum(terms[name] for name in ("reconstruction", "prior_kl", "neighbour", "distance"))
    of_map = loss[steps <= 600]
    assert np.isfinite(of_map).all()
    assert of_map[-3:].mean() < of_map[0] - 10
    for name in ("reconstruction", "prior_kl", "neighbour"):
        of_map = terms[name][steps <= 600]
        assert of_map[-3:].mean() < of_map[0]


def test_elbo_rises_and_stays_below_what_the_data_allow(run: Run) -> None:
    before = run.data.model().elbo(run.data.x, run.data.noise).mean()
    after = run.model.elbo(run.data.x, run.data.noise).mean()
    assert after > before + 5
    # No model of these samples beats the mixture that made them by much: 8 normals and a label.
    within = np.array([1.2, 1.2] + [0.2] * 6)
    entropy = 0.5 * 8 * math.log(2 * math.pi * math.e) + np.log(within).sum() + math.log(6)
    assert after < -entropy + 0.5


def bound_after(settings: ModelConfig, posterior_steps: int) -> float:
    """Mean bound of the very samples, from the same map each time; the decoder is learnt at the
    encoder's full width, which a chain without a guide starts from."""
    data = Clusters.make()
    model = data.model(settings)
    short = config(150, posterior_steps, wake_every=2)
    train(model, data.x, data.noise, UNIT, short, seed=0)
    return float(model.elbo(data.x, data.noise, n_draws=32).mean())


def test_posterior_phase_brings_the_bound_closer() -> None:
    """A trained chain is worth more than an untrained one; with a guide there is little to gain,
    since that starts ahead of what a trained chain without one has reached."""
    untrained, trained = (bound_after(UNGUIDED, steps) for steps in (0, 300))
    assert trained > untrained + 0.1
    guided = bound_after(MODEL, 0)
    assert guided > trained + 0.1
    assert bound_after(MODEL, 50) > guided - 0.02


def test_decoder_phase_raises_the_bound_and_leaves_the_encoder_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bound of the encoder's Gaussian, at its full width, on complete samples."""
    data = Clusters.make()
    settings = config(200, 0, noisy_share=0.0)
    run_phases = training.run_phases
    bound, encoder = [], []
    for with_phase in (False, True):
        model = data.model()
        with monkeypatch.context() as patch:
            if not with_phase:
                patch.setattr(
                    training, "run_phases", lambda m, p, *rest: run_phases(m, p[:1], *rest)
                )
            train(model, data.x, data.noise, UNIT, settings, seed=0)
        encoder.append(weights(model.posterior.anchor))
        # A chain of no guide and no training is the encoder's Gaussian, but for its T steps.
        chain = data.model(UNGUIDED)
        chain.load_state_dict(model.state_dict() | own_networks(chain))
        bound.append(float(chain.elbo(data.x, data.noise, n_draws=32).mean()))
    assert same(encoder[0], encoder[1])
    assert bound[1] > bound[0] + 0.3


def test_noisier_samples_have_wider_posteriors(run: Run) -> None:
    widths = []
    for level in (0.0, 0.5, 1.5, 5.0):
        noise = np.full(len(run.data.x), level)
        draws = run.model.sample_posterior(run.data.x, noise, n_draws=60, seed=1)
        widths.append(float(draws.std(0).mean()))
    assert all(wide > 1.03 * narrow for narrow, wide in itertools.pairwise(widths))
    assert widths[-1] > 1.5 * widths[0]


def test_posterior_of_an_empty_sample_nears_the_prior() -> None:
    """Nothing seen, nothing known: what calibration means at the far end."""
    data, unit = Clusters.make(), 1.0
    model = data.model()
    train(model, data.x, data.noise, unit, config(150, 20), seed=0)
    noise = missing_noise(torch.tensor([0.004]), unit).numpy()
    draws = model.sample_posterior(np.zeros((1, 8)), noise, n_draws=4000, seed=2)[:, 0]
    prior = model.prior.sample(4000, torch.Generator().manual_seed(3)).detach().numpy()
    assert (np.abs(draws.mean(0) - prior.mean(0)) < 0.4 * prior.std(0)).all()
    np.testing.assert_allclose(draws.std(0), prior.std(0), rtol=0.3)


# --- it repeats itself --------------------------------------------------------------------------


def test_the_seed_decides_every_bit_and_nothing_else_does() -> None:
    data = Clusters.make()
    trained, histories = [], []
    for seed in (1, 1, 2):
        model = data.model()
        # Whatever a caller drew before, or draws with numpy, must not matter.
        torch.randn(len(trained) + 1)
        np.random.default_rng().normal()
        histories.append(train(model, data.x, data.noise, UNIT, config(40, 20), seed=seed))
        trained.append(weights(model))
    assert same(trained[0], trained[1])
    np.testing.assert_equal(histories[0].terms, histories[1].terms)
    assert not same(trained[0], trained[2])


def test_the_global_stream_is_left_alone() -> None:
    data = Clusters.make()
    model = data.model()
    torch.manual_seed(21)
    torch_state = torch.random.get_rng_state()
    numpy_state = np.random.get_state()[1].copy()
    train(model, data.x, data.noise, UNIT, config(12, 12), seed=0)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    assert (np.random.get_state()[1] == numpy_state).all()


def test_input_arrays_are_not_changed() -> None:
    data, fresh = Clusters.make(), Clusters.make()
    train(data.model(), data.x, data.noise, UNIT, config(12, 12), seed=0)
    np.testing.assert_array_equal(data.x, fresh.x)
    np.testing.assert_array_equal(data.noise, fresh.noise)


# --- phases -------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [MODEL, UNGUIDED], ids=["guided", "unguided"])
def test_each_phase_moves_its_own_weights(settings: ModelConfig) -> None:
    data = Clusters.make()
    start = weights(data.model(settings))

    def moved(map_steps: int, posterior_steps: int) -> set[str]:
        model = data.model(settings)
        training = config(map_steps, posterior_steps, wake_every=2)
        train(model, data.x, data.noise, UNIT, training, seed=0)
        assert all(p.requires_grad for p in model.parameters())
        after = weights(model)
        names = {name for name in start if not torch.equal(start[name], after[name])}
        return {".".join(name.split(".")[: 1 + name.startswith("posterior")]) for name in names}

    # The generative model is frozen while the posterior is trained, in wake steps too; with a
    # guide, the encoder is no part of the posterior but of what it sees.
    of_posterior = {"posterior.denoiser", "posterior.start"}
    assert moved(12, 0) == {"prior", "decoder", "posterior.anchor"}
    unguided = settings.guided is False
    assert moved(0, 12) == of_posterior | ({"posterior.anchor"} if unguided else set())
    assert moved(0, 0) == set()


def test_history_and_progress(run: Run) -> None:
    history = run.history
    assert history.steps == sorted(set(history.steps))
    assert history.steps[-1] == 790
    assert {600, 750} <= set(history.steps)
    steps = np.array(history.steps)
    phases = {
        **dict.fromkeys(("reconstruction", "prior_kl"), steps <= 750),
        **dict.fromkeys(("neighbour", "distance"), steps <= 600),
        **dict.fromkeys(("denoising", "terminal"), steps > 750),
    }
    assert set(history.terms) == set(phases)
    for name, column in history.terms.items():
        np.testing.assert_array_equal([value is not None for value in column], phases[name])
    assert all(len(column) == len(history.steps) for column in history.terms.values())
    assert run.fractions == sorted(run.fractions)
    assert run.fractions[-1] == 1


def test_wake_steps_come_as_often_as_asked() -> None:
    data = Clusters.make()
    seen: list[set[str]] = []
    original = training._posterior_terms

    def spy(*arguments: Any, guided: bool) -> dict[str, Tensor]:
        terms = original(*arguments, guided=guided)
        seen.append(set(terms))
        return terms

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_posterior_terms", spy)
        for wake_every in (3, 1, 0):
            settings = config(0, 12, wake_every=wake_every)
            train(data.model(UNGUIDED), data.x, data.noise, UNIT, settings, seed=0)
        wake, sleep = {"reconstruction", "prior_kl"}, {"denoising", "terminal", "anchor"}
        assert seen == [sleep, sleep, wake] * 4 + [wake] * 12 + [sleep] * 12
        seen.clear()
        # A guided posterior has no wake steps, and its anchor is not learnt here.
        train(data.model(), data.x, data.noise, UNIT, config(0, 4, wake_every=1), seed=0)
        assert seen == [{"denoising", "terminal"}] * 4


def test_posterior_steps_are_those_of_the_posterior_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Clusters.make()
    monkeypatch.setattr(training, "GUIDED_STEPS", 3)
    monkeypatch.setattr(training, "UNGUIDED_STEPS", 5)
    last = []
    for settings in (MODEL, UNGUIDED):
        training_config = replace(config(0, 0), posterior_steps=None)
        history = train(data.model(settings), data.x, data.noise, UNIT, training_config, seed=0)
        last.append(history.steps[-1])
    assert last == [3, 5]


@pytest.mark.parametrize("length", [1, 2, 5, 9, 10, 11])
def test_a_phase_can_be_very_short(length: int) -> None:
    """Smoke runs and quick looks ask for that."""
    data = Clusters.make()
    history = train(data.model(), data.x, data.noise, UNIT, config(length, length), seed=0)
    of_phases = [length, length // 4, length]
    ends = np.cumsum(of_phases)[np.array(of_phases) > 0]
    assert history.steps == ends.tolist()


def test_map_bound_is_that_of_the_model_with_the_untrained_chain() -> None:
    """The map phase has formulas of its own (closed-form entropy); they must be the same bound."""
    data = Clusters.make()
    model = data.model(UNGUIDED)
    x, noise = torch.as_tensor(data.x).float(), torch.full((300,), 0.4)
    # Partners from anywhere, so that the batch is a plain sample of the data.
    neighbours = training.Neighbours(data.x, close=5, wide_share=1.0, wide_probability=1.0)
    generator = torch.Generator().manual_seed(0)
    settings = config(0, 0, map_pairs=2000, noisy_share=0.0)
    with torch.no_grad():
        batches = training._Data(x, noise, x, UNIT, neighbours, generator)
        terms = training._map_terms(model, batches, settings, step=1)
    expected = model.elbo(data.x, noise.numpy(), n_draws=32).mean()
    bound = -float(terms["reconstruction"] + terms["prior_kl"])
    assert bound == pytest.approx(expected, abs=0.6)


def test_geometry_terms_see_complete_features_of_the_same_samples() -> None:
    """Row for row: what lies on the map is the anchor of the features beside it, which are the
    denoised ones of the same samples."""
    data = Clusters.make()
    denoised = 2 * data.x + 1
    model = data.model()
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(mean: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
        seen.append((mean, x))
        return mean.sum() * 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "distance_loss", spy)
        settings = config(12, 0, noisy_share=0.5, map_learning_rate=1e-12)
        train(model, data.x, data.noise, UNIT, settings, seed=0, denoised=denoised)
    mean, x = seen[-1]
    assert 0 < len(x) < 2 * settings.map_pairs
    x = (x - 1) / 2
    with torch.no_grad():
        expected = model.posterior.anchor(x, torch.zeros(len(x)))[0]
    torch.testing.assert_close(mean.detach(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [1.0, 0.25])
def test_the_decoder_phase_draws_from_the_narrowed_encoder(width: float) -> None:
    data = Clusters.make()
    model = data.model()
    drawn: list[Tensor] = []
    log_likelihood = model.log_likelihood

    def spy(x: Tensor, z: Tensor, noise: Tensor, source: Any) -> Tensor:
        mean, factor = model.posterior.anchor(x, noise)
        drawn.append(torch.linalg.solve(factor, (z - mean).unsqueeze(-1)).squeeze(-1))
        return log_likelihood(x, z, noise, source)

    neighbours = training.Neighbours(data.x, close=5, wide_share=1.0, wide_probability=1.0)
    generator = torch.Generator().manual_seed(0)
    x = torch.as_tensor(data.x).float()
    batches = training._Data(x, torch.zeros(len(x)), x, UNIT, neighbours, generator)
    settings = config(0, 0, map_pairs=2000, decoder_width=width)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(model, "log_likelihood", spy)
        training._decoder_terms(model, batches, settings)
    assert float(drawn[0].std()) == pytest.approx(width, rel=0.03)


def test_missing_noise_by_hand() -> None:
    kept = torch.tensor([1.0, 0.5, 0.2])
    torch.testing.assert_close(missing_noise(kept, 0.09), torch.tensor([0.0, 0.3, 0.6]))


def test_noise_levels_of_training_cover_the_range() -> None:
    generator = torch.Generator().manual_seed(4)
    noise = training.draw_noise(20_000, 0.09, 0.15, 0.01, generator)
    assert float((noise == 0).float().mean()) == pytest.approx(0.15, abs=0.02)
    kept = 0.09 / (0.09 + noise[noise > 0] ** 2)
    # Log-uniform: a half of the levels keep less than the geometric middle of [.01, 1].
    assert float((kept < 0.1).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(kept.min()) == pytest.approx(0.01, rel=0.05)


def test_settings_are_json() -> None:
    settings = config(3, 4)
    assert TrainingConfig(**json.loads(json.dumps(asdict(settings)))) == settings
    assert set(asdict(settings)) == {f.name for f in fields(TrainingConfig)}


# --- it stops -----------------------------------------------------------------------------------


def test_divergence_names_phase_step_and_term_and_keeps_the_last_good_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Clusters.make()
    calls, original = [], training.neighbour_loss
    model = data.model()
    at = 2 * LOG_EVERY + 7

    def bad_at(*arguments: Any) -> Tensor:
        calls.append(weights(model))
        value = original(*arguments)
        return value * math.nan if len(calls) == at else value

    monkeypatch.setattr(training, "neighbour_loss", bad_at)
    with pytest.raises(
        TrainingDivergedError,
        match=rf"step {at}, epoch \d+, of the map phase \(term: neighbour\); try .* before step "
        rf"{at - 7}$",
    ):
        train(model, data.x, data.noise, UNIT, config(200, 20), seed=0)
    assert same(calls[at - 8], weights(model))
    assert not same(calls[-1], weights(model))


@pytest.mark.parametrize(
    ("bad", "term"),
    [
        ("decoder.log_sigma", "reconstruction"),
        ("prior.logits", "prior_kl"),
        ("posterior.start.4.bias", "terminal"),
        ("posterior.denoiser.4.bias", "denoising"),
    ],
)
def test_divergence_names_the_term_at_fault(bad: str, term: str) -> None:
    data = Clusters.make()
    model = data.model()
    with torch.no_grad():
        model.get_parameter(bad).fill_(math.nan)
    in_posterior = bad.startswith("posterior")
    settings = config(0, 20) if in_posterior else config(20, 0)
    phase = "posterior" if in_posterior else "map"
    with pytest.raises(
        TrainingDivergedError, match=rf"step 1(, epoch 1,)? of the {phase} phase \(term: {term}\)"
    ):
        train(model, data.x, data.noise, UNIT, settings, seed=0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_features_are_an_input_error(value: float) -> None:
    """Of the package's own kind, which the command line turns into one line and exit code 2."""
    data = Clusters.make()
    data.x[7, 3] = value
    with pytest.raises(InputError):
        train(Clusters.make().model(), data.x, data.noise, UNIT, config(20, 20), seed=0)


def test_weights_can_be_trained_on_after_a_divergence() -> None:
    data = Clusters.make()
    model = data.model()
    with torch.no_grad():
        model.posterior.start[-1].bias.fill_(math.nan)
    with pytest.raises(TrainingDivergedError):
        train(model, data.x, data.noise, UNIT, config(0, 20), seed=0)
    assert all(p.requires_grad for p in model.parameters())


def test_a_non_finite_gradient_stops_training_before_it_reaches_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A finite loss can have an infinite slope: sqrt at 0. Even in the last step of all."""
    data = Clusters.make()
    model = data.model()

    calls = []

    def steep_at_last(mean: Tensor, partner: Tensor, tau: float) -> Tensor:
        calls.append(0)
        return (mean - mean).square().sum().sqrt() if len(calls) == 12 else mean.sum() * 0

    monkeypatch.setattr(training, "neighbour_loss", steep_at_last)
    with pytest.raises(TrainingDivergedError, match=r"step 12, epoch \d+, of the map phase"):
        train(model, data.x, data.noise, UNIT, config(12, 0), seed=0)
    assert all(torch.isfinite(weight).all() for weight in weights(model).values())

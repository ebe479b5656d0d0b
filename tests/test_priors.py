"""Priors: densities that integrate to 1, draws that follow them, classes that add up."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.posterior import GaussianAnchor
from ancestry_ddvi.ddvi.priors import (
    PRIORS,
    ComponentPrior,
    FixedMixturePrior,
    GaussianPrior,
    MixturePrior,
    PinwheelPrior,
    SquarePrior,
    SwissRollPrior,
    VampPrior,
    check_prior,
    make_prior,
)
from ancestry_ddvi.ddvi.priors.square import log_normal_cdf
from ancestry_ddvi.errors import OptionError

torch.set_num_threads(1)

SCALE = torch.tensor([1.0, 1.0, 0.5])
"""Standard deviation of the features that the encoder of the VampPrior sees."""


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, so that no test depends on the global stream."""
    return torch.Generator().manual_seed(seed)


def uneven_mixture(
    n_components: int, n_latent: int, seed: int = 0, component_class: torch.Tensor | None = None
) -> MixturePrior:
    """A mixture as training leaves it: weights and widths that differ."""
    generator = seeded(seed)
    prior = MixturePrior(n_components, n_latent, generator, component_class)
    with torch.no_grad():
        prior.logits += torch.randn(prior.logits.shape, generator=generator)
        prior.log_sd += 0.5 * torch.randn(prior.log_sd.shape, generator=generator)
    return prior


def make_encoder(n_latent: int) -> GaussianAnchor:
    """An encoder whose covariances are not diagonal, of the same weights each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = GaussianAnchor(FeatureInput(SCALE), n_latent, 8)
    with torch.no_grad():
        for parameter in encoder.network.parameters():
            parameter.mul_(1.5)
    return encoder


def make_vamp(n_latent: int, component_class: torch.Tensor | None = None) -> VampPrior:
    pseudo_input = SCALE * torch.randn((5, 3), generator=seeded(1))
    return VampPrior(make_encoder(n_latent), pseudo_input, component_class)


def fixed_mixture(n_latent: int) -> FixedMixturePrior:
    return FixedMixturePrior.spread(4, n_latent, seeded(3))


# Every component its own class would hide a mistake in the sums over a class.
IN_TWO = torch.tensor([1, 0, 1, 1, 0])

ANY_DIMENSION: dict[str, Callable[[int], ComponentPrior]] = {
    "gaussian": GaussianPrior,
    "mixture": lambda n_latent: uneven_mixture(5, n_latent),
    "mixture in two": lambda n_latent: uneven_mixture(5, n_latent, component_class=IN_TWO),
    "fixed-mixture": fixed_mixture,
    "vamp": make_vamp,
    "vamp in two": lambda n_latent: make_vamp(n_latent, IN_TWO),
}

ON_PLANE: dict[str, Callable[[], ComponentPrior]] = {
    "2 sectors": lambda: GaussianPrior(2, 2),
    "5 sectors": lambda: GaussianPrior(2, 5),
    "pinwheel": PinwheelPrior,
    "pinwheel of 1": lambda: PinwheelPrior(1),
    "pinwheel of 12": lambda: PinwheelPrior(12),
    "swiss-roll": SwissRollPrior,
    "swiss-roll in 7": lambda: SwissRollPrior(7),
    "square": SquarePrior,
}

SHAPES = ("pinwheel", "swiss-roll", "square")


def make(name: str, n_latent: int = 2) -> ComponentPrior:
    """One of the priors on offer."""
    return ON_PLANE[name]() if name in ON_PLANE else ANY_DIMENSION[name](n_latent)


every_prior = pytest.mark.parametrize("name", [*ANY_DIMENSION, *ON_PLANE])
any_dimension = pytest.mark.parametrize("name", ANY_DIMENSION)


def grid(n_latent: int, n: int, end: float = 8) -> tuple[torch.Tensor, float]:
    """(n^D, D) cell centres over [-end, end]^D and the volume of a cell."""
    edge = torch.linspace(-end, end, n + 1)
    axis = (edge[1:] + edge[:-1]) / 2
    mesh = torch.meshgrid(*[axis] * n_latent, indexing="ij")
    return torch.stack([m.flatten() for m in mesh], dim=-1), (2 * end / n) ** n_latent


def assert_follows(
    draws: torch.Tensor, log_density: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Counts of (n, 2) draws in 32 x 32 cells against the mass of the density (chi-squared)."""
    z, cell = grid(2, 320, end=4)
    mass = (log_density(z).exp() * cell).reshape(32, 10, 32, 10).sum((1, 3)).double().numpy()
    edges = np.linspace(-4, 4, 33)
    counts = np.histogram2d(*draws.double().numpy().T, bins=[edges, edges])[0]
    # The approximation needs a handful of draws in each cell; the others are pooled into one.
    full = mass * len(draws) > 10
    assert full.sum() > 5
    seen = np.append(counts[full], len(draws) - counts[full].sum())
    due = np.append(mass[full], 1 - mass[full].sum()).clip(1e-4) * len(draws)
    assert float(((seen - due) ** 2 / due).sum()) < stats.chi2.ppf(0.9999, int(full.sum()))


@any_dimension
@torch.no_grad()
def test_density_integrates_to_one_on_a_line(name: str) -> None:
    z, cell = grid(1, 4000)
    assert float(make(name, 1).log_prob(z).exp().sum()) * cell == pytest.approx(1, abs=1e-3)


@every_prior
@torch.no_grad()
def test_density_integrates_to_one_on_a_plane(name: str) -> None:
    z, cell = grid(2, 600)
    assert float(make(name).log_prob(z).exp().sum()) * cell == pytest.approx(1, abs=1e-3)


@any_dimension
@torch.no_grad()
def test_draws_follow_the_density_on_a_line(name: str) -> None:
    """Kolmogorov-Smirnov against the density summed up on a fine grid."""
    prior = make(name, 1)
    z, cell = grid(1, 16_000)
    cumulative = np.cumsum(prior.log_prob(z).exp().double().numpy()) * cell
    draws = prior.sample(20_000, seeded(1)).squeeze(-1).double().numpy()
    centres = z.squeeze(-1).double().numpy()
    assert stats.kstest(draws, lambda at: np.interp(at, centres, cumulative)).pvalue > 1e-3


@every_prior
@torch.no_grad()
def test_draws_follow_the_density_on_a_plane(name: str) -> None:
    prior = make(name)
    assert_follows(prior.sample(20_000, seeded(2)), prior.log_prob)


@pytest.mark.parametrize("name", ["mixture in two", "vamp in two", *ON_PLANE])
@torch.no_grad()
def test_draws_of_a_class_follow_its_density(name: str) -> None:
    prior = make(name)
    label = prior.n_classes - 1
    draws = prior.sample_class(torch.full((10_000,), label), seeded(3))
    weight = prior.class_log_weight()[label]
    assert_follows(draws, lambda z: prior.class_log_prob(z)[..., label] - weight)


@every_prior
@torch.no_grad()
def test_classes_add_up_to_the_prior(name: str) -> None:
    prior = make(name)
    z = 2 * torch.randn((20, 30, 2), generator=seeded(4))
    joint = prior.class_log_prob(z)
    assert joint.shape == (20, 30, prior.n_classes)
    # A handful of float32 roundings of numbers up to about a thousand.
    torch.testing.assert_close(joint.logsumexp(-1), prior.log_prob(z), atol=1e-5, rtol=1e-6)
    assert float(prior.class_log_weight().exp().sum()) == pytest.approx(1, abs=1e-6)


@every_prior
@torch.no_grad()
def test_draws_of_a_class_are_taken_for_that_class_as_often_as_they_should(name: str) -> None:
    """P(argmax p(l | z) = k | l = k): share of draws against the integral over the plane."""
    prior = make(name)
    z, cell = grid(2, 400, end=6)
    joint = prior.class_log_prob(z)
    n = 4000
    for k, log_weight in enumerate(prior.class_log_weight()):
        expected = float((joint[:, k] - log_weight).exp()[joint.argmax(-1) == k].sum()) * cell
        draws = prior.sample_class(torch.full((n,), k), seeded(5))
        share = float((prior.class_log_prob(draws).argmax(-1) == k).double().mean())
        # Five standard errors, and what the grid's cells cost at the border.
        assert abs(share - expected) < 5 * math.sqrt(max(expected * (1 - expected), 0) / n) + 5e-3


@pytest.mark.parametrize("name", [*SHAPES, "5 sectors"])
@torch.no_grad()
def test_labels_of_shapes_can_be_read_off_the_plane(name: str) -> None:
    prior = make(name)
    label = torch.arange(prior.n_classes).repeat(500)
    read = prior.class_log_prob(prior.sample_class(label, seeded(6))).argmax(-1)
    assert float((read == label).double().mean()) > 0.85
    torch.testing.assert_close(
        prior.class_log_weight(), torch.full((prior.n_classes,), -math.log(prior.n_classes))
    )


@pytest.mark.parametrize("name", ["gaussian", "pinwheel", "pinwheel of 12", "square", "swiss-roll"])
@torch.no_grad()
def test_scale_suits_a_unit_diffusion(name: str) -> None:
    draws = make(name).sample(40_000, seeded(7))
    np.testing.assert_allclose(draws.mean(0), [0, 0], atol=0.03)
    np.testing.assert_allclose(draws.square().mean(0).sqrt(), [1, 1], atol=0.06)
    assert float(draws.square().mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("n_components", [1, 2, 9])
@pytest.mark.parametrize("n_latent", [1, 2, 5])
def test_spread_mixture_has_unit_scale_and_no_overlap(n_components: int, n_latent: int) -> None:
    prior = FixedMixturePrior.spread(n_components, n_latent, seeded(8))
    variance = prior.mean.square().mean() + prior.log_sd.exp().square().mean()
    assert float(variance) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(prior.mean.mean(0), np.zeros(n_latent), atol=1e-5)
    if n_components > 1:
        apart = torch.pdist(prior.mean).min() / prior.log_sd.exp()[0, 0]
        assert float(apart) == pytest.approx(6, rel=1e-4)


@every_prior
@pytest.mark.parametrize("distance", [5.0, 1e2, 1e4, 1e6])
def test_far_away_the_gradient_points_inwards(name: str, distance: float) -> None:
    """Training starts anywhere: there the density is tiny, but not 0, and rises inwards."""
    prior = make(name)
    angle = torch.linspace(0, 2 * math.pi, 97)
    z = (distance * torch.stack([angle.cos(), angle.sin()], dim=-1)).requires_grad_()
    log_prob = prior.log_prob(z)
    (gradient,) = torch.autograd.grad(log_prob.sum(), z)
    assert torch.isfinite(log_prob).all()
    assert torch.isfinite(gradient).all()
    assert ((gradient * z).sum(-1) < 0).all()


@every_prior
@pytest.mark.parametrize("distance", [0.0, 1.0, 1e2, 1e6])
def test_every_class_has_a_gradient_everywhere(name: str, distance: float) -> None:
    """A labelled sample may start far from its class, or at the centre, where angles end."""
    prior = make(name)
    angle = torch.linspace(0, 2 * math.pi, 33)
    z = (distance * torch.stack([angle.cos(), angle.sin()], dim=-1)).requires_grad_()
    joint = prior.class_log_prob(z)
    assert torch.isfinite(joint).all()
    for label in range(prior.n_classes):
        (gradient,) = torch.autograd.grad(joint[:, label].sum(), z, retain_graph=True)
        assert torch.isfinite(gradient).all()


@every_prior
def test_gradient_against_finite_differences(name: str) -> None:
    prior = make(name).double()
    z = torch.randn((12, 2), generator=seeded(9), dtype=torch.float64).requires_grad_()
    if name.startswith("vamp"):
        # The encoder stays in float32, as it belongs to someone else.
        prior.encoder.double()
    assert torch.autograd.gradcheck(prior.class_log_prob, z, eps=1e-6, atol=1e-4, rtol=1e-3)


@every_prior
@torch.no_grad()
def test_saved_and_loaded_prior_draws_the_same(name: str) -> None:
    prior = make(name)
    for tensor in prior.state_dict().values():
        tensor.add_(0.01)
    other = make(name)
    other.load_state_dict(prior.state_dict())
    z = torch.randn((10, 2), generator=seeded(10))
    assert torch.equal(prior.sample(50, seeded(11)), other.sample(50, seeded(11)))
    assert torch.equal(prior.class_log_prob(z), other.class_log_prob(z))


@every_prior
@torch.no_grad()
def test_draws_depend_on_the_generator_only(name: str) -> None:
    prior = make(name)
    label = torch.zeros(10, dtype=torch.long)
    for draw in (lambda g: prior.sample(10, g), lambda g: prior.sample_class(label, g)):
        first = draw(seeded(1))
        torch.randn(5)
        assert first.shape == (10, 2)
        assert torch.equal(first, draw(seeded(1)))
        assert not torch.equal(first, draw(seeded(2)))


@torch.no_grad()
def test_mixture_density_against_torch() -> None:
    prior = uneven_mixture(4, 3)
    reference = MixtureSameFamily(
        Categorical(logits=prior.logits), Independent(Normal(prior.mean, prior.log_sd.exp()), 1)
    )
    z = torch.randn((2, 50, 3), generator=seeded(3))
    assert prior.log_prob(z).shape == (2, 50)
    torch.testing.assert_close(prior.log_prob(z), reference.log_prob(z), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_membership_is_bayes_rule() -> None:
    prior = uneven_mixture(3, 2)
    z = 3 * torch.randn((40, 2), generator=seeded(4))
    membership = prior.membership(z)
    torch.testing.assert_close(membership.sum(-1), torch.ones(40))
    weight = torch.softmax(prior.logits, 0)
    joint = torch.stack(
        [
            weight[c] * Normal(prior.mean[c], prior.log_sd[c].exp()).log_prob(z).sum(-1).exp()
            for c in range(3)
        ],
        dim=-1,
    )
    usable = joint.sum(-1) > 1e-30
    expected = (joint / joint.sum(-1, keepdim=True))[usable]
    torch.testing.assert_close(membership[usable], expected, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_membership_far_from_all_components_is_still_a_probability() -> None:
    membership = uneven_mixture(3, 2).membership(torch.tensor([[1e3, -1e3]]))
    assert torch.isfinite(membership).all()
    assert float(membership.sum()) == pytest.approx(1)


@torch.no_grad()
def test_draws_of_separated_components_follow_the_weights() -> None:
    prior = MixturePrior(3, 2, seeded(0))
    prior.mean.copy_(torch.tensor([[-10.0, 0.0], [0.0, 0.0], [10.0, 0.0]]))
    prior.logits.copy_(torch.log(torch.tensor([0.2, 0.5, 0.3])))
    component = prior.membership(prior.sample(20_000, seeded(5))).argmax(-1)
    share = torch.bincount(component, minlength=3) / 20_000
    # Standard error sqrt(.5 * .5 / 20000) = .0035.
    np.testing.assert_allclose(share, [0.2, 0.5, 0.3], atol=0.015)


def test_mixture_can_be_fitted_by_gradient() -> None:
    """Every parameter has a finite gradient and likelihood of data rises along it."""
    prior = MixturePrior(4, 2, seeded(6))
    data = uneven_mixture(2, 2, seed=9).sample(500, seeded(7)).detach()
    optimiser = torch.optim.Adam(prior.parameters(), lr=0.05)
    first = prior.log_prob(data).mean().item()
    for _ in range(60):
        optimiser.zero_grad()
        (-prior.log_prob(data).mean()).backward()
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in prior.parameters())
        optimiser.step()
    assert prior.log_prob(data).mean().item() > first + 0.3
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in prior.parameters())


def test_gaussian_prior_by_hand() -> None:
    prior = GaussianPrior(3)
    assert float(prior.log_prob(torch.zeros(3))) == pytest.approx(-1.5 * math.log(2 * math.pi))
    assert float(prior.log_prob(torch.tensor([1.0, 2.0, 0.0]))) == pytest.approx(
        -2.5 - 1.5 * math.log(2 * math.pi)
    )


@torch.no_grad()
def test_gaussian_draws_are_the_same_with_and_without_sectors() -> None:
    assert torch.equal(
        GaussianPrior(2).sample(20, seeded(1)), GaussianPrior(2, 4).sample(20, seeded(1))
    )


@torch.no_grad()
def test_turning_a_pinwheel_by_an_arm_changes_nothing() -> None:
    prior = PinwheelPrior(3)
    z = torch.randn((50, 2), generator=seeded(12))
    cos, sin = math.cos(2 * math.pi / 3), math.sin(2 * math.pi / 3)
    turned = z @ torch.tensor([[cos, sin], [-sin, cos]])
    torch.testing.assert_close(prior.log_prob(turned), prior.log_prob(z), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(
        prior.class_log_prob(turned)[:, 1], prior.class_log_prob(z)[:, 0], atol=1e-3, rtol=1e-4
    )


@torch.no_grad()
def test_side_of_the_square_against_quadrature() -> None:
    """The closed form against the integral along the segment, in the tail too."""
    prior = SquarePrior()
    a, s = math.sqrt(1.5 * (1 - 0.1**2)), 0.1
    for x, y in [(a, 0.0), (1.1, 0.9), (1.3, 1.3), (1.0, -1.5)]:
        along, _ = integrate.quad(lambda t, y=y: stats.norm.pdf(y, t, s), -a, a, points=[y, 0])
        expected = 0.25 * stats.norm.pdf(x, a, s) * along / (2 * a)
        got = prior.class_log_prob(torch.tensor([x, y]))[0]
        assert float(got) == pytest.approx(math.log(expected), abs=1e-4)


def test_log_normal_cdf_against_scipy() -> None:
    u = torch.tensor([-1e4, -300.0, -20.0, -3.0, -0.1, 0.0, 0.1, 3.0, 20.0], requires_grad=True)
    value = log_normal_cdf(u)
    value.sum().backward()
    at = u.detach().double().numpy()
    np.testing.assert_allclose(value.detach(), stats.norm.logcdf(at), rtol=2e-5, atol=1e-7)
    slope = np.exp(stats.norm.logpdf(at) - stats.norm.logcdf(at))
    np.testing.assert_allclose(u.grad, slope, rtol=2e-3, atol=1e-7)


@torch.no_grad()
def test_swiss_roll_is_the_curve_and_not_its_beads() -> None:
    """Twice the points, the same density: between the ends the sum has converged."""
    coarse, fine = SwissRollPrior(1), SwissRollPrior(400)
    # Points halfway between two beads too, up to 3 sd off; the ends move by half a step.
    middle = fine.mean[20:-20]
    z = middle + 0.08 * torch.randn(middle.shape, generator=seeded(13)).clamp(-3, 3)
    torch.testing.assert_close(coarse.log_prob(z), fine.log_prob(z), atol=2e-3, rtol=0)


@torch.no_grad()
def test_pieces_of_the_swiss_roll_are_equally_long_and_in_order() -> None:
    prior = SwissRollPrior(4)
    step = (prior.mean[1:] - prior.mean[:-1]).norm(dim=-1)
    assert float(step.max() / step.min()) == pytest.approx(1, abs=0.01)
    assert torch.bincount(prior.component_class).tolist() == [50] * 4
    assert (prior.component_class.diff() >= 0).all()


@torch.no_grad()
def test_vamp_density_against_torch() -> None:
    prior = make_vamp(2)
    mean, factor = prior.encoder(prior.pseudo_input, torch.zeros(5))
    reference = MixtureSameFamily(
        Categorical(logits=torch.zeros(5)), MultivariateNormal(mean, scale_tril=factor)
    )
    z = torch.randn((4, 10, 2), generator=seeded(14))
    torch.testing.assert_close(prior.log_prob(z), reference.log_prob(z), atol=1e-4, rtol=1e-4)


def test_vamp_learns_through_the_encoder_but_does_not_own_it() -> None:
    prior = make_vamp(2)
    assert set(prior.state_dict()) == {"pseudo_input"}
    assert [name for name, _ in prior.named_parameters()] == ["pseudo_input"]
    prior.log_prob(torch.zeros(3, 2)).sum().backward()
    for parameter in (prior.pseudo_input, *prior.encoder.parameters()):
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    model = torch.nn.ModuleDict({"encoder": prior.encoder, "prior": prior})
    assert len(list(model.parameters())) == len(list(prior.encoder.parameters())) + 1
    twin = copy.deepcopy(model)
    assert twin["prior"].encoder is twin["encoder"]


def test_fixed_priors_have_nothing_to_learn() -> None:
    for name in ("gaussian", "fixed-mixture", *SHAPES):
        assert not list(make(name).requires_grad_(True).parameters())


@torch.no_grad()
def test_saved_mixture_holds_its_three_parameters_only() -> None:
    # Model files in use hold these names.
    assert set(make("mixture in two").state_dict()) == {"logits", "mean", "log_sd"}


@pytest.mark.parametrize("component_class", [None, IN_TWO], ids=["unlabelled", "in two"])
@torch.no_grad()
def test_sorting_keeps_the_prior_and_assigned_classes(component_class: torch.Tensor | None) -> None:
    prior = uneven_mixture(5, 2, component_class=component_class)
    z = torch.randn((30, 2), generator=seeded(15))
    log_prob, joint = prior.log_prob(z), prior.class_log_prob(z)
    prior.sort()
    torch.testing.assert_close(prior.log_prob(z), log_prob)
    if component_class is None:
        assert (prior.logits.diff() <= 0).all()
        return
    torch.testing.assert_close(prior.class_log_prob(z), joint)
    for label in range(2):
        assert (prior.logits[component_class == label].diff() <= 0).all()


@torch.no_grad()
def test_no_labels_no_draws() -> None:
    for name in (*ANY_DIMENSION, *ON_PLANE):
        assert make(name).sample_class(torch.empty(0, dtype=torch.long), seeded(0)).shape == (0, 2)


def refused(message: str, call: Callable[[], object]) -> None:
    with pytest.raises(OptionError, match=message):
        call()


@pytest.mark.parametrize("n", [0, -3])
def test_numbers_below_one_are_refused(n: int) -> None:
    options = {"encoder": make_encoder(2), "scale": SCALE}
    component = f"at least 1 component, not {n}"
    refused(component, lambda: MixturePrior(n, 2, seeded(0)))
    refused(component, lambda: FixedMixturePrior.spread(n, 2, seeded(0)))
    refused(component, lambda: make_prior("vamp", 2, seeded(0), n_components=n, **options))
    refused(f"at least 1 arm, not {n}", lambda: PinwheelPrior(n))
    refused(f"at least 1 piece, not {n}", lambda: SwissRollPrior(n))
    refused(f"at least 1 class, not {n}", lambda: GaussianPrior(2, n))


def test_bad_partitions_are_refused() -> None:
    def mixture(*component_class: float) -> MixturePrior:
        return MixturePrior(3, 2, seeded(0), torch.tensor(component_class))

    refused(r"shape \(2,\).*each of 3 components", lambda: mixture(0, 1))
    refused("label -1 is outside", lambda: mixture(0, -1, 0))
    refused("class 1 has no component", lambda: mixture(0, 2, 2))
    refused("not torch.float32", lambda: mixture(0.0, 1.0, 0.0))
    refused("4 angular sectors need 2 latents, not 3", lambda: GaussianPrior(3, 4))


def test_mixtures_of_no_width_or_weight_are_refused() -> None:
    mean, one = torch.zeros(2, 2), torch.ones(())
    refused("sd of a mixture must be positive, not 0", lambda: FixedMixturePrior(mean, 0 * one))
    refused(
        "weight of a mixture must be positive, not -1",
        lambda: FixedMixturePrior(mean, one, torch.tensor([1.0, -1.0])),
    )


@every_prior
@pytest.mark.parametrize("label", [-1, 400])
def test_label_outside_the_partition_is_refused(name: str, label: int) -> None:
    prior = make(name)
    message = f"label {label} is outside .* known labels are 0 to {prior.n_classes - 1}$"
    refused(message, lambda: prior.sample_class(torch.tensor([0, label]), seeded(0)))


def test_prior_of_another_dimension_is_refused() -> None:
    check_prior(GaussianPrior(3), 3)
    refused("GaussianPrior is over 3 latents, not 2", lambda: check_prior(GaussianPrior(3), 2))
    for name in SHAPES:
        refused("is over 2 latents, not 3; set n_latent to 2", lambda n=name: prior_of(n, 3))


def prior_of(name: str, n_latent: int) -> ComponentPrior:
    """By name, with the options that it cannot do without."""
    options = {"encoder": make_encoder(n_latent), "scale": SCALE} if name == "vamp" else {}
    return make_prior(name, n_latent, seeded(0), **options)


@pytest.mark.parametrize("name", PRIORS)
@torch.no_grad()
def test_priors_by_name(name: str) -> None:
    n_latent = 2 if name in SHAPES else 3
    prior = prior_of(name, n_latent)
    assert prior.n_latent == n_latent
    assert torch.equal(prior.sample(5, seeded(1)), prior_of(name, n_latent).sample(5, seeded(1)))


def test_names_and_options_that_are_unknown_or_missing() -> None:
    known = "gaussian, pinwheel, swiss-roll, square, mixture, fixed-mixture, vamp"
    refused(f"no prior 'circle'; choose one of {known}", lambda: make_prior("circle", 2, seeded(0)))
    refused(
        "'square' takes no option 'n_classes'; it takes none",
        lambda: make_prior("square", 2, seeded(0), n_classes=3),
    )
    refused(
        "'mixture' takes no option 'arms'; it takes n_components, component_class",
        lambda: make_prior("mixture", 2, seeded(0), arms=3),
    )
    refused("'vamp' needs the option 'encoder'", lambda: make_prior("vamp", 2, seeded(0)))

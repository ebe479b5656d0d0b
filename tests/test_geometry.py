"""The map's terms: known values, the right direction, and neighbours that are neighbours."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ancestry_ddvi.ddvi.geometry import Neighbours, distance_loss, neighbour_loss

torch.set_num_threads(1)


def seeded(seed: int) -> torch.Generator:
    """A generator of its own, so that no test depends on the global stream."""
    return torch.Generator().manual_seed(seed)


def seed_without_fixed_points(n: int) -> int:
    """A seed whose permutation pairs no sample with itself."""
    for seed in range(1000):
        permutation = torch.randperm(n, generator=seeded(seed))
        if not (permutation == torch.arange(n)).any():
            return seed
    raise AssertionError


# --- neighbour term -----------------------------------------------------------------------------


def test_neighbour_loss_by_hand() -> None:
    """Two pairs on a line, at 0-1 and 3-5, tau = 1.

    k: 0-1 1/2, 0-3 1/10, 0-5 1/26, 1-3 1/5, 1-5 1/17, 3-5 1/5.
    """
    mean, partner = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [5.0]])
    terms = [
        (1 / 2) / (1 / 2 + 1 / 10 + 1 / 26),
        (1 / 2) / (1 / 2 + 1 / 5 + 1 / 17),
        (1 / 5) / (1 / 10 + 1 / 5 + 1 / 5),
        (1 / 5) / (1 / 26 + 1 / 17 + 1 / 5),
    ]
    expected = -sum(map(math.log, terms)) / 4
    assert float(neighbour_loss(mean, partner, 1.0)) == pytest.approx(expected, rel=1e-5)


def test_neighbour_loss_against_its_equation() -> None:
    generator, tau = seeded(0), 0.3
    mean, partner = (torch.randn((9, 3), generator=generator).double() for _ in range(2))
    both = torch.cat([mean, partner])
    kernel = 1 / (1 + torch.cdist(both, both) ** 2 / tau**2)
    total = 0.0
    for i in range(18):
        rest = sum(float(kernel[i, other]) for other in range(18) if other != i)
        total -= math.log(float(kernel[i, (i + 9) % 18]) / rest) / 18
    assert float(neighbour_loss(mean, partner, tau)) == pytest.approx(total, rel=1e-9)


def test_one_pair_alone_costs_nothing() -> None:
    """With nobody else to be near, the partner has all of the kernel."""
    mean, partner = torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 0.0]])
    assert float(neighbour_loss(mean, partner, 0.5)) == pytest.approx(0, abs=1e-6)


def test_neighbour_loss_falls_when_partners_are_near_and_others_far() -> None:
    generator = seeded(1)
    mean = torch.randn((32, 2), generator=generator)
    step = torch.randn((32, 2), generator=generator)
    losses = [float(neighbour_loss(mean, mean + size * step, 0.1)) for size in (2, 0.5, 0.1, 0.01)]
    assert losses == sorted(losses, reverse=True)
    spread = [float(neighbour_loss(s * mean, s * mean + 0.05 * step, 0.1)) for s in (0.1, 1, 10)]
    assert spread == sorted(spread, reverse=True)


def test_neighbour_gradient_pulls_partners_together() -> None:
    mean = torch.randn((16, 2), generator=seeded(2))
    partner = mean + 0.5 * torch.randn((16, 2), generator=seeded(3))
    mean.requires_grad_(True)
    before = (mean - partner).norm(dim=1).mean().item()
    optimiser = torch.optim.SGD([mean], lr=0.5)
    for _ in range(100):
        optimiser.zero_grad()
        neighbour_loss(mean, partner, 0.5).backward()
        optimiser.step()
    assert (mean - partner).norm(dim=1).mean().item() < 0.5 * before


def test_neighbour_loss_far_from_the_origin_and_where_samples_coincide() -> None:
    mean = torch.randn((8, 2), generator=seeded(4))
    partner = mean + 0.05 * torch.randn((8, 2), generator=seeded(5))
    here = float(neighbour_loss(mean, partner, 0.1))
    # The square is taken through a product; without centring this would be lost to cancellation.
    there = float(neighbour_loss(mean + 1000, partner + 1000, 0.1))
    assert there == pytest.approx(here, abs=0.02)
    same = torch.zeros(4, 2, requires_grad=True)
    loss = neighbour_loss(same, same, 0.1)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(7), rel=1e-5)
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()


# --- distance term ------------------------------------------------------------------------------


def test_distance_loss_is_zero_for_a_scaled_rotated_shifted_copy() -> None:
    x = torch.randn((50, 2), generator=seeded(6))
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    assert float(distance_loss(7 * x @ turn + 3, x, seeded(7))) == pytest.approx(0, abs=1e-4)


def test_distance_loss_is_two_where_near_and_far_are_swapped() -> None:
    """Triangles with sides 3, 4, 5 and 5, 4, 3: the distances are perfectly anti-correlated."""
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])  # 01: 3, 12: 4, 20: 5
    mean = torch.tensor([[0.0, 0.0], [5.0, 0.0], [1.8, 2.4]])  # 01: 5, 12: 4, 20: 3
    seed = seed_without_fixed_points(3)
    assert float(distance_loss(mean, x, seeded(seed))) == pytest.approx(2, abs=1e-4)


def test_distance_loss_is_near_one_for_an_unrelated_map() -> None:
    x, mean = (torch.randn((5000, 2), generator=seeded(seed)) for seed in (8, 9))
    assert float(distance_loss(mean, x, seeded(10))) == pytest.approx(1, abs=0.1)


def test_distance_gradient_is_finite_where_samples_coincide() -> None:
    mean = torch.zeros(6, 2, requires_grad=True)
    distance_loss(mean, torch.zeros(6, 3), seeded(11)).backward()
    assert mean.grad is not None
    assert torch.isfinite(mean.grad).all()


# --- partners -----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 40),
    n_distinct=st.integers(1, 40),
    close=st.integers(1, 50),
    wide_share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_nobody_is_their_own_neighbour(
    n: int, n_distinct: int, close: int, wide_share: float, seed: int
) -> None:
    """Duplicates included: with identical samples, "itself" need not be found first."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n_distinct, 3))[random.integers(n_distinct, size=n)]
    neighbours = Neighbours(x, close=close, wide_share=wide_share, wide_probability=0.5)
    i = torch.arange(n).repeat(20)
    partner = neighbours.partner(i, seeded(seed))
    assert partner.shape == i.shape
    assert (partner != i).all()
    assert ((partner >= 0) & (partner < n)).all()
    # No partner is offered twice, which would double its weight.
    assert all(len(set(row.tolist())) == neighbours.wide for row in neighbours.index)


def test_partners_come_from_the_close_and_the_wide_neighbourhood() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4))
    distance = np.linalg.norm(x[:, None] - x[None], axis=-1)
    rank = distance.argsort(1).argsort(1)  # 0 is the sample itself
    i = torch.arange(60).repeat(300)

    def drawn(wide_probability: float) -> np.ndarray:
        neighbours = Neighbours(x, close=4, wide_share=0.25, wide_probability=wide_probability)
        return rank[i, neighbours.partner(i, seeded(1))]

    for probability, reach in ((0.0, 4), (1.0, 15)):
        ranks = drawn(probability)
        counts = np.bincount(ranks, minlength=reach + 1)
        assert set(ranks) == set(range(1, reach + 1))
        np.testing.assert_allclose(counts[1:], len(i) / reach, rtol=0.15)
    # Half of the draws are close; of the wide half, 4 in 15 are close as well.
    close = (drawn(0.5) <= 4).mean()
    assert close == pytest.approx(0.5 + 0.5 * 4 / 15, abs=0.02)


def test_few_samples_are_all_neighbours() -> None:
    x = np.array([[0.0], [1.0], [2.0]])
    neighbours = Neighbours(x, close=15, wide_share=0.05, wide_probability=0.5)
    assert neighbours.close == neighbours.wide == 2
    assert sorted(neighbours.index[0].tolist()) == [1, 2]

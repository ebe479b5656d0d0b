"""Random streams of samples: independent of company, of each other, and of the right law."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from ancestry_ddvi.ddvi.streams import Streams, normal, uniform

KEY = np.array([5, 2**64 - 1, 0, 5], dtype=np.uint64)


def test_a_stream_follows_from_seed_and_key_alone() -> None:
    draws = Streams(KEY, 1).normal((3, 4, 2))
    assert draws.shape == (3, 4, 2)
    assert draws.dtype == torch.float32
    assert torch.equal(draws, Streams(KEY, 1).normal((3, 4, 2)))
    torch.testing.assert_close(draws[:, 1:2], Streams(KEY[1:2], 1).normal((3, 1, 2)))
    assert torch.equal(draws[:, 0], draws[:, 3])
    for other in (Streams(KEY, 2).normal((3, 4, 2)), draws[:, [1, 2, 0, 1]]):
        assert (draws != other).all()


def test_a_slice_goes_on_where_the_whole_is() -> None:
    whole, parts = Streams(KEY, 1), Streams(KEY, 1)
    first, second = parts[:2], parts[2:]
    assert (len(whole), len(first), len(second)) == (4, 2, 2)
    for draw in (lambda s: s.normal((len(s), 3)), lambda s: s.uniform((len(s),))):
        assert torch.equal(draw(whole), torch.cat([draw(first), draw(second)]))
    # Their state is shared: what a slice has used is used.
    assert torch.equal(parts.uniform((4,)), whole.uniform((4,)))


def test_each_is_of_its_law_and_no_two_are_alike() -> None:
    """Kolmogorov-Smirnov on 20,000 numbers; neighbouring keys and seeds are as good as any."""
    keys = np.arange(4, dtype=np.uint64)
    drawn = [Streams(keys, seed).normal((5000, 4, 1))[..., 0].double().numpy() for seed in (0, 1)]
    assert stats.kstest(drawn[0].ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(np.hstack(drawn).T) - np.eye(8)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(5000)
    flat = Streams(keys, 0).uniform((5000, 4)).double().numpy()
    assert stats.kstest(flat.ravel(), "uniform").pvalue > 1e-3
    assert flat.max() < 1


def test_a_generator_serves_as_well() -> None:
    expected = torch.Generator().manual_seed(3)
    source = torch.Generator().manual_seed(3)
    assert torch.equal(normal(source, (2, 3, 2)), torch.randn((2, 3, 2), generator=expected))
    assert torch.equal(uniform(source, (2, 3)), torch.rand((2, 3), generator=expected))
    assert torch.equal(normal(Streams(KEY, 1), (4, 2)), Streams(KEY, 1).normal((4, 2)))
    assert torch.equal(uniform(Streams(KEY, 1), (4,)), Streams(KEY, 1).uniform((4,)))

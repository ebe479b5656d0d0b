"""Streams of normals: of each sample its own, and normal."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from ancestry_ddvi.ddvi.streams import SampleStreams, hash64, randn, row_key

KEY = np.array([3, 2**64 - 1, 0, 4], dtype=np.uint64)


def test_a_stream_follows_from_seed_and_key_only() -> None:
    together = SampleStreams(KEY, 5)
    first, second = together.normal((6, 4, 2)), together.normal((4, 3))
    assert first.dtype == torch.float32
    for i, key in enumerate(KEY):
        alone = SampleStreams(np.array([key]), 5)
        assert torch.equal(alone.normal((6, 1, 2))[:, 0], first[:, i])
        assert torch.equal(alone.normal((1, 3))[0], second[i])
    backwards = SampleStreams(KEY[::-1], 5)
    assert torch.equal(backwards.normal((6, 4, 2)), first.flip(1))
    assert (SampleStreams(KEY, 6).normal((6, 4, 2)) != first).all()


def test_normals_are_standard_and_independent() -> None:
    """Of 20 neighbouring keys over 5 steps, between samples, steps, axes and draws."""
    n_draws = 4000
    streams = SampleStreams(np.arange(20, dtype=np.uint64), 0)
    steps = np.stack([streams.normal((n_draws, 20, 2)).numpy() for _ in range(5)])
    columns = steps.transpose(1, 0, 2, 3).reshape(n_draws, -1).astype(float)
    assert columns.shape == (n_draws, 200)
    assert kstest(columns.ravel(), "norm").pvalue > 1e-3
    assert (np.abs(columns.mean(0)) < 5 / np.sqrt(n_draws)).all()
    assert (np.abs(columns.var(0) - 1) < 5 * np.sqrt(2 / n_draws)).all()
    correlation = np.corrcoef(columns.T)[np.triu_indices(200, 1)] * np.sqrt(n_draws)
    # 19,900 pairs: the largest of so many standard normals is some 4.
    assert np.abs(correlation).max() < 5.5
    assert correlation.std() == pytest.approx(1, abs=0.05)
    # From one draw to the next.
    lagged = (columns[1:] * columns[:-1]).mean(0) * np.sqrt(n_draws)
    assert np.abs(lagged).max() < 5


@pytest.mark.parametrize("shape", [(3, 2), (4, 3, 2), (4, 2, 5)])
def test_another_number_of_samples_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"normals of shape .* for 4 samples"):
        SampleStreams(KEY, 0).normal(shape)


def test_either_source_will_do() -> None:
    generator, again = (torch.Generator().manual_seed(1) for _ in range(2))
    assert torch.equal(randn((3, 4, 2), generator), torch.randn((3, 4, 2), generator=again))
    expected = SampleStreams(KEY, 1).normal((3, 4, 2))
    assert torch.equal(randn((3, 4, 2), SampleStreams(KEY, 1)), expected)


def test_keys_of_rows() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4))
    assert len(set(row_key(x).tolist())) == 50
    np.testing.assert_array_equal(row_key(x[::-1]), row_key(x)[::-1])
    np.testing.assert_array_equal(row_key(x.astype(np.float32)), row_key(np.asfortranarray(x)))
    # The first 8 bytes of SHA-256, which starts ba7816bf 8f01cfea for "abc".
    assert hash64([b"abc"]).tolist() == [0xBA7816BF8F01CFEA]
    assert row_key(x[:0]).shape == (0,)

"""What makes a latent space a map: neighbours stay neighbours, distances keep their order.

A likelihood alone does not care where on the plane two populations lie, only that each can be
decoded. Two terms on the anchor's means mu_i are added while the map is learnt, both computed from
the features alone:

neighbour   InfoNCE (van den Oord et al. 2018, arXiv 1807.03748) with t-SNE's Cauchy kernel
            k(a, b) = 1 / (1 + |a - b|^2 / tau^2): for neighbours (i, j) in feature space,
                -log  k(mu_i, mu_j) / sum_{l != i} k(mu_i, mu_l)
            The partner is drawn from a close or a wide neighbourhood, so that both populations
            and the groups they form hold together (two scales as in Kobak & Berens 2019, Nat.
            Commun. 10:5416).
distance    1 - corr(|mu_i - mu_j|, |x_i - x_j|) over random pairs, so that distances on the map
            rank like genetic distances.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Neighbours:
    """Nearest neighbours in feature space, from which partners are drawn.

    Parameters
    ----------
    x
        (n_samples, K) features.
    close, wide_share, wide_probability
        Partners come from the `close` nearest, or, with `wide_probability`, from the nearest
        `wide_share` of all samples.
    """

    def __init__(
        self, x: np.ndarray, *, close: int, wide_share: float, wide_probability: float
    ) -> None:
        from sklearn.neighbors import NearestNeighbors

        n = len(x)
        self.close = min(close, n - 1)
        self.wide = min(max(self.close, round(wide_share * n)), n - 1)
        self.wide_probability = wide_probability
        found = NearestNeighbors(n_neighbors=self.wide + 1).fit(x).kneighbors(x)[1]
        # Where samples coincide, "itself" need not come first, so it is looked for.
        is_self = found == np.arange(n)[:, None]
        is_self[~is_self.any(axis=1), -1] = True
        self.index = torch.from_numpy(found[~is_self].reshape(n, self.wide))

    def partner(self, i: Tensor, generator: torch.Generator) -> Tensor:
        """One neighbour for each of the samples i (n,)."""
        wide = torch.rand(len(i), generator=generator) < self.wide_probability
        reach = torch.where(wide, self.wide, self.close)
        rank = (torch.rand(len(i), generator=generator) * reach).long()
        return self.index[i, rank]


def neighbour_loss(mean: Tensor, partner: Tensor, tau: float) -> Tensor:
    """InfoNCE over a batch; mean, partner (n, D) are the two ends of n pairs. Scalar."""
    both = torch.cat([mean, partner])
    n = len(both)
    # |a|^2 + |b|^2 - 2 a'b: one matrix product in place of an (n, n, D) array. Centring keeps the
    # cancellation far below tau^2.
    scaled = (both - both.mean(0).detach()) / tau
    norm = scaled.pow(2).sum(-1)
    square = torch.addmm(norm.unsqueeze(1) + norm, scaled, scaled.T, alpha=-2).clamp(min=0)
    kernel = 1 / (1 + square)
    itself = torch.eye(n, dtype=torch.bool)
    log_total = torch.log(kernel.masked_fill(itself, 0).sum(1))
    log_pair = -torch.log1p((mean - partner).pow(2).sum(-1) / tau**2)
    return log_total.mean() - log_pair.mean()


def distance_loss(mean: Tensor, x: Tensor, generator: torch.Generator) -> Tensor:
    """1 - Pearson correlation of distances over random pairs; mean (n, D), x (n, K). Scalar."""
    other = torch.randperm(len(x), generator=generator)
    # The small constant keeps the gradient of the root finite where a sample meets itself.
    on_map = ((mean - mean[other]).pow(2).sum(-1) + 1e-6).sqrt()
    in_features = ((x - x[other]).pow(2).sum(-1) + 1e-6).sqrt()
    a, b = on_map - on_map.mean(), in_features - in_features.mean()
    correlation: Tensor = (a * b).mean() / torch.sqrt(a.pow(2).mean() * b.pow(2).mean() + 1e-12)
    return 1 - correlation

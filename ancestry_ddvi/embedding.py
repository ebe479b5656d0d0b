"""The table that everything after the model reads: one row a sample, no tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.credible import regions


@dataclass(frozen=True)
class EmbeddingTable:
    """Posterior summaries of every sample, in input order.

    Attributes
    ----------
    frame
        `sample_id, z1..zD, z1_sd..zD_sd, cluster, cluster_probability`, `class,
        class_probability` if labels were learnt from, `z1_low, z1_high.., region_area, n_modes`
        (see `credible.Regions`; missing where it says nothing), then any label columns.
    n_latent
        D.
    pcs
        (n_samples, n_pcs) shrinkage-corrected principal components of the same samples, which the
        GWAS covariate file carries beside the latents.
    elbo
        (n_samples,) evidence lower bound of log p(x) in nats.
    classes
        (n_samples, n_classes) probability of every class, the columns named by the classes; None
        if no labels were learnt from.
    classes_on_map
        (n_samples, n_classes) the same as the place on the map says, for a cross-check.
    draws
        (n_draws, n_samples, D) posterior draws, where they were to be kept.
    """

    frame: pd.DataFrame
    n_latent: int
    pcs: np.ndarray
    elbo: np.ndarray
    classes: pd.DataFrame | None = None
    classes_on_map: np.ndarray | None = None
    draws: np.ndarray | None = None

    @classmethod
    def from_draws(
        cls,
        draws: np.ndarray,
        sample_id: np.ndarray,
        cluster_probability: np.ndarray,
        pcs: np.ndarray,
        elbo: np.ndarray,
        classes: pd.DataFrame | None = None,
        classes_on_map: np.ndarray | None = None,
    ) -> EmbeddingTable:
        """Summarise posterior draws.

        Parameters
        ----------
        draws
            (n_draws, n_samples, n_latent) draws of q(z | x).
        sample_id
            (n_samples,) ids in input order.
        cluster_probability
            (n_samples, n_clusters) posterior probability of each cluster.
        pcs
            (n_samples, n_pcs).
        elbo
            (n_samples,) in nats.
        classes
            (n_samples, n_classes), columns named by the classes.
        classes_on_map
            (n_samples, n_classes).
        """
        n_latent = draws.shape[-1]
        mean, sd = draws.mean(axis=0), draws.std(axis=0, ddof=1)
        columns: dict[str, Any] = {"sample_id": sample_id}
        columns |= {f"z{d + 1}": mean[:, d] for d in range(n_latent)}
        columns |= {f"z{d + 1}_sd": sd[:, d] for d in range(n_latent)}
        columns["cluster"] = cluster_probability.argmax(axis=1) + 1
        columns["cluster_probability"] = cluster_probability.max(axis=1)
        if classes is not None:
            columns["class"] = classes.columns.to_numpy()[classes.to_numpy().argmax(axis=1)]
            columns["class_probability"] = classes.to_numpy().max(axis=1)
        region = regions(draws)
        for d in range(n_latent):
            columns |= {f"z{d + 1}_low": region.low[:, d], f"z{d + 1}_high": region.high[:, d]}
        columns |= {"region_area": region.area, "n_modes": pd.array(region.n_modes, dtype="Int64")}
        frame = pd.DataFrame(columns)
        pcs, elbo = np.asarray(pcs), np.asarray(elbo)
        return cls(frame, n_latent, pcs, elbo, classes, classes_on_map)

    @property
    def n_own(self) -> int:
        """Columns of `frame` that come before any label columns."""
        return 5 + 4 * self.n_latent + 2 * (self.classes is not None)

    @property
    def sample_id(self) -> np.ndarray:
        """(n_samples,) ids in input order."""
        return self.frame["sample_id"].to_numpy(dtype=str)

    @property
    def z(self) -> np.ndarray:
        """(n_samples, n_latent) posterior means."""
        return self.frame[[f"z{d + 1}" for d in range(self.n_latent)]].to_numpy(float)

    @property
    def z_sd(self) -> np.ndarray:
        """(n_samples, n_latent) posterior standard deviations."""
        return self.frame[[f"z{d + 1}_sd" for d in range(self.n_latent)]].to_numpy(float)

    def select(self, samples: np.ndarray) -> EmbeddingTable:
        """Keep the samples of a (n_samples,) boolean mask."""
        frame = self.frame[samples].reset_index(drop=True)
        classes = None if self.classes is None else self.classes[samples].reset_index(drop=True)
        on_map = None if self.classes_on_map is None else self.classes_on_map[samples]
        draws = None if self.draws is None else self.draws[:, samples]
        return EmbeddingTable(
            frame, self.n_latent, self.pcs[samples], self.elbo[samples], classes, on_map, draws
        )

    @classmethod
    def concat(cls, tables: Sequence[EmbeddingTable]) -> EmbeddingTable:
        """One table of several of one model, as they come."""
        first = tables[0]
        if len(tables) == 1:
            return first

        def joined(name: str, axis: int = 0) -> Any:
            parts = [getattr(table, name) for table in tables]
            return None if parts[0] is None else np.concatenate(parts, axis)

        classes = first.classes
        if classes is not None:
            classes = pd.concat([table.classes for table in tables], ignore_index=True)
        return cls(
            pd.concat([table.frame for table in tables], ignore_index=True),
            first.n_latent,
            joined("pcs"),
            joined("elbo"),
            classes,
            joined("classes_on_map"),
            joined("draws", 1),
        )

    def with_labels(self, labels: pd.DataFrame) -> EmbeddingTable:
        """Add label columns; `labels` has this table's sample ids as index, in the same order."""
        joined = pd.concat([self.frame, labels.reset_index(drop=True)], axis=1)
        return replace(self, frame=joined)


@dataclass(frozen=True)
class ReferencePlaces:
    """Where the labelled training samples are on the map, without their ids.

    Attributes
    ----------
    z
        (n, D) float32.
    population, superpopulation
        (n,) str; "" where there is none.
    """

    z: np.ndarray
    population: np.ndarray
    superpopulation: np.ndarray

"""Regions and modes of `embedding.csv` on draws of known Gaussians: how often a mode is found that
is there or not, and how large areas are beside the true ones.

A case is one Gaussian, or two of unit covariance, the lesser with this share of the mass. The true
90 % region of Gaussians that do not overlap, with weights w_m, is bounded by the density c, in
units of a Gaussian's peak, of

    sum_m w_m F(r_m^2) = .9        r_m^2 = 2 max(0, ln(w_m / c)), F the chi-square distribution

    python benchmarks/regions.py
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import common
import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2

from ancestry_ddvi import __version__
from ancestry_ddvi.credible import MASS, regions

CASES = ((0.0, 0.0), (4.0, 0.5), (5.0, 0.5), (6.0, 0.5), (6.0, 0.2), (6.0, 0.1), (6.0, 0.02))
"""Standard deviations apart, share of the lesser; the first is one Gaussian."""


def draw(
    n_draws: int, n_samples: int, n_latent: int, apart: float, share: float, seed: int
) -> np.ndarray:
    """(n_draws, n_samples, n_latent)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_draws, n_samples, n_latent))
    z[..., 0] += apart * (rng.random((n_draws, n_samples)) < share)
    return z


def true_area(share: float, n_latent: int) -> float:
    """Length or area of the 90 % region of Gaussians far apart, in units of one's."""
    weights = np.array([w for w in (1 - share, share) if w > 0])

    def squared(c: float) -> np.ndarray:
        return 2 * np.log(np.maximum(weights / c, 1))

    c = brentq(lambda c: weights @ chi2.cdf(squared(c), n_latent) - MASS, 1e-9, 1)
    one = chi2.ppf(MASS, n_latent)
    return float((squared(c) ** (n_latent / 2)).sum() / one ** (n_latent / 2))


def measure(n_draws: int, n_samples: int, n_latent: int, seed: int) -> list[dict[str, Any]]:
    rows = []
    one = {1: 2.0, 2: np.pi}[n_latent] * chi2.ppf(MASS, n_latent) ** (n_latent / 2)
    for apart, share in CASES:
        z = draw(n_draws, n_samples, n_latent, apart, share, seed)
        start = time.process_time()
        found = regions(z)
        rows.append(
            {
                "latents": n_latent,
                "draws": n_draws,
                "apart": apart,
                "share": share,
                "modes": {str(k): float((found.n_modes == k).mean()) for k in (1, 2)},
                "area": float(found.area.mean() / one),
                "true_area": true_area(share, n_latent) if apart in (0, 6) else None,
                "cpu_seconds": time.process_time() - start,
            }
        )
    return rows


def markdown(rows: Sequence[dict[str, Any]], n_samples: int, command: str) -> str:
    cells = [
        [
            "one Gaussian" if not row["share"] else f"{row['apart']:g} sd apart, {row['share']:g}",
            str(row["latents"]),
            str(row["draws"]),
            *(f"{row['modes'][k]:.3f}" for k in ("1", "2")),
            f"{1 - sum(row['modes'].values()):.3f}",
            f"{row['area']:.2f}",
            "" if row["true_area"] is None else f"{row['true_area']:.2f}",
        ]
        for row in rows
    ]
    header = ["posterior", "latents", "draws", "1 mode", "2 modes", "more", "area", "true area"]
    seconds = max(row["cpu_seconds"] for row in rows if row["draws"] == 200)
    return f"""# Regions and modes of known posteriors

{n_samples:,} posteriors a row: share of them with so many modes, and the mean area of the 90 %
region in units of one Gaussian's (with one latent, the length). Of two Gaussians the number is the
share of the mass that the lesser has. {n_samples:,} posteriors of 200 draws took {seconds:.1f} CPU
seconds at most.

{common.table(header, cells)}

Command: `{command}`
"""


@click.command(help=__doc__)
@click.option("--samples", default=5000, show_default=True, help="Posteriors of each case.")
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
def main(samples: int, seed: int, out: Path) -> None:
    rows = [
        row
        for n_draws in (200, 50)
        for n_latent in (1, 2)
        for row in measure(n_draws, samples, n_latent, seed)
    ]
    settings = {
        "samples": samples,
        "seed": seed,
        "version": __version__,
        "versions": common.versions(),
    }
    common.write_json(out / "regions.json", {"settings": settings, "rows": rows})
    command = "python benchmarks/regions.py"
    command += f" --samples {samples}" * (samples != 5000) + f" --seed {seed}" * (seed != 0)
    text = markdown(rows, samples, command)
    common.write_text(out / "regions.md", text)
    click.echo(text)


if __name__ == "__main__":
    main()

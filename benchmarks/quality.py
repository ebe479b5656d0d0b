"""Score the map and its peers on the bundled data, over several seeds.

All methods are fitted to the same samples, but not to the same features: the peers see the
principal components of all samples, as is customary, and ours those of single regions, too
(`ancestry-ddvi compare` gives all of them to all methods). A run that was interrupted goes on where
it stopped; results of other settings, code or data are refused (`--fresh` starts over).

    python benchmarks/quality.py --seeds 5
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import click
import common
import numpy as np
import pandas as pd

from ancestry_ddvi import GenotypeMatrix, fit_embedding, read_genotypes, read_labels
from ancestry_ddvi.baselines import reductions
from ancestry_ddvi.baselines.reductions import Fitted, pca, tsne, umap
from ancestry_ddvi.fitting import EmbedConfig
from ancestry_ddvi.preprocessing.fst import hudson_fst_matrix
from ancestry_ddvi.reporting import map_scores, metrics, scores
from ancestry_ddvi.reporting.map_scores import score_held_out, score_in_sample
from ancestry_ddvi.reporting.scores import N_COMPONENTS, clustering_scores, purity_ceiling

OURS = "DDVI (ours)"
PEERS: dict[str, Callable[[np.ndarray, int], Fitted]] = {
    "PCA, 2 components": pca,
    "PCA, 10 components": partial(pca, n_latent=10),
    "UMAP": umap,
    "t-SNE": tsne,
}
HOLDOUT = 0.2
COLUMNS = {
    "rms_10_nmi": "NMI",
    "rms_10_purity": "purity",
    "rms_10_completeness": "completeness",
    "rms_10_homogeneity": "homogeneity",
    "rms_10_ari": "ARI",
    "rms_10_superpopulation_nmi": "NMI, superpopulations",
    "knn_population": "kNN-26",
    "knn_superpopulation": "kNN-5",
    "fst_rank_correlation": "FST rank corr.",
}
Z_SCORE_COLUMNS = {
    k.replace("rms_10", "z_score"): v for k, v in COLUMNS.items() if k.startswith("rms_10")
}
HELD_OUT_COLUMNS = {"knn_population": "kNN-26", "knn_superpopulation": "kNN-5"}
BOUND_COLUMNS = {
    "elbo": "ELBO, fit to all",
    "held_out.elbo_in_sample": "ELBO, trained on",
    "held_out.elbo_held_out": "ELBO, held out",
    "mean_sd": "mean posterior sd",
    "held_out.mean_sd": "mean posterior sd, held out",
}
FLOORS = {
    "rms_10_nmi": 0.85,
    "rms_10_purity": 0.66,
    "rms_10_superpopulation_nmi": 0.975,
    "knn_population": 0.78,
    "fst_rank_correlation": 0.80,
}
HELD_OUT_FLOORS = {"knn_population": 0.77}


class Bench:
    """Genotypes with labels, settings, and the file that the scores go to."""

    def __init__(self, out: Path, config: EmbedConfig, n_samples: int | None) -> None:
        self.path = out / "quality.json"
        self.config = config
        self.n_samples = n_samples
        self.genotypes: GenotypeMatrix = read_genotypes(common.GENOTYPES)
        if n_samples:
            order = np.random.default_rng(0).permutation(self.genotypes.n_samples)
            self.genotypes = self.genotypes.select(samples=np.sort(order[:n_samples]))
        panel = read_labels(common.PANEL, self.genotypes.sample_id).frame
        self.labels = {
            "population": panel["pop"].to_numpy(str),
            "superpopulation": panel["super_pop"].to_numpy(str),
        }
        self.fst: pd.DataFrame = hudson_fst_matrix(self.genotypes, self.labels["population"])

    def settings(self) -> dict[str, Any]:
        """What results have to agree on to stand in one table."""
        return {
            "data": common.relative(common.GENOTYPES),
            "data_sha256": self.genotypes.source["sha256"],
            "panel_sha256": common.digest(common.PANEL),
            "n_samples": self.genotypes.n_samples,
            "n_variants": self.genotypes.n_variants,
            "config": common.stored(asdict(self.config)),
            "holdout": HOLDOUT,
            "code": common.code_digest("ddvi", "preprocessing"),
            "scorers": common.digest(
                *(Path(module.__file__) for module in (map_scores, metrics, scores, reductions))
            ),
            "versions": common.versions(),
        }

    def run(self, seed: int, split: str) -> None:
        """Fit, score and record whatever of one seed and split is missing."""
        done = common.read_json(self.path)["methods"]
        missing = [m for m in (OURS, *PEERS) if split not in done.get(m, {}).get(str(seed), {})]
        if not missing:
            return
        holdout = HOLDOUT if split == "held_out" else 0.0
        fitted = fit_embedding(self.genotypes, replace(self.config, seed=seed, holdout=holdout))
        # Relatives of training samples are in neither: they would flatter both scores.
        trained_on, held_out, x = fitted.trained_on, fitted.held_out, fitted.features.x
        x = x[:, : fitted.table.pcs.shape[1]]
        labels = [values[trained_on] for values in self.labels.values()]
        for method in missing:
            extra = {}
            if method == OURS:
                train, new = fitted.table.z[trained_on], fitted.table.z[held_out]
                extra = self._bound(fitted.table.elbo, fitted.table.z_sd, trained_on, held_out)
            else:
                peer = PEERS[method](x[trained_on], seed)
                train, new = peer.train, peer.transform(x[held_out])
            if split == "held_out":
                row = score_held_out(train, new, trained_on, held_out, self.labels)
            else:
                row = score_in_sample(train, *labels, self.fst, seed)
            common.record(self.path, ["methods", method, str(seed), split], row | extra)
            shown = " ".join(f"{k} {row[k]:.3f}" for k in row if k in COLUMNS)
            click.echo(f"seed {seed}, {split}, {method}: {shown}")

    def _bound(
        self, elbo: np.ndarray, sd: np.ndarray, trained_on: np.ndarray, held_out: np.ndarray
    ) -> dict[str, float]:
        if not held_out.any():
            return {"elbo": float(elbo[trained_on].mean()), "mean_sd": float(sd[trained_on].mean())}
        return {
            "elbo_in_sample": float(elbo[trained_on].mean()),
            "elbo_held_out": float(elbo[held_out].mean()),
            "mean_sd": float(sd[held_out].mean()),
        }

    def references(self) -> dict[str, dict[str, float]]:
        """What labels alone would score."""
        fine, coarse = self.labels["population"], self.labels["superpopulation"]
        oracle = clustering_scores(fine, coarse)
        return {
            "superpopulation oracle": {f"rms_10_{k}": v for k, v in oracle.items()},
            "purity ceiling": {"rms_10_purity": purity_ceiling(fine, N_COMPONENTS)},
        }


def values_of(seeds: dict[str, Any], split: str, column: str) -> list[float]:
    """One score of every seed; `held_out.name` looks into that split."""
    if column.startswith("held_out."):
        split, column = "held_out", column.removeprefix("held_out.")
    rows = (seed.get(split, {}) for _, seed in sorted(seeds.items()))
    return [row[column] for row in rows if column in row]


def floors(ours: dict[str, Any]) -> list[list[str]]:
    """Every floor beside our median, unrounded when compared: a row each."""
    rows = []
    for split, title, least, names in (
        ("in_sample", "", FLOORS, COLUMNS),
        ("held_out", ", held-out", HELD_OUT_FLOORS, HELD_OUT_COLUMNS),
    ):
        for column, floor in least.items():
            measured = median(values_of(ours, split, column))
            verdict = "met" if measured >= floor else "missed"
            rows.append([names[column] + title, f"{floor:.3f}", f"{measured:.4f}", verdict])
    return rows


def markdown(results: dict[str, Any], command: str) -> str:
    """Every table: median over seeds and [least, most]."""
    methods, references = results["methods"], results["references"]

    def cells(seeds: dict[str, Any], split: str, columns: dict[str, str]) -> list[str]:
        return [common.spread(values_of(seeds, split, c)) for c in columns]

    def rows(split: str, columns: dict[str, str]) -> list[list[str]]:
        return [[name, *cells(seeds, split, columns)] for name, seeds in methods.items()]

    def fixed(name: str, values: dict[str, float], columns: dict[str, str]) -> list[str]:
        return [name, *(f"{values[c]:.3f}" if c in values else "" for c in columns)]

    seeds = sorted(int(s) for s in methods[OURS])
    settings = results["settings"]
    which = common.settings_in_words(settings["config"], EmbedConfig())
    in_sample = [fixed("**floor for DDVI**", FLOORS, COLUMNS), *rows("in_sample", COLUMNS)]
    in_sample += [fixed(name, values, COLUMNS) for name, values in references.items()]
    held_out = [fixed("**floor for DDVI**", HELD_OUT_FLOORS, HELD_OUT_COLUMNS)]
    held_out += rows("held_out", HELD_OUT_COLUMNS)
    bound = [[OURS, *cells(methods[OURS], "in_sample", BOUND_COLUMNS)]]
    return f"""# Quality of the map

`{settings["data"]}`: {settings["n_samples"]:,} samples, {settings["n_variants"]:,} SNPs;
of close relatives (KING-robust, second degree) only a set without a pair is learnt from and scored;
{which}; seeds {", ".join(map(str, seeds))}. Cells: median over seeds [least, most].

All methods are fitted to the same samples, but not to the same features. The peers see
{settings["config"]["features"]["n_pcs"]} principal components of all samples (after filters and LD
pruning, corrected for shrinkage), as is customary; ours sees components of single regions, too.
`comparison.md` has every method on all of these columns. UMAP and t-SNE (openTSNE) run with their
defaults, and "PCA" is the first columns. No method sees a label.

## In-sample: fitted to all samples, which are then scored

{common.table(["method", *COLUMNS.values()], in_sample)}

NMI to ARI: Gaussian mixture of {N_COMPONENTS} (full covariances, reg_covar 1e-2, 10 starts,
random_state 2) on axes at RMS 10, against 26 populations. NMI, superpopulations: a mixture of as
many components as superpopulations, against these. kNN: vote of the 15 nearest neighbours, 5
stratified folds of the labels; the map itself has seen all samples. FST rank corr.: Spearman
correlation between the distances of population centroids and Hudson FST. Superpopulation oracle: a
clustering that knows the superpopulation and nothing else. Purity ceiling: the best that
{N_COMPONENTS} clusters could reach.

The same mixtures on z-scored axes (reg_covar is an absolute variance, so scale matters):

{common.table(["method", *Z_SCORE_COLUMNS.values()], rows("in_sample", Z_SCORE_COLUMNS))}

## Held-out: {settings["holdout"]:.0%} of the samples, from which nothing was learnt

{common.table(["method", *HELD_OUT_COLUMNS.values()], held_out)}

Filters, pruning, components and map are learnt from the others; each held-out sample is then placed
on the map (UMAP and t-SNE by their own `transform`) and its label voted by its 15 nearest training
samples. The split follows from the seed.

## Likelihood and uncertainty

{common.table(["method", *BOUND_COLUMNS.values()], bound)}

Mean evidence lower bound of log p(x) in nats, {settings["config"]["n_draws"]} draws of the chain a
sample. "Trained on" and "held out" are samples of one fit; in "fit to all" the features are others,
and so is their scale.

## Floors

{common.table(["median over seeds", "floor", "measured", ""], floors(methods[OURS]))}

Command: `{command}`
"""


@click.command(help=__doc__)
@click.option("--seeds", default=5, show_default=True, help="Seeds from 0.")
@click.option("--samples", type=int, help="A random cut of the data: a test of the script only.")
@click.option("--steps", type=int, help="Steps of each training phase: a test of the script only.")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--fresh", is_flag=True, help="Forget earlier results.")
def main(seeds: int, samples: int | None, steps: int | None, out: Path, fresh: bool) -> None:
    config = EmbedConfig()
    if steps is not None:
        training = replace(config.training, map_steps=steps, posterior_steps=steps)
        config = replace(config, training=training)
    bench = Bench(out, config, samples)
    if not common.earlier_results(bench.path, bench.settings(), fresh=fresh):
        start = {"settings": bench.settings(), "references": bench.references(), "methods": {}}
        common.write_json(bench.path, start)
    for seed in range(seeds):
        for split in ("in_sample", "held_out"):
            bench.run(seed, split)
    command = f"python benchmarks/quality.py --seeds {seeds}"
    command += f" --samples {samples}" if samples else ""
    command += f" --steps {steps}" if steps is not None else ""
    results = common.read_json(bench.path)
    common.write_text(out / "quality.md", markdown(results, command))
    for row in floors(results["methods"][OURS]):
        click.echo("floor, " + " ".join(row))


if __name__ == "__main__":
    main()

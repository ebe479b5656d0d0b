"""Place held-out samples on a labelled reference: calls, their calibration, coverage, novelty.

For each seed a fifth of the samples is held out and everything else (filters, frequencies,
components, map, calls, calibration) is learnt from the others. Then the held-out ones are placed by
all sites and by random panels of fewer, the same sites for every sample as on an array. Beside our
calls stand the usual ways from the same samples and sites. A run that was interrupted goes on.

    python benchmarks/reference.py --seeds 5
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import click
import common
import numpy as np
import pandas as pd
import torch

from ancestry_ddvi import GenotypeMatrix, fit_embedding, read_genotypes, read_labels
from ancestry_ddvi.ancestry import AncestryCaller, CallConfig
from ancestry_ddvi.baselines.discrepancy import region_level
from ancestry_ddvi.checkpoint import EmbeddingModel
from ancestry_ddvi.ddvi.objective import dream
from ancestry_ddvi.pipeline import EmbedConfig, FittedEmbedding, with_calls

HOLDOUT = 0.2
OURS = "ancestry-ddvi"
PANELS: dict[str, float] = {"all": 1.0, "10 %": 0.1, "1 %": 0.01, "128": 128.0}
"""Share of the sites, or their number."""

N_BINS = 10
CONFIDENT = 0.9
REGION = 0.9
N_DRAWS = 200
N_SIMULATED = 2000

GOALS = {
    "all": {"superpopulation": 0.998, "population": 0.82, "coverage": 0.02, "error": 0.03},
    "10 %": {"superpopulation": 0.995, "population": 0.68, "coverage": 0.02, "error": 0.03},
    "1 %": {"superpopulation": 0.95, "population": 0.40, "coverage": 0.03, "error": 0.05},
    "128": {"superpopulation": 0.85, "coverage": 0.03, "error": 0.05},
}
FLOORS = {
    "all": {"superpopulation": 0.995, "population": 0.78, "coverage": 0.05, "error": 0.05},
    "10 %": {"superpopulation": 0.99, "coverage": 0.05, "error": 0.05},
    "1 %": {"superpopulation": 0.90, "coverage": 0.05, "error": 0.05, "confidently wrong": 0.01},
    "128": {"coverage": 0.05, "error": 0.05},
}


@dataclass(frozen=True)
class Placed:
    """Probabilities (n, L) of the held-out samples by one way, columns named."""

    population: pd.DataFrame
    superpopulation: pd.DataFrame

    @classmethod
    def of_populations(cls, p: np.ndarray, names: Sequence[str], group: dict[str, str]) -> Placed:
        """Superpopulations from the sums of their populations."""
        table = pd.DataFrame(p, columns=list(names))
        return cls(table, table.T.groupby(lambda name: group[name]).sum().T)


Peer = Callable[["Task"], Placed]


@dataclass(frozen=True)
class Task:
    """What a peer may see.

    Attributes
    ----------
    train, new
        (n, m), (k, m) dosages at the sites of the panel.
    train_pcs, new_pcs
        (n, K), (k, K) shrinkage-corrected components, those of new samples from the panel alone.
    population, superpopulation
        (n,) labels.
    seed
        For what is random.
    """

    train: np.ndarray
    new: np.ndarray
    train_pcs: np.ndarray
    new_pcs: np.ndarray
    population: np.ndarray
    superpopulation: np.ndarray
    seed: int

    def classified(self, make: Callable[[], Any], train: np.ndarray, new: np.ndarray) -> Placed:
        """Probabilities by a fresh classifier of either level."""
        tables = []
        for label in (self.population, self.superpopulation):
            model = make().fit(train, label)
            tables.append(pd.DataFrame(model.predict_proba(new), columns=model.classes_))
        return Placed(*tables)


def neighbours(task: Task) -> Placed:
    """Vote of the 15 nearest on 20 shrinkage-corrected components."""
    from sklearn.neighbors import KNeighborsClassifier

    return task.classified(lambda: KNeighborsClassifier(15), task.train_pcs, task.new_pcs)


def peddy(task: Task) -> Placed:
    """Four components of the shared sites and a support vector machine (Pedersen & Quinlan
    2017)."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.decomposition import PCA
    from sklearn.svm import SVC

    pca = PCA(4, whiten=True, svd_solver="randomized", random_state=task.seed)
    train = pca.fit_transform(task.train.astype(np.float32))
    new = pca.transform(task.new.astype(np.float32))
    # What SVC(probability=True) was, which later versions do not have.
    return task.classified(lambda: CalibratedClassifierCV(SVC(C=2), ensemble=False), train, new)


def forest(task: Task) -> Placed:
    """A random forest on projected components, as gnomAD does (Karczewski et al. 2020)."""
    from sklearn.ensemble import RandomForestClassifier

    return task.classified(
        lambda: RandomForestClassifier(100, random_state=task.seed), task.train_pcs, task.new_pcs
    )


PEERS: dict[str, Peer] = {
    "20 components + 15 neighbours": neighbours,
    "PCA + SVM (as peddy)": peddy,
    "20 components + random forest (as gnomAD)": forest,
}


class Bench:
    """Genotypes with labels, and the file that everything goes to."""

    def __init__(self, out: Path, config: EmbedConfig, n_samples: int | None) -> None:
        self.path = out / "reference.json"
        self.config = config
        self.genotypes: GenotypeMatrix = read_genotypes(common.GENOTYPES)
        if n_samples:
            order = np.random.default_rng(0).permutation(self.genotypes.n_samples)
            self.genotypes = self.genotypes.select(samples=np.sort(order[:n_samples]))
        panel = read_labels(common.PANEL, self.genotypes.sample_id).frame.reset_index(drop=True)
        self.population, self.superpopulation = panel["pop"], panel["super_pop"]

    def settings(self) -> dict[str, Any]:
        """What results have to agree on to stand in one table."""
        return {
            "data": common.relative(common.GENOTYPES),
            "data_sha256": self.genotypes.source["sha256"],
            "panel_sha256": common.digest(common.PANEL),
            "n_samples": self.genotypes.n_samples,
            "n_variants": self.genotypes.n_variants,
            "config": common.stored(asdict(self.config)),
            "calling": asdict(CallConfig()),
            "holdout": HOLDOUT,
            "code": common.code_digest("ancestry", "ddvi", "preprocessing"),
            "versions": common.versions(),
        }

    def panel(self, size: float, seed: int) -> np.ndarray:
        """(m,) sites."""
        m = self.genotypes.n_variants
        n = round(size * m) if size <= 1 else min(int(size), m)
        return np.sort(np.random.default_rng([seed, n]).permutation(m)[:n])

    def place(self, seed: int) -> dict[str, Any]:
        """Fit to the training samples of a seed, and place the others by every panel."""
        config = replace(self.config, seed=seed, holdout=HOLDOUT)
        fitted = fit_embedding(self.genotypes, config)
        model = with_calls(fitted, self.genotypes, self.population, self.superpopulation, seed)
        new = self.genotypes.select(samples=fitted.held_out)
        full = model.embed(new, n_draws=N_DRAWS, seed=seed).z
        return {
            name: self._place(seed, fitted, model, new, full, self.panel(size, seed))
            for name, size in PANELS.items()
        }

    def _place(
        self,
        seed: int,
        fitted: FittedEmbedding,
        model: EmbeddingModel,
        new: GenotypeMatrix,
        full: np.ndarray,
        sites: np.ndarray,
    ) -> dict[str, Any]:
        assert model.caller is not None
        seen = new.select(variants=sites)
        calls = model.caller.call(seen)
        ours = Placed(calls.population, calls.group)
        features = model.extractor.transform(seen)
        table = model.embed_features(
            features, seen.sample_id, n_draws=N_DRAWS, seed=seed, keep_draws=True
        )
        train, held = fitted.trained_on, fitted.held_out
        n_pcs = fitted.table.pcs.shape[1]
        known = self.genotypes.select(samples=train, variants=sites)
        truth = self.population[held].to_numpy(str), self.superpopulation[held].to_numpy(str)
        task = Task(
            known.dosage,
            seen.dosage,
            fitted.features.x[train, :n_pcs],
            features.x[:, :n_pcs],
            self.population[train].to_numpy(str),
            self.superpopulation[train].to_numpy(str),
            seed,
        )
        row: dict[str, Any] = {OURS: scores(ours, *truth)}
        row |= {name: scores(peer(task), *truth) for name, peer in PEERS.items()}
        called = calls.frame()
        row[OURS] |= {
            "called outside": float((called["superpopulation"] == "outside reference").mean()),
            "uncertain": float((called["superpopulation"] == "uncertain").mean()),
        }
        generator = torch.Generator().manual_seed(seed)
        assert table.draws is not None
        level = region_level(
            torch.as_tensor(table.draws), torch.as_tensor(full, dtype=torch.float32), generator
        )
        row["coverage"] = float((level <= REGION).double().mean())
        row["simulated"] = simulated(model, float(np.median(features.noise)), seed)
        row["n_sites"] = len(sites)
        row["n_samples"] = int(held.sum())
        return row

    def leave_out(self, group: str, seed: int) -> dict[str, Any]:
        """Call the samples of a superpopulation by a reference that has none of it."""
        novel = (self.superpopulation == group).to_numpy()
        drawn = np.random.default_rng(seed).random(len(novel)) < HOLDOUT
        caller = AncestryCaller.learn(
            self.genotypes, self.population, self.superpopulation, ~novel & ~drawn, seed
        )
        assert caller is not None
        row = {}
        for name, size in PANELS.items():
            seen = self.genotypes.select(variants=self.panel(size, seed))
            outside = caller.call(seen).frame()["superpopulation"] == "outside reference"
            row[name] = {
                "novel": float(outside[novel].mean()),
                "others": float(outside[~novel & drawn].mean()),
            }
        return row


def scores(placed: Placed, population: np.ndarray, superpopulation: np.ndarray) -> dict[str, Any]:
    """Accuracy, bins of calibration and confident mistakes of both levels."""
    row: dict[str, Any] = {}
    for level, truth in (("population", population), ("superpopulation", superpopulation)):
        table = getattr(placed, level)
        p = table.to_numpy()
        correct = table.columns.to_numpy(str)[p.argmax(axis=1)] == truth
        most = p.max(axis=1)
        at = np.clip((most * N_BINS).astype(int), 0, N_BINS - 1)
        row[level] = {
            "accuracy": float(correct.mean()),
            "confidently wrong": float(((most >= CONFIDENT) & ~correct).mean()),
            "bins": [
                [int((at == b).sum()), float(most[at == b].sum()), int(correct[at == b].sum())]
                for b in range(N_BINS)
            ],
        }
    return row


def simulated(model: EmbeddingModel, noise: float, seed: int) -> dict[str, float]:
    """Simulation-based calibration (Talts et al. 2018): z from the prior, x from the decoder."""
    generator = torch.Generator().manual_seed(seed + 1)
    level = torch.full((N_SIMULATED,), noise)
    with torch.no_grad():
        z, x = dream(model.model.prior, model.model.decoder, level, generator)
    draws = model.model.sample_posterior(x.numpy(), level.numpy(), n_draws=N_DRAWS, seed=seed)
    at = region_level(torch.as_tensor(draws), z, generator)
    row = {"coverage": float((at <= REGION).double().mean())}
    for d in range(z.shape[1]):
        below = (draws[:, :, d] < z[:, d].numpy()).sum(axis=0)
        row[f"rank of z{d + 1}, distance from uniform"] = uniform_distance(below, N_DRAWS)
    row["level of regions, distance from uniform"] = uniform_distance(
        (at.numpy() * N_DRAWS).astype(int), N_DRAWS
    )
    return row


def uniform_distance(rank: np.ndarray, most: int) -> float:
    """Kolmogorov's distance of ranks 0 to `most` from a uniform distribution."""
    counted = np.bincount(rank, minlength=most + 1) / len(rank)
    return float(np.abs(counted.cumsum() - np.arange(1, most + 2) / (most + 1)).max())


def pooled_error(rows: Sequence[dict[str, Any]]) -> float:
    """Expected calibration error (Naeini et al. 2015) over the samples of all seeds."""
    bins = np.sum([row["bins"] for row in rows], axis=0)
    return float(np.abs(bins[:, 1] - bins[:, 2]).sum() / bins[:, 0].sum())


def summary(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By panel: means over seeds, calibration over the samples of all."""
    seeds = [results["seeds"][s] for s in sorted(results["seeds"], key=int)]
    found = {}
    for panel in PANELS:
        rows = [seed[panel] for seed in seeds]
        ways = {}
        for way in (OURS, *PEERS):
            levels = {
                level: [row[way][level] for row in rows]
                for level in ("population", "superpopulation")
            }
            ways[way] = {
                f"{level} {name}": value
                for level, of in levels.items()
                for name, value in (
                    ("accuracy", mean(r["accuracy"] for r in of)),
                    ("calibration error", pooled_error(of)),
                    ("confidently wrong", mean(r["confidently wrong"] for r in of)),
                )
            }
        ways[OURS] |= {
            name: mean(row[OURS][name] for row in rows) for name in ("called outside", "uncertain")
        }
        found[panel] = {
            "n_sites": rows[0]["n_sites"],
            "ways": ways,
            "coverage": mean(row["coverage"] for row in rows),
            "simulated": {
                name: mean(row["simulated"][name] for row in rows) for name in rows[0]["simulated"]
            },
        }
    return found


def card(results: dict[str, Any]) -> dict[str, Any]:
    """What the shipped model says of itself."""
    found = summary(results)
    settings = results["settings"]
    return {
        "from": f"benchmarks/reference.py, {len(results['seeds'])} seeds: models like this one, "
        f"trained without {HOLDOUT:.0%} of the {settings['n_samples']:,} samples, which were "
        "then placed",
        "table": [
            {
                "sites": row["n_sites"],
                "superpopulation accuracy": row["ways"][OURS]["superpopulation accuracy"],
                "population accuracy": row["ways"][OURS]["population accuracy"],
                "superpopulation calibration error": row["ways"][OURS][
                    "superpopulation calibration error"
                ],
                "population calibration error": row["ways"][OURS]["population calibration error"],
                "coverage of 90 % regions, simulated": row["simulated"]["coverage"],
            }
            for row in found.values()
        ],
        "superpopulation left out, called outside (all sites)": {
            group: f"{mean(r['all']['novel'] for r in runs.values()):.2f}"
            for group, runs in results.get("left_out", {}).items()
        },
    }


def verdicts(results: dict[str, Any]) -> list[list[str]]:
    """Every figure that has a goal or a floor."""
    rows = []
    for panel, row in summary(results).items():
        ours = row["ways"][OURS]
        error = max(
            ours[f"{level} calibration error"] for level in ("population", "superpopulation")
        )
        # By all sites a region holds its own mean, which says nothing.
        places = row["simulated"] if panel == "all" else row
        measured = {
            "superpopulation": ours["superpopulation accuracy"],
            "population": ours["population accuracy"],
            "coverage": abs(places["coverage"] - REGION),
            "error": error,
            "confidently wrong": ours["superpopulation confidently wrong"],
        }
        titles = {
            "superpopulation": "superpopulation accuracy",
            "population": "population accuracy",
            "coverage": f"coverage ({'simulated' if panel == 'all' else 'held-out'}), from .90",
            "error": "calibration error, the larger of both levels",
            "confidently wrong": "superpopulation wrong at >= .9",
        }
        for name, title in titles.items():
            cells = []
            for limits in (FLOORS, GOALS):
                limit = limits[panel].get(name)
                if limit is None:
                    cells.append("")
                    continue
                more = name in ("superpopulation", "population")
                met = measured[name] >= limit if more else measured[name] <= limit
                cells.append(f"{limit:g} {'met' if met else 'missed'}")
            if any(cells):
                rows.append([f"{panel}: {title}", f"{measured[name]:.4f}", *cells])
    return rows


def markdown(results: dict[str, Any], command: str) -> str:
    """Every table."""
    found, settings = summary(results), results["settings"]
    which = common.settings_in_words(settings["config"], EmbedConfig())
    ways = []
    for panel, row in found.items():
        for way, values in row["ways"].items():
            ways.append(
                [
                    f"{panel} ({row['n_sites']:,}): {way}",
                    *(
                        f"{values[f'{level} {name}']:.3f}"
                        for level in ("superpopulation", "population")
                        for name in ("accuracy", "calibration error", "confidently wrong")
                    ),
                ]
            )
    coverage = [
        [
            panel,
            f"{row['coverage']:.3f}",
            *(f"{value:.3f}" for value in row["simulated"].values()),
            f"{row['ways'][OURS]['called outside']:.3f}",
            f"{row['ways'][OURS]['uncertain']:.3f}",
        ]
        for panel, row in found.items()
    ]
    left_out = [
        [
            group,
            *(
                f"{mean(r[panel]['novel'] for r in runs.values()):.3f} / "
                f"{mean(r[panel]['others'] for r in runs.values()):.3f}"
                for panel in PANELS
            ),
        ]
        for group, runs in results.get("left_out", {}).items()
    ]
    of_simulation = list(next(iter(found.values()))["simulated"])
    return f"""# Placing samples on a labelled reference

`{settings["data"]}`: {settings["n_samples"]:,} samples, {settings["n_variants"]:,} SNPs; {which};
seeds {", ".join(sorted(results["seeds"], key=int))}. All figures are of held-out samples
({
        settings[
            "holdout"
        ]:.0%}, from which nothing was learnt, close relatives of training samples left out).
Panels are random sites, the same for all samples of a seed, other ones for each seed.

## Calls

{
        common.table(
            [
                "sites: way",
                *(
                    f"{level}: {name}"
                    for level in ("superpop.", "pop.")
                    for name in ("accuracy", "calibration error", "wrong at >= .9")
                ),
            ],
            ways,
        )
    }

Accuracy and mistakes: means over seeds; expected calibration error (ten bins) over the samples of
all seeds. Neighbours: votes of 15 on 20 shrinkage-corrected components, those of new samples by
least squares on the panel. PCA + SVM: four whitened components of the panel's sites, learnt anew,
and scikit-learn's SVC(C=2) with Platt's
probabilities. Random forest: 100 trees on the same 20 components.

## Uncertainty of places

{
        common.table(
            [
                "sites",
                "90 % region holds the place by all sites",
                *(f"simulated: {name}" for name in of_simulation),
                "called outside",
                "uncertain",
            ],
            coverage,
        )
    }

First column: whether the region of a held-out sample, by the panel, holds its posterior mean by all
sites. Simulated: z from the prior and x from the decoder with the panel's median noise, {
        N_SIMULATED
    }
times; coverage, and Kolmogorov distance of the ranks of the true z among {
        N_DRAWS
    } draws (.02 to .03
is chance).

## A superpopulation left out

{common.table(["left out", *(f"{p}: novel / others" for p in PANELS)], left_out)}

Share called `outside reference` among its samples, and among held-out ones of the others.

## Floors and goals

{common.table(["figure", "measured", "floor", "goal"], verdicts(results))}

Command: `{command}`
"""


@click.command(help=__doc__)
@click.option("--seeds", default=5, show_default=True, help="Seeds from 0.")
@click.option("--samples", type=int, help="A random cut of the data: a test of the script only.")
@click.option("--steps", type=int, help="Steps of the map phase: a test of the script only.")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--fresh", is_flag=True, help="Forget earlier results.")
def main(seeds: int, samples: int | None, steps: int | None, out: Path, fresh: bool) -> None:
    torch.set_num_threads(1)
    config = EmbedConfig()
    if steps is not None:
        config = replace(config, training=replace(config.training, map_steps=steps))
    bench = Bench(out, config, samples)
    if not common.earlier_results(bench.path, bench.settings(), fresh=fresh):
        common.write_json(bench.path, {"settings": bench.settings(), "seeds": {}, "left_out": {}})
    for seed in range(seeds):
        done = common.read_json(bench.path)
        if str(seed) not in done["seeds"]:
            common.record(bench.path, ["seeds", str(seed)], bench.place(seed))
            click.echo(f"seed {seed}: placed")
        for group in sorted(bench.superpopulation.unique()):
            if str(seed) not in done["left_out"].get(group, {}):
                row = bench.leave_out(group, seed)
                common.record(bench.path, ["left_out", group, str(seed)], row)
                click.echo(f"seed {seed}, without {group}: {row}")
    results = common.read_json(bench.path)
    common.record(bench.path, ["card"], card(results))
    command = f"python benchmarks/reference.py --seeds {seeds}"
    command += f" --samples {samples}" if samples else ""
    command += f" --steps {steps}" if steps is not None else ""
    common.write_text(out / "reference.md", markdown(results, command))
    for line in verdicts(results):
        click.echo(" | ".join(line))


if __name__ == "__main__":
    main()

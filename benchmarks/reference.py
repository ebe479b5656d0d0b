"""Place held-out samples on a labelled reference: calls, their calibration, coverage, novelty.

For each seed a fifth of the samples is held out and everything else (filters, frequencies,
components, map, calls, calibration) is learnt from the others. Then the held-out ones are placed by
all sites and by random panels of fewer, the same sites for every sample as on an array. Beside our
calls stand the usual ways from the same samples and sites. A run that was interrupted goes on.

    python benchmarks/reference.py --seeds 5

The seconds of the command with the shipped model are measured at the end; `--times-only` measures
them anew beside results that are there, on a machine that is quiet. The tables are those of
`reference_tables.py`; `--tables-only` writes them anew.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import common
import numpy as np
import pandas as pd
import torch
from reference_tables import (
    CODE,
    CONFIDENT,
    HOLDOUT,
    OURS,
    PANELS,
    REGION,
    card,
    markdown,
    verdicts,
)

from ancestry_ddvi import GenotypeMatrix, fit_embedding, read_genotypes, read_labels
from ancestry_ddvi.ancestry import OUTSIDE, UNCERTAIN, AncestryCaller, CallConfig
from ancestry_ddvi.baselines.discrepancy import region_level
from ancestry_ddvi.checkpoint import EmbeddingModel
from ancestry_ddvi.ddvi.objective import dream
from ancestry_ddvi.fitting import EmbedConfig, FittedEmbedding, with_calls
from ancestry_ddvi.reference_models import MODELS
from ancestry_ddvi.writers import write_genotypes

N_BINS = 10
N_DRAWS = 200
N_SIMULATED = 2000
MODEL = "1kg"


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
            "code": common.code_digest(*CODE),
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
            "called outside": float((called["superpopulation"] == OUTSIDE).mean()),
            "uncertain": float((called["superpopulation"] == UNCERTAIN).mean()),
        }
        generator = torch.Generator().manual_seed(seed)
        assert table.draws is not None
        level = region_level(
            torch.tensor(table.draws), torch.tensor(full, dtype=torch.float32), generator
        )
        row["coverage"] = float((level <= REGION).double().mean())
        row["simulated"] = simulated(model, float(np.median(features.noise)), seed)
        row["n_sites"] = len(sites)
        row["n_samples"] = int(held.sum())
        return row

    def leave_out(self, group: str, seed: int) -> dict[str, Any]:
        """Call the samples of a superpopulation by a reference that has none of it.

        By panel, `novel` and `called`: the share of its samples that is called outside the
        reference, and as one of the others; `others`: the share of held-out samples of the others
        that is called outside.
        """
        novel = (self.superpopulation == group).to_numpy()
        drawn = np.random.default_rng(seed).random(len(novel)) < HOLDOUT
        caller = AncestryCaller.learn(
            self.genotypes, self.population, self.superpopulation, ~novel & ~drawn, seed
        )
        assert caller is not None
        row = {}
        for name, size in PANELS.items():
            seen = self.genotypes.select(variants=self.panel(size, seed))
            call = caller.call(seen).frame()["superpopulation"]
            outside = call == OUTSIDE
            row[name] = {
                "novel": float(outside[novel].mean()),
                "called": float((~outside & (call != UNCERTAIN))[novel].mean()),
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


def measure_times(genotypes: GenotypeMatrix, repeats: int) -> dict[str, Any]:
    """Seconds of the command from a cold start, for one sample and for all."""
    # Samples that the model knows would not be called.
    renamed = np.array([f"new{i}" for i in range(genotypes.n_samples)])
    new = replace(genotypes, sample_id=renamed)
    runs: list[dict[str, Any]] = []
    commands, load = [], os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for samples in ([0], range(new.n_samples)):
            path = Path(folder) / f"{len(samples)}.vcf.gz"
            write_genotypes(new.select(samples=np.array(samples)), path)
            for pictures in (True, False):
                command = [sys.executable, "-m", "ancestry_ddvi", "embed", str(path)]
                command += ["--model", MODEL, "--out", str(Path(folder) / "out"), "--force"]
                commands.append(command + ["--no-pictures"] * (not pictures))
                runs.append({"samples": len(samples), "pictures": pictures})
                runs[-1] |= {"wall_seconds": [], "cpu_seconds": []}
        for turn in range(-1, repeats):
            for command, run in zip(commands, runs, strict=True):
                done = common.run(command)
                if turn >= 0:
                    run["wall_seconds"].append(round(done.wall_seconds, 3))
                    run["cpu_seconds"].append(round(done.cpu_seconds, 3))
    return timed_now() | {"load": load, "runs": runs}


def timed_now() -> dict[str, Any]:
    """What times are of."""
    return {
        "machine": common.machine(),
        "model": MODEL,
        "model_sha256": common.digest(MODELS / MODEL / "model.json"),
        "code": common.code_digest(),
        "versions": common.versions(),
    }


def write_tables(path: Path) -> None:
    """The card and the tables of what is in the results file."""
    results = common.read_json(path)
    if not results.get("seeds"):
        raise click.ClickException(f"{path} has no results to make tables of; measure them first")
    common.record(path, ["card"], card(results))
    common.write_text(path.with_suffix(".md"), markdown(results))
    for section, rows in verdicts(results).items():
        click.echo(section)
        for row in rows:
            click.echo("  " + " | ".join(row))


@click.command(help=__doc__)
@click.option("--seeds", default=5, show_default=True, help="Seeds from 0.")
@click.option("--samples", type=int, help="A random cut of the data: a test of the script only.")
@click.option("--steps", type=int, help="Steps of the map phase: a test of the script only.")
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(min=1), help="Times.")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--fresh", is_flag=True, help="Forget earlier results.")
@click.option("--times-only", is_flag=True, help="Measure the seconds anew, and nothing else.")
@click.option("--tables-only", is_flag=True, help="Measure nothing; write the tables anew.")
def main(
    seeds: int,
    samples: int | None,
    steps: int | None,
    repeats: int,
    out: Path,
    fresh: bool,
    times_only: bool,
    tables_only: bool,
) -> None:
    torch.set_num_threads(1)
    config = EmbedConfig()
    if steps is not None:
        config = replace(config, training=replace(config.training, map_steps=steps))
    path = out / "reference.json"
    if tables_only:
        write_tables(path)
        return
    bench = Bench(out, config, samples)
    if not times_only:
        place_and_leave_out(bench, seeds, fresh)
        command = f"python benchmarks/reference.py --seeds {seeds}"
        command += f" --samples {samples}" if samples else ""
        command += f" --steps {steps}" if steps is not None else ""
        common.record(path, ["command"], command)
    earlier = common.read_json(path).get("times", {})
    if times_only or any(earlier.get(name) != now for name, now in timed_now().items()):
        common.record(path, ["times"], measure_times(bench.genotypes, repeats))
    write_tables(path)


def place_and_leave_out(bench: Bench, seeds: int, fresh: bool) -> None:
    """All seeds that are not in the results file."""
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


if __name__ == "__main__":
    main()

"""The whole comparison: features once, then every method, seed by seed, and one table of all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi import __version__
from ancestry_ddvi.comparison.methods import METHODS, Fit, Task
from ancestry_ddvi.comparison.results import Results, Row, code_digest, digest
from ancestry_ddvi.console import Console, Verbosity
from ancestry_ddvi.errors import OptionError, TrainingDivergedError, check_count
from ancestry_ddvi.fitting import EmbedConfig, LearntFeatures, learn_features, read_for
from ancestry_ddvi.genotypes import GenotypeMatrix
from ancestry_ddvi.labelling import LabelChoice
from ancestry_ddvi.loaders import ReadOptions
from ancestry_ddvi.outputs import check_replaceable
from ancestry_ddvi.preprocessing.filters import VariantCounts
from ancestry_ddvi.preprocessing.fst import hudson_fst_matrix
from ancestry_ddvi.provenance import LIBRARIES, measured
from ancestry_ddvi.reporting.comparison import write_comparison
from ancestry_ddvi.reporting.map_scores import score_held_out, score_in_sample

N_STEPS = 2000
IN_SAMPLE, HELD_OUT = "in_sample", "held_out"


@dataclass(frozen=True)
class CompareConfig:
    """All settings of a comparison; the defaults are what the command line uses.

    Attributes
    ----------
    methods
        Names in `METHODS`.
    n_seeds
        Seeds 0, 1, ...
    n_steps
        Gradient steps of every method that has such, but for `ddvi`.
    holdout
        Share of samples that are held out in a second fit of each seed; 0 for none.
    embed
        The product's settings: features, shape, draws, and the training of `ddvi`. Its own seed and
        holdout are not looked at.
    """

    methods: tuple[str, ...] = tuple(METHODS)
    n_seeds: int = 5
    n_steps: int = N_STEPS
    holdout: float = 0.2
    embed: EmbedConfig = field(default_factory=EmbedConfig)

    def __post_init__(self) -> None:
        check_count("--seeds", self.n_seeds)
        check_count("--steps", self.n_steps)
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown or not self.methods:
            raise OptionError(
                f"methods: {f'no method {unknown[0]!r}' if unknown else 'none'}; give some of "
                f"{', '.join(METHODS)}"
            )
        if not 0 <= self.holdout < 1:
            raise OptionError(f"--holdout must be at least 0 and below 1, not {self.holdout}")
        if self.embed.model.n_latent != 2:
            raise OptionError(
                f"a comparison has maps of 2 axes, not {self.embed.model.n_latent}; UMAP and t-SNE "
                "have no others"
            )

    def of_fit(self, seed: int, split: str) -> EmbedConfig:
        """The product's settings of one fit."""
        return replace(self.embed, seed=seed, holdout=self.holdout if split == HELD_OUT else 0.0)

    @property
    def splits(self) -> tuple[str, ...]:
        """Fits of one seed."""
        return (IN_SAMPLE, HELD_OUT) if self.holdout > 0 else (IN_SAMPLE,)


@dataclass(frozen=True)
class ComparisonSummary:
    """What the command prints at its end: the table as text, and where it is."""

    table: str
    out_dir: Path
    files: tuple[str, ...]


def compare_files(
    paths: Sequence[Path],
    *,
    out_dir: Path,
    config: CompareConfig,
    labels: LabelChoice | None = None,
    reading: ReadOptions | None = None,
    force: bool = False,
    console: Console | None = None,
    command: str = "",
) -> ComparisonSummary:
    """Run every method on the same features of the same samples, and write one table.

    Finished fits are kept in the folder: the same call goes on where it was interrupted.

    Parameters
    ----------
    paths
        Genotypes: a file, or several of the same samples.
    out_dir
        Output folder; results of other settings in it are replaced only with `force`.
    config
        Settings.
    labels
        Whose scores are wanted; without any there are bounds, widths and seconds only.
    reading
        What to read of the genotypes.
    force
        Start over.
    console
        Where progress goes.
    command
        The command line, for the provenance.

    Raises
    ------
    InputError
        Whatever is wrong with the input, the options or the output folder.
    """
    console = console or Console(Verbosity.QUIET)
    labels = labels or LabelChoice(None)
    check_replaceable(out_dir)
    labels.check()
    # With the share to hold out, so that too few samples are refused before anything is learnt.
    largest = config.of_fit(0, config.splits[-1])
    features = replace(largest.features, min_maf=0.0)
    everything = read_for(
        replace(largest, features=features), paths, reading or ReadOptions(), console
    )
    genotypes = _common(everything, config)
    found = labels.read(genotypes.sample_id, console)
    described = found.describe()
    known = {"population": found.population, "superpopulation": found.superpopulation}
    texts = {
        level: values.fillna("").astype(str).to_numpy(str)
        for level, values in known.items()
        if values is not None
    }
    results = Results(out_dir, _settings(genotypes, texts, described, config, reading), force=force)
    bench = _Bench(genotypes, everything, texts, config, results, console)
    try:
        bench.run()
    except KeyboardInterrupt:
        if results.methods:
            console.note(f"{out_dir}: holds the finished fits; the same command goes on from there")
        raise
    with console.stage("write the results"), results.growing() as folder:
        drawn = {name: results.places(name) for name in results.methods}
        summary = write_comparison(
            folder,
            results.methods,
            titles={name: METHODS[name].title for name in METHODS},
            data=genotypes.name,
            settings=results.state["settings"],
            places={name: z for name, z in drawn.items() if z is not None},
            sample_id=genotypes.sample_id,
            **known,
            command=command,
        )
        (folder / "run.log").write_text(
            "\n".join(console.lines) + "\n", "utf-8", "backslashreplace"
        )
        run = {
            "version": __version__,
            "command": command,
            "input": dict(genotypes.source),
            "labels": described,
            **measured(console),
        }
        results.write_state(folder, table=summary.rows, run=run)
    files = tuple(sorted(p.name + "/" * p.is_dir() for p in out_dir.iterdir()))
    return ComparisonSummary(summary.text, out_dir, files)


class _Bench:
    """Fits what is missing, one after the other."""

    def __init__(
        self,
        genotypes: GenotypeMatrix,
        everything: GenotypeMatrix,
        labels: dict[str, np.ndarray],
        config: CompareConfig,
        results: Results,
        console: Console,
    ) -> None:
        self.genotypes = genotypes
        self.everything = everything
        self.labels = labels
        self.config = config
        self.results = results
        self.console = console
        self._in_sample: LearntFeatures | None = None
        self._fst: pd.DataFrame | None = None

    def run(self) -> None:
        """Fit, score and keep all that is missing."""
        config, has = self.config, self.results.has
        fits = [
            (seed, split, method)
            for seed in range(config.n_seeds)
            for split in config.splits
            for method in config.methods
        ]
        missing = [(s, p, m) for s, p, m in fits if not has(m, s, p)]
        if len(missing) < len(fits):
            self.console.note(
                f"{len(fits) - len(missing)} of {len(fits)} fits are there from an earlier run"
            )
        learnt: LearntFeatures | None = None
        before: tuple[int, str] | None = None
        for i, (seed, split, method) in enumerate(missing, 1):
            if (seed, split) != before:
                learnt, before = self._learn(seed, split), (seed, split)
            assert learnt is not None
            words = ", held out" if split == HELD_OUT else ""
            name = f"{i}/{len(missing)} {method}, seed {seed}{words}"
            with self.console.stage(name) as update:
                row, fit = self._fit(learnt, seed, split, method, update)
            if "failed" in row:
                self.console.warn(f"{method}, seed {seed}{words}: {row['failed']}")
            shown = (f"{k} {v:.3f}" for k, v in row.items() if isinstance(v, float))
            self.console.detail(f"{name}: {' '.join(shown)}")
            draw = fit is not None and seed == 0 and split == IN_SAMPLE
            places = self._places(fit, learnt) if fit is not None and draw else None
            self.results.add(method, seed, split, row, places)

    def _learn(self, seed: int, split: str) -> LearntFeatures:
        """Features; those of all samples are the same for every seed."""
        config = self.config.of_fit(seed, split)
        if split == HELD_OUT:
            # Relatives and the like are told of once, for all samples.
            return learn_features(self.everything, config, Console(Verbosity.QUIET))
        if self._in_sample is None:
            self._in_sample = learn_features(self.genotypes, config, self.console)
        return self._in_sample

    def _fit(
        self,
        learnt: LearntFeatures,
        seed: int,
        split: str,
        method: str,
        progress: Callable[[float], None],
    ) -> tuple[Row, Fit | None]:
        """Figures of one fit, and its places."""
        config = self.config
        task = Task(learnt, config.of_fit(seed, split), config.n_steps, progress)
        METHODS[method].warm_up()
        start = time.process_time()
        try:
            fit = METHODS[method].fit(task)
        except TrainingDivergedError as error:
            # A rival that diverges is a result of the comparison, not its end.
            return {"failed": str(error)}, None
        row: Row = {"cpu_seconds": time.process_time() - start}
        rows = learnt.trained_on if split == IN_SAMPLE else task.placed & learnt.held_out
        if fit.elbo is not None and rows.any():
            row["elbo"] = float(fit.elbo()[rows].mean())
        if fit.sd is not None and rows.any():
            row["mean_sd"] = float(fit.sd[rows].mean())
        return row | self._score(fit.z, learnt.trained_on, rows, split, seed), fit

    def _score(
        self, z: np.ndarray, trained_on: np.ndarray, rows: np.ndarray, split: str, seed: int
    ) -> dict[str, float]:
        labels = self.labels
        if not labels:
            return {}
        if split == HELD_OUT:
            return score_held_out(z[trained_on], z[rows], trained_on, rows, labels)
        of_training = {level: values[rows] for level, values in labels.items()}
        return score_in_sample(
            z[rows],
            of_training["population"],
            of_training.get("superpopulation"),
            self._genetic_distances(),
            seed,
        )

    def _genetic_distances(self) -> pd.DataFrame:
        if self._fst is None:
            values = self.labels["population"].astype(object)
            values[values == ""] = None
            self._fst = hudson_fst_matrix(self.genotypes, values)
        return self._fst

    def _places(self, fit: Fit, learnt: LearntFeatures) -> pd.DataFrame:
        z = np.where(learnt.trained_on[:, None], fit.z, np.nan)
        columns = {"sample_id": self.genotypes.sample_id, "z1": z[:, 0], "z2": z[:, 1]}
        return pd.DataFrame(columns)


def _common(genotypes: GenotypeMatrix, config: CompareConfig) -> GenotypeMatrix:
    """The variants that are common among all samples, which `embed` would read. A fit that holds
    samples out chooses its own, from all."""
    maf = VariantCounts.of(genotypes.dosage).maf
    return genotypes.select(variants=np.flatnonzero(maf >= config.embed.features.min_maf))


def _settings(
    genotypes: GenotypeMatrix,
    labels: dict[str, np.ndarray],
    described: dict[str, Any] | None,
    config: CompareConfig,
    reading: ReadOptions | None,
) -> dict[str, Any]:
    """What fits must agree on to stand in one table, by words for messages."""
    features = asdict(config.embed)
    for name in ("seed", "holdout"):  # each fit has its own
        del features[name]
    ids = [str(name) for name in genotypes.sample_id]
    variants = genotypes.variants.to_csv(index=False).splitlines()
    return {
        "genotypes": digest(genotypes.dosage, ids, variants),
        "samples": genotypes.n_samples,
        "variants": genotypes.n_variants,
        "labels": digest(*(list(map(str, values)) for values in labels.values())),
        "label columns": described and described["columns"],
        "reading options": (reading or ReadOptions()).describe(),
        "options": features,
        "--steps": config.n_steps,
        "--holdout": config.holdout,
        "code": code_digest(),
        "library versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in (*LIBRARIES, "zuko", "umap-learn", "openTSNE"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

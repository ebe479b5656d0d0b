"""Calls by parts of the genome, and of samples that are not new, or not clean.

For each seed a fifth of the samples is held out and the caller learns from the others. Three
questions, a table each:

1. How wide the windows have to be by which linked sites are counted (`effective_sites`). Judged by
   training samples under counts without themselves: held-out labels choose nothing.
2. What calls of held-out samples are worth by parts of the genome, counted so and one by one.
3. Who is called outside the reference of those who belong to it: held-out samples, copies and
   children of training samples, genotypes with errors, one allele a site; with what being counted
   and errors do to likelihoods taken out (`typicality`), and by a caller that learnt without it.

Then who is told who does not belong: each superpopulation left out in turn, by its own samples and
parts of the genome, beside the power that random sites would have.

    python benchmarks/regional_panels.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import common
import numpy as np
import pandas as pd
import torch
from novelty import without_itself
from reference_tables import CONFIDENT, HOLDOUT

from ancestry_ddvi import GenotypeMatrix, read_genotypes, read_labels
from ancestry_ddvi.ancestry import AncestryCaller, CallConfig, calls
from ancestry_ddvi.ancestry.assignment import log_likelihood
from ancestry_ddvi.ancestry.calibration import between
from ancestry_ddvi.ancestry.calls import MIN_SITES
from ancestry_ddvi.ancestry.effective_sites import WINDOW, effective_sites
from ancestry_ddvi.ancestry.typicality import differences
from ancestry_ddvi.genotypes import MISSING
from ancestry_ddvi.reporting.scores import expected_calibration_error

CODE = ("ancestry", "preprocessing")
"""Rooms of the package that the figures come out of."""

LEVELS = ("population", "superpopulation")
ONE_BY_ONE = 1
"""Width of a window that has one site."""

WIDTHS = {"none": ONE_BY_ONE} | {f"{kb} kb": 1000 * kb for kb in (25, 50, 100, 200, 400, 1000)}
COUNTED = {"by windows": WINDOW, "one by one": ONE_BY_ONE}
CHROMOSOME, STRETCH, MHC = "one chromosome", "30 Mb", "6:25-35 Mb (MHC)"
STRETCH_LENGTH = 30_000_000
RANDOM = (2000, 500, 200)
CHROMOSOMES = ("1", "6", "16", "22")
PLACES = {MHC: ("6", 25, 35), "11:30-60 Mb": ("11", 30, 60)}
"""Contig, first and last Mb."""

PANELS = {"all": 1.0, "10 %": 0.1, "1 %": 0.01}
HELD_OUT_ERRORS = (0.0, 0.002, 0.005, 0.01)
COPY_ERRORS = (0.0, 0.001, 0.003, 0.01)
"""Share of alleles that are read as the other one."""

N_COPIES = 400
N_CHILDREN = 12
"""A population."""

WAYS = TAKEN_OUT, LEFT_IN = "taken out", "left in"
LEFT_OUT_CARD = "told to be of an ancestry that is left out"

QUICK_SAMPLES, QUICK_SITES = 600, 6000


@dataclass(frozen=True)
class Sites:
    """Where the sites of the reference are: (M,) contig and position."""

    contig: np.ndarray
    position: np.ndarray

    @classmethod
    def of(cls, variants: pd.DataFrame) -> Sites:
        return cls(variants["contig"].to_numpy(str), variants["position"].to_numpy(np.int64))

    def within(self, contig: str, first: float = 0, last: float = np.inf) -> np.ndarray:
        """(m,) sites of a contig from one position up to another."""
        inside = (self.position >= first) & (self.position < last)
        return np.flatnonzero((self.contig == contig) & inside)

    def place(self, name: str) -> np.ndarray:
        """(m,) sites of one of `PLACES`."""
        contig, first, last = PLACES[name]
        return self.within(contig, first * 1e6, last * 1e6)

    def random(self, m: int, rng: np.random.Generator) -> np.ndarray:
        """(m,) of all sites."""
        return np.sort(rng.permutation(len(self.position))[:m])

    def stretch(self, contig: str, rng: np.random.Generator) -> np.ndarray:
        """(m,) sites of a stretch of a contig that lies anywhere on it."""
        position = self.position[self.contig == contig]
        last = max(position.max() - STRETCH_LENGTH, position.min())
        first = rng.uniform(position.min(), last)
        return self.within(contig, first, first + STRETCH_LENGTH)


def parts(sites: Sites, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Panels by which the width of windows is judged; those that are too small to call are not."""
    contigs = sorted(np.unique(sites.contig), key=int)
    found = {
        CHROMOSOME: [sites.within(c) for c in contigs],
        STRETCH: [sites.stretch(c, rng) for c in contigs],
        MHC: [sites.place(MHC)],
    }
    found |= {f"{m:,} at random": [sites.random(m, rng)] for m in RANDOM}
    return {kind: [x for x in of if len(x) >= MIN_SITES] for kind, of in found.items()}


def scores(
    caller: AncestryCaller,
    likelihood: np.ndarray,
    number: np.ndarray,
    dosage: np.ndarray,
    sites: np.ndarray,
    width: int,
) -> dict[str, Any]:
    """Of calls by log-likelihoods (n, L) of the genotypes (n, m) at some sites, linked ones counted
    by windows of a width."""
    n_sites = (dosage != MISSING).sum(axis=1)
    n_effective = effective_sites(dosage, sites, caller.variants, width)
    u = differences(likelihood) / n_sites[:, None]
    log_p, typicality = between(caller.levels, u, n_effective)
    group = caller.counts.group
    by_group = np.stack(
        [np.logaddexp.reduce(log_p[:, group == g], axis=1) for g in range(len(caller.groups))], 1
    )
    row: dict[str, Any] = {
        "sites": float(n_sites.mean()),
        "effective sites": float(n_effective.mean()),
        "outside": outside(typicality),
    }
    for level, found, truth in zip(LEVELS, (log_p, by_group), (number, group[number]), strict=True):
        most, correct = np.exp(found.max(axis=1)), found.argmax(axis=1) == truth
        row[level] = {
            "log loss": -float(found[np.arange(len(truth)), truth].mean()),
            "accuracy": float(correct.mean()),
            "confidence": float(most.mean()),
            "calibration error": expected_calibration_error(most, correct),
            "confidently wrong": float(((most >= CONFIDENT) & ~correct).mean()),
        }
    return row


def outside(typicality: np.ndarray) -> float:
    """Share of samples that are called outside the reference."""
    return float((typicality < CallConfig().min_typicality).mean())


def widths(
    caller: AncestryCaller, dosage: np.ndarray, number: np.ndarray, panels: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Scores of training samples, mean over panels of one kind, by width."""
    likelihoods = without_itself(dosage, caller.counts, number, panels)
    return {
        name: averaged(
            [
                scores(caller, likelihood, number, dosage[:, sites], sites, width)
                for likelihood, sites in zip(likelihoods, panels, strict=True)
            ]
        )
        for name, width in WIDTHS.items()
    }


def named_parts(sites: Sites, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """All sites, some at random, and those of parts of the genome."""
    m = len(sites.position)
    found = {"all": np.arange(m)}
    for name, share in list(PANELS.items())[1:]:
        found[f"{name} at random"] = sites.random(round(share * m), rng)
    found |= {f"chromosome {c}": sites.within(c) for c in CHROMOSOMES}
    return found | {name: sites.place(name) for name in PLACES}


def by_part(
    caller: AncestryCaller, dosage: np.ndarray, number: np.ndarray, rng: np.random.Generator
) -> dict[str, Any]:
    """Scores of held-out samples by part of the genome and way of counting."""
    found = named_parts(Sites.of(caller.variants), rng)
    plain = caller.counts.log_predictive()
    rows: dict[str, Any] = {}
    for name, there in found.items():
        seen = dosage[:, there]
        likelihood = log_likelihood(seen, plain[:, :, there])
        rows[name] = {
            way: scores(caller, likelihood, number, seen, there, width)
            for way, width in COUNTED.items()
        }
    return rows


def with_errors(dosage: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Each allele read as the other one with some probability."""
    alt = rng.binomial(np.clip(dosage, 0, 2), 1 - share)
    alt += rng.binomial(2 - np.clip(dosage, 0, 2), share)
    return np.where(dosage == MISSING, MISSING, alt).astype(np.int8)


def children(mother: np.ndarray, father: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One allele of either, drawn anew at each site."""
    alt = sum(rng.binomial(1, np.clip(x, 0, 2) / 2) for x in (mother, father))
    missing = (mother == MISSING) | (father == MISSING)
    return np.where(missing, MISSING, alt).astype(np.int8)


def one_allele(dosage: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One allele a site at random, written twice, as of ancient DNA."""
    alt = 2 * rng.binomial(1, np.clip(dosage, 0, 2) / 2)
    return np.where(dosage == MISSING, MISSING, alt).astype(np.int8)


def belonging(
    dosage: np.ndarray, number: np.ndarray, held_out: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Genotypes (n, M) of samples that are of the reference's populations, by what they are."""

    def read(x: np.ndarray, who: str, errors: Sequence[float]) -> dict[str, np.ndarray]:
        return {
            f"{who}, {100 * e:g} % errors" if e else who: with_errors(x, e, rng) for e in errors
        }

    train, new = np.flatnonzero(~held_out), dosage[held_out]
    copied = dosage[np.sort(rng.choice(train, min(N_COPIES, len(train)), replace=False))]
    pairs = np.array(
        [
            rng.choice(np.flatnonzero(~held_out & (number == j)), 2, replace=False)
            for j in np.repeat(np.unique(number[train]), N_CHILDREN)
        ]
    )
    found = read(new, "held-out samples", HELD_OUT_ERRORS)
    found |= read(copied, "copies of training samples", COPY_ERRORS)
    found["children of two of a population"] = children(
        dosage[pairs[:, 0]], dosage[pairs[:, 1]], rng
    )
    found["held-out samples, one allele a site"] = one_allele(new, rng)
    found["copies, one allele a site"] = one_allele(copied, rng)
    return found


def called_outside(
    callers: dict[str, AncestryCaller],
    samples: dict[str, np.ndarray],
    variants: pd.DataFrame,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Share of each kind of samples that each caller calls outside, by panel."""
    panels = {
        name: Sites.of(variants).random(round(share * len(variants)), rng)
        for name, share in PANELS.items()
    }
    rows: dict[str, Any] = {}
    for kind, dosage in samples.items():
        new = GenotypeMatrix(dosage, np.array([f"new{i}" for i in range(len(dosage))]), variants)
        rows[kind] = {"samples": len(dosage)}
        for name, sites in panels.items():
            seen = new.select(variants=sites)
            rows[kind][name] = {
                way: outside(caller.call(seen).typicality) for way, caller in callers.items()
            }
    return rows


def learn(
    genotypes: GenotypeMatrix, panel: pd.DataFrame, train: np.ndarray, seed: int
) -> dict[str, AncestryCaller]:
    """The product's caller, and one that differs in the shifts alone, which are 0."""

    def learnt() -> AncestryCaller:
        caller = AncestryCaller.learn(genotypes, panel["pop"], panel["super_pop"], train, seed)
        assert caller is not None
        return caller

    with patch.object(calls, "mean_shift", lambda dosage, plain, own: np.zeros((2, len(plain)))):
        without = learnt()
    return {TAKEN_OUT: learnt(), LEFT_IN: without}


def measure(genotypes: GenotypeMatrix, panel: pd.DataFrame, seed: int) -> dict[str, Any]:
    """All three tables of a seed."""
    rng = np.random.default_rng(seed)
    n = genotypes.n_samples
    held_out = np.isin(np.arange(n), rng.permutation(n)[: round(HOLDOUT * n)])
    callers = learn(genotypes, panel, ~held_out, seed)
    caller = callers[TAKEN_OUT]
    number = caller.counts.number_of(panel["pop"].to_numpy(object))
    # Of a cut of the data some populations have too few samples to be learnt.
    train, new = ~held_out & (number >= 0), held_out & (number >= 0)
    click.echo(f"seed {seed}: learnt")
    trained_on = genotypes.dosage[train]
    kinds = parts(Sites.of(caller.variants), rng)
    found = {
        "training samples": int(train.sum()),
        "held-out samples": int(new.sum()),
        "panels": {kind: len(of) for kind, of in kinds.items()},
        "widths": {
            kind: widths(caller, trained_on, number[train], of) for kind, of in kinds.items() if of
        },
    }
    click.echo(f"seed {seed}: widths of windows")
    found["parts"] = by_part(caller, genotypes.dosage[new], number[new], rng)
    click.echo(f"seed {seed}: parts of the genome")
    known = np.flatnonzero(number >= 0)
    samples = belonging(genotypes.dosage[known], number[known], held_out[known], rng)
    found["outside"] = called_outside(callers, samples, genotypes.variants, rng)
    found["left out"] = {way: x.card[LEFT_OUT_CARD] for way, x in callers.items()}
    click.echo(f"seed {seed}: who belongs")
    found["strangers"] = strangers(genotypes, panel, held_out, seed, rng)
    return found


def strangers(
    genotypes: GenotypeMatrix,
    panel: pd.DataFrame,
    held_out: np.ndarray,
    seed: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """By part of the genome and superpopulation that the caller has not learnt: share of its
    samples told, largest share of the others' held-out samples called outside, and the power that
    as many random sites have."""
    group = panel["super_pop"].to_numpy(object)
    panels = named_parts(Sites.of(genotypes.variants), rng)
    rows: dict[str, Any] = {name: {} for name in panels}
    for left_out in sorted(set(group)):
        new = group == left_out
        caller = AncestryCaller.learn(
            genotypes, panel["pop"], panel["super_pop"], ~held_out & ~new, seed
        )
        assert caller is not None
        at, power = ([getattr(level, of) for level in caller.levels] for of in ("n_sites", "power"))
        for name, sites in panels.items():
            seen = genotypes.select(variants=sites)
            told, others = (
                caller.call(seen.select(samples=np.flatnonzero(rows)))
                for rows in (new, held_out & ~new)
            )
            of_random = np.interp(np.log(told.effective_sites), np.log(at), power)
            rows[name][left_out] = {
                "told": outside(told.typicality),
                "others": outside(others.typicality),
                "power": float(of_random.mean()),
            }
    return rows


def averaged(of: Sequence[Any]) -> Any:
    """The mean of numbers, at each place of lists and dictionaries of one form."""
    first = of[0]
    if isinstance(first, dict):
        return {name: averaged([x[name] for x in of]) for name in first}
    if isinstance(first, list):
        return [averaged(list(x)) for x in zip(*of, strict=True)]
    return sum(of) / len(of)


def table_of_widths(mean: dict[str, Any]) -> str:
    rows = []
    for kind, of in mean.items():
        for width, row in of.items():
            cells = [f"{row['sites']:,.0f}", f"{row['effective sites']:,.0f}"]
            cells += [f"{row[level]['log loss']:.3f}" for level in LEVELS]
            over = (row[level]["confidence"] - row[level]["accuracy"] for level in LEVELS)
            cells += [*(f"{x:+.3f}" for x in over), f"{row['outside']:.3f}"]
            rows.append([f"{kind}: {width}", *cells])
    header = ["sites: window", "sites", "effective", "log loss, population", "superpopulation"]
    header += ["confidence - accuracy, population", "superpopulation", "outside"]
    return common.table(header, rows)


def table_of_best_widths(mean: dict[str, Any]) -> str:
    """The widths of least log loss where sites are linked."""
    rows = []
    for kind in (CHROMOSOME, STRETCH, MHC):
        of = mean.get(kind, {})
        best = (min(of, key=lambda w: of[w][level]["log loss"], default="") for level in LEVELS)
        rows.append([kind, *best])
    return common.table(["least log loss", *LEVELS], rows)


def table_of_parts(mean: dict[str, Any]) -> str:
    names = ("accuracy", "confidence", "calibration error", "confidently wrong")
    rows = []
    for part, of in mean.items():
        for way, row in of.items():
            cells = [f"{row['sites']:,.0f}", f"{row['effective sites']:,.0f}"]
            cells += [f"{row[level][name]:.3f}" for level in LEVELS for name in names]
            rows.append([f"{part}: {way}", *cells, f"{row['outside']:.3f}"])
    header = ["sites: counted", "sites", "effective"]
    for level in LEVELS:
        header += [f"{level}: accuracy", "confidence", "error", f"wrong at >= {CONFIDENT}"]
    return common.table([*header, "outside"], rows)


def table_of_outside(mean: dict[str, Any]) -> str:
    rows = [
        [kind, f"{of['samples']:.0f}", *(f"{of[p][w]:.3f}" for p in PANELS for w in WAYS)]
        for kind, of in mean.items()
    ]
    ways = [f"{panel}: {way}" for panel in PANELS for way in WAYS]
    return common.table(["", "samples", *ways], rows)


def table_of_left_out(mean: dict[str, Any]) -> str:
    groups = [name for name in mean[TAKEN_OUT][0] if name != "sites"]
    rows = [
        [f"{row['sites']:,.0f}: {way}", *(f"{row[g]:.3f}" for g in groups)]
        for of in zip(*mean.values(), strict=True)
        for way, row in zip(mean, of, strict=True)
    ]
    return common.table(["sites: shifts", *groups], rows)


def table_of_strangers(mean: dict[str, Any]) -> str:
    groups = list(next(iter(mean.values())))
    rows = []
    for name, of in mean.items():
        told, power = (sum(of[g][x] for g in groups) / len(groups) for x in ("told", "power"))
        cells = [*(f"{of[g]['told']:.3f}" for g in groups), f"{told:.3f}", f"{power:.3f}"]
        rows.append([name, *cells, f"{max(of[g]['others'] for g in groups):.3f}"])
    return common.table(["sites", *groups, "mean", "by random sites", "others, at most"], rows)


def markdown(results: dict[str, Any]) -> str:
    """The tables, means over seeds."""
    settings, mean = results["settings"], averaged(list(results["seeds"].values()))
    seeds = f"{len(results['seeds'])} seed{'s' * (len(results['seeds']) > 1)}"
    least = f"{CallConfig().min_typicality:g}"
    panels = mean["panels"]
    return f"""# Calls by parts of the genome, and of samples that are not new, or not clean

`{settings["data"]}`, {settings["n_samples"]:,} samples, {settings["n_variants"]:,} sites, {seeds}.
Learnt from {mean["training samples"]:,.0f} samples, {mean["held-out samples"]:,.0f} held out, of
which no relatives are left out. Outside: share of samples with a typicality below {least}, which
are called outside the reference.

## How wide a window

Training samples by counts without themselves; calibration has learnt from the same samples, by
random sites. Means over {panels[CHROMOSOME]:.0f} chromosomes, and over {panels[STRETCH]:.0f}
stretches of 30 Mb, one anywhere on each chromosome; one panel of each other kind. Window `none`:
sites count one by one. Log loss in nats a sample.

{table_of_widths(mean["widths"])}

The product's window has {WINDOW // 1000} kb.

{table_of_best_widths(mean["widths"])}

## Held-out samples by part of the genome

Sites counted by the product's windows and one by one. Error: calibration error. Wrong: share of all
samples that is confidently wrong.

{table_of_parts(mean["parts"])}

## Samples that are not new, or not clean

Share called outside the reference, to which all belong; {least} of new samples are expected.
Errors: share of alleles read as the other one. Children: one allele of either parent, drawn anew at
each site. One allele a site: drawn at random and written twice. What being counted and errors do to
likelihoods is taken out of the distance, as in the product, or left in, in learning and in calling.

{table_of_outside(mean["outside"])}

## What is told of a superpopulation that is left out

Share of its training samples that are told where typicality knows the others alone (`power`), from
the card of either caller.

{table_of_left_out(mean["left out"])}

## What is told of a superpopulation that is left out, by part of the genome

Share of all its samples that are called outside a reference of the others; the mean power that as
many random sites as the effective ones have, by the training samples; and the largest share of the
others' held-out samples that are called outside. Where sites are linked fewer are told than the
power of random ones says, so that calls leave it open there.

{table_of_strangers(mean["strangers"])}

Command: `{results["command"]}`
"""


@click.command(help=__doc__)
@click.option("--seeds", default=1, show_default=True, type=click.IntRange(min=1), help="From 0.")
@click.option("--quick", is_flag=True, help="A random cut of the data: a test of the script only.")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
def main(seeds: int, quick: bool, out: Path) -> None:
    torch.set_num_threads(1)
    genotypes = read_genotypes(common.GENOTYPES)
    if quick:
        genotypes = common.random_cut(genotypes, QUICK_SAMPLES, QUICK_SITES)
    panel = read_labels(common.PANEL, genotypes.sample_id).frame.reset_index(drop=True)
    results = {
        "settings": {
            "data": common.relative(common.GENOTYPES),
            "data_sha256": genotypes.source["sha256"],
            "panel_sha256": common.digest(common.PANEL),
            "n_samples": genotypes.n_samples,
            "n_variants": genotypes.n_variants,
            "holdout": HOLDOUT,
            "code": common.code_digest(*CODE),
            "versions": common.versions(),
        },
        "command": f"python benchmarks/regional_panels.py --seeds {seeds}" + " --quick" * quick,
        "seeds": {str(seed): measure(genotypes, panel, seed) for seed in range(seeds)},
    }
    common.write_json(out / "regional_panels.json", results)
    text = markdown(results)
    common.write_text(out / "regional_panels.md", text)
    click.echo(text)


if __name__ == "__main__":
    main()

"""Ancestry calls of new samples against a labelled reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ancestry_ddvi.ancestry.assignment import (
    PopulationCounts,
    group_numbers,
    log_likelihood,
    mean_shift,
)
from ancestry_ddvi.ancestry.calibration import Calibration, between, cross_fitted
from ancestry_ddvi.ancestry.effective_sites import effective_sites
from ancestry_ddvi.ancestry.typicality import differences, powers
from ancestry_ddvi.errors import OptionError
from ancestry_ddvi.genotypes import MISSING, VARIANT_COLUMNS, GenotypeMatrix, id_hash
from ancestry_ddvi.preprocessing.alignment import Matched, match
from ancestry_ddvi.preprocessing.ploidy import GenotypeShares
from ancestry_ddvi.reporting.scores import expected_calibration_error

UNCERTAIN, OUTSIDE = "uncertain", "outside reference"
TOO_FEW, NO_DATA = "too few sites", "no data"
KNOWN = "in the reference"
"""What stands in the place of a call."""

MIN_SAMPLES_EACH = 10
"""Labelled samples that a population needs to be called."""

MIN_SITES = 30
"""Effective sites below which nothing is called; the lowest level of calibration."""

MIN_SPREAD = 0.75
"""Of samples whose sites are linked, so that fewer than this share of them count, it is not known
how many of another ancestry typicality tells: fewer than by as many random sites (`powers`)."""

MAX_SITES = 50_000
"""Sites that are kept, evenly over those of the reference: more would be more of the same linked
ones."""

N_FOLDS = 5
N_CALIBRATED = 4000
"""Samples, at most, that calibration learns from."""

LEVEL_RATIO = 2
"""Calibration is learnt at all sites, at about half of them, and so on down to `MIN_SITES`."""

TEMPERED = 3
"""Temperatures, which cost most, are learnt at one level in so many; they change slowly."""


@dataclass(frozen=True)
class CallConfig:
    """When to call.

    Attributes
    ----------
    threshold
        Least probability of a call; `uncertain` below.
    min_typicality
        Least typicality; `outside reference` below.
    """

    threshold: float = 0.9
    min_typicality: float = 0.01

    def __post_init__(self) -> None:
        for name, value in (
            ("--call-threshold", self.threshold),
            ("--min-typicality", self.min_typicality),
        ):
            if not 0 <= value <= 1:
                raise OptionError(f"{name} must be from 0 to 1, not {value:g}")


@dataclass(frozen=True)
class AncestryCalls:
    """Probabilities of populations and groups for every sample.

    Attributes
    ----------
    sample_id
        (n,).
    n_sites
        (n,) sites of the reference with a genotype.
    effective_sites
        (n,) random sites that would say as much as those (`effective_sites`), half as many of a
        haploid sample: what probabilities and typicality go by.
    typicality
        (n,) share of training samples that are less typical; nan where there are too few sites.
    population, group
        (n, L), (n, G) probabilities, columns named; nan where there are too few sites. Without
        groups the latter has no column.
    matched
        What the file had of the sites.
    known
        (n,) bool: samples that are counted in the reference, of which nothing is said: they are
        like themselves.
    haploid
        (n,) bool: samples that were read as one allele a site (`preprocessing.ploidy`).
    power
        (n,) share of samples of an ancestry that the reference lacks that typicality tells by so
        many sites (`typicality`); nan as typicality, and where it is not known (`MIN_SPREAD`).
    """

    sample_id: np.ndarray
    n_sites: np.ndarray
    effective_sites: np.ndarray
    typicality: np.ndarray
    population: pd.DataFrame
    group: pd.DataFrame
    matched: Matched
    known: np.ndarray
    haploid: np.ndarray
    power: np.ndarray

    @classmethod
    def concat(cls, calls: Sequence[AncestryCalls]) -> AncestryCalls:
        """The calls of several batches of samples, of which the input has the same sites."""
        names = (
            "sample_id",
            "n_sites",
            "effective_sites",
            "typicality",
            "known",
            "haploid",
            "power",
        )
        joined: dict[str, Any] = {
            name: np.concatenate([getattr(each, name) for each in calls]) for name in names
        }
        for level in ("population", "group"):
            parts = [getattr(each, level) for each in calls]
            joined[level] = pd.concat(parts, ignore_index=True)
        return cls(**joined, matched=calls[0].matched)

    def frame(self, config: CallConfig | None = None) -> pd.DataFrame:
        """One row a sample: sites, typicality and its power, the call of each level with its
        probability, and all probabilities, `p_NAME`."""
        config = config or CallConfig()
        columns: dict[str, Any] = {
            "sample_id": self.sample_id,
            "n_sites": self.n_sites,
            "effective_sites": np.round(self.effective_sites).astype(int),
            "typicality": self.typicality,
            "typicality_power": self.power,
        }
        for level, table in (("superpopulation", self.group), ("population", self.population)):
            if table.shape[1]:
                columns[level], columns[f"{level}_probability"] = self._called(table, config)
        columns |= {f"p_{name}": self.group[name].to_numpy() for name in self.group}
        for name in self.population:
            # A population may be named like a group.
            column = f"p_population_{name}" if f"p_{name}" in columns else f"p_{name}"
            columns[column] = self.population[name].to_numpy()
        return pd.DataFrame(columns)

    def _called(self, table: pd.DataFrame, config: CallConfig) -> tuple[np.ndarray, np.ndarray]:
        p = table.to_numpy()
        known = np.isfinite(p).all(axis=1)
        best = np.where(known[:, None], p, 0).argmax(axis=1)
        most = np.where(known, p[np.arange(len(p)), best], np.nan)
        call = table.columns.to_numpy(dtype=object)[best]
        call[known & (most < config.threshold)] = UNCERTAIN
        call[known & (self.typicality < config.min_typicality)] = OUTSIDE
        call[~known] = np.where(self.n_sites[~known] > 0, TOO_FEW, NO_DATA)
        call[self.known] = KNOWN
        return call, most


@dataclass(frozen=True)
class AncestryCaller:
    """Allele counts of a labelled reference, and how to read likelihoods under them.

    Attributes
    ----------
    variants
        The sites, one row each, of which `counts` are.
    counts
        Of the populations.
    groups
        Names of their groups; none if there are none.
    levels
        Calibrations, ascending in sites.
    counted
        (n,) uint64, ascending: `id_hash` of the samples that `counts` are of.
    heterozygosity
        Of these samples (`preprocessing.ploidy`), the median.
    card
        What cross-validation showed, JSON-ready.
    """

    variants: pd.DataFrame
    counts: PopulationCounts
    groups: tuple[str, ...]
    levels: tuple[Calibration, ...]
    counted: np.ndarray
    heterozygosity: float
    card: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def learn(
        cls,
        genotypes: GenotypeMatrix,
        population: pd.Series,
        superpopulation: pd.Series | None,
        train: np.ndarray,
        seed: int,
    ) -> AncestryCaller | None:
        """Learn from the labelled among the training samples.

        Parameters
        ----------
        genotypes
            All samples.
        population, superpopulation
            (n_samples,) labels, missing where unknown.
        train
            (n_samples,) bool: samples that may be learnt from.
        seed
            Of folds and of the sites that calibration leaves out.

        Returns
        -------
        None if there are not two populations with at least `MIN_SAMPLES_EACH` samples.
        """
        label = np.array(population, dtype=object)  # a copy: the labels are the caller's
        label[~train | pd.isna(label)] = None
        names, size = np.unique(label[label != None].astype(str), return_counts=True)  # noqa: E711
        small = names[size < MIN_SAMPLES_EACH].tolist()
        label[np.isin(label.astype(str), small)] = None
        if len(names) - len(small) < 2 or genotypes.n_variants < 2 * MIN_SITES:
            return None
        coarse = None if superpopulation is None else superpopulation.to_numpy(object)
        group, groups = group_numbers(label, coarse)
        if genotypes.n_variants > MAX_SITES:
            at = np.linspace(0, genotypes.n_variants - 1, MAX_SITES).astype(int)
            genotypes = genotypes.select(variants=at)
        counts = PopulationCounts.of(genotypes, label, group)
        rng = np.random.default_rng(seed)
        number = counts.number_of(label)
        rows = _some(number, rng)
        levels, card = _calibrate(genotypes.dosage, counts, number, rows, groups, rng)
        shares = GenotypeShares.of(genotypes.dosage, counts.frequency)
        card |= {
            "populations": {name: int((number == j).sum()) for j, name in enumerate(group)},
            "left out for few samples": small,
            "sites": genotypes.n_variants,
            "FST within superpopulations": counts.fst_within,
            "FST between superpopulations": counts.fst_between,
        }
        variants = genotypes.variants[list(VARIANT_COLUMNS)].reset_index(drop=True)
        return cls(
            variants,
            counts,
            groups,
            levels,
            np.sort(id_hash(genotypes.sample_id[number >= 0])),
            shares.typical(number >= 0),
            card,
        )

    def call(self, genotypes: GenotypeMatrix, *, absent_is_ref: bool = False) -> AncestryCalls:
        """Probabilities and typicality of every sample; sites are matched by `alignment`.

        Parameters
        ----------
        genotypes
            All samples.
        absent_is_ref
            As in `alignment.match`.
        """
        found = match(genotypes, self.variants, absent_is_ref=absent_is_ref)
        there = np.flatnonzero(found.used)
        dosage = found.dosage(there)
        n_sites = (dosage != MISSING).sum(axis=1)
        shares = GenotypeShares.of(dosage, self.counts.frequency[there])
        haploid = shares.is_haploid(self.heterozygosity)
        known = np.isin(id_hash(genotypes.sample_id), self.counted)
        n_effective = effective_sites(dosage, there, self.variants)
        spread = n_effective >= MIN_SPREAD * n_sites
        # One allele is half as much as two.
        alleles = np.where(haploid, 0.5, 1.0)
        n_effective *= alleles
        said = (n_effective >= MIN_SITES) & ~known
        n, n_populations = genotypes.n_samples, len(self.counts.population)
        p, typicality = np.full((n, n_populations), np.nan), np.full(n, np.nan)
        for one_allele in (False, True):
            rows = np.flatnonzero(said & (haploid == one_allele))
            if len(rows):
                table = self.counts.log_predictive(haploid=one_allele)[:, :, there]
                likelihood = log_likelihood(dosage[rows], table)
                u = differences(likelihood) / (alleles * n_sites)[rows, None]
                log_p, typicality[rows] = between(self.levels, u, n_effective[rows])
                p[rows] = np.exp(log_p)
        power = np.full(n, np.nan)
        levels = np.log([level.n_sites for level in self.levels])
        rows = said & spread
        power[rows] = np.interp(np.log(n_effective[rows]), levels, [x.power for x in self.levels])
        return AncestryCalls(
            genotypes.sample_id,
            n_sites,
            n_effective,
            typicality,
            pd.DataFrame(p, columns=list(self.counts.population)),
            pd.DataFrame(
                _grouped(p, self.counts.group, len(self.groups)), columns=list(self.groups)
            ),
            found.matched,
            known,
            haploid,
            power,
        )

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON-ready settings from which `from_state` rebuilds the caller."""
        arrays = {
            name: counted.astype(np.min_scalar_type(int(counted.max())))
            for name, counted in (("n_alt", self.counts.n_alt), ("n_called", self.counts.n_called))
        }
        arrays["counted"] = self.counted
        for i, level in enumerate(self.levels):
            arrays |= {f"level.{i}.{name}": value for name, value in level.state().items()}
        settings = {
            "population": list(self.counts.population),
            "group": self.counts.group.tolist(),
            "groups": list(self.groups),
            "fst_within": self.counts.fst_within,
            "fst_between": self.counts.fst_between,
            "n_levels": len(self.levels),
            "heterozygosity": self.heterozygosity,
            "card": self.card,
        }
        return arrays, settings

    @classmethod
    def from_state(
        cls, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], variants: pd.DataFrame
    ) -> AncestryCaller:
        """Rebuild from `state` and the table of sites.

        Raises
        ------
        ValueError, TypeError, KeyError
            If these are not what `state` gives.
        """
        _check_settings(settings)
        counts = PopulationCounts(
            tuple(settings["population"]),
            np.array(settings["group"], dtype=int),
            arrays["n_alt"].astype(np.int32),
            arrays["n_called"].astype(np.int32),
            settings["fst_within"],
            settings["fst_between"],
        )
        levels = []
        for i in range(settings["n_levels"]):
            prefix = f"level.{i}."
            state = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            levels.append(Calibration.from_state(state))
        shape = (len(counts.population), len(variants))
        n_found = len({name.split(".")[1] for name in arrays if name.startswith("level.")})
        if n_found != len(levels):
            raise ValueError(f"{n_found} levels of calibration, not {len(levels)}")
        if counts.n_alt.shape != shape or counts.n_called.shape != shape:
            raise ValueError(f"counts of {counts.n_alt.shape}, not {shape}")
        return cls(
            variants,
            counts,
            tuple(settings["groups"]),
            tuple(levels),
            arrays["counted"],
            settings["heterozygosity"],
            settings["card"],
        )


def _check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ValueError for what would give wrong calls without an error of its own."""
    population, groups, group = (settings[name] for name in ("population", "groups", "group"))
    for name, names in (("population", population), ("groups", groups)):
        if not isinstance(names, list) or not all(isinstance(x, str) for x in names):
            raise ValueError(f"ancestry.{name} is no list of names")
        if len(set(names)) < len(names):
            raise ValueError(f"ancestry.{name} has a name twice")
    numbers = set(range(max(len(groups), 1)))
    if not isinstance(group, list) or len(group) != len(population):
        raise ValueError("ancestry.group is not one number a population")
    if not all(type(x) is int for x in group) or set(group) != numbers:
        raise ValueError("ancestry.group is not a number of every group")
    for name in ("fst_within", "fst_between"):
        if type(settings[name]) is not float or not 0 < settings[name] < 1:
            raise ValueError(f"ancestry.{name} is not between 0 and 1")
    if type(settings["heterozygosity"]) is not float or settings["heterozygosity"] < 0:
        raise ValueError("ancestry.heterozygosity is no share")
    if type(settings["n_levels"]) is not int or settings["n_levels"] < 1:
        raise ValueError("ancestry.n_levels is no count")
    if not isinstance(settings["card"], dict):
        raise ValueError("ancestry.card is no table of names and values")


def _some(number: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Labelled samples that calibration learns from: the same share of every population."""
    rows = np.flatnonzero(number >= 0)
    if len(rows) <= N_CALIBRATED:
        return rows
    order = rows[rng.permutation(len(rows))]
    rank = pd.Series(number[order]).groupby(number[order]).cumcount().to_numpy()
    size = np.bincount(number[rows])[number[order]]
    quota = np.maximum(size * N_CALIBRATED / len(rows), MIN_SAMPLES_EACH)
    return np.sort(order[rank < quota])


def _calibrate(
    dosage: np.ndarray,
    counts: PopulationCounts,
    number: np.ndarray,
    rows: np.ndarray,
    groups: tuple[str, ...],
    rng: np.random.Generator,
) -> tuple[tuple[Calibration, ...], dict[str, Any]]:
    """Learn every level from likelihoods under counts without the sample itself."""
    m = dosage.shape[1]
    n_levels = 1 + int(np.ceil(np.log(m / MIN_SITES) / np.log(LEVEL_RATIO)))
    shares = np.geomspace(MIN_SITES / m, 1, n_levels)
    label = number[rows]
    fold = np.empty(len(rows), dtype=int)
    for j in np.unique(label):
        own = np.flatnonzero(label == j)
        fold[own] = rng.permutation(len(own)) % N_FOLDS
    likelihood = np.empty((n_levels, len(rows), len(counts.population)))
    n_sites = np.empty((n_levels, len(rows)))
    plain = counts.log_predictive()
    shift = np.zeros((len(counts.population), 2, len(counts.population)))
    for j in np.unique(label):
        own = np.flatnonzero(label == j)
        table = counts.log_predictive(j)
        part = dosage[rows[own]]
        shift[j] = mean_shift(part, plain, table)
        # Single precision will do for what is averaged over all samples, in half the time.
        table = table.astype(np.float32)
        drawn = rng.random(part.shape, dtype=np.float32)
        for i, share in enumerate(shares):
            # Sites of each sample's own: shared ones would make populations differ by their luck.
            seen = np.where(drawn < share, part, MISSING)
            n_sites[i, own] = np.maximum((seen != MISSING).sum(axis=1), 1)
            likelihood[i, own] = log_likelihood(seen, table)
    levels: list[Calibration] = []
    card, left_out = [], []
    tempered = sorted({*range(0, n_levels, TEMPERED), n_levels - 1})
    crossed = {i: cross_fitted(likelihood[i], n_sites[i], label, fold) for i in tempered}
    all_t = np.interp(np.arange(n_levels), tempered, [crossed[i][0] for i in tempered])
    unit = _units(counts, groups)
    for i, (found, size, t) in enumerate(zip(likelihood, n_sites, all_t, strict=True)):
        power = powers(found, size, label, fold, shift, unit)
        start = levels[-1] if levels else None
        level = Calibration.learn(found, size, label, fold, shift, start, float(t), _mean(power))
        levels.append(level)
        if i in crossed:
            p = np.exp(crossed[i][1])
            shown: dict[str, Any] = {"sites": round(level.n_sites)}
            shown |= _scores(p, label, "population")
            if groups:
                of_group = _grouped(p, counts.group, len(groups))
                shown |= _scores(of_group, counts.group[label], "superpopulation")
            card.append(shown)
            names = groups if len(groups) > 1 else counts.population
            told = zip(names, power.tolist(), strict=True)
            left_out.append({"sites": shown["sites"]} | {k: v for k, v in told if v == v})
    return tuple(levels), {
        "samples": len(rows),
        "cross-validated": card,
        "told to be of an ancestry that is left out": left_out,
    }


def _units(counts: PopulationCounts, groups: tuple[str, ...]) -> np.ndarray:
    """(L,) number of each population's group, or of itself where there are no two groups."""
    return counts.group if len(groups) > 1 else np.arange(len(counts.population))


def _mean(power: np.ndarray) -> float:
    """Over the groups that could be left out; nan if none could."""
    measured = power[np.isfinite(power)]
    return float(measured.mean()) if len(measured) else float("nan")


def _scores(p: np.ndarray, label: np.ndarray, level: str) -> dict[str, float]:
    correct = p.argmax(axis=1) == label
    return {
        f"{level} accuracy": float(correct.mean()),
        f"{level} calibration error": expected_calibration_error(p.max(axis=1), correct),
    }


def _grouped(p: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    out = np.zeros((len(p), n_groups))
    for j in range(n_groups):
        out[:, j] = p[:, group == j].sum(axis=1)
    return out

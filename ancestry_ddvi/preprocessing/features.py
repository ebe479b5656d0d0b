"""Genotypes to features: filters, scaling and principal components, learnt once, applied anywhere.

Symbols (shapes in samples n, variants m, components K):

    p_j       frequency of the counted allele of variant j in the training samples
    X_ij      (g_ij - 2 p_j) / (c (2 p_j (1 - p_j))^a), missing = 0    note (3)
    A         X X' / m                                                 genetic relationships
    l_k, v_k  leading eigenvalues and unit eigenvectors of A
    W_jk      X' v_k / sqrt(m l_k)                                      loadings, unit columns
    rho_k     shrinkage of note (1)
    x_ik      sqrt(n l_k) v_ik rho_k, in units where RMS(x_k) = sqrt(l_k) rho_k

Components of all samples come first, then those of single regions (`local`).

(1) An eigenvector is fitted to the noise of the very samples it scores, so training scores spread
further than scores of new samples from the same populations. Multiplying training scores by the
ratio rho_k puts both on one scale, and new samples need no correction. For a spike of population
variance L_k, in units of the noise, it is (Lee, Zou & Wright 2010, Ann. Stat. 38:3605, thm 2 and 4)

    rho_k = (L_k - 1) / (L_k + g - 1)     where     g l_k / mean_i(A_ii) = L_k (1 + g / (L_k - 1))

and g = M / n. Variants in linkage count for fewer than m: M is their effective number (Patterson
et al. 2006, eq. 10), from the eigenvalues behind the first K. No L_k solves the equation for a
component that does not stand above the noise; new samples have variance mean_i(A_ii) / g there,
and rho_k = sqrt(mean_i(A_ii) / (g l_k)) gives training samples the same.

(2) A sample observed at a share 1 - f of the variants is placed by least squares on those it has.
The estimate is unbiased but noisier: every component gains the variance

    s^2 = (n / m) * mean_k[ (W_o' W_o)^-1 - I ]_kk    ~ (n / m) f / (1 - f)

W_o being the rows of W observed. That s is returned beside x, so that missing genotypes make a
sample less certain and not wrong.

(3) a = 1/2 is the scaling of Patterson et al. 2006 (eq. 3): all variants weigh the same, as if the
frequencies of rare ones had drifted by as much, for their size, as those of common ones. A smaller
a gives common variants, whose differences stand out of the noise best, more of a say; c makes the
mean variance under Hardy-Weinberg 1 whatever a.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ancestry_ddvi.errors import NotEnoughDataError, OptionError, check_count
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix
from ancestry_ddvi.preprocessing.alignment import Matched, match, why_few
from ancestry_ddvi.preprocessing.filters import (
    VariantCounts,
    column_blocks,
    filter_variants,
    sample_call_rate,
)
from ancestry_ddvi.preprocessing.linkage import prune
from ancestry_ddvi.preprocessing.local import MIN_REGION, MIN_RHO, Denoiser, find_regions, is_shared
from ancestry_ddvi.preprocessing.ploidy import GenotypeShares

MIN_SAMPLES = 20
"""Fewer samples than this do not define principal components worth the name."""

RANK_TOLERANCE = 1e-3
"""Eigenvalues below this share of the mean one are taken for 0 in single precision."""


@dataclass(frozen=True)
class FeatureConfig:
    """How genotypes become features.

    Attributes
    ----------
    n_pcs
        Principal components kept, K; fewer if the training samples do not span so many.
    n_local
        Most components of a single region of the map (`local`); 0 for none.
    scaling
        a of note (3), from 0 (none) to 1/2 (Patterson).
    min_call_rate, min_maf
        Variant filters.
    min_sample_call_rate
        Samples called at fewer variants are not trained on; they are placed like new ones.
    ld_window, ld_step, ld_max_r2
        LD pruning (`linkage.prune`), in variants and squared correlation.

    Raises
    ------
    OptionError
        If a value makes no sense.
    """

    n_pcs: int = 20
    n_local: int = 10
    scaling: float = 0.35
    min_call_rate: float = 0.95
    min_maf: float = 0.01
    min_sample_call_rate: float = 0.9
    ld_window: int = 100
    ld_step: int = 50
    ld_max_r2: float = 0.2

    def __post_init__(self) -> None:
        for name, most in (
            ("min_call_rate", 1),
            ("min_maf", 0.5),
            ("min_sample_call_rate", 1),
            ("ld_max_r2", 1),
            ("scaling", 0.5),
        ):
            if not 0 <= (value := getattr(self, name)) <= most:
                raise OptionError(f"{name} must be from 0 to {most:g}, not {value:g}")
        check_count("n_pcs", self.n_pcs)
        if self.n_local < 0:
            raise OptionError(f"n_local must be at least 0, not {self.n_local}")
        if not 1 <= self.ld_step <= self.ld_window:
            raise OptionError(
                f"ld_step must be from 1 to ld_window, {self.ld_window}, not {self.ld_step}"
            )


@dataclass(frozen=True)
class Features:
    """What the model sees of the samples.

    Attributes
    ----------
    x
        (n_samples, K + L) float64 shrinkage-corrected scores: K principal components, L local.
    noise
        (n_samples,) standard deviation s that missing genotypes add to each component; inf for a
        sample without one called genotype.
    matched
        What the file had of the variants; None where they were chosen from that very file.
    denoised
        (n_training_samples, K + L) best guess of x without its noise (`local`), of the samples
        that were learnt from; None for others.
    haploid
        (n_samples,) bool: samples read as one allele a site (`ploidy`), which doubles the noise;
        None if that is not known.
    reference
        (n_samples,) genotypes without ALT over those expected, at most (`ploidy`); nan by few.
    """

    x: np.ndarray
    noise: np.ndarray
    matched: Matched | None = None
    denoised: np.ndarray | None = None
    haploid: np.ndarray | None = None
    reference: np.ndarray | None = None

    @classmethod
    def concat(cls, parts: Sequence[Features]) -> Features:
        """The features of several batches of samples, of which the input has the same variants."""
        joined = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("x", "noise", "haploid", "reference")
        }
        return cls(**joined, matched=parts[0].matched)


@dataclass
class FeatureExtractor:
    """Filters, scaling and PCA with a scikit-learn-like face.

    After `fit`: `variants` (m rows, the table of variants used), `allele_frequency` (m,),
    `loadings` (m, K + L), `eigenvalue` (K,), `shrinkage` (K,), `unit` (n / m),
    `heterozygosity` (`ploidy`, median of the samples that were learnt from), `trained_on` (mask of
    these), `funnel` (how many variants each filter took).
    """

    config: FeatureConfig = field(default_factory=FeatureConfig)

    def fit_transform(
        self,
        genotypes: GenotypeMatrix,
        *,
        train: np.ndarray | None = None,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> Features:
        """Learn from the training samples and return the features of all samples.

        Parameters
        ----------
        genotypes
            All samples.
        train
            (n_samples,) bool: samples that may be learnt from; all by default. Frequencies, LD,
            scaling and components see no other sample.
        progress
            Called with the name of each stage as it starts.

        Raises
        ------
        NotEnoughDataError
            With fewer than 20 samples, or if the filters leave fewer than 2 K variants; the
            message says which filter took how many.
        """
        kept = self.select(genotypes, train=train, progress=progress)
        rows = np.flatnonzero(self.trained_on)
        progress("principal components")
        return self._decompose(genotypes, rows, kept, self._n_pcs(len(rows)))

    def select(
        self,
        genotypes: GenotypeMatrix,
        *,
        train: np.ndarray | None = None,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> np.ndarray:
        """Choose samples and variants to learn from: the part of `fit_transform` before the PCA.

        Parameters and errors are those of `fit_transform`. After an error, `trained_on` and
        `funnel` hold what was found until then.

        Returns
        -------
        (m,) indices of the variants.
        """
        config = self.config
        if genotypes.n_samples < MIN_SAMPLES:
            raise NotEnoughDataError(
                f"{genotypes.name}: {genotypes.n_samples} samples are too few to learn a map from "
                f"(at least {MIN_SAMPLES}); place them on a trained reference model instead, with "
                "--model DIR"
            )
        progress("filter variants")
        call_rate = sample_call_rate(genotypes)
        self.trained_on = call_rate >= config.min_sample_call_rate
        if train is not None:
            self.trained_on &= train
        n_train = int(self.trained_on.sum())
        if n_train < MIN_SAMPLES:
            n_allowed = genotypes.n_samples if train is None else int(train.sum())
            raise NotEnoughDataError(
                f"{genotypes.name}: {n_train} of {n_allowed} training samples have a call rate of "
                f"at least {config.min_sample_call_rate:g}, and {MIN_SAMPLES} are needed to learn "
                "from; raise --mind, hold out fewer or use a better-called file"
            )
        rows = np.flatnonzero(self.trained_on)
        some = None if n_train == genotypes.n_samples else rows
        counts = VariantCounts.of(genotypes.dosage, some)
        keep, self.funnel = filter_variants(
            counts, min_call_rate=config.min_call_rate, min_maf=config.min_maf
        )
        progress("prune linked variants")
        kept: np.ndarray = np.flatnonzero(keep)
        unlinked = prune(
            genotypes.dosage,
            genotypes.variants.iloc[kept],
            counts.maf[kept],
            window=config.ld_window,
            step=config.ld_step,
            max_r2=config.ld_max_r2,
            rows=some,
            columns=kept,
        )
        self.funnel[f"linked (r2 above {config.ld_max_r2:g})"] = int((~unlinked).sum())
        kept = kept[unlinked]
        n_pcs = self._n_pcs(n_train)
        if len(kept) < 2 * n_pcs:
            taken = "; ".join(f"{reason}: {n}" for reason, n in self.funnel.items() if n)
            raise NotEnoughDataError(
                f"{genotypes.name}: {len(kept)} of {genotypes.n_variants} variants are left after "
                f"the filters, and {2 * n_pcs} are needed ({taken or 'none filtered'}); "
                "loosen --maf, --geno or --ld-r2, or use a file with more variants"
            )
        self.variants = genotypes.variants.iloc[kept].reset_index(drop=True)
        self.allele_frequency = counts.allele_frequency[kept]
        self.__dict__.pop("_spread", None)  # of an earlier fit
        return kept

    def _n_pcs(self, n_train: int) -> int:
        return min(self.config.n_pcs, n_train - 2)

    def fit(
        self,
        genotypes: GenotypeMatrix,
        *,
        train: np.ndarray | None = None,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> FeatureExtractor:
        """`fit_transform` for its learning alone; `transform` then places further samples.

        Samples that were learnt from belong into `fit_transform`, which alone corrects their
        scores for having been learnt from.
        """
        self.fit_transform(genotypes, train=train, progress=progress)
        return self

    def _decompose(
        self, genotypes: GenotypeMatrix, rows: np.ndarray, kept: np.ndarray, n_pcs: int
    ) -> Features:
        """Eigenvectors of the relationship matrix, then loadings, a block of variants at a time."""
        n, m = len(rows), len(kept)
        dosage = genotypes.dosage
        blocks = column_blocks(n, m)
        self.unit = n / m

        def scaled(block: slice) -> np.ndarray:
            return self._scale(dosage[np.ix_(rows, kept[block])], block)

        relationship = np.zeros((n, n), dtype=np.float32)
        for block in blocks:
            x = scaled(block)
            relationship += x @ x.T
        spectrum = _spectrum(relationship, m, n_pcs)
        self.eigenvalue, vector = spectrum.value, spectrum.vector
        self.shrinkage = spectrum.shrinkage
        self.loadings = np.empty((m, len(self.eigenvalue)), dtype=np.float32)
        for block in blocks:
            self.loadings[block] = scaled(block).T @ vector / np.sqrt(m * self.eigenvalue)
        # Scores of complete training samples are the eigenvectors themselves; the projection
        # gives the same numbers up to rounding, so one formula serves all samples.
        pcs = np.sqrt(n * self.eigenvalue) * vector * self.shrinkage
        region = find_regions(pcs) if self.config.n_local else np.zeros(n, dtype=int)
        local = self._decompose_regions(scaled, blocks, region) if self.config.n_local else []
        self.loadings = np.hstack([self.loadings, *(part.loadings for part in local)])
        features = self._project(lambda block: dosage[:, kept[block]], len(dosage), train=rows)
        x = features.x[rows]
        x[:, : len(self.shrinkage)] *= self.shrinkage
        start = len(self.shrinkage)
        for part in local:
            own = np.ix_(region == part.region, range(start, start + len(part.shrinkage)))
            centre = x[own].mean(axis=0)
            x[own] = centre + part.shrinkage * (x[own] - centre)
            start += len(part.shrinkage)
        features.x[rows] = x
        return replace(features, denoised=Denoiser.of(x, region, self.unit)(x))

    def _decompose_regions(
        self, scaled: Callable[[slice], np.ndarray], blocks: list[slice], region: np.ndarray
    ) -> list[_Local]:
        """Components of each region, orthonormal to those of all samples and to each other."""
        m = len(self.loadings)
        members = [np.flatnonzero(region == r) for r in range(region.max() + 1)]
        members = [rows for rows in members if len(rows) >= MIN_REGION]
        # What the components of all samples explain is taken out; products of X suffice for it.
        score = np.zeros((len(region), self.loadings.shape[1]), dtype=np.float32)
        for block in blocks:
            score += scaled(block) @ self.loadings[block]

        def residual(x: np.ndarray, rows: np.ndarray, block: slice) -> np.ndarray:
            left: np.ndarray = x[rows] - score[rows] @ self.loadings[block].T
            left -= left.mean(axis=0)
            return left

        relationships = [np.zeros((len(rows), len(rows)), dtype=np.float32) for rows in members]
        for block in blocks:
            x = scaled(block)
            for rows, relationship in zip(members, relationships, strict=True):
                left = residual(x, rows, block)
                relationship += left @ left.T
        found = []
        for relationship in relationships:
            n_most = min(self.config.n_local, len(relationship) - 2)
            spectrum = _spectrum(relationship, m, n_most)
            found.append(
                spectrum.take(
                    is_shared(spectrum.vector) & spectrum.is_spike & (spectrum.shrinkage > MIN_RHO)
                )
            )
        raw = [np.empty((m, len(each.value)), dtype=np.float32) for each in found]
        for block in blocks:
            x = scaled(block)
            for rows, each, loadings in zip(members, found, raw, strict=True):
                left = residual(x, rows, block)
                loadings[block] = left.T @ each.vector / np.sqrt(m * each.value)
        basis, local = self.loadings, []
        for r, (each, loadings) in enumerate(zip(found, raw, strict=True)):
            fresh, kept = _orthonormal(basis, loadings)
            basis = np.hstack([basis, fresh])
            local.append(_Local(r, fresh, each.shrinkage[kept]))
        return local

    @cached_property
    def _spread(self) -> np.ndarray:
        """(m,) what centred dosages are divided by."""
        variance = 2 * self.allele_frequency * (1 - self.allele_frequency)
        c = np.sqrt(np.mean(variance ** (1 - 2 * self.config.scaling)))
        spread: np.ndarray = (c * variance**self.config.scaling).astype(np.float32)
        return spread

    def _scale(self, dosage: np.ndarray, block: slice) -> np.ndarray:
        """X of (n, b) dosages of the variants in `block`; missing becomes 0."""
        p = self.allele_frequency[block].astype(np.float32)
        x = dosage.astype(np.float32)
        x -= 2 * p
        x /= self._spread[block]
        x[dosage == MISSING] = 0
        return x

    def _project(
        self,
        dosage_of: Callable[[slice], np.ndarray],
        n: int,
        n_all: int | None = None,
        train: np.ndarray | None = None,
    ) -> Features:
        """Least squares on each sample's observed variants.

        `dosage_of` gives the (n, b) dosages of a block of `variants`; all at once might be too much
        to hold beside the genotypes. Blocks are those of `n_all` samples, so that sums over them
        are rounded as if all these were here. `train`: rows that `heterozygosity` is learnt from.
        """
        k = self.loadings.shape[1]
        upper = np.triu_indices(k)
        blocks = column_blocks(n_all or n, len(self.loadings))
        any_missing, shares = np.zeros(n, dtype=bool), GenotypeShares(n)
        for block in blocks:
            part = dosage_of(block)
            any_missing |= (part == MISSING).any(axis=1)
            shares.add(part, self.allele_frequency[block])
        if train is not None:
            self.heterozygosity = shares.typical(train)
        haploid = shares.is_haploid(self.heterozygosity)
        incomplete = np.flatnonzero(any_missing)
        score = np.zeros((n, k))
        gram = np.zeros((len(incomplete), len(upper[0])), dtype=np.float32)
        for block in blocks:
            part = dosage_of(block)
            w = self.loadings[block]
            score += self._scale(part, block) @ w
            if len(incomplete):
                observed = (part[incomplete] != MISSING).astype(np.float32)
                gram += observed @ (w[:, upper[0]] * w[:, upper[1]])
        noise = np.zeros(n)
        for row, packed in zip(incomplete, gram.astype(float), strict=True):
            observed_gram = np.zeros((k, k))
            observed_gram[upper] = packed
            observed_gram += np.triu(observed_gram, 1).T
            score[row], noise[row] = _least_squares(observed_gram, score[row], self.unit)
        # Half as many alleles: twice the variance, of which `unit` is expected of all.
        noise[haploid] = np.sqrt(2 * noise[haploid] ** 2 + self.unit)
        return Features(
            score * np.sqrt(self.unit),
            noise,
            haploid=haploid,
            reference=shares.reference,
        )

    def transform(
        self, genotypes: GenotypeMatrix, *, absent_is_ref: bool = False, n_all: int | None = None
    ) -> Features:
        """Features of samples that were not learnt from.

        Variants are matched by contig, position and alleles, in either build, swapped or on the
        other strand (`alignment`); those that the file does not have are missing, or homozygous
        for REF with `absent_is_ref` (`alignment.match`). Of a batch `n_all` says how many samples
        there are in all, and features do not depend on the batch.

        Raises
        ------
        NotEnoughDataError
            If the file has fewer of the variants than there are components.
        """
        found = match(genotypes, self.variants, absent_is_ref=absent_is_ref)
        needed = self.loadings.shape[1]
        if found.matched.found < needed:
            raise NotEnoughDataError(why_few(found, self.variants, needed))
        features = self._project(found.dosage, genotypes.n_samples, n_all)
        return replace(features, matched=found.matched)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON-ready settings from which `from_state` rebuilds the extractor."""
        arrays = {
            "allele_frequency": self.allele_frequency,
            "loadings": self.loadings,
            "eigenvalue": self.eigenvalue,
            "shrinkage": self.shrinkage,
        }
        settings = {
            "config": asdict(self.config),
            "unit": self.unit,
            "heterozygosity": self.heterozygosity,
            "funnel": self.funnel,
        }
        return arrays, settings

    @classmethod
    def from_state(
        cls, arrays: dict[str, np.ndarray], settings: dict[str, Any], variants: Any
    ) -> FeatureExtractor:
        """Rebuild from `state` and the table of variants."""
        self = cls(FeatureConfig(**settings["config"]))
        self.allele_frequency = arrays["allele_frequency"]
        self.loadings = arrays["loadings"]
        self.eigenvalue = arrays["eigenvalue"]
        self.shrinkage = arrays["shrinkage"]
        self.unit = settings["unit"]
        self.heterozygosity = settings["heterozygosity"]
        self.funnel = settings["funnel"]
        self.variants = variants
        return self


@dataclass(frozen=True)
class _Spectrum:
    """Leading eigenvalues and vectors of a relationship matrix, and what of them is signal."""

    value: np.ndarray
    vector: np.ndarray
    shrinkage: np.ndarray
    is_spike: np.ndarray

    def take(self, which: np.ndarray) -> _Spectrum:
        """Some of them."""
        return _Spectrum(
            self.value[which], self.vector[:, which], self.shrinkage[which], self.is_spike[which]
        )


@dataclass(frozen=True)
class _Local:
    """Local components of one region: loadings (m, l) and the shrinkage (l,) of its samples."""

    region: int
    loadings: np.ndarray
    shrinkage: np.ndarray


def _spectrum(products: np.ndarray, m: int, n_leading: int) -> _Spectrum:
    """The leading part of A = products / m, the products X X' (n, n)."""
    from scipy.sparse.linalg import eigsh  # of no use to those who only place samples

    n = len(products)
    relationship = products / m
    trace = float(np.trace(relationship))
    # A fixed start vector: eigsh draws a random one otherwise, and runs would differ. Not the
    # constant vector, which centred columns send to 0.
    start = np.random.default_rng(0).standard_normal(n, dtype=np.float32)
    value, vector = eigsh(relationship, k=n_leading, v0=start)
    # Few distinct samples span few components; the rest is rounding that scaling would blow up.
    order = np.argsort(value)[::-1]
    order = order[value[order] > RANK_TOLERANCE * trace / n]
    value, vector = value[order].astype(float), vector[:, order].astype(float)
    # Signs of eigenvectors are arbitrary; the largest entry is made positive.
    vector *= np.sign(vector[np.abs(vector).argmax(axis=0), range(len(value))])
    trace_of_square = float(np.square(relationship).sum(dtype=float))
    return _Spectrum(value, vector, *_shrinkage(value, trace, trace_of_square, n, m))


def _shrinkage(
    eigenvalue: np.ndarray, trace: float, trace_of_square: float, n: int, m: int
) -> tuple[np.ndarray, np.ndarray]:
    """(K,) rho_k of note (1) from the leading eigenvalues of A (n, n), tr A and tr A^2, and
    whether the component stands above the noise."""
    floor = trace / n
    n_rest = n - 1 - len(eigenvalue)
    rest = (trace - eigenvalue.sum()) / n_rest
    g = m / n
    if rest > RANK_TOLERANCE * floor:
        # Eigenvalues of noise vary about their mean by mean^2 n / M.
        spread = (trace_of_square - (eigenvalue**2).sum()) / n_rest / rest**2 - 1
        g = 1 / max(spread, 1 / g)
    d = g * eigenvalue / floor
    half = (d + 1 - g) / 2
    above = half + np.sqrt(np.maximum(half**2 - d, 0)) - 1
    # The two meet where L_k = 1 + sqrt(g), below which the equation has no solution.
    is_spike = above > np.sqrt(g)
    shrinkage = np.where(is_spike, above / (above + g), 1 / np.sqrt(d))
    return np.minimum(shrinkage, 1.0), is_spike


def _orthonormal(basis: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What (m, l) columns add to an orthonormal basis (m, k), orthonormal too, and which of them
    add enough to stand for themselves."""
    kept = []
    for j, column in enumerate(columns.T.astype(float)):
        left = column - basis @ (basis.T @ column)
        length = float(np.linalg.norm(left))
        if length**2 > 0.5 * float(column @ column):
            basis = np.hstack([basis, (left / length).astype(np.float32)[:, None]])
            kept.append(j)
    return basis[:, basis.shape[1] - len(kept) :], np.array(kept, dtype=int)


def _least_squares(
    gram: np.ndarray, projected: np.ndarray, unit: float
) -> tuple[np.ndarray, float]:
    """Solve one sample's normal equations; also the noise that its missing variants add."""
    if not gram.any():
        return np.zeros_like(projected), np.inf
    # A ridge far below any real eigenvalue keeps nearly empty samples solvable; their noise says
    # how little the answer is worth.
    inverse = np.linalg.inv(gram + 1e-6 * np.eye(len(gram)))
    variance = unit * max(float(np.mean(np.diag(inverse))) - 1.0, 0.0)
    return inverse @ projected, float(np.sqrt(variance))

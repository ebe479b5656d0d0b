"""What a genotype file is, and what embed would do with it, without learning anything.

    inspection = inspect_files(["genotypes.vcf.gz"])
    print(inspection.table())
    inspection.as_json()                           # the same and more, for machines

`--compare OTHER` holds it against other genotypes of the same people: how well each sample agrees
with its namesake, and which samples agree with somebody else instead (swapped or copied ids).
"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from ancestry_ddvi.console import Console, Verbosity
from ancestry_ddvi.errors import GenotypeFileError, NotEnoughDataError
from ancestry_ddvi.genotypes import MISSING, GenotypeMatrix
from ancestry_ddvi.loaders.containers import CheckedFile, iter_lines
from ancestry_ddvi.loaders.options import ReadOptions
from ancestry_ddvi.loaders.read import open_source, read_sources, spooled
from ancestry_ddvi.loaders.source import Source
from ancestry_ddvi.preprocessing.concordance import agreement, discordance
from ancestry_ddvi.preprocessing.features import FeatureConfig, FeatureExtractor
from ancestry_ddvi.preprocessing.filters import VariantCounts, column_blocks, sample_call_rate
from ancestry_ddvi.preprocessing.relatedness import (
    DEGREES,
    RelatedPairs,
    find_relatives,
)
from ancestry_ddvi.reference_sites import (
    FLIPPED,
    GRCH37,
    GRCH38,
    SAME,
    SWAPPED,
    UNKNOWN,
    Aligned,
    Build,
    Sites,
    align,
    detect_build,
    reference_sites,
)

DUPLICATE, _, SECOND_DEGREE, _ = (least for least, _ in DEGREES)

N_NAMED = 5
"""Samples and variants named where there are more."""

BADLY_CALLED = 0.1
"""A sample with a larger share of missing genotypes is counted as badly called."""

MIN_SITES = 20
"""Two samples that share fewer sites are not compared."""

N_INFORMATIVE = 2000
"""The most variable shared sites, which tell strangers apart best, are looked at for matches."""

SUSPECT = 0.02
"""A sample that differs from its namesake at more of the informative sites (and at 10 at least)
is held against everybody else."""

BETTER = 1 / 3
"""It is somebody else's if the discordance with them is less than this share of that."""

SAME_PERSON = 0.1
"""A sample without a namesake is matched with nobody at a larger discordance."""

MONOMORPHIC = "monomorphic"

SWAPPED_IDS, COPIED, RENAMED, OTHER_ID = "swapped", "copied", "renamed", "other id"


# What is found.


@dataclass(frozen=True)
class Missingness:
    """Missing genotypes.

    Attributes
    ----------
    share
        Of all genotypes; None if there are none.
    n_samples_above
        Samples with a larger share than `BADLY_CALLED`.
    worst_samples, worst_variants
        The worst `N_NAMED` with any: (sample id or contig:position, share).
    """

    share: float | None
    n_samples_above: int
    worst_samples: tuple[tuple[str, float], ...]
    worst_variants: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Overlap:
    """Sites of the reference in the file.

    Attributes
    ----------
    reference
        Its name.
    build
        At whose positions they were looked for; of an unknown build, that with more of them.
    n_sites
        Sites of the reference.
    sites
        How many are there, by `RELATIONS`.
    """

    reference: str
    build: str
    n_sites: int
    sites: dict[str, int]


@dataclass(frozen=True)
class Relatives:
    """Samples of one file that are related.

    Attributes
    ----------
    min_kinship
        Least KING-robust kinship of a pair: what was asked for, or what so few variants can show.
    n_pairs
        Pairs of at least that kinship.
    n_variants
        Variants that were looked at.
    duplicates
        Pairs that are the same person twice, or twins: (sample id, sample id, kinship).
    """

    min_kinship: float
    n_pairs: int
    n_variants: int
    duplicates: tuple[tuple[str, str, float], ...]


@dataclass(frozen=True)
class EmbedPreview:
    """What `embed` would do.

    Attributes
    ----------
    possible
        Whether there is enough to learn a map from.
    message
        The error that it would end with, its remedy included; else None.
    variants_filtered
        How many variants each filter would take, in order; empty if it would not come so far.
    n_variants, n_samples
        Variants and samples that it would learn from; None if it would not come so far.
    badly_called
        Ids of samples that are called at too few variants to learn from.
    relatives
        Ids of samples left out of learning because a relative is learnt from.
    """

    possible: bool
    message: str | None
    variants_filtered: dict[str, int]
    n_variants: int | None
    n_samples: int | None
    badly_called: tuple[str, ...]
    relatives: tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """One person's genotypes under two ids.

    Attributes
    ----------
    sample_id, other_id
        The ids in the file and in the one it is compared with.
    kind
        `swapped` (the two ids stand for each other's genotypes), `copied` (one of the two agrees
        with its own namesake as well, so the other is a copy), `renamed` (neither file has the
        other's id), or `other id`.
    concordance
        Share of equal genotypes between the two, at the informative sites.
    own_concordance
        The same between `sample_id` and its namesake; None without one, or without shared calls.
    """

    sample_id: str
    other_id: str
    kind: str
    concordance: float
    own_concordance: float | None


@dataclass(frozen=True)
class Comparison:
    """One file's genotypes held against another's.

    Attributes
    ----------
    path
        The other file.
    build
        Its genome build.
    n_sites
        Sites in both, those aside at which a strand flip cannot be seen.
    by
        What a site was found by: its position, or the reference's sites if the builds differ.
    n_informative
        Of these, sites at which samples are matched.
    n_shared, n_only_here, n_only_there
        Sample ids in both files, and in one.
    median
        Of `concordance`; None if it is empty.
    concordance
        Share of equal genotypes by shared id, over all shared sites; None if never both called.
    matches
        Ids whose genotypes are another id's.
    """

    path: str
    build: str
    n_sites: int
    by: str
    n_informative: int
    n_shared: int
    n_only_here: int
    n_only_there: int
    median: float | None
    concordance: dict[str, float | None]
    matches: tuple[Match, ...]


@dataclass(frozen=True)
class Inspection:
    """What `ancestry-ddvi inspect` says.

    Attributes
    ----------
    source
        `path`, `format` and `sha256`.
    build
        The genome build.
    n_samples, first_samples
        Their number, and the ids of the first few.
    n_families
        Family ids that differ; None if the format has none.
    n_variants
        Biallelic SNPs that were read.
    left_out
        Records that were not, by reason.
    by_contig
        Variants read, by contig in the order of the file.
    by_rule
        Genotypes that a rule decided: half calls, haploid calls, dosages.
    notes
        What the reader has to say.
    missing
        Missing genotypes.
    frequencies
        Variants by minor allele frequency.
    overlap
        With the reference `1kg`.
    relatives
        None if they were not looked for: too few variants, or too many samples.
    embed
        What `embed` would do.
    comparison
        With another file, if that was asked for.
    """

    source: dict[str, str]
    build: Build
    n_samples: int
    first_samples: tuple[str, ...]
    n_families: int | None
    n_variants: int
    left_out: dict[str, int]
    by_contig: dict[str, int]
    by_rule: dict[str, int]
    notes: tuple[str, ...]
    missing: Missingness
    frequencies: dict[str, int]
    overlap: Overlap
    relatives: Relatives | None
    embed: EmbedPreview
    comparison: Comparison | None = None

    def as_json(self) -> str:
        """Everything, as strict JSON."""
        return json.dumps(asdict(self), indent=2, allow_nan=False)

    def rows(self) -> list[tuple[str, str]]:
        """Name and value; an empty pair between sections."""
        sections = [
            _file_rows(self),
            _sample_rows(self),
            _variant_rows(self),
            _overlap_rows(self.overlap),
            _embed_rows(self),
        ]
        if self.comparison:
            sections.append(_comparison_rows(self.comparison))
        return [row for i, rows in enumerate(sections) for row in [("", "")] * (i > 0) + rows]

    def table(self, width: int = 100) -> str:
        """The rows as aligned text of at most that many columns, long words aside."""
        rows = [(_printable(name), _printable(value)) for name, value in self.rows()]
        indent = 2 + max(len(name) for name, _ in rows)
        lines: list[str] = []
        for name, value in rows:
            parts = textwrap.wrap(
                value, max(width - indent, 20), break_long_words=False, break_on_hyphens=False
            )
            for i, part in enumerate(parts or [""]):
                line = f"{name if i == 0 else '':<{indent}}{part}".rstrip()
                lines.append(line.replace(_NO_BREAK, " "))
        return "\n".join(lines)


# Finding it.


def inspect_files(
    paths: Sequence[str | os.PathLike[str]],
    options: ReadOptions | None = None,
    *,
    other: str | os.PathLike[str] | None = None,
    config: FeatureConfig | None = None,
    console: Console | None = None,
) -> Inspection:
    """Read files of the same samples and say what they are.

    Parameters
    ----------
    paths
        As `read_genotypes` takes them.
    options
        What to read, of `other` as well.
    other
        Genotypes to compare with.
    config
        Settings that embed would be given.
    console
        Where progress goes.

    Raises
    ------
    InputError
        If a file cannot be read, or two share too few sites to compare.
    """
    console = console or Console(Verbosity.QUIET)
    if not paths:
        raise GenotypeFileError("no genotype file was given; name one")
    given = [os.fspath(path) for path in (*paths, *([] if other is None else [other]))]
    with spooled(given) as names:
        sources = [open_source(name) for name in names]
        mine, theirs = sources[: len(paths)], sources[len(paths) :]
        with console.stage("read genotypes") as update:
            genotypes = _named_as_given(read_sources(mine, options, update), names, given)
        lengths = contig_lengths(mine)
        with console.stage("look at them") as update:
            inspection = inspect_genotypes(genotypes, lengths, config=config, progress=update)
        if theirs:
            with console.stage("read the other genotypes") as update:
                others = _named_as_given(read_sources(theirs, options, update), names, given)
            build = detect_build(others.variants, contig_lengths(theirs))
            with console.stage("compare") as update:
                comparison = compare_genotypes(
                    genotypes, others, (inspection.build.name, build.name), progress=update
                )
            inspection = replace(inspection, comparison=comparison)
    return inspection


def _named_as_given(
    genotypes: GenotypeMatrix, names: Sequence[str], given: Sequence[str]
) -> GenotypeMatrix:
    """Call the copy of standard input what it is."""
    for copy in (name for name, typed in zip(names, given, strict=True) if name != typed):
        genotypes = replace(
            genotypes,
            source={k: v.replace(copy, "standard input") for k, v in genotypes.source.items()},
            notes=tuple(note.replace(copy, "standard input") for note in genotypes.notes),
        )
    return genotypes


def inspect_genotypes(
    genotypes: GenotypeMatrix,
    lengths: Mapping[str, int] | None = None,
    *,
    config: FeatureConfig | None = None,
    max_kinship: float = SECOND_DEGREE,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Inspection:
    """Say what genotypes are.

    Parameters
    ----------
    genotypes
        Any number of samples.
    lengths
        Of contigs, by name, where the file has them: they tell a build that positions do not.
    config
        Settings that embed would be given.
    max_kinship
        Of two samples at least so closely related, embed learns from one.
    progress
        Called with the fraction done.
    """
    counts = VariantCounts.of(genotypes.dosage)
    sites = Sites.of(genotypes.variants)
    build = detect_build(sites, lengths)
    embed, relatives = preview_embed(genotypes, config, max_kinship=max_kinship, progress=progress)
    families = genotypes.family_id
    contigs = genotypes.variants["contig"].value_counts(sort=False)
    return Inspection(
        source=dict(genotypes.source),
        build=build,
        n_samples=genotypes.n_samples,
        first_samples=_ids(genotypes.sample_id[:N_NAMED]),
        n_families=None if families is None else len(set(families.tolist())),
        n_variants=genotypes.n_variants,
        left_out=dict(genotypes.left_out),
        by_contig={str(contig): int(n) for contig, n in contigs.items()},
        by_rule=dict(genotypes.by_rule),
        notes=tuple(genotypes.notes),
        missing=missingness(genotypes, counts),
        frequencies=frequency_spectrum(counts),
        overlap=reference_overlap(sites, build),
        relatives=relatives,
        embed=embed,
    )


def missingness(genotypes: GenotypeMatrix, counts: VariantCounts) -> Missingness:
    """Missing genotypes of samples and of variants."""
    n_samples, n_variants = genotypes.dosage.shape
    of_sample = 1 - sample_call_rate(genotypes)
    of_variant = counts.n_missing / max(n_samples, 1)

    def worst(share: np.ndarray, name: Callable[[int], str]) -> tuple[tuple[str, float], ...]:
        order = np.argsort(-share, kind="stable")[:N_NAMED]
        return tuple((name(int(i)), float(share[i])) for i in order if share[i] > 0)

    table = genotypes.variants
    return Missingness(
        share=float(counts.n_missing.sum() / genotypes.dosage.size)
        if n_samples * n_variants
        else None,
        # As the reader has it: 1 - call rate is rounded, and .1 may be above .1.
        n_samples_above=int((sample_call_rate(genotypes) < 1 - BADLY_CALLED).sum()),
        worst_samples=worst(of_sample, lambda i: str(genotypes.sample_id[i])),
        worst_variants=worst(
            of_variant, lambda i: f"{table['contig'].iloc[i]}:{table['position'].iloc[i]}"
        ),
    )


def frequency_spectrum(counts: VariantCounts) -> dict[str, int]:
    """Variants by minor allele frequency; monomorphic as the filter of embed has it."""
    maf = np.where(counts.varies, np.nan_to_num(counts.maf), -1.0)
    return {
        MONOMORPHIC: int((maf < 0).sum()),
        "below 1 %": int(((maf >= 0) & (maf < 0.01)).sum()),
        "1 to 5 %": int(((maf >= 0.01) & (maf < 0.05)).sum()),
        "5 to 50 %": int((maf >= 0.05).sum()),
    }


def reference_overlap(variants: pd.DataFrame | Sites, build: Build) -> Overlap:
    """The sites of `1kg` that a file has."""
    name = build.name
    if name == UNKNOWN:
        name = max((GRCH37, GRCH38), key=lambda b: build.n_matched[b])
    sites = reference_sites()
    aligned = align(variants, sites.at(name))
    return Overlap("1kg", name, len(sites), aligned.counts())


def preview_embed(
    genotypes: GenotypeMatrix,
    config: FeatureConfig | None = None,
    *,
    max_kinship: float = SECOND_DEGREE,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[EmbedPreview, Relatives | None]:
    """Choose samples and variants as embed does, and look for relatives on the way."""
    extractor = FeatureExtractor(config or FeatureConfig())
    sample_id = genotypes.sample_id
    message: str | None = None
    kept: np.ndarray | None = None
    try:
        kept = extractor.select(genotypes)
    except NotEnoughDataError as fault:
        message = str(fault)
    trained_on: np.ndarray | None = getattr(extractor, "trained_on", None)
    relatives: Relatives | None = None
    left_out = np.zeros(genotypes.n_samples, dtype=bool)
    if genotypes.n_samples > 1:
        train = np.ones(genotypes.n_samples, dtype=bool) if trained_on is None else trained_on
        found = find_relatives(
            genotypes,
            train if train.any() else ~train,
            min_kinship=max_kinship,
            min_call_rate=extractor.config.min_call_rate,
            min_maf=extractor.config.min_maf,
            progress=progress,
        )
        if np.isfinite(found.min_kinship):
            relatives = _relatives(found.pairs, sample_id, found.min_kinship)
            left_out = found.left_out
    if left_out.any():
        try:
            kept = extractor.select(genotypes, train=~left_out)
        except NotEnoughDataError as fault:
            message = str(fault)
    progress(1.0)
    low = np.zeros(0) if trained_on is None else sample_id[~trained_on]
    n_samples = None if trained_on is None else int(extractor.trained_on.sum())
    preview = EmbedPreview(
        possible=message is None,
        message=message,
        variants_filtered=dict(getattr(extractor, "funnel", {})),
        n_variants=None if kept is None or message else len(kept),
        n_samples=n_samples,
        badly_called=_ids(low),
        relatives=_ids(sample_id[left_out]),
    )
    return preview, relatives


def _relatives(pairs: RelatedPairs, sample_id: np.ndarray, min_kinship: float) -> Relatives:
    twice = pairs.kinship >= DUPLICATE
    ids = (sample_id[side[twice]].tolist() for side in (pairs.first, pairs.second))
    return Relatives(
        min_kinship=min_kinship,
        n_pairs=len(pairs.kinship),
        n_variants=pairs.n_variants,
        duplicates=tuple(
            (str(a), str(b), float(k)) for a, b, k in zip(*ids, pairs.kinship[twice], strict=True)
        ),
    )


def contig_lengths(sources: Sequence[Source]) -> dict[str, int]:
    """Lengths of contigs by name, as headers of VCFs have them; none of other formats."""
    lengths: dict[str, int] = {}
    for source in sources:
        if not source.format.startswith("VCF ("):
            continue
        for line in iter_lines(CheckedFile(source.path).text()):
            if not line.startswith(b"##"):
                break
            if line.startswith(b"##contig=<"):
                text = line.decode("utf-8", "replace").strip().removesuffix(">")
                fields = dict(
                    part.split("=", 1)
                    for part in text[len("##contig=<") :].split(",")
                    if "=" in part
                )
                if "ID" in fields and fields.get("length", "").isdecimal():
                    lengths[fields["ID"]] = int(fields["length"])
    return lengths


# Two files.


def compare_genotypes(
    genotypes: GenotypeMatrix,
    others: GenotypeMatrix,
    builds: tuple[str, str] = (UNKNOWN, UNKNOWN),
    *,
    progress: Callable[[float], None] = lambda fraction: None,
) -> Comparison:
    """Hold the genotypes of one file against those of another, by sample id.

    Parameters
    ----------
    genotypes, others
        Some of the ids should be in both.
    builds
        Of the two; if they are known and differ, sites are found by the reference's.
    progress
        Called with the fraction done.

    Raises
    ------
    NotEnoughDataError
        If they have fewer than 20 sites in common.
    """
    shared = _shared_sites(genotypes, others, builds)
    if shared.n < MIN_SITES:
        raise NotEnoughDataError(
            f"{others.name}: {shared.n} of its variants are sites of {genotypes.name} too, and "
            f"{MIN_SITES} are needed to compare genotypes; check that genome build and contig "
            "names agree"
        )
    at_of = {sample: i for i, sample in enumerate(others.sample_id.tolist())}
    there = np.array([at_of.get(s, -1) for s in genotypes.sample_id.tolist()], dtype=np.int64)
    here = np.flatnonzero(there >= 0)
    compared = np.zeros(len(here), dtype=np.int64)
    equal = np.zeros(len(here), dtype=np.int64)
    for block in column_blocks(max(len(here), 1), shared.n):
        a, b = shared.dosages(block, here, there[here])
        n, n_equal = agreement(a, b)
        compared += n
        equal += n_equal
    concordance = np.divide(equal, compared, out=np.full(len(here), np.nan), where=compared > 0)
    known = concordance[compared > 0]
    matches, n_informative = _find_matches(shared, there, progress)
    ids = _ids(genotypes.sample_id[here])
    return Comparison(
        path=others.name,
        build=builds[1],
        n_sites=shared.n,
        by=shared.by,
        n_informative=n_informative,
        n_shared=len(here),
        n_only_here=genotypes.n_samples - len(here),
        n_only_there=others.n_samples - len(here),
        median=float(np.median(known)) if len(known) else None,
        concordance={
            sample: float(c) if n else None
            for sample, c, n in zip(ids, concordance, compared, strict=True)
        },
        matches=matches,
    )


@dataclass(frozen=True)
class _Shared:
    """Sites that two files share: their columns in each, and where one counts the other allele."""

    ours: GenotypeMatrix
    theirs: GenotypeMatrix
    our_column: np.ndarray
    their_column: np.ndarray
    turned: np.ndarray
    by: str

    @property
    def n(self) -> int:
        return len(self.turned)

    def dosages(
        self, sites: slice | np.ndarray, here: np.ndarray, there: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(n_here, n) and (n_there, n) int8 dosages of the same alleles at some shared sites."""
        a = self.ours.dosage[np.ix_(here, self.our_column[sites])]
        b = self.theirs.dosage[np.ix_(there, self.their_column[sites])]
        return a, np.where(self.turned[sites] & (b != MISSING), 2 - b, b)

    def informative(self) -> np.ndarray:
        """Indices of the sites that vary most over both files, and are called in them."""
        # Of all variants: to take the shared ones out first would hold a second matrix.
        a, b = VariantCounts.of(self.ours.dosage), VariantCounts.of(self.theirs.dosage)
        their_n = b.n_called[self.their_column]
        theirs = b.n_counted[self.their_column]
        n_called = a.n_called[self.our_column] + their_n
        n_counted = a.n_counted[self.our_column]
        n_counted += np.where(self.turned, 2 * their_n - theirs, theirs)
        minor = np.minimum(n_counted, 2 * n_called - n_counted)
        order = np.argsort(-minor, kind="stable")
        return np.sort(order[: min(N_INFORMATIVE, np.count_nonzero(minor))])


def _shared_sites(ours: GenotypeMatrix, theirs: GenotypeMatrix, builds: tuple[str, str]) -> _Shared:
    def unambiguous(aligned: Aligned) -> np.ndarray:
        return np.isin(aligned.relation, (SAME, SWAPPED, FLIPPED))

    if UNKNOWN not in builds and builds[0] != builds[1]:
        sites = reference_sites()
        a = align(ours.variants, sites.at(builds[0]))
        b = align(theirs.variants, sites.at(builds[1]))
        at = np.flatnonzero(unambiguous(a) & unambiguous(b))
        turned = (a.turned ^ b.turned)[at]
        return _Shared(ours, theirs, a.column[at], b.column[at], turned, "sites of 1kg")
    b = align(theirs.variants, Sites.of(ours.variants))
    at = np.flatnonzero(unambiguous(b))
    return _Shared(ours, theirs, at, b.column[at], b.turned[at], "position")


def _find_matches(
    shared: _Shared, there: np.ndarray, progress: Callable[[float], None]
) -> tuple[tuple[Match, ...], int]:
    """Samples that are somebody else in the other file, and the number of sites that say so.

    `there` is (n_samples,), the index of the namesake, or -1.
    """
    sites = shared.informative()
    everybody = np.arange(shared.ours.n_samples), np.arange(shared.theirs.n_samples)
    a, b = shared.dosages(sites, *everybody)
    back = np.full(len(b), -1, dtype=np.int64)
    here = np.flatnonzero(there >= 0)
    back[there[here]] = here
    n, equal = agreement(a[here], b[there[here]])
    own = np.full(len(a), np.nan)
    own[here] = np.divide(n - equal, n, out=np.full(len(here), np.nan), where=n >= MIN_SITES)
    suspect = np.zeros(len(a), dtype=bool)
    suspect[here] = (own[here] > SUSPECT) & (n - equal >= 10)
    their_own = np.where(back >= 0, own[back], np.nan)
    # Either way round: a copy agrees with its namesake in one file, and is odd in the other.
    ours = np.flatnonzero(suspect | (there < 0))
    theirs = np.flatnonzero((back < 0) | suspect[back])
    found: dict[tuple[int, int], float] = {}
    n_to_do = max(len(ours) + len(theirs), 1)
    for i, j, d in _best(a, b, ours, there, own, lambda k: progress(k / n_to_do)):
        found[i, j] = d
    for j, i, d in _best(
        b, a, theirs, back, their_own, lambda k: progress((len(ours) + k) / n_to_do)
    ):
        found[i, j] = d
    progress(1.0)
    matches = []
    for (i, j), d in found.items():
        # The namesakes of each, in the file of the other: (their i, our j).
        turned = (int(back[j]), int(there[i]))
        agrees = (there[i] >= 0 and not suspect[i]) or (back[j] >= 0 and not suspect[back[j]])
        if turned in found:
            kind = SWAPPED_IDS
        elif agrees:
            kind = COPIED
        else:
            kind = RENAMED if there[i] < 0 and back[j] < 0 else OTHER_ID
        matches.append(
            Match(
                sample_id=str(shared.ours.sample_id[i]),
                other_id=str(shared.theirs.sample_id[j]),
                kind=kind,
                concordance=1 - d,
                own_concordance=None if np.isnan(own[i]) else float(1 - own[i]),
            )
        )
    return tuple(matches), len(sites)


def _best(
    a: np.ndarray,
    b: np.ndarray,
    rows: np.ndarray,
    namesake: np.ndarray,
    own: np.ndarray,
    done: Callable[[int], None],
) -> Iterator[tuple[int, int, float]]:
    """Rows of `a`, the row of `b` that each is much liker than its namesake, and the discordance.

    A row without a namesake is to be much liker to it than to the others.
    """
    for part, share in discordance(a[rows], b, min_compared=MIN_SITES):
        for i, d in zip(rows[part], share, strict=True):
            if namesake[i] >= 0:
                d[namesake[i]] = np.nan
            if np.isnan(d).all():
                continue
            j = int(np.nanargmin(d))
            if namesake[i] >= 0:
                same = d[j] < BETTER * own[i]
            else:
                rest = np.delete(d, j)
                rest = rest[~np.isnan(rest)]
                # Against one or two others there is no telling how strangers agree.
                usual = float(np.median(rest)) if len(rest) > 2 else 1.0
                same = d[j] < min(SAME_PERSON, BETTER * usual)
            if same:
                yield int(i), j, float(d[j])
        done(part.stop)


# The table.

_NO_BREAK = "\u00a0"
_N_CONTIGS = 30
_N_MATCHES = 10


def _ids(sample_id: np.ndarray) -> tuple[str, ...]:
    return tuple(str(sample) for sample in sample_id.tolist())


def _printable(text: str) -> str:
    """Text without control characters or broken unicode: an id may hold what upsets a terminal."""
    return "".join(
        c if c.isprintable() or c == _NO_BREAK else c.encode("unicode_escape").decode()
        for c in text
    )


def _named(ids: Sequence[str], n_all: int | None = None) -> str:
    """The first few, and how many more."""
    more = (len(ids) if n_all is None else n_all) - len(ids[:N_NAMED])
    return ", ".join(ids[:N_NAMED]) + (f", and {more:,} more" if more else "")


def _counted(ids: Sequence[str]) -> str:
    return f"{len(ids):,}" + (f" ({_named(ids)})" if ids else "")


def _percent(share: float | None) -> str:
    if share is None:
        return "-"
    # Never 0.00 % for a little that is there.
    return f"{100 * share:.2f} %" if share == 0 or share >= 0.0001 else "below 0.01 %"


def _shares(worst: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{name}{_NO_BREAK}({_percent(share)})" for name, share in worst)


def _file_rows(it: Inspection) -> list[tuple[str, str]]:
    return [
        ("file", it.source.get("path", "-")),
        ("format", it.source.get("format", "-")),
        ("SHA-256", it.source.get("sha256", "-")),
        ("genome build", f"{it.build.name} ({it.build.evidence})"),
        *(("note", note) for note in it.notes),
    ]


def _sample_rows(it: Inspection) -> list[tuple[str, str]]:
    rows = [("samples", f"{it.n_samples:,}"), ("  ids", _named(it.first_samples, it.n_samples))]
    if it.n_families is not None:
        rows.append(("  families", f"{it.n_families:,}"))
    if (related := it.relatives) is None:
        if it.n_samples > 1:
            rows.append(("  relatives", "not looked for: too few variants, or too many samples"))
        return rows
    n_twice = len(related.duplicates)
    twice = ", ".join(f"{a}{_NO_BREAK}={_NO_BREAK}{b}" for a, b, _ in related.duplicates[:N_NAMED])
    twice += f", and {n_twice - N_NAMED:,} more" if n_twice > N_NAMED else ""
    rows += [
        ("  duplicates or twins", f"{n_twice:,} pairs" + (f": {twice}" if n_twice else "")),
        (
            "  relatives",
            f"{related.n_pairs:,} pairs of kinship {related.min_kinship:.3g} or more "
            f"(KING-robust, {related.n_variants:,} variants)",
        ),
    ]
    return rows


def _variant_rows(it: Inspection) -> list[tuple[str, str]]:
    contigs = [f"{c}:{_NO_BREAK}{n:,}" for c, n in it.by_contig.items()]
    more = len(contigs) - _N_CONTIGS
    by_contig = ", ".join(contigs[:_N_CONTIGS]) + (f", and {more:,} more" if more > 0 else "")
    spectrum = [
        (f"  {name}" if name == MONOMORPHIC else f"  MAF {name}", f"{n:,}")
        for name, n in it.frequencies.items()
    ]
    missing = it.missing
    rows = [
        ("biallelic SNPs read", f"{it.n_variants:,}"),
        *((f"  left out: {reason}", f"{n:,}") for reason, n in it.left_out.items() if n),
        ("  by contig", by_contig),
        *spectrum,
        *((f"  {rule}", f"{n:,} genotypes") for rule, n in it.by_rule.items() if n),
        ("missing genotypes", _percent(missing.share)),
        (f"  samples above {100 * BADLY_CALLED:g} %", f"{missing.n_samples_above:,}"),
    ]
    if missing.worst_samples:
        rows.append(("  worst samples", _shares(missing.worst_samples)))
        rows.append(("  worst variants", _shares(missing.worst_variants)))
    return rows


_IN_WORDS = {
    "same": "as they are",
    "swapped": "REF and ALT swapped",
    "flipped": "on the other strand",
    "ambiguous": "ambiguous (A/T, C/G)",
    "other": "other alleles there",
    "absent": "absent",
}


def _overlap_rows(it: Overlap) -> list[tuple[str, str]]:
    found = it.n_sites - it.sites["absent"] - it.sites["other"]
    title = f"{found:,} of {it.n_sites:,} ({found / it.n_sites:.0%}), looked for in {it.build}"
    return [
        (f"sites of {it.reference}", title),
        *((f"  {_IN_WORDS[name]}", f"{n:,}") for name, n in it.sites.items()),
    ]


def _embed_rows(it: Inspection) -> list[tuple[str, str]]:
    preview = it.embed
    rows = [
        (
            "embed would",
            preview.message
            or f"learn from {preview.n_samples:,} samples at {preview.n_variants:,} variants",
        )
    ]
    if preview.message:
        rows = [("embed would refuse", preview.message)]
    left = it.n_variants
    for reason, n in preview.variants_filtered.items():
        left -= n
        rows.append((f"  {reason}", f"{n:,} left out, {left:,} kept"))
    if preview.n_samples is not None:
        rows += [
            ("  samples badly called", _counted(preview.badly_called)),
            ("  related to others", _counted(preview.relatives)),
        ]
    return rows


def _comparison_rows(it: Comparison) -> list[tuple[str, str]]:
    rows = [
        ("compared with", it.path),
        ("  genome build", it.build),
        ("  shared sites", f"{it.n_sites:,}, by {it.by}"),
        (
            "  sample ids",
            f"{it.n_shared:,} shared, {it.n_only_here:,} here only, {it.n_only_there:,} there only",
        ),
    ]
    known = sorted((c, sample) for sample, c in it.concordance.items() if c is not None)
    if it.median is not None:
        lowest = ", ".join(f"{sample}{_NO_BREAK}({c:.4f})" for c, sample in known[:N_NAMED])
        rows += [("  concordance", f"median {it.median:.4f}"), ("  lowest", lowest)]
    seen: set[frozenset[str]] = set()
    said = []
    for match in it.matches:
        both = frozenset((match.sample_id, match.other_id))
        if match.kind == SWAPPED_IDS and both in seen:
            continue
        seen.add(both)
        own = match.own_concordance
        said.append(
            (
                f"  {match.kind}",
                f"{match.sample_id} here has the genotypes of {match.other_id} there "
                f"(concordance {match.concordance:.3f}"
                + (")" if own is None else f"; with {match.sample_id} there {own:.3f})"),
            )
        )
    rows += said[:_N_MATCHES]
    if len(said) > _N_MATCHES:
        rows.append(("", f"and {len(said) - _N_MATCHES:,} more; --json has all"))
    if not said:
        rows.append(("  swapped or copied", "none found"))
    return rows

"""What to read of a file: variants, samples, and what unusual calls mean. Names as in plink2."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ancestry_ddvi.errors import OptionError
from ancestry_ddvi.loaders.lists import SampleList, VariantList
from ancestry_ddvi.loaders.regions import RegionSet
from ancestry_ddvi.loaders.sites import HUMAN_AUTOSOMES, SiteRule
from ancestry_ddvi.loaders.source import HALF_CALLS, CallRule

MULTIALLELIC = ("skip", "split")


@dataclass(frozen=True)
class ReadOptions:
    """What to read; the defaults take every biallelic SNP on a human autosome, and every sample.

    Attributes
    ----------
    chr_set
        Number of autosomes of the species; None takes every contig that is not named like a sex
        chromosome or the mitochondrion.
    regions, exclude_regions
        Read these regions only, and not those.
    keep, remove
        Read these samples only, and not those.
    extract, exclude
        Read these variants only, and not those.
    places
        Read variants at these places only, those of a model, to be matched with it: repeated sites
        and records without ALT are kept, and genotypes with another ALT allele are missing.
    blocks
        Read these places inside the reference blocks of gVCFs (VCF and BCF) too.
    multiallelic
        `skip` leaves records with several ALT alleles out; `split` takes each SNP allele as a
        variant of its own; None is `split` at the `places` of a model, else `skip`.
    half_calls
        What `./1` means: `missing`, `reference` (0/1), `haploid` (1/1) or `error`.
    hard_call_threshold
        For records with dosages and no GT: the largest distance from a whole number that is
        called; more is missing.
    maf
        Leave out variants of a lower minor allele frequency.
    geno
        Leave out variants with a larger share of missing genotypes.
    hwe
        Leave out variants whose exact test of Hardy-Weinberg proportions has a lower p.
    mind
        Leave out samples with a larger share of missing genotypes, before `geno`, `hwe` and `maf`
        are looked at; costs a second reading of the file.

    Raises
    ------
    OptionError
        If a value makes no sense.
    """

    chr_set: int | None = HUMAN_AUTOSOMES
    regions: RegionSet | None = None
    exclude_regions: RegionSet | None = None
    keep: SampleList | None = None
    remove: SampleList | None = None
    extract: VariantList | None = None
    exclude: VariantList | None = None
    places: VariantList | None = None
    blocks: bool = False
    multiallelic: str | None = None
    half_calls: str = "missing"
    hard_call_threshold: float = 0.1
    maf: float = 0.0
    geno: float = 1.0
    hwe: float = 0.0
    mind: float = 1.0

    def __post_init__(self) -> None:
        for name, most in (
            ("maf", 0.5),
            ("geno", 1),
            ("hwe", 1),
            ("mind", 1),
            ("hard_call_threshold", 0.5),
        ):
            if not 0 <= (value := getattr(self, name)) <= most:
                flag = name.replace("_", "-")
                raise OptionError(f"--{flag} must be from 0 to {most:g}, not {value:g}")
        if self.multiallelic not in (None, *MULTIALLELIC):
            raise OptionError(
                f"--multiallelic must be one of {', '.join(MULTIALLELIC)}, not "
                f"{self.multiallelic!r}"
            )
        if self.half_calls not in HALF_CALLS:
            raise OptionError(
                f"--half-calls must be one of {', '.join(HALF_CALLS)}, not {self.half_calls!r}"
            )
        if self.chr_set is not None and self.chr_set < 1:
            raise OptionError(f"--chr-set must be at least 1, or any, not {self.chr_set}")

    def describe(self) -> dict[str, Any]:
        """What differs from the defaults, for the provenance: numbers, words and paths."""
        told: dict[str, Any] = {}
        for option in fields(self):
            value = getattr(self, option.name)
            if value == option.default:
                continue
            if isinstance(value, SampleList | VariantList):
                value = {"path": value.path, "entries": len(value)}
            elif isinstance(value, RegionSet):
                value = {"regions": len(value)}
            told[option.name] = value
        return told

    @property
    def region_builds(self) -> frozenset[str]:
        """Genome builds of the built-in tables among the regions to leave out."""
        return self.exclude_regions.builds if self.exclude_regions else frozenset()

    def site_rule(self) -> SiteRule:
        """A fresh rule that takes what was asked for, its counts at 0."""
        return SiteRule(
            n_autosomes=self.chr_set,
            regions=self.regions,
            exclude_regions=self.exclude_regions,
            extract=self.extract,
            exclude=self.exclude,
            places=self.places,
            blocks=self.blocks,
            split=(self.multiallelic or ("skip" if self.places is None else "split")) == "split",
        )

    def call_rule(self) -> CallRule:
        """A fresh rule for calls that are no diploid ones, its counts at 0."""
        return CallRule(
            self.half_calls, self.hard_call_threshold, others_missing=self.places is not None
        )

"""Our LD pruning beside scikit-allel's and, if it is installed, plink2's, on the bundled data.

python benchmarks/linkage.py
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import common
import numpy as np

from ancestry_ddvi import GenotypeMatrix, read_genotypes
from ancestry_ddvi.preprocessing.features import FeatureConfig
from ancestry_ddvi.preprocessing.filters import VariantCounts, filter_variants
from ancestry_ddvi.preprocessing.linkage import prune, standardise

CONFIG = FeatureConfig()


def filtered(genotypes: GenotypeMatrix) -> tuple[GenotypeMatrix, np.ndarray]:
    """The variants that our filters leave to prune, and their minor allele frequencies."""
    counts = VariantCounts.of(genotypes.dosage)
    keep, _ = filter_variants(counts, min_call_rate=CONFIG.min_call_rate, min_maf=CONFIG.min_maf)
    return genotypes.select(variants=keep), counts.maf[keep]


def ours(genotypes: GenotypeMatrix, maf: np.ndarray) -> np.ndarray:
    return prune(
        genotypes.dosage,
        genotypes.variants,
        maf,
        window=CONFIG.ld_window,
        step=CONFIG.ld_step,
        max_r2=CONFIG.ld_max_r2,
    )


def scikit_allel(genotypes: GenotypeMatrix, maf: np.ndarray) -> np.ndarray:
    """`locate_unlinked`, contig by contig; the file is sorted by position."""
    import allel

    keep = np.zeros(genotypes.n_variants, dtype=bool)
    contigs = genotypes.variants.groupby("contig", sort=False).indices
    for contig in map(np.asarray, contigs.values()):
        keep[contig] = allel.locate_unlinked(
            np.ascontiguousarray(genotypes.dosage[:, contig].T),
            size=CONFIG.ld_window,
            step=CONFIG.ld_step,
            threshold=CONFIG.ld_max_r2,
        )
    return keep


def max_r2_left(genotypes: GenotypeMatrix, keep: np.ndarray) -> float:
    """Largest r2 between variants kept that share a window of the unpruned variants."""
    worst = 0.0
    for contig in map(np.asarray, genotypes.variants.groupby("contig").indices.values()):
        for start in range(
            0, max(1, len(contig) - CONFIG.ld_window + CONFIG.ld_step), CONFIG.ld_step
        ):
            inside = contig[start : start + CONFIG.ld_window]
            columns = standardise(genotypes.dosage[:, inside[keep[inside]]])
            r2 = np.triu((columns.T @ columns) ** 2, k=1)
            worst = max(worst, float(r2.max(initial=0)))
    return worst


def row(prune_it: Callable[..., np.ndarray], genotypes: GenotypeMatrix, maf: np.ndarray) -> Any:
    start = time.process_time()
    keep = prune_it(genotypes, maf)
    return {
        "cpu_seconds": round(time.process_time() - start, 2),
        "variants_kept": int(keep.sum()),
        "mean_maf_kept": float(maf[keep].mean()),
        "max_r2_left": max_r2_left(genotypes, keep),
    }


def plink2(program: str) -> dict[str, Any]:
    """The same filters and windows by plink2; its CPU seconds are those of pruning alone."""
    limits = ["--maf", str(CONFIG.min_maf), "--geno", str(1 - CONFIG.min_call_rate)]
    window = [str(CONFIG.ld_window), str(CONFIG.ld_step), str(CONFIG.ld_max_r2)]
    with tempfile.TemporaryDirectory() as folder:
        base = [program, "--threads", "1", "--out", f"{folder}/p"]
        quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL}
        read = ["--vcf", str(common.GENOTYPES), "--set-all-var-ids", "@:#:$r:$a"]
        subprocess.run([*base, *read, *limits, "--make-pgen"], **quiet)
        done = common.run([*base, "--pfile", f"{folder}/p", "--indep-pairwise", *window])
        kept = len((Path(folder) / "p.prune.in").read_text().split())
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return {
        "cpu_seconds": round(done.cpu_seconds, 2),
        "variants_kept": kept,
        "version": said.stdout.strip(),
    }


@click.command(help=__doc__)
@click.option("--samples", type=int, help="A random cut of the data: a test of the script only.")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
def main(samples: int | None, out: Path) -> None:
    genotypes = read_genotypes(common.GENOTYPES)
    if samples:
        order = np.random.default_rng(0).permutation(genotypes.n_samples)
        genotypes = genotypes.select(samples=np.sort(order[:samples]))
    genotypes, maf = filtered(genotypes)
    methods = {
        "ancestry_ddvi.preprocessing.linkage.prune": row(ours, genotypes, maf),
        "allel.locate_unlinked": row(scikit_allel, genotypes, maf),
    }
    program = shutil.which("plink2")
    if program:
        methods["plink2 --indep-pairwise"] = plink2(program)
    results = {
        "data": common.relative(common.GENOTYPES),
        "data_sha256": genotypes.source["sha256"],
        "n_samples": genotypes.n_samples,
        "n_variants": genotypes.n_variants,
        "window": CONFIG.ld_window,
        "step": CONFIG.ld_step,
        "max_r2": CONFIG.ld_max_r2,
        "machine": common.machine(),
        "versions": common.versions(),
        "methods": methods,
    }
    common.write_json(out / "linkage.json", results)
    rows = [
        [
            f"`{name}`",
            f"{m['cpu_seconds']:.1f}",
            f"{m['variants_kept']:,}",
            f"{m['mean_maf_kept']:.3f}" if "mean_maf_kept" in m else "",
            f"{m['max_r2_left']:.3f}" if "max_r2_left" in m else "",
        ]
        for name, m in methods.items()
    ]
    header = ["method", "CPU s", "variants kept", "mean MAF kept", "largest r2 left in a window"]
    cut = f" --samples {samples}" if samples else ""
    text = f"""# LD pruning

`{results["data"]}`: {genotypes.n_samples:,} samples, {genotypes.n_variants:,} SNPs after filters;
windows of {CONFIG.ld_window} SNPs, step {CONFIG.ld_step}, r2 at most {CONFIG.ld_max_r2};
{results["machine"]}, one thread.

{common.table(header, rows)}

plink2 has its own process and reads its own file; it always takes all samples.

Command: `python benchmarks/linkage.py{cut}`
"""
    common.write_text(out / "linkage.md", text)


if __name__ == "__main__":
    main()

"""The peer of `cost.py`: what many would write to see the structure in a VCF, no pictures.

Reads the genotypes, keeps common biallelic SNPs, prunes linked ones if asked to, takes 20 principal
components, lays them out by UMAP and writes the coordinates.
"""

from __future__ import annotations

from pathlib import Path

import allel
import click
import numpy as np
from umap import UMAP


@click.command(help=__doc__)
@click.argument("vcf", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--prune", is_flag=True, help="LD pruning: windows of 100, step 50, r2 0.2.")
@click.option("--exact", is_flag=True, help="Full singular value decomposition.")
def main(vcf: Path, out: Path, prune: bool, exact: bool) -> None:
    fields = ["samples", "variants/CHROM", "variants/is_snp", "variants/numalt", "calldata/GT"]
    data = allel.read_vcf(str(vcf), fields=fields)
    genotypes = allel.GenotypeArray(data["calldata/GT"])
    frequency = genotypes.count_alleles(max_allele=1).to_frequencies()[:, 1]
    keep = data["variants/is_snp"] & (data["variants/numalt"] == 1)
    keep &= np.minimum(frequency, 1 - frequency) >= 0.01
    dosage = genotypes.compress(keep, axis=0).to_n_alt(fill=-1)
    if prune:
        contig = data["variants/CHROM"][keep]
        parts = [dosage[contig == name] for name in dict.fromkeys(contig)]
        unlinked = [allel.locate_unlinked(p, size=100, step=50, threshold=0.2) for p in parts]
        dosage = np.concatenate([p[u] for p, u in zip(parts, unlinked, strict=True)])
    if exact:
        components, _ = allel.pca(dosage, n_components=20, scaler="patterson")
    else:
        components, _ = allel.randomized_pca(
            dosage, n_components=20, scaler="patterson", random_state=0
        )
    z = UMAP(random_state=0, n_jobs=1).fit_transform(components)
    rows = (f"{s},{a:.6g},{b:.6g}" for s, (a, b) in zip(data["samples"], z, strict=True))
    out.write_text("\n".join(["sample_id,z1,z2", *rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

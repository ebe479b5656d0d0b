"""What files of the shape of the 1000 Genomes Phase 3 release cost to read and to embed.

One bgzip VCF for each autosome, the samples of the bundled panel, phased GT alone, INFO and header
as the release has them; multiallelic records, indels, symbolic structural variants and a few
repeated sites among the SNPs. Variants are drawn, not real:

    p_j            76 % log-uniform up to .005, 14 % to .05, 10 % to .5: the spectrum of the release
    p_js, p_jk     Balding-Nichols drift, F = .1 from p_j to each superpopulation s and F = .01 from
                   there to each population k; haplotypes of a population are draws at p_jk
    linkage        every second record repeats the haplotypes of the one before, a fifth of them
                   drawn anew (which makes no r2 near 1, but something to prune)

Every way of reading runs in a fresh process with one thread. Memory is the largest resident set of
that process less the one after its imports, beside the int8 matrix that it keeps.

    python benchmarks/phase3_like.py # 200,000 records
    python benchmarks/phase3_like.py --records 5000 --folder DIR  # a test of the script; DIR stays
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import common

# Of GRCh37, as in the ##contig lines of the release.
LENGTH = (
    *(249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663, 146364022),
    *(141213431, 135534747, 135006516, 133851895, 115169878, 107349540, 102531392, 90354753),
    *(81195210, 78077248, 59128983, 63025520, 48129895, 51304566),
)
NAME = "ALL.chr{}.phase3_shapeit2_mvncall_integrated_v5b.20130502.genotypes.vcf.gz"
SPECTRUM = ((0.76, 2e-4, 0.005), (0.14, 0.005, 0.05), (0.10, 0.05, 0.5))
DRIFT, RECENT_DRIFT = 0.1, 0.01
RENEWED = 0.2
MULTIALLELIC, INDEL, SYMBOLIC, REPEATED = 0.03, 0.03, 0.002, 0.0002
BLOCK = 512
N_EXTRACT = 10_000
MAF = 0.05
FLOOR = 1.5
SUPERPOPULATIONS = ("EAS", "AMR", "AFR", "EUR", "SAS")  # in the order of the release's INFO

HEADER = """##fileformat=VCFv4.1
##FILTER=<ID=PASS,Description="All filters passed">
##fileDate=20150218
##reference=ftp://ftp.1000genomes.ebi.ac.uk//vol1/ftp/technical/reference/\
phase2_reference_assembly_sequence/hs37d5.fa.gz
##source=benchmarks/phase3_like.py
{contigs}
##ALT=<ID=CN0,Description="Copy number allele: 0 copies">
##ALT=<ID=CN2,Description="Copy number allele: 2 copies">
##FORMAT=<ID=GT,Number=1,Type=String,Description="Genotype">
##INFO=<ID=END,Number=1,Type=Integer,Description="End coordinate of this variant">
##INFO=<ID=SVTYPE,Number=1,Type=String,Description="Type of structural variant">
##INFO=<ID=AC,Number=A,Type=Integer,Description="Total number of alternate alleles in called \
genotypes">
##INFO=<ID=AF,Number=A,Type=Float,Description="Estimated allele frequency in the range (0,1)">
##INFO=<ID=NS,Number=1,Type=Integer,Description="Number of samples with data">
##INFO=<ID=AN,Number=1,Type=Integer,Description="Total number of alleles in called genotypes">
{frequencies}
##INFO=<ID=DP,Number=1,Type=Integer,Description="Total read depth">
##INFO=<ID=AA,Number=1,Type=String,Description="Ancestral Allele">
##INFO=<ID=VT,Number=.,Type=String,Description="indicates what type of variant the line represents">
##INFO=<ID=MULTI_ALLELIC,Number=0,Type=Flag,Description="indicates whether a site is multi-allelic">
"""


# The files.


def generate(folder: Path, n_records: int, seed: int) -> None:
    """Write the 22 files and, beside them, `extract.txt`, a list of sites to take."""
    import numpy as np
    import pandas as pd
    import pysam

    panel = pd.read_csv(common.PANEL, sep="\t")
    rng = np.random.default_rng(seed)
    share = np.array(LENGTH) / sum(LENGTH)
    n_of = np.floor(share * n_records).astype(int)
    n_of[0] += n_records - n_of.sum()
    header = HEADER.format(
        contigs="\n".join(
            f"##contig=<ID={c},assembly=b37,length={n}>" for c, n in enumerate(LENGTH, start=1)
        ),
        frequencies="\n".join(
            f'##INFO=<ID={s}_AF,Number=A,Type=Float,Description="Allele frequency in the {s} '
            'populations calculated from AC and AN, in the range (0,1)">'
            for s in SUPERPOPULATIONS
        ),
    )
    columns = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    header += "\t".join([*columns, *panel["sample"]]) + "\n"
    snps: list[str] = []
    for chromosome, (n, length) in enumerate(zip(n_of.tolist(), LENGTH, strict=True), start=1):
        position = np.sort(rng.integers(10_000, length, n))
        with pysam.BGZFile(str(folder / NAME.format(chromosome)), "w") as file:
            file.write(header.encode())
            for start in range(0, n, BLOCK):
                here = position[start : start + BLOCK]
                for site, line in _records(chromosome, here, panel, rng):
                    file.write(line)
                    snps += site
    chosen = rng.choice(len(snps), min(N_EXTRACT, len(snps)), replace=False)
    (folder / "extract.txt").write_text("\n".join(snps[i] for i in np.sort(chosen)) + "\n")


def _records(chromosome: int, position: Any, panel: Any, rng: Any) -> Iterator[tuple[Any, bytes]]:
    """Lines of consecutive records, each with its site if it is a plain SNP."""
    import numpy as np

    n = len(position)
    haplotypes = _haplotypes(n, panel, rng)
    kind = rng.random(n)
    several = kind < MULTIALLELIC
    indel = (kind >= MULTIALLELIC) & (kind < MULTIALLELIC + INDEL)
    symbolic = kind > 1 - SYMBOLIC
    repeated = rng.random(n) < REPEATED
    # A part of the copies of a multiallelic record is of a second ALT allele.
    other = rng.random((int(several.sum()), haplotypes.shape[1])) < 0.3
    haplotypes[several] += haplotypes[several] & other
    text = np.empty((n, len(panel), 4), dtype=np.uint8)
    text[:, :, 0] = haplotypes[:, 0::2] + ord("0")
    text[:, :, 1] = ord("|")
    text[:, :, 2] = haplotypes[:, 1::2] + ord("0")
    text[:, :, 3] = ord("\t")
    text[:, -1, 3] = ord("\n")
    in_superpopulation = [
        np.repeat((panel["super_pop"] == s).to_numpy(), 2) for s in SUPERPOPULATIONS
    ]
    counts = [_counts(haplotypes, ...), *(_counts(haplotypes, m) for m in in_superpopulation)]
    n_alleles = [haplotypes.shape[1], *(int(m.sum()) for m in in_superpopulation)]
    depth = rng.normal(18_000, 3_000, n).astype(int).clip(1_000)
    base = rng.integers(0, 4, n)
    change = rng.integers(1, 4, n)
    for j in range(n):
        ref, alt = "ACGT"[base[j]], "ACGT"[(base[j] + change[j]) % 4]
        name, what = f"rs{rng.integers(10**7, 10**9)}", "VT=SNP"
        if several[j]:
            third = "ACGT"[(base[j] + change[j] % 3 + 1) % 4]
            alt, what = f"{alt},{third}", "VT=SNP;MULTI_ALLELIC"
        elif indel[j]:
            ref, alt = (ref, ref + "TA") if j % 2 else (ref + "AT", ref)
            what = "VT=INDEL"
        elif symbolic[j]:
            name, alt = f"esv{3_500_000 + int(rng.integers(10**5))}", "<CN0>"
            what = f"END={position[j] + 5_000};SVTYPE=CNV;VT=SV"
            if j % 4 == 0:
                alt, what = "<CN0>,<CN2>", f"{what};MULTI_ALLELIC"
        k = alt.count(",") + 1
        every, *others = [
            ",".join(f"{c[a, j] / total:.4g}" for a in range(k))
            for c, total in zip(counts, n_alleles, strict=True)
        ]
        copies = ",".join(str(counts[0][a, j]) for a in range(k))
        by_place = "".join(f"{s}_AF={f};" for s, f in zip(SUPERPOPULATIONS, others, strict=True))
        info = (
            f"AC={copies};AF={every};AN={n_alleles[0]};NS={len(panel)};DP={depth[j]};{by_place}"
            f"AA=.|||;{what}"
        )
        line = (
            f"{chromosome}\t{position[j]}\t{name}\t{ref}\t{alt}\t100\tPASS\t{info}\tGT\t"
        ).encode() + text[j].tobytes()
        plain = not (several[j] or indel[j] or symbolic[j])
        yield ([f"{chromosome}:{position[j]}:{ref}:{alt}"] if plain else []), line
        if repeated[j]:
            yield [], line


def _haplotypes(n: int, panel: Any, rng: Any) -> Any:
    """(n, 2 n_samples) uint8: 1 where a haplotype carries ALT, at least once a record."""
    import numpy as np

    weight, low, high = np.array(SPECTRUM).T
    part = rng.choice(len(weight), n, p=weight)
    p = np.exp(rng.uniform(np.log(low[part]), np.log(high[part])))
    p = np.where((p > 0.05) & (rng.random(n) < 0.3), 1 - p, p)  # ALT is the common allele
    haplotypes = np.empty((n, 2 * len(panel)), dtype=np.uint8)
    for _, members in panel.groupby("super_pop", sort=True):
        p_s = _drift(p, DRIFT, rng)
        for _, samples in members.groupby("pop", sort=True):
            # 16 bits of chance are enough: 1 / 65536 is below one in 5,008 haplotypes.
            limit = np.rint(_drift(p_s, RECENT_DRIFT, rng) * 65535).astype(np.uint16)
            columns = (2 * samples.index.to_numpy()[:, None] + [0, 1]).ravel()
            chance = rng.integers(0, 65535, (n, len(columns)), dtype=np.uint16)
            haplotypes[:, columns] = chance < limit[:, None]
    renewed = rng.random((n // 2, haplotypes.shape[1]), dtype=np.float32) < RENEWED
    pairs = haplotypes[: 2 * (n // 2)].reshape(n // 2, 2, -1)
    pairs[:, 1] = np.where(renewed, pairs[:, 1], pairs[:, 0])
    absent = np.flatnonzero(~haplotypes.any(axis=1))
    haplotypes[absent, rng.integers(0, haplotypes.shape[1], len(absent))] = 1
    return haplotypes


def _drift(p: Any, f: float, rng: Any) -> Any:
    """Balding & Nichols 1995: mean p, variance F p (1 - p)."""
    import numpy as np

    p = np.clip(p, 1e-6, 1 - 1e-6)
    return rng.beta(p * (1 - f) / f, (1 - p) * (1 - f) / f)


def _counts(haplotypes: Any, columns: Any) -> Any:
    """(2, n) copies of the first and of the second ALT allele."""
    import numpy as np

    part = haplotypes if columns is ... else haplotypes[:, columns]
    return np.stack([np.count_nonzero(part == a, axis=1) for a in (1, 2)])


# What a fresh process measures of itself.


def resident(key: str) -> int:
    """Bytes of memory of this process: VmRSS now, VmHWM at most so far (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024 * int(line.split()[1])
    raise click.ClickException("this benchmark reads /proc/self/status, which only Linux has")


def cpu_seconds() -> float:
    """User and system time of this process and of the children that ended."""
    t = os.times()
    return t.user + t.system + t.children_user + t.children_system


def measure_reading(files: list[str], how: str, folder: Path) -> dict[str, Any]:
    """Read as `how` says."""
    import pandas  # noqa: F401 - what the first reading would import

    import ancestry_ddvi.loaders.vcf  # noqa: F401
    from ancestry_ddvi import read_genotypes
    from ancestry_ddvi.loaders.lists import read_variants
    from ancestry_ddvi.loaders.options import ReadOptions

    options = {
        "all": lambda: ReadOptions(),
        "maf": lambda: ReadOptions(maf=MAF),
        "extract": lambda: ReadOptions(extract=read_variants(folder / "extract.txt")),
    }[how]
    base, cpu, start = resident("VmRSS"), cpu_seconds(), time.perf_counter()
    genotypes = read_genotypes(files, options())
    return {
        "cpu_seconds": cpu_seconds() - cpu,
        "wall_seconds": time.perf_counter() - start,
        "imports_mb": base / 1e6,
        "peak_mb": (resident("VmHWM") - base) / 1e6,
        "matrix_mb": genotypes.dosage.nbytes / 1e6,
        "n_samples": genotypes.n_samples,
        "n_variants": genotypes.n_variants,
        "left_out": dict(genotypes.left_out),
    }


# The benchmark.


def fresh(arguments: list[str]) -> dict[str, Any]:
    """Run this script, or another command, to its end; what it said, and its cost from outside."""
    done = common.run(arguments)
    return {
        "said": done.said,
        "cpu_seconds": done.cpu_seconds,
        "wall_seconds": done.wall_seconds,
        "peak_mb": done.max_rss * 1024 / 1e6,
    }


def measure_embedding(files: list[str], folder: Path, options: list[str]) -> dict[str, Any]:
    """The whole command; its memory is seen from outside, less that of its imports alone."""
    imports = "import ancestry_ddvi.pipeline, ancestry_ddvi.cli, allel, plotly, matplotlib.pyplot"
    base = fresh([sys.executable, "-c", imports])
    out = folder / "out"
    command = [sys.executable, "-m", "ancestry_ddvi", "embed", *files, *options]
    cost = fresh([*command, "--labels", str(common.PANEL), "--out", str(out), "--force"])
    run = json.loads((out / "run.json").read_text())
    rows = [tuple(map(str.strip, x.split("  ", 1))) for x in cost.pop("said").splitlines()]
    cost |= {
        "imports_mb": base["peak_mb"],
        "peak_mb": cost["peak_mb"] - base["peak_mb"],
        "stages": run["cpu_seconds"],
        "counts": run["counts"],
        "said": [list(row) for row in rows if len(row) == 2],
    }
    return cost


READING = {
    "all": "`read_genotypes`",
    "maf": f"`read_genotypes`, `maf={MAF}`",
    "extract": f"`read_genotypes`, `extract` of {N_EXTRACT:,} sites",
}
EMBEDDING = {
    "embed": ("`ancestry-ddvi embed`", []),
    "embed-all": ("`ancestry-ddvi embed --maf 0`", ["--maf", "0"]),
}


def matrix_mb(run: dict[str, Any]) -> float:
    """Of the int8 matrix that was kept."""
    counts = run.get("counts")
    found = counts["samples"] * counts["biallelic SNPs read"] / 1e6 if counts else run["matrix_mb"]
    return float(found)


def markdown(results: dict[str, Any], command: str) -> str:
    runs, n_records = results["runs"], results["records"]
    names = READING | {key: name for key, (name, _) in EMBEDDING.items()}
    rows = []
    for key, run in runs.items():
        cells = [run["cpu_seconds"], run["wall_seconds"]]
        ratio = run["peak_mb"] / matrix_mb(run)
        rows.append([names[key], *(f"{c:.1f}" for c in cells)])
        rows[-1] += [f"{matrix_mb(run):.0f}", f"{run['peak_mb']:.0f}", f"{ratio:.2f}"]
    header = ["what", "CPU s", "wall s", "matrix MB", "peak above imports MB", "peak / matrix"]
    reasons = dict.fromkeys(r for key in READING for r in runs[key]["left_out"])
    counts = [
        ["read", *(f"{runs[key]['n_variants']:,}" for key in READING)],
        *([r, *(f"{runs[key]['left_out'].get(r, 0):,}" for key in READING)] for r in reasons),
    ]
    whole, some, embed, embed_all = (runs[k] for k in ("all", "maf", "embed", "embed-all"))
    verdict = "met" if whole["peak_mb"] <= FLOOR * whole["matrix_mb"] else "missed"
    slope = (embed_all["peak_mb"] - embed["peak_mb"]) / (matrix_mb(embed_all) - matrix_mb(embed))
    stages = [
        [stage, *(f"{runs[key]['stages'][stage]:.1f}" for key in EMBEDDING)]
        for stage in embed["stages"]
    ]
    return f"""# Files of the shape of the Phase 3 release

{n_records:,} records in 22 files of {results["compressed_mb"]:.0f} MB in all, 2,504 samples, drawn
with seed {results["seed"]} in {results["generation_seconds"]:.0f} s by this script: not the real
release, which has some 400 times as many records. {results["machine"]}, one thread, fresh
processes.

{common.table(header, rows)}

Reading without a filter: floor <= {FLOOR} times the int8 matrix that is kept: {verdict}. With a
filter the matrix is small, and what does not grow with it (pieces of text, a block of calls)
shows: {some["peak_mb"] - some["matrix_mb"]:.0f} MB beside {some["matrix_mb"]:.0f} MB. A record
costs {1e6 * whole["cpu_seconds"] / n_records:.0f} CPU microseconds to read,
{1e6 * some["cpu_seconds"] / n_records:.0f} with `maf`.

`embed` has a default of `--maf 0.01`. Its time and memory are those of the whole command, scores,
report and pictures included; the imports taken off its peak hold {embed["imports_mb"]:.0f} MB.
Between the two, memory grows by {slope:.2f} times the matrix; the rest is for training and
pictures.

Records by what became of them:

{common.table(["", *(READING[key].replace("`read_genotypes`, ", "") for key in READING)], counts)}

CPU seconds of the stages of `embed`:

{common.table(["stage", *(name for name, _ in EMBEDDING.values())], stages)}

{results["note"]}

Command: `{command}`
"""


@click.command(help=__doc__)
@click.option("--records", default=200_000, show_default=True, type=click.IntRange(min=2200))
@click.option("--seed", default=0, show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the files here.")
@click.option("--note", default="", help="What to say of the machine: was it quiet?")
@click.option("--out", type=click.Path(path_type=Path), default=common.RESULTS)
@click.option("--part", hidden=True, help="What this process is to do for another.")
def main(
    records: int, seed: int, folder: Path | None, note: str, out: Path, part: str | None
) -> None:
    if folder is None:
        with tempfile.TemporaryDirectory() as temporary:
            benchmark(records, seed, Path(temporary), note, out, "")
        return
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    files = [str(folder / NAME.format(c)) for c in range(1, 23)]
    if part == "generate":
        generate(folder, records, seed)
    elif part:
        click.echo(json.dumps(measure_reading(files, part, folder)))
    else:
        benchmark(records, seed, folder, note, out, f" --folder {folder.name}")


def benchmark(records: int, seed: int, folder: Path, note: str, out: Path, option: str) -> None:
    files = [str(folder / NAME.format(c)) for c in range(1, 23)]
    ours = [sys.executable, __file__, "--folder", str(folder), "--records", str(records)]
    made = fresh([*ours, "--seed", str(seed), "--part", "generate"])
    runs: dict[str, Any] = {}
    results = {
        "records": records,
        "seed": seed,
        "generation_seconds": made["wall_seconds"],
        "compressed_mb": sum(os.path.getsize(f) for f in files) / 1e6,
        "machine": common.machine(),
        "versions": common.versions(),
        "code": common.code_digest(),
        "note": note,
        "runs": runs,
    }
    for key in READING:
        runs[key] = json.loads(fresh([*ours, "--part", key])["said"])
        click.echo(f"{key}: {runs[key]['cpu_seconds']:.1f} CPU s, {runs[key]['peak_mb']:.0f} MB")
    for key, (_, options) in EMBEDDING.items():
        runs[key] = measure_embedding(files, folder, options)
        click.echo(f"{key}: {runs[key]['cpu_seconds']:.1f} CPU s, {runs[key]['peak_mb']:.0f} MB")
    common.write_json(out / "phase3_like.json", results)
    command = f"python benchmarks/phase3_like.py --records {records} --seed {seed}{option}"
    common.write_text(out / "phase3_like.md", markdown(results, command))


if __name__ == "__main__":
    main()

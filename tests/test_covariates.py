"""covariates.tsv: what GWAS tools demand, and the real plink2 reading it."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting_helpers import make_table

from ancestry_ddvi.errors import InputError
from ancestry_ddvi.reporting import write_covariates
from ancestry_ddvi.reporting.covariates import MAX_VIF, independent_columns
from ancestry_ddvi.reporting.scores import standardise


def test_columns_values_and_order(tmp_path: Path) -> None:
    table, _, _ = make_table(n_latent=2, n_pcs=3)
    path = tmp_path / "covariates.tsv"
    assert write_covariates(path, table) == []
    lines = path.read_text().splitlines()
    assert lines[0] == "FID\tIID\tPC1\tPC2\tPC3\tZ1\tZ2"
    read = pd.read_csv(path, sep="\t", dtype={"FID": str})
    assert list(read["IID"]) == list(table.sample_id)
    assert set(read["FID"]) == {"0"}
    values = read.iloc[:, 2:].to_numpy()
    assert np.allclose(values.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(values.std(axis=0), 1, atol=1e-5)
    assert np.corrcoef(values[:, 0], table.pcs[:, 0])[0, 1] == pytest.approx(1)
    assert np.corrcoef(values[:, 3], table.z[:, 0])[0, 1] == pytest.approx(1)


def test_family_ids_are_kept(tmp_path: Path) -> None:
    table, _, _ = make_table()
    families = [f"0{i}" for i in range(60)]
    write_covariates(tmp_path / "c.tsv", table, fid=families)
    read = pd.read_csv(tmp_path / "c.tsv", sep="\t", dtype=str)
    assert list(read["FID"]) == families
    with pytest.raises(ValueError, match="1 family ids for 60"):
        write_covariates(tmp_path / "c.tsv", table, fid=["1"])


def test_constant_and_explained_columns_are_left_out(tmp_path: Path) -> None:
    table, _, _ = make_table(n_pcs=5)
    pcs = table.pcs.copy()
    pcs[:, 1] = 0.1
    pcs[:, 3] = 2 * pcs[:, 0] - pcs[:, 2]
    frame = table.frame.assign(z2=pcs[:, 0] + 1e-3 * table.frame["z2"])
    table = dataclasses.replace(table, frame=frame, pcs=pcs)
    assert write_covariates(tmp_path / "c.tsv", table) == ["PC2", "PC4", "Z2"]
    assert (tmp_path / "c.tsv").read_text().startswith("FID\tIID\tPC1\tPC3\tPC5\tZ1\n")


def test_fewer_samples_than_columns_leave_a_regression_possible(tmp_path: Path) -> None:
    table, _, _ = make_table(n_groups=2, n_each=4, n_pcs=20)
    left_out = write_covariates(tmp_path / "c.tsv", table)
    assert 1 <= 22 - len(left_out) <= 7  # centred columns of 8 samples have rank 7 at most


def test_of_placed_samples_files_fit_below_each_other(tmp_path: Path) -> None:
    table, _, _ = make_table(n_pcs=3)
    table.pcs[:, 1] = 0.1
    parts = {"whole": np.ones(60, bool), "one": np.arange(60) == 7, "rest": np.arange(60) != 7}
    read = {}
    for name, rows in parts.items():
        explained = write_covariates(tmp_path / name, table.select(rows), placed=True)
        assert explained == (["PC1", "PC2", "PC3", "Z1", "Z2"] if name == "one" else ["PC2"])
        read[name] = (tmp_path / name).read_text().splitlines()
    assert read["one"][0] == read["rest"][0] == "FID\tIID\tPC1\tPC2\tPC3\tZ1\tZ2"
    assert sorted(read["one"] + read["rest"][1:]) == sorted(read["whole"])
    values = np.array([line.split("\t")[2:] for line in read["whole"][1:]], float)
    np.testing.assert_allclose(values, np.column_stack([table.pcs, table.z]), rtol=1e-5)
    # Control: columns that are chosen and scaled by the company do not.
    for name, rows in parts.items():
        write_covariates(tmp_path / name, table.select(rows))
        read[name] = (tmp_path / name).read_text().splitlines()
    assert read["one"][0] == "FID\tIID"
    assert not set(read["rest"][1:]) & set(read["whole"])


@given(st.integers(0, 10_000), st.integers(2, 8), st.floats(1e-6, 3))
def test_what_is_kept_has_the_variance_inflation_promised(
    seed: int, n_columns: int, noise: float
) -> None:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(60, 2)) @ rng.normal(size=(2, n_columns))
    columns = standardise(base + noise * rng.normal(size=base.shape))
    kept = independent_columns(columns)
    assert kept[0] == 0
    correlation = np.atleast_2d(np.corrcoef(columns[:, kept].T))
    assert np.diag(np.linalg.inv(correlation)).max() <= MAX_VIF * (1 + 1e-6)
    for j in set(range(n_columns)) - set(kept):  # nothing is left out without need
        trial = np.corrcoef(columns[:, [k for k in kept if k < j] + [j]].T)
        singular = np.linalg.cond(trial) > 1e11
        assert singular or np.diag(np.linalg.inv(trial)).max() > MAX_VIF * (1 - 1e-6)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "is empty"),
        ("0", "stands for no id"),
        ("two words", "whitespace"),
        ("tab\tid", "whitespace"),
        ("line\nbreak", "whitespace"),
        ("nbsp\u00a0id", "whitespace"),
        ("#1", "opens with #"),
    ],
)
def test_ids_no_tool_can_read_are_refused_by_name(tmp_path: Path, bad: str, why: str) -> None:
    table, _, _ = make_table(sample_id=["good", bad])
    with pytest.raises(InputError, match=why) as caught:
        write_covariates(tmp_path / "c.tsv", table)
    assert repr(bad) in str(caught.value)
    assert "rename" in str(caught.value)
    assert not (tmp_path / "c.tsv").exists()


def test_a_value_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    table, _, _ = make_table()
    table.pcs[3, 1] = np.inf
    with pytest.raises(InputError, match=r"'S3' has inf in PC2"):
        write_covariates(tmp_path / "c.tsv", table)


@pytest.mark.skipif(shutil.which("plink2") is None, reason="plink2 is not installed")
def test_plink2_reads_every_sample_and_column(tmp_path: Path) -> None:
    ids = ["comma,id", "quo\"te'id", "</script>", "=1+1", "@x", "-9", "nan", "007", "ü"]
    table, _, _ = make_table(n_groups=6, n_each=20, n_pcs=4, sample_id=ids)
    # A latent explained almost wholly by a PC: plink2 would give no result for any variant.
    frame = table.frame.assign(z1=table.pcs[:, 0] + 0.05 * table.frame["z1"].rank() / 60)
    table = dataclasses.replace(table, frame=frame)
    left_out = write_covariates(tmp_path / "covariates.tsv", table)
    assert left_out == ["Z1"]
    rng = np.random.default_rng(0)
    header = ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT"]
    lines = [
        "##fileformat=VCFv4.2",
        "##contig=<ID=1>",
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="G">',
    ]
    lines.append("\t".join([*header, *table.sample_id]))
    for i in range(5):
        genotypes = rng.choice(["0/0", "0/1", "1/1"], len(table.frame))
        lines.append(
            "\t".join(["1", str(i + 1), f"v{i}", "A", "C", ".", ".", ".", "GT", *genotypes])
        )
    (tmp_path / "x.vcf").write_text("\n".join(lines) + "\n", encoding="utf-8")
    trait = ["FID\tIID\ttrait", *(f"0\t{s}\t{rng.normal():.6f}" for s in table.sample_id)]
    (tmp_path / "trait.tsv").write_text("\n".join(trait) + "\n", encoding="utf-8")
    command = ["plink2", "--vcf", "x.vcf", "--pheno", "trait.tsv"]
    command += ["--covar", "covariates.tsv", "--glm", "--threads", "1"]
    result = subprocess.run(
        [*command, "--out", "gwas"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    kept = 6 - len(left_out)
    assert f"{kept} covariates loaded" in result.stdout
    gwas = pd.read_csv(tmp_path / "gwas.trait.glm.linear", sep="\t")
    assert set(gwas["OBS_CT"]) == {len(table.frame)}
    assert set(gwas["ERRCODE"]) == {"."}
    assert gwas["P"].notna().all()
    assert gwas["TEST"].nunique() == 1 + kept

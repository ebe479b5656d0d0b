"""The table of a comparison: means, intervals, published rows, maps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from ancestry_ddvi.reporting.comparison import (
    PUBLISHED_DATA,
    Summary,
    lines,
    t_interval,
    write_comparison,
)

TITLES = {"gaussian": "AEVB (Gaussian)", "ddvi": "DDVI", "pca": "PCA"}
SETTINGS = {
    "--steps": 10,
    "--holdout": 0.2,
    "options": {"n_draws": 50},
    "samples": 30,
    "variants": 100,
}


def fit(nmi: float, seconds: float = 1.0) -> dict[str, Any]:
    return {"rms_10_nmi": nmi, "cpu_seconds": seconds}


def both(nmi: float, knn: float) -> dict[str, Any]:
    return {"in_sample": fit(nmi), "held_out": {"knn_population": knn, "cpu_seconds": 9.0}}


METHODS = {
    "pca": {"0": {"in_sample": fit(0.5)}, "1": {"in_sample": fit(0.5)}},
    "gaussian": {"0": both(0.7, 0.1), "1": both(0.8, 0.2), "2": both(0.9, 0.3)},
}


def write(folder: Path, methods: dict[str, Any], n_maps: int = 2, **changes: Any) -> Summary:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(30, 2))
    z[4] = np.nan  # a relative, say
    population = pd.Series([f"P{i % 3}" for i in range(30)])
    options: dict[str, Any] = {
        "titles": TITLES,
        "data": "mine.vcf",
        "settings": SETTINGS,
        "places": dict.fromkeys(list(methods)[:n_maps], z),
        "sample_id": np.array([f"S{i}" for i in range(30)]),
        "population": population,
        "superpopulation": None,
        "command": "ancestry-ddvi compare mine.vcf",
    }
    return write_comparison(folder, methods, **(options | changes))


def test_t_interval_has_its_known_value() -> None:
    # t_{.975, 2} = 4.302653 (any table), s = 1, n = 3.
    mean, half = t_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert t_interval([0.5, 0.5]) == (0.5, 0.0)
    assert t_interval([0.25]) == (0.25, None)


def test_t_interval_covers_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3, 2, (2000, 5))
    covered = [abs(mean - 3) <= (half or 0) for mean, half in map(t_interval, draws.tolist())]
    assert 0.935 < np.mean(covered) < 0.965


def test_order_means_and_published_rows() -> None:
    table = lines(METHODS, TITLES, "mine.vcf")
    assert [line.title for line in table] == ["AEVB (Gaussian)", "AEVB, as published", "PCA"]
    ours, theirs, pca = table
    assert ours.cells["rms_10_nmi"][0] == pytest.approx(0.8)
    assert ours.cells["held_out.knn_population"][0] == pytest.approx(0.2)
    assert ours.cells["cpu_seconds"] == (1.0, 0.0)  # the held-out fits' seconds are not in it
    assert (ours.data, theirs.data) == ("mine.vcf", PUBLISHED_DATA)
    assert theirs.cell("rms_10_nmi") == "0.590 ± 0.080"
    assert theirs.cell("rms_10_purity") == "0.280 ± 0.020"
    assert (ours.n_seeds, theirs.n_seeds, pca.n_seeds) == (3, 3, 2)


def test_without_labels_nothing_stands_beside_the_published_rows() -> None:
    bare = {"gaussian": {"0": {"in_sample": {"elbo": -3.0, "cpu_seconds": 1.0}}}}
    (line,) = lines(bare, TITLES, "mine.vcf")
    assert set(line.cells) == {"elbo", "cpu_seconds"}
    assert line.cell("elbo") == "-3.00"
    assert line.cell("rms_10_nmi") == ""


def test_diverged_fits_are_counted_and_not_averaged(tmp_path: Path) -> None:
    methods = {"gaussian": {"0": both(0.7, 0.1), "1": {"in_sample": {"failed": "so"}}}}
    ours = lines(methods, TITLES, "mine.vcf")[0]
    assert (ours.n_seeds, ours.n_failed) == (1, 1)
    assert ours.cells["rms_10_nmi"] == (0.7, None)
    write(tmp_path, methods)
    assert "AEVB (Gaussian), fits that diverged: 1" in (tmp_path / "comparison.md").read_text()


def test_the_csv_has_the_ends_of_every_interval(tmp_path: Path) -> None:
    summary = write(tmp_path, METHODS)
    table = pd.read_csv(tmp_path / "comparison.csv").set_index("title")
    row = table.loc["AEVB (Gaussian)"]
    mean, half = t_interval([0.7, 0.8, 0.9])
    assert half is not None
    assert row["rms_10_nmi"] == pytest.approx(mean)
    assert row["rms_10_nmi_high"] - row["rms_10_nmi"] == pytest.approx(half, abs=1e-5)
    assert row["rms_10_nmi"] - row["rms_10_nmi_low"] == pytest.approx(half, abs=1e-5)
    assert row["data"] == "mine.vcf"
    assert np.isnan(table.loc["PCA", "held_out.knn_population"])
    assert summary.rows[0]["columns"]["rms_10_nmi"]["half_width_95"] == pytest.approx(half)
    assert "AEVB (Gaussian)" in summary.text


def test_the_markdown_says_what_was_done(tmp_path: Path) -> None:
    write(tmp_path, METHODS)
    text = (tmp_path / "comparison.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert len(rows) == 2 + 3
    for words in ("10 gradient steps", "another data set", "20%", "compare mine.vcf", "| NMI |"):
        assert words in " ".join(text.split())
    assert "ELBO" not in rows[0]  # nothing measured it


def test_maps_are_drawn_side_by_side(tmp_path: Path) -> None:
    write(tmp_path / "one", METHODS, n_maps=1)
    write(tmp_path / "two", METHODS, n_maps=2)
    write(tmp_path / "again", METHODS, n_maps=2)
    one, two = (imread(tmp_path / name / "comparison.png") for name in ("one", "two"))
    assert two.shape[1] > 1.5 * one.shape[1]
    for name in ("comparison.png", "comparison.pdf", "comparison.csv"):
        assert (tmp_path / "two" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    write(tmp_path / "none", METHODS, n_maps=0)
    assert not (tmp_path / "none" / "comparison.png").exists()


def test_maps_without_labels_have_no_legend(tmp_path: Path) -> None:
    write(tmp_path / "with", METHODS)
    write(tmp_path / "without", METHODS, population=None)
    labelled, bare = (imread(tmp_path / n / "comparison.png") for n in ("with", "without"))
    assert bare.shape[1] < labelled.shape[1]

"""The page: hostile ids stay text, no network, everything promised on it; in a real browser too."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from reporting_helpers import HOSTILE_IDS, make_table

from ancestry_ddvi.reporting import evaluate, write_report, write_report_html
from ancestry_ddvi.reporting.html import json_ready

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RUN = {"version": "1.2.3", "parameters": {"seed": 7}, "filters": {"maf": 12}, "input": "<b>x</b>"}


class Scripts(html.parser.HTMLParser):
    """Collects scripts and the addresses that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.kinds: list[str | None] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.fetched += [str(given[k]) for k in ("src", "href", "action") if k in given]
        self._inside = tag == "script"
        if self._inside:
            self.scripts.append("")
            self.kinds.append(given.get("type"))

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.scripts[-1] += data


def write_page(path: Path, **more: Any) -> str:
    table, population, superpopulation = make_table(sample_id=HOSTILE_IDS)
    hostile = population.replace({"P0": HOSTILE_IDS[0], "P1": HOSTILE_IDS[1]})
    labels: dict[str, Any] = {"population": hostile, "superpopulation": superpopulation}
    sex = pd.DataFrame({"sex": np.tile(["f", "m"], 30), "age": range(60), "one": 1})
    wide = table.with_labels(sex.set_axis(table.sample_id))
    metrics = evaluate(wide, **labels, fst=None, seed=0, data="<i>simulated</i>")
    write_report_html(path, wide, metrics, RUN, **labels, **more)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    return write_page(path, warnings=["3 samples <u>unlabelled</u>"])


def test_hostile_input_opens_no_tag_and_no_script(page: str) -> None:
    found = Scripts(page)
    assert found.kinds == ["application/json", None, None]
    assert not {"img", "u", "i", "iframe", "link"} & set(found.tags)
    assert found.fetched == []
    assert "49" not in page.split("<script", 1)[0]  # {{ 7 * 7 }} was not run


def test_data_come_back_as_they_went_in(page: str) -> None:
    data = json.loads(Scripts(page).scripts[0])
    table, _, _ = make_table(sample_id=HOSTILE_IDS)
    assert data["id"] == list(table.sample_id)
    assert np.allclose(np.transpose(data["z"]), table.z, rtol=1e-5)
    assert np.allclose(np.transpose(data["sd"]), table.z_sd, rtol=1e-5)
    # label columns with 2 to 60 values can be chosen; population stays first
    assert list(data["colourings"])[:3] == ["population", "superpopulation", "cluster"]
    assert set(data["colourings"]) >= {"sex", "age"}
    population = data["colourings"]["population"]
    names = [population["groups"][g]["name"] for g in population["group_of_sample"]]
    assert names[0] == HOSTILE_IDS[0]
    assert names[59] == "P3"


def test_it_says_metrics_provenance_and_warnings(page: str) -> None:
    text = page.split('<script id="points"')[0]
    for expected in (
        "60 samples",
        "Neighbour accuracy, populations",
        "3 samples &lt;u&gt;unlabelled&lt;/u&gt;",
        "1.2.3",
        "&lt;b&gt;x&lt;/b&gt;",
        "&lt;i&gt;simulated&lt;/i&gt;",
    ):
        assert expected in text, expected


def test_it_may_not_use_the_network_and_stays_small(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "form-action 'none'" in policy[1]
    assert "http" not in policy[1]
    assert len(page.encode()) < 8e6
    own = Scripts(page).scripts[2]
    assert "showSendToCloud: false" in own
    assert "http" not in own


def test_numbers_that_json_cannot_say() -> None:
    value = {"a": np.float64("nan"), "b": [np.int64(3), (float("inf"), True)], "c": np.arange(2.0)}
    assert json_ready(value) == {"a": None, "b": [3, [None, True]], "c": [0.0, 1.0]}
    assert json_ready({"p": Path("x")}) == {"p": "x"}


def test_write_report_writes_the_contract(tmp_path: Path) -> None:
    table, population, superpopulation = make_table(n_pcs=2)
    table.pcs[:, 1] = 3.0
    labels: dict[str, Any] = {"population": population, "superpopulation": superpopulation}
    metrics = {"knn": {"accuracy": np.float64(0.5), "broken": float("nan")}}
    report = write_report(table, tmp_path, **labels, metrics=metrics, run=RUN)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["embedding.csv", "covariates.tsv", "map.png", "map.pdf", "report.html", "metrics.json"]
    )
    assert [path.name for path in report.files] == [
        *["embedding.csv", "covariates.tsv", "map.png", "map.pdf", "report.html", "metrics.json"]
    ]
    assert report.covariates_left_out == ("PC2",)
    read = json.loads((tmp_path / "metrics.json").read_text())
    assert read == {"knn": {"accuracy": 0.5, "broken": None}}
    assert "PC2" in (tmp_path / "report.html").read_text().split("<script")[0]
    again = {path.name: path.read_bytes() for path in report.files}
    write_report(table, tmp_path, **labels, metrics=metrics, run=RUN)
    assert again == {path.name: path.read_bytes() for path in report.files}


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("n_latent", [1, 2])
def test_a_browser_draws_it_without_an_error(tmp_path: Path, n_latent: int) -> None:
    path = tmp_path / "report.html"
    if n_latent == 2:
        write_page(path)
    else:
        write_report_html(path, make_table(n_latent=1)[0], {}, {})
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"]
    result = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    # Software WebGL complains of its own speed; that is the machine's, not the page's.
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in console if "GL Driver Message" not in line] == []
    assert 'class="gl-container"' in result.stdout
    buttons = re.findall(r'data-title="([^"]*)"', result.stdout)
    assert "Lasso Select" in buttons
    assert not any("hare" in title or "loud" in title for title in buttons)
    legend = re.findall(r'class="legendtext"[^>]*data-unformatted="([^"]*)"', result.stdout)
    if n_latent == 2:
        # in the attribute, the browser writes the library's own escapes once more
        assert any(name.startswith("&amp;lt;/script&amp;gt;") for name in legend), legend
    else:
        assert "cluster 1 (15)" in legend

"""The page: hostile ids stay text, no network, everything promised on it; in a real browser too."""

from __future__ import annotations

import html
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
from reporting_helpers import HOSTILE_IDS, make_calls, make_reference, make_table

from ancestry_ddvi.embedding import ReferencePlaces
from ancestry_ddvi.reporting import evaluate, write_report, write_report_html
from ancestry_ddvi.reporting.html import _share, json_ready, map_data

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
    sentence = "covariates.tsv leaves out what the columns before explain, or is constant: PC2"
    assert report.covariates_note == sentence
    read = json.loads((tmp_path / "metrics.json").read_text())
    assert read == {"knn": {"accuracy": 0.5, "broken": None}}
    assert "PC2" in (tmp_path / "report.html").read_text().split("<script")[0]
    again = {path.name: path.read_bytes() for path in report.files}
    write_report(table, tmp_path, **labels, metrics=metrics, run=RUN)
    assert again == {path.name: path.read_bytes() for path in report.files}
    placed = write_report(table, tmp_path, **labels, metrics=metrics, run=RUN, placed=True)
    assert placed.covariates_note is not None
    assert placed.covariates_note.startswith("covariates.tsv has all columns, so that files of")
    assert placed.covariates_note.endswith(": PC2")
    assert placed.covariates_note in (tmp_path / "report.html").read_text().split("<script")[0]
    one = table.select(np.arange(60) == 0)
    placed = write_report(one, tmp_path, **dict.fromkeys(labels), metrics={}, run=RUN, placed=True)
    assert placed.covariates_note is None


CARD = {
    "model": HOSTILE_IDS[0],
    "trained on": {"samples": 2504, "file": "<i>there</i>", "labels": None},
    "ancestry calls": {
        "cross-validated": [
            {"sites": 1234, "accuracy": 0.98765},
            {"sites": 9, "accuracy": 0.5, "novel": None},
        ],
        "populations": {"<b>P0</b>": 1030, "P1": 20},
    },
    "limits": ["{{ 7 * 7 }}", "not for <u>deciding</u>"],
    "of others": [{"values": 1, "items": None}, "mixed", True, {}, []],
}


def test_a_name_has_one_colour_among_new_samples_and_the_reference() -> None:
    reference, calls = make_reference(), make_calls()
    table, population, superpopulation = make_table()
    data = map_data(table, population, superpopulation, reference, calls)
    assert list(data["colourings"]) == [
        *["population", "superpopulation", "superpopulation call", "population call", "cluster"]
    ]
    expected = {
        "population": (population, reference.population),
        "superpopulation": (superpopulation, reference.superpopulation),
        "population call": (calls["population"], reference.population),
        "superpopulation call": (calls["superpopulation"], reference.superpopulation),
    }
    for name, (of_sample, of_reference) in expected.items():
        colouring = data["colourings"][name]
        names = [group["name"] for group in colouring["groups"]]
        assert [names[g] for g in colouring["group_of_sample"]] == list(of_sample), name
        behind = [names[g] for g in colouring["group_of_reference"]]
        assert behind == [label or "no label" for label in of_reference], name
    assert data["colourings"]["cluster"]["group_of_reference"] == []
    fine = data["colourings"]["population call"]["groups"]
    families = {group["name"]: group["family"] for group in fine}
    assert families["P3"] == "Q1"
    assert families["uncertain"] == families["outside reference"] == "no call"


def test_calls_without_superpopulations_or_reference() -> None:
    calls = make_calls().drop(columns=["superpopulation", "superpopulation_probability"])
    table, _, _ = make_table()
    data = map_data(table, None, None, None, calls.drop(columns=["p_Q0", "p_Q1"]))
    assert list(data["colourings"]) == ["population call", "cluster"]
    assert list(data["calls"]["levels"]) == ["population"]
    assert data["reference"] is None
    nobody = calls.assign(population="uncertain")
    (group,) = map_data(table, None, None, None, nobody)["colourings"]["population call"]["groups"]
    assert group["name"] == "uncertain"


def test_calls_are_the_first_thing_on_the_page(tmp_path: Path) -> None:
    hostile = HOSTILE_IDS[0]
    calls = make_calls().rename(columns={"p_P0": f"p_{hostile}"})
    calls["sample_id"] = [*HOSTILE_IDS, *calls["sample_id"][len(HOSTILE_IDS) :]]
    calls["population"] = calls["population"].replace("P0", hostile)
    assert list(calls["population"][:3]) == ["uncertain", "outside reference", "no data"]
    whole = write_page(tmp_path / "a.html", ancestry=calls, warnings=["beware"])
    page = whole.split('<script id="points"')[0]
    assert Scripts(whole).kinds == ["application/json", None, None]
    assert not {"img", "u"} & set(Scripts(page).tags)
    at = [page.index(words) for words in ("<h1>", '<table class="calls">', "beware", 'id="map"')]
    assert at == sorted(at)
    table = page.split('<table class="calls">')[1].split("</table>")[0]
    head, *rows = [
        [html.unescape(re.sub(r"<[^>]*>", "", cell)) for cell in re.findall("<t[hd].*?</t[hd]>", x)]
        for x in table.split("<tr>")[1:]
    ]
    assert head == [
        *("sample", "superpopulation", "probability", "population", "probability"),
        *("typicality", "power of it", "sites"),
    ]
    assert [row[0] for row in rows] == list(calls["sample_id"][:50])
    sites = "1,234", "1,234 as good as 346"
    worth = ["0.250", "> 0.999"]
    most = f"likeliest {hostile}"
    assert rows[0][1:] == ["uncertain", "0.750", f"uncertain {most}", "0.970", *worth, sites[1]]
    assert rows[1][3] == f"outside reference {most}"
    assert rows[2][1:] == ["no data", "–", "no data", "–", "–", "–", sites[1]]
    assert rows[3][1:] == ["Q0", "0.750", hostile, "0.970", *worth, sites[0]]
    assert "The first 50, and 10 more in ancestry.csv" in page
    # A call has the colour that it has on the map, and what is none has none.
    cells = re.findall(r"<td[^>]*>(.*?)</td>", table, re.DOTALL)
    colours = [re.findall("background: (#[0-9a-f]{6})", cell) for cell in cells]
    data = json.loads(Scripts(whole).scripts[0])["colourings"]
    for column, name in ((1, "superpopulation call"), (3, "population call")):
        groups = data[name]["groups"]
        drawn = [groups[g]["colour"] for g in data[name]["group_of_sample"]]
        assert colours[column::8] == [[], [], [], *([colour] for colour in drawn[3:50])]
    without = write_page(tmp_path / "b.html").split('<script id="points"')[0]
    assert "Ancestry calls" not in without
    few = calls.drop(columns=["superpopulation", "superpopulation_probability"])
    write_report_html(tmp_path / "c.html", make_table()[0], {}, {}, ancestry=few)
    assert "<th>superpopulation</th>" not in (tmp_path / "c.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.0, "0.000"), (1e-9, "< 0.001"), (0.9994, "> 0.999"), (1.0, "1.000"), (np.nan, "–")],
)
def test_a_share_that_is_only_near_is_not_one_or_none(value: float, expected: str) -> None:
    assert _share(value) == expected


def test_the_card_is_a_section_that_reads_as_text(tmp_path: Path) -> None:
    without = write_page(tmp_path / "a.html").split('<script id="points"')[0]
    assert "<h2>The model</h2>" not in without
    page = write_page(tmp_path / "b.html", card=CARD).split('<script id="points"')[0]
    section = page.split("<h2>The model</h2>")[1].split("<h2>")[0].replace("\n</td>", "</td>")
    for expected in (
        "&lt;/script&gt;&lt;script&gt;alert(1)",
        "&lt;i&gt;there&lt;/i&gt;",
        "2,504",
        "<tr><th>sites</th><td>1,234</td><td>9</td></tr>",
        "<tr><th>accuracy</th><td>0.988</td><td>0.500</td></tr>",
        "<tr><th>novel</th><td>–</td><td>–</td></tr>",
        "&lt;b&gt;P0&lt;/b&gt; 1,030, P1 20",
        "<li>{{ 7 * 7 }}",
        "not for &lt;u&gt;deciding&lt;/u&gt;",
    ):
        assert expected in section, expected
    assert "labels" not in section  # not known: not shown
    assert not {"i", "b", "u", "script"} & set(Scripts(section).tags)


def test_a_page_of_all_samples_on_all_samples_is_small(tmp_path: Path) -> None:
    table, _, _ = make_table(26, 97, sample_id=[f"HG{i:05}" for i in range(2522)])
    reference, path = make_reference(26, 96), tmp_path / "report.html"
    write_report_html(
        path, table, {}, RUN, reference=reference, ancestry=make_calls(26, 97), card=CARD
    )
    page = path.read_bytes()
    assert len(page) < 8e6
    assert b"2,496 faint ones behind are labelled samples" in page


def browse(path: Path, profile: Path) -> str:
    """The page as a browser leaves it, which had nothing to complain of."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu"]
    command += ["--disable-background-networking", f"--user-data-dir={profile}"]
    command += ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom"]
    result = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, check=False
    )
    # Software WebGL complains of its own speed; that is the machine's, not the page's.
    console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in console if "GL Driver Message" not in line] == []
    assert 'class="gl-container"' in result.stdout
    return result.stdout


def legend_of(page: str) -> list[str]:
    return re.findall(r'class="legendtext"[^>]*data-unformatted="([^"]*)"', page)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("n_latent", [1, 2])
def test_a_browser_draws_it_without_an_error(tmp_path: Path, n_latent: int) -> None:
    path = tmp_path / "report.html"
    if n_latent == 2:
        write_page(path)
    else:
        write_report_html(path, make_table(n_latent=1)[0], {}, {})
    page = browse(path, tmp_path / "profile")
    buttons = re.findall(r'data-title="([^"]*)"', page)
    assert "Lasso Select" in buttons
    assert not any("hare" in title or "loud" in title for title in buttons)
    legend = legend_of(page)
    if n_latent == 2:
        # in the attribute, the browser writes the library's own escapes once more
        assert any(name.startswith("&amp;lt;/script&amp;gt;") for name in legend), legend
    else:
        assert "cluster 1 (15)" in legend


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("n_latent", [1, 2])
def test_a_browser_draws_new_samples_on_the_reference(tmp_path: Path, n_latent: int) -> None:
    path = tmp_path / "report.html"
    table, _, _ = make_table(n_latent=n_latent)
    reference = make_reference(n_latent=n_latent)
    hostile = reference.population.astype(object)
    hostile[0] = HOSTILE_IDS[1]
    places = ReferencePlaces(reference.z, hostile.astype(str), reference.superpopulation)
    calls = make_calls().rename(columns={"p_P0": f"p_{HOSTILE_IDS[0]}"})
    calls["population"] = calls["population"].replace("P0", HOSTILE_IDS[0])
    write_report_html(path, table, {}, {}, reference=places, ancestry=calls, card=CARD)
    # What the pointer would show, which no dump has.
    script = """<script>
    document.body.dataset.hover = JSON.stringify([hover[0], hover[2], hover[3]]);
    document.body.dataset.traces = JSON.stringify(document.getElementById("map").data.map(
      (t) => [t.name, t.showlegend !== false, t.marker.opacity, t.x.length, t.text[0] ?? null]));
    document.querySelectorAll("table.calls tbody tr")[3].click();
    document.body.dataset.found = JSON.stringify(document.getElementById("map").data.filter(
      (t) => t.name === "found").map((t) => t.text[0]));
    </script></body>"""
    path.write_text(path.read_text("utf-8").replace("</body>", script), "utf-8")
    page = browse(path, tmp_path / "profile")
    assert {"Q0 (27)", "Q1 (30)", "uncertain (1)", "outside reference (1)"} <= set(legend_of(page))

    def read(name: str) -> Any:
        found = re.search(rf'data-{name}="([^"]*)"', page.split("<body", 1)[1].split(">", 1)[0])
        assert found is not None
        return json.loads(html.unescape(found[1]))

    uncertain, no_data, called = read("hover")
    assert "called superpopulation: uncertain, best probability 0.750" in uncertain
    assert "typicality: 0.250<br>sites: 1,234" in uncertain
    assert "called population: no data<br>" in no_data
    assert "typicality" not in no_data
    assert "called population: &lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;" in called
    assert read("found") == [called]  # by a click on its row
    behind = [trace for trace in read("traces") if not trace[1]]
    assert sum(trace[3] for trace in behind) == len(places.z)
    assert all(trace[2] < 0.5 for trace in behind)
    # The population and nothing else; each family's first sample, and the one without a label.
    shown = {trace[4] for trace in behind if trace[3]}
    assert shown == {"&lt;img src=x onerror=alert(1)&gt;", "P2", "no label"}

"""The map: every sample drawn, honest axes, a legend beside the points, equal bytes every time."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.text import Text
from PIL import Image
from reporting_helpers import HOSTILE_IDS, make_reference, make_table

from ancestry_ddvi.embedding import EmbeddingTable
from ancestry_ddvi.reporting import draw_map, save_map
from ancestry_ddvi.reporting.palette import _FAMILIES, label_groups, map_groups, shades
from ancestry_ddvi.reporting.plots import _n_inside, panel_pairs

# Machado et al. 2009, complete red-, green- and blue-blindness, on linear RGB
BLIND = {
    "none": np.eye(3),
    "red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def draw(table: Any, **more: Any) -> Any:
    figure = Figure(figsize=(6, 5))
    FigureCanvasAgg(figure)
    return draw_map(table, figure.subplots(), **more)


def drawn(ax: Any) -> np.ndarray:
    return np.concatenate([np.asarray(c.get_offsets()) for c in ax.collections])


def legend_texts(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_every_sample_is_drawn_once_where_it_is() -> None:
    table, population, superpopulation = make_table(n_latent=3)
    ax = draw(table, population=population, superpopulation=superpopulation, dimensions=(2, 0))
    points = drawn(ax)
    assert np.array_equal(
        points[np.lexsort(points.T)], table.z[:, [2, 0]][np.lexsort(table.z[:, [2, 0]].T)]
    )
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Latent 3", "Latent 1")
    assert ax.get_aspect() == 1
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    assert ((points > [x0, y0]) & (points < [x1, y1])).all()


def test_every_sample_has_the_look_of_its_group() -> None:
    table, population, superpopulation = make_table(n_groups=9, n_each=12)
    population = population.astype(object)
    population[::10] = None
    groups = map_groups(table, population, superpopulation)
    assert len({group.marker for group in groups}) < len(groups)
    look = {}
    for c in draw(table, population=population, superpopulation=superpopulation).collections:
        (path,) = c.get_paths()
        for z, face in zip(c.get_offsets(), c.get_facecolors(), strict=True):
            look[tuple(z)] = (to_hex(face), path.vertices.tobytes(), c.get_zorder() < 2)
    for group in groups:
        marker = MarkerStyle(group.marker)
        vertices = marker.get_path().transformed(marker.get_transform()).vertices.tobytes()
        seen = {look[tuple(z)] for z in table.z[group.member]}
        assert seen == {(group.colour, vertices, group.name == "no label")}


def test_legend_is_grouped_and_outside() -> None:
    table, population, superpopulation = make_table()
    ax = draw(table, population=population, superpopulation=superpopulation)
    assert legend_texts(ax) == [
        *["Q0 (30)", "P0 (15)", "P1 (15)"],
        *["Q1 (30)", "P2 (15)", "P3 (15)"],
    ]
    ax.figure.canvas.draw()
    assert ax.get_legend().get_window_extent().x0 >= ax.get_window_extent().x1


def test_names_on_the_map_do_not_overlap() -> None:
    table, population, superpopulation = make_table(n_groups=26, n_each=10)
    table.frame.loc[0, "z1"] = 1500.0  # an outlier presses all others together
    ax = draw(table, population=population, superpopulation=superpopulation)
    ax.figure.canvas.draw()
    boxes = [Text.get_window_extent(name).padded(-0.5) for name in ax.texts]  # without leaders
    assert 5 < len(boxes) < 26
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_without_labels_colour_is_the_cluster() -> None:
    table, _, _ = make_table()
    assert legend_texts(draw(table)) == [f"cluster {c} (15)" for c in (1, 2, 3, 4)]


def test_unlabelled_samples_are_drawn_below_and_named() -> None:
    table, population, superpopulation = make_table()
    population = population.astype(object)
    population[:5] = None
    ax = draw(table, population=population, superpopulation=superpopulation)
    assert legend_texts(ax)[0] == "no label (5)"
    assert len(drawn(ax)) == 60


def test_too_many_labels_fall_back_to_coarser_ones() -> None:
    table, _, superpopulation = make_table()
    unique = pd.Series([f"u{i}" for i in range(60)])
    assert len(map_groups(table, unique, superpopulation)) == 60
    table, _, superpopulation = make_table(n_groups=4, n_each=20)
    unique = pd.Series([f"u{i}" for i in range(80)])
    names = [group.name for group in map_groups(table, unique, superpopulation)]
    assert names == ["Q0", "Q1"]
    names = [group.name for group in map_groups(table, unique, None)]
    assert names == [f"cluster {c}" for c in (1, 2, 3, 4)]


def test_groups_partition_the_samples_and_differ_in_look() -> None:
    table, population, superpopulation = make_table(n_groups=30, n_each=3)
    groups = map_groups(table, population, superpopulation)
    assert (np.sum([group.member for group in groups], axis=0) == 1).all()
    assert len({(group.colour, group.marker) for group in groups}) == 30


def oklab(colour: str, vision: str) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = (np.array(BLIND[vision]) @ linear).clip(0, 1)
    lms = np.cbrt(
        np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.63]])
        @ seen
    )
    to_lab = [[0.2105, 0.7936, -0.0041], [1.978, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    return np.asarray(np.array(to_lab) @ lms)


@pytest.mark.parametrize("vision", BLIND)
def test_families_stay_apart_for_colour_blind_readers(vision: str) -> None:
    """A just noticeable difference in OKLab is about .02; markers differ besides."""
    seen = {family: [oklab(c, vision) for c in shades(family, 5)] for family in _FAMILIES}
    for a, b in itertools.combinations(seen, 2):
        gap = min(np.linalg.norm(p - q) for p in seen[a] for q in seen[b])
        assert gap > 0.025, (a, b)
        assert np.linalg.norm(seen[a][2] - seen[b][2]) > 0.055, (a, b)


def test_known_superpopulations_keep_their_hue() -> None:
    groups = label_groups(np.array(["EUR", "AFR"]))
    assert {g.name: g.colour for g in groups} == {f: shades(f, 1)[0] for f in ("AFR", "EUR")}


def test_panels_take_latents_two_by_two() -> None:
    assert panel_pairs(2) == [(0, 1)]
    assert panel_pairs(5) == [(0, 1), (2, 3), (3, 4)]
    assert len(panel_pairs(200)) == 12
    for n_latent in range(2, 25):
        assert {d for pair in panel_pairs(n_latent) for d in pair} == set(range(n_latent))


@pytest.mark.parametrize("n_latent", [1, 2, 3])
def test_files_are_equal_bytes_and_print_ready(tmp_path: Path, n_latent: int) -> None:
    table, population, superpopulation = make_table(n_latent=n_latent)
    paths = [tmp_path / name for name in ("1.png", "1.pdf", "2.png", "2.pdf")]
    labels = {"population": population, "superpopulation": superpopulation}
    save_map(table, paths[0], paths[1], **labels)
    save_map(table, paths[2], paths[3], **labels)
    assert paths[0].read_bytes() == paths[2].read_bytes()
    assert paths[1].read_bytes() == paths[3].read_bytes()
    with Image.open(paths[0]) as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert np.asarray(image.convert("L")).std() > 5
    pdf = paths[1].read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/Type0" in pdf.replace(b" ", b"")  # fonttype 42: text as text
    assert b"/Type3" not in pdf.replace(b" ", b"")


def test_the_style_of_the_caller_is_left_alone(tmp_path: Path) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    save_map(make_table()[0], tmp_path / "1.png", tmp_path / "1.pdf")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.filterwarnings("error")
def test_hostile_labels_are_drawn_as_text(tmp_path: Path) -> None:
    table, _, _ = make_table(n_groups=len(HOSTILE_IDS), n_each=3)
    labels = pd.Series(np.repeat([*HOSTILE_IDS[:-1], "a\nb\x07$$"], 3))
    save_map(
        table, tmp_path / "1.png", tmp_path / "1.pdf", population=labels, superpopulation=labels
    )
    with Image.open(tmp_path / "1.png") as image:
        assert max(image.size) < 4000
    assert (tmp_path / "1.pdf").read_bytes().endswith(b"%%EOF\n")


def new_on_reference(n: int) -> EmbeddingTable:
    """New samples close together, with draws of two Gaussians."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(200, n, 2)) + 6 * (rng.random((200, n, 1)) < 0.3)
    ids = np.array([f"new_{i:05}" for i in range(n)])
    pcs, elbo = np.zeros((n, 1)), np.zeros(n)
    table = EmbeddingTable.from_draws(draws, ids, np.ones((n, 1)), pcs, elbo)
    return replace(table, draws=draws)


def test_the_region_that_is_drawn_is_that_of_the_table() -> None:
    table = new_on_reference(3)
    ax = draw(table, reference=make_reference())
    drawn = []
    for contour in (c for c in ax.collections if isinstance(c, QuadContourSet)):
        (path,) = contour.get_paths()
        rings = [ring for ring in path.to_polygons() if len(ring) > 3]
        # Shoelace; a hole runs the other way round.
        drawn.append(
            abs(sum(0.5 * np.sum(r[:-1, 0] * r[1:, 1] - r[1:, 0] * r[:-1, 1]) for r in rings))
        )
    np.testing.assert_allclose(drawn, table.frame["region_area"], rtol=0.04)


@pytest.mark.parametrize("n", [2, 12, 13])
def test_ids_of_few_new_samples_meet_no_other_name(n: int) -> None:
    ax = draw(new_on_reference(n), reference=make_reference(6, 20))
    ax.figure.canvas.draw()
    renderer = ax.figure.canvas.get_renderer()
    texts = [text for text in ax.texts if text.get_text()]
    ids = [text for text in texts if text.get_text().startswith("new_")]
    assert len(ids) == (n if n <= 12 else 0)
    boxes = [(text, Text.get_window_extent(text, renderer)) for text in texts]
    for i, (first, box) in enumerate(boxes):
        for second, other in boxes[i + 1 :]:
            assert not box.overlaps(other), (first.get_text(), second.get_text())


def test_hidden_points_are_counted_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    cloud, corner = rng.normal(size=(500, 2)), rng.normal(size=(40, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 1, (40, 2))], axis=1)
    expected = [((cloud > box[:2]) & (cloud < box[2:])).all(axis=1).sum() for box in boxes]
    assert sum(expected) > 300
    np.testing.assert_array_equal(_n_inside(cloud, boxes), expected)
    np.testing.assert_array_equal(_n_inside(cloud + 100, boxes), 0)


def test_the_legend_tells_new_samples() -> None:
    ax = draw(new_on_reference(5), reference=make_reference())
    texts = legend_texts(ax)
    assert texts[:2] == ["new samples (5)", "90 % regions"]
    assert "P0 (10)" in texts
    table = new_on_reference(5)
    assert table.draws is not None
    few_draws = draw(replace(table, draws=table.draws[:9]), reference=make_reference())
    assert legend_texts(few_draws)[:2] == ["new samples (5)", " "]
    many = draw(new_on_reference(60), reference=make_reference())
    assert legend_texts(many)[:2] == ["new samples (60)", " "]


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_samples_can_be_drawn(tmp_path: Path, n: int) -> None:
    table, _, _ = make_table(n_groups=n, n_each=1)
    save_map(table, tmp_path / "1.png", tmp_path / "1.pdf")
    assert (tmp_path / "1.png").stat().st_size > 0


def test_no_such_latent() -> None:
    with pytest.raises(ValueError, match=r"\(0, 2\)"):
        draw(make_table()[0], dimensions=(0, 2))


def test_importing_reporting_is_light() -> None:
    heavy = "{'matplotlib', 'plotly', 'sklearn', 'torch', 'jinja2', 'scipy'}"
    code = f"import sys, ancestry_ddvi.reporting; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert result.stdout.strip() == "[]"

"""The comparison: every method by itself, and the run that keeps what is finished."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cli_helpers import QUICK, strict_json, tree
from helpers import write_vcf
from simulate import balding_nichols

from ancestry_ddvi.baselines import REDUCTIONS, Fitted
from ancestry_ddvi.baselines.reductions import pca
from ancestry_ddvi.comparison import METHODS, CompareConfig, choose, compare_files
from ancestry_ddvi.comparison.methods import Fit, Method, Task
from ancestry_ddvi.comparison.results import Results, digest
from ancestry_ddvi.console import Console, Verbosity
from ancestry_ddvi.ddvi.model import ModelConfig
from ancestry_ddvi.errors import InputError, OptionError, OutputError, TrainingDivergedError
from ancestry_ddvi.fitting import LearntFeatures, fit_embedding, learn_features
from ancestry_ddvi.labelling import LabelChoice
from ancestry_ddvi.preprocessing.features import FeatureConfig

N_EACH, N_POPULATIONS = 13, 3  # too few for a mixture of 20, whose cost would be most
GENOTYPES, POPULATION = balding_nichols(N_EACH, 400, 0.15, N_POPULATIONS, 0)
EMBED = replace(
    QUICK,
    features=FeatureConfig(4),
    model=ModelConfig(2, 5, n_steps=3, n_hidden=16),
    max_kinship=1.0,
    n_draws=20,
)
CONFIG = CompareConfig(("gaussian", "pca"), n_seeds=2, n_steps=4, embed=EMBED)
MODELS = [name for name in METHODS if name not in ("pca", "tsne", "umap")]


@pytest.fixture(scope="module")
def learnt() -> LearntFeatures:
    """Features with a fifth of the samples held out."""
    return learn_features(GENOTYPES, replace(EMBED, holdout=0.2), Console(Verbosity.QUIET))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Genotypes and labels on disk."""
    folder = tmp_path_factory.mktemp("files")
    vcf = write_vcf(folder / "some.vcf", GENOTYPES.dosage, GENOTYPES.sample_id, GENOTYPES.variants)
    labels = pd.DataFrame({"sample": GENOTYPES.sample_id, "population": POPULATION})
    labels.to_csv(folder / "labels.tsv", sep="\t", index=False)
    return vcf, folder / "labels.tsv"


Compare = Callable[..., dict[str, Any]]


@pytest.fixture
def compare(files: tuple[Path, Path], tmp_path: Path) -> Compare:
    """Run a comparison into a folder of this name; what comparison.json says."""

    def run(out: str = "out", *, labelled: bool = True, **options: Any) -> dict[str, Any]:
        config = options.pop("config", CONFIG)
        choice = LabelChoice(files[1] if labelled else None)
        compare_files([files[0]], out_dir=tmp_path / out, config=config, labels=choice, **options)
        found: dict[str, Any] = strict_json(tmp_path / out / "comparison.json")
        return found

    return run


def without_seconds(state: dict[str, Any]) -> Any:
    """Figures but those of the clock."""
    return json.loads(
        json.dumps(state["methods"]),
        object_hook=lambda d: {k: v for k, v in d.items() if k != "cpu_seconds"},
    )


# Methods.


@pytest.mark.parametrize("name", MODELS)
def test_every_model_places_training_and_held_out_samples(
    name: str, learnt: LearntFeatures
) -> None:
    task = Task(learnt, EMBED, 3)
    fit, again = METHODS[name].fit(task), METHODS[name].fit(task)
    np.testing.assert_array_equal(fit.z, again.z)
    assert (np.isfinite(fit.z).all(axis=1) == task.placed).all()
    assert task.placed.sum() == GENOTYPES.n_samples
    assert fit.sd is not None
    assert (fit.sd[task.placed] > 0).all()
    if name == "adversarial":
        assert fit.elbo is None
    else:
        assert fit.elbo is not None
        assert np.isfinite(fit.elbo()[task.placed]).all()
    other = METHODS[name].fit(Task(learnt, replace(EMBED, seed=1), 3))
    assert not np.array_equal(fit.z, other.z)


def test_samples_without_genotypes_are_not_placed(learnt: LearntFeatures) -> None:
    noise = learnt.features.noise.copy()
    empty = np.flatnonzero(learnt.held_out)[0]
    noise[empty] = np.inf
    features = replace(learnt.features, noise=noise)
    fit = METHODS["pca"].fit(Task(replace(learnt, features=features), EMBED, 1))
    assert np.flatnonzero(np.isnan(fit.z[:, 0])).tolist() == [empty]


def test_pca_is_the_first_features(learnt: LearntFeatures) -> None:
    fit = METHODS["pca"].fit(Task(learnt, EMBED, 1))
    np.testing.assert_array_equal(fit.z, learnt.features.x[:, :2])
    assert (fit.sd, fit.elbo) == (None, None)


def test_ddvi_is_what_the_product_fits() -> None:
    learnt = learn_features(GENOTYPES, EMBED, Console(Verbosity.QUIET))
    fit = METHODS["ddvi"].fit(Task(learnt, EMBED, 1))
    fitted = fit_embedding(GENOTYPES, EMBED)
    np.testing.assert_allclose(fit.z, fitted.table.z, rtol=0, atol=1e-5)
    assert fit.elbo is not None
    np.testing.assert_allclose(fit.elbo(), fitted.table.elbo, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["gaussian", "ddvi-unregularised", "ddvi-wake-sleep"])
def test_training_raises_the_bound(name: str, learnt: LearntFeatures) -> None:
    short, long = (METHODS[name].fit(Task(learnt, EMBED, n)) for n in (1, 120))
    assert short.elbo is not None
    assert long.elbo is not None
    assert np.nanmean(long.elbo()) > np.nanmean(short.elbo()) + 1


def test_rivals_see_no_neighbours(learnt: LearntFeatures) -> None:
    # Weights of the product's own terms change the product, and nothing of its rivals.
    plain = replace(EMBED, training=replace(EMBED.training, neighbour_weight=0.0))
    for name, same in (("gaussian", True), ("ddvi-wake-sleep", True), ("ddvi", False)):
        places = [METHODS[name].fit(Task(learnt, config, 3)).z for config in (EMBED, plain)]
        assert np.array_equal(*places) == same


def test_a_map_that_sets_threads_does_not_slow_later_fits(
    learnt: LearntFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()

    def greedy(x: np.ndarray, seed: int) -> Fitted:
        torch.set_num_threads(before + 1)
        return pca(x, seed)

    monkeypatch.setitem(REDUCTIONS, "pca", greedy)
    METHODS["pca"].fit(Task(learnt, EMBED, 1))
    assert torch.get_num_threads() == before


# The choice.


def test_methods_are_chosen_in_the_order_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose("pca, ddvi,gaussian") == (("gaussian", "ddvi", "pca"), ())
    # Whether the two libraries are here or not.
    for name, module in (("umap", "no_such_module"), ("tsne", "numpy")):
        monkeypatch.setitem(METHODS, name, replace(METHODS[name], module=module))
    names, left_out = choose("all")
    assert set(names) | set(left_out) == set(METHODS)
    assert left_out == ("umap",)
    with pytest.raises(OptionError, match=r"umap needs .*ancestry-ddvi\[benchmark\]"):
        choose("pca,umap")


@pytest.mark.parametrize("text", ["gausian", "", ",", "pca,all"])
def test_unknown_methods_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"--methods: no method .*ddvi-wake-sleep"):
        choose(text)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_seeds": 0}, "--seeds"),
        ({"n_steps": 0}, "--steps"),
        ({"n_steps": 2.5}, "--steps must be a whole number"),
        ({"methods": ("nope",)}, "no method 'nope'"),
        ({"methods": ()}, "none"),
        ({"holdout": -1}, "--holdout"),
        ({"holdout": 1.5}, "--holdout"),
        ({"embed": replace(EMBED, model=ModelConfig(3))}, "2 axes"),
    ],
)
def test_settings_are_checked(change: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        replace(CONFIG, **change)


# The run.


def test_a_run_writes_one_table(compare: Compare, tmp_path: Path) -> None:
    state = compare()
    assert set(tree(tmp_path / "out")) == {
        *("comparison.csv", "comparison.json", "comparison.md", "comparison.pdf"),
        *("comparison.png", "maps", "maps/gaussian.csv", "maps/pca.csv", "run.json", "run.log"),
    }
    row = state["methods"]["gaussian"]["1"]
    assert {"elbo", "mean_sd", "cpu_seconds", "knn_population"} <= set(row["in_sample"])
    assert {"elbo", "knn_population"} <= set(row["held_out"])
    table = pd.read_csv(tmp_path / "out" / "comparison.csv").set_index("method")
    assert table.loc["pca", "seeds"] == 2
    assert table.loc["gaussian", ["elbo", "held_out.elbo", "elbo_low"]].notna().all()
    # Nothing random is in PCA, but for the folds of the score and who is held out.
    first, second = (state["methods"]["pca"][seed]["in_sample"] for seed in "01")
    assert first["fst_rank_correlation"] == second["fst_rank_correlation"]
    maps = pd.read_csv(tmp_path / "out" / "maps" / "pca.csv")
    assert maps["sample_id"].tolist() == GENOTYPES.sample_id.tolist()
    files = strict_json(tmp_path / "out" / "run.json")["files"]
    assert files == [n for n in sorted(tree(tmp_path / "out")) if n != "maps"]


def test_without_labels_there_are_bounds_and_seconds(compare: Compare, tmp_path: Path) -> None:
    state = compare(labelled=False, config=replace(CONFIG, n_seeds=1, holdout=0.0))
    rows = state["methods"]
    assert set(rows["gaussian"]["0"]) == {"in_sample"}
    assert set(rows["gaussian"]["0"]["in_sample"]) == {"elbo", "mean_sd", "cpu_seconds"}
    assert set(rows["pca"]["0"]["in_sample"]) == {"cpu_seconds"}
    assert "published" not in (tmp_path / "out" / "comparison.md").read_text()


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Task]:
    """The tasks that a method is given from now on."""
    tasks: list[Task] = []
    method = METHODS[name]

    def fit(task: Task) -> Fit:
        tasks.append(task)
        return method.fit(task)

    monkeypatch.setitem(METHODS, name, replace(method, fit=fit))
    return tasks


def test_finished_fits_are_kept_and_new_ones_added(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = counted(monkeypatch, "gaussian")
    before = compare(config=replace(CONFIG, n_seeds=1))
    assert len(tasks) == 2
    assert compare(config=replace(CONFIG, n_seeds=1))["methods"] == before["methods"]
    assert len(tasks) == 2
    after = compare(config=replace(CONFIG, n_seeds=2, methods=("gaussian",)))
    assert [task.config.seed for task in tasks] == [0, 0, 1, 1]
    assert after["methods"]["gaussian"]["0"] == before["methods"]["gaussian"]["0"]
    assert "pca" in after["methods"]  # of the folder, if not of the last call
    compare(config=replace(CONFIG, n_seeds=1), force=True)
    assert len(tasks) == 6


def test_an_interrupted_run_goes_on(
    compare: Compare, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = compare("whole")

    def interrupt(task: Task) -> Fit:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "pca", replace(METHODS["pca"], fit=interrupt))
        console = Console(Verbosity.QUIET)
        with pytest.raises(KeyboardInterrupt):
            compare("part", console=console)
    assert "goes on from there" in console.lines[-1]
    assert set(tree(tmp_path / "part")) == {
        "comparison.json",
        *("maps", "maps/gaussian.csv", "run.json"),
    }
    tasks = counted(monkeypatch, "gaussian")
    assert without_seconds(compare("part")) == without_seconds(whole)
    assert len(tasks) == 3
    for name in ("maps/pca.csv", "maps/gaussian.csv", "comparison.png"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_two_runs_into_one_folder_keep_the_fits_of_both(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As though another process had run while the first one's last method was fitted."""
    one = replace(CONFIG, n_seeds=1, holdout=0.0)
    fit = METHODS["pca"].fit

    def meanwhile(task: Task) -> Fit:
        with monkeypatch.context() as patch:
            patch.setitem(METHODS, "pca", replace(METHODS["pca"], fit=fit))
            compare(config=replace(one, methods=("hierarchical",)))
        return fit(task)

    monkeypatch.setitem(METHODS, "pca", replace(METHODS["pca"], fit=meanwhile))
    state = compare(config=replace(one, methods=("gaussian", "pca")))
    assert set(state["methods"]) == {"gaussian", "hierarchical", "pca"}
    assert {line["method"] for line in state["table"]} == set(state["methods"])


def test_wake_sleep_moves_the_decoder_as_often_as_the_others(
    learnt: LearntFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {}
    for name in ("gaussian", "ddvi-wake-sleep"):
        with monkeypatch.context() as patch:
            patch.setattr(
                "ancestry_ddvi.comparison.methods.fit",
                lambda *args, name=name, **options: steps.setdefault(name, options["n_steps"]),
            )
            METHODS[name].fit(Task(learnt, EMBED, 5))
    assert steps == {"gaussian": 5, "ddvi-wake-sleep": 10}


def test_fits_to_all_samples_do_not_depend_on_the_share_held_out(compare: Compare) -> None:
    one = replace(CONFIG, n_seeds=1, embed=replace(EMBED, features=FeatureConfig(4, min_maf=0.2)))
    of_all = [
        compare(f"{share}", config=replace(one, holdout=share))["methods"] for share in (0.0, 0.4)
    ]
    for method in one.methods:
        first, second = (found[method]["0"]["in_sample"] for found in of_all)
        del first["cpu_seconds"], second["cpu_seconds"]
        assert first == second


def test_results_of_other_settings_are_refused(
    compare: Compare, files: tuple[Path, Path], tmp_path: Path
) -> None:
    one = replace(CONFIG, n_seeds=1, holdout=0.0, methods=("pca",))
    compare(config=one)
    before = tree(tmp_path / "out")
    for config, words in (
        (replace(one, n_steps=5), "other --steps; add --force"),
        (replace(one, embed=replace(EMBED, n_draws=30)), "other options"),
    ):
        with pytest.raises(OutputError, match=words):
            compare(config=config)
    with pytest.raises(OutputError, match="label columns and labels"):
        compare(config=one, labelled=False)
    assert tree(tmp_path / "out") == before
    compare(config=replace(one, n_steps=5), force=True)


def test_other_genotypes_and_other_code_are_refused(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = replace(CONFIG, n_seeds=1, holdout=0.0, methods=("pca",))
    compare(config=one)
    with monkeypatch.context() as patch:
        patch.setattr("ancestry_ddvi.comparison.run.code_digest", lambda: "other")
        with pytest.raises(OutputError, match="other code"):
            compare(config=one)
    dosage = GENOTYPES.dosage.copy()
    dosage[0, 0] ^= 1
    assert digest(dosage, ["S0"]) != digest(GENOTYPES.dosage, ["S0"])
    assert digest(GENOTYPES.dosage, ["S0"]) != digest(GENOTYPES.dosage, ["S1"])


def test_foreign_files_are_never_touched(compare: Compare, tmp_path: Path) -> None:
    one = replace(CONFIG, n_seeds=1, holdout=0.0, methods=("pca",))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("all of it")
    for force in (False, True):
        with pytest.raises(OutputError, match=r"thesis\.txt"):
            compare(config=one, force=force)
    compare("results", config=one)
    (tmp_path / "results" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"):
        compare("results", config=one, force=True)
    assert (tmp_path / "results" / "notes.txt").read_text() == "mine"


def test_results_of_another_command_are_refused(compare: Compare, tmp_path: Path) -> None:
    one = replace(CONFIG, n_seeds=1, holdout=0.0, methods=("pca",))
    (tmp_path / "out").mkdir()
    for name in ("run.json", "embedding.csv"):
        (tmp_path / "out" / name).write_text('{"files": ["embedding.csv", "run.json"]}')
    with pytest.raises(OutputError, match="not of a comparison"):
        compare(config=one)
    compare(config=one, force=True)
    assert not (tmp_path / "out" / "embedding.csv").exists()


def test_a_method_that_diverges_does_not_stop_the_others(
    compare: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(task: Task) -> Fit:
        raise TrainingDivergedError("the loss became non-finite at step 2")

    monkeypatch.setitem(METHODS, "gaussian", replace(METHODS["gaussian"], fit=diverge))
    console = Console(Verbosity.QUIET)
    state = compare(config=replace(CONFIG, n_seeds=1), console=console)
    assert state["methods"]["gaussian"]["0"]["in_sample"] == {
        "failed": "the loss became non-finite at step 2"
    }
    assert "knn_population" in state["methods"]["pca"]["0"]["in_sample"]
    assert [w for w in console.warnings if w.startswith("gaussian, seed 0")]
    assert state["table"][0]["failed"] == 2


def test_nothing_is_written_of_bad_input(
    compare: Compare, files: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"--holdout 0\.9"):
        compare(config=replace(CONFIG, holdout=0.9))
    with pytest.raises(InputError, match="no_such"):
        compare_files(
            [files[0]],
            out_dir=tmp_path / "out",
            config=CONFIG,
            labels=LabelChoice(files[1], population="no_such"),
        )
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_read(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("precious")
    before = tree(tmp_path)
    for place in (tmp_path / "file" / "out", Path("/proc/out"), tmp_path / ("x" * 300)):
        with pytest.raises(OutputError, match="cannot be written"):
            compare_files([tmp_path / "no_such.vcf"], out_dir=place, config=CONFIG)
    # Where it can be, the check leaves nothing behind.
    with pytest.raises(InputError, match=r"no_such\.vcf"):
        compare_files([tmp_path / "no_such.vcf"], out_dir=tmp_path / "new" / "out", config=CONFIG)
    assert tree(tmp_path) == before
    assert not (tmp_path / "new").exists()


def test_a_row_is_in_the_file_as_soon_as_it_is_kept(tmp_path: Path) -> None:
    results = Results(tmp_path / "out", {"a": 1}, force=False)
    results.add("pca", 0, "in_sample", {"elbo": float("nan"), "cpu_seconds": 1.0})
    assert strict_json(tmp_path / "out" / "comparison.json")["methods"] == {
        "pca": {"0": {"in_sample": {"elbo": None, "cpu_seconds": 1.0}}}
    }
    again = Results(tmp_path / "out", {"a": 1}, force=False)
    assert again.has("pca", 0, "in_sample")
    assert not again.has("pca", 1, "in_sample")
    assert again.places("pca") is None


def test_methods_have_titles_of_their_own() -> None:
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    assert all(isinstance(method, Method) for method in METHODS.values())

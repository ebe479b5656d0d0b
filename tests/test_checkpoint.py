"""A model on disk: whole and unaltered, or refused; never executed."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import strict_json, tree
from conftest import Cut

from ancestry_ddvi import load_model, read_genotypes
from ancestry_ddvi.errors import ModelFileError


@pytest.fixture
def folder(quick_results: Path) -> Path:
    """A model folder to harm."""
    return quick_results / "model"


def test_saving_what_was_loaded_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    load_model(folder).save(tmp_path / "again")
    assert tree(tmp_path / "again") == tree(folder)
    assert set(tree(folder)) == {"model.safetensors", "variants.tsv", "model.json"}


def test_a_loaded_model_places_samples_as_the_fitted_one(quick_results: Path, cut: Cut) -> None:
    genotypes = read_genotypes(cut.vcf)
    model = load_model(quick_results)  # the folder around model/ is enough
    first = model.embed(genotypes, n_draws=4)
    second = load_model(str(quick_results / "model")).embed(genotypes, n_draws=4)
    np.testing.assert_array_equal(first.z, second.z)
    assert first.sample_id.tolist() == cut.sample_id
    assert np.abs(first.z - model.embed(genotypes, n_draws=4, seed=1).z).max() > 0


def test_variants_come_back_as_they_were(folder: Path, cut: Cut) -> None:
    used = load_model(folder).extractor.variants
    of_file = read_genotypes(cut.vcf).variants
    both = used.merge(of_file, how="left", indicator=True)
    assert (both["_merge"] == "both").all()
    assert used["contig"].map(type).eq(str).all()
    assert len(used) > 1000


def test_the_description_says_what_it_was_trained_on(folder: Path, cut: Cut) -> None:
    description = strict_json(folder / "model.json")
    provenance = description["provenance"]
    assert provenance["n_training_samples"] == 150
    assert provenance["seed"] == 0
    assert provenance["config"]["training"]["map_steps"] == 60
    assert provenance["input"]["sha256"] == hashlib.sha256(cut.vcf.read_bytes()).hexdigest()
    assert description["sha256"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "variants.tsv")
    }


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def edit(folder: Path, change: Callable[[dict], object]) -> None:
    """Change model.json, the checksums brought up to date: what an attacker would do."""
    path = folder / "model.json"
    description = json.loads(path.read_text())
    description["sha256"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in description["sha256"]
    }
    change(description)
    path.write_text(json.dumps(description))


class Bomb:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return (Path.touch, (self.path,))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights altered": (
        lambda f: flip(f / "model.safetensors"),
        "model.safetensors: the checksum differs",
    ),
    "variants altered": (lambda f: flip(f / "variants.tsv"), "variants.tsv: the checksum differs"),
    "cut short": (
        lambda f: (f / "variants.tsv").write_bytes((f / "variants.tsv").read_bytes()[:-9]),
        "variants.tsv: the checksum differs",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: cannot be"),
    "no variants": (lambda f: (f / "variants.tsv").unlink(), "variants.tsv: cannot be read"),
    "no description": (lambda f: (f / "model.json").unlink(), "no model here"),
    "a folder for a file": (
        lambda f: ((f / "variants.tsv").unlink(), (f / "variants.tsv").mkdir()),
        "cannot be read",
    ),
    "not JSON": (lambda f: (f / "model.json").write_text("{"), "not a model description"),
    "a list": (lambda f: (f / "model.json").write_text("[]"), "not a model description"),
    "not UTF-8": (lambda f: (f / "model.json").write_bytes(b"\xff"), "not a model description"),
    "newer": (lambda f: edit(f, lambda d: d.update(format=99)), "format 99 is newer.*upgrade"),
    "no provenance": (lambda f: edit(f, lambda d: d.pop("provenance")), "not a model of"),
    "no extractor": (lambda f: edit(f, lambda d: d.pop("extractor")), "not a model of"),
    "a list for settings": (lambda f: edit(f, lambda d: d.update(extractor=[])), "not a model of"),
    "no latents": (lambda f: edit(f, lambda d: d["model"].update(n_latent=0)), "not a model of"),
    "other latents": (lambda f: edit(f, lambda d: d["model"].update(n_latent=3)), "not a model of"),
    "other settings": (lambda f: edit(f, lambda d: d["model"].update(speed=9)), "not a model of"),
    "empty weights": (
        lambda f: ((f / "model.safetensors").write_bytes(b""), edit(f, lambda d: None)),
        "not a model of",
    ),
    "empty variants": (
        lambda f: ((f / "variants.tsv").write_text(""), edit(f, lambda d: None)),
        "not a model of",
    ),
    "fewer variants": (
        lambda f: (
            (f / "variants.tsv").write_text(
                "".join((f / "variants.tsv").read_text().splitlines(True)[:-1])
            ),
            edit(f, lambda d: None),
        ),
        "loadings for",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_model_is_refused(folder: Path, kind: str) -> None:
    damage, words = DAMAGE[kind]
    load_model(folder)
    damage(folder)
    with pytest.raises(ModelFileError, match=words) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_unpickled(folder: Path, tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    pickle.loads(bomb)
    (tmp_path / "exploded").unlink()  # it works; only we must not set it off
    (folder / "model.safetensors").write_bytes(bomb)
    edit(folder, lambda d: None)
    with pytest.raises(ModelFileError, match="not a model of"):
        load_model(folder)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_no_model_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelFileError, match=r"no model here.*`ancestry-ddvi embed` wrote"):
        load_model(tmp_path / name)

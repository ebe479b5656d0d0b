"""A model on disk: whole and unaltered, or refused; never executed."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import strict_json, tree
from conftest import Cut
from safetensors.numpy import load_file, save

from ancestry_ddvi import load_model, read_genotypes
from ancestry_ddvi.errors import ModelFileError
from ancestry_ddvi.genotypes import id_hash

WRITTEN = ("model.safetensors", "variants.tsv", "ancestry.safetensors", "sites.tsv")
"""Of a model that labels were given to."""


@pytest.fixture
def folder(quick_results: Path) -> Path:
    """A model folder to harm."""
    return quick_results / "model"


def test_saving_what_was_loaded_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    load_model(folder).save(str(tmp_path / "again"))
    assert tree(tmp_path / "again") == tree(folder)
    assert set(tree(folder)) == {*WRITTEN, "model.json"}


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
    own = description["sha256"].pop("model.json")
    assert description["sha256"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in WRITTEN
    }
    text = json.dumps(description, sort_keys=True)
    assert own == hashlib.sha256(text.encode()).hexdigest()


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
    path.write_text(sealed(description))


def sealed(description: dict) -> str:
    """With the checksum of what it says now, if it is one that can have any."""
    if isinstance(sums := description.get("sha256"), dict):
        sums.pop("model.json", None)
        own = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
        sums["model.json"] = own
    return json.dumps(description)


def reword(folder: Path) -> None:
    """What the card says, and nothing else."""
    path = folder / "model.json"
    description = json.loads(path.read_text())
    description["provenance"]["n_training_samples"] = 2504
    path.write_text(json.dumps(description))


def tensor(folder: Path, name: str, value: float) -> None:
    """Change the first entry of a tensor, the checksums brought up to date."""
    stored = load_file(folder / "model.safetensors")
    stored[name].flat[0] = value
    (folder / "model.safetensors").write_bytes(save(stored))
    edit(folder, lambda d: None)


class Bomb:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return (Path.touch, (self.path,))


UNIT = "model.json: extractor.unit is {}, not a finite positive number"

DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "weights altered": (
        lambda f: flip(f / "model.safetensors"),
        "model.safetensors: the checksum in model.json differs",
    ),
    "variants altered": (lambda f: flip(f / "variants.tsv"), "variants.tsv: the checksum in"),
    "description altered": (reword, "model.json: the checksum in model.json differs"),
    "cut short": (
        lambda f: (f / "variants.tsv").write_bytes((f / "variants.tsv").read_bytes()[:-9]),
        "variants.tsv: the checksum in model.json differs",
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
    "newer": (lambda f: edit(f, lambda d: d.update(format=99)), "json: format is 99, .* reads 6;"),
    "older": (lambda f: edit(f, lambda d: d.update(format=1)), "json: format is 1, .* train"),
    "half a format": (lambda f: edit(f, lambda d: d.update(format=2.0)), "json: format is 2.0"),
    "format true": (lambda f: edit(f, lambda d: d.update(format=True)), "json: format is true"),
    "unit 0": (lambda f: edit(f, lambda d: d["extractor"].update(unit=0)), UNIT.format(0)),
    "heterozygosity": (
        lambda f: edit(f, lambda d: d["extractor"].update(heterozygosity=-0.5)),
        "model.json: extractor.heterozygosity is -0.5, not a finite number, at least 0",
    ),
    "unit -1": (lambda f: edit(f, lambda d: d["extractor"].update(unit=-1)), UNIT.format(-1)),
    "unit huge": (
        lambda f: edit(f, lambda d: d["extractor"].update(unit=10**400)),
        UNIT.format("10+…"),
    ),
    "unit text": (lambda f: edit(f, lambda d: d["extractor"].update(unit="1")), UNIT.format('"1"')),
    "unit nan": (
        lambda f: edit(f, lambda d: d["extractor"].update(unit=float("nan"))),
        "not a model description .NaN is no finite number",
    ),
    "provenance a list": (
        lambda f: edit(f, lambda d: d.update(provenance=[])),
        r"model.json: provenance is \[\], not a table",
    ),
    "too wide": (
        lambda f: edit(f, lambda d: d["model"].update(n_hidden=10**9)),
        "model.json: model.n_hidden is 1000000000, not 128",
    ),
    "too long": (
        lambda f: edit(f, lambda d: d["model"].update(n_steps=10**9)),
        "model.json: model.n_steps is 1000000000, not 6 ",
    ),
    "guided by text": (
        lambda f: edit(f, lambda d: d["model"].update(guided="no")),
        'model.json: model.guided is "no", not true or false',
    ),
    "not guided": (lambda f: edit(f, lambda d: d["model"].update(guided=False)), "not a model of"),
    "eigenvalue 0": (lambda f: tensor(f, "extractor.eigenvalue", 0), "extractor.eigenvalue is 0.0"),
    "shrinkage < 0": (lambda f: tensor(f, "extractor.shrinkage", -1), "shrinkage is -1.0, not pos"),
    "eigenvalue nan": (
        lambda f: tensor(f, "extractor.eigenvalue", np.nan),
        "model.safetensors: extractor.eigenvalue is nan, not finite",
    ),
    "scale inf": (
        lambda f: tensor(f, "model.posterior.anchor.inputs.scale", np.inf),
        "inputs.scale is inf, not finite",
    ),
    "scale 0": (
        lambda f: tensor(f, "model.posterior.anchor.inputs.scale", 0),
        "inputs.scale is 0.0, not positive",
    ),
    "weight nan": (lambda f: tensor(f, "model.prior.mean", np.nan), "model.prior.mean is nan"),
    "too deep": (lambda f: (f / "model.json").write_text("[" * 10**5), "not a model description"),
    "too deep for what shows it": (
        lambda f: edit(f, lambda d: d["provenance"].update(x=json.loads("[" * 500 + "]" * 500))),
        "model.json: not a model description .tables and lists more than 20 deep.",
    ),
    "no positions": (
        lambda f: (
            (f / "variants.tsv").write_text(
                (f / "variants.tsv").read_text().replace("position", "place", 1)
            ),
            edit(f, lambda d: None),
        ),
        "not a model of.*position",
    ),
    "no provenance": (lambda f: edit(f, lambda d: d.pop("provenance")), "not a model of"),
    "no extractor": (lambda f: edit(f, lambda d: d.pop("extractor")), "not a model of"),
    "a list for settings": (
        lambda f: edit(f, lambda d: d.update(extractor=[])),
        r"model.json: extractor is \[\], not a table",
    ),
    "no latents": (
        lambda f: edit(f, lambda d: d["model"].update(n_latent=0)),
        "n_latent is 0, not",
    ),
    "other latents": (lambda f: edit(f, lambda d: d["model"].update(n_latent=3)), "is 3, not 2 as"),
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


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """The path to every value in a JSON document, tables and lists included."""
    if path:
        yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, below in items:
        yield from places(below, (*path, key))


JUNK = (None, True, -1, 0, 3, 1e300, -0.5, 10**30, "x\ny", [], {}, [1], {"a": None}, "é" * 500)


def test_any_value_anywhere_is_read_or_refused_in_a_line(folder: Path, cut: Cut) -> None:
    path = folder / "model.json"
    whole = path.read_text()
    refused = []
    for place in places(json.loads(whole)):
        for junk in (*JUNK, ...):
            description = json.loads(whole)
            room = description
            for key in place[:-1]:
                room = room[key]
            if place == ("sha256", "model.json"):
                continue  # `sealed` puts it right
            if junk is ...:
                del room[place[-1]]
            else:
                room[place[-1]] = junk
            path.write_text(sealed(description))
            try:
                load_model(folder)
            except ModelFileError as error:
                refused.append(str(error))
    assert len(refused) > 100
    assert [message for message in refused if len(message.splitlines()) != 1] == []
    assert [message for message in refused if str(folder) not in message] == []


def test_training_samples_are_known_again_by_a_hash(folder: Path, cut: Cut) -> None:
    model = load_model(folder)
    ids = np.array([*cut.sample_id, "somebody else", ""])
    assert model.was_trained_on(ids).tolist() == [True] * 150 + [False] * 2
    # By hand: the first 8 bytes of SHA-256, which starts ba7816bf 8f01cfea for "abc".
    assert id_hash(np.array(["abc"])).tolist() == [0xBA7816BF8F01CFEA]
    assert (np.diff(model.trained_on.astype(object)) > 0).all()
    # The folder may be shared: no id stands in it.
    for name, data in tree(folder).items():
        assert not [i for i in cut.sample_id if i.encode() in data], name


def test_an_id_need_not_be_unicode() -> None:
    for name in ("caf\udce9", "caf\ud800"):
        assert id_hash(np.array([name])) != id_hash(np.array(["caf"]))


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

"""Labels of some samples: bounds against a closed form, and what is learnt from them."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cli_helpers import strict_json
from helpers import write_vcf
from linear_gaussian import DECODER, OFFSET, SIGMA, WEIGHT, seeded
from simulate import balding_nichols
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

import ancestry_ddvi.fitting
import ancestry_ddvi.pipeline
from ancestry_ddvi import DDVI
from ancestry_ddvi.cli import cli
from ancestry_ddvi.ddvi import supervision
from ancestry_ddvi.ddvi.model import AncestryModel, ModelConfig
from ancestry_ddvi.ddvi.networks import FeatureInput
from ancestry_ddvi.ddvi.objective import dream
from ancestry_ddvi.ddvi.priors import FixedMixturePrior
from ancestry_ddvi.ddvi.supervision import (
    UNLABELLED,
    Classifier,
    log_prior_of_label,
    match_classes,
)
from ancestry_ddvi.ddvi.training import TrainingConfig, train
from ancestry_ddvi.errors import LabelFileError, OptionError
from ancestry_ddvi.fitting import EmbedConfig, fit_embedding
from ancestry_ddvi.pipeline import embed_file

torch.set_num_threads(1)

# Three classes of two, one and one components; x = W z + m + e as in `linear_gaussian`.
MEAN = torch.tensor([[-2.0, 0.0], [2.0, 0.5], [0.0, 2.0], [0.3, -1.0]])
SD = torch.tensor([[0.5, 0.8], [0.4, 0.4], [0.7, 0.5], [0.6, 0.6]])
CLASS = torch.tensor([0, 0, 1, 2])
PRIOR = FixedMixturePrior(MEAN, SD, torch.tensor([1.0, 2.0, 1.5, 1.0]), CLASS)


def exact(x: torch.Tensor) -> tuple[torch.Tensor, MixtureSameFamily]:
    """log p(x, l) (n, 3), and p(z | x), complete samples."""
    spread = torch.diag_embed(SD**2)
    seen = MultivariateNormal(
        MEAN @ WEIGHT.T + OFFSET, WEIGHT @ spread @ WEIGHT.T + torch.diag(SIGMA**2)
    )
    joint = PRIOR.log_weight() + seen.log_prob(x.unsqueeze(1))
    of_class = [torch.logsumexp(joint[:, c == CLASS], dim=1) for c in range(3)]
    precision = WEIGHT.T @ torch.diag(SIGMA**-2) @ WEIGHT + torch.diag_embed(SD**-2)
    pull = (x - OFFSET) @ torch.diag(SIGMA**-2) @ WEIGHT
    target = pull.unsqueeze(1) + MEAN / SD**2
    mean = torch.linalg.solve(precision, target.unsqueeze(-1)).squeeze(-1)
    posterior = MixtureSameFamily(
        Categorical(logits=joint),
        MultivariateNormal(mean, precision_matrix=precision.expand(len(x), -1, -1, -1)),
    )
    return torch.stack(of_class, dim=1), posterior


def bound(
    x: torch.Tensor, label: torch.Tensor, log_q: torch.Tensor, q_of_z: Any, n_draws: int = 4000
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard error of the bound of each sample."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z = q_of_z.sample((n_draws,))
    log_prior = log_prior_of_label(PRIOR.class_log_prob(z), log_q, label)
    noise = torch.zeros(len(x))
    estimate = DECODER.log_prob(x, z, noise) + log_prior - q_of_z.log_prob(z)
    return estimate.mean(0), estimate.std(0) / math.sqrt(n_draws)


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return dream(PRIOR, DECODER, torch.zeros(40), seeded(3))[1]


def test_bounds_stay_below_the_closed_form_and_are_tight_at_the_exact_posterior(
    x: torch.Tensor,
) -> None:
    joint, posterior = exact(x)
    log_p = torch.logsumexp(joint, dim=1)
    known = joint.argmax(dim=1)
    unknown = torch.full_like(known, UNLABELLED)
    log_q_exact = torch.log_softmax(joint, dim=1)
    wide = MultivariateNormal(posterior.mean, torch.diag_embed(2 * posterior.variance))
    blunt = torch.log_softmax(torch.randn(joint.shape, generator=seeded(1)), dim=1)
    of_label = joint.gather(1, known.unsqueeze(1)).squeeze(1)
    for q_of_z in (posterior, wide):
        for log_q in (log_q_exact, blunt):
            mean, error = bound(x, unknown, log_q, q_of_z)
            assert (mean < log_p + 4 * error + 1e-4).all()
        mean, error = bound(x, known, log_q_exact, q_of_z)
        assert (mean < of_label + 4 * error + 1e-4).all()
    # Where the label is beyond doubt the bounds leave nothing; elsewhere what they leave is known.
    sure = log_q_exact.max(dim=1).values > math.log(0.999)
    assert sure.sum() > 5
    for label, target in ((unknown, log_p), (known, of_label)):
        mean, _ = bound(x, label, log_q_exact, posterior)
        assert (target - mean)[sure].max() < 0.03
    assert (log_p - bound(x, unknown, blunt, posterior)[0]).mean() > 0.3
    # A bound with another class's label is below that label's own log p(x, l), not below log p(x).
    wrong = (known + 1) % 3
    mean, _ = bound(x, wrong, log_q_exact, posterior)
    assert (mean < joint.gather(1, wrong.unsqueeze(1)).squeeze(1) + 0.05).all()


def test_the_sum_over_labels_is_the_unlabelled_prior_less_what_the_classifier_gets_wrong() -> None:
    z = torch.randn((7, 30, 2), generator=seeded(0))
    log_q = torch.log_softmax(torch.randn((30, 3), generator=seeded(1)), dim=1)
    joint = PRIOR.class_log_prob(z)
    label = torch.full((30,), UNLABELLED)
    label[:3] = torch.tensor([0, 1, 2])
    found = log_prior_of_label(joint, log_q, label)
    kl = (log_q.exp() * (log_q - torch.log_softmax(joint, dim=-1))).sum(-1)
    torch.testing.assert_close(found[:, 3:], (PRIOR.log_prob(z) - kl)[:, 3:])
    for i in range(3):
        torch.testing.assert_close(found[:, i], joint[:, i, i])


def test_classes_are_matched_by_hand() -> None:
    # Four clusters, three classes. Class 2 is small, and its best cluster holds more of class 1.
    cluster = torch.eye(4).repeat_interleave(torch.tensor([10, 10, 12, 10]), dim=0)
    label = torch.tensor([0] * 10 + [1] * 10 + [1] * 9 + [2] * 3 + [0] * 10)
    unused = torch.full((42, 3), -math.log(3))
    assert match_classes(cluster, unused, label).tolist() == [0, 1, 2, 0]
    # Without labels the classifier says it.
    sure = torch.log_softmax(20 * torch.nn.functional.one_hot(label, 3).float(), dim=1)
    unknown = torch.full_like(label, UNLABELLED)
    assert match_classes(cluster, sure, unknown).tolist() == [0, 1, 2, 0]


def test_the_prior_of_the_classifiers_weights_is_normal_and_leaves_biases_free() -> None:
    classifier = Classifier(FeatureInput(torch.ones(K)), N_CLASSES, 16)

    def density() -> torch.Tensor:
        weights = (classifier.linear.weight, *(classifier.network[i].weight for i in (0, 2, 4)))
        normal = torch.distributions.Normal(0.0, supervision.WEIGHT_SD)
        return sum(normal.log_prob(w).sum() for w in weights)

    before, at = density(), classifier.log_weight_prior()
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=seeded(1)))
    torch.testing.assert_close(classifier.log_weight_prior() - at, density() - before)
    classifier.log_weight_prior().backward()
    assert all(
        (p.grad is None) == name.endswith("bias") for name, p in classifier.named_parameters()
    )


def test_the_prior_keeps_labels_that_say_nothing_from_making_a_classifier_sure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Groups()
    blind = np.where(np.arange(300) < 60, np.random.default_rng(1).permutation(data.group), -1)

    def log_loss() -> float:
        model = data.fit(blind, "mixture")
        p = model.class_probability(data.new_x, np.zeros(len(data.new_x)))
        return float(-np.log(p[np.arange(len(p)), data.new_group]).mean())

    with_prior = log_loss()
    monkeypatch.setattr(supervision, "WEIGHT_SD", 1e3)
    without = log_loss()
    # Nobody can know better than log 6; who is sure of nonsense knows less.
    assert with_prior < without - 0.5


K, N_CLASSES = 6, 6


class Groups:
    """Six groups that overlap; 300 samples to learn from, 60 of them labelled, and 200 new ones."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        group = rng.integers(N_CLASSES, size=500)
        features = 2.2 * rng.normal(size=(N_CLASSES, K))[group] + rng.normal(size=(500, K))
        self.x, self.new_x = np.split(features - features[:300].mean(axis=0), [300])
        self.group, self.new_group = np.split(group, [300])
        self.label = np.where(np.arange(300) < 60, self.group, UNLABELLED)

    def fit(self, label: np.ndarray | None, prior: str, seed: int = 0) -> AncestryModel:
        """Map and classifier; next to no posterior phase, which touches neither."""
        names = () if label is None else tuple("abcdef")
        config = ModelConfig(prior=prior, n_hidden=32, classes=names, guided=False, n_steps=2)
        model = AncestryModel(self.x.std(axis=0), config, seed)
        training = TrainingConfig(map_steps=300, posterior_steps=5)
        train(model, self.x, np.zeros(300), 1.0, training, seed, label=label)
        return model

    def accuracy(self, probability: np.ndarray) -> float:
        return float((probability.argmax(axis=1) == self.new_group).mean())

    def of_clusters(self, model: AncestryModel) -> float:
        """Each cluster taken for the class that most of its labelled samples have."""
        places = (self.place(model, rows) for rows in (self.x, self.new_x))
        member = [model.membership(place).argmax(axis=1) for place in places]
        table = np.zeros((model.config.n_clusters or 0, N_CLASSES))
        np.add.at(table, (member[0][:60], self.group[:60]), 1)
        return self.accuracy(table[member[1]])

    @staticmethod
    def place(model: AncestryModel, x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            rows = torch.as_tensor(x, dtype=torch.float32)
            return model.posterior.anchor(rows, torch.zeros(len(x)))[0].unsqueeze(0).numpy()


@pytest.fixture(scope="module")
def groups() -> Groups:
    return Groups()


@pytest.mark.parametrize("prior", ["mixture", "pinwheel"])
def test_labels_of_some_make_new_samples_better_known(groups: Groups, prior: str) -> None:
    model = groups.fit(groups.label, prior)
    supervised = groups.accuracy(model.class_probability(groups.new_x, np.zeros(200)))
    on_map = groups.accuracy(model.class_probability_of(groups.place(model, groups.new_x)))
    unsupervised = groups.of_clusters(groups.fit(None, prior))
    assert supervised > unsupervised + 0.05
    assert on_map > 0.55
    assert supervised > 0.8


def test_labels_that_mean_nothing_teach_nothing(groups: Groups) -> None:
    """The control of the test before."""
    label = groups.label.copy()
    label[:60] = np.random.default_rng(1).permutation(label[:60])
    model = groups.fit(label, "pinwheel")
    assert groups.accuracy(model.class_probability(groups.new_x, np.zeros(200))) < 0.45


def test_components_keep_to_their_classes_when_they_are_sorted(groups: Groups) -> None:
    model = groups.fit(groups.label, "mixture")
    before = torch.from_numpy(groups.place(model, groups.new_x)[0])
    joint = model.prior.class_log_prob(before)
    model.prior.sort()
    torch.testing.assert_close(model.prior.class_log_prob(before), joint)
    assert set(model.prior.component_class.tolist()) == set(range(N_CLASSES))


@pytest.mark.parametrize(
    ("classes", "label", "words"),
    [
        ("abc", [0, 1, 3], "label 3 is outside the prior's partition; known labels are 0 to 2"),
        ("abc", [0, -2, 1], "label -2 is outside"),
        ("abc", [-1, -1, -1], "no sample that is learnt from has a label"),
        ("abc", [0, 1], r"labels have shape \(2,\), not \(3,\)"),
        ("abc", None, "labels are what a model of 3 classes learns from"),
        ("", [0, 1, 1], "no labels are what a model of 0 classes learns from"),
    ],
)
def test_labels_at_fault_are_refused(
    classes: str, label: list[int] | None, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "ancestry_ddvi.ddvi.training.run_phases", lambda *args: pytest.fail("it trained")
    )
    model = AncestryModel(np.ones(3), ModelConfig(n_hidden=8, classes=tuple(classes)), 0)
    labels = None if label is None else np.array(label)
    with pytest.raises(OptionError, match=words):
        train(model, np.eye(3), np.zeros(3), 1.0, TrainingConfig(), 0, label=labels)


# The command.

CONFIG = EmbedConfig(
    training=TrainingConfig(map_steps=60, posterior_steps=3, posterior_batch=16),
    n_draws=4,
    holdout=0.25,
    max_kinship=1,
    model=ModelConfig(n_hidden=32),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A VCF of three populations, and labels with gaps."""
    folder = tmp_path_factory.mktemp("labels")
    genotypes, population = balding_nichols(24, 300, 0.25, 3, seed=0)
    vcf = write_vcf(folder / "a.vcf", genotypes.dosage, genotypes.sample_id)
    gaps = np.arange(72) % 3 == 0
    table = pd.DataFrame(
        {
            "sample": genotypes.sample_id,
            "pop": population,
            "some": np.where(gaps, "", population),
            "one": np.where(gaps, "", "x"),
            "none": "",
            "na": np.where(gaps, "NA", population),
        }
    )
    table.to_csv(folder / "labels.tsv", sep="\t", index=False)
    return vcf, folder / "labels.tsv"


def test_the_command_says_what_it_learnt_from(files: tuple[Path, Path], tmp_path: Path) -> None:
    vcf, labels = files
    out = tmp_path / "out"
    longer = replace(CONFIG, training=replace(CONFIG.training, map_steps=300))
    summary = embed_file(vcf, out_dir=out, labels_path=labels, supervise="some", config=longer)
    assert "classes.csv" in summary.files
    table = pd.read_csv(out / "embedding.csv")
    classes = pd.read_csv(out / "classes.csv")
    assert list(classes.columns) == ["sample_id", "P0", "P1", "P2"]
    assert list(table.columns[5:9]) == [
        "cluster",
        "cluster_probability",
        "class",
        "class_probability",
    ]
    probability = classes.drop(columns="sample_id")
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-4)
    assert (probability.idxmax(axis=1) == table["class"]).all()
    np.testing.assert_allclose(probability.max(axis=1), table["class_probability"])
    metrics = strict_json(out / "metrics.json")
    supervision = metrics["supervision"]
    assert supervision["column"] == "some"
    assert supervision["n_labelled"] + supervision["n_unlabelled"] == 54
    assert "not unsupervised" in supervision["meaning"]
    scored = metrics["held_out_classes"]
    assert scored["split"].startswith("held-out")
    assert scored["accuracy"] > 0.8
    assert 0 < scored["n_samples"] <= 18
    assert 0 <= metrics["classes"]["agreement"] <= 1
    warning = [w for w in strict_json(out / "run.json")["warnings"] if w.startswith("supervised:")]
    assert len(warning) == 1
    assert "column 'some', 3 classes" in warning[0]
    assert warning[0] in (out / "report.html").read_text().replace("&#39;", "'")
    assert any(h.label == "Accuracy of classes, held-out" for h in summary.headlines)

    # New samples get classes too, and their reader the same warning.
    new = tmp_path / "new"
    embed_file(vcf, out_dir=new, labels_path=labels, model_path=out, config=CONFIG)
    again = pd.read_csv(new / "classes.csv").drop(columns="sample_id")
    assert (again.idxmax(axis=1) == probability.idxmax(axis=1)).mean() > 0.8
    assert "supervised" in str(strict_json(new / "run.json")["warnings"])
    assert strict_json(new / "metrics.json")["supervision"]["column"] == "some"


def test_without_supervise_no_label_is_learnt_from(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    vcf, labels = files
    embed_file(vcf, out_dir=tmp_path / "with", labels_path=labels, config=CONFIG)
    embed_file(vcf, out_dir=tmp_path / "without", config=CONFIG)
    frames = [pd.read_csv(tmp_path / name / "embedding.csv") for name in ("with", "without")]
    pd.testing.assert_frame_equal(frames[0][frames[1].columns], frames[1])
    assert not (tmp_path / "with" / "classes.csv").exists()
    assert "supervised" not in (tmp_path / "with" / "report.html").read_text()


def test_labels_of_held_out_samples_are_not_looked_at() -> None:
    genotypes, population = balding_nichols(24, 300, 0.25, 3, seed=0)
    labels = pd.Series(population, name="pop")
    held_out = fit_embedding(genotypes, CONFIG, labels=labels).held_out
    assert held_out.sum() == 18
    other = labels.copy()
    other[held_out] = "never seen"
    tables = [fit_embedding(genotypes, CONFIG, labels=s).table for s in (labels, other)]
    assert tables[0].frame.equals(tables[1].frame)
    assert list(tables[1].classes.columns) == ["P0", "P1", "P2"]
    # The control: labels of the others are.
    other = labels.copy()
    other[~held_out] = np.roll(labels[~held_out], 1)
    assert not fit_embedding(genotypes, CONFIG, labels=other).table.frame.equals(tables[0].frame)


def test_labels_in_another_order_than_the_samples_are_refused() -> None:
    genotypes, population = balding_nichols(24, 300, 0.25, 3, seed=0)
    labels = pd.Series(population, index=genotypes.sample_id, name="pop")
    in_order = fit_embedding(genotypes, CONFIG, labels=labels).table.frame
    reset = fit_embedding(genotypes, CONFIG, labels=labels.reset_index(drop=True)).table.frame
    pd.testing.assert_frame_equal(in_order, reset)
    for wrong, words in (
        (labels.iloc[::-1], "their index is not the sample ids in the samples' order"),
        (labels.iloc[:20], "labels: 20 of type Series; give a pandas Series of one for each of 72"),
        (population, "labels: 72 of type ndarray"),
    ):
        with pytest.raises(OptionError, match=words):
            fit_embedding(genotypes, CONFIG, labels=wrong)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        (
            {"supervise": "one"},
            OptionError,
            r"labels\.tsv: column 'one': all labels are 'x'; a classifier needs at least 2 "
            "classes: label samples of another, or learn without",
        ),
        (
            {"supervise": "none"},
            OptionError,
            r"labels\.tsv: column 'none': no sample to learn from has a label; .*--supervise",
        ),
        (
            {"supervise": "na"},
            OptionError,
            "column 'na' has the label 'NA', which",
        ),
        ({"supervise": "nope"}, LabelFileError, "no label column 'nope'"),
        ({"supervise": "pop", "labels_path": None}, OptionError, "add --labels TSV"),
        ({"supervise": "pop", "model_path": Path("m")}, OptionError, "--model gives a learnt one"),
        (
            {"supervise": "pop", "config": replace(CONFIG, model=ModelConfig(n_clusters=2))},
            OptionError,
            r"column 'pop': the prior has 2 clusters, too few for 3 classes of .*--n-clusters",
        ),
        (
            {"supervise": "pop", "config": replace(CONFIG, model=ModelConfig(4, prior="gaussian"))},
            OptionError,
            "column 'pop': 3 angular sectors need 2 latents, not 4",
        ),
        (
            {
                "supervise": "",
                "config": replace(CONFIG, model=ModelConfig(clustering="dirichlet")),
            },
            OptionError,
            "supervise with clustering mixture",
        ),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(
    options: dict,
    error: type,
    words: str,
    files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ancestry_ddvi.fitting, "train", lambda *args: pytest.fail("it trained"))
    monkeypatch.setattr(
        ancestry_ddvi.fitting, "learn_features", lambda *args: pytest.fail("it learnt")
    )
    given = {"labels_path": files[1], "config": CONFIG, **options}
    with pytest.raises(error, match=words) as caught:
        embed_file(files[0], out_dir=tmp_path / "out", **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], None),
        (["--supervise"], ""),
        (["--supervise", "some"], "some"),
        (["--supervise=some"], "some"),
        (["--supervise", "--seed", "3"], ""),
    ],
)
def test_supervise_with_and_without_a_column(
    words: list[str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    class DoneError(Exception):
        pass

    def embed(*args: Any, **given: Any) -> None:
        seen.update(given)
        raise DoneError

    monkeypatch.setattr(ancestry_ddvi.pipeline, "embed_file", embed)
    with pytest.raises(DoneError):
        cli.main(["embed", "a.vcf", "--labels", "b.tsv", *words], standalone_mode=False)
    assert seen["supervise"] == expected


def test_a_table_of_classes_quotes_what_needs_it(tmp_path: Path) -> None:
    from ancestry_ddvi.embedding import EmbeddingTable
    from ancestry_ddvi.reporting import write_classes_csv

    classes = pd.DataFrame([[0.25, 0.75]], columns=["a,b", 'c"'])
    table = EmbeddingTable.from_draws(
        np.zeros((2, 1, 2)), np.array(["s"]), np.ones((1, 1)), np.zeros((1, 0)), np.zeros(1),
        classes, classes.to_numpy(),
    )  # fmt: skip
    write_classes_csv(tmp_path / "classes.csv", table)
    rows = list(csv.reader((tmp_path / "classes.csv").read_text().splitlines()))
    assert rows == [["sample_id", "a,b", 'c"'], ["s", "0.25", "0.75"]]
    assert table.frame["class"].tolist() == ['c"']
    assert table.select(np.array([True])).classes.equals(classes)


# The estimator.

SHORT: dict[str, Any] = {"map_steps": 60, "posterior_steps": 3, "n_draws": 3}


@pytest.mark.parametrize(
    ("labels", "gap"),
    [([3, 5, 9], -1), (["x", "y", "z"], None), (["x", "y", "z"], float("nan"))],
)
def test_the_estimator_learns_from_y(groups: Groups, labels: list, gap: Any) -> None:
    y = np.array([labels[g % 3] for g in groups.group], dtype=object)
    y[200:] = gap
    estimator = DDVI(supervised=True, **SHORT).fit(groups.x, y)
    assert estimator.classes_.tolist() == labels
    probability = estimator.predict_proba(groups.new_x)
    assert probability.shape == (200, 3)
    np.testing.assert_allclose(probability.sum(axis=1), 1, rtol=1e-5)
    assert (probability.argmax(axis=1) == groups.new_group % 3).mean() > 0.6
    # Not asked to, it does not look at y.
    alike = [DDVI(**SHORT).fit(groups.x[:80], z).transform(groups.x[:9]) for z in (None, y[:80])]
    np.testing.assert_array_equal(*alike)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        (None, "y has no label"),
        ([-1] * 300, "y has no label"),
        ([0, 1], r"y has shape \(2,\), not \(300,\)"),
        ([0] * 300, "all labels are '0'"),
        (["a"] * 150 + [1] * 150, "both text and numbers"),
        (list(range(300)), "30 clusters, too few for 300 classes"),
    ],
)
def test_y_at_fault_is_refused(
    groups: Groups, y: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ancestry_ddvi.estimator.train", lambda *args: pytest.fail("it trained"))
    with pytest.raises(OptionError, match=words):
        DDVI(supervised=True, **SHORT).fit(groups.x, y)

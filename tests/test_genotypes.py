"""The genotype matrix refuses what does not fit together, and selects without mixing rows."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import make_variants

from ancestry_ddvi.errors import GenotypeFileError
from ancestry_ddvi.genotypes import GenotypeMatrix

DOSAGE = np.array([[0, 1, 2, -1], [2, 1, 0, 0], [1, 1, -1, 2]], dtype=np.int8)


def matrix(**changes: object) -> GenotypeMatrix:
    fields: dict[str, object] = {
        "dosage": DOSAGE,
        "sample_id": np.array(["a", "b", "c"]),
        "variants": make_variants(4),
        "source": {"path": "x.vcf"},
        "left_out": {"multiallelic": 3},
    }
    return GenotypeMatrix(**(fields | changes))  # type: ignore[arg-type]


def test_counts_samples_in_rows_and_variants_in_columns() -> None:
    genotypes = matrix()
    assert (genotypes.n_samples, genotypes.n_variants) == (3, 4)
    assert genotypes.name == "x.vcf"


def test_has_a_name_for_messages_without_a_source() -> None:
    assert matrix(source={}).name == "<genotypes in memory>"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dosage": DOSAGE[:2]}, r"x\.vcf: dosage has shape \(2, 4\), but there are 3 sample ids"),
        ({"dosage": DOSAGE[:, :3]}, r"shape \(3, 3\).* and 4 variants"),
        ({"dosage": DOSAGE.astype(np.int16)}, "must be int8, not int16"),
        ({"dosage": DOSAGE + (DOSAGE == 2)}, r"x\.vcf: sample 'a' has dosage 3 at variant 3; .* 2"),
        (
            {"dosage": np.where(DOSAGE < 0, np.int8(-9), DOSAGE)},
            "sample 'a' has dosage -9 at variant 4; .* -1 for",
        ),
        ({"variants": make_variants(4).drop(columns=["ref", "alt"])}, "no column ref, alt"),
        ({"sample_id": np.array(["a", "b", "a"])}, "sample id 'a' occurs more than once"),
        ({"family_id": np.array(["f", "g"])}, "2 family ids for 3 samples"),
    ],
)
def test_refuses_what_does_not_fit_together(changes: dict[str, object], message: str) -> None:
    with pytest.raises(GenotypeFileError, match=message):
        matrix(**changes)


def test_selects_samples_and_variants_by_mask() -> None:
    part = matrix().select(
        samples=np.array([True, False, True]), variants=np.array([False, True, True, False])
    )
    np.testing.assert_array_equal(part.dosage, [[1, 2], [1, -1]])
    assert part.sample_id.tolist() == ["a", "c"]
    assert part.variants["id"].tolist() == ["rs1", "rs2"]
    assert part.variants.index.tolist() == [0, 1]
    assert (part.source, part.left_out) == (matrix().source, matrix().left_out)


def test_selects_in_the_order_of_the_indices() -> None:
    part = matrix(family_id=np.array(["f", "g", "h"])).select(
        samples=np.array([2, 0]), variants=np.array([3, 0])
    )
    np.testing.assert_array_equal(part.dosage, [[2, 1], [-1, 0]])
    assert part.sample_id.tolist() == ["c", "a"]
    assert part.family_id is not None
    assert part.family_id.tolist() == ["h", "f"]
    assert part.variants["id"].tolist() == ["rs3", "rs0"]


def test_selecting_a_sample_twice_is_refused() -> None:
    with pytest.raises(GenotypeFileError, match="'b' occurs more than once"):
        matrix().select(samples=np.array([1, 1]))

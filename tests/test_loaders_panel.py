"""Label tables: every field kept as text, joined by sample id, and every bad input."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ancestry_ddvi.errors import LabelFileError
from ancestry_ddvi.loaders import LabelTable, label_levels, read_labels
from ancestry_ddvi.loaders.panel import ID_COLUMNS

PANEL = Path(__file__).parent.parent / "data" / "1kg_phase3.panel.tsv"

TABLE = "sample\tpop\tsuper_pop\nS1\tGBR\tEUR\nS2\tYRI\tAFR\nS3\tFIN\tEUR\n"


def write(folder: Path, text: str | bytes, name: str = "labels.tsv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def read(
    folder: Path,
    text: str | bytes,
    sample_id: list[str] | None = None,
    id_column: str | None = None,
) -> LabelTable:
    return read_labels(write(folder, text), sample_id or ["S1", "S2", "S3"], id_column)


def message_of(
    folder: Path,
    text: str | bytes,
    sample_id: list[str] | None = None,
    id_column: str | None = None,
) -> str:
    with pytest.raises(LabelFileError) as caught:
        read(folder, text, sample_id, id_column)
    message, start = str(caught.value), f"{folder / 'labels.tsv'}: "
    assert message.startswith(start)
    assert "\n" not in message
    return message.removeprefix(start)


def rows_of(labels: LabelTable) -> list[list[str | None]]:
    """The cells, with None for a missing one."""
    rows = labels.frame.itertuples(index=False)
    return [[None if pd.isna(cell) else cell for cell in row] for row in rows]


# Joining.


def test_takes_the_order_of_the_genotypes(tmp_path: Path) -> None:
    labels = read(tmp_path, TABLE, ["S3", "S1", "S2"])
    assert labels.frame.index.tolist() == ["S3", "S1", "S2"]
    assert labels.frame.columns.tolist() == ["pop", "super_pop"]
    assert rows_of(labels) == [["FIN", "EUR"], ["GBR", "EUR"], ["YRI", "AFR"]]
    assert (labels.missing, labels.extra) == ((), ())
    assert labels.path == str(tmp_path / "labels.tsv")


def test_reports_missing_and_extra_samples(tmp_path: Path) -> None:
    labels = read(tmp_path, TABLE, ["S9", "S2", "S8"])
    assert labels.missing == ("S9", "S8")
    assert labels.extra == ("S1", "S3")
    assert rows_of(labels) == [[None, None], ["YRI", "AFR"], [None, None]]


def test_real_panel() -> None:
    sample_id = [line.split("\t")[0] for line in PANEL.read_text().splitlines()[1:]]
    labels = read_labels(PANEL, np.array(sample_id[::-1]))
    assert labels.frame.shape == (2504, 3)
    assert (labels.missing, labels.extra) == ((), ())
    assert list(labels.frame.loc["HG00096"]) == ["GBR", "EUR", "male"]
    assert labels.frame["pop"].nunique() == 26
    assert label_levels(labels) == ("pop", "super_pop")


# Forms of the table.


@pytest.mark.parametrize(
    "text",
    [
        TABLE.replace("\t", ","),
        TABLE.replace("\t", ";"),
        TABLE.replace("\t", " "),
        TABLE.replace("\t", "   "),
        TABLE.replace("\n", " \n").replace("\t", " "),
        '"' + TABLE[:-1].replace("\t", '" "').replace("\n", '"\n"') + '"\n',
        "## made by hand\n##\n" + TABLE,
        TABLE.replace("\n", "\r\n"),
        TABLE.removesuffix("\n"),
        TABLE + "\n\n",
        "\ufeff" + TABLE,
        TABLE.replace("S1", '"S1"'),
        # The 1000 Genomes panel: the header ends with two tabs, the rows do not.
        TABLE.replace("super_pop\n", "super_pop\t\t\n"),
        TABLE.replace("\n", "\t\t\n"),
    ],
    ids=[
        "csv",
        "semicolons",
        "blanks",
        "many blanks",
        "blank at end",
        "R",
        "comments",
        "crlf",
        "no end",
        "blank lines",
        "bom",
        "quotes",
        "header tabs",
        "all tabs",
    ],
)
def test_same_table_in_another_form(tmp_path: Path, text: str) -> None:
    assert rows_of(read(tmp_path, text)) == rows_of(read(tmp_path, TABLE))
    assert read(tmp_path, text).frame.columns.tolist() == ["pop", "super_pop"]


def test_gzip(tmp_path: Path) -> None:
    assert rows_of(read(tmp_path, gzip.compress(TABLE.encode()))) == rows_of(read(tmp_path, TABLE))


def test_commas_inside_a_table_of_tabs(tmp_path: Path) -> None:
    labels = read(tmp_path, "sample\tpop, fine\nS1\tBritish, GB\nS2\t\n")
    assert labels.frame.columns.tolist() == ["pop, fine"]
    assert rows_of(labels)[:2] == [["British, GB"], [None]]


def test_quoted_comma(tmp_path: Path) -> None:
    labels = read(tmp_path, 'sample,pop\nS1,"British, GB"\n', ["S1"])
    assert rows_of(labels) == [["British, GB"]]


def test_fields_stay_the_text_they_are(tmp_path: Path) -> None:
    text = "id,pop,x\n001,NA,1\n1e5,nan,007\nNA,None,1.50\nTRUE,null,\n"
    labels = read(tmp_path, text, ["001", "1e5", "NA", "TRUE"])
    assert labels.missing == ()
    assert rows_of(labels) == [["NA", "1"], ["nan", "007"], ["None", "1.50"], ["null", None]]
    assert all(isinstance(dtype, pd.StringDtype) for dtype in labels.frame.dtypes)


cell = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=5)


@given(
    rows=st.dictionaries(
        cell.map(str.strip).filter(bool), st.tuples(cell, cell), min_size=1, max_size=6
    ),
    data=st.data(),
)
def test_any_table_comes_back(rows: dict[str, tuple[str, str]], data: st.DataObject) -> None:
    """Written by pandas, with its quoting; read in another order, without blanks at the ends."""
    sample_id = data.draw(st.permutations(list(rows)))
    separator = data.draw(st.sampled_from("\t,"))
    table = pd.DataFrame(list(rows.values()), columns=["a", "b"], index=pd.Index(rows, name="id"))
    with TemporaryDirectory() as folder:
        text = table.to_csv(sep=separator, lineterminator="\n")
        labels = read(Path(folder), text, sample_id)
    expected = [[value.strip() or None for value in rows[sample]] for sample in sample_id]
    assert rows_of(labels) == expected


# Tables as published: their own headers, a few lines each.

PANEL_2013 = """sample\tpop\tsuper_pop\tgender\t\t
HG00096\tGBR\tEUR\tmale
HG00097\tGBR\tEUR\tfemale
HG00171\tFIN\tEUR\tfemale
HG00173\tFIN\tEUR\tfemale
NA18486\tYRI\tAFR\tmale
NA18488\tYRI\tAFR\tfemale
"""

# 20130606_g1k_3202_samples_ped_population.txt
PEDIGREE_3202 = """FamilyID SampleID FatherID MotherID Sex Population Superpopulation
HG00096 HG00096 0 0 1 GBR EUR
HG00097 HG00097 0 0 2 GBR EUR
1328 NA06984 0 0 1 CEU EUR
1328 NA06989 0 0 2 CEU EUR
Y117 NA19238 0 0 2 YRI AFR
Y117 NA19239 0 0 1 YRI AFR
Y117 NA19240 NA19239 NA19238 2 YRI AFR
"""

# 1kGP.3202_samples.pedigree_info.txt
PEDIGREE_INFO = """sampleID fatherID motherID sex
HG00403 0 0 1
HG00404 0 0 2
HG00405 HG00403 HG00404 2
NA19238 0 0 2
NA19239 0 0 1
NA19240 NA19239 NA19238 2
"""

# integrated_call_samples_v2.20130502.ALL.ped
PED_2013 = """Family ID\tIndividual ID\tPaternal ID\tMaternal ID\tGender\tPhenotype\tPopulation\
\tRelationship\tSiblings\tSecond Order\tThird Order\tChildren\tOther Comments
HG00096\tHG00096\t0\t0\t1\t0\tGBR\tunrel\t0\t0\t0\t0\t0
HG00097\tHG00097\t0\t0\t2\t0\tGBR\tunrel\t0\t0\t0\t0\t0
Y117\tNA19238\t0\t0\t2\t0\tYRI\tmother\t0\t0\t0\t0\t0
Y117\tNA19239\t0\t0\t1\t0\tYRI\tfather\t0\t0\t0\t0\t0
1463\tNA12891\t0\t0\t1\t0\tCEU\tpat grandfather; father\t0\t0\t0\t0\t0
1463\tNA12892\t0\t0\t2\t0\tCEU\tpat grandmother; mother\t0\t0\t0\t0\t0
"""

IGSR = """Sample name\tSex\tBiosample ID\tPopulation code\tPopulation name\tSuperpopulation code\
\tSuperpopulation name\tPopulation elastic ID\tData collections
HG00096\tmale\tSAME123268\tGBR\tBritish\tEUR\tEuropean Ancestry\tGBR\t1000 Genomes,Geuvadis
HG00097\tfemale\tSAME123267\tGBR\tBritish\tEUR\tEuropean Ancestry\tGBR\t1000 Genomes
HG00171\tfemale\tSAME125007\tFIN\tFinnish\tEUR\tEuropean Ancestry\tFIN\t1000 Genomes
HG00173\tfemale\tSAME125010\tFIN\tFinnish\tEUR\tEuropean Ancestry\tFIN\t1000 Genomes
NA18486\tmale\tSAME123616\tYRI\tYoruba\tAFR\tAfrican Ancestry\tYRI\t1000 Genomes
NA18488\tfemale\tSAME123433\tYRI\tYoruba\tAFR\tAfrican Ancestry\tYRI\t1000 Genomes
"""

IGSR_HGDP = """HGDP00003\tmale\t\t\tBrahui\t\tCentral South Asia (HGDP)\tBrahuiHGDP\tHGDP
HGDP00005\tmale\t\t\tBrahui\t\tCentral South Asia (HGDP)\tBrahuiHGDP\tHGDP
"""

# gnomAD's HGDP + 1000 Genomes: the inferred group stands before the population that is known.
GNOMAD = """s\tproject_meta.sample_id\tproject_meta.sex\tpopulation_inference.PC1\
\tpopulation_inference.pop\thgdp_tgp_meta.Project\thgdp_tgp_meta.Study.region\
\thgdp_tgp_meta.Population\thgdp_tgp_meta.Genetic.region\thgdp_tgp_meta.Latitude
HG00096\tHG00096\tmale\t0.031\tnfe\t1000 Genomes\tEUR\tGBR\tEUR\t52.48
HG00097\tHG00097\tfemale\t0.032\tnfe\t1000 Genomes\tEUR\tGBR\tEUR\t52.48
HGDP00511\tHGDP00511\tmale\t0.031\tnfe\tHGDP\tEurope\tFrench\tEUR\t46.0
HGDP00512\tHGDP00512\tmale\t0.030\tnfe\tHGDP\tEurope\tFrench\tEUR\t46.0
HGDP00920\tHGDP00920\tmale\t-0.12\tafr\tHGDP\tAfrica\tYoruba\tAFR\t7.99
HGDP00924\tHGDP00924\tfemale\t-0.11\tafr\tHGDP\tAfrica\tYoruba\tAFR\t7.99
"""

PSAM = """#IID\tSEX\tSuperPop\tPopulation
HG00096\t1\tEUR\tGBR
HG00097\t2\tEUR\tGBR
HG00171\t2\tEUR\tFIN
HG00173\t2\tEUR\tFIN
NA18486\t1\tAFR\tYRI
NA18488\t2\tAFR\tYRI
"""

PSAM_FAMILIES = """#FID\tIID\tPAT\tMAT\tSEX\tPHENO1\tSuperPop\tPopulation
Y117\tNA19238\t0\t0\t2\tcase\tAFR\tYRI
Y117\tNA19239\t0\t0\t1\tcase\tAFR\tYRI
Y045\tNA19200\t0\t0\t1\tcase\tAFR\tYRI
1463\tNA12891\t0\t0\t1\tcontrol\tEUR\tCEU
1463\tNA12892\t0\t0\t2\tcontrol\tEUR\tCEU
BB01\tHG01879\t0\t0\t1\tcontrol\tAFR\tACB
BB01\tHG01880\t0\t0\t2\tcontrol\tAFR\tACB
"""


@pytest.mark.parametrize(
    ("text", "id_at", "expected"),
    [
        (PANEL_2013, 0, ("pop", "super_pop")),
        (PEDIGREE_3202, 1, ("Population", "Superpopulation")),
        (PEDIGREE_INFO, 0, (None, None)),
        (PED_2013, 1, ("Population", None)),
        (IGSR, 0, ("Population code", "Superpopulation code")),
        (IGSR + IGSR_HGDP, 0, ("Population name", "Superpopulation name")),
        (GNOMAD, 0, ("hgdp_tgp_meta.Population", "hgdp_tgp_meta.Genetic.region")),
        (PSAM, 0, ("Population", "SuperPop")),
        (PSAM_FAMILIES, 1, ("Population", "SuperPop")),
        (PSAM.replace("\t", " "), 0, ("Population", "SuperPop")),
        (PSAM.replace("\t", ";"), 0, ("Population", "SuperPop")),
    ],
    ids=[
        *("panel", "3202", "info", "ped", "igsr", "hgdp", "gnomad"),
        *("psam", "families", "blanks", "semicolons"),
    ],
)
def test_published_tables(
    tmp_path: Path, text: str, id_at: int, expected: tuple[str | None, str | None]
) -> None:
    separator = next(s for s in "\t; " if s in text.split("\n")[0])
    sample_id = [line.split(separator)[id_at] for line in text.splitlines()[1:]]
    assert all(sample[:2] in ("HG", "NA") for sample in sample_id)
    labels = read(tmp_path, text, sample_id)
    assert (labels.missing, labels.extra) == ((), ())
    assert label_levels(labels) == expected


def test_families_and_parents_are_labels_if_they_are_named(tmp_path: Path) -> None:
    sample_id = ["NA19238", "NA19239", "NA06984", "NA06989"]
    labels = read(tmp_path, PEDIGREE_3202, sample_id)
    assert label_levels(labels, population="FamilyID") == ("FamilyID", None)
    assert list(labels.frame["FamilyID"]) == ["Y117", "Y117", "1328", "1328"]


# The column of sample ids.


@pytest.mark.parametrize(
    "name", [*ID_COLUMNS, "SAMPLE_ID", "Sample ID", "sampleID", "#IID", "sample.name", " IID "]
)
def test_known_id_columns_anywhere(tmp_path: Path, name: str) -> None:
    labels = read(tmp_path, f"pop\t{name}\nGBR\tS1\nYRI\tS2\n", ["S2", "S1"])
    assert rows_of(labels) == [["YRI"], ["GBR"]]


def test_plink_family_id_is_a_label(tmp_path: Path) -> None:
    labels = read(tmp_path, "#FID\tIID\tpop\nF1\tS1\tGBR\n", ["S1"])
    assert labels.frame.columns.tolist() == ["#FID", "pop"]


def test_given_id_column_wins(tmp_path: Path) -> None:
    labels = read(tmp_path, "sample\tbarcode\nGBR\tS1\n", ["S1"], "barcode")
    assert labels.frame.columns.tolist() == ["sample"]
    assert rows_of(labels) == [["GBR"]]


def test_given_id_column_exact_case_first(tmp_path: Path) -> None:
    labels = read(tmp_path, "bc\tBC\nGBR\tS1\n", ["S1"], "BC")
    assert labels.frame.columns.tolist() == ["bc"]


# Bad input.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty (0 bytes)"),
        ("\n\n", "line 1 is empty"),
        ("sample\tpop\n", "has a header but no rows"),
        ("who\tpop\nS1\tGBR\n", "has no column of sample ids, only 'who', 'pop'"),
        ("S1 GBR\nS2 YRI\n", "has no column of sample ids, only 'S1', 'GBR' (columns are separ"),
        ("sample pop\nS1 Han Chinese\n", "line 2 has 3 fields, not 2 as the header"),
        ("## from the portal\n\nsample\tpop\n", "line 2 is empty"),
        ("## a\n## b\nsample\t\tpop\n", "line 3: column 2 has no name"),
        ("## a\nsample\tpop\nS1\n", "line 3 has 1 fields, not 2"),
        ("sample\nS1\n", "has no label column beside the id column 'sample'"),
        ("sample\t\tpop\nS1\tx\tGBR\n", "line 1: column 2 has no name"),
        ("sample\tpop\tpop\nS1\tx\tGBR\n", "line 1: two columns are named 'pop'"),
        ("sample\tpop\nS1\tGBR\nS2\n", "line 3 has 1 fields, not 2 as the header"),
        ("sample\tpop\nS1\tGBR\tx\nS2\tYRI\n", "line 2 has 3 fields, not 2 as the header"),
        ("sample\tpop\n\nS1\tGBR\tx\n", "line 3 has 3 fields"),
        ("sample\tpop\t\nS1\tGBR\tx\n", "line 2 has 3 fields, not 2"),
        ("sample\tpop\nS1\tGBR\n\tYRI\n", "line 3 has an empty sample id"),
        (TABLE + "S2\tLWK\tAFR\n", "lines 3 and 5 are both of sample 'S2', with different labels"),
        (TABLE + "S2\tYRI\tAFR\n", "lines 3 and 5 are both of sample 'S2', with identical labels"),
        ('sample,pop\n"S1,GBR\nS2,YRI\n', "line 3: unexpected end of data; correct the quotes"),
        ("##fileformat=VCFv4.2\n", "is a genotype file, not a table of labels"),
        (b"sample\tpop\nS1\tCh\xe9\n", "byte 16 of its text, b'\\xe9', is not UTF-8"),
        ("sample\tpop\n".encode("utf-16"), "byte 0 of its text, b'\\xff', is not UTF-8"),
    ],
)
def test_bad_table(tmp_path: Path, text: str | bytes, expected: str) -> None:
    assert expected in message_of(tmp_path, text)


def test_no_id_in_common(tmp_path: Path) -> None:
    message = message_of(tmp_path, TABLE, ["HG1", "HG2"])
    assert "no sample id in common with the genotypes" in message
    assert "column 'sample' has ids like 'S1', the genotypes like 'HG1'" in message
    assert "use the same ids" in message


def test_given_id_column_is_not_there(tmp_path: Path) -> None:
    message = message_of(tmp_path, TABLE, id_column="barcode")
    assert "has no column 'barcode', only 'sample', 'pop', 'super_pop'" in message


def test_missing_file_directory_and_damaged_gzip(tmp_path: Path) -> None:
    cases = {
        tmp_path / "absent.tsv": "no such file",
        tmp_path: "is a directory",
        write(tmp_path, gzip.compress(TABLE.encode())[:-9], "cut.gz"): "cut off",
    }
    for path, expected in cases.items():
        with pytest.raises(LabelFileError, match=expected):
            read_labels(path, ["S1"])


# Levels.


def levels(
    named: dict[str, str] | None = None, **columns: Sequence[str | None]
) -> tuple[str | None, str | None]:
    frame = pd.DataFrame(columns, dtype="str")
    return label_levels(LabelTable(frame, (), (), "labels.tsv", ""), **(named or {}))


FINE = ["gb", "gb", "fi", "fi", "yo", "yo", "lu", "lu"]
COARSE = ["eu", "eu", "eu", "eu", "af", "af", "af", "af"]
SEX = ["m", "f", "m", "f", "m", "f", "m", "f"]
CROSSING = ["x", "y", "x", "y", "x", "y", "x", "y"]
NUMBERS = ["1", "1", "2", "2", "3", "3", "4", "4"]
UNIQUE = list("abcdefgh")


def test_levels_by_known_names() -> None:
    assert levels(x=FINE, super_pop=COARSE, pop=FINE) == ("pop", "super_pop")
    assert levels(Region=COARSE, Population=FINE) == ("Population", "Region")
    igsr = {"Population code": FINE, "Superpopulation code": COARSE}
    assert levels(**igsr) == ("Population code", "Superpopulation code")


def test_levels_by_their_values() -> None:
    assert levels(area=COARSE, people=FINE, name=UNIQUE) == ("people", "area")
    assert levels(pop=FINE, area=COARSE) == ("pop", "area")
    assert levels(people=FINE, continent=COARSE) == ("people", "continent")


def test_a_known_name_wins_over_a_column_of_another_name() -> None:
    assert levels(region=COARSE, batch=CROSSING) == ("region", None)
    assert levels(batch=[*FINE[1:], "gb"], super_pop=COARSE) == ("super_pop", None)
    assert levels(pop=FINE, batch=CROSSING) == ("pop", None)


def test_a_level_has_values_that_repeat() -> None:
    assert levels(pop=UNIQUE) == (None, None)
    assert levels(pop=UNIQUE, region=COARSE) == ("region", None)


def test_named_columns_are_taken() -> None:
    columns = {"pop": FINE, "batch": CROSSING, "region": COARSE, "plate": NUMBERS}
    assert levels({"population": "batch"}, **columns) == ("batch", None)
    assert levels({"population": "plate"}, **columns) == ("plate", "region")
    assert levels({"superpopulation": "batch"}, **columns) == ("pop", "batch")
    both = {"population": "region", "superpopulation": "batch"}
    assert levels(both, **columns) == ("region", "batch")
    with pytest.raises(
        LabelFileError, match=r"labels.tsv: line 1: no label column 'x', only 'pop'"
    ):
        levels({"population": "x"}, **columns)


def test_blanks_around_fields_are_no_part_of_them(tmp_path: Path) -> None:
    labels = read(tmp_path, "sample,pop\nS1 ,GBR\n S2,GBR \nS3,  \n")
    assert rows_of(labels) == [["GBR"], ["GBR"], [None]]
    assert not labels.missing


def test_a_coarse_level_must_not_cross_the_fine_one() -> None:
    assert levels(pop=FINE, super_pop=CROSSING) == ("pop", None)
    assert levels(people=FINE, batch=CROSSING) == ("people", None)


def test_the_same_split_twice_is_no_coarse_level() -> None:
    assert levels(pop=FINE, region=[value.upper() for value in FINE]) == ("pop", None)


def test_a_single_level_is_the_fine_one() -> None:
    assert levels(area=COARSE, name=UNIQUE) == ("area", None)
    assert levels(super_pop=COARSE) == ("super_pop", None)


def test_sex_numbers_names_and_constants_are_no_levels() -> None:
    assert levels(gender=SEX, sex=SEX, reported_sex=SEX) == (None, None)
    assert levels(plate=NUMBERS, name=UNIQUE, study=["one"] * 8) == (None, None)
    assert levels(pop=FINE, gender=COARSE) == ("pop", None)
    assert levels(pop=["one"] * 8, area=COARSE) == ("area", None)


def test_a_number_is_a_level_if_it_is_called_one() -> None:
    assert levels(pop=NUMBERS) == ("pop", None)


def test_of_two_known_names_the_one_that_misses_fewest() -> None:
    holes = [None, None, *FINE[2:]]
    assert levels(pop=holes, Population=FINE, super_pop=COARSE) == ("Population", "super_pop")
    assert levels(pop=FINE, Population=FINE) == ("pop", None)


def test_a_name_behind_a_prefix() -> None:
    dotted = {"x.pop": COARSE, "y.population": FINE, "y.region": COARSE}
    assert levels(**dotted) == ("y.population", "y.region")
    assert levels(pop=FINE, **{"x.pop": COARSE}) == ("pop", "x.pop")
    # R writes `super pop` so.
    assert levels(**{"super.pop": COARSE, "pop": FINE}) == ("pop", "super.pop")


def test_levels_pass_over_missing_labels() -> None:
    fine = [*FINE, None, "gb"]
    coarse = [*COARSE, "eu", None]
    assert levels(pop=fine, super_pop=coarse) == ("pop", "super_pop")

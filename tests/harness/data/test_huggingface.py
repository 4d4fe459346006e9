"""Data sets of the library `datasets`: from files written here, and from a hub that does not answer."""

import csv
import io
import json
import socket
import time
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import huggingface
from harness.data.huggingface import Source
from rambo.datasets.huggingface import HuggingFaceImages
from rambo.datasets.transforms import CentreCrop
from rambo.sampling import ClassBalancedBatches
from ranksim.datasets.huggingface import HuggingFaceTable
from ranksim.datasets.transforms import Resize

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()

CLASSES = ("ant", "bee", "cat", "dog")
labelled = partial(
    HuggingFaceImages,
    sampler=partial(ClassBalancedBatches, batch_size=4, samples_per_class=2),
    train_transform=CentreCrop(8, 8),
    test_transform=CentreCrop(8, 8),
)


def gray(value):
    return Image.fromarray(np.full((9, 9, 3), value, np.uint8))


def images(values=range(8), **columns):
    """A data set with an image of one gray for each of these values, and further columns."""
    kinds = {"image": datasets.Image(), **{name: kind for name, (kind, _) in columns.items()}}
    held = {"image": [gray(10 * value) for value in values], **{name: held for name, (_, held) in columns.items()}}
    return datasets.Dataset.from_dict(held, features=datasets.Features(kinds))


def with_labels(names=CLASSES):
    return images(
        range(4 * len(names)), label=(datasets.ClassLabel(names=list(names)), [i // 4 for i in range(4 * len(names))])
    )


def told(data):
    return {part: records.class_names_here() for part, records in data.parts.items()}


def classes_of(data):
    return sorted(name for names in told(data).values() for name in names)


def test_images_with_named_classes_come_from_parquet(tmp_path):
    with_labels().to_parquet(tmp_path / "own" / "train-00000-of-00001.parquet")
    data = labelled(tmp_path / "copies", name=str(tmp_path / "own"))
    assert classes_of(data) == list(CLASSES)
    for records in data.parts.values():
        for row, label in enumerate(records.labels.tolist()):
            value = int(records.load(row)[0, 0, 0]) // 10
            assert records.class_names[label] == CLASSES[value // 4]
            assert (records.load(row) == 10 * value).all()
    assert data.describe()["source"] == {"name": str(tmp_path / "own"), "parts": True}
    assert next(iter(data.train))["image"].shape == (4, 3, 8, 8)


def test_the_copy_is_made_once_and_anew_when_a_file_changes(tmp_path, monkeypatch):
    file = tmp_path / "own.parquet"
    with_labels().to_parquet(file)
    monkeypatch.chdir(tmp_path)
    first = labelled("copies", name=str(file))
    with monkeypatch.context() as without:
        without.setattr(datasets, "load_dataset", None)
        assert labelled(tmp_path / "copies", name=str(file)).fingerprint == first.fingerprint
    with_labels(CLASSES[::-1]).to_parquet(file)
    assert labelled(tmp_path / "copies", name=str(file)).fingerprint != first.fingerprint
    folders = [path for path in (tmp_path / "copies").iterdir() if path.is_dir()]
    assert len(folders) == 2
    assert all({path.name for path in folder.iterdir()} == {"images", "table.csv", "source.json"} for folder in folders)


def test_splits_are_parts_or_pooled(tmp_path):
    whole = datasets.DatasetDict(train=with_labels(), test=with_labels())
    whole.save_to_disk(str(tmp_path / "arrow"))
    opened = partial(labelled, tmp_path / "copies", name=str(tmp_path / "arrow"))
    with pytest.raises(ValueError, match=r"class 'ant' is in .* set data.split=closed"):
        opened()
    closed = opened(split="closed")
    assert told(closed) == {"train": list(CLASSES), "test": list(CLASSES)}
    assert {part: len(records) for part, records in closed.parts.items()} == {"train": 16, "test": 16}
    assert sum(map(len, opened(parts=False).parts.values())) == 32
    assert sum(map(len, opened(splits=["test"]).parts.values())) == 16
    with pytest.raises(ValueError, match=r"has no split 'tests'; its splits are train, test"):
        opened(splits=["tests"])


def test_plain_parquet_of_pandas_and_other_columns(tmp_path):
    pandas = pytest.importorskip("pandas")

    def encoded(value):
        stream = io.BytesIO()
        gray(value).save(stream, "PNG")
        return stream.getvalue()

    rows = [(encoded(i), f"kind {i // 2}", i // 4, i % 3) for i in range(8)]
    frame = pandas.DataFrame(rows, columns=["photo", "kind", "family", "subset"])
    frame.to_parquet(tmp_path / "own.parquet")
    options = {"image": "photo", "label": "kind", "super_label": "family"}
    data = labelled(tmp_path / "copies", name=str(tmp_path / "own.parquet"), **options)
    assert classes_of(data) == [f"kind {i}" for i in range(4)]
    assert data.parts["train"].super_labels is not None
    seen = labelled(tmp_path / "copies", name=str(tmp_path / "own.parquet"), **options, camera_column="subset")
    places = [int(name.split("/")[-1].split(".")[0]) for name in seen.parts["test"].names]
    assert seen.parts["test"].cameras.tolist() == [place % 3 for place in places]
    for wrong, says in (
        ({"label": "sort"}, r"no column 'sort'; its columns are photo, kind, family, subset"),
        ({"image": "family"}, r"the column 'family' holds no images but Value\('int64'\)|no image that can be read"),
    ):
        with pytest.raises(ValueError, match=says):
            labelled(tmp_path / "copies", name=str(tmp_path / "own.parquet"), **{**options, **wrong})
    assert not [path for path in (tmp_path / "copies").iterdir() if path.name.startswith(".") and path.is_dir()]


def test_images_with_a_target(tmp_path):
    ages = [20.0 + i % 20 for i in range(60)]
    images([i % 25 for i in range(60)], age=(datasets.Value("float32"), ages)).to_parquet(tmp_path / "own.parquet")
    data = HuggingFaceTable(
        tmp_path / "copies", name=str(tmp_path / "own.parquet"), image="image", target="age", bins=5,
        train_transform=Resize(8), test_transform=Resize(8), batch_size=8,
    )  # fmt: skip
    expected = {f"images/train/{i:07d}.png": (age, 10 * (i % 25)) for i, age in enumerate(ages)}
    for samples in data.parts.values():
        for row, name in enumerate(samples.names):
            assert (float(samples.targets[row]), int(samples.load(row)[0, 0, 0])) == expected[name]


def test_numbers_with_a_target_and_named_parts(tmp_path):
    def part(rows, shift):
        return datasets.Dataset.from_dict(
            {"area": [float(i + shift) for i in range(rows)], "rooms": [i % 5 for i in range(rows)],
             "name": [f"house {i}" for i in range(rows)], "price": [2.5 * i for i in range(rows)]}
        )  # fmt: skip

    whole = {"train": part(30, 0), "validation": part(10, 0.5), "test": part(10, 0.25)}
    datasets.DatasetDict(whole).save_to_disk(str(tmp_path / "own"))
    data = HuggingFaceTable(tmp_path / "copies", name=str(tmp_path / "own"), target="price", bins=5)
    assert {part: len(samples) for part, samples in data.parts.items()} == {"train": 30, "validation": 10, "test": 10}
    assert data.features == ["area", "rooms"]
    assert data.passed_over == ["name"]
    assert data.standardised["area"]["mean"] == pytest.approx(14.5)
    assert torch.equal(data.parts["test"].targets, 2.5 * torch.arange(10))
    (table,) = (tmp_path / "copies").glob("*/table.csv")
    with table.open(newline="") as file:
        assert next(csv.reader(file)) == ["area", "rooms", "name", "price", "split"]
    assert json.loads((table.parent / "source.json").read_text())["rows"] == 50


def test_a_hub_that_does_not_answer_is_told_in_a_sentence(tmp_path, monkeypatch):
    """Whether it refuses or keeps silent; how long it may is `PATIENCE`."""
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as silent, monkeypatch.context() as changed:
        changed.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        changed.setattr(huggingface, "PATIENCE", 0.2)
        began = time.monotonic()
        with pytest.raises(
            ConnectionError, match=r"no folder user/birds, and the Hugging Face hub did not answer"
        ) as one:
            Source("user/birds").exported(tmp_path, "image")
        assert time.monotonic() - began < 10  # of the 20 s that are promised, with PATIENCE what it is
    assert "\n" not in str(one.value)
    with monkeypatch.context() as changed:
        changed.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(ConnectionError, match=r"set data.name to a folder of parquet or arrow files"):
            Source("user/birds").exported(tmp_path, "image")
    with pytest.raises(ValueError, match=r"no data set of that name .* check data.name"):
        Source("birds/of/prey").exported(tmp_path, "image")
    with pytest.raises(ValueError, match=r"data.name is not set"):
        labelled(tmp_path)


def test_without_the_library_it_says_what_to_install(tmp_path, monkeypatch):
    import sys

    (tmp_path / "own").mkdir()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .blackbox-ranking\[huggingface\]"):
        Source(str(tmp_path / "own")).exported(tmp_path / "copies", "image")


def test_bad_images_are_left_out_if_asked(tmp_path):
    held = with_labels().cast_column("image", datasets.Image(decode=False)).to_list()
    held[1]["image"], held[6]["image"] = {"bytes": b"no picture", "path": None}, None
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    datasets.Dataset.from_list(held, features=kinds).to_parquet(tmp_path / "own.parquet")
    drawn = partial(labelled, tmp_path / "copies", name=str(tmp_path / "own.parquet"), split="closed")
    with pytest.raises(ValueError, match=r"row 2 of train has no image .* or set data.on_bad_image=skip"):
        drawn()
    left_out = drawn(on_bad_image="skip").describe()["left_out"]
    assert sorted(one["image"] for one in left_out["which"]) == [f"images/train/000000{n}.bad" for n in (1, 6)]


def test_columns_of_lists_and_columns_named_twice_are_refused(tmp_path):
    lists = images(label=(datasets.Sequence(datasets.Value("string")), [["ant", "bee"]] * 8))
    lists.to_parquet(tmp_path / "own.parquet")
    drawn = partial(labelled, tmp_path / "copies", name=str(tmp_path / "own.parquet"), split="closed")
    with pytest.raises(ValueError, match=r"the column 'label' holds neither texts nor numbers but .* 'dog;beach'"):
        drawn(label_separator=";")
    with pytest.raises(ValueError, match=r"must name different columns, got label, label"):
        drawn(camera_column="label")

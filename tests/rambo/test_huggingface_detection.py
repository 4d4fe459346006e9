"""Objects of the library `datasets`: the same numbers as from COCO's files, other layouts, and what is refused."""

import json
from functools import partial

import pytest
import torch

from rambo.detection.coco import COCOStyle
from rambo.detection.fixture import SHAPES, write_coco
from rambo.detection.huggingface import HuggingFaceDetection
from rambo.detection.rendering import Look
from rambo.detection.transforms import Resize

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()

LOOK = Look(width=61, height=48, radius=(0.15, 0.3))
SETS = {"train": 7, "test": 5}
COCO_SETS = {part: [[part, f"annotations/{part}.json"]] for part in SETS}
common = {"test_transform": Resize(96, 1000), "batch_size": 3}
TO = {
    "coco": lambda box: box,
    "corners": lambda box: [box[0], box[1], box[0] + box[2], box[1] + box[3]],
    "voc": lambda box: [box[0] + 1, box[1] + 1, box[0] + box[2], box[1] + box[3]],
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes")
    write_coco(root, SETS, SHAPES, LOOK)
    return root


def rows_of(scenes, part, box_format="coco"):
    """Image, and boxes, classes from 0 and marks of each scene."""
    said = json.loads((scenes / "annotations" / f"{part}.json").read_text())
    for image in said["images"]:
        objects = [one for one in said["annotations"] if one["image_id"] == image["id"]]
        boxes = [[float(n) for n in TO[box_format](one["bbox"])] for one in objects]
        kinds, marks = [one["category_id"] - 1 for one in objects], [one["iscrowd"] for one in objects]
        yield str(scenes / part / image["file_name"]), boxes, kinds, marks


def features(kind, lists=True):
    one = {"bbox": [datasets.Value("float32")], "category": kind, "iscrowd": datasets.Value("int64")}
    objects = {key: [inner] for key, inner in one.items()} if lists else [one]
    return datasets.Features({"image": datasets.Image(), "objects": objects})


def written(scenes, place, box_format="coco", kind=None, lists=True, change=lambda rows: rows, called=lambda k: k):
    """The scenes as parquet files, a split each, in a folder of `place`; its path."""
    place = place / "own"
    place.mkdir(parents=True)
    kind = kind or datasets.ClassLabel(names=list(SHAPES))
    for part in SETS:
        rows = []
        for path, boxes, kinds, marks in rows_of(scenes, part, box_format):
            objects = {"bbox": boxes, "category": [called(k) for k in kinds], "iscrowd": marks}
            if not lists:
                objects = [dict(zip(objects, values, strict=True)) for values in zip(*objects.values(), strict=True)]
            rows.append({"image": path, "objects": objects})
        held = datasets.Dataset.from_list(change(rows), features=features(kind, lists))
        held.to_parquet(place / f"{part}-00000-of-00001.parquet")
    return str(place)


def opened(copies, name, **options):
    return HuggingFaceDetection(copies, name=name, **{"difficult": "iscrowd", **common, **options})


def told(data):
    """What is known of each image, without what its file is called."""
    return {
        part: [{k: v.tolist() for k, v in one.items()} for one in rows.objects] for part, rows in data.parts.items()
    }


@pytest.mark.parametrize("box_format", list(TO))
@pytest.mark.parametrize("lists", [True, False])
def test_the_same_scenes_give_the_same_objects_as_cocos_files(scenes, tmp_path, box_format, lists):
    data = opened(tmp_path / "copies", written(scenes, tmp_path, box_format, lists=lists), box_format=box_format)
    coco = COCOStyle(scenes, **common, **COCO_SETS)
    assert data.classes == coco.classes == list(SHAPES)
    assert told(data) == told(coco)
    assert any(one["difficult"].any() for one in data.parts["test"].objects)
    for part in SETS:
        for place in range(SETS[part]):
            assert torch.equal(data.parts[part].load(place), coco.parts[part].load(place))
    batch, other = next(iter(data.evaluation["test"])), next(iter(coco.evaluation["test"]))
    assert all(map(torch.equal, batch["images"], other["images"]))
    assert data.describe()["source"] == {"name": str(tmp_path / "own"), "splits": ["test", "train"], "parts": True}
    assert data.describe()["image_sets"] == {"train": [["", "train"]], "test": [["", "test"]]}


def test_classes_may_be_texts_or_numbers_and_objects_columns(scenes, tmp_path):
    (tmp_path / "columns").mkdir()
    texts = written(scenes, tmp_path / "texts", kind=datasets.Value("string"), called=list(SHAPES).__getitem__)
    data = opened(tmp_path / "copies", texts)
    assert data.classes == sorted(SHAPES)
    numbers = written(scenes, tmp_path / "numbers", kind=datasets.Value("int64"), called=lambda k: 10 - k)
    assert opened(tmp_path / "copies", numbers).classes == ["7", "8", "9", "10"]
    for part in SETS:
        named = [(path, boxes, [list(SHAPES)[k] for k in kinds]) for path, boxes, kinds, _ in rows_of(scenes, part)]
        columns = dict(zip(("photo", "boxes", "kinds"), map(list, zip(*named, strict=True)), strict=True))
        held = datasets.Dataset.from_dict(columns).cast_column("photo", datasets.Image())
        held.to_parquet(tmp_path / "columns" / f"{part}.parquet")
    keys = {"image": "photo", "objects": None, "bbox": "boxes", "category": "kinds", "difficult": None}
    flat = opened(tmp_path / "copies", str(tmp_path / "columns"), **keys)
    assert [one["boxes"] for one in told(flat)["train"]] == [one["boxes"] for one in told(data)["train"]]
    assert not any(one["difficult"].any() for one in flat.parts["test"].objects)


def test_a_test_may_be_drawn_from_the_only_split(scenes, tmp_path):
    name = written(scenes, tmp_path)
    (tmp_path / "own" / "test-00000-of-00001.parquet").unlink()
    drawn = partial(opened, tmp_path / "copies", name)
    with pytest.raises(ValueError, match=r"has no split 'test'; its splits are train"):
        drawn()
    data = drawn(test_fraction=0.3, difficult=None)
    train, test = (set(data.parts[part].names) for part in ("train", "test"))
    assert (len(train), len(test), train & test) == (5, 2, set())
    assert drawn(test_fraction=0.3, difficult=None, seed=1).fingerprint == data.fingerprint
    assert data.describe()["image_sets"] == {"train": [["the rest of", "train"]], "test": [["held out of", "train"]]}


def test_a_copy_is_made_once_and_another_for_other_settings(scenes, tmp_path, monkeypatch):
    name = written(scenes, tmp_path)
    first = opened(tmp_path / "copies", name)
    with monkeypatch.context() as without:
        without.setattr(datasets, "load_dataset", None)
        assert opened(tmp_path / "copies", name).fingerprint == first.fingerprint
    assert told(opened(tmp_path / "copies", name, difficult=None)) != told(first)
    assert len([path for path in (tmp_path / "copies").iterdir() if path.is_dir()]) == 2


def changed(**values):
    def change(rows):
        rows[0]["objects"] = {**rows[0]["objects"], **values}
        return rows

    return change


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ({}, {"image": "photo"}, "has no column 'photo'; its columns are image, objects"),
        ({}, {"objects": "things"}, "has no column 'things'"),
        ({}, {"bbox": "box"}, "row 1 of .* has objects without 'box' but with bbox, category, iscrowd; name the keys"),
        ({}, {"category": "label"}, "objects of the column 'objects' have no 'label' but bbox, category, iscrowd"),
        ({}, {"difficult": "ignore"}, "has objects without 'ignore'"),
        ({"bbox": [[1, 2, 3]], "category": [0], "iscrowd": [0]}, {}, r"row 1 of test has the box \[1.0, 2.0, 3.0\]"),
        ({"bbox": [[1, 2, 3, 4]], "category": [0, 1], "iscrowd": [0]}, {}, "has 1 bbox, 2 category, 1 iscrowd; each"),
        ({"bbox": [[1, 2, 3, 4]], "category": [-1], "iscrowd": [0]}, {}, "of the class -1, which is none .there are 4"),
        ({"bbox": [[1, 2, 3, 4]], "category": [0], "iscrowd": [2]}, {}, "must have 0 or 1 for iscrowd, got 2"),
        ({"bbox": [[1, 2, 0, 4]], "category": [0], "iscrowd": [0]}, {}, "is empty or too small; correct it, or set"),
        ({}, {"box_format": "yolo"}, "box_format must be one of coco, corners, voc, got 'yolo'"),
        ({}, {"test_fraction": 1.5}, "test_fraction must be between 0 and 1, or null, got 1.5"),
        ({}, {"test_fraction": 0.5, "test": ["test"]}, "data.test names splits, and data.test_fraction draws"),
        ({}, {"train": [["a", "train"]]}, "data.train names splits of the data set, such as .train., got"),
        ({}, {"train": ["training"]}, "has no split 'training'; its splits are"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_in_a_sentence(scenes, tmp_path, values, options, message):
    name = written(scenes, tmp_path, change=changed(**values))
    with pytest.raises(ValueError, match=message) as caught:
        opened(tmp_path / "copies", name, **options)
    assert "\n" not in str(caught.value)


def test_bad_images_are_left_out_if_asked(scenes, tmp_path):
    def change(rows):
        rows[0]["image"] = {"bytes": b"no picture", "path": None}
        rows[1]["image"] = None
        return rows

    drawn = partial(opened, tmp_path / "copies", written(scenes, tmp_path, change=change))
    with pytest.raises(ValueError, match=r"row 1 of .* \(it is none, or damaged\); leave it .* data.on_bad_image=skip"):
        drawn()
    data = drawn(on_bad_image="skip")
    assert {part: len(rows) for part, rows in data.parts.items()} == {part: n - 2 for part, n in SETS.items()}
    assert {one["image"] for one in data.describe()["left_out"]["which"]} == {
        f"images/{part}/000000{n}.bad" for part in SETS for n in (0, 1)
    }


def test_a_detector_is_trained_on_it_and_measured(scenes, tmp_path, runs_of):
    name = written(scenes, tmp_path)
    run = runs_of(
        "demo_detection", "data=huggingface_detection", "data.fixture=false", f"data.name={name}", "data.batch_size=4",
        "data.on_bad_image=skip", "data.worker_timeout=60",
    )  # fmt: skip
    report = json.loads((run / "report.json").read_text())
    assert 0 <= report["results"]["last"]["metrics"]["test/coco_ap"] <= 1
    assert (report["data"]["train"]["images"], report["data"]["left_out"]["images"]) == (7, 0)
    assert json.loads((run / "model" / "model.json").read_text())["classes"] == list(SHAPES)

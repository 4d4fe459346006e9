"""Data as COCO and YOLO keep them: pixel conventions, what is refused, and the same numbers as from VOC's XML."""

import json
from functools import partial

import pytest
import torch
from torch import nn

from rambo.detection.coco import COCOStyle
from rambo.detection.fixture import SHAPES, write_coco, write_sets, write_yolo
from rambo.detection.metrics import DetectionMetrics
from rambo.detection.rendering import Look
from rambo.detection.transforms import Resize
from rambo.detection.voc import VOCStyle
from rambo.detection.yolo import YOLOStyle

LOOK = Look(width=61, height=48, radius=(0.15, 0.3))
SETS = {"train": 7, "test": 5}
COCO_SETS = {part: [[part, f"annotations/{part}.json"]] for part in SETS}
common = {"test_transform": Resize(96, 1000), "batch_size": 3}
coco = partial(COCOStyle, **common, **COCO_SETS)
yolo = partial(YOLOStyle, **common)


def written_coco(root, edit=lambda said: None, part="train"):
    """The scenes, with the JSON of one part changed."""
    write_coco(root, SETS, SHAPES, LOOK)
    path = root / "annotations" / f"{part}.json"
    said = json.loads(path.read_text())
    edit(said)
    path.write_text(json.dumps(said))
    return root


def written_yolo(root, line=None, names=None):
    """The scenes, with another first line of boxes in the first picture, or other text in data.yaml."""
    write_yolo(root, SETS, SHAPES, LOOK)
    if line is not None:
        (root / "labels/train/000001.txt").write_text(f"{line}\n")
    if names is not None:
        (root / "data.yaml").write_text(f"train: images/train\ntest: images/test\n{names}\n")
    return root


def refused(open_, root, message, kind=ValueError, **settings):
    with pytest.raises(kind, match=message) as caught:
        open_(root, **settings)
    assert "\n" not in str(caught.value)


class Nearly(nn.Module):
    """Detects every target a little beside its place, as the second class now and then."""

    def forward(self, batch):
        found = []
        for target, scale in zip(batch["targets"], batch["scales"], strict=True):
            boxes = target["boxes"] / scale.repeat(2) + torch.tensor([1.0, 0.5, 2.0, 1.5])
            labels = torch.where(torch.arange(len(boxes)) % 3 == 2, 2, target["labels"])
            found.append({"boxes": boxes, "scores": 1 / (2 + boxes[:, 0]), "labels": labels})
        return found


def seen(data):
    """Everything that training and evaluation get from data."""
    batches = []
    for epoch in range(3):
        data.train.set_epoch(epoch)
        batches += list(data.train)
    return [*batches, *data.evaluation["test"]], DetectionMetrics(draws=20)(Nearly(), data.evaluation["test"])


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other)


def test_the_same_scenes_give_the_same_bits_from_all_layouts(tmp_path):
    write_sets(tmp_path / "voc", SETS, SHAPES, LOOK)
    voc = partial(VOCStyle, tmp_path / "voc", train=["train"], test=["test"], **common)
    whole = voc()
    marked = coco(written_coco(tmp_path / "coco"))
    (batches, numbers), (others, theirs) = seen(whole), seen(marked)
    assert equal(batches, others)
    assert numbers == theirs
    assert 0.01 < numbers["coco_ap"] < 0.99
    assert any(truth["difficult"].any() for truth in marked.parts["test"].objects)  # crowds

    for path in (tmp_path / "voc/Annotations").iterdir():  # YOLO has no such marks
        path.write_text(path.read_text().replace("<difficult>1", "<difficult>0"))
    whole, plain = voc(), yolo(written_yolo(tmp_path / "yolo"))
    (batches, numbers), (others, theirs) = seen(whole), seen(plain)
    assert equal(batches, others)
    assert numbers == theirs
    for part in SETS:
        assert plain.describe()[part] == whole.describe()[part]  # nothing was cut by rounding


def test_a_box_is_where_its_pixels_are(tmp_path):
    """x, y, width, height from the upper left corner; centre and sides as shares."""
    box = [10.5, 11, 20.25, 30]
    data = coco(written_coco(tmp_path / "coco", lambda said: said["annotations"][0].update(bbox=box)))
    assert data.parts["train"].objects[0]["boxes"][0].tolist() == [10.5, 11, 30.75, 41]
    data = yolo(written_yolo(tmp_path / "yolo", f"1 {(10 + 40) / 2 / 61} {(12 + 36) / 2 / 48} {30 / 61} 0.5"))
    assert data.parts["train"].objects[0]["boxes"].tolist() == [[10, 12, 40, 36]]
    rounded = yolo(written_yolo(tmp_path / "yolo", "1 0.409836 0.5 0.491803 1.0000004"))  # as tools write it
    box = rounded.parts["train"].objects[0]["boxes"][0]
    torch.testing.assert_close(box, torch.tensor([10.0, 0, 40, 48]), atol=1e-4, rtol=0)
    assert rounded.describe()["train"]["boxes_cut_at_the_border"] == 0


def test_classes_are_those_of_the_files_in_their_order(tmp_path):
    def turned(said):
        said["categories"] = [{"id": 90, "name": "background"}, *said["categories"][::-1]]

    data = coco(written_coco(tmp_path / "coco", turned))
    assert data.classes == [*SHAPES][::-1]  # one without an object is none
    data = yolo(written_yolo(tmp_path / "yolo", names="names: [square, circle, zebra, ant]\nnc: 4"))
    assert data.classes == ["square", "circle", "zebra", "ant"]
    data = yolo(tmp_path / "yolo", classes=["ant", "circle"], other_classes="drop")
    assert data.parts["train"].counts().keys() == {"ant", "circle"}
    assert data.for_use({})["classes"] == ["ant", "circle"]


@pytest.mark.parametrize("mark", ["iscrowd", "ignore", "difficult"])
def test_marks_make_an_object_difficult(tmp_path, mark):
    data = coco(written_coco(tmp_path, lambda said: said["annotations"][0].update({"iscrowd": 0, mark: 1})))
    assert bool(data.parts["train"].objects[0]["difficult"][0])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.pop("images"), r"train.json has no list of images"),
        (lambda s: s["images"].clear(), r"train.json lists no image"),
        (lambda s: s["images"][1].pop("file_name"), r"train.json: images\[1\] has nothing for file_name where a name"),
        (lambda s: s["images"][1].update(id=1), r"images\[1\] has the id 1, and so has 000001.jpg"),
        (lambda s: s["images"][1].update(file_name="000001.jpg"), "train.json lists 000001.jpg twice"),
        (lambda s: s["images"][0].update(width=60), "is for an image of 60 x 48 .*, but 000001.jpg has 61 x 48"),
        (lambda s: s["categories"][0].update(name=3), r"categories\[0\] has 3 for name where a name should stand"),
        (lambda s: s["annotations"].insert(0, 5), r"annotations\[0\] should be an object in braces, got 5"),
        (lambda s: s["annotations"][1].update(image_id=99), r"\[1\] is of 99, which is not among the images"),
        (lambda s: s["annotations"][1].update(category_id=9), r"\[1\] is of 9, which is not among the categories"),
        (lambda s: s["annotations"][1].pop("bbox"), r"annotations\[1\] has nothing for bbox where a list"),
        (lambda s: s["annotations"][0].update(bbox=[1, 2, 3]), r"\[0\], '\w+', has the bbox \[1, 2, 3\] where \[x, y,"),
        (lambda s: s["annotations"][0].update(bbox=[1, 2, 3, "4"]), "where .x, y, width, height. should stand"),
        (lambda s: s["annotations"][0].update(bbox=[1, 2, 0, 4]), r"\[0\]: the box of .*\(1, 2\) to \(1, 6\) is empty"),
        (lambda s: s["annotations"][0].update(bbox=[61, 2, 5, 4]), "lies outside the image of 61 x 48; correct it, or"),
        (lambda s: s["annotations"][0].update(iscrowd="no"), r"must have 0 or 1 for iscrowd, got no"),
    ],
)  # fmt: skip
def test_faults_of_a_json_file_are_named(tmp_path, edit, message):
    refused(coco, written_coco(tmp_path, edit), message)


def test_what_is_no_json_and_what_is_missing_are_named(tmp_path):
    root = written_coco(tmp_path)
    (root / "train/000002.jpg").unlink()
    refused(coco, root, r"1 of 7 images of annotations/train.json are missing \(000002.jpg\)", FileNotFoundError)
    (root / "annotations/train.json").write_text("[1, 2")
    refused(coco, root, "train.json is not JSON that can be read")
    refused(coco, root / "other", r"no COCO-style data in .*annotations/train.json is missing\)", FileNotFoundError)
    refused(coco, written_coco(tmp_path), "is twice in train|is in train and in test", test=COCO_SETS["train"])


def test_a_json_file_may_lie_beside_its_images(tmp_path):
    before = coco(written_coco(tmp_path)).fingerprint
    for part in SETS:
        (tmp_path / "annotations" / f"{part}.json").rename(tmp_path / part / "_annotations.coco.json")
    beside = {part: [f"{part}/_annotations.coco.json"] for part in SETS}
    assert COCOStyle(tmp_path, **common, **beside).fingerprint == before


@pytest.mark.parametrize(
    ("line", "names", "message"),
    [
        ("0 0.5 0.5 0.1", None, "000001.txt, line 1: wanted class x y width height of a box, got '0 0.5 0.5 0.1'"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.1", None, "line 1: wanted class x y width height"),
        ("cat 0.5 0.5 0.1 0.1", None, "line 1: wanted class x y width height"),
        ("4 0.5 0.5 0.1 0.1", None, "000001.txt, line 1 has class 4, and data.yaml names 0 to 3"),
        ("1.5 0.5 0.5 0.1 0.1", None, "line 1 has class 1.5"),
        ("0 30 20 10 10", None, "line 1 has '0 30 20 10 10', and x y width height should be shares"),
        ("0 nan 0.5 0.1 0.1", None, "should be shares"),
        ("0 0.5 0.5 0 0.1", None, r"000001.txt, line 1: the box of 'circle' from .* is empty or too small"),
        (None, "names: circle", "data.yaml should have names, a list or 0: name, 1: name, ..., got circle"),
        (None, "nc: 3\nnames: [a, b]", "data.yaml has nc: 3 and 2 names"),
        (None, "names: [a", "data.yaml is not YAML that can be read"),
        (None, "train: images/nowhere\nnames: [a]", "names images/nowhere, which is not there"),
        (None, "train:\nnames: [a]", r"does not say where the images of train are \(there: train, test\)"),
    ],
)
def test_faults_of_yolo_files_are_named(tmp_path, line, names, message):
    kind = FileNotFoundError if "nowhere" in message else ValueError
    refused(yolo, written_yolo(tmp_path, line, names), message, kind)


def test_yolo_images_may_be_listed_and_lie_elsewhere(tmp_path):
    root = written_yolo(tmp_path / "yolo")
    before = yolo(root)
    (root / "train.txt").write_text("".join(f"./images/train/{i:06d}.jpg\n" for i in range(1, 8)))
    names = (root / "data.yaml").read_text()
    (root / "data.yaml").write_text(
        names.replace("images/train", "[train.txt]").replace("images/test", "../images/test")
    )
    assert yolo(root).fingerprint == before.fingerprint
    (root / "labels/train/000001.txt").unlink()  # an image without objects
    assert len(yolo(root).parts["train"].objects[0]["labels"]) == 0
    (root / "labels").rename(root / "boxes")
    refused(
        yolo, root, r"no image of train has a file of boxes \(.*labels/train/000001.txt is missing\)", FileNotFoundError
    )

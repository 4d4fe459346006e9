"""Anybody's data in the layout of Pascal VOC: what is read, what is refused and in which words, and batches."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from harness.device import to_device
from rambo.detection.fixture import SHAPES, write_sets
from rambo.detection.rendering import Look
from rambo.detection.transforms import Resize, ResizeAndFlip
from rambo.detection.voc import VOCStyle

LOOK = Look(width=64, height=48, radius=(0.15, 0.3))
AS_IT_IS = {"train_transform": ResizeAndFlip(None, None), "test_transform": Resize(None, None)}


@pytest.fixture
def own(tmp_path):
    """Somebody's own data: 6 images to train on, 4 to test on."""
    write_sets(tmp_path / "own", {"trainval": 6, "test": 4}, SHAPES, LOOK)
    return tmp_path / "own"


opened = partial(VOCStyle, **AS_IT_IS)


def xml(root, place=1, part="trainval"):
    """An annotation of these data."""
    name = (root / "ImageSets" / "Main" / f"{part}.txt").read_text().split()[place - 1]
    return root / "Annotations" / f"{name}.xml"


def written(path, *objects, size="<size><width>64</width><height>48</height></size>"):
    """Replaces an annotation by these objects."""
    path.write_text(f"<annotation>{size}{''.join(objects)}</annotation>")


def thing(name="circle", box=(11, 12, 20, 30), more=""):
    corners = "".join(f"<{tag}>{n}</{tag}>" for tag, n in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox>{more}</object>"


def refused(root, message, kind=ValueError, **settings):
    with pytest.raises(kind, match=message) as caught:
        opened(root, **settings)
    assert "\n" not in str(caught.value)


# Reading


def test_classes_are_the_names_in_the_training_annotations(own):
    data = opened(own)
    names = {
        name for path in map(partial(xml, own), range(1, 7)) for name in re.findall("<name>(.*)<", path.read_text())
    }
    assert data.classes == sorted(names)
    assert opened(own, classes=SHAPES[::-1]).classes == list(SHAPES[::-1])


def test_labels_follow_the_order_of_the_classes(own):
    forwards, backwards = (opened(own, classes=names).parts["train"] for names in (SHAPES, SHAPES[::-1]))
    for ours, theirs in zip(forwards.objects, backwards.objects, strict=True):
        assert torch.equal(ours["labels"], 5 - theirs["labels"])
    assert forwards.counts() == backwards.counts()


def test_boxes_become_continuous_and_zero_based(own):
    written(xml(own), thing(box=(1, 1, 64, 48)), thing(box=(11, 12, 20, 30)))
    part = opened(own).parts["train"]
    assert part.objects[0]["boxes"].tolist() == [[0, 0, 64, 48], [11 - 1, 12 - 1, 20, 30]]
    assert part.objects[0]["boxes"].dtype == torch.float32


def test_spaces_order_and_foreign_tags_do_not_matter(own):
    box = "<ymax> 30 </ymax><xmax>20</xmax><ymin>12</ymin><xmin>11.0</xmin>"
    text = f"<object><difficult> 1 </difficult><bndbox>{box}</bndbox><attributes><name>x</name></attributes><name>\n"
    written(xml(own), f"{text}circle </name></object>", thing("square"))
    part = opened(own).parts["train"]
    assert part.objects[0]["boxes"].tolist() == [[10, 11, 20, 30]] * 2
    assert part.objects[0]["difficult"].tolist() == [True, False]
    assert [part.classes[label - 1] for label in part.objects[0]["labels"].tolist()] == ["circle", "square"]


def test_lists_may_have_blank_lines_and_windows_line_ends(own):
    before = opened(own).fingerprint
    path = own / "ImageSets/Main/trainval.txt"
    path.write_bytes(path.read_bytes().replace(b"\n", b" \r\n") + b"\r\n\r\n")
    assert opened(own).fingerprint == before


def test_a_list_in_another_encoding_is_read(own):
    before = opened(own).fingerprint
    path = own / "ImageSets/Main/trainval.txt"
    path.write_text(path.read_text(), encoding="utf-16")
    assert opened(own).fingerprint == before


def test_the_list_of_one_class_is_no_image_set(own):
    lists = own / "ImageSets/Main"
    ids = (lists / "trainval.txt").read_text().split()
    (lists / "cat_trainval.txt").write_text("".join(f"{id_} {(-1, 0, 1)[i % 3]:2d}\n" for i, id_ in enumerate(ids)))
    refused(own, r"cat_trainval.txt is the list of one class, .* an image set such as trainval", train=["cat_trainval"])


def test_linked_folders_of_images_are_read(own, tmp_path):
    before = opened(own)
    (tmp_path / "elsewhere").mkdir()
    (own / "JPEGImages").rename(tmp_path / "elsewhere" / "JPEGImages")
    (own / "JPEGImages").symlink_to(tmp_path / "elsewhere" / "JPEGImages")
    assert opened(own).fingerprint == before.fingerprint
    (own / "JPEGImages").unlink()
    (own / "JPEGImages").mkdir()
    (own / "JPEGImages" / "batch").symlink_to(tmp_path / "elsewhere" / "JPEGImages")
    (own / "Annotations").rename(tmp_path / "elsewhere" / "Annotations")
    (own / "Annotations").mkdir()
    (own / "Annotations" / "batch").symlink_to(tmp_path / "elsewhere" / "Annotations")
    for path in (own / "ImageSets/Main").glob("*.txt"):
        path.write_text("".join(f"batch/{id_}\n" for id_ in path.read_text().split()))
    assert opened(own).parts["train"].counts() == before.parts["train"].counts()


def test_classes_that_differ_by_capitals_alone_are_refused_unless_named(own):
    path = xml(own)
    written(path, thing("Circle"), thing("circle"))
    refused(
        own, r"the classes 'Circle' \(.*xml\) and 'circle' \(.*xml\) differ by capitals alone; write them alike, or"
    )
    assert opened(own, classes=[*SHAPES, "Circle"]).parts["train"].counts()["Circle"] == 1


def test_images_may_have_other_endings_and_stray_files_do_no_harm(own):
    folder = own / "JPEGImages"
    Image.open(folder / "000001.jpg").convert("L").save(folder / "000001.png")
    (folder / "000001.jpg").unlink()
    (folder / "000002.jpg").rename(folder / "000002.JPG")
    (folder / "._000003.jpg").write_bytes(b"\x00\x05\x16\x07")
    (folder / "Thumbs.db").write_bytes(b"x")
    part = opened(own).parts["train"]
    assert [path.name for path in part.paths[:3]] == ["000001.png", "000002.JPG", "000003.jpg"]
    assert part.load(0).shape == (3, 48, 64)


def test_image_sets_may_lie_in_several_folders(tmp_path):
    for number, folder in enumerate(("first", "second")):
        write_sets(tmp_path / folder, {"train": 4, "test": 4}, SHAPES, LOOK, seed=number)
    data = opened(tmp_path, train=[["first", "train"], ["second", "train"]], test=[["second", "test"]], classes=SHAPES)
    assert data.parts["train"].names == [f"{f}/00000{i}" for f in ("first", "second") for i in range(1, 5)]
    assert not torch.equal(data.parts["train"].load(0), data.parts["train"].load(4))


def test_what_reaches_beyond_the_image_is_cut_off_and_counted(own):
    written(xml(own), thing(box=(0, 5, 70, 48)), thing())
    data = opened(own)
    assert data.parts["train"].objects[0]["boxes"].tolist() == [[0, 4, 64, 48], [10, 11, 20, 30]]
    assert data.describe()["train"]["boxes_cut_at_the_border"] == 1


@pytest.mark.parametrize(
    ("box", "fault"),
    [
        ((30, 12, 20, 30), r"from \(30, 12\) to \(20, 30\) is inverted"),
        ((11, 30, 20, 12), "is inverted"),
        ((11, 12, 11, 12), "is empty or too small"),
        ((11, 12, 11, 30), "is empty or too small"),
        ((70, 12, 80, 30), "lies outside the image of 64 x 48"),
        ((-9, 12, 0, 30), "lies outside the image of 64 x 48"),
    ],
)
def test_broken_boxes_are_refused_or_dropped(own, box, fault):
    written(xml(own), thing("cross", box), thing())
    refused(own, f"000001.xml: the box of 'cross' .*{fault}; correct it, or set data.broken_boxes=drop")
    data = opened(own, broken_boxes="drop")
    assert data.parts["train"].objects[0]["boxes"].tolist() == [[10, 11, 20, 30]]
    assert data.describe()["train"]["broken_boxes_dropped"] == 1


def test_a_box_of_one_pixel_can_be_let_pass(own):
    written(xml(own), thing(box=(11, 12, 11, 12)))
    assert opened(own, smallest_box=1).parts["train"].objects[0]["boxes"].tolist() == [[10, 11, 11, 12]]


def test_unknown_classes_are_refused_or_dropped(own):
    written(xml(own), thing("pentagon"), thing())
    refused(own, r"000001.xml: 'pentagon' is not among the classes \(circle, cross, square, triangle\)", classes=SHAPES)
    data = opened(own, classes=SHAPES, other_classes="drop")
    assert data.parts["train"].objects[0]["labels"].tolist() == [1]
    assert data.describe()["train"]["objects_of_other_classes_dropped"] == 1
    written(xml(own, part="test"), thing("hexagon"))
    refused(own, r"0007.xml: 'hexagon' is not among the classes \(.*pentagon")  # none of the training's names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation><object>", r"000001.xml is not XML that can be read \(no element found.*; repair it, or take"),
        ("", "000001.xml is not XML that can be read"),
        ("<html><body/></html>", "000001.xml holds <html> where <annotation> was wanted"),
        ("\x00\x01", "000001.xml is not XML that can be read"),
        ('<?xml version="1.0" encoding="no-such"?><annotation/>', "000001.xml is not XML that can be read"),
        ("<annotation><object><name>circle</name></object></annotation>", "object 1, 'circle', has no <bndbox>; give"),
        ("<annotation><object><bndbox/></object></annotation>", "000001.xml: object 1 has no <name>; give it one"),
        (f"<annotation>{thing()}{thing(' ')}</annotation>", "000001.xml: object 2 has no <name>"),
        (f"<annotation>{thing().replace('ymin', 'top')}</annotation>", "object 1, 'circle', has no <ymin>; it"),
        (f"<annotation>{thing(box=('a', 1, 2, 3))}</annotation>", "'circle', has 'a' for <xmin> where a number should"),
        (f"<annotation>{thing(box=(1, 'nan', 2, 3))}</annotation>", "has 'nan' for <ymin> where a number"),
        (f"<annotation>{thing(box=(1, 2, '', 3))}</annotation>", "has '' for <xmax> where a number"),
        (f"<annotation>{thing(more='<difficult>x</difficult>')}</annotation>", "0 or 1 for <difficult>, got 'x'"),
        ("<annotation><size><width>w</width><height>1</height></size></annotation>", "size of the image has 'w'"),
    ],
)  # fmt: skip
def test_faulty_annotations_are_named(own, text, message):
    xml(own).write_text(text)
    refused(own, message)


def test_missing_files_are_counted_and_named(own):
    refused(own.with_name("nowhere"), r"no VOC-style data in .*nowhere.* is missing\); check", kind=FileNotFoundError)
    for number in range(1, 5):
        (own / "JPEGImages" / f"00000{number}.jpg").unlink()
    refused(own, r"4 of 6 images of trainval are missing \(000001, 000002, 000003, \.\.\.\)", kind=FileNotFoundError)
    (own / "Annotations/000002.xml").unlink()
    refused(own, r"1 of 6 annotations of trainval are missing \(000002\)", kind=FileNotFoundError)


def test_unreadable_images_are_named_before_training(own):
    (own / "JPEGImages/000002.jpg").write_bytes(b"not a picture")
    refused(own, r"cannot read the image .*000002.jpg \(it is none, or damaged\)", kind=OSError)
    (own / "JPEGImages/000002.jpg").write_bytes(b"")
    refused(own, r"cannot read the image .*000002.jpg", kind=OSError)
    (own / "JPEGImages/000002.jpg").unlink()
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(own / "JPEGImages/000002.png")
    refused(own, r"cannot read the image .*000002.png \(it has more than 8 bits", kind=OSError)


def test_images_of_another_size_than_their_annotation_are_named(own):
    Image.new("RGB", (48, 64)).save(own / "JPEGImages/000002.jpg")
    refused(own, r"000002.xml is for an image of 64 x 48 \(width x height\), but 000002.jpg has 48 x 64; annotate")
    written(xml(own, 2), thing(), size="<size><width>0</width><height>0</height></size>")
    opened(own)  # some tools write zeros


def test_images_turned_by_exif_are_read_upright_on_request(own):
    turned = Image.new("RGB", (48, 64))
    turned.putpixel((0, 63), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned.save(own / "JPEGImages/000001.jpg", exif=exif, quality=100, subsampling=0)
    refused(own, "000001.xml is for an image of 64 x 48 .*set data.upright=true")
    picture = opened(own, upright=True).parts["train"].load(0)
    assert picture.shape == (3, 48, 64)
    assert picture[0, 0, 0] > 128  # bottom left came to the top left


def test_lists_without_images_and_with_doubles_are_refused(own):
    path = own / "ImageSets/Main/trainval.txt"
    path.write_text("000001\n000002\n000001\n")
    refused(own, "trainval.txt lists 000001 twice")
    path.write_text("\n \n")
    refused(own, "trainval.txt lists no image")


def test_data_without_any_object_are_refused(own):
    for place in range(1, 7):
        written(xml(own, place))
    refused(own, "training images have no object at all")
    written(xml(own), thing(more="<difficult>1</difficult>"))
    refused(own, "the train images have no object to learn from", classes=SHAPES)
    opened(own, classes=SHAPES, train_on_difficult=True)
    written(xml(own), thing())
    for place in range(1, 5):
        written(xml(own, place, "test"))
    refused(own, "the test images have no object to find")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": ["circle", "circle"]}, r"data.classes must be different names, without a background, got \['circ"),
        ({"classes": []}, "data.classes must be different names"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"evaluation_batch_size": 0}, "evaluation_batch_size must be at least 1"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"broken_boxes": "keep"}, "broken_boxes must be refuse or drop, got 'keep'"),
        ({"other_classes": ""}, "other_classes must be refuse or drop, got ''"),
        ({"smallest_box": 0}, "smallest_box must be at least 1 pixel, got 0"),
        ({"smallest_box": float("nan")}, "smallest_box must be at least 1 pixel"),
    ],
)
def test_bad_settings_are_refused(own, settings, message):
    refused(own, message, **settings)


# Batches


def special(own):
    """In the data of `own` the third image has no object, the fourth a difficult one alone."""
    part = opened(own, classes=SHAPES).parts["train"]
    assert [len(found["labels"]) for found in part.objects[2:4]] == [0, 1]
    assert part.objects[3]["difficult"].tolist() == [True]


def test_difficult_objects_are_ground_truth_but_not_trained_on(own):
    special(own)
    without, having = (opened(own, classes=SHAPES, train_on_difficult=flag).train.dataset for flag in (False, True))
    assert len(without[0, 3]["target"]["labels"]) == 0
    assert len(having[0, 3]["target"]["labels"]) == 1
    truth = opened(own, classes=SHAPES).evaluation["test"].dataset.ground_truth
    assert truth[3]["difficult"].tolist() == [True]
    assert [set(entry) for entry in truth] == [{"boxes", "labels", "difficult"}] * 4


def test_images_without_objects_are_trained_on_or_left_out(own):
    special(own)
    data = opened(own, classes=SHAPES)
    empty = data.train.dataset[0, 2]["target"]
    assert empty["boxes"].shape == (0, 4)
    assert empty["labels"].dtype == torch.int64
    names = opened(own, classes=SHAPES, train_on_empty_images=False).parts["train"].names
    assert names == [name for i, name in enumerate(data.parts["train"].names) if i not in (2, 3)]
    names = opened(own, classes=SHAPES, train_on_empty_images=False, train_on_difficult=True).parts["train"].names
    assert names == [name for i, name in enumerate(data.parts["train"].names) if i != 2]


def test_a_batch_is_lists_of_pictures_and_targets(own):
    data = opened(own, classes=SHAPES, batch_size=4, test_transform=Resize(96, 1000), evaluation_batch_size=3)
    batches = list(data.train)
    assert [len(batch["images"]) for batch in batches] == [4, 2]
    assert sorted(torch.cat([batch["index"] for batch in batches]).tolist()) == list(range(6))
    batch = batches[0]
    assert set(batch) == {"images", "targets", "index", "scales"}
    assert all(image.dtype == torch.uint8 and image.shape == (3, 48, 64) for image in batch["images"])
    assert all(target["boxes"].dtype == torch.float32 for target in batch["targets"])
    tests = list(data.evaluation["test"])
    assert torch.cat([batch["index"] for batch in tests]).tolist() == [0, 1, 2, 3]
    assert tests[0]["scales"].tolist() == [[2.0, 2.0]] * 3
    moved = to_device(tests[0], torch.device("meta"))
    assert moved["images"][0].device.type == moved["targets"][0]["boxes"].device.type == "meta"


def test_scales_bring_boxes_back_to_the_original(own):
    data = opened(own, classes=SHAPES, test_transform=Resize(37, None))
    (batch,) = data.evaluation["test"]
    dataset = data.evaluation["test"].dataset
    for index, target, scale in zip(batch["index"].tolist(), batch["targets"], batch["scales"], strict=True):
        truth = dataset.ground_truth[index]
        easy = truth["boxes"][~truth["difficult"]]
        torch.testing.assert_close(target["boxes"] / scale.repeat(2), easy, rtol=1e-5, atol=1e-4)
        assert dataset.image(index).shape == (3, 48, 64)


def samples(data, epoch):
    data.train.set_epoch(epoch)
    return list(data.train)


def same(ours, theirs):
    return all(
        torch.equal(a["index"], b["index"])
        and all(map(torch.equal, a["images"], b["images"]))
        and all(torch.equal(x["boxes"], y["boxes"]) for x, y in zip(a["targets"], b["targets"], strict=True))
        for a, b in zip(ours, theirs, strict=True)
    )


def test_an_epoch_is_a_function_of_seed_and_number(own):
    make = partial(opened, own, classes=SHAPES, batch_size=2)
    state = torch.get_rng_state()
    first = samples(make(seed=1), 3)
    torch.rand(7)
    torch.set_rng_state(state)
    assert same(first, samples(make(seed=1), 3))
    assert same(first, samples(make(seed=1, workers=1), 3))
    assert torch.equal(state, torch.get_rng_state())
    assert not same(first, samples(make(seed=1), 4))
    assert not same(first, samples(make(seed=2), 3))
    dataset = make(seed=1).train.dataset
    flipped = {not torch.equal(dataset[epoch, 0]["image"], dataset.image(0)) for epoch in range(12)}
    assert flipped == {True, False}


def test_the_record_describes_the_data_and_the_fingerprint_tells_them_apart(own):
    data = opened(own)
    told = data.describe()
    assert told["name"] == "VOC-style data"
    assert told["image_sets"] == {"train": [["", "trainval"]], "test": [["", "test"]]}
    assert told["train"]["images"] == 6
    assert told["train"]["images_without_objects"] == 1
    assert sum(told["train"]["per_class"].values()) == told["train"]["objects"]
    marks = {told["fingerprint"]}
    path = xml(own)
    text = path.read_text()
    name, xmin = re.search("<name>.*</name>", text)[0], re.search("<xmin>.*</xmin>", text)[0]
    other = "<name>circle</name>" if "circle" not in name else "<name>cross</name>"
    for old, new in ((name, other), (xmin, "<xmin>1</xmin>"), ("<difficult>0", "<difficult>1")):
        path.write_text(text.replace(old, new, 1))
        marks.add(opened(own, classes=SHAPES).fingerprint)
    assert len(marks) == 4
    path.write_text(text)
    assert opened(own).fingerprint == data.fingerprint


def test_there_is_no_cache_of_pictures_that_are_resized_with_their_boxes(own, tmp_path):
    refused(own, "so none can be kept; set data.cache=null", cache=tmp_path / "cache")
    refused(own, "so none is reduced; set data.decode=exact", decode="scaled")

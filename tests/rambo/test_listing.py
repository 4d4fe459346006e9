"""Folders and tables as people have them: parts, links, wrappers, capitals, classes of one image."""

import csv
import os
from functools import partial

import pytest
from PIL import Image

from harness.data.images import files_below
from rambo.datasets.folder import ImageFolder
from rambo.datasets.records import BOTH, GALLERY, QUERY
from rambo.datasets.transforms import CentreCrop
from rambo.sampling import ClassBalancedBatches

opened = partial(
    ImageFolder,
    sampler=partial(ClassBalancedBatches, batch_size=4, samples_per_class=2),
    train_transform=CentreCrop(8, 8),
    test_transform=CentreCrop(8, 8),
)


def pictures(root, *places):
    """An image at each of these paths below root."""
    for place in places:
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(root / place)
    return root


def classes(part, names, images=2):
    return [f"{part}/{name}/{number}.png" for name in names for number in range(images)]


def listed(root, header, rows, separator=","):
    with (root / "images.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])
    return opened(root, table="images.csv")


def refused(root, message, **options):
    with pytest.raises(ValueError, match=message) as caught:
        opened(root, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "valid", "TEST"), ("training", "dev", "testing")]
)
def test_folders_called_like_parts_are_parts(tmp_path, names):
    for name, kinds in zip(names, ("ab", "cd", "ef"), strict=True):
        pictures(tmp_path, *classes(name, kinds))
    data = opened(tmp_path)
    told = {part: records.class_names_here() for part, records in data.parts.items()}
    assert told == {"train": ["a", "b"], "validation": ["c", "d"], "test": ["e", "f"]}
    assert all(records.roles is None for records in data.parts.values())


@pytest.mark.parametrize("names", [("train", "query", "gallery"), ("bounding_box_train", "query", "bounding_box_test")])
def test_queries_search_the_gallery(tmp_path, names):
    train, query, gallery = names
    pictures(tmp_path, *classes(train, "ab"), *classes(query, "cd", 1), *classes(gallery, "cde", 3))
    data = opened(tmp_path)
    test = data.parts["test"]
    assert set(data.parts) == {"train", "test"}
    assert data.parts["train"].roles is None
    assert {name.split("/")[0]: role for name, role in zip(test.names, test.roles.tolist(), strict=True)} == {
        query: QUERY,
        gallery: GALLERY,
    }
    assert data.describe()["test"] == {"images": 11, "classes": 3, "queries": 2, "gallery": 9}
    assert next(iter(data.evaluation["test"]))["role"].tolist() == test.roles.tolist()


def test_parts_that_are_not_plain_are_said(tmp_path):
    pictures(
        tmp_path / "market", *(f"{part}/000{n}_c1.png" for part in ("bounding_box_train", "query") for n in range(4))
    )
    refused(
        tmp_path / "market", r"query of .* look like parts .*0000_c1.png lies in no folder .* in a table .* data.table"
    )
    pictures(tmp_path / "more", *classes("train", "ab"), *classes("test", "cd"), *classes("extra", "ef"))
    refused(tmp_path / "more", "the folders test, train of .* look like parts .* but extra is no part")
    pictures(tmp_path / "drawn", *classes("train", "ab"), *classes("query", "cd"), *classes("gt_bbox", "cd"))
    refused(tmp_path / "drawn", "gt_bbox is no part")
    pictures(tmp_path / "same", *classes("train", "ab"), *classes("test", "ab"))
    refused(tmp_path / "same", "class 'a' is in test and in train; .* leave it in one part")
    pictures(tmp_path / "half", *classes("train", "ab"), *classes("query", "cd"))
    refused(tmp_path / "half", "query and gallery make the test together, .* got query, train")
    pictures(tmp_path / "untested", *classes("train", "ab"), *classes("val", "cd"))
    refused(tmp_path / "untested", "the split has no test images")
    pictures(tmp_path / "both", *classes("train", "ab"), *classes("test", "cd"))
    refused(tmp_path / "both", "says itself which classes are tested on", test_classes=["a"])


def test_a_class_that_is_called_train_is_one(tmp_path, caplog):
    pictures(tmp_path, *(f"{name}/{number}.png" for name in ("train", "car", "bus", "ship") for number in range(3)))
    assert sum(len(records.class_names_here()) for records in opened(tmp_path).parts.values()) == 4
    assert f"the folder train of {tmp_path} is taken for a class" in caplog.text


def test_one_folder_around_the_classes_is_told(tmp_path):
    pictures(tmp_path, *classes("images", "abcd"))
    refused(tmp_path, rf"lie below its one folder images, .* set data.root={tmp_path / 'images'} if")
    assert len(opened(tmp_path / "images").parts["train"]) == 4


def test_linked_folders_and_images_are_read_and_loops_end(tmp_path):
    pictures(tmp_path, *classes("own", "abcd"), *classes("elsewhere", "ef"), "elsewhere/loose.png")
    before = opened(tmp_path / "own")
    for name in "ef":
        (tmp_path / "own" / name).symlink_to(tmp_path / "elsewhere" / name)
    (tmp_path / "own" / "a" / "linked.png").symlink_to(tmp_path / "elsewhere" / "loose.png")
    (tmp_path / "own" / "b" / "loop").symlink_to(tmp_path / "own")
    (tmp_path / "own" / "b" / "self").symlink_to("self")
    names = [name for records in opened(tmp_path / "own").parts.values() for name in records.names]
    assert len(names) == sum(len(records) for records in before.parts.values()) + 5
    assert {"e/0.png", "f/1.png", "a/linked.png"} < set(names)
    assert len(list(files_below(tmp_path / "own" / "b"))) < 20


def test_an_image_under_two_labels_is_refused(tmp_path):
    pictures(tmp_path, *classes(".", "abcd"))
    (tmp_path / "e").symlink_to(tmp_path / "a")
    refused(tmp_path, r"a/0.png and e/0.png in .* are one and the same file, by a link; leave one")
    (tmp_path / "e").unlink()
    os.link(tmp_path / "b" / "1.png", tmp_path / "c" / "again.png")
    refused(tmp_path, "b/1.png and c/again.png")


def test_an_image_whose_link_is_broken_is_missing(tmp_path):
    pictures(tmp_path, *classes(".", "abcd"))
    (tmp_path / "a" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(FileNotFoundError, match=r"1 of \d+ images are missing or empty \(a/gone.png\)"):
        opened(tmp_path)


def test_classes_that_differ_by_capitals_alone_are_told(tmp_path, caplog):
    pictures(tmp_path, *classes(".", ["car", "Car", "bus", "ship"]))
    opened(tmp_path)
    assert "the classes Car and car of" in caplog.text
    assert "differ by capitals alone and are two; call them alike if they are one" in caplog.text


def test_held_out_classes_of_one_image_name_the_part_and_the_option(tmp_path):
    """Which of ten classes are held out is decided by a hash: two by two, the ones drawn get one image."""
    pictures(tmp_path, *(f"bird{c:02d}/{i}.png" for c in range(10) for i in range(2)))
    drawn = opened(tmp_path, validation_fraction=0.2).parts["validation"].class_names_here()
    for name in drawn:
        (tmp_path / name / "1.png").unlink()
    refused(
        tmp_path,
        rf"each of the 2 classes held out for validation of .* \({', '.join(drawn)}\) has one image, .*"
        r" set data.validation_fraction=0.* data.validation_classes",
        validation_fraction=0.2,
    )
    assert opened(tmp_path).parts.keys() == {"train", "test"}


def test_queries_without_a_match_in_the_gallery_are_told_before_training(tmp_path, caplog):
    pictures(tmp_path / "some", *classes("train", "ab"), *classes("query", "cd", 2), *classes("gallery", "ce"))
    opened(tmp_path / "some")
    assert "1 of 2 test classes in" in caplog.text
    assert "have no image in the gallery (d)" in caplog.text
    pictures(tmp_path / "none", *classes("train", "ab"), *classes("query", "cd", 2), *classes("gallery", "ef"))
    refused(
        tmp_path / "none", "no query of the test part of .* has an image of its class in the gallery; check the labels"
    )


def test_answerable_is_who_has_another_image_of_its_class():
    import torch

    from rambo.datasets.records import Records

    labels, pixels = torch.tensor([5, 5, 7, 9, 9, 9]), torch.zeros(6, 1, 2, 2, dtype=torch.uint8)
    records = Records(list("uvwxyz"), labels, pixels=pixels)
    assert records.answerable().tolist() == [True, True, False, True, True, True]
    roles = torch.tensor([QUERY, QUERY, QUERY, QUERY, GALLERY, BOTH])
    divided = Records(list("uvwxyz"), labels, pixels=pixels, roles=roles)
    assert divided.answerable().tolist() == [False, False, False, True, False, True]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_with_other_capitals_separators_and_slashes(tmp_path, separator):
    pictures(tmp_path, *classes("shelf", "abcdef"))
    marks = dict(zip("abcdef", ("Train", "training", "VAL", "valid", "Test", "testing"), strict=True))
    rows = [(rf"shelf\{name}\{number}.png", name, marks[name]) for name in "abcdef" for number in range(2)]
    data = listed(tmp_path, ("Path", " LABEL", "Split"), rows, separator)
    told = {part: records.class_names_here() for part, records in data.parts.items()}
    assert told == {"train": ["a", "b"], "validation": ["c", "d"], "test": ["e", "f"]}


def test_a_table_may_have_queries_and_a_gallery(tmp_path):
    pictures(tmp_path, *classes("shelf", "abcd"))
    rows = [(f"shelf/{name}/{n}.png", name, "train") for name in "ab" for n in range(2)]
    rows += [(f"shelf/{name}/{n}.png", name, ("query", "gallery")[n]) for name in "cd" for n in range(2)]
    assert listed(tmp_path, ("path", "label", "split"), rows).describe()["test"]["queries"] == 2


def test_a_part_with_one_class_or_empty_images_is_refused(tmp_path):
    pictures(tmp_path, *classes("train", "ab"), *classes("test", "c"))
    refused(tmp_path, "the test part of .* has 1 class, and two are needed")
    pictures(tmp_path, *classes("test", "d"))
    (tmp_path / "test" / "d" / "0.png").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="1 of 8 images are missing or empty"):
        opened(tmp_path)


# roles, crops and closed splits


def test_roles_of_a_table_say_who_asks_and_who_is_found(tmp_path):
    pictures(tmp_path, *classes("shelf", "abcd", 3))
    parts, roles = {"a": "train", "b": "train", "c": "test", "d": "test"}, ("Query", "gallery", "both")
    rows = [(f"shelf/{name}/{n}.png", name, parts[name], roles[n]) for name in "abcd" for n in range(3)]
    header = ("path", "label", "split", "role")
    data = listed(tmp_path, header, rows)
    assert data.parts["train"].roles is None
    assert data.parts["test"].roles.tolist() == [QUERY, GALLERY, BOTH] * 2
    assert data.describe()["test"] == {"images": 6, "classes": 2, "queries": 4, "gallery": 4}
    drawn = listed(tmp_path, ("path", "label", "role"), [(path, name, role) for path, name, _, role in rows])
    assert drawn.parts["test"].roles.tolist() == [QUERY, GALLERY, BOTH] * 2
    with pytest.raises(ValueError, match=r"row 2: role should be query, .* got 'finder' and split test"):
        listed(tmp_path, header, [rows[0], (*rows[7][:3], "finder")])
    with pytest.raises(ValueError, match=r"row 1: role .* the split no such, got 'query' and split gallery"):
        listed(tmp_path, header, [(*rows[6][:2], "gallery", "query")])
    of_a_film = [(path, name, {"a": "cook"}.get(name, "waiter")) for path, name, _, _ in rows]
    assert listed(tmp_path, ("path", "label", "role"), of_a_film).parts["test"].roles is None


SIDES = {"red": (0, 0, 10, 10), "blue": (10, 0, 20, 10)}
FOUR = ("left", "top", "right", "bottom")


def halves(root):
    """Four images of 20 x 10, red on the left and blue on the right, and a row for each half; labels tell the half."""
    for name in "abcd":
        image = Image.new("RGB", (20, 10), "red")
        image.paste("blue", SIDES["blue"])
        image.save(root / f"{name}.jpg", quality=95, subsampling=0)
    parts = {"a": "train", "b": "train", "c": "test", "d": "test"}
    return [(f"{name}.jpg", f"{part} {side}", part, side) for name, part in parts.items() for side in SIDES]


@pytest.mark.parametrize("options", [{}, {"decode": "scaled"}, {"cache": "cache"}])
def test_a_crop_is_what_is_seen_of_an_image(tmp_path, options):
    rows = halves(tmp_path)
    tables = {"four": FOUR, "one": ("crop",)}
    for file, columns in tables.items():
        said = [SIDES[side] if file == "four" else [str(SIDES[side])] for *_, side in rows]
        cells = [(*row[:3], *crop) for row, crop in zip(rows, said, strict=True)]
        with (tmp_path / f"{file}.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows([("path", "label", "split", *columns), *cells])
    kept = {"cache": tmp_path / "cache"} if "cache" in options else options
    four, one = (opened(tmp_path, table=f"{file}.csv", **kept) for file in tables)
    assert four.fingerprint == one.fingerprint
    for data in (four, one):  # the second from the cache
        test = data.parts["test"]
        batch = next(iter(data.evaluation["test"]))
        for picture, label in zip(batch["image"], batch["label"].tolist(), strict=True):
            red, _, blue = picture.float().mean(dim=(1, 2)).tolist()
            assert (red - blue > 200) == test.class_names[label].endswith("red")
            assert (blue - red > 200) == test.class_names[label].endswith("blue")


def test_a_crop_that_leaves_nothing_or_goes_beyond_its_image_is_told(tmp_path):
    rows = [(*row[:3], *SIDES[row[3]]) for row in halves(tmp_path)]
    header = ("path", "label", "split", *FOUR)
    cut = listed(tmp_path, header, rows)
    moved = listed(tmp_path, header, [(*rows[0][:3], "", "", "", ""), *rows[1:]])
    assert moved.fingerprint != cut.fingerprint
    assert moved.parts["train"].load(0).shape == (3, 10, 20)
    assert cut.parts["train"].load(0).shape == (3, 10, 10)
    with pytest.raises(
        ValueError, match=r"row 1: a crop is left, top, right and bottom .* got '10 0 10 10'; correct it"
    ):
        listed(tmp_path, header, [(*rows[0][:3], 10, 0, 10, 10), *rows[1:]])
    with pytest.raises(ValueError, match=r"crop \(0, 0, 21, 10\) goes beyond .*a.jpg, which is 20 wide and 10 high"):
        listed(tmp_path, header, [(*rows[0][:3], 0, 0, 21, 10), *rows[1:]])
    with pytest.raises(ValueError, match=r"lists 'a.jpg' in rows 1 and 2"):
        listed(tmp_path, header, [rows[0], rows[0]])


def test_a_closed_split_has_all_classes_in_every_part(tmp_path, caplog):
    pictures(tmp_path, *classes("own", "abc", 10))
    data = opened(tmp_path / "own", split="closed", test_fraction=0.3, validation_fraction=0.3)
    told = {part: records.class_names_here() for part, records in data.parts.items()}
    assert told == {part: ["a", "b", "c"] for part in data.parts}
    assert data.parts.keys() == {"train", "validation", "test"}
    assert {part: len(records) for part, records in data.parts.items()} == {"train": 15, "validation": 6, "test": 9}
    again = opened(tmp_path / "own", split="closed", test_fraction=0.3, validation_fraction=0.3, seed=5)
    assert again.fingerprint == data.fingerprint
    pictures(tmp_path / "parts", *classes("train", "ab"), *classes("test", "abc"))
    assert opened(tmp_path / "parts", split="closed").parts["test"].class_names_here() == ["a", "b", "c"]
    assert "1 classes of a closed split have no training image (c)" in caplog.text
    refused(
        tmp_path / "own", r"validation_classes \(data=folder, split=open\)", split="closed", validation_fraction=0.1
    )
    refused(tmp_path / "own", "split must be open or closed, got 'both'", split="both")
    refused(tmp_path / "own", "split=closed tests on every class", split="closed", test_classes=["a"])

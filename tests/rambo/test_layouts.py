"""Each data set from its own layout, its traps, and what it says when something is missing."""

import csv
import itertools
import os
import re
import shutil
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
import torch.nn.functional as functional
from PIL import Image, ImageDraw, ImageFont

from harness.data.download import RemoteFile
from rambo.datasets.cub import CUB200
from rambo.datasets.fixture import LAYOUTS, picture, write_cub, write_folder, write_inshop, write_omniglot, write_sop
from rambo.datasets.folder import ImageFolder
from rambo.datasets.glyphs import CYRILLIC, FACES, GREEK, LATIN, Glyphs, font_folder
from rambo.datasets.inshop import InShop
from rambo.datasets.omniglot import TRAIN, Omniglot
from rambo.datasets.sop import StanfordOnlineProducts
from rambo.datasets.transforms import CentreCrop
from rambo.sampling import ClassBalancedBatches

OPTIONS = {
    "sampler": partial(ClassBalancedBatches, batch_size=8, samples_per_class=4),
    "train_transform": CentreCrop(24, 28),
    "test_transform": CentreCrop(24, 28),
}


@pytest.fixture
def uncounted(monkeypatch):
    """Lets a tiny copy pass for the real thing."""
    for kind in (CUB200, StanfordOnlineProducts, InShop, Omniglot):
        monkeypatch.setattr(kind, "expected", {})
    monkeypatch.setattr(Omniglot, "files", tuple(RemoteFile(file.name) for file in Omniglot.files))


# CUB-200-2011


def test_cub_splits_by_class_and_takes_labels_from_the_list(tmp_path, uncounted):
    root = write_cub(tmp_path / "cub")
    train, test = (CUB200(root, **OPTIONS).parts[part] for part in ("train", "test"))
    assert train.labels.bincount().tolist() == [6] * 8
    assert test.labels.bincount().tolist() == [0] * 8 + [6] * 8
    for records in (train, test):
        for name, label in zip(records.names, records.labels.tolist(), strict=True):
            assert name.startswith(f"{label + 1:03d}.")
            assert name.split("/")[0].split(".")[1].replace("_", " ") == records.class_names[label]
    assert train.names[1] > train.names[2]  # images.txt is not sorted
    assert not [name for name in train.names if "._" in name]


def test_cub_reads_grayscale_images_as_rgb(tmp_path, uncounted):
    root = write_cub(tmp_path / "cub")
    data = CUB200(root, **OPTIONS)
    gray = [i for i, name in enumerate(data.parts["test"].names) if "_0006_" in name]
    assert gray
    with Image.open(data.parts["test"].path(gray[0])) as image:
        assert image.mode == "L"
    assert data.evaluation["test"].dataset.image(gray[0]).shape == (3, 24, 24)


def test_cub_may_be_named_by_its_inner_folder(tmp_path, uncounted):
    root = write_cub(tmp_path / "cub")
    assert CUB200(root / "CUB_200_2011", **OPTIONS).fingerprint == CUB200(root, **OPTIONS).fingerprint


def test_cub_absent_says_what_to_do(tmp_path):
    message = f"no CUB-200-2011 in {tmp_path} (images.txt is missing); run: python scripts/download.py cub"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}$"):
        CUB200(tmp_path, **OPTIONS)


@pytest.mark.parametrize("name", ["image_class_labels.txt", "classes.txt"])
def test_cub_with_a_list_missing(tmp_path, name):
    root = write_cub(tmp_path / "cub")
    (root / "CUB_200_2011" / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"is incomplete: {name} is missing; run"):
        CUB200(root, **OPTIONS)


def test_cub_with_damaged_lists(tmp_path):
    root = write_cub(tmp_path / "cub")
    labels = root / "CUB_200_2011" / "image_class_labels.txt"
    whole = labels.read_text()
    labels.write_text(whole[:200])
    with pytest.raises(ValueError, match="list different images"):
        CUB200(root, **OPTIONS)
    labels.write_text(whole.replace("7 2", "7"))
    with pytest.raises(ValueError, match=r"image_class_labels.txt is damaged"):
        CUB200(root, **OPTIONS)


def test_cub_half_extracted_is_told_before_training(tmp_path, uncounted):
    root = write_cub(tmp_path / "cub")
    shutil.rmtree(root / "CUB_200_2011" / "images" / "016.House_Wren")
    message = r"CUB-200-2011 in .* is incomplete: 6 of 96 images are missing or empty \(016.House_Wren/.*, ...\); run"
    with pytest.raises(FileNotFoundError, match=message):
        CUB200(root, **OPTIONS)


def full_cub(root, images_per_class):
    """11,788 files in 200 classes, all the same picture under links."""
    base = root / "CUB_200_2011"
    base.mkdir(parents=True)
    picture(0, 0).save(base / "one.jpg")
    images, labels = [], []
    for kind, count in enumerate(images_per_class, start=1):
        (base / "images" / f"{kind:03d}.Bird").mkdir(parents=True)
        for sample in range(count):
            name = f"{kind:03d}.Bird/{sample}.jpg"
            os.link(base / "one.jpg", base / "images" / name)
            images.append(f"{len(images) + 1} {name}")
            labels.append(f"{len(images)} {kind}")
    (base / "images.txt").write_text("\n".join(images))
    (base / "image_class_labels.txt").write_text("\n".join(labels))
    (base / "classes.txt").write_text("\n".join(f"{kind} {kind:03d}.Bird" for kind in range(1, 201)))


def test_cub_of_the_published_size_is_accepted_and_another_is_not(tmp_path):
    counts = [58] * 36 + [59] * 64 + [59] * 76 + [60] * 24
    assert sum(counts[:100]) == 36 * 58 + 64 * 59 == 5864
    assert sum(counts[100:]) == 76 * 59 + 24 * 60 == 5924
    full_cub(tmp_path / "cub", counts)
    described = CUB200(tmp_path / "cub", **OPTIONS).describe()
    assert described["train"] == {"images": 5864, "classes": 100}
    assert described["test"] == {"images": 5924, "classes": 100}

    lists = tmp_path / "cub" / "CUB_200_2011"
    for name in ("images.txt", "image_class_labels.txt"):
        (lists / name).write_text("\n".join((lists / name).read_text().splitlines()[:-1]))
    with pytest.raises(
        ValueError, match="the test part has images 5,923, classes 100, and the published split has images 5,924"
    ):
        CUB200(tmp_path / "cub", **OPTIONS)


# Stanford Online Products


def test_sop_reads_its_lists(tmp_path, uncounted):
    data = StanfordOnlineProducts(write_sop(tmp_path / "sop"), **OPTIONS)
    train, test = data.parts["train"], data.parts["test"]
    assert len(train) == 12 * 4 + 6  # every other product has a fifth image
    assert len(test) == 6 * 4 + 3
    assert train.super_labels.unique().tolist() == test.super_labels.unique().tolist() == [0, 1, 2]
    assert all(name.endswith(".JPG") for name in train.names)
    assert train.names[0] == "bicycle_final/111085122871_0.JPG"  # the header is no image, and no image a header
    assert test.labels.unique().tolist() == list(range(12, 18))  # ids go on where training ends
    for name, label, kind in zip(train.names, train.labels.tolist(), train.super_labels.tolist(), strict=True):
        assert name.startswith(["bicycle", "coffee_maker", "toaster"][kind])
        assert train.class_names[label] == f"{name.split('_final')[0].replace('_', ' ')} {label + 1}"
    assert next(iter(data.train))["super_label"].tolist() != []


def test_sop_absent_or_incomplete(tmp_path, uncounted):
    with pytest.raises(FileNotFoundError, match=r"no Stanford Online Products in .*\(Ebay_train.txt is missing\); run"):
        StanfordOnlineProducts(tmp_path, **OPTIONS)
    root = write_sop(tmp_path / "sop")
    listing = root / "Stanford_Online_Products" / "Ebay_test.txt"
    listing.write_text(listing.read_text().replace("image_id class_id super_class_id path\n", ""))
    with pytest.raises(ValueError, match=r"Ebay_test.txt is damaged"):
        StanfordOnlineProducts(root, **OPTIONS)
    listing.unlink()
    with pytest.raises(FileNotFoundError, match=r"Ebay_test.txt is missing"):
        StanfordOnlineProducts(root, **OPTIONS)


@pytest.mark.parametrize(("kind", "write"), [(StanfordOnlineProducts, write_sop), (InShop, write_inshop)])
def test_counts_are_asserted(tmp_path, kind, write):
    root = write(tmp_path / "data")
    with pytest.raises(
        ValueError, match=r"the train part has images \d\d, .* and the published split has images \d\d,\d\d\d"
    ):
        kind(root, **OPTIONS)


# In-Shop


def test_inshop_reads_its_partition(tmp_path, uncounted):
    root = write_inshop(tmp_path / "inshop")
    data = InShop(root, **OPTIONS)
    train, test = data.parts["train"], data.parts["test"]
    partition = (root / "In-shop Clothes Retrieval Benchmark" / "Eval" / "list_eval_partition.txt").read_text()
    rows = [line.split() for line in partition.splitlines()[2:]]
    assert train.names == [row[0] for row in rows if row[2] == "train"]  # the first one included
    assert len(train) + len(test) == int(partition.splitlines()[0]) == 12 * 5 - 4 + 6 * 5
    assert test.roles.tolist() == [{"query": 1, "gallery": 2}[row[2]] for row in rows if row[2] != "train"]
    assert data.describe()["test"] == {"images": 30, "classes": 6, "super_classes": 3, "queries": 12, "gallery": 18}
    assert train.labels.bincount().min() == 1  # the garment with one image is kept
    assert {name.split()[0] for name in train.class_names.values()} == {
        "MEN_Denim",
        "WOMEN_Dresses",
        "WOMEN_Tees_Tanks",
    }
    assert "role" in next(iter(data.evaluation["test"]))
    assert "role" not in next(iter(data.train))
    queries = set(test.labels[test.roles == 1].tolist())
    assert queries == set(test.labels[test.roles == 2].tolist())


def test_inshop_may_be_named_by_its_inner_folder_and_lie_flat(tmp_path, uncounted):
    root = write_inshop(tmp_path / "inshop")
    expected = InShop(root, **OPTIONS).fingerprint
    inner = root / "In-shop Clothes Retrieval Benchmark"
    assert InShop(inner, **OPTIONS).fingerprint == expected
    (inner / "Img" / "img").rename(inner / "img")
    (inner / "Eval" / "list_eval_partition.txt").rename(inner / "list_eval_partition.txt")
    assert InShop(inner, **OPTIONS).fingerprint == expected


def test_inshop_absent_or_damaged(tmp_path, uncounted):
    with pytest.raises(
        FileNotFoundError, match=r"no In-Shop Clothes Retrieval in .*\(list_eval_partition.txt is missing\)"
    ):
        InShop(tmp_path, **OPTIONS)
    root = write_inshop(tmp_path / "inshop")
    partition = root / "In-shop Clothes Retrieval Benchmark" / "Eval" / "list_eval_partition.txt"
    whole = partition.read_text()
    partition.write_text(whole.replace("gallery", "", 1))
    with pytest.raises(ValueError, match=r"partition.txt is damaged: expected lines of image_name, item_id, eval"):
        InShop(root, **OPTIONS)
    partition.write_text("")
    with pytest.raises(ValueError, match="is damaged"):
        InShop(root, **OPTIONS)
    partition.write_text(whole)
    shutil.rmtree(partition.parent.parent / "Img")
    with pytest.raises(FileNotFoundError, match="Img/img is missing"):
        InShop(root, **OPTIONS)


# Omniglot


def test_omniglot_merges_its_archives_and_splits_by_alphabet(tmp_path, uncounted):
    data = Omniglot(write_omniglot(tmp_path / "omniglot"), image_size=32, **OPTIONS)
    train, test = data.parts["train"], data.parts["test"]
    assert len(train) == len(test) == 4 * 3 * 6  # Greek and Latin, in both archives, are counted once
    assert {name.split("/")[0] for name in train.names} == set(TRAIN)
    assert {name.split("/")[0] for name in test.names} == {"Sanskrit", "Early_Aramaic", "Tagalog", "Latin"}
    assert len(train.super_labels.unique()) == len(test.super_labels.unique()) == 4
    assert train.pixels.shape == (72, 1, 32, 32)
    assert train.pixels.flatten(1).median(dim=1).values.eq(255).all()  # black on white
    assert next(iter(data.train))["image"].shape == (8, 3, 24, 24)


def test_omniglot_unpacked_is_the_same(tmp_path, uncounted):
    root = write_omniglot(tmp_path / "omniglot")
    zipped = Omniglot(root, **OPTIONS)
    for archive in sorted(root.glob("*.zip")):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(root)
        archive.unlink()
    unpacked = Omniglot(root, **OPTIONS)
    assert unpacked.fingerprint == zipped.fingerprint
    assert torch.equal(unpacked.parts["train"].pixels, zipped.parts["train"].pixels)


def test_omniglot_inverted_is_white_on_black(tmp_path, uncounted):
    root = write_omniglot(tmp_path / "omniglot")
    plain, inverted = (Omniglot(root, invert=invert, **OPTIONS).parts["test"].pixels for invert in (False, True))
    assert torch.equal(inverted, 255 - plain)


def test_omniglot_absent_damaged_or_of_another_size(tmp_path, uncounted):
    with pytest.raises(FileNotFoundError, match=r"no Omniglot in .*\(images_background_small1.zip is missing\); run"):
        Omniglot(tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="image_size must be 8 to 105, the size of the originals, got 128"):
        Omniglot(tmp_path, image_size=128, **OPTIONS)
    root = write_omniglot(tmp_path / "omniglot")
    first = root / "images_background_small1.zip"
    with zipfile.ZipFile(first, "w") as archive:
        archive.writestr("images_background_small1/Korean/character01/0001_01.png", b"nothing")
    with pytest.raises(OSError, match=r"cannot read the image Korean/character01/0001_01.png"):
        Omniglot(root, **OPTIONS)


def test_other_archives_of_omniglot_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"small1.zip has [\d,]+ bytes, expected 1,319,022: it is damaged, or another"):
        Omniglot(write_omniglot(tmp_path / "omniglot"), **OPTIONS)


# one's own folder


def own(root, **options):
    return ImageFolder(root, **{**OPTIONS, **options})


def test_folder_takes_classes_from_folders_and_images_by_extension(tmp_path):
    root = write_folder(tmp_path / "things")
    data = own(root)
    assert len(data.parts["train"]) == len(data.parts["test"]) == 8 * 5
    assert {name.rsplit(".", 1)[1] for name in data.parts["train"].names} == {"jpg", "JPG", "jpeg"}
    assert data.describe()["name"] == "folder"


def test_folder_draws_its_test_classes_by_name(tmp_path):
    root = write_folder(tmp_path / "things")
    quarter, half = (set(own(root, test_fraction=share).parts["test"].class_names_here()) for share in (0.25, 0.5))
    assert len(quarter) == 4
    assert quarter < half


def test_folder_takes_lists_of_classes(tmp_path):
    root = write_folder(tmp_path / "things")
    data = own(root, test_classes=["thing 3", "thing 12"], validation_classes=["thing 0", "thing 1"])
    assert data.parts["test"].class_names_here() == ["thing 12", "thing 3"]
    assert data.parts["validation"].class_names_here() == ["thing 0", "thing 1"]
    assert data.classes == 12
    assert list(data.evaluation) == ["validation", "test"]


def test_folder_with_validation_classes_and_a_share_of_test_classes(tmp_path):
    data = own(write_folder(tmp_path / "things"), validation_classes=["thing 0", "thing 1"], test_fraction=0.25)
    assert len(data.parts["test"].class_names_here()) == 4
    assert data.classes == 16 - 2 - 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_fraction": 0.0}, "test_fraction must be between 0 and 1, got 0.0"),
        ({"test_classes": ["cat"]}, "there is no class 'cat' in .*; its classes are thing 0, .*, ..."),
        ({"test_classes": ["thing 1"]}, "the test part of .* has 1 class, and two are needed"),
        ({"test_fraction": 0.95}, "the train part of .* has 1 class"),
        (
            {"test_classes": ["thing 1", "thing 2"], "validation_classes": ["thing 2"]},
            "'thing 2' is in test_classes and in validation_classes",
        ),
    ],
)
def test_folder_refuses_nonsense(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        own(write_folder(tmp_path / "things"), **options)


def test_a_share_of_the_training_classes_is_for_data_without_validation_classes_of_their_own(tmp_path, caplog):
    root, chosen = write_folder(tmp_path / "things"), ["thing 1", "thing 2"]
    with caplog.at_level("INFO"):
        data = own(root, validation_classes=chosen, validation_fraction=0.5)
    assert data.parts["validation"].class_names_here() == chosen
    assert data.describe() == own(root, validation_classes=chosen).describe()
    assert "data.validation_fraction is not used" in caplog.text


def test_folder_without_a_train_part_is_refused(tmp_path):
    root = write_folder(tmp_path / "things")
    with pytest.raises(ValueError, match="no class is left for training"):
        own(root, test_classes=[f"thing {kind}" for kind in range(16)])


def test_folder_warns_of_classes_with_one_image_and_refuses_only_such(tmp_path, caplog):
    root = write_folder(tmp_path / "things")
    for sample in range(1, 5):
        next((root / "thing 5").glob(f"{sample}.*")).unlink()
    own(root)
    assert re.search(r"1 of \d+ \w+ classes in .* have one image \(thing 5\)", caplog.text)
    for path in root.rglob("[1-4].*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"part of .* has one image, so none has another to find; use classes of two"):
        own(root)


def test_folder_absent_empty_or_flat(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere; check data.root"):
        own(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no images in"):
        own(tmp_path)
    picture(0, 0).save(tmp_path / "loose.jpg")
    with pytest.raises(ValueError, match=r"loose.jpg lies in .* itself, in no class"):
        own(tmp_path)


def test_folder_turns_photographs_upright(tmp_path):
    root = write_folder(tmp_path / "things")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    path = root / "thing 3" / "0.jpg"
    half = Image.new("RGB", (40, 40), (255, 255, 255))
    half.paste((0, 0, 0), (0, 0, 40, 20))  # dark above
    half.save(path, exif=exif)
    dataset = own(root, test_classes=["thing 3", "thing 4"]).evaluation["test"].dataset
    seen = dataset.image(dataset.rows.names.index("thing 3/0.jpg")).float()
    assert seen[:, 0].mean() > 200 > 50 > seen[:, -1].mean()


def numbered(records):
    return [(name, int(name.split("/")[0].removeprefix("thing "))) for name in records.names]


def table(root, rows, header=("path", "label")):
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return {"table": "table.csv"}


def listed(root):
    return sorted((p.relative_to(root).as_posix(), p.parent.name) for p in root.rglob("[0-4].*"))


def test_a_table_of_paths_and_labels(tmp_path):
    root = write_folder(tmp_path / "things")
    data = own(root, **table(root, listed(root)))
    assert data.fingerprint == own(root).fingerprint


def test_a_table_may_say_the_split_and_the_super_label(tmp_path):
    root = write_folder(tmp_path / "things")
    parts = {f"thing {kind}": ["train", "validation", "test"][kind % 3] for kind in range(16)}
    rows = [(path, label, parts[label], int(label[-1]) % 2) for path, label in listed(root)]
    data = own(root, **table(root, rows, ("path", "label", "split", "super_label")))
    for part, records in data.parts.items():
        assert {parts[name] for name in records.class_names_here()} == {part}
    assert data.parts["train"].super_labels.tolist() == [label % 2 for _, label in numbered(data.parts["train"])]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (("file", "label"), [("a", "b")], "has no column 'path'; its columns are file, label"),
        (("path", "label"), [("a.jpg", "")], "row 1: expected a path, a label"),
        (("path", "label", "split"), [("a.jpg", "a", "holdout")], "a split out of train, .*, query, gallery"),
        (("path", "label"), [("a.jpg", "a"), ("./a.jpg", "b")], "lists 'a.jpg' in rows 1 and 2; leave one row"),
        (("path", "label", "subset"), [("a.jpg", "a", "train")], "has the column 'subset', which may say who trains"),
        (
            ("path", "label", "split"),
            [("a.jpg", "a", "train"), ("b.jpg", "a", "test")],
            "class 'a' is in train and in test",
        ),
        (("path", "label", "split"), [("a.jpg", "a", "train"), ("b.jpg", "b", "")], "gives no split for 'b.jpg'"),
        (("path", "label", "split"), [("a.jpg", "a", "train")], "has no test images"),
    ],
)
def test_a_table_that_makes_no_sense(tmp_path, header, rows, message):
    with pytest.raises(ValueError, match=message):
        own(tmp_path, **table(tmp_path, rows, header))


def test_a_table_that_is_missing_or_lists_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no table .*table.csv"):
        own(tmp_path, table="table.csv")
    rows = [(f"{label}/{sample}.jpg", label) for label in "abcd" for sample in range(3)]
    with pytest.raises(FileNotFoundError, match="12 of 12 images are missing"):
        own(tmp_path, **table(tmp_path, rows))


# glyphs


@pytest.fixture(scope="module")
def glyphs():
    return Glyphs(renders=12, **{**OPTIONS, "test_transform": CentreCrop(32, None)})


def test_glyphs_are_the_same_every_time(glyphs):
    again = Glyphs(renders=12, seed=5, **OPTIONS)
    assert torch.equal(again.parts["test"].pixels, glyphs.parts["test"].pixels)
    assert again.fingerprint == glyphs.fingerprint
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(glyphs.parts["test"].pixels[:12]))


def test_glyphs_are_dark_on_light_and_inside_their_frame(glyphs):
    pixels = torch.cat([records.pixels for records in glyphs.parts.values()]).float()
    assert (pixels.flatten(1).median(dim=1).values == 255).float().mean() > 0.99
    assert (pixels.flatten(1).min(dim=1).values < 150).float().mean() > 0.99
    border = torch.cat([pixels[..., 0, :], pixels[..., -1, :], pixels[..., :, 0], pixels[..., :, -1]], dim=-1)
    assert (border > 200).float().mean() > 0.98  # hardly any letter is cut off


def test_raw_pixels_find_some_letters_and_far_from_all(glyphs):
    records = glyphs.parts["test"]
    vectors = functional.normalize((255 - records.pixels.float()).flatten(1), dim=1)
    scores = (vectors @ vectors.T).fill_diagonal_(-1)
    hits = (records.labels[scores.argmax(dim=1)] == records.labels).float().mean()
    assert 5 / len(GREEK + CYRILLIC) < hits < 0.5  # well above chance, and room to learn


def test_glyphs_have_the_letters_that_they_list(glyphs):
    assert glyphs.classes == len(LATIN) == len(set(LATIN))
    assert not set(LATIN) & set(GREEK + CYRILLIC)
    assert set(glyphs.parts["test"].class_names.values()) == set(GREEK + CYRILLIC)
    assert len(glyphs.parts["train"]) == 12 * len(LATIN)


def test_every_face_has_every_letter():
    from matplotlib.ft2font import FT2Font

    for face in FACES:
        drawn = FT2Font(str(font_folder() / face)).get_charmap()
        assert not [letter for letter in LATIN + GREEK + CYRILLIC if ord(letter) not in drawn]


def test_no_two_letters_look_alike():
    """The rule by which the lists were made, measured on the faces."""
    letters, faces = LATIN + GREEK + CYRILLIC, [ImageFont.truetype(str(font_folder() / face), 48) for face in FACES]
    offsets = torch.arange(-4, 5.0)
    blur = torch.exp(-(offsets**2) / (2 * 1.2**2))
    kernel = (blur[:, None] * blur / blur.sum() ** 2)[None, None]
    distance = torch.zeros(len(letters), len(letters))
    for face in faces:
        drawn = torch.stack([filling(letter, face) for letter in letters])[:, None]
        vectors = functional.normalize(functional.conv2d(drawn, kernel, padding=4).flatten(1), dim=1)
        distance += (1 - vectors @ vectors.T) / len(faces)
    distance.fill_diagonal_(1)
    first, second = divmod(int(distance.argmin()), len(letters))
    assert float(distance.min()) > 0.055, f"{letters[first]} and {letters[second]} look alike"


def filling(letter, face):
    """The letter filling a 32 x 32 box."""
    left, top, right, bottom = face.getbbox(letter)
    side = max(right - left, bottom - top) + 2
    image = Image.new("L", (int(side), int(side)))
    ImageDraw.Draw(image).text(
        (side / 2 - (left + right) / 2, side / 2 - (top + bottom) / 2), letter, font=face, fill=255
    )
    resized = image.resize((32, 32), Image.Resampling.BILINEAR)
    return torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(32, 32).float()


def test_glyphs_refuse_nonsense():
    with pytest.raises(ValueError, match="image_size must be 8 to 64, got 65"):
        Glyphs(image_size=65, **OPTIONS)
    with pytest.raises(ValueError, match="renders must be at least 2"):
        Glyphs(renders=1, **OPTIONS)


def test_glyphs_without_matplotlib_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ModuleNotFoundError, match="run: pip install matplotlib"):
        font_folder()


# fixtures


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_fixture_is_written_once_the_same_everywhere_and_small(tmp_path, layout):
    def content(folder):
        return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    first = LAYOUTS[layout](tmp_path / "a" / "data")
    written = content(first)
    times = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert LAYOUTS[layout](tmp_path / "a" / "data") == first == tmp_path / "a" / "data_fixture"
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == times
    assert content(LAYOUTS[layout](tmp_path / "b" / "data")) == written
    assert sum(map(len, written.values())) < 1_000_000
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["data_fixture"]


def test_fixtures_may_be_written_by_many_at_once(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        folders = set(pool.map(lambda _: write_folder(tmp_path / "things"), range(8)))
    assert folders == {tmp_path / "things_fixture"}
    assert len(list((tmp_path / "things_fixture").rglob("[0-4].*"))) == 16 * 5
    assert [p.name for p in tmp_path.iterdir()] == ["things_fixture"]


def test_pictures_of_a_class_are_more_alike_than_others():
    images = torch.stack(
        [torch.frombuffer(bytearray(picture(k, s).tobytes()), dtype=torch.uint8) for k in range(8) for s in range(4)]
    )
    colours = images.view(32, -1, 3).float().mean(dim=1)
    distance = torch.cdist(colours, colours).fill_diagonal_(1e9)
    assert (distance.argmin(dim=1) // 4 == torch.arange(32) // 4).float().mean() > 0.5


def test_a_folder_of_somebody_else_is_never_replaced_by_stand_in_data(tmp_path):
    (tmp_path / "cub_fixture").mkdir()
    (tmp_path / "cub_fixture" / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="cub_fixture is in the way of stand-in data"):
        write_cub(tmp_path / "cub")
    assert (tmp_path / "cub_fixture" / "precious.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["cub_fixture"]


def test_stand_in_data_of_an_older_version_are_replaced(tmp_path):
    folder = write_cub(tmp_path / "cub")
    (folder / ".fixture").write_text("0")
    (folder / "old.txt").write_text("old")
    assert write_cub(tmp_path / "cub") == folder
    assert not (folder / "old.txt").exists()

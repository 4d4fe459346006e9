"""Pascal VOC, BCCD and rendered scenes: image sets, counts, and what is said when something is missing."""

import filecmp
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torchvision.datasets import VOCDetection

from rambo.detection.bccd import BCCD, content_digest
from rambo.detection.fixture import VOC_CLASSES, write_bccd, write_voc
from rambo.detection.rendering import Look, render
from rambo.detection.scenes import Scenes
from rambo.detection.transforms import Resize, ResizeAndFlip
from rambo.detection.voc import VOC2007, VOC2012, PascalVOC

CONFIGS = Path(__file__).parents[2] / "configs" / "data"
LOOK = Look(width=64, height=48, radius=(0.15, 0.3))
AS_IT_IS = {"train_transform": ResizeAndFlip(None, None), "test_transform": Resize(None, None)}
BOTH = [[2007, "trainval"], [2012, "trainval"]]


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """The folder that stands in for data/voc, with its copy beside."""
    root = tmp_path_factory.mktemp("data") / "voc"
    write_voc(root)
    return root


@pytest.fixture
def uncounted(monkeypatch):
    """Lets a tiny copy pass for the real thing."""
    monkeypatch.setattr(PascalVOC, "expected", {})


# Pascal VOC


def test_the_published_counts_add_up():
    """Everingham et al. 2010, table 2, and the VOC2007 test objects by class."""
    facts = PascalVOC.expected
    for what in ("images", "objects"):
        assert facts[2007, "train"][what] + facts[2007, "val"][what] == facts[2007, "trainval"][what]
    assert sum(facts[2007, "test"]["per_class"].values()) == facts[2007, "test"]["objects"] == 12032
    assert facts[2007, "trainval"]["images"] + facts[2007, "test"]["images"] == 9963
    assert facts[2007, "trainval"]["objects"] + facts[2007, "test"]["objects"] == 24640
    assert len(VOC_CLASSES) == len(set(VOC_CLASSES)) == 20
    assert list(VOC_CLASSES) == sorted(VOC_CLASSES)


@pytest.mark.parametrize(("train", "counts"), [([[2007, "trainval"]], 20), (BOTH, 20 + 12)])
def test_image_sets_are_pairs_of_year_and_name(voc, train, counts):
    data = PascalVOC(voc, train=train, fixture=True)
    assert len(data.parts["train"]) == counts
    assert len(data.parts["test"]) == 20
    assert data.classes == list(VOC_CLASSES)
    assert list(data.evaluation) == ["test"]
    assert data.parts["train"].names[0] == "2007/000001"


def test_a_validation_set_is_evaluated_too(voc):
    data = PascalVOC(voc, train=[[2007, "train"]], validation=[[2007, "val"]], fixture=True)
    assert list(data.evaluation) == ["validation", "test"]
    assert [len(data.parts[part]) for part in ("train", "validation", "test")] == [10, 10, 20]


@pytest.mark.parametrize(("year", "part"), [("2007", "trainval"), ("2007", "test"), ("2012", "train")])
def test_everything_is_read_as_torchvision_reads_it(voc, year, part):
    folder = voc.with_name("voc_fixture")
    theirs = VOCDetection(folder, year=year, image_set=part)
    ours = PascalVOC(voc, train=[[2012, "val"]], test=[[int(year), part]], fixture=True).parts["test"]
    assert len(theirs) == len(ours) > 0
    for index, (picture, notes) in enumerate(theirs):
        objects = notes["annotation"].get("object", [])
        corners = [[float(o["bndbox"][tag]) for tag in ("xmin", "ymin", "xmax", "ymax")] for o in objects]
        expected = torch.tensor(corners).reshape(-1, 4) - torch.tensor([1.0, 1, 0, 0])
        torch.testing.assert_close(ours.objects[index]["boxes"], expected)
        assert [ours.classes[label - 1] for label in ours.objects[index]["labels"].tolist()] == [
            o["name"] for o in objects
        ]
        assert ours.objects[index]["difficult"].tolist() == [o["difficult"] == "1" for o in objects]
        assert torch.equal(ours.load(index), torch.from_numpy(np.array(picture)).permute(2, 0, 1))


def test_parts_of_persons_are_no_objects(voc, uncounted):
    data = PascalVOC(voc, fixture=True)
    texts = [(data.root / "VOCdevkit/VOC2007/Annotations" / f"{name[5:]}.xml") for name in data.parts["train"].names]
    raw = "".join(path.read_text() for path in texts)
    assert raw.count("<part>") > 0  # the copy has some
    found = sum(len(found["labels"]) for found in data.parts["train"].objects)
    assert found == raw.count("<object>") < raw.count("<name>") == raw.count("<bndbox>")


def test_corners_may_be_decimal_numbers(voc):
    data = PascalVOC(voc, train=[[2012, "train"]], fixture=True)
    whole = [bool((found["boxes"] % 1 == 0).all()) for found in data.parts["train"].objects]
    assert whole == [False] + [True] * 5
    text = (data.root / "VOCdevkit/VOC2012/Annotations/2008_000001.xml").read_text()
    left = float(re.search(r"<xmin>([\d.]+)</xmin>", text)[1])
    assert left % 1 == pytest.approx(0.7, abs=1e-5)
    assert data.parts["train"].objects[0]["boxes"][0, 0].item() == pytest.approx(left - 1)


def test_root_may_be_the_devkit_itself(voc, uncounted):
    above = PascalVOC(voc.with_name("voc_fixture"))
    inside = PascalVOC(voc.with_name("voc_fixture") / "VOCdevkit")
    assert above.fingerprint == inside.fingerprint


def test_a_copy_with_other_counts_does_not_pass_for_the_real_thing(voc):
    folder = voc.with_name("voc_fixture")
    with pytest.raises(
        ValueError, match=r"2007 trainval has images 20, .* published split has images 5,011, objects 12,608"
    ):
        PascalVOC(folder)
    with pytest.raises(
        ValueError, match=r"2012 trainval has images 12, .* images 11,540, objects 27,450; run: .*voc2012"
    ):
        PascalVOC(folder, train=[[2012, "trainval"]])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"train": [[2008, "trainval"]]},
            r"VOC2008 \(ImageSets/Main is missing\); take 2007 or 2012, or a kit",
        ),
        ({"train": [[1999, "trainval"]]}, "of another year, 2005 to 2012, from the pages"),
        ({"test": [[2012, "test"]]}, r"data.test: Pascal VOC 2012 has no public boxes for its test images; take"),
        ({"test": [[2012, "tset"]]}, r"has no image set tset \(.*tset.txt is missing; there: train, trainval, val\)"),
        (
            {"train": ["trainval"]},
            r"data.train: an image set is a pair such as \[2007, trainval\], got \['', 'trainval",
        ),
        ({"train": [2007, "trainval"]}, r"data.train must be a list of image sets, such as \[\[2007, 'trainval'\]\]"),
        ({"train": 2007}, r"data.train must be a list of image sets.* got 2007"),
        ({"train": []}, r"data.train names no image set; it needs one"),
        (
            {"train": [[2007, "train"], [2007, "trainval"]]},
            "image 2007/000001 is twice in train; choose image sets that",
        ),
        ({"validation": [[2007, "val"]]}, "image 2007/000011 is in train and in validation"),
    ],
)
def test_image_sets_that_make_no_sense_are_refused(voc, settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        PascalVOC(voc, fixture=True, **settings)


def test_a_missing_devkit_is_refused(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no Pascal VOC in .*VOC2007 .*; run: python scripts/download.py voc20"
    ):
        PascalVOC(tmp_path / "voc")


def test_trainval_unpacked_without_the_test_is_told(voc, tmp_path, uncounted):
    shutil.copytree(voc.with_name("voc_fixture"), tmp_path / "voc")
    (tmp_path / "voc/VOCdevkit/VOC2007/ImageSets/Main/test.txt").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"has no image set test .*there: train, trainval, val\); run: .*voc2007"
    ):
        PascalVOC(tmp_path / "voc")


def test_archives_have_hashes_and_several_homes():
    files = VOC2007.files + VOC2012.files
    assert [file.name[:11] for file in files] == ["VOCtrainval", "VOCtest_06-", "VOCtrainval"]
    for file in files:
        assert len(file.sha256) == 64
        assert file.size % 512 == 0  # tar
        assert len(set(file.urls)) == len(file.urls) >= 3
        assert all(url.endswith(f"/{file.name}") for url in file.urls)


# BCCD


def test_bccd_drops_its_points_and_knows_its_classes(tmp_path):
    data = BCCD(tmp_path / "bccd", fixture=True)
    assert data.classes == ["RBC", "WBC", "Platelets"]
    assert [len(data.parts[part]) for part in ("train", "test")] == [16, 8]
    assert data.describe()["train"]["broken_boxes_dropped"] == 1
    assert data.parts["train"].names[0] == "BloodImage_00000"
    with pytest.raises(ValueError, match=r"from \(50, 40\) to \(50, 40\) is empty"):
        BCCD(tmp_path / "bccd", fixture=True, broken_boxes="refuse")


def test_bccd_checks_counts_and_contents(tmp_path, monkeypatch):
    root = write_bccd(tmp_path / "bccd")
    with pytest.raises(
        ValueError, match=r"trainval has images 16, per class .* published split has images 292, per class \(RBC"
    ):
        BCCD(root)
    monkeypatch.setattr(BCCD, "expected", {})
    with pytest.raises(ValueError, match=r"the contents have sha256 [0-9a-f]{64}, expected 59eb0d82"):
        BCCD(root)
    monkeypatch.setattr(BCCD, "content", content_digest(root / "BCCD"))
    assert BCCD(root).fingerprint == BCCD(root / "BCCD").fingerprint
    path = root / "BCCD/Annotations/BloodImage_00000.xml"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    BCCD(root)  # line ends differ between systems
    (root / "BCCD/JPEGImages/BloodImage_00001.jpg").write_bytes(
        (root / "BCCD/JPEGImages/BloodImage_00000.jpg").read_bytes()
    )
    with pytest.raises(ValueError, match="files were changed, added or lost"):
        BCCD(root)


def test_bccd_is_found_where_its_archive_unpacks(tmp_path, monkeypatch):
    monkeypatch.setattr(BCCD, "expected", {})
    root = write_bccd(tmp_path / "bccd")
    monkeypatch.setattr(BCCD, "content", content_digest(root / "BCCD"))
    commit = re.search(r"/([0-9a-f]{40})\.zip$", BCCD.files[0].urls[0])[1]
    inner = root / f"BCCD_Dataset-{commit}"
    inner.mkdir()
    (root / "BCCD").rename(inner / "BCCD")
    assert len(BCCD(root).parts["test"]) == 8
    with pytest.raises(FileNotFoundError, match=r"no BCCD in .*; run: python scripts/download.py bccd"):
        BCCD(tmp_path / "elsewhere")


# Rendered scenes


def test_a_box_fits_tightly_around_what_is_drawn():
    """Without background, bars and noise, everything that differs from grey is an object."""
    plain = Look(width=64, height=48, objects=1, background=0.0, noise=0.0, difficult=0.0, bars=0, rotation=180)
    cut = 0
    for seed in range(40):
        picture, ((kind, corners, truncated, difficult),) = render(plain, np.random.default_rng(seed), kinds=4)
        rows, columns = np.nonzero(np.abs(np.asarray(picture).astype(int) - 128).sum(axis=2) > 60)
        seen = (columns.min() + 1, rows.min() + 1, columns.max() + 1, rows.max() + 1)
        assert np.abs(np.subtract(seen, corners)).max() <= 1
        assert 0 <= kind < 4
        assert not difficult
        touches = corners[0] == 1 or corners[1] == 1 or corners[2] == 64 or corners[3] == 48
        assert touches or not truncated
        cut += truncated
    assert 0 < cut < 40


def test_difficult_objects_are_hardly_to_be_seen():
    plain = Look(objects=1, background=0.0, noise=0.0, bars=0)
    contrasts = []
    for special_ in ("", "difficult"):
        picture, ((_, (left, top, right, bottom), _, flag),) = render(
            plain, np.random.default_rng(5), first=0, special=special_
        )
        middle = np.asarray(picture).astype(float)[(top + bottom) // 2, (left + right) // 2]
        contrasts.append(np.abs(middle - 128).sum())
        assert flag == bool(special_)
    assert contrasts[1] < 0.2 * contrasts[0]


def test_scenes_follow_from_their_arguments_to_the_byte(tmp_path):
    small = {"train_images": 6, "validation_images": 4, "test_images": 4, "image_size": 48}
    first, second = (Scenes(tmp_path / name / "scenes", **small) for name in "ab")
    files = [path.relative_to(first.root) for path in first.root.rglob("*") if path.is_file()]
    assert len([path for path in files if path.suffix == ".jpg"]) == 14
    match, differ, lost = filecmp.cmpfiles(first.root, second.root, files, shallow=False)
    assert (differ, lost) == ([], [])
    assert len(match) == len(files)
    others = ({"rotation": 180}, {"scene_seed": 1}, {"background": 1.0}, {"image_size": 64}, {"test_images": 5})
    marks = {Scenes(tmp_path / "a" / "scenes", **{**small, **other}).fingerprint for other in others}
    assert len(marks | {first.fingerprint}) == 6  # also another background, which moves no box
    assert len(list((tmp_path / "a" / "scenes").iterdir())) == 6
    stamp = (first.root / ".fixture").stat().st_mtime_ns
    assert Scenes(tmp_path / "a" / "scenes", **small, seed=5).fingerprint == first.fingerprint
    assert (first.root / ".fixture").stat().st_mtime_ns == stamp  # read, not written again


def test_scenes_have_three_parts_and_are_not_resized(tmp_path):
    data = Scenes(tmp_path / "scenes", fixture=True)
    assert {name: len(part) for name, part in data.parts.items()} == {"train": 16, "validation": 8, "test": 8}
    assert data.classes == ["circle", "cross", "square", "triangle"]
    assert next(iter(data.evaluation["test"]))["scales"].tolist() == [[1.0, 1.0]] * 8
    for part in data.parts.values():
        assert sum(not len(found["labels"]) for found in part.objects) == 1
        assert any(found["difficult"].tolist() == [True] for found in part.objects)
    none = Scenes(tmp_path / "scenes", train_images=4, validation_images=0, test_images=4, image_size=32)
    assert list(none.evaluation) == ["test"]
    with pytest.raises(ValueError, match="scenes need images to train and to test on; got 0 for test"):
        Scenes(tmp_path / "scenes", test_images=0)
    with pytest.raises(ValueError, match="rotation must be 0 to 180 degrees, got 270"):
        Scenes(tmp_path / "scenes", rotation=270)


# Configs


@pytest.mark.parametrize(
    "name", ["voc07", "voc0712", "bccd", "scenes", "voc_style", "coco_style", "yolo_style", "huggingface_detection"]
)
def test_every_config_runs_on_its_stand_in(name, tmp_path):
    config = OmegaConf.create(
        {"data": OmegaConf.load(CONFIGS / f"{name}.yaml"), "paths": {"data": str(tmp_path)}, "workers": 0, "seed": 3}
    )
    config.data.fixture = True
    data = instantiate(config.data, _convert_="all")
    batch = next(iter(data.train))
    assert len(batch["images"]) == min(config.data.batch_size, 4)
    assert data.describe()["fixture"] is True
    if name != "scenes":
        assert all(max(image.shape) == 800 and min(image.shape[1:]) == 600 for image in batch["images"])

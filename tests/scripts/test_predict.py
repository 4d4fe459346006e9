"""scripts/predict.py: predictions of a run with their shots, boxes in three formats, and what it refuses."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from loaded_script import loaded
from PIL import Image

from harness.files import whole_folder
from harness.record import load
from harness.record.restored import restored
from rambo.detection.annotations import Rules, annotated_images
from rambo.detection.voc_xml import read_image_set
from rambo.detection.written import Written, names_of
from ranksim.bins import Bins, Density
from ranksim.evaluation import predict


@pytest.fixture(scope="module")
def script():
    module = loaded("predict")
    return lambda *words: module.main([*map(str, words), "--device", "cpu"])


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_gets_predictions_in_the_unit_of_its_target(runs_of, script, tmp_path, capsys):
    run = runs_of("table_ranksim", "data.target_scale=50")
    its = restored(run, "best_on_validation")
    own = predict(its.model, its.data.evaluation["test"])
    rows = [int(name.split()[1]) - 1 for name in its.data.parts["test"].names]
    script(run, its.data.root / "table.csv", "--out", out := tmp_path / "new" / "out.csv")
    found = read(out)
    assert list(found[0]) == ["width", "height", "weight", "target", "prediction", "shot"]
    predicted = torch.tensor([float(found[row]["prediction"]) for row in rows])
    torch.testing.assert_close(predicted, own.predictions)
    rule = {key: its.config["metrics"][key] for key in ("many", "few")}
    assert [found[row]["shot"] for row in rows] == its.data.density.regions(predicted, **rule)
    assert capsys.readouterr().out == f"{len(found)} predictions (target): {out}\n"
    for words, said in (
        ([tmp_path], "takes one table"),
        ([out, "--out", tmp_path / "b.csv"], "has a column 'prediction' already"),
        ([its.data.root / "table.csv", "--out", out], "is there already; choose another --out, or add --force"),
        ([out, "--threshold", "0.5"], "--to and --threshold are for detectors"),
    ):
        with pytest.raises(SystemExit, match=said):
            script(run, *words)


def test_pictures_get_predictions_and_bad_ones_are_left_out_on_request(runs_of, script, tmp_path, capsys):
    run = runs_of("table_ranksim", "data.image=path", "model=small_convnet_regression")
    pictures = sorted((run.parent / "data").rglob("*.png"))[:3]
    there = tmp_path / "photos"
    there.mkdir()
    (there / "000_bad.png").write_text("no picture")
    copies = [Path(shutil.copy(picture, there)) for picture in pictures]
    out = tmp_path / "out.csv"
    with pytest.raises(SystemExit, match=r"cannot read the image .*000_bad\.png"):
        script(run, there, "--out", out)
    assert not out.exists()
    script(run, there, "--out", out, "--on-bad-image", "skip", "--batch-size", 1)
    told = capsys.readouterr()
    assert "1 of 4 inputs could not be read and were left out" in told.err
    assert told.out == f"3 predictions (target): {out}\n"
    found = read(out)
    assert [row["path"] for row in found] == [str(copy) for copy in copies]
    expected = load(run, device="cpu").predict(copies, 1).tolist()
    assert [float(row["prediction"]) for row in found] == pytest.approx(expected, rel=1e-7)
    (tmp_path / "list.csv").write_text(f"id,path\n7,{copies[2]}\n9,{copies[0]}\n")
    script(run, tmp_path / "list.csv", "--out", out, "--force", "--batch-size", 1)
    again = read(out)
    assert [row["id"] for row in again] == ["7", "9"]
    assert [row["prediction"] for row in again] == [found[2]["prediction"], found[0]["prediction"]]
    (tmp_path / "list.csv").write_text(f"path,crop\n{copies[0]},0 0 9 9\n{copies[0]},\n")
    script(run, tmp_path / "list.csv", "--out", out, "--force", "--batch-size", 1)
    expected = load(run, device="cpu").predict([Image.open(copies[0]).crop((0, 0, 9, 9)), copies[0]], 1).tolist()
    assert [float(row["prediction"]) for row in read(out)] == pytest.approx(expected, rel=1e-7)
    with pytest.raises(SystemExit, match="none of the 1 inputs could be read; the first: cannot read"):
        script(run, there / "000_bad.png", "--out", tmp_path / "none.csv", "--on-bad-image", "skip")


def test_the_region_of_a_value():
    density = Density([0.5] * 5 + [1.5] * 3 + [2.5], Bins([0, 1, 2, 3, 4]))
    rule = {"many": 4, "few": 2}
    values = [-0.1, 0.0, 1.9, 2.0, 3.5, 4.0, 4.1]
    assert density.regions(values, **rule) == ["none", "many", "medium", "few", "none", "none", "none"]
    within = Density([0.5] * 5, Bins([0, 1]))
    assert within.regions([1.0, 1.1], **rule) == ["many", "none"]


def test_written_boxes_are_read_again(tmp_path):
    """As a data set of Pascal VOC, whose boxes are whole pixels; as COCO's JSON; and in a picture."""
    picture = torch.full((3, 40, 60), 200, dtype=torch.uint8)
    boxes = torch.tensor([[10.2, 5.6, 30.4, 25.0], [0.0, 0.0, 60.0, 40.0], [59.7, 39.8, 60.0, 40.0]])
    found = {"boxes": boxes, "labels": torch.tensor([2, 1, 2]), "scores": torch.tensor([0.75, 0.5, 0.25])}
    nothing = {key: value[:0] for key, value in found.items()}
    (tmp_path / "JPEGImages" / "b").mkdir(parents=True)
    files = [tmp_path / "JPEGImages" / name for name in ("a.png", "b/a.png")]
    for file in files:
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file)
    written = Written(tmp_path, ["cat", "dog"])
    for name, file, what in zip(names_of(files), files, (found, nothing), strict=True):
        written.add(name, file, picture, what)
    written.finish()

    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "all.txt").write_text("a\nb/a\n")
    annotations = read_image_set(tmp_path, "all", "", "VOC", "")
    read = annotated_images(annotations, ["cat", "dog"], Rules("refuse", 1, "refuse", False)).objects
    assert read[0]["boxes"].tolist() == [[10, 6, 30, 25], [0, 0, 60, 40], [59, 39, 60, 40]]
    assert read[0]["labels"].tolist() == [2, 1, 2]
    assert not len(read[1]["labels"])

    said = json.loads((tmp_path / "detections.json").read_text())
    assert [image["file_name"] for image in said["images"]] == [str(file) for file in files]
    assert said["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    first = said["annotations"][0]
    assert (first["image_id"], first["category_id"], first["score"]) == (1, 2, 0.75)
    assert first["bbox"] == pytest.approx([10.2, 5.6, 20.2, 19.4], abs=1e-5)
    with Image.open(tmp_path / "pictures" / "a.jpg") as drawn, Image.open(tmp_path / "pictures" / "b/a.jpg") as plain:
        assert drawn.size == (60, 40)
        assert max(abs(one - 200) for one in plain.getpixel((30, 5))) < 8
        assert max(abs(one - 200) for one in drawn.getpixel((20, 24))) > 60  # the lower side of the first box


def test_names_tell_files_apart():
    paths = [Path("x/a.jpg"), Path("x/a.png"), Path("x/y/b.png")]
    assert names_of(paths) == ["a.jpg", "a.png", "y/b"]
    assert names_of([Path("x/a.jpg")]) == ["a"]


def test_a_folder_is_whole_or_not_there(tmp_path):

    def fail():
        with whole_folder(tmp_path / "out") as folder:
            (folder / "half").touch()
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert not list(tmp_path.iterdir())
    for force, text in ((False, "first"), (True, "second")):
        with whole_folder(tmp_path / "out", force) as folder:
            (folder / "in").mkdir()
            (folder / "in" / "a").write_text(text)
            (folder / text).touch()
    assert (tmp_path / "out" / "in" / "a").read_text() == "second"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["first", "in", "second"]
    with pytest.raises(FileExistsError, match="out is there already"), whole_folder(tmp_path / "out"):
        pass


@pytest.mark.slow
def test_a_detector_writes_what_it_finds(runs_of, script, tmp_path, capsys):
    run = runs_of("demo_detection", "data.test_transform.shorter=96")
    picture = sorted((run.parent / "data").rglob("*.jpg"))[0]
    script(run, picture, "--out", out := tmp_path / "out", "--threshold", 0, "--to", "coco")
    found = load(run, device="cpu").predict([picture])[0]
    said = json.loads((out / "detections.json").read_text())
    assert [path.name for path in out.iterdir()] == ["detections.json"]
    assert [one["category_id"] for one in said["annotations"]] == found["labels"].tolist()
    left, top, width, height = torch.tensor([one["bbox"] for one in said["annotations"]]).T
    torch.testing.assert_close(torch.stack([left, top, left + width, top + height], 1), found["boxes"])
    assert capsys.readouterr().out == f"{len(found['labels'])} objects in 1 pictures: {out}\n"
    script(run, picture, "--out", out, "--threshold", 1, "--force")
    assert "0 objects in 1 pictures (no score is above 1, the highest is 0." in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["Annotations", "detections.json", "pictures"]

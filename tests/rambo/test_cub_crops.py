"""The crops of CUB-200-2011: known by hash, brought from an archive or cut from the official photographs."""

import csv
import gzip
import hashlib
import shutil
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import torchvision.transforms.v2.functional as vision
from torch import nn

from harness.data.download import RemoteFile
from harness.data.images import decode
from rambo.datasets import cub_crops
from rambo.datasets.cub import CUB200
from rambo.datasets.cub_crops import CUBCrops, manifest
from rambo.datasets.fixture import write_cub, write_cub_crops
from rambo.sampling import ClassBalancedBatches

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import download

OPTIONS = {
    "sampler": partial(ClassBalancedBatches, batch_size=4, samples_per_class=2),
    "train_transform": nn.Identity(),
    "test_transform": nn.Identity(),
}
INSIDE = "vision-16a8a47/ex03/task2/bird_dataset/images"


def test_the_manifest_lists_the_published_crops():
    rows = manifest()
    assert len({row["sha256"] for row in rows}) == len({row["path"] for row in rows}) == 5902
    assert all(row["path"].startswith(f"images/{row['label']}/") for row in rows)
    assert all((row["split"] == "train") == (int(row["label"][:3]) <= 100) for row in rows)
    for part, facts in CUBCrops.expected.items():
        labels = [row["label"] for row in rows if row["split"] == part]
        assert facts == {"images": len(labels), "classes": len(set(labels))}


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The fixture taken for what is published: its folder, and its archive behind an address with other names."""
    made = write_cub_crops(tmp_path / "made")
    rows = list(csv.DictReader((made / "images.csv").open()))
    monkeypatch.setattr(cub_crops, "MANIFEST", tmp_path / "manifest.csv.gz")
    with gzip.open(cub_crops.MANIFEST, "wt", newline="") as file:
        writer = csv.DictWriter(file, ["path", "sha256", "label", "split"])
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "sha256": hashlib.sha256((made / row["path"]).read_bytes()).hexdigest()})
    for row in rows:
        place = tmp_path / "packed" / INSIDE / row["path"].split(".", 1)[1]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made / row["path"], place)
    (tmp_path / "packed" / "vision-16a8a47" / "other.jpg").write_bytes(b"none of ours")
    (tmp_path / "site").mkdir()
    shutil.make_archive(str(tmp_path / "site" / "vision"), "zip", tmp_path / "packed")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path / "site")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/vision.zip"
    monkeypatch.setattr(CUBCrops, "files", (RemoteFile("vision.zip", urls=(url,), unpack=True),))
    counts = {"images": 40, "classes": 8}
    monkeypatch.setattr(CUBCrops, "expected", {"train": counts, "test": counts})
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_archive_is_taken_by_the_hash_of_its_images(published, tmp_path, capsys):
    root = tmp_path / "crops"
    assert download.main(["cub_crops", "--root", str(root)]) == 0
    assert "is complete" in capsys.readouterr().out
    expected = {name: content for name, content in files(published).items() if name != ".fixture"}
    assert files(root) == expected
    assert {path.name for path in root.iterdir()} == {"images", "images.csv"}
    data = CUBCrops(root, **OPTIONS)
    assert data.downloads == ("cub_crops",)
    assert data.describe()["name"] == "CUB-200-2011 crops"

    victim = root / "images" / "108.House_Wren" / "0002.jpg"
    shutil.copy(root / "images" / "108.House_Wren" / "0001.jpg", victim)
    assert download.main(["cub_crops", "--root", str(root), "--verify"]) == 1
    assert "1 of 80 images are not the published ones (images/108.House_Wren/0002.jpg)" in capsys.readouterr().out
    assert download.main(["cub_crops", "--root", str(root)]) == 0  # it comes back
    assert files(root) == expected

    listed = root / "images.csv"
    listed.write_text(listed.read_text().replace("0004.jpg,108.House_Wren", "0004.jpg,105.Blue_Jay"))
    with pytest.raises(ValueError, match=r"images.csv is not the published one; remove it and run: python scripts"):
        CUBCrops(root, **OPTIONS)


def test_an_archive_that_lacks_an_image_leaves_nothing(published, tmp_path, capsys):
    (tmp_path / "packed" / INSIDE / "Anna_Hummingbird" / "0003.jpg").write_bytes(b"changed at its source")
    shutil.make_archive(str(tmp_path / "site" / "vision"), "zip", tmp_path / "packed")
    assert download.main(["cub_crops", "--root", str(tmp_path / "crops")]) == 1
    error = capsys.readouterr().err
    assert "lacks 1 of 80 images (images/104.Anna_Hummingbird/0003.jpg); delete it" in error
    assert [path.name for path in (tmp_path / "crops").iterdir()] == ["vision.zip"]


def test_crops_are_cut_from_the_official_photographs_by_their_boxes(tmp_path, monkeypatch, capsys):
    official = write_cub(tmp_path / "cub")
    lists = official / "CUB_200_2011"
    numbers = [line.split() for line in (lists / "images.txt").read_text().splitlines()]
    boxes = {number: (3.0 + int(number) % 5, 4.0, 60.0, 41.0) for number, _ in numbers}  # of 80 x 64
    text = "".join(f"{number} {' '.join(map(str, box))}\n" for number, box in boxes.items())
    (lists / "bounding_boxes.txt").write_text(text)
    splits = {"002.Laysan_Albatross": "train", "007.Gray_Catbird": "train"}
    splits |= {"010.Purple_Finch": "test", "016.House_Wren": "test"}
    rows = [{"path": f"images/{name}/0000.jpg", "label": name, "split": part} for name, part in splits.items()]
    monkeypatch.setattr(cub_crops, "manifest", lambda: rows)
    monkeypatch.setattr(CUB200, "expected", {})
    counts = {"images": 12, "classes": 2}
    monkeypatch.setattr(CUBCrops, "expected", {"train": counts, "test": counts})

    arguments = ["cub_crops", "--root", str(tmp_path / "crops"), "--from", str(official)]
    assert download.main(arguments) == 0
    assert "these were cut here and have other pixels" in capsys.readouterr().out
    data = CUBCrops(tmp_path / "crops", **OPTIONS)
    assert data.describe()["name"] == "CUB-200-2011 crops, cut here"
    assert data.downloads == ()
    assert sorted(data.parts["test"].class_names.values())[-1] == "Purple Finch"
    number, name = next(pair for pair in numbers if pair[1].startswith("010."))
    left = int(boxes[number][0])
    found = data.parts["test"].load(data.parts["test"].names.index(f"images/{name}"))
    whole = decode(lists / "images" / name)[:, 4:45, left : left + 60]
    expected = vision.resize(whole, [227, 227], antialias=True)
    assert found.shape == (3, 227, 227)
    assert (found.float() - expected.float()).abs().mean() < 3  # JPEG

    before = files(tmp_path / "crops")
    assert download.main(arguments) == 1
    assert "has crops already" in capsys.readouterr().err
    assert files(tmp_path / "crops") == before
    assert torch.equal(data.parts["train"].labels.unique(), torch.arange(2))


def test_cutting_is_for_crops_alone(capsys):
    with pytest.raises(SystemExit):
        download.main(["sop", "--from", "data/cub"])
    assert "--from is for cub_crops" in capsys.readouterr().err

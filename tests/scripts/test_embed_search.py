"""From a folder of images to a searchable page, by a model that is a folder of two files."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from loaded_script import loaded
from parsed_page import Page
from PIL import Image

from harness.data.image_list import image_list
from harness.record.standalone import Trained, load
from rambo import embeddings, gallery
from rambo.datasets.fixture import picture
from rambo.search import search as nearest

NETWORK = {
    "_target_": "rambo.model.RetrievalModel",
    "backbone": {"_target_": "harness.data.backbones.SmallConvNet", "width": 4},
    "weights": "none",
    "embedding_size": 8,
    "mean": [0.5] * 3,
    "std": [0.5] * 3,
}
READER = {"_target_": "harness.data.reading.Images", "size": [16, 16], "upright": True}


def command(name):
    module = loaded(name)
    return lambda *arguments: module.main([str(argument) for argument in arguments])


embed, search = command("embed"), command("search")


def a_model(folder, seed=0, task="retrieval"):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = instantiate(NETWORK, _convert_="all")
    facts = {"format": 1, "task": task, "model": NETWORK, "reader": READER, "batch_size": 4, "classes": []}
    facts |= {"checkpoint": "last", "epoch": 2, "run": {"experiment": "toy", "seed": seed}}
    return Trained(network.eval(), None, facts).save(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return a_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Where the commands are given: with a folder of images, one of them under a name that a page must not believe."""
    for kind in range(3):
        for number in range(4):
            path = tmp_path / "images" / f"kind {kind}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(kind, number, 40, 30).save(path)
    picture(5, 0, 300, 400).save(tmp_path / "images" / "<img src=x>.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def brute_force(found, queries, k):
    """Names of the best of all others, by a loop."""
    names, result = found.images.names, {}
    for query in queries:
        scores = found.vectors @ found.vectors[names.index(query)]
        order = sorted((-score, i) for i, score in enumerate(scores.tolist()) if names[i] != query)
        result[query] = [names[i] for _, i in order[:k]]
    return result


def records(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_a_folder_becomes_a_page(model, place, capsys):
    embed(model, "images", "--out", "embeddings.npz")
    assert "embeddings.npz: 13 images, 8 dimensions" in capsys.readouterr().out
    found = embeddings.read("embeddings.npz")
    assert found.images.names[0] == "<img src=x>.jpg"
    assert torch.equal(found.vectors, load(model, device="cpu").embed(found.images.paths))
    with np.load("embeddings.npz") as file:  # as somebody without this program reads it
        assert file["paths"][1] == "kind 0/0.png"
        assert np.array_equal(file["embeddings"], found.vectors.numpy())

    search(model, "images", "--gallery", "embeddings.npz", "-k", 3, "--csv", "found.csv", "--html", "page.html")
    assert "13 images searched" in capsys.readouterr().out
    told = {}
    for record in records(place / "found.csv"):
        asked, answer = (str(Path(record[key]).relative_to(place / "images")) for key in ("query", "found"))
        told.setdefault(asked, []).append(answer)
    assert told == brute_force(found, found.images.names, 3)

    page = Page((place / "page.html").read_text())
    assert page.problems == []
    assert len(page.images("png")) + len(page.images("jpeg")) == len(page.all("img")) == 13 * 4
    assert len(page.images("jpeg")) == sum("<img src=x>.jpg" in names for names in told.values()) + 1
    assert "<img src=x>.jpg" in page.text
    assert not [element for element in page.all("link") if element["href"] != "data:,"]


def test_a_table_keeps_its_columns_and_many_are_mapped(model, place, capsys):
    rows = [f"kind {k}/{n}.png;{'abc'[k]}" for k in range(3) for n in range(4)]
    (place / "images" / "table.csv").write_text("\n".join(["photo;letter", *rows]))
    embed(model, "images/table.csv", "--out", "embeddings.npy", "--workers", 1)
    found = embeddings.read("embeddings.npy")
    assert np.array_equal(np.load("embeddings.npy", mmap_mode="r"), found.vectors.numpy())
    assert found.images.columns == {"letter": [*"aaaabbbbcccc"]}
    embed(model, "images", "--out", "embeddings.npy", "--add")
    assert "12 of 13 images are in embeddings.npy already" in capsys.readouterr().out
    found = embeddings.read("embeddings.npy")
    assert found.images.names[-1] == "<img src=x>.jpg"
    assert found.images.columns == {"letter": [*"aaaabbbbcccc", ""]}

    embeddings.write(Path("both.npz"), found)
    again = embeddings.read("both.npz")
    assert torch.equal(again.vectors, found.vectors)
    assert (again.images, again.model, again.parts) == (found.images, found.model, found.parts)
    search(model, "both.npz", "--gallery", "embeddings.npy", "-k", 2, "--csv", "found.csv")
    assert all(one["letter"] == ("abc"[int(Path(one["found"]).parent.name[5:])]) for one in records(place / "found.csv")
               if "kind" in one["found"])  # fmt: skip

    embeddings.described(Path("embeddings.npy")).replace("kept.json")
    embed(model, "images/kind 1", "--out", "embeddings.npy", "--force")
    Path("kept.json").replace("embeddings.json")
    with pytest.raises(ValueError, match="is damaged, or no embeddings of this program"):
        embeddings.read("embeddings.npy")


def test_crops_of_a_table_are_what_is_embedded(model, place):
    rows = ["kind 0/0.png,,", 'kind 0/0.png,"0,0,9,30",left', 'kind 0/0.png,"20 5 40 30",right']
    (place / "images" / "table.csv").write_text("\n".join(["path,crop,side", *rows]))
    embed(model, "images/table.csv", "--out", "embeddings.npz")
    found = embeddings.read("embeddings.npz")
    picture = Image.open("images/kind 0/0.png")
    parts = [picture, picture.crop((0, 0, 9, 30)), picture.crop((20, 5, 40, 30))]
    assert torch.equal(found.vectors, load(model, device="cpu").embed(parts))
    search(model, "images/table.csv", "--gallery", "embeddings.npz", "-k", 2, "--html", "page.html")
    page = Page((place / "page.html").read_text())
    assert sorted(page.text.count(f"kind 0/0.png {crop}") for crop in ("(0, 0, 9, 30)", "(20, 5, 40, 30)")) == [3, 3]
    assert len({image["src"] for image in page.images("png")}) == 3


def test_what_cannot_be_read_stops_or_is_left_out(model, place, capsys):
    embed(model, "images", "--out", "embeddings.npz")
    before = Path("embeddings.npz").read_bytes()
    whole = Path("images/kind 1/2.png").read_bytes()
    Path("images/kind 1/2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit, match=r"^error: cannot read the image .*kind 1/2.png"):
        embed(model, "images", "--out", "embeddings.npz", "--force")
    Path("images/kind 0/1.png").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"^error: 1 of 13 images are missing or empty \(.*kind 0/1.png"):
        embed(model, "images", "--out", "embeddings.npz", "--force")
    assert Path("embeddings.npz").read_bytes() == before
    embed(model, "images", "--out", "embeddings.npz", "--force", "--on-bad-image", "skip")
    found = embeddings.read("embeddings.npz")
    assert list(found.parts[0]["left_out"]) == ["kind 0/1.png", "kind 1/2.png"]
    assert found.images.names == [n for n in image_list("images").names if n not in found.parts[0]["left_out"]]
    torch.testing.assert_close(found.vectors, load(model, device="cpu").embed(found.images.paths))
    assert "2 of 13 inputs could not be read" in capsys.readouterr().err
    Path("images/kind 0/0.png").unlink()
    search(model, "images/kind 0/2.png", "--gallery", "embeddings.npz", "-k", 10, "--html", "page.html")
    assert "1 picture not found" in capsys.readouterr().err
    assert "no picture there" in Page(Path("page.html").read_text()).text
    with pytest.raises(SystemExit, match="none of 1 images can be read"):
        search(model, "images/kind 1/2.png", "--gallery", "embeddings.npz", "--on-bad-image", "skip")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("images", "--out", "there.npz"), "there.npz is there already; choose another --out, or add --force"),
        (("images", "--out", "there.npz", "--add"), r"there.npz is damaged, or no embeddings of this program"),
        (("images", "--out", "new.h5"), "in a .npz file, or in .npy for millions, got new.h5"),
        (("images", "nowhere", "--out", "new.npz"), "there is no .*nowhere; name a picture"),
        (("images", "--out", "new.npz", "--column", "path"), "a column is chosen in a table"),
        (("images", "--out", "new.npz", "--batch-size", "0"), "--batch-size must be at least 1, got 0"),
        (("strange", "--out", "new.npz"), r"strange has an image whose name is no text, 'b.udcff' ...; rename it"),
        (("twice.txt", "--out", "new.npz"), "twice.txt names 1 image more than once"),
    ],
)
def test_embed_answers_by_a_sentence(arguments, said, model, place):
    Path("there.npz").write_text("mine")
    Path("strange").mkdir()
    for name in (b"a\xe2\x80\xaf1.png", b"b\xff.png"):  # the first as a screenshot of macOS
        Path("strange", os.fsdecode(name)).touch()
    Path("twice.txt").write_text("images/kind 0/0.png\nimages/../images/kind 0/0.png\n")
    with pytest.raises(SystemExit, match=said):
        embed(model, *arguments)
    assert Path("there.npz").read_text() == "mine"
    assert not Path("new.npz").exists()


def test_another_model_is_refused(model, place):
    embed(model, "images", "--out", "embeddings.npz")
    other = a_model(place / "other", seed=1)
    for refused in (
        lambda: search(other, "images/kind 0/0.png", "--gallery", "embeddings.npz"),
        lambda: embed(other, "images", "--out", "embeddings.npz", "--add"),
    ):
        with pytest.raises(SystemExit, match=r"made by toy, seed 0, last, \w{8}, and this model is toy, seed 1, last"):
            refused()
    with pytest.raises(SystemExit, match="by a model for retrieval, and this one is for regression"):
        embed(a_model(place / "predicts", task="regression"), "images", "--out", "new.npz")
    with pytest.raises(SystemExit, match=r"there is no gone.npz; make it: python scripts/embed.py"):
        search(model, "images", "--gallery", "gone.npz")
    with pytest.raises(SystemExit, match="k must lie between 1 and the 12 items"):
        search(model, "images/kind 0/0.png", "--gallery", "embeddings.npz", "-k", 13)
    with pytest.raises(SystemExit, match="-k must lie between 1 and the 13 images of the gallery, got 14"):
        search(model, "images/kind 0/0.png", "--gallery", "embeddings.npz", "-k", 14)


def test_an_index_is_kept_extended_and_finds_the_same(model, place, capsys):
    pytest.importorskip("faiss")
    embed(model, "images/kind 0", "--out", "embeddings.npz")

    def by(kind):
        search(model, "images", "--gallery", "embeddings.npz", "-k", 3, "--csv", "found.csv", "--index", kind)
        return records(place / "found.csv"), capsys.readouterr().out

    def same_as_exact(told):
        """Which images in which order, and similarities but for the last of their six digits."""
        for one, other in zip(told, by("exact")[0], strict=True):
            assert one | {"similarity": ""} == other | {"similarity": ""}
            assert float(one["similarity"] or 0) == pytest.approx(float(other["similarity"] or 0), abs=2e-6)

    for said in ("built of 4 images", "index embeddings.faiss: 4 images"):
        told, out = by("faiss")
        assert said in out
        same_as_exact(told)
    Path("images/kind 0/copy.png").write_bytes(Path("images/kind 0/3.png").read_bytes())  # equal scores
    embed(model, "images", "--out", "embeddings.npz", "--add")
    for kind, said in (("faiss", "extended by 10 images"), ("hnsw", "built of 14 images")):
        told, out = by(kind)
        assert said in out
        same_as_exact(told)
    embed(model, "images", "--out", "embeddings.npz", "--force")  # another gallery, of as many images
    assert "built of 14 images" in by("faiss")[1]
    Path("embeddings.faiss").write_bytes(b"damaged")
    assert "built of 14 images" in by("faiss")[1]


def test_an_index_that_finds_too_few_is_helped_out():
    faiss = pytest.importorskip("faiss")
    items = torch.nn.functional.normalize(torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    index = faiss.index_factory(4, "Flat", faiss.METRIC_INNER_PRODUCT)
    index.add(items[:3].numpy())
    expected = nearest(items[:5], items, 6)
    for one, other in zip(nearest(items[:5], items, 6, engine="faiss", index=index), expected, strict=True):
        assert torch.equal(one, other)


def test_parts_of_two_folders_lie_below_what_holds_both(place):
    one, other = image_list("images/kind 0"), image_list("images/kind 1/1.png")
    assert image_list("images/kind 1/1.png", "images/kind 0").names == [
        "kind 1/1.png",
        *(f"kind 0/{n}.png" for n in range(4)),
    ]
    both = replace(one, columns={"who": ["me"] * 4}).followed_by(other)
    assert both.root == place / "images"
    assert both.names == [*(f"kind 0/{n}.png" for n in range(4)), "kind 1/1.png"]
    assert both.columns == {"who": ["me"] * 4 + [""]}
    assert gallery.INDICES["faiss"] == "Flat"
    assert Image.open(both.paths[-1]).size == (40, 30)

"""The questions asked of every data set, and the machinery that they share."""

import random
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from mutants import damages
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from harness.data.dataset import PartDataset
from harness.data.images import ImageCache, decode, seeded_draws
from harness.data.rows import check_files, fingerprint
from harness.device import cores
from rambo.datasets.cub import CUB200
from rambo.datasets.cub_crops import CUBCrops
from rambo.datasets.folder import ImageFolder
from rambo.datasets.glyphs import Glyphs
from rambo.datasets.inshop import InShop
from rambo.datasets.omniglot import Omniglot
from rambo.datasets.records import Records, held_out_classes
from rambo.datasets.retrieval import RetrievalData
from rambo.datasets.sop import StanfordOnlineProducts
from rambo.datasets.transforms import CentreCrop, RandomCrop, Resize
from rambo.sampling import ClassBalancedBatches

EVERY = [CUB200, CUBCrops, StanfordOnlineProducts, InShop, Omniglot, ImageFolder, Glyphs]
ON_DISK = [CUB200, StanfordOnlineProducts, InShop, ImageFolder]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def make(kind, folder, **options):
    options = {
        "sampler": partial(ClassBalancedBatches, batch_size=128, samples_per_class=4),
        "train_transform": RandomCrop(24, 28),
        "test_transform": CentreCrop(24, 28),
        "fixture": True,
        **options,
    }
    return kind(**options) if kind is Glyphs else kind(root=folder / kind.__name__, **options)


@pytest.mark.parametrize("kind", EVERY)
def test_batches_are_what_the_contract_says(kind, folder):
    data = make(kind, folder, seed=1)
    for batch in [next(iter(data.train)), next(iter(data.evaluation["test"]))]:
        count = len(batch["label"])
        assert batch["image"].shape == (count, 3, 24, 24)
        assert batch["image"].dtype == torch.uint8
        for column in set(batch) - {"image"}:
            assert batch[column].dtype == torch.int64
            assert batch[column].shape == (count,)
        assert {"image", "label", "index"} <= set(batch) <= {"image", "label", "index", "super_label", "role"}
    labels = data.parts["train"].labels
    assert labels.unique().tolist() == list(range(data.classes))
    assert "role" not in next(iter(data.train))


@pytest.mark.parametrize("kind", EVERY)
def test_parts_share_neither_classes_nor_images(kind, folder):
    data = make(kind, folder, validation_fraction=0.3)
    unsplit = make(kind, folder)
    assert list(data.evaluation) == ["test", "validation"]
    names = {part: set(records.names) for part, records in data.parts.items()}
    assert not names["train"] & names["test"]
    assert not names["train"] & names["validation"]
    assert names["train"] | names["validation"] == set(unsplit.parts["train"].names)
    titles = {part: {r.class_names[c] for c in r.labels.tolist()} for part, r in data.parts.items()}
    assert not titles["train"] & titles["validation"]
    assert not titles["train"] & titles["test"]
    assert len(titles["train"]) == data.classes


@pytest.mark.parametrize("kind", EVERY)
def test_the_held_out_classes_are_the_same_for_every_seed(kind, folder):
    first, second = (make(kind, folder, validation_fraction=0.3, seed=seed) for seed in (0, 1))
    assert first.parts["validation"].names == second.parts["validation"].names
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != make(kind, folder).fingerprint


@pytest.mark.parametrize("kind", EVERY)
def test_a_batch_depends_on_seed_and_epoch_alone(kind, folder):
    def batch(seed, epoch, workers=0):
        data = make(kind, folder, seed=seed, workers=workers)
        data.train.set_epoch(epoch)
        return next(iter(data.train))["image"]

    torch.manual_seed(5)
    first = batch(0, 1)
    torch.rand(7)  # the global generator has no say
    assert torch.equal(batch(0, 1), first)
    assert not torch.equal(batch(0, 2), first)
    assert not torch.equal(batch(1, 1), first)


@pytest.mark.parametrize(
    "options",
    [{}, {"decode": "scaled", "train_transform": RandomCrop(24, None, crop="random_resized", scale=(0.8, 1))}],
)
def test_workers_change_nothing(folder, options):
    if options:
        pytest.importorskip("simplejpeg")
    for epoch in (0, 3):
        seen = []
        for workers in (0, 2):
            data = make(CUB200, folder, workers=workers, **options)
            data.train.set_epoch(epoch)
            seen.append([(batch["index"], batch["image"]) for batch in data.train])
        assert len(seen[0]) == len(seen[1]) >= 2
        for (index, image), (other_index, other_image) in zip(*seen, strict=True):
            assert torch.equal(index, other_index)
            assert torch.equal(image, other_image)


@pytest.mark.parametrize("kind", EVERY)
def test_loading_leaves_the_global_generator_alone(kind, folder):
    data = make(kind, folder)
    before = torch.get_rng_state()
    list(data.train)
    list(data.evaluation["test"])
    assert torch.equal(torch.get_rng_state(), before)


def test_the_same_image_is_seen_differently_in_another_epoch(folder):
    dataset = make(CUB200, folder).train.dataset
    assert not torch.equal(dataset[(0, 3)]["image"], dataset[(1, 3)]["image"])
    assert torch.equal(dataset[(1, 3)]["image"], dataset[(1, 3)]["image"])


def test_seeds_of_samples_do_not_collide():
    def seed_of(*sample):
        with seeded_draws(*sample):
            return torch.initial_seed()

    assert seed_of(1, 12, 3) == seed_of(1, 12, 3)
    seeds = {seed_of(s, e, i) for s in range(3) for e in range(20) for i in range(50)} | {seed_of(11, 2, 3)}
    assert len(seeds) == 3 * 20 * 50 + 1


@pytest.mark.parametrize("kind", EVERY)
def test_an_image_for_display_is_the_evaluated_one(kind, folder):
    data = make(kind, folder)
    batch = next(iter(data.evaluation["test"]))
    for position in (0, 5):
        assert torch.equal(
            data.evaluation["test"].dataset.image(int(batch["index"][position])), batch["image"][position]
        )


@pytest.mark.parametrize("kind", EVERY)
def test_description_counts_what_is_there(kind, folder):
    described = make(kind, folder, validation_fraction=0.3).describe()
    assert described["fixture"] is True
    assert described["validation_fraction"] == 0.3
    assert len(described["fingerprint"]) == 64
    assert described["name"] == kind.title
    for part in ("train", "validation", "test"):
        assert described[part]["images"] >= 2 * described[part]["classes"] - 1 >= 3


@pytest.mark.parametrize(("kind", "decode"), [*((kind, "exact") for kind in ON_DISK), (ImageFolder, "scaled")])
def test_the_cache_changes_no_pixel(kind, decode, folder, tmp_path):
    if decode == "scaled":
        pytest.importorskip("simplejpeg")
    make(kind, folder, cache=tmp_path, decode="exact").train.dataset[
        (0, 0)
    ]  # no entry of the other way to decode is taken
    plain, cached, again = (make(kind, folder, cache=kept, decode=decode) for kept in (None, tmp_path, tmp_path))
    for loader in (lambda data: data.train, lambda data: data.evaluation["test"]):
        expected = next(iter(loader(plain)))["image"]
        assert torch.equal(next(iter(loader(cached)))["image"], expected)
        assert torch.equal(next(iter(loader(again)))["image"], expected)
    assert len(list(tmp_path.rglob("*.npy"))) > 0


def test_data_in_memory_need_no_cache(folder, tmp_path):
    make(Omniglot, folder, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("evaluation_batch_size", 0, "evaluation_batch_size must be at least 1, got 0"),
        ("workers", -1, "workers must be at least 0, got -1"),
        ("decode", "fast", "decode must be exact or scaled, got 'fast'"),
        ("validation_fraction", 1.0, "validation_fraction must be at least 0 and below 1, got 1.0"),
        ("validation_fraction", 0.99, "would leave 0 of 8 classes for training"),
    ],
)
def test_options_are_checked(folder, option, value, message):
    with pytest.raises(ValueError, match=message):
        make(CUB200, folder, **{option: value})


def test_an_unknown_option_is_refused(folder):
    with pytest.raises(TypeError, match="batch_sise"):
        make(CUB200, folder, batch_sise=3)


def test_a_cache_needs_a_transform_that_begins_with_a_fixed_step(folder, tmp_path):
    with pytest.raises(ValueError, match="Flatten has none"):
        make(CUB200, folder, cache=tmp_path, train_transform=nn.Flatten())


def test_decoding_at_a_scale_is_refused_where_it_cannot_be_done(folder, tmp_path, monkeypatch):
    pytest.importorskip("simplejpeg")
    with pytest.raises(ValueError, match=r"Flatten has none; set data.decode=exact"):
        make(CUB200, folder, decode="scaled", train_transform=nn.Flatten())
    with pytest.raises(
        ValueError, match=r"whole pictures cannot keep reduced ones; set data.cache=null, or give `resize`"
    ):
        make(CUB200, folder, decode="scaled", cache=tmp_path, train_transform=RandomCrop(24, None))
    monkeypatch.setattr("harness.data.jpeg.simplejpeg", None)
    with pytest.raises(ValueError, match=r"pip install simplejpeg, or set data.decode=exact"):
        make(CUB200, folder, decode="scaled")


def test_there_are_never_more_workers_than_cores(folder):
    data = make(CUB200, folder, workers=1000)
    assert data.train.num_workers == data.evaluation["test"].num_workers == cores()


def test_a_fixture_is_loaded_in_batches_that_it_can_fill(folder):
    assert len(next(iter(make(CUB200, folder).train))["label"]) == 16
    smaller = partial(ClassBalancedBatches, batch_size=8, samples_per_class=4)
    assert len(next(iter(make(CUB200, folder, sampler=smaller).train))["label"]) == 8
    longer = partial(ClassBalancedBatches, batch_size=8, samples_per_class=4, batches_per_epoch=40)
    assert len(make(CUB200, folder, sampler=longer).train) == 4


# records


def test_held_out_classes_by_hand():
    labels = torch.arange(10).repeat_interleave(3)
    assert len(held_out_classes(labels, 0.3)) == 3  # 0.3 * 10
    assert len(held_out_classes(labels, 0.01)) == 2  # never fewer than two
    assert set(held_out_classes(labels, 0.2)) < set(held_out_classes(labels, 0.5))  # a larger share adds
    assert held_out_classes(labels.flip(0), 0.3) == held_out_classes(labels, 0.3)


def records(tmp_path, count=3, **columns):
    for index in range(count):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(tmp_path / f"{index}.png")
    return Records([f"{i}.png" for i in range(count)], torch.arange(count), folder=tmp_path, **columns)


def test_the_fingerprint_sees_names_labels_parts_and_files(tmp_path):
    first = records(tmp_path)
    shutil.copy(tmp_path / "0.png", tmp_path / "a.png")
    same = fingerprint({"train": first, "test": first})
    assert fingerprint({"test": first, "train": first}) == same
    assert fingerprint({"train": first, "validation": first}) != same
    renamed = Records(["a.png", *first.names[1:]], first.labels, folder=tmp_path)
    relabelled = Records(first.names, first.labels.flip(0), folder=tmp_path)
    with_roles = Records(first.names, first.labels, folder=tmp_path, roles=torch.tensor([1, 2, 2]))
    assert len({same, *(fingerprint({"train": r, "test": first}) for r in (renamed, relabelled, with_roles))}) == 4
    shutil.copytree(tmp_path, tmp_path / "elsewhere")
    moved = Records(first.names, first.labels, folder=tmp_path / "elsewhere")
    assert fingerprint({"train": moved, "test": moved}) == same
    Image.new("RGB", (4, 4), (9, 0, 0)).save(tmp_path / "elsewhere" / "1.png")
    assert fingerprint({"train": moved, "test": moved}) != same


def test_of_drawings_that_were_read_into_memory_the_files_count():
    one = Records(["a"], torch.zeros(1), pixels=torch.zeros(1, 1, 2, 2), marks=["x"])
    assert one.where(torch.tensor([True])).marks == ["x"]
    other = Records(["a"], torch.zeros(1), pixels=torch.zeros(1, 1, 2, 2), marks=["y"])
    assert fingerprint({"train": one}) != fingerprint({"train": other})


def test_records_must_fit_together(tmp_path):
    with pytest.raises(ValueError, match="labels must have a row for each of the 2 samples, got 3"):
        Records(["a", "b"], torch.arange(3), folder=tmp_path)
    with pytest.raises(ValueError, match="either the folder of their files or their pixels"):
        Records(["a"], torch.arange(1))


def test_missing_and_empty_files_are_counted_and_the_first_named(tmp_path):
    some = records(tmp_path, 6)
    for index in (1, 2, 3, 4):
        (tmp_path / f"{index}.png").unlink()
    (tmp_path / "3.png").touch()
    message = r"birds in .* is incomplete: 4 of 6 images are missing or empty \(1.png, 2.png, 3.png, ...\); download"
    with pytest.raises(FileNotFoundError, match=message):
        check_files([some], "birds", "download them")


def test_an_unreadable_image_among_the_first_is_named_at_start_up(tmp_path):
    some = records(tmp_path)
    (tmp_path / "0.png").write_bytes(b"\xff\xd8\xff but no more")
    with pytest.raises(OSError, match=r"cannot read the image .*0.png"):
        check_files([some], "birds", "download them")


def test_an_unreadable_image_is_named_by_a_worker_too(tmp_path):
    data = make(CUB200, tmp_path, workers=1)
    victim = data.parts["test"].path(7)
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(OSError, match=victim.name):
        list(data.evaluation["test"])


def test_a_data_set_must_say_how_it_is_read(tmp_path):
    with pytest.raises(NotImplementedError, match="RetrievalData must say how it is read"):
        make(RetrievalData, tmp_path, fixture=False)
    with pytest.raises(NotImplementedError, match="has no fixture"):
        make(RetrievalData, tmp_path)


# decoding


@pytest.mark.parametrize(
    ("mode", "extension"),
    [("RGB", "jpg"), ("L", "jpg"), ("CMYK", "jpg"), ("RGBA", "png"), ("P", "gif"), ("1", "png"), ("LA", "png")],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path, mode, extension):
    path = tmp_path / f"image.{extension}"
    Image.new("RGB", (8, 6), (200, 200, 200)).convert(mode).save(path)
    image = decode(path)
    assert image.shape == (3, 6, 8)
    assert image.dtype == torch.uint8
    assert (image.float().mean() - 200).abs() < 60  # one bit has nothing nearer than 255


def test_decoding_keeps_rows_columns_and_channels(tmp_path):
    pixels = torch.randint(0, 256, (3, 5, 7), dtype=torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "image.png")
    assert torch.equal(decode(tmp_path / "image.png"), pixels)


def test_a_photograph_is_turned_only_on_request(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (8, 6)).save(tmp_path / "image.jpg", exif=exif)
    assert decode(tmp_path / "image.jpg").shape == (3, 6, 8)
    assert decode(tmp_path / "image.jpg", upright=True).shape == (3, 8, 6)


def test_sixteen_bits_are_refused_rather_than_cut(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(OSError, match=r"deep.png .*more than 8 bits"):
        decode(tmp_path / "deep.png")


@pytest.mark.parametrize("content", [b"", b"\x00\x05\x16\x07 a resource fork", b"<html>"])
def test_what_is_no_picture_is_named(tmp_path, content):
    (tmp_path / "image.jpg").write_bytes(content)
    with pytest.raises(OSError, match=r"cannot read the image .*image.jpg .*replace the file"):
        decode(tmp_path / "image.jpg")


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image .*gone.jpg"):
        decode(tmp_path / "gone.jpg")
    with pytest.raises(FileNotFoundError, match=r"no image .*gone.jpg"):
        ImageCache(tmp_path / "cache").load(tmp_path / "gone.jpg", Resize(4))


# the cache


def image_file(path, value=100):
    Image.new("RGB", (20, 10), (value, value, value)).save(path)
    return path


def test_the_cache_decodes_once_and_notices_another_content_or_size(tmp_path, monkeypatch):
    cache, path, decoded = ImageCache(tmp_path / "cache"), image_file(tmp_path / "a.png"), []

    def counting(*arguments):
        decoded.append(arguments[0].name)
        return decode(*arguments)

    monkeypatch.setattr("harness.data.images.decode", counting)
    assert torch.equal(cache.load(path, Resize(4)), cache.load(path, Resize(4)))
    assert decoded == ["a.png"]
    cache.load(image_file(tmp_path / "copy.png"), Resize(4))  # the same content under another name
    assert decoded == ["a.png"]
    assert cache.load(path, Resize(5)).shape == (3, 5, 5)
    assert cache.load(path, Resize(4, "shorter")).shape == (3, 4, 8)
    assert int(cache.load(image_file(path, 200), Resize(4)).max()) == 200
    assert decoded == ["a.png"] * 4


def test_a_truncated_entry_is_made_anew(tmp_path):
    cache, path = ImageCache(tmp_path / "cache"), image_file(tmp_path / "a.png")
    expected = cache.load(path, Resize(4))
    (entry,) = (tmp_path / "cache").rglob("*.npy")
    for content in (b"", entry.read_bytes()[:-7]):
        entry.write_bytes(content)
        assert torch.equal(cache.load(path, Resize(4)), expected)
    assert torch.equal(torch.from_numpy(np.load(entry)), expected)
    assert [p.suffix for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [".npy"]


def test_a_damaged_entry_is_never_another_picture(tmp_path):
    """Any bit turned, any end cut off; and one without a sum, as earlier versions wrote."""
    cache, path = ImageCache(tmp_path / "cache"), image_file(tmp_path / "a.png")
    expected = cache.load(path, Resize(4))
    (entry,) = (tmp_path / "cache").rglob("*.npy")
    whole = entry.read_bytes()
    for damaged in damages(whole, 200, random.Random(0)):
        entry.write_bytes(damaged)
        assert torch.equal(cache.load(path, Resize(4)), expected)
        assert entry.read_bytes() == whole
    np.save(entry, np.zeros((3, 4, 4), np.uint8))
    assert torch.equal(cache.load(path, Resize(4)), expected)


def test_a_full_disk_costs_a_warning_and_no_picture(tmp_path, monkeypatch, caplog):
    cache, paths = ImageCache(tmp_path / "cache"), [image_file(tmp_path / f"{n}.png", n) for n in (1, 2, 3)]
    kept = cache.load(paths[0], Resize(4))
    before = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.data.images.os.replace", full)
    plain = [Resize(4)(decode(path)) for path in paths]
    assert all(torch.equal(cache.load(path, Resize(4)), want) for path, want in zip(paths, plain, strict=True))
    assert torch.equal(cache.load(paths[0], Resize(4)), kept)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == before
    assert caplog.text.count("cannot write to the image cache") == 1
    assert "No space left on device" in caplog.text


def test_processes_that_load_share_the_warning_of_a_full_disk(tmp_path, monkeypatch):
    cache = ImageCache(tmp_path / "cache")

    def load():
        (tmp_path / "cache").write_text("in the way")
        cache.load(image_file(tmp_path / "a.png"), Resize(4))

    child = torch.multiprocessing.get_context("fork").Process(target=load)  # which ends there, whatever is raised
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert cache._full


def test_a_file_in_place_of_the_cache_is_refused(tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(NotADirectoryError, match=r"data.cache=.*cache is a file, wanted a folder"):
        ImageCache(tmp_path / "cache")


def test_a_dataset_without_cache_and_with_one_agree(tmp_path):
    some = records(tmp_path)
    plain = PartDataset(some, CentreCrop(3, 4))
    cached = PartDataset(some, CentreCrop(3, 4), cache=ImageCache(tmp_path / "cache"))
    for index in range(len(plain)):
        assert torch.equal(plain[index]["image"], cached[index]["image"])


# the configurations


@pytest.mark.parametrize("name", ["cub", "cub_crops", "sop", "inshop", "omniglot", "folder", "huggingface", "glyphs"])
def test_every_configuration_builds_its_fixture(tmp_path, name):
    described = OmegaConf.load(Path(__file__).parents[2] / "configs" / "data" / f"{name}.yaml")
    config = OmegaConf.create({"seed": 3, "workers": 0, "paths": {"data": str(tmp_path)}, "data": described})
    config.data.fixture = True
    data = instantiate(config.data, _convert_="all")
    batch = next(iter(data.train))
    assert batch["image"].shape[0] == 16
    assert batch["image"].shape[1:] == next(iter(data.evaluation["test"]))["image"].shape[1:]

"""Image files that hold no picture: told by name, or left out, whoever decodes them and wherever they are met."""

import io
import json
import os
import shutil
import signal
import struct
import subprocess
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from mutants import mutants
from PIL import Image
from torch.utils.data import Dataset
from torch.utils.data._utils import signal_handling

from harness.data import bad_images, images, jpeg, loading
from harness.data.bad_images import BadImages
from harness.data.images import decode, files_below, reduced
from harness.data.loading import EpochLoader, LoadingError, PassLoader, ShuffledBatches, loading_options
from harness.files import to_json
from harness.record.faults import told
from rambo.datasets.fixture import write_folder
from rambo.datasets.folder import ImageFolder
from rambo.datasets.transforms import CentreCrop, RandomCrop
from rambo.detection.data import VOCStyle
from rambo.detection.fixture import SHAPES, write_flat
from rambo.sampling import ClassBalancedBatches
from ranksim.datasets.fixture import write_own
from ranksim.datasets.table import TableData
from ranksim.datasets.transforms import Resize

NOTHING = b"\xff\xd8\xff but no more"
VIEWS = [decode, partial(reduced, plan=lambda height, width: ((8, 8), lambda image: image))]


def picture(width=64, height=48):
    cells = np.random.default_rng(0).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height))


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(width, height, depth, colours, rows):
    """A PNG of any size and depth, as Pillow writes none."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def sound_files():
    """JPEGs and PNGs."""
    whole = picture()
    return [
        *(encoded(whole, "JPEG"), encoded(whole, "JPEG", progressive=True, exif=turned())),
        *(encoded(whole.convert("L"), "JPEG", restart_marker_rows=1), encoded(whole.convert("CMYK"), "JPEG")),
        *(encoded(whole, "PNG"), encoded(whole.convert("P"), "PNG"), encoded(whole.convert("RGBA"), "PNG")),
    ]


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of EXIF data
def test_500_mutated_files_are_pictures_or_named_and_both_decoders_agree(monkeypatch):
    libraries, refused = (jpeg.simplejpeg, None), 0
    for content in mutants(sound_files(), 500, np.random.default_rng(0)):
        found = []
        for library in libraries:
            monkeypatch.setattr(jpeg, "simplejpeg", library)
            for read in VIEWS:
                try:
                    found.append(read(Path("a.jpg"), upright=True, content=content))
                except OSError as error:
                    found.append(str(error))
        if isinstance(found[0], str):
            assert found[0].startswith("cannot read the image a.jpg (")
            assert found == found[:1] * 4
            refused += 1
        else:
            assert torch.equal(found[0], found[2])
            assert all(isinstance(one, torch.Tensor) for one in found)
    assert 100 < refused < 500


def test_a_decompression_bomb_is_refused_and_nothing_unpacked(tmp_path):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(png(30_000, 30_000, 8, 2, b"\0" * 999))
    for read in VIEWS:
        with pytest.raises(OSError, match=r"bomb.png \(it unpacks to more than 178,956,970 pixels\); replace the file"):
            read(bomb)


@pytest.mark.parametrize(("kind", "ending"), [("GIF", "gif"), ("WEBP", "webp"), ("PNG", "png"), ("TIFF", "tif")])
def test_of_an_animation_the_first_picture_counts(tmp_path, kind, ending):
    first, second = Image.new("RGB", (9, 8), (200, 200, 200)), Image.new("RGB", (9, 8), (20, 20, 20))
    options = {} if kind == "TIFF" else {"duration": 40}
    first.save(tmp_path / f"a.{ending}", kind, save_all=True, append_images=[second], **options)
    assert (decode(tmp_path / f"a.{ending}").int() - 200).abs().max() <= 2


def test_16_bits_of_gray_are_refused_and_of_colours_the_upper_8_kept(tmp_path):
    (tmp_path / "gray.png").write_bytes(png(2, 1, 16, 0, b"\0" + b"\x12\x34" * 2))
    with pytest.raises(OSError, match=r"gray.png \(it has more than 8 bits a channel"):
        decode(tmp_path / "gray.png")
    (tmp_path / "colours.png").write_bytes(png(1, 1, 16, 2, b"\0\x12\xff\x34\x00\x56\x80"))
    assert decode(tmp_path / "colours.png").flatten().tolist() == [0x12, 0x34, 0x56]


def test_what_a_file_holds_counts_and_not_its_name(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(encoded(picture(), "PNG"))
    assert decode(tmp_path / "a.jpg").shape == (3, 48, 64)
    (tmp_path / "page.png").write_text("<html>please log in</html>")
    with pytest.raises(OSError, match=r"page.png \(it is none, or damaged\)"):
        decode(tmp_path / "page.png")
    monkeypatch.setattr(subprocess, "check_call", lambda *a, **k: pytest.fail("Ghostscript was called"))
    (tmp_path / "program.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(OSError, match=r"program.jpg \(it is PostScript, a program"):
        decode(tmp_path / "program.jpg")


def test_what_a_reader_never_said_before_is_a_sentence_too(monkeypatch):
    def fail(*arguments):
        raise struct.error("unpack requires 4 bytes")

    monkeypatch.setattr(images.Image, "open", fail)
    with pytest.raises(OSError, match=r"a.png \(error: unpack requires 4 bytes\); replace"):
        decode(Path("a.png"), content=b"")
    monkeypatch.setattr(images.Image, "open", lambda *a: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        decode(Path("a.png"), content=b"")


# left out


def folder(root, **options):
    return ImageFolder(
        root,
        sampler=partial(ClassBalancedBatches, batch_size=8, samples_per_class=2),
        train_transform=RandomCrop(24, 28),
        test_transform=CentreCrop(24, 28),
        evaluation_batch_size=7,
        **options,
    )


def table(root, **options):
    transforms = {"train_transform": Resize(24), "test_transform": Resize(24)}
    return TableData(root, "t.csv", "age", image="path", bins=5, split="random", share=0.3, **transforms, **options)


def boxes(root, **options):
    return VOCStyle(root, train=["train"], test=["test"], batch_size=3, evaluation_batch_size=3, **options)


MADE = {
    folder: write_folder,
    table: lambda root: write_own(root, "t.csv", ["age"], "path"),
    boxes: lambda root: write_flat(root, {"": ["train", "test"]}, SHAPES),
}


def everything(data, epoch):
    """All batches of an epoch and of the evaluations, as plain values."""
    data.train.set_epoch(epoch)
    batches = [*data.train, *(batch for loader in data.evaluation.values() for batch in loader)]
    return [{key: getattr(value, "tolist", lambda v=value: str(v))() for key, value in b.items()} for b in batches]


@pytest.fixture(params=[folder, table, boxes], ids=["retrieval", "regression", "detection"])
def harmed(request, tmp_path):
    """How data are opened, their folder, and which files of each part have been made no pictures."""
    root = Path(MADE[request.param](tmp_path / "data"))
    parts = request.param(root).parts
    victims = [(part, parts[part].path(index)) for part in ("train", "test") for index in (1, 4)]
    for (_, path), content in zip(victims, (NOTHING, b"", NOTHING * 9, None), strict=True):
        path.write_bytes(path.read_bytes()[:300] if content is None else content)
    return request.param, root, victims


def test_the_first_one_stops_what_reads_it_or_all_are_left_out_and_listed(harmed, caplog):
    make, root, victims = harmed
    with pytest.raises((OSError, ValueError), match=r"cannot read the image|missing or empty"):
        everything(make(root), 0)
    data = make(root, on_bad_image="skip")
    record = data.describe()["left_out"]
    assert record["images"] == 4
    assert [one["part"] for one in record["which"]] == ["train", "train", "test", "test"]
    for one, (_, path) in zip(record["which"], victims, strict=True):
        assert Path(one["image"]).stem == path.stem
        assert one["reason"].startswith(f"cannot read the image {path} (")
    assert caplog.text.count("4 images cannot be read and are left out") == 1
    assert sum(len(batch["index"]) for batch in data.evaluation["test"]) == len(data.parts["test"])
    json.dumps(record)


def test_what_is_left_are_the_data_without_it_in_any_number_of_processes_and_from_any_epoch(harmed):
    make, root, victims = harmed
    skipping = make(root, on_bad_image="skip")
    expected = everything(skipping, 3)
    assert everything(make(root, on_bad_image="skip", workers=1), 3) == expected  # epoch 3 at once, as after a resume
    again = make(root, on_bad_image="skip")
    again.train.set_epoch(0)
    list(again.train)
    assert everything(again, 3) == expected
    assert skipping.fingerprint == again.fingerprint
    paths = {rows.path(index) for rows in skipping.parts.values() for index in range(len(rows))}
    assert not paths & {path for _, path in victims}


def test_without_a_bad_file_it_is_the_same_data(tmp_path):
    root = Path(write_folder(tmp_path / "data"))
    stopping, skipping = folder(root), folder(root, on_bad_image="skip")
    assert everything(stopping, 1) == everything(skipping, 1)
    assert stopping.fingerprint == skipping.fingerprint
    assert skipping.describe()["left_out"] == {"images": 0, "which": []}
    assert "left_out" not in stopping.describe()


def test_bad_files_are_the_same_whoever_decodes(tmp_path, monkeypatch):
    root = Path(write_folder(tmp_path / "data"))
    victim = folder(root).parts["train"].path(3)
    victim.write_bytes(victim.read_bytes()[:-40])
    left = []
    for library in (jpeg.simplejpeg, None):
        for how in ("exact", "scaled") if library else ("exact",):
            monkeypatch.setattr(jpeg, "simplejpeg", library)
            left.append(folder(root, on_bad_image="skip", decode=how).describe()["left_out"])
    assert left[0]["images"] == 1
    assert left == left[:1] * len(left)


def test_files_that_are_missing_or_cannot_be_opened_are_refused_all_the_same(tmp_path):
    root = Path(MADE[table](tmp_path / "data"))
    table(root).parts["train"].path(0).unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of \d+ images are missing \("):
        table(root, on_bad_image="skip")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match=r"folder.png .*Is a directory"):
        BadImages("skip").good("train", ["folder.png"], [tmp_path / "folder.png"], upright=False)


def test_a_part_without_any_picture_or_without_a_task_is_refused(tmp_path):
    root = Path(write_folder(tmp_path / "data"))
    test = folder(root).parts["test"]
    kept = {}
    for index in range(len(test)):
        label = int(test.labels[index])
        kept[label] = kept.get(label, 0) + 1
        if kept[label] > 1:
            test.path(index).write_bytes(NOTHING)
    with pytest.raises(ValueError, match=r"each of the 8 classes of the test part of .* has one image"):
        folder(root, on_bad_image="skip")
    for index in range(len(test)):
        test.path(index).write_bytes(NOTHING)
    with pytest.raises(OSError, match=r"none of the 40 images of the test part can be read; cannot read the image"):
        folder(root, on_bad_image="skip")
    with pytest.raises(ValueError, match="on_bad_image must be stop or skip, got 'drop'"):
        folder(root, on_bad_image="drop")


def test_good_files_are_looked_at_once_where_there_is_a_cache_and_changed_ones_again(tmp_path, monkeypatch):
    root, cache = Path(write_folder(tmp_path / "data")), tmp_path / "cache"
    seen = []
    monkeypatch.setattr(bad_images, "decode", lambda path, *rest: (seen.append(path), decode(path, *rest)))
    first = folder(root, on_bad_image="skip", cache=cache)
    assert len(seen) == 80
    victim = first.parts["train"].path(0)
    victim.write_bytes(NOTHING)
    assert folder(root, on_bad_image="skip", cache=cache).describe()["left_out"]["images"] == 1
    assert seen[80:] == [victim]
    (cache / bad_images.KNOWN).write_text('{"by": [], "reada')
    folder(root, on_bad_image="skip", cache=cache)
    assert len(seen) == 80 + 1 + 80


# names


def test_a_loop_of_links_ends_and_a_link_to_nothing_is_missing(tmp_path):
    root = Path(write_folder(tmp_path / "data"))
    (root / "thing 1" / "up").symlink_to(root)
    (root / "thing 1" / "self.jpg").symlink_to(root / "thing 1" / "self.jpg")
    found = list(files_below(root / "thing 1"))
    assert len(found) == len(set(found)) < 2000
    shutil.rmtree(root / "thing 2")
    (root / "thing 1" / "up").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 76 images are missing or empty \(thing 1/self.jpg\)"):
        folder(root)


def test_a_name_that_is_no_utf8_is_trained_on_and_written_down(tmp_path, caplog):
    root = Path(write_folder(tmp_path / "data"))
    (root / "thing 1" / "1.JPG").rename(os.fsdecode(os.fsencode(root / "thing 1") + b"/caf\xe9.jpg"))
    (root / "thing 1" / "2.jpeg").write_bytes(NOTHING)
    (root / "thing 1" / "2.jpeg").rename(os.fsdecode(os.fsencode(root / "thing 1") + b"/\xff.jpg"))
    data = folder(root, on_bad_image="skip")
    assert sum(map(len, data.parts.values())) == 79
    everything(data, 0)
    assert r"/\udcff.jpg" in to_json(data.describe())
    assert r"/\udcff.jpg" in caplog.text  # spelt out, as a log in UTF-8 takes nothing else


# loading processes


class Waiting(Dataset):
    """Its third sample is one that the process that loads it dies of, or never loads."""

    def __init__(self, fate):
        self.fate = fate

    def __len__(self):
        return 4

    def __getitem__(self, index):
        number = index[1] if isinstance(index, tuple) else index
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL if self.fate == "dies" else signal.SIGSTOP)
        return number


@pytest.fixture
def asked_soon(monkeypatch):
    """A dead process is found by asking every now and then; torch's answer to its signal may come in pytest itself."""
    monkeypatch.setattr(signal_handling, "_set_SIGCHLD_handler", lambda: None)
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("asked_soon")
@pytest.mark.parametrize(
    ("fate", "kind", "sentence"),
    [
        (
            "dies",
            "pass",
            r"a loading process was ended from outside \(.+\), as where memory runs out; take fewer workers",
        ),
        ("hangs", "epoch", r"the loading processes gave no batch for 1.5 s \(data.worker_timeout\)"),
    ],
)
def test_a_loading_process_that_dies_or_hangs_is_told_in_a_sentence(fate, kind, sentence):
    options = loading_options(1, 1.5 if fate == "hangs" else None, pin_memory=False)
    data = Waiting(fate)
    loader = EpochLoader(data, ShuffledBatches(4, 1), **options) if kind == "epoch" else PassLoader(data, 1, **options)
    with pytest.raises(LoadingError, match=sentence):
        list(loader)


def test_what_torch_says_of_a_process_elsewhere_is_told_so_too():
    said = told(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "))
    assert said.startswith("a loading process was ended from outside (DataLoader worker (pid 7) is killed by signal")


def test_a_connection_that_ends_without_a_word_is_told_by_its_kind():
    class Ending:
        num_workers = 1

    def ended():
        raise EOFError
        yield

    with pytest.raises(LoadingError, match=r"ended from outside \(EOFError\), as where memory runs out"):
        list(loading._watched(Ending(), ended))


def test_a_time_limit_must_be_one():
    for limit in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="worker_timeout must be a positive number of seconds, or null"):
            loading_options(1, limit, None)
    assert loading_options(0, 5.0, False) == {"num_workers": 0, "pin_memory": False, "timeout": 0}
    with pytest.raises(ValueError, match="workers must be at least 0, got -1"):
        loading_options(-1, None, None)


# targets


def test_one_nan_among_many_targets_is_named_with_its_line(tmp_path):
    rows = 20_000
    lines = [f"{number % 97}.5,{number % 7}" for number in range(rows)]
    lines[12_345] = "nan,3"
    (tmp_path / "t.csv").write_text("price,rooms\n\n" + "\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"1 of 20,000 targets .* \(row 12346, line 12348: nan\); correct these"):
        TableData(tmp_path, "t.csv", "price", bins=5)

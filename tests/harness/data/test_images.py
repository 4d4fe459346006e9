import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from harness.data import images, jpeg
from harness.data.images import decode, reduced, seeded_draws
from rambo.datasets.transforms import CentreCrop, RandomCrop


def test_files_are_told_apart_by_what_they_hold_or_if_there_is_much_of_it_by_their_size(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, content in zip(paths, ("1", "2", "12"), strict=True):
        path.write_text(content)
    assert len(set(images.file_marks(paths))) == 3
    monkeypatch.setattr(images, "MARKED_BY_CONTENT", 3)
    assert images.file_marks(paths) == ["1 bytes", "1 bytes", "2 bytes"]


def picture(width, height, cell=8):
    coarse = np.random.default_rng(0).integers(0, 256, (height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def as_jpeg(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


SHAPES = [(64, 48), (129, 131), (9, 8), (1, 1), (200, 17)]
KINDS = {
    "4:4:4": {"subsampling": 0, "quality": 95},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2, "quality": 30},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "red, green, blue": {"keep_rgb": True},
    "gray": {},
    "cyan, magenta, yellow, black": {},
    "with a comment and a profile": {"comment": b"x" * 999, "icc_profile": b"y" * 70_000},
    **{f"turned {way}": {"exif": turned(way)} for way in (0, *range(1, 9), 77)},
}
MODES = {"gray": "L", "cyan, magenta, yellow, black": "CMYK"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_becomes_the_pixels_of_pillow_whoever_decodes_it(kind, tmp_path, monkeypatch):
    pytest.importorskip("simplejpeg")
    for width, height in SHAPES:
        content = as_jpeg(picture(width, height).convert(MODES.get(kind, "RGB")), **KINDS[kind])
        for upright in (False, True):
            found = decode(tmp_path / "a.jpg", upright, content)
            opened = jpeg.Jpeg.opened(content, upright)
            assert (
                opened is None if MODES.get(kind) == "CMYK" else tuple(found.shape[1:]) == (opened.height, opened.width)
            )
            with monkeypatch.context() as patch:
                patch.setattr(jpeg, "simplejpeg", None)
                assert torch.equal(found, decode(tmp_path / "a.jpg", upright, content))


def test_what_xmp_says_of_the_side_that_is_up_counts_too(tmp_path):
    lying = as_jpeg(picture(64, 48), xmp=b'<x tiff:Orientation="6"/>')
    assert decode(tmp_path / "a.jpg", True, lying).shape == (3, 64, 48)
    assert decode(tmp_path / "a.jpg", False, lying).shape == (3, 48, 64)


def test_a_damaged_jpeg_is_judged_by_pillow_alone(tmp_path, monkeypatch):
    content = as_jpeg(picture(64, 48), quality=95)
    sixteen = Image.fromarray(np.full((9, 9), 40_000, dtype=np.uint16))
    stream = io.BytesIO()
    sixteen.save(stream, "PNG")
    ended = content[:700] + b"\xff\xd9" + content[702:]  # Pillow lets it pass
    lying = [
        content[:-2],
        content[:-400],
        content[:200],
        content[:20],
        stream.getvalue(),
        b"\xff\xd8\xff",
        b"GIF89a",
        b"",
    ]
    reads = [decode, partial(reduced, plan=lambda height, width: ((8, 8), lambda image: image))]
    told, passed = {}, []
    for library in (jpeg.simplejpeg, None):
        monkeypatch.setattr(jpeg, "simplejpeg", library)
        for read in reads:
            for number, bad in enumerate(lying):
                with pytest.raises(OSError, match=r"cannot read the image .*a.jpg .*replace the file") as error:
                    read(tmp_path / "a.jpg", content=bad)
                assert told.setdefault(number, str(error.value)) == str(error.value)
            passed.append(read(tmp_path / "a.jpg", content=ended))
    assert all(torch.equal(image, passed[0]) for image in passed)


@pytest.mark.parametrize("way", [1, 6])
def test_a_reduced_picture_is_the_smallest_draft_that_does(way, tmp_path):
    pytest.importorskip("simplejpeg")
    content = as_jpeg(picture(401, 300), exif=turned(way))
    opened = jpeg.Jpeg.opened(content, upright=True)
    sides = np.array([opened.height, opened.width])
    assert sides.tolist() == ([300, 401] if way == 1 else [401, 300])
    for part, least in ((1, sides // 2 + 1), (2, sides // 2), (4, sides // 4), (8, sides // 8), (8, (1, 1))):
        with Image.open(io.BytesIO(content)) as image:
            image.draft(None, (401 // part, 300 // part))
            draft = np.array(image)
        expected = draft if way == 1 else np.rot90(draft, -1)
        assert np.array_equal(opened.pixels(tuple(least)), expected)


@pytest.mark.parametrize(
    "transform",
    [
        CentreCrop(48, 64),
        RandomCrop(48, 64, "shorter"),
        RandomCrop(48, None, crop="random_resized", scale=(0.5, 1)),
        RandomCrop(48, 64, crop="random_resized"),
        RandomCrop(48, None),
    ],
)
def test_a_reduced_picture_is_seen_through_the_same_window(transform, tmp_path):
    pytest.importorskip("simplejpeg")
    path = tmp_path / "a.jpg"
    plan = getattr(transform, "plan", lambda height, width: (transform.prepare.least(height, width), transform))
    for size, differs in (((400, 300), transform.prepare.size or transform.crop != "random"), ((90, 70), False)):
        path.write_bytes(as_jpeg(picture(*size, cell=40), quality=95))
        far = 0.0
        for epoch in range(8):
            with seeded_draws(0, epoch, 0):
                exact, then = transform(decode(path)), torch.rand(())
            with seeded_draws(0, epoch, 0):
                near = reduced(path, plan)
                assert then == torch.rand(())  # as many draws
            far = max(far, float((near.float() - exact.float()).abs().mean()))
            assert near.shape == exact.shape
        assert 0 < far < 12 if differs else far == 0  # of 255, at half a pixel; other windows are 50 away

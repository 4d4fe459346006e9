"""Where boxes go when pictures are resized and mirrored, and what comes of any transform of torchvision's v2."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torchvision import tv_tensors
from torchvision.transforms import v2

from harness.data.images import seeded_draws
from rambo.detection.transforms import Resize, ResizeAndFlip, apply, resized

ONE = torch.ones(1, dtype=torch.int64)


def picture_with(left, top, right, bottom, width=80, height=40):
    """Black, with a white rectangle that fills the box [left, top, right, bottom] exactly."""
    picture = torch.zeros(3, height, width, dtype=torch.uint8)
    picture[:, top:bottom, left:right] = 255
    return picture, torch.tensor([[left, top, right, bottom]], dtype=torch.float32)


def extent(picture):
    """The box of what is light in a picture."""
    rows, columns = (picture[0] > 127).nonzero().T
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((500, 375), (800, 600)),  # 600 / 375 = 1.6, 1000 / 500 = 2: the shorter side decides
        ((375, 500), (600, 800)),
        ((500, 100), (1000, 200)),  # 600 / 100 = 6, 1000 / 500 = 2: the longer side decides
        ((333, 250), (799, 600)),  # 333 * 2.4 = 799.2
        ((500, 333), (901, 600)),  # 500 * 600 / 333 = 900.9, rounded
        ((2000, 1200), (1000, 600)),
    ],
)
def test_sizes_keep_the_aspect_within_both_limits(size, expected):
    assert resized(*size, shorter=600, longer=1000) == expected


def test_limits_can_be_left_out():
    assert resized(500, 100, shorter=200, longer=None) == (1000, 200)
    assert resized(500, 100, shorter=None, longer=250) == (250, 50)
    assert resized(501, 99, shorter=None, longer=None) == (501, 99)
    assert resized(1000, 2, shorter=None, longer=100) == (100, 1)  # never 0


@given(some.integers(60, 800), some.integers(60, 800))
def test_sizes_are_those_of_torchvision_to_one_pixel(width, height):
    """torchvision rounds the other way."""
    theirs = v2.Resize(60, max_size=100)(torch.zeros(1, height, width, dtype=torch.uint8)).shape
    ours = resized(width, height, shorter=60, longer=100)
    assert abs(ours[0] - theirs[2]) <= 1
    assert abs(ours[1] - theirs[1]) <= 1


def test_boxes_are_resized_with_their_picture():
    picture, boxes = picture_with(10, 20, 30, 35)
    image, target = apply(Resize(shorter=100, longer=None), picture, boxes, ONE)
    assert image.shape == (3, 100, 200)
    factor = 100 / 40
    assert target["boxes"].tolist() == [[10 * factor, 20 * factor, 30 * factor, 35 * factor]]
    assert extent(image) == [25, 50, 75, 88]  # 87.5 ends within a pixel


def test_each_axis_has_its_own_scale_when_sizes_are_rounded():
    picture, boxes = picture_with(0, 0, 33, 25, width=33, height=25)
    image, target = apply(Resize(shorter=60, longer=None), picture, boxes, ONE)
    assert image.shape == (3, 60, 79)  # 33 * 2.4 = 79.2
    assert target["boxes"].tolist() == [[0, 0, 79, 60]]


def test_flipping_mirrors_boxes_in_the_width():
    picture, boxes = picture_with(10, 20, 30, 35)
    image, target = apply(ResizeAndFlip(None, None, flip=1.0), picture, boxes, ONE)
    assert target["boxes"].tolist() == [[80 - 30, 20, 80 - 10, 35]]
    assert extent(image) == [50, 20, 70, 35]
    assert torch.equal(image, picture.flip(2))


def test_resizing_comes_before_flipping_and_boxes_follow_both():
    picture, boxes = picture_with(10, 20, 30, 35)
    image, target = apply(ResizeAndFlip(shorter=80, longer=None, flip=1.0), picture, boxes, ONE)
    assert target["boxes"].tolist() == [[2 * (80 - 30), 2 * 20, 2 * (80 - 10), 2 * 35]]
    assert extent(image) == [100, 40, 140, 70]


def test_half_of_the_pictures_are_mirrored():
    picture, boxes = picture_with(0, 0, 10, 10)
    flipped = 0
    for index in range(400):
        with seeded_draws(0, 0, index):
            _, target = apply(ResizeAndFlip(None, None), picture, boxes, ONE)
        flipped += target["boxes"][0, 0].item() == 70
    assert abs(flipped - 200) < 4 * 10  # four standard deviations of a fair coin


def test_nothing_is_resized_without_limits():
    picture, boxes = picture_with(1, 2, 3, 4)
    image, target = apply(Resize(None, None), picture, boxes, ONE)
    assert torch.equal(image, picture)
    assert torch.equal(target["boxes"], boxes)


def test_no_boxes_stay_no_boxes():
    picture, _ = picture_with(0, 0, 1, 1)
    image, target = apply(ResizeAndFlip(100, 1000, 1.0), picture, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert image.shape == (3, 100, 200)
    assert target["boxes"].shape == (0, 4)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].shape == (0,)


def test_results_are_plain_tensors_that_any_process_can_send():
    image, target = apply(ResizeAndFlip(), *picture_with(0, 0, 9, 9), ONE)
    assert type(image) is torch.Tensor
    assert all(type(value) is torch.Tensor for value in target.values())
    assert image.is_contiguous()


class Window(torch.nn.Module):
    """Cuts the left half out, as somebody's own transform might."""

    def forward(self, image, target):
        half = image.shape[2] // 2
        boxes = v2.functional.crop(target["boxes"], 0, 0, image.shape[1], half)
        return v2.functional.crop(image, 0, 0, image.shape[1], half), {**target, "boxes": boxes}


def test_boxes_are_cut_at_the_border_and_left_out_where_nothing_remains():
    picture = torch.zeros(3, 40, 80, dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 10, 60, 30], [50, 0, 80, 40], [39.5, 0, 50, 40], [0, 0, 5, 40]])
    image, target = apply(Window(), picture, boxes, torch.tensor([1, 2, 3, 4]))
    assert image.shape == (3, 40, 40)
    assert target["boxes"].tolist() == [[10, 10, 40, 30], [0, 0, 5, 40]]  # the third has half a pixel left
    assert target["labels"].tolist() == [1, 4]


def test_any_transform_of_torchvision_may_stand_there():
    picture, boxes = picture_with(20, 10, 60, 30)
    chain = v2.Compose(
        [v2.RandomIoUCrop(), v2.ColorJitter(0.5, 0.5), v2.SanitizeBoundingBoxes(), Resize(64, 128), v2.ToPureTensor()]
    )
    seen = set()
    for index in range(20):
        with seeded_draws(0, 0, index):
            image, target = apply(chain, picture, boxes, ONE)
        assert image.dtype == torch.uint8
        assert len(target["boxes"]) == len(target["labels"])
        assert (target["boxes"] <= torch.tensor([image.shape[2], image.shape[1]] * 2)).all()
        seen.add(tuple(target["boxes"].flatten().tolist()))
        with seeded_draws(0, 0, index):
            again, _ = apply(chain, picture, boxes, ONE)
        assert torch.equal(image, again)
    assert len(seen) > 5


def test_a_transform_gets_what_v2_understands():
    def look(image, target):
        assert isinstance(image, tv_tensors.Image)
        assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
        assert target["boxes"].canvas_size == (40, 80)
        assert target["boxes"].format == tv_tensors.BoundingBoxFormat.XYXY
        return image, target

    apply(look, *picture_with(0, 0, 9, 9), ONE)


def test_pictures_stay_integers():
    with pytest.raises(ValueError, match=r"Compose returned torch.float32 \(3, 40, 80\); the model converts"):
        apply(v2.Compose([v2.ToDtype(torch.float32, scale=True)]), *picture_with(0, 0, 9, 9), ONE)
    with pytest.raises(ValueError, match="returned str"):
        apply(lambda image, target: ("no", target), *picture_with(0, 0, 9, 9), ONE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shorter": 0}, "shorter must be at least 1 pixel or null, got 0"),
        ({"longer": -1}, "longer must be at least 1"),
        ({"shorter": 600, "longer": 500}, "longer must be at least shorter, 600, got 500"),
        ({"flip": 1.5}, "flip must be a probability, 0 to 1, got 1.5"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ResizeAndFlip(**settings)

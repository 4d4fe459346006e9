import pytest
import torch
from torchvision.transforms import v2

from rambo.datasets.transforms import CentreCrop, CharacterWarp, RandomCrop, Resize


def picture(height=60, width=90):
    """Red rises to the right, green downwards."""
    red = torch.linspace(0, 255, width).expand(height, width)
    green = torch.linspace(0, 255, height)[:, None].expand(height, width)
    return torch.stack([red, green, torch.full_like(red, 128)]).round().to(torch.uint8)


def test_squash_ignores_the_aspect_and_shorter_keeps_it():
    assert Resize(30, "squash")(picture()).shape == (3, 30, 30)
    assert Resize(30, "shorter")(picture()).shape == (3, 30, 45)
    assert Resize(None)(picture()).shape == (3, 60, 90)


@pytest.mark.parametrize("mode", ["squash", "shorter"])
def test_resizing_twice_changes_nothing_more(mode):
    once = Resize(30, mode)(picture())
    assert torch.equal(Resize(30, mode)(once), once)


def test_centre_crop_equals_torchvision():
    reference = v2.Compose([v2.Resize(40, antialias=True), v2.CenterCrop(32)])
    assert torch.equal(CentreCrop(32, 40, "shorter")(picture()), reference(picture()))


def test_random_crop_is_a_window_or_its_mirror_image():
    image, crop, mirrored = picture(), RandomCrop(32, 40, "shorter"), 0
    resized = Resize(40, "shorter")(image)  # (3, 40, 60)
    windows = resized.unfold(1, 32, 1).unfold(2, 32, 1)  # (3, rows, columns, 32, 32)
    torch.manual_seed(0)
    corners = set()
    for _ in range(60):
        cut = crop(image)
        for view, flipped in ((cut, 0), (cut.flip(2), 1)):
            same = (windows == view[:, None, None]).all(dim=4).all(dim=3).all(dim=0).nonzero()
            if len(same):
                corners.add(tuple(same[0].tolist()))
                mirrored += flipped
                break
        else:
            pytest.fail("the crop is no window of the picture")
    assert 15 < mirrored < 45
    assert {row for row, _ in corners} == set(range(9))  # 40 - 32 + 1 places, the last one included
    assert {0, 28} <= {column for _, column in corners}  # 60 - 32


def test_random_resized_crop_covers_the_areas_asked_for():
    crop = RandomCrop(20, None, crop="random_resized", scale=(0.25, 0.25), ratio=(1, 1), flip=0)
    torch.manual_seed(0)
    for _ in range(10):
        cut = crop(picture(80, 80)).float()
        assert cut.shape == (3, 20, 20)
        # half of each side is seen, so red rises by half of its range, less the half pixel at either edge
        assert float(cut[0, :, -1].mean() - cut[0, :, 0].mean()) == pytest.approx(255 / 2 * 19 / 20, abs=4)


def test_a_window_in_a_reduced_picture_does_not_reach_beyond_it():
    crop, halved = RandomCrop(2, None, crop="random_resized", flip=0), torch.full((3, 125, 125), 200, dtype=torch.uint8)
    assert torch.equal(crop._view((250, 250), (3, 99, 247, 151), halved), torch.full_like(halved[:, :2, :2], 200))


def test_random_resized_crop_takes_the_middle_where_nothing_fits():
    narrow = torch.zeros(3, 4, 400, dtype=torch.uint8)
    narrow[:, :, 198:202] = 200
    cut = RandomCrop(4, None, crop="random_resized", scale=(1.0, 1.0), ratio=(1, 1), flip=0)(narrow)
    assert torch.equal(cut, torch.full((3, 4, 4), 200, dtype=torch.uint8))


def test_a_picture_smaller_than_the_crop_is_refused():
    with pytest.raises(ValueError, match="cannot cut 64 x 64 from a picture of 60 x 90; give `resize`"):
        RandomCrop(64, None)(picture())


def test_character_warp_without_room_changes_nothing():
    still = CharacterWarp(48, rotation=0, translation=0, scale=(1, 1), shear=0)
    image = torch.randint(0, 256, (3, 48, 48), dtype=torch.uint8)
    assert torch.equal(still(image), image)


def test_character_warp_keeps_the_background_whatever_it_is():
    for background in (0, 255):
        image = torch.full((3, 48, 48), background, dtype=torch.uint8)
        image[:, 20:28, 20:28] = 255 - background
        torch.manual_seed(0)
        warped = CharacterWarp(48, translation=0.2)(image)
        assert (warped[:, 0] == background).all()
        assert (warped[:, :, -1] == background).all()
        assert not torch.equal(warped, image)


@pytest.mark.parametrize(
    ("options", "axis"),
    [({"rotation": 90, "translation": 0}, "turn"), ({"rotation": 0, "translation": 0.25}, "shift")],
)
def test_character_warp_moves_as_far_as_asked(options, axis):
    image = torch.zeros(3, 41, 41, dtype=torch.uint8)
    image[:, 20, 30] = 255  # ten pixels to the right of the middle
    warp = CharacterWarp(41, scale=(1, 1), shear=0, **options)
    torch.manual_seed(0)
    places = []
    for _ in range(200):
        weight = warp(image)[0].float()
        rows, columns = torch.meshgrid(torch.arange(41.0), torch.arange(41.0), indexing="ij")
        if weight.sum():
            total = weight.sum()
            places.append((float((weight * rows).sum() / total) - 20, float((weight * columns).sum() / total) - 20))
    if axis == "turn":
        assert all(abs((r * r + c * c) ** 0.5 - 10) < 0.8 for r, c in places)
        assert max(r for r, _ in places) > 9
        assert min(r for r, _ in places) < -9
    else:
        largest = 0.25 * 41  # a quarter of the side either way
        assert all(abs(r) <= largest + 1 and abs(c - 10) <= largest + 1 for r, c in places)
        assert max(abs(r) for r, _ in places) > largest - 2


def test_a_warp_differs_from_draw_to_draw_and_repeats_with_the_seed():
    image = picture(48, 48)
    torch.manual_seed(3)
    first, second = CharacterWarp(48)(image), CharacterWarp(48)(image)
    torch.manual_seed(3)
    assert torch.equal(CharacterWarp(48)(image), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(0), "resize must be at least 1 pixel or null, got 0"),
        (lambda: Resize(8, "crop"), "one of squash, shorter, got 'crop'"),
        (lambda: RandomCrop(0), "size must be at least 1 pixel, got 0"),
        (lambda: CentreCrop(64, 48), "resize must be at least the crop's size 64, got 48"),
        (lambda: RandomCrop(crop="five"), "crop must be random or random_resized, got 'five'"),
        (lambda: RandomCrop(scale=(0.0, 1.0)), "scale must be two shares"),
        (lambda: RandomCrop(ratio=(2.0, 1.0)), "ratio must be two aspects"),
        (lambda: RandomCrop(flip=1.5), "flip must be a probability, 0 to 1, got 1.5"),
        (lambda: CharacterWarp(0), "size must be at least 1 pixel, got 0"),
        (lambda: CharacterWarp(48, rotation=-1), "rotation must be 0 to 180 degrees, got -1"),
        (lambda: CharacterWarp(48, translation=1), "translation must be a share of the side"),
        (lambda: CharacterWarp(48, scale=(1.2, 0.8)), "scale must be two magnifications"),
        (lambda: CharacterWarp(48, shear=90), "shear must be at least 0 and below 90 degrees, got 90"),
    ],
)
def test_nonsense_is_refused_with_its_value(make, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        make()

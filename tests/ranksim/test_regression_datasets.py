"""The questions asked of every regression data set, and the machinery that they share."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as vision
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from harness.data.images import decode
from harness.data.rows import check_files, fingerprint
from harness.device import cores
from ranksim.bins import Bins
from ranksim.datasets.agedb import AgeDB
from ranksim.datasets.imbalanced import balanced_parts, random_parts
from ranksim.datasets.imdb_wiki import IMDBWiki
from ranksim.datasets.regression import RegressionData, RegressionDataset
from ranksim.datasets.rotated_digits import RotatedDigits, tail
from ranksim.datasets.samples import Samples
from ranksim.datasets.table import TableData
from ranksim.datasets.transforms import PaddedCrop, Resize

NUMBERS = "numbers"
EVERY = [AgeDB, IMDBWiki, TableData, NUMBERS, RotatedDigits]
PICTURED = [AgeDB, IMDBWiki, TableData, RotatedDigits]
ON_DISK = [AgeDB, IMDBWiki, TableData]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def make(kind, folder, **options):
    options = {
        "bins": Bins.uniform(0, 121, 1),
        "train_transform": PaddedCrop(24, 4),
        "test_transform": Resize(24),
        "fixture": True,
        **options,
    }
    if kind is RotatedDigits:
        return kind(**options)
    if kind is NUMBERS:
        return TableData(folder / "numbers", **options)
    if kind is TableData:
        options["image"] = "picture"
    return kind(folder / kind.__name__, **options)


def inputs(batch):
    return batch["image"] if "image" in batch else batch["numbers"]


@pytest.mark.parametrize("kind", EVERY)
def test_batches_are_what_the_contract_says(kind, folder):
    data = make(kind, folder, seed=1)
    batches = [next(iter(loader)) for loader in (data.train, data.training_pass(0), *data.evaluation.values())]
    for batch in batches:
        count = len(batch["index"])
        assert set(batch) == {"target", "index", "numbers" if kind is NUMBERS else "image"}
        assert batch["target"].shape == batch["index"].shape == (count,)
        assert (batch["target"].dtype, batch["index"].dtype) == (torch.float32, torch.int64)
        if kind is NUMBERS:
            assert batch["numbers"].shape == (count, 3)
            assert batch["numbers"].dtype == torch.float32
        else:
            assert batch["image"].shape == (count, 3, 24, 24)
            assert batch["image"].dtype == torch.uint8
    assert list(data.evaluation) == ["validation", "test"]


@pytest.mark.parametrize("kind", EVERY)
def test_targets_belong_to_their_samples(kind, folder):
    data = make(kind, folder)
    for loader, part in ((data.train, "train"), *((data.evaluation[part], part) for part in data.evaluation)):
        for batch in loader:
            assert torch.equal(batch["target"], data.parts[part].targets[batch["index"]])
    for name, loader in data.evaluation.items():
        assert torch.equal(torch.cat([batch["index"] for batch in loader]), torch.arange(len(data.parts[name])))


@pytest.mark.parametrize("kind", EVERY)
def test_metrics_and_weights_see_the_density_of_training(kind, folder):
    data = make(kind, folder)
    targets = data.parts["train"].targets
    assert torch.equal(data.density.targets, targets)
    assert data.density.counts.sum() == len(targets)
    assert (data.density.lowest, data.density.highest) == (float(targets.min()), float(targets.max()))
    for loader in data.evaluation.values():
        assert loader.dataset.density is data.density


@pytest.mark.parametrize("kind", EVERY)
def test_parts_share_no_sample(kind, folder):
    parts = make(kind, folder).parts
    names = [name for samples in parts.values() for name in samples.names]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", EVERY)
def test_an_epoch_sees_each_training_sample_once_the_last_batch_included(kind, folder):
    data = make(kind, folder, batch_size=7)
    for loader in (data.train, data.training_pass(0)):
        batches = [batch["index"] for batch in loader]
        assert sorted(torch.cat(batches).tolist()) == list(range(len(data.parts["train"])))
        assert [len(batch) for batch in batches[:-1]] == [7] * (len(loader) - 1)
        assert len(batches[-1]) == (len(data.parts["train"]) - 1) % 7 + 1
        assert len(batches) == len(loader)


@pytest.mark.parametrize("kind", EVERY)
def test_a_batch_depends_on_seed_and_epoch_alone(kind, folder):
    def batch(seed, epoch):
        data = make(kind, folder, seed=seed)
        data.train.set_epoch(epoch)
        return inputs(next(iter(data.train)))

    torch.manual_seed(5)
    first = batch(0, 1)
    torch.rand(7)  # the global generator has no say
    assert torch.equal(batch(0, 1), first)
    assert not torch.equal(batch(0, 2), first)
    assert not torch.equal(batch(1, 1), first)


@pytest.mark.parametrize("kind", EVERY)
def test_the_seed_of_a_run_moves_no_sample(kind, folder):
    first, second = (make(kind, folder, seed=seed) for seed in (0, 1))
    assert first.fingerprint == second.fingerprint
    assert [samples.names for samples in first.parts.values()] == [samples.names for samples in second.parts.values()]


def test_workers_change_nothing(folder):
    seen = []
    for workers in (0, 2):
        data = make(AgeDB, folder, workers=workers)
        data.train.set_epoch(3)
        seen.append([*data.train, *data.training_pass(3), *data.training_pass(4), *data.evaluation["test"]])
    assert len(seen[0]) == len(seen[1]) == 3 * 3 + 1
    for batch, other in zip(*seen, strict=True):
        assert all(torch.equal(batch[name], other[name]) for name in ("index", "image", "target"))


@pytest.mark.parametrize("kind", EVERY)
def test_loading_leaves_the_global_generator_alone(kind, folder):
    data = make(kind, folder)
    before = torch.get_rng_state()
    for loader in (data.train, data.training_pass(0), data.evaluation["test"]):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pass_over_the_training_samples_draws_for_itself(folder):
    data = make(AgeDB, folder)
    data.train.set_epoch(2)

    def seen(loader):
        batches = list(loader)
        order = torch.cat([batch["index"] for batch in batches])
        return order, torch.cat([batch["image"] for batch in batches])[order.argsort()]

    order, images = seen(data.train)
    passed, extra = seen(data.training_pass(2))
    assert not torch.equal(order, passed)
    unlike = (images != extra).flatten(1).any(dim=1)
    assert unlike.float().mean() > 0.9  # of 81 shifts and two sides, few meet by chance
    assert torch.equal(seen(data.training_pass(2))[1], extra)
    assert not torch.equal(seen(data.training_pass(3))[1], extra)
    assert torch.equal(seen(data.train)[1], images)  # the pass has not moved training's epoch


@pytest.mark.parametrize("kind", PICTURED)
def test_an_image_for_display_is_the_evaluated_one(kind, folder):
    loader = make(kind, folder).evaluation["test"]
    batch = next(iter(loader))
    for position in (0, 5):
        assert torch.equal(loader.dataset.image(int(batch["index"][position])), batch["image"][position])


@pytest.mark.parametrize("kind", EVERY)
def test_description_counts_what_is_there(kind, folder):
    data = make(kind, folder, target_scale=10.0)
    described = data.describe()
    assert described["name"] == data.title
    assert described["fixture"] is True
    assert (described["target_scale"], data.target_scale) == (10.0, 10.0)
    assert described["bins"] == 121
    assert len(described["fingerprint"]) == 64
    for part, samples in data.parts.items():
        values = samples.targets.tolist()
        commonest = max(sorted(set(values)), key=values.count)
        assert described[part] == {
            "samples": len(values),
            "different": len(set(values)),
            "lowest": min(values),
            "highest": max(values),
            "commonest": commonest,
            "largest_count": values.count(commonest),
        }


@pytest.mark.parametrize("kind", ON_DISK)
def test_the_cache_changes_no_pixel(kind, folder, tmp_path):
    plain, cached, again = (make(kind, folder, cache=cache) for cache in (None, tmp_path / "c", tmp_path / "c"))
    for loader in (lambda data: data.train, lambda data: data.evaluation["test"]):
        expected = next(iter(loader(plain)))["image"]
        assert torch.equal(next(iter(loader(cached)))["image"], expected)
        assert torch.equal(next(iter(loader(again)))["image"], expected)
    assert len(list(tmp_path.rglob("*.npy"))) > 0


@pytest.mark.parametrize("kind", [NUMBERS, RotatedDigits])
def test_data_in_memory_need_no_cache(kind, folder, tmp_path):
    make(kind, folder, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("evaluation_batch_size", 0, "evaluation_batch_size must be at least 1, got 0"),
        ("workers", -1, "workers must be at least 0, got -1"),
        ("target_scale", 0.0, "target_scale must be a positive number, got 0.0"),
        ("target_scale", float("nan"), "target_scale must be a positive number, got nan"),
        ("bins", 0, "cannot lay 0 bins over targets from 3 to 97; give data.bins a positive number"),
    ],
)
def test_options_are_checked(folder, option, value, message):
    with pytest.raises(ValueError, match=message):
        make(AgeDB, folder, **{option: value})


def test_an_unknown_option_is_refused(folder):
    with pytest.raises(TypeError, match="batch_sise"):
        make(AgeDB, folder, batch_sise=3)


def test_a_cache_needs_a_transform_that_begins_with_a_fixed_step(folder, tmp_path):
    with pytest.raises(ValueError, match="Flatten has none"):
        make(AgeDB, folder, cache=tmp_path, train_transform=nn.Flatten())


def test_there_are_never_more_workers_than_cores(folder):
    data = make(AgeDB, folder, workers=1000)
    assert data.train.num_workers == data.evaluation["test"].num_workers == cores()


def test_a_fixture_is_loaded_in_small_batches(folder):
    assert len(next(iter(make(AgeDB, folder, batch_size=256).train))["index"]) == 16
    assert len(next(iter(make(AgeDB, folder, batch_size=4).train))["index"]) == 4


def test_a_number_of_bins_spans_all_targets(folder):
    data = make(AgeDB, folder, bins=47)
    assert data.bins == Bins.uniform(3, 97, 2)
    assert data.density.highest == 90  # age 97 is in the test alone, and has a bin of its own
    assert data.density.counts[-1] == 0


# a data set of one's own


class Words(RegressionData):
    """Sentences of several lengths with a score, as a subclass would bring them."""

    title = "words"
    remedy = "find some"
    targets = (torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0]), torch.tensor([2.0]))

    def read(self, root):
        return {
            part: Samples(
                [f"{part} {i}" for i in range(len(targets))],
                targets,
                inputs={"first": [torch.arange(1, i + 2) for i in range(len(targets))]},
            )
            for part, targets in zip(("train", "validation", "test"), self.targets, strict=True)
        }

    @staticmethod
    def collate(samples):
        return {
            "target": torch.stack([sample["target"] for sample in samples]),
            "index": torch.tensor([sample["index"] for sample in samples]),
            "first": nn.utils.rnn.pad_sequence([sample["first"] for sample in samples], batch_first=True),
        }


def test_samples_of_several_lengths_are_collated_by_their_data_set(tmp_path):
    data = Words(tmp_path, bins=Bins.uniform(0, 5, 1))
    for loader in (data.train, data.training_pass(0)):
        (batch,) = loader
        for index, tokens in zip(batch["index"].tolist(), batch["first"].tolist(), strict=True):
            assert tokens == [*range(1, index + 2), *[0] * (2 - index)]
    assert next(iter(data.evaluation["test"]))["first"].tolist() == [[1]]


def test_official_shots_reach_the_density(tmp_path):
    class Listed(Words):
        official_shots = {"many": [0], "medium": [1, 2], "few": [3, 4]}  # noqa: RUF012

    assert Listed(tmp_path, bins=Bins.uniform(0, 5, 1)).density.official_shots["medium"] == (1, 2)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([1.0, float("nan"), 2.0, float("inf")], r"the train part has 2 of 4 targets that are not a finite number"),
        ([1.0, float("nan"), 2.0], r"\(train 1: nan\); correct these rows, or leave them out"),
        ([float("nan")] * 5, r"5 of 5 .* \(train 0: nan; train 1: nan; train 2: nan; ...\)"),
        ([1.0], "the train part has 1 samples and needs 2; find some"),
    ],
)
def test_bad_targets_are_refused(tmp_path, monkeypatch, targets, message):
    monkeypatch.setattr(Words, "targets", (torch.tensor(targets), *Words.targets[1:]))
    with pytest.raises(ValueError, match=message):
        Words(tmp_path, bins=Bins.uniform(0, 5, 1))


def test_an_empty_part_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Words, "targets", (*Words.targets[:2], torch.tensor([])))
    with pytest.raises(ValueError, match="the test part has 0 samples and needs 1"):
        Words(tmp_path, bins=Bins.uniform(0, 5, 1))


def test_equal_targets_have_no_range_for_bins(tmp_path, monkeypatch):
    monkeypatch.setattr(Words, "targets", (torch.ones(3), torch.ones(1), torch.ones(1)))
    with pytest.raises(ValueError, match=r"every target of .* is 1 \(as float32\)"):
        Words(tmp_path, bins=4)


def test_a_data_set_must_say_how_it_is_read(tmp_path):
    with pytest.raises(NotImplementedError, match="RegressionData must say how it is read"):
        make(RegressionData, tmp_path, fixture=False)
    with pytest.raises(NotImplementedError, match="has no fixture"):
        make(RegressionData, tmp_path)


# samples


def some(folder, count=3):
    for index in range(count):
        Image.new("RGB", (4, 4), (index, 0, 0)).save(folder / f"{index}.png")
    return Samples([f"{i}.png" for i in range(count)], torch.arange(float(count)), folder=folder)


def test_the_fingerprint_sees_names_targets_columns_and_parts():
    names, targets, numbers = ["a", "b"], torch.tensor([1.0, 2.0]), torch.tensor([[1.0], [2.0]])
    first = Samples(names, targets, inputs={"numbers": numbers})
    same = fingerprint({"train": first, "test": first})
    assert fingerprint({"test": first, "train": first}) == same
    others = [
        Samples(["a", "c"], targets, inputs={"numbers": numbers}),
        Samples(names, targets.flip(0), inputs={"numbers": numbers}),
        Samples(names, targets, inputs={"numbers": numbers + 1}),
        Samples(names, targets, inputs={"first": ["x", "y"]}),
        Samples(names, targets),
    ]
    told = {fingerprint({"train": other, "test": first}) for other in others}
    assert len(told | {same, fingerprint({"train": first, "validation": first})}) == len(others) + 2


def test_the_fingerprint_sees_what_files_hold_and_not_where_they_lie(tmp_path):
    first = some(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "elsewhere")
    moved = Samples(first.names, first.targets, folder=tmp_path / "elsewhere")
    assert fingerprint({"train": moved}) == fingerprint({"train": first})
    Image.new("RGB", (4, 4), (9, 0, 0)).save(tmp_path / "elsewhere" / "1.png")
    assert fingerprint({"train": moved}) != fingerprint({"train": first})


def test_samples_are_chosen_in_all_their_columns():
    samples = Samples(
        ["a", "b", "c"],
        torch.tensor([1.0, 2.0, 3.0]),
        pixels=torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1),
        inputs={"numbers": torch.tensor([[4.0], [5.0], [6.0]]), "first": ["x", "y", "z"]},
    ).where(torch.tensor([True, False, True]))
    assert samples.names == ["a", "c"]
    assert samples.targets.tolist() == [1, 3]
    assert samples.pixels.flatten().tolist() == [0, 2]
    assert samples.inputs["numbers"].tolist() == [[4], [6]]
    assert samples.inputs["first"] == ["x", "z"]


def test_samples_must_fit_together(tmp_path):
    with pytest.raises(ValueError, match="targets must have a row for each of the 2 samples, got 3"):
        Samples(["a", "b"], torch.zeros(3))
    with pytest.raises(ValueError, match="first must have a row for each of the 2 samples, got 1"):
        Samples(["a", "b"], torch.zeros(2), inputs={"first": ["x"]})
    with pytest.raises(ValueError, match=r"targets must be float32 \(n,\) or \(n, k\), got torch.int64"):
        Samples(["a"], torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="not both"):
        Samples(["a"], torch.zeros(1), folder=tmp_path, pixels=torch.zeros(1, 1, 1, 1))


def test_missing_and_empty_files_are_counted_and_the_first_named(tmp_path):
    faces = some(tmp_path, 6)
    for index in (1, 2, 3, 4):
        (tmp_path / f"{index}.png").unlink()
    (tmp_path / "3.png").touch()
    message = (
        r"faces in .* is incomplete: 4 of 6 images are missing or empty \(1.png, 2.png, 3.png, ...\); ask for them"
    )
    with pytest.raises(FileNotFoundError, match=message):
        check_files([faces], "faces", "ask for them")


def test_an_unreadable_image_among_the_first_is_named_at_start_up(tmp_path):
    faces = some(tmp_path)
    (tmp_path / "0.png").write_bytes(b"\xff\xd8\xff but no more")
    with pytest.raises(OSError, match=r"cannot read the image .*0.png"):
        check_files([faces], "faces", "ask for them")


def test_an_unreadable_image_is_named_by_a_worker_too(tmp_path):
    data = make(AgeDB, tmp_path, workers=1)
    victim = data.parts["test"].path(7)
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(OSError, match=victim.name):
        list(data.evaluation["test"])


def test_an_augmented_image_is_drawn_from_epoch_and_index(tmp_path):
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, size=(2, 1, 16, 16), dtype=np.uint8))
    dataset = RegressionDataset(Samples(["a", "b"], torch.zeros(2), pixels=noise), PaddedCrop(16, 8), seed=4)
    assert torch.equal(dataset[(1, 0)]["image"], dataset[(1, 0)]["image"])
    assert not torch.equal(dataset[(0, 0)]["image"], dataset[(1, 0)]["image"])


# transforms


def photograph():
    generator = np.random.default_rng(3)
    rough = generator.integers(0, 256, size=(9, 13, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize((130, 90), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [48, 224])
def test_resizing_is_that_of_the_official_pipeline(size):
    image = photograph()
    theirs = np.array(vision.Resize((size, size))(image)).astype(int)  # Pillow's bilinear
    ours = Resize(size)(torch.from_numpy(np.array(image)).permute(2, 0, 1)).permute(1, 2, 0).numpy().astype(int)
    assert ours.shape == theirs.shape == (size, size, 3)
    assert np.abs(ours - theirs).max() <= 1


def test_a_padded_crop_is_one_of_its_windows_and_every_window_comes():
    image = torch.arange(1, 28, dtype=torch.uint8).view(3, 3, 3)
    bordered = torch.zeros(3, 5, 5, dtype=torch.uint8)
    bordered[:, 1:4, 1:4] = image
    windows = {}
    for top in range(3):
        for left in range(3):
            window = bordered[:, top : top + 3, left : left + 3]
            windows[window.numpy().tobytes()] = (top, left, False)
            windows[window.flip(-1).contiguous().numpy().tobytes()] = (top, left, True)
    torch.manual_seed(0)
    crop = PaddedCrop(3, padding=1)
    seen = [windows[crop(image).contiguous().numpy().tobytes()] for _ in range(400)]
    assert len(set(seen)) == len(windows) == 3 * 3 * 2
    assert 150 < sum(mirrored for _, _, mirrored in seen) < 250


def test_a_padded_crop_without_padding_and_flip_is_a_resize():
    image = torch.from_numpy(np.array(photograph())).permute(2, 0, 1)
    assert torch.equal(PaddedCrop(40, padding=0, flip=0.0)(image), Resize(40)(image))
    assert torch.equal(PaddedCrop(40, padding=0, flip=1.0)(image), Resize(40)(image).flip(-1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be at least 1 pixel, got 0"),
        ({"padding": -1}, "padding must be at least 0 pixels, got -1"),
        ({"flip": 1.5}, "flip must be a probability, 0 to 1, got 1.5"),
    ],
)
def test_a_padded_crop_refuses_nonsense(options, message):
    with pytest.raises(ValueError, match=message):
        PaddedCrop(**options)


# the construction of imbalanced data


@given(st.lists(st.integers(0, 3), min_size=3, max_size=60), st.integers(1, 5))
def test_validation_and_test_take_a_third_of_each_bin_up_to_a_limit(bins, most):
    bins = [*bins, 0, 0, 0]
    parts = balanced_parts(torch.tensor(bins), [str(i) for i in range(len(bins))], most)
    for number in set(bins):
        here = [part for part, bin_ in zip(parts, bins, strict=True) if bin_ == number]
        few = min(len(here) // 3, most)
        assert [here.count(part) for part in ("train", "validation", "test")] == [len(here) - 2 * few, few, few]


def test_the_parts_depend_on_names_and_split_seed_and_on_no_order():
    generator = torch.Generator().manual_seed(1)
    bins = torch.randint(4, (100,), generator=generator)
    names = [f"image {i}" for i in range(100)]
    first = balanced_parts(bins, names, 5)
    order = torch.randperm(100, generator=generator).tolist()
    assert balanced_parts(bins[order], [names[i] for i in order], 5) == [first[i] for i in order]
    assert balanced_parts(bins, names, 5, split_seed=1) != first
    assert random_parts(names, 0.2) != random_parts(names, 0.2, split_seed=1)
    assert [random_parts(names, 0.2).count(part) for part in ("train", "validation", "test")] == [60, 20, 20]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: balanced_parts(torch.zeros(9), list("abcdefghi"), 0), "at least 1 sample of a bin must be allowed"),
        (
            lambda: balanced_parts(torch.arange(4), list("abcd"), 9),
            r"no bin .* has three samples \(4 samples in 4 bins\)",
        ),
        (lambda: random_parts(list("abcd"), 0.5), "between 0 and 0.5, got 0.5"),
        (lambda: random_parts(list("ab"), 0.1), "2 samples are too few"),
    ],
)
def test_impossible_constructions_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_long_tail_has_the_density_it_should():
    values = tail(20_000, 18.0).double()
    for level in (1.0, 10.0, 18.0, 45.0, 80.0):
        share = (1 - np.exp(-level / 18)) / (1 - np.exp(-90 / 18))
        assert float((values <= level).double().mean()) == pytest.approx(share, abs=1e-4)
    assert 0 < values.min() < values.max() < 90
    assert bool((values.diff() > 0).all())
    assert tail(4, float("inf")).tolist() == [11.25, 33.75, 56.25, 78.75]


# the configurations


@pytest.mark.parametrize("name", ["agedb", "imdb_wiki", "table", "huggingface_regression", "rotated_digits"])
def test_every_configuration_builds_its_fixture(tmp_path, name):
    described = OmegaConf.load(Path(__file__).parents[2] / "configs" / "data" / f"{name}.yaml")
    config = OmegaConf.create({"seed": 3, "workers": 0, "paths": {"data": str(tmp_path)}, "data": described})
    config.data.fixture = True
    data = instantiate(config.data, _convert_="all")
    batch = next(iter(data.train))
    side = 32 if name == "rotated_digits" else 224
    assert batch["image"].shape == (16, 3, side, side)
    assert next(iter(data.evaluation["test"]))["image"].shape[1:] == (3, side, side)


def test_pictures_in_memory_are_those_of_the_file(tmp_path):
    samples = some(tmp_path)
    assert torch.equal(samples.load(2), decode(tmp_path / "2.png"))
    in_memory = Samples(["a"], torch.zeros(1), pixels=torch.full((1, 1, 2, 2), 7, dtype=torch.uint8))
    assert torch.equal(in_memory.load(0), torch.full((3, 2, 2), 7, dtype=torch.uint8))

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset

from harness.data.loading import EpochLoader
from rambo.sampling import ClassBalancedBatches, SuperLabelPairBatches

RAGGED = torch.tensor([0] * 7 + [1] * 2 + [2] * 12 + [3] * 4 + [4] * 1 + [5] * 9)


def every(sampler, epoch=0):
    return list(sampler.batches(epoch))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=4, max_size=12).filter(lambda sizes: max(sizes) > 1),
    st.integers(2, 4),
    st.integers(1, 4),
    st.integers(0, 1000),
)
def test_class_balanced_whatever_the_class_sizes(sizes, samples_per_class, classes_per_batch, seed):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    sampler = ClassBalancedBatches(
        labels,
        seed=seed,
        batch_size=classes_per_batch * samples_per_class,
        samples_per_class=samples_per_class,
        batches_per_epoch=17,
    )
    batches = every(sampler)
    assert len(batches) == len(sampler) == 17
    visits, shown = Counter(), Counter()
    for batch in batches:
        groups = [batch[i : i + samples_per_class] for i in range(0, len(batch), samples_per_class)]
        assert len(groups) == classes_per_batch
        present = [{int(labels[index]) for index in group} for group in groups]
        assert all(len(classes) == 1 for classes in present)
        assert len(set.union(*present)) == classes_per_batch  # no class twice
        for group, (label,) in zip(groups, present, strict=True):
            assert len(set(group)) == min(samples_per_class, sizes[label])  # repeats only where there are too few
            visits[label] += 1
            shown.update(group)
    assert max(visits.values()) - min(visits[label] for label in range(len(sizes))) <= 1
    for label, size in enumerate(sizes):
        if size >= samples_per_class:  # the images of a class are shown evenly too
            counts = [shown[index] for index in (labels == label).nonzero()[:, 0].tolist()]
            assert max(counts) - min(counts) <= 1


def test_an_epoch_goes_through_the_images_once():
    assert len(ClassBalancedBatches(torch.arange(5864) % 100)) == 5864 // 128


def test_small_classes():
    def sizes(option, label):
        sampler = ClassBalancedBatches(
            RAGGED, batch_size=12, samples_per_class=4, batches_per_epoch=30, small_classes=option
        )
        return {sum(int(RAGGED[i]) == label for i in batch) for batch in sampler.batches(0)} - {0}

    assert sizes("repeat", 1) == {4}
    assert sizes("repeat", 4) == {4}
    assert sizes("fewer", 1) == {2}
    assert sizes("fewer", 4) == {1}
    assert sizes("leave_out", 1) == sizes("leave_out", 4) == set()
    assert sizes("fewer", 3) == sizes("leave_out", 3) == {4}


SUPER = torch.tensor([0] * 12 + [1] * 12 + [2] * 12)
CLASSES = torch.arange(36) // 4  # nine classes of four, three to a super-label


def pair_batches(**options):
    options = {"batch_size": 8, "samples_per_class": 2, "batches_per_pair": 3, **options}
    return SuperLabelPairBatches(CLASSES, SUPER, **options)


def test_pairs_of_super_labels_in_fixed_order_half_and_half():
    batches = every(pair_batches())
    assert len(batches) == len(pair_batches()) == 3 * 3  # pairs x batches_per_pair
    expected = [(0, 1)] * 3 + [(0, 2)] * 3 + [(1, 2)] * 3
    for batch, (first, second) in zip(batches, expected, strict=True):
        assert [int(SUPER[i]) for i in batch] == [first] * 4 + [second] * 4
        chunks = [batch[i : i + 2] for i in range(0, 8, 2)]
        assert all(len(set(chunk)) == 2 and len({int(CLASSES[i]) for i in chunk}) == 1 for chunk in chunks)


def test_a_super_label_goes_round_its_images_and_is_taken_up_where_it_was_left():
    batches = every(pair_batches())
    for label in range(3):
        taken = [i for batch in batches for i in batch if SUPER[i] == label]
        assert len(taken) == 6 * 4  # twice the twelve images, over two pairs
        assert taken[:12] == taken[12:]
        assert sorted(taken[:12]) == (label == SUPER).nonzero()[:, 0].tolist()


def test_the_last_chunk_of_a_class_wraps_around():
    labels = torch.tensor([0] * 3 + [1] * 2)
    sampler = SuperLabelPairBatches(labels, labels, batch_size=8, samples_per_class=2, batches_per_pair=1)
    (batch,) = every(sampler)
    chunks = sorted(tuple(batch[i : i + 2]) for i in (0, 2))
    assert Counter(batch[:4]).most_common(1)[0][1] == 2  # four places for three images
    assert all(len(set(chunk)) == 2 for chunk in chunks)  # but never twice in a chunk


def test_orders():
    def pairs(sampler, epoch):
        return [tuple(sorted({int(SUPER[i]) for i in batch})) for batch in sampler.batches(epoch)]

    fixed = pairs(pair_batches(), 0)
    shuffled = [pairs(pair_batches(shuffle_pairs=True), epoch) for epoch in range(8)]
    assert any(order != fixed for order in shuffled)
    assert all(sorted(order) == fixed and order[0] == order[1] == order[2] for order in shuffled)
    mixed = [pairs(pair_batches(shuffle_batches=True), epoch) for epoch in range(8)]
    assert all(sorted(order) == fixed for order in mixed)
    assert any(order[0] != order[1] for order in mixed)


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: ClassBalancedBatches(RAGGED, seed=seed, batch_size=8, samples_per_class=2),
        lambda seed: pair_batches(seed=seed),
        lambda seed: pair_batches(seed=seed, shuffle_batches=True),
    ],
)
def test_batches_are_a_function_of_seed_and_epoch_alone(make):
    sampler = make(1)
    first = [every(sampler, epoch) for epoch in (0, 1, 2)]
    assert first[0] != first[1] != first[2]
    assert [every(sampler, epoch) for epoch in (2, 0)] == [first[2], first[0]]  # in any order, as often as one likes
    assert every(make(1), 1) == first[1]
    assert every(make(2), 0) != first[0]


class Positions(Dataset):
    def __getitem__(self, key):
        return torch.tensor(key)


def test_every_worker_sees_the_reshuffled_epoch():
    """The original reshuffles a data set's copy in one worker, so that the others repeat the first epoch for ever."""
    sampler = pair_batches()
    orders = []
    for workers in (0, 2):
        loader = EpochLoader(Positions(), sampler, num_workers=workers)
        loader.set_epoch(3)
        orders.append([batch.tolist() for batch in loader])
    assert orders[0] == orders[1] == [[[3, i] for i in batch] for batch in sampler.batches(3)]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"samples_per_class": 1}, "no batch can hold two images of a class"),
        ({"batch_size": 10, "samples_per_class": 4}, "use a multiple of 4"),
        ({"batch_size": 28, "samples_per_class": 4}, "needs 7 classes, but there are 6"),
        ({"batch_size": 0, "samples_per_class": 4}, "use a multiple of 4"),
        ({"batch_size": 8, "batches_per_epoch": 0}, "at least 1"),
        ({"batch_size": 8, "small_classes": "repaet"}, "repeat, fewer or leave_out, got 'repaet'"),
        ({"batch_size": 24, "small_classes": "leave_out"}, "needs 6 classes, but there are 4"),
    ],
)
def test_class_balanced_refusals(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        ClassBalancedBatches(RAGGED, **options)


def test_classes_of_one_image_can_never_give_a_positive_pair():
    with pytest.raises(ValueError, match="alone in its class"):
        ClassBalancedBatches(torch.arange(200))
    with pytest.raises(ValueError, match="alone in its class"):
        SuperLabelPairBatches(torch.arange(200), torch.arange(200) % 2)
    with pytest.raises(ValueError, match="non-empty vector"):
        ClassBalancedBatches(torch.zeros(0))


@pytest.mark.parametrize(
    ("labels", "super_labels", "options", "complaint"),
    [
        (CLASSES, None, {}, "no super-labels"),
        (CLASSES, torch.zeros(36), {}, "share one super-label"),
        (CLASSES, SUPER[:-1], {}, "got 35 super-labels for 36 labels"),
        (CLASSES, SUPER, {"batch_size": 12, "samples_per_class": 4}, "use a multiple of 8"),
        (CLASSES, SUPER, {"batches_per_pair": 0}, "at least 1"),
    ],
)
def test_super_label_refusals(labels, super_labels, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        SuperLabelPairBatches(labels, super_labels, **options)

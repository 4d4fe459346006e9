"""Images with several labels, from a table to the numbers: whoever shares a label is relevant."""

import csv
import json
import random
from collections import Counter
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from spawned import processes
from torch import nn
from torch.utils.data import DataLoader

from harness.data.loading import EvaluationShare
from harness.record import load
from rambo import blocks, neighbours
from rambo.datasets.folder import ImageFolder
from rambo.datasets.records import BOTH, GALLERY, QUERY, Records, shares_drawn
from rambo.datasets.transforms import CentreCrop
from rambo.evaluation import RetrievalMetrics
from rambo.figures.projection import embedding_projection
from rambo.labels import alike, alike_at, memberships, present
from rambo.losses import GalleryMemory, RecallLoss, RoadmapLoss, SiMix, SmoothAPLoss, SmoothRecallLoss
from rambo.metrics import retrieval_metrics
from rambo.objective import RetrievalObjective
from rambo.sampling import ClassBalancedBatches, SuperLabelPairBatches, _Deck
from tests.rambo.retrieval_losses import EVERY_LOSS, embedded


def hot(sets, classes):
    """What each item has, as bool (items, classes)."""
    return torch.tensor([[label in own for label in range(classes)] for own in sets])


def one_hot(labels):
    return nn.functional.one_hot(labels).bool()


def drawn(items, classes, seed=0, most=3):
    draws = torch.Generator().manual_seed(seed)
    sizes = torch.randint(0, most + 1, (items,), generator=draws).tolist()
    return [set(torch.randperm(classes, generator=draws)[:size].tolist()) for size in sizes]


def vectors(items, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(items, 6, generator=draws, dtype=torch.float64), dim=1)


SETS = [{0}, {0, 1}, {1, 2}, {3}, set()]


def test_who_shares_a_label_is_alike(monkeypatch):
    labels = hot(SETS, 4)
    shared = [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert alike(labels, labels).long().tolist() == shared
    places = torch.tensor([[1, 2], [4, 2], [0, 1], [3, 0], [4, 4]])
    for compared in (2**24, 1):
        monkeypatch.setattr("rambo.labels._COMPARED", compared)
        assert alike_at(labels, labels, places).tolist() == [[1, 0], [0, 1], [0, 1], [1, 0], [0, 0]]
    assert list(zip(*(column.tolist() for column in memberships(labels)), strict=True)) == [
        (0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 3),
    ]  # fmt: skip
    assert present(labels[3:]).tolist() == [3]
    with pytest.raises(ValueError, match=r"shapes \(5, 4\) and \(5, 3\) cannot be compared; give .* bool"):
        alike(labels, labels[:, :3])


def slow_definition(embeddings, sets, gallery, gallery_sets, own, recall_at):
    """The metrics of each query by Python's sets; None where it has nothing to find."""
    rows = []
    for query, labels, place in zip(embeddings, sets, own, strict=True):
        items = [
            (-float(query @ item), bool(labels & others))
            for position, (item, others) in enumerate(zip(gallery, gallery_sets, strict=True))
            if position != place
        ]
        hits = [relevant for _, relevant in sorted(items)]
        relevant = sum(hits)
        if not relevant:
            rows.append(None)
            continue
        precisions = [sum(hits[: i + 1]) / (i + 1) if hit else 0.0 for i, hit in enumerate(hits)]
        row = {f"recall@{k}": float(any(hits[:k])) for k in recall_at}
        row["r_precision"] = sum(hits[:relevant]) / relevant
        row["map_at_r"] = sum(precisions[:relevant]) / relevant
        rows.append(row | {"map": sum(precisions) / relevant})
    return rows


@pytest.mark.parametrize("seed", range(12))
def test_metrics_are_the_slow_definition(seed, monkeypatch):
    """All of a set among themselves, and queries in a gallery; whole lists and the first of them; in small blocks."""
    monkeypatch.setattr(neighbours, "STATE_BYTES", [1, 2**13, 2**29][seed % 3])
    monkeypatch.setattr(neighbours, "PAIRS", [1, 50, 2**22][seed % 3])
    items, classes = (12, 40, 130)[seed % 3], (4, 60)[seed % 2]
    sets, points = drawn(items, classes, seed), vectors(items, seed)
    for queries in (items, items // 3):
        whole = queries == items
        gallery, found = (points, sets) if whole else (points[queries:], sets[queries:])
        own = range(items) if whole else [-1] * queries
        rows = slow_definition(points[:queries], sets[:queries], gallery, found, own, (1, 5))
        answered = [row for row in rows if row]
        if not answered:
            continue
        given = (points[:queries], hot(sets[:queries], classes))
        given += () if whole else (gallery, hot(found, classes))
        for map in (True, False):
            result = retrieval_metrics(*given, recall_at=(1, 5), map=map, class_means=True)
            assert result["queries_without_match"] == queries - len(answered)
            for name in answered[0].keys() - (set() if map else {"map"}):
                assert result[name] == pytest.approx(sum(row[name] for row in answered) / len(answered))
                of_class = [
                    [r[name] for r, own in zip(rows, sets, strict=False) if r and c in own] for c in range(classes)
                ]
                means = [sum(values) / len(values) for values in of_class if values]
                assert result[f"class_mean_{name}"] == pytest.approx(sum(means) / len(means))


def test_metrics_by_hand():
    """Angles 0, 10, 25, 60: the nearest of each is the one before, of the first the second."""
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 25.0, 60.0]))
    points, labels = torch.stack([angles.cos(), angles.sin()], dim=1), hot([{0}, {1}, {0, 1}, {2}], 3)
    result = retrieval_metrics(points, labels, recall_at=[1], class_means=True)
    # nearest first, relevant or not:  0: 0 1 0   10: 0 1 0   25: 1 1 0; the last has nothing to find
    assert result["recall@1"] == pytest.approx((0 + 0 + 1) / 3)
    assert result["class_mean_recall@1"] == pytest.approx(((0 + 1) / 2 + (0 + 1) / 2) / 2)
    assert result["r_precision"] == pytest.approx((0 + 0 + 1) / 3)
    assert result["queries_without_match"] == 1


@pytest.mark.parametrize("options", [{}, {"map": True}, {"engine": "faiss"}, {"rerank": {"k1": 6, "k2": 3}}])
def test_one_label_each_gives_the_numbers_of_class_numbers(options):
    if "engine" in options:
        pytest.importorskip("faiss")
    points, labels = vectors(400).float(), torch.arange(400) % 60
    cameras = torch.arange(400) % 8  # each class before two of them
    sides = [(points, labels), (points[:90], labels[:90], points[90:], labels[90:])]
    for side in sides:
        several = tuple(one_hot(given) if given.ndim == 1 else given for given in side)
        seen = {"query_cameras": cameras[: len(side[0])], "gallery_cameras": cameras[90:] if len(side) > 2 else None}
        for known in ({}, seen):
            expected = retrieval_metrics(*side, class_means=True, **known, **options)
            assert retrieval_metrics(*several, class_means=True, **known, **options) == expected
        assert expected != retrieval_metrics(*side, class_means=True, **options)


def test_an_image_without_labels_stands_before_what_is_behind_it(monkeypatch):
    """Also where a score serves two blocks: of 40 threes on a circle, the first has no label, the others share one."""
    monkeypatch.setitem(blocks.COLUMNS, "cpu", 16)
    monkeypatch.setitem(blocks.BLOCK_BYTES, "cpu", 4 * 7 * 16)
    angles = torch.deg2rad(torch.tensor([9.0 * three + place for three in range(40) for place in (0, 1, 3)]))
    sets = [own for three in range(40) for own in (set(), {three}, {three})]
    result = retrieval_metrics(torch.stack([angles.cos(), angles.sin()], dim=1), hot(sets, 40), recall_at=[1])
    assert result["recall@1"] == 0.5  # of the middle ones none, of the last ones all
    assert result["queries_without_match"] == 40


def test_faiss_and_other_cameras_find_the_same():
    pytest.importorskip("faiss")
    labels, points = hot(drawn(500, 80), 80), vectors(500).float()
    expected = retrieval_metrics(points, labels)
    assert retrieval_metrics(points, labels, engine="faiss") == expected
    assert retrieval_metrics(points, labels, query_cameras=torch.arange(500)) == expected


def test_labels_that_cannot_be_compared_are_refused():
    points, labels = vectors(6), torch.arange(6) % 3
    with pytest.raises(ValueError, match="cannot be compared"):
        retrieval_metrics(points, one_hot(labels), points, labels)
    with pytest.raises(ValueError, match=r"or bool \(items, classes\)"):
        retrieval_metrics(points, one_hot(labels).long())
    with pytest.raises(ValueError, match="none of the 0 queries has a relevant item"):
        retrieval_metrics(points[:0], one_hot(labels)[:0], points, one_hot(labels))


class Points(torch.utils.data.Dataset):
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        role = (BOTH, QUERY, GALLERY)[index % 3]
        return {"image": vectors(len(self))[index], "label": self.labels[index], "index": index, "role": role}


class Itself(nn.Module):
    def forward(self, batch):
        return batch["image"]


def measured(labels, shared=False):
    sampler = EvaluationShare(len(labels), 4) if shared else None
    return RetrievalMetrics(class_means=True)(Itself(), DataLoader(Points(labels), batch_size=4, sampler=sampler))


def test_several_processes_measure_what_one_does(tmp_path):
    labels = hot(drawn(31, 8), 8)
    alone = measured(labels)
    for count in (1, 3):
        assert processes(count, partial(measured, labels, shared=True), tmp_path) == [alone] * count
    assert measured(one_hot(torch.arange(31) % 5)) == measured(torch.arange(31) % 5)


@EVERY_LOSS
@pytest.mark.parametrize("options", [{}, {"memory_batches": 2, "memory": "gallery"}, {"reduction": "class"}])
def test_losses_of_one_label_each_are_those_of_class_numbers(build, options):
    loss, twin = build(**options), build(**options)
    for seed in range(3):
        (points, labels), ids = embedded(seed=seed), torch.arange(12) + 5 * seed
        copy = points.detach().clone().requires_grad_()
        value, other = loss(points, labels, ids=ids), twin(copy, one_hot(labels), ids=ids)
        value.backward(), other.backward()
        assert value == other
        assert torch.equal(points.grad, copy.grad)


@EVERY_LOSS
def test_losses_take_who_shares_a_label_as_relevant(build):
    """As if Python's sets had said who is; also against references, and in a memory."""
    sets, points = drawn(12, 5), embedded()[0].detach()
    relevance = torch.tensor([[bool(own & other) for other in sets] for own in sets])
    apart = ~torch.eye(12, dtype=torch.bool)
    scores = nn.functional.normalize(points, dim=1) @ nn.functional.normalize(points, dim=1).T
    expected = build().from_scores(scores[apart].view(12, 11), relevance[apart].view(12, 11))
    given = hot(sets, 5)
    assert build()(points, given).item() == pytest.approx(expected.item())
    assert build()(points, given.tolist()).item() == pytest.approx(expected.item())
    found = build().from_scores(scores[:4, 4:], relevance[:4, 4:], items=3)
    against = build()(points[:4], given[:4], None, points[4:], given[4:])
    assert against.item() == pytest.approx(found.item(), abs=1e-9)
    memory = GalleryMemory(build(), 1)
    memory(points[4:], given[4:], ids=torch.arange(8))
    known = {"ids": torch.arange(4) + 8, "ref_ids": (torch.arange(12) + 8) % 12}
    both = build()(points[:4], given[:4], None, points, given, **known)
    assert memory(points[:4], given[:4], ids=torch.arange(4) + 8).item() == pytest.approx(both.item(), abs=1e-9)


def test_a_loss_by_hand_and_its_mean_over_classes():
    """Scores of unit vectors at 0, 10, 25 and 60 degrees with the labels a, b, ab and c: ranks as in the metrics."""
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 25.0, 60.0]))
    points, labels = torch.stack([angles.cos(), angles.sin()], dim=1), hot([{0}, {1}, {0, 1}, {2}], 3)
    log = RecallLoss(1.0, weight="log")
    # a: one irrelevant before its one; b: one before its one; ab: none before its two; c asks nothing
    assert log(points, labels).item() == pytest.approx(2 * torch.log(torch.tensor(2.0)).item() / 3)
    mean = RecallLoss(1.0, weight="log", reduction="class")(points, labels).item()
    assert mean == pytest.approx(torch.log(torch.tensor(2.0)).item() / 2)  # of a: (log 2 + 0) / 2, of b the same
    roadmap = RoadmapLoss()(points, one_hot(torch.tensor([0, 1, 0, 1])))
    assert roadmap == RoadmapLoss()(points, torch.tensor([0, 1, 0, 1]))


def test_what_needs_one_class_refuses_several():
    points, labels = vectors(5), hot(SETS, 4)
    data = SimpleNamespace(classes=4, several_labels=True)
    for loss in ("pytorch_metric_learning.losses.ProxyAnchorLoss", "pytorch_metric_learning.losses.TripletMarginLoss"):
        with pytest.raises(ValueError, match="Loss needs one class of each image, and these have several labels: use"):
            RetrievalObjective(loss, **({"embedding_size": 6} if "Proxy" in loss else {})).prepare(data)
    for loss in (SiMix(SmoothRecallLoss()), GalleryMemory(nn.Identity(), 1)):
        with pytest.raises(ValueError, match="needs one class"):
            RetrievalObjective(loss).prepare(data)
    with pytest.raises(ValueError, match="a miner needs one class"):
        RetrievalObjective(RecallLoss(1.0), miner=lambda *given: None).prepare(data)
    for loss in (RecallLoss(1.0), GalleryMemory(SmoothAPLoss(), 2), "rambo.losses.SupAPLoss"):
        RetrievalObjective(loss).prepare(data)
    with pytest.raises(ValueError, match="must be one number per item, got 4 label columns"):
        SiMix(SmoothRecallLoss())(points, labels)
    with pytest.raises(ValueError, match="ids must be one number per item"):
        RecallLoss(1.0)(points, labels, ids=labels)
    with pytest.raises(ValueError, match="cannot be compared"):
        RecallLoss(1.0)(points, labels, None, points, torch.arange(5))
    with pytest.raises(ValueError, match="with several labels use class_balanced"):
        SuperLabelPairBatches(labels, torch.arange(5) % 2, batch_size=4, samples_per_class=2)
    with pytest.raises(ValueError, match="the colour of its class"):
        embedding_projection("no.png", points, labels)


def test_batches_hold_images_of_each_class_and_none_twice():
    sets = drawn(60, 6, most=3)
    labels = hot(sets, 6)
    sampler = ClassBalancedBatches(labels, batch_size=12, samples_per_class=4, batches_per_epoch=200)
    shown = Counter()
    for batch in sampler.batches(0):
        assert len(batch) == len(set(batch)) == 12
        for group in (batch[i : i + 4] for i in range(0, 12, 4)):
            assert set.intersection(*(sets[image] for image in group))
        shown.update(batch)
    assert shown.keys() == {image for image, own in enumerate(sets) if own}
    few = hot([{0, 1}, {0, 1}, {1, 2}, {2}], 3)
    for batch in ClassBalancedBatches(few, batch_size=6, samples_per_class=2, batches_per_epoch=20).batches(0):
        assert len(batch) == len(set(batch)) <= 4
    with pytest.raises(ValueError, match="alone in its class"):
        ClassBalancedBatches(hot([{0}, {1}, {2}], 3), batch_size=4, samples_per_class=2)


def test_cards_that_are_passed_over_come_next():
    order = _Deck(range(5), random.Random(0)).deal(5)
    deck = _Deck(range(5), random.Random(0))
    assert deck.deal(1) == order[:1]
    assert deck.deal_others(1, set(order[1:3])) == [order[3]]
    assert deck.deal(3) == [*order[1:3], order[4]]


@pytest.mark.parametrize("small_classes", ["repeat", "fewer", "leave_out"])
def test_batches_of_one_label_each_are_those_of_class_numbers(small_classes):
    labels = torch.arange(50) % 7
    given = {"batch_size": 20, "samples_per_class": 5, "small_classes": small_classes}
    several, one = (ClassBalancedBatches(labels, **given) for labels in (one_hot(labels), labels))
    assert [list(several.batches(epoch)) for epoch in range(3)] == [list(one.batches(epoch)) for epoch in range(3)]


def records(sets, classes, **columns):
    pixels = torch.zeros(len(sets), 1, 2, 2, dtype=torch.uint8)
    return Records([f"{i}.png" for i in range(len(sets))], hot(sets, classes), pixels=pixels, **columns)


def test_who_can_ask_and_who_is_drawn():
    one = records([{0}, {0, 1}, {2}, {2, 3}, {3}], 4)
    assert one.answerable().tolist() == [True, True, True, True, True]
    roles = torch.tensor([QUERY, QUERY, QUERY, GALLERY, BOTH])
    assert records([{0}, {0, 1}, {2}, {2, 3}, {3}], 4, roles=roles).answerable().tolist() == [0, 0, 1, 0, 1]
    cameras = torch.tensor([0, 0, 0, 1, 1])
    assert records([{0}, {0, 1}, {2}, {2, 3}, {3}], 4, cameras=cameras).answerable().tolist() == [0, 0, 1, 1, 0]
    sets = [own or {0} for own in drawn(200, 9)]
    part = shares_drawn(records(sets, 9), 0.3, "test")
    for label in range(9):
        members = [bool(part[image]) for image, own in enumerate(sets) if label in own]
        assert 0 < sum(members) <= round(0.3 * len(members))
    rare = records([*[{0}] * 30, *[{0, 1 + place // 2} for place in range(10)]], 6)
    assert rare.labels[shares_drawn(rare, 0.3, "test")].sum(0).tolist() == [12, 1, 1, 1, 1, 1]
    labels = torch.arange(100) % 9
    alike_ones = Records(records(sets, 9).names[:100], labels, pixels=torch.zeros(100, 1, 2, 2, dtype=torch.uint8))
    assert torch.equal(
        shares_drawn(alike_ones, 0.3, "test"),
        shares_drawn(records([{label} for label in labels.tolist()], 9), 0.3, "test"),
    )


opened = partial(
    ImageFolder,
    sampler=partial(ClassBalancedBatches, batch_size=4, samples_per_class=2),
    train_transform=CentreCrop(8, 8),
    test_transform=CentreCrop(8, 8),
    table="images.csv",
    label_separator=";",
)


def listed(root, rows):
    for number, row in enumerate(rows):
        Image.new("RGB", (9, 9), (9 * number % 255, 80, 10)).save(root / row[0])
    with (root / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return root


ROWS = [
    ("0.png", "red; round", "train"),
    ("1.png", "round", "train"),
    ("2.png", "red;red;", "train"),
    ("3.png", "blue ;round", "train"),
    ("4.png", "red;blue", "test"),
    ("5.png", "blue", "test"),
    ("6.png", "green", "test"),
]


def test_a_table_with_several_labels(tmp_path, caplog):
    data = opened(listed(tmp_path, ROWS), split="closed")
    assert data.parts["train"].class_names_here() == ["blue", "red", "round"]
    assert data.classes == 3
    assert data.several_labels
    expected = [[0, 1, 1], [0, 0, 1], [0, 1, 0], [1, 0, 1]]
    assert data.parts["train"].labels.long().tolist() == expected
    batch = next(iter(data.train))
    assert batch["label"].dtype == torch.bool
    assert batch["label"].shape[1:] == (3,)
    assert data.describe()["train"] == {"images": 4, "classes": 3, "labels": 6}
    assert "1 classes of a closed split have no training image (green)" in caplog.text
    assert "1 of 3 test classes in" in caplog.text  # green: the image that is red can ask, as it is blue, too
    other = opened(listed(tmp_path, [*ROWS[:-1], ("6.png", "green;blue", "test")]), split="closed")
    assert other.describe()["fingerprint"] != data.describe()["fingerprint"]


def test_splits_that_would_part_a_class_are_refused_and_shares_of_images_drawn(tmp_path):
    listed(tmp_path, ROWS)
    with pytest.raises(ValueError, match=r"class 'blue' is in train and in test; .* data.split=closed"):
        opened(tmp_path)
    apart = [
        (path, "new;" + label.replace("blue", "cyan").replace("red", "pink"), part) for path, label, part in ROWS[4:]
    ]
    assert opened(listed(tmp_path, [*ROWS[:4], *apart])).parts["test"].answerable().all()
    with pytest.raises(ValueError, match=r"validation_fraction draws classes, .* column split of images.csv"):
        opened(tmp_path, validation_fraction=0.3)
    listed(tmp_path, [(path, label, "") for path, label, _ in ROWS])
    with pytest.raises(ValueError, match=r"a split by class draws classes, .* or set data.split=closed"):
        opened(tmp_path)
    with pytest.raises(ValueError, match=r"a split by class draws"):
        opened(tmp_path, test_classes=["red"])
    many = [(f"{n}.png", "ab"[n % 2] + ";" + "cde"[n % 3], "") for n in range(36)]
    data = opened(listed(tmp_path, many), split="closed", test_fraction=0.34, validation_fraction=0.3)
    assert {part: len(found.class_names_here()) for part, found in data.parts.items()} == dict.fromkeys(data.parts, 5)
    assert 8 <= len(data.parts["test"]) <= 12
    listed(tmp_path, [(f"{n}.png", f"only{n};{'ab'[n % 2]}", "") for n in range(36)])
    with pytest.raises(ValueError, match=r"no image of .* can be kept for the test, as each has a label that no other"):
        opened(tmp_path, split="closed")
    rare = [(f"{n}.png", f"only{n};{'ab'[n % 2]}", "train") for n in range(18)]
    listed(tmp_path, [*rare, *((f"{n}.png", "ab"[n % 2], "test") for n in range(18, 36))])
    with pytest.raises(ValueError, match=r"no image of .* can be kept for validation, as each has a label"):
        opened(tmp_path, split="closed", validation_fraction=0.3)


def test_separators_that_part_nothing_are_told(tmp_path, caplog):
    listed(tmp_path, ROWS)
    for options in ({"label_separator": " "}, {"table": None}):
        with pytest.raises(ValueError, match=r"label_separator=.* should be a sign"):
            opened(tmp_path, **options)
    opened(listed(tmp_path, [(f"{n}.png", "ab"[n % 2], ["train", "test"][n // 4]) for n in range(8)]), split="closed")
    assert "no image of images.csv has a second label behind a ';'" in caplog.text
    listed(tmp_path, [("0.png", ";", "train"), *ROWS[1:]])
    with pytest.raises(ValueError, match=r"'0.png' has the labels ';', of which none is left"):
        opened(tmp_path, split="closed")


@pytest.mark.parametrize("loss", ["recall", "average_precision"])
def test_a_run_on_a_table_of_several_labels(loss, tmp_path, runs_of):
    """From the table to the report: its numbers are those of Python's sets, and proxies are refused before training."""
    many = [(f"{n}.png", "ab"[n % 2] + ";" + "cde"[n // 2 % 3], ["train", "test"][n // 24]) for n in range(36)]
    listed(tmp_path, many)
    own = ["data.fixture=false", f"data.root={tmp_path}", "data.table=images.csv", "data.label_separator=';'"]
    own += ["data.split=closed", "data.sampler.batch_size=8", "data.sampler.samples_per_class=4"]
    folder = runs_of("folder_rambo", *own, "metrics.class_means=true", f"loss={loss}")
    report = json.loads((folder / "report.json").read_text())
    assert report["data"]["test"] == {"images": 12, "classes": 5, "labels": 24}
    found = load(folder).embed([tmp_path / path for path, _, part in many if part == "test"])
    sets = [set(label.split(";")) for _, label, part in many if part == "test"]
    rows = slow_definition(found, sets, found, sets, range(12), (1, 2))
    for name in rows[0].keys() - {"map"}:
        mean = sum(row[name] for row in rows) / 12
        assert report["results"]["last"]["metrics"][f"test/{name}"] == pytest.approx(mean, abs=1e-6)
    with pytest.raises(ValueError, match="ProxyAnchorLoss needs one class of each image"):
        runs_of("folder_rambo", *own, "loss=proxy_anchor")

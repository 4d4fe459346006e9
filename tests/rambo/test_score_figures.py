import itertools
import math
import statistics

import pytest
import torch

from rambo.figures import scores as score_figures
from rambo.figures.scores import batch_map, expected_batch_map, score_distributions, score_histogram
from rambo.metrics import retrieval_metrics

PNG = b"\x89PNG"


def points(count, dimensions=4, seed=0):
    drawn = torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(drawn, dim=1)


def average_precision(scores, relevant):
    """By its definition: the precision at each relevant item, one after the other."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    hits = [place for place, item in enumerate(order, start=1) if relevant[item]]
    return statistics.fmean((k + 1) / place for k, place in enumerate(hits))


def slow_map(embeddings, labels, batch):
    """Mean average precision of one batch, or None if no query has a match."""
    found = []
    for query in batch:
        others = [item for item in batch if item != query]
        relevant = [bool(labels[item] == labels[query]) for item in others]
        if any(relevant):
            scores = [float(embeddings[query].double() @ embeddings[item].double()) for item in others]
            found.append(average_precision(scores, relevant))
    return statistics.fmean(found) if found else None


@pytest.mark.parametrize("size", [2, 3, 4, 6])
def test_every_batch_of_a_tiny_set_is_counted_once(size):
    embeddings, labels = points(6), torch.tensor([0, 0, 1, 1, 2, 2])
    all_batches = itertools.combinations(range(6), size)
    slow = [value for batch in all_batches if (value := slow_map(embeddings, labels, batch)) is not None]
    found = expected_batch_map(embeddings, labels, size, batches=20)
    assert found.size == size
    assert found.batches == len(slow)
    assert found.mean == pytest.approx(statistics.fmean(slow), abs=1e-6)
    assert found.deviation == pytest.approx(statistics.pstdev(slow), abs=1e-6)


def test_of_two_images_all_that_match_are_found_first():
    # 3 of the 15 pairs of images are of one class, and each image of them finds the other at once.
    found = expected_batch_map(points(6), torch.tensor([0, 0, 1, 1, 2, 2]), 2)
    assert (found.mean, found.deviation, found.batches) == (1.0, 0.0, 3)


def test_images_of_several_labels_match_where_they_share_one():
    labels = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 1]]).bool()
    found = expected_batch_map(points(6), labels, 2)  # of the 15 pairs the first two, the next two, and the 4th and 6th
    assert (found.mean, found.deviation, found.batches) == (1.0, 0.0, 3)
    with pytest.raises(ValueError, match="drawn from images of one class each, and these have several labels"):
        batch_map("no.png", points(6), labels, sizes=[6], samples_per_class=4)


def test_drawn_batches_estimate_the_mean_of_all():
    embeddings, labels = points(10), torch.arange(10) % 3
    exact = expected_batch_map(embeddings, labels, 4, batches=math.comb(10, 4))
    drawn = expected_batch_map(embeddings, labels, 4, batches=100)
    assert exact.batches == 210 == math.comb(10, 4)  # of 4 images of 3 classes two are always of one
    assert drawn.batches == 100
    assert abs(drawn.mean - exact.mean) < 4 * exact.deviation / math.sqrt(100)
    assert drawn.mean != exact.mean
    assert drawn == expected_batch_map(embeddings, labels, 4, batches=100)  # the draws are those of a seed


def test_balanced_batches_hold_as_many_of_each_class():
    embeddings, labels = points(9), torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    pairs = [list(itertools.combinations(range(3 * k, 3 * k + 3), 2)) for k in range(3)]
    slow = [
        slow_map(embeddings, labels, (*first, *second))
        for k, m in itertools.combinations(range(3), 2)
        for first, second in itertools.product(pairs[k], pairs[m])
    ]
    assert len(slow) == 27
    found = expected_batch_map(embeddings, labels, 4, samples_per_class=2, batches=100)
    assert abs(found.mean - statistics.fmean(slow)) < 4 * statistics.pstdev(slow) / math.sqrt(100)


def test_classes_with_too_few_images_are_not_drawn():
    embeddings, labels = points(5), torch.tensor([0, 0, 1, 1, 2])
    found = expected_batch_map(embeddings, labels, 4, samples_per_class=2, batches=3)
    assert found.mean == pytest.approx(slow_map(embeddings, labels, (0, 1, 2, 3)))
    assert found.deviation == pytest.approx(0, abs=1e-9)


def test_a_set_without_a_match_in_any_batch_has_no_mean():
    found = expected_batch_map(points(4), torch.arange(4), 2)
    assert math.isnan(found.mean)
    assert found.batches == 0


@pytest.mark.parametrize(
    ("size", "per_class", "words"),
    [(1, None, "2 to 6 of 6"), (7, None, "2 to 6 of 6"), (6, 3, "cannot hold 3"), (4, 1, "cannot hold 1"),
     (1, 2, "cannot hold 2"), (8, 2, "cannot hold 2")],
)  # fmt: skip
def test_batches_that_cannot_be_are_refused(size, per_class, words):
    with pytest.raises(ValueError, match=words):
        expected_batch_map(points(6), torch.tensor([0, 0, 1, 1, 2, 2]), size, samples_per_class=per_class)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_small_batches_overestimate_and_the_whole_set_is_the_last_point(tmp_path, ending):
    embeddings, labels = points(64), torch.arange(64) % 4
    path = tmp_path / f"map.{ending}"
    lines = batch_map(path, embeddings, labels, samples_per_class=4, batches=20)
    whole = retrieval_metrics(embeddings, labels, map=True)["map"]
    assert lines["whole"][0].mean == pytest.approx(whole)
    at_random = lines["images at random"]
    assert [estimate.size for estimate in at_random] == [8, 16, 32]
    assert at_random[0].mean > at_random[1].mean > at_random[2].mean > whole
    balanced = next(line for name, line in lines.items() if name.startswith("4 images of each"))
    assert [estimate.size for estimate in balanced] == [8, 16]  # there are but 4 classes
    assert path.read_bytes().startswith(PNG if ending == "png" else b"<?xml")


def test_cosines_are_counted_by_kind():
    # At 0, 60 and 180 degrees: one positive pair with cosine 1/2; negatives with -1 and -1/2. Each counts twice.
    angles = torch.tensor([0, math.pi / 3, math.pi])
    embeddings = 7 * torch.stack([angles.cos(), angles.sin()], dim=1)  # whose length does not count
    found = score_histogram(embeddings, torch.tensor([0, 0, 1]), bins=2)
    assert found.edges.tolist() == pytest.approx([-1, -0.25, 0.5], abs=1e-6)
    assert found.positives.tolist() == [0, 2]
    assert found.negatives.tolist() == [4, 0]
    assert found.means == pytest.approx((0.5, (-1 - 0.5) / 2), abs=1e-6)
    assert found.overlap == 0
    assert [density.tolist() for density in found.densities()] == [
        pytest.approx([0, 1 / 0.75], abs=1e-5), pytest.approx([1 / 0.75, 0], abs=1e-5),
    ]  # fmt: skip


def test_the_overlap_is_the_shared_area():
    # Of two positive pairs one lies with all negatives in the lower bin.
    angles = torch.tensor([0.0, 0.1, 2.0, 2.0 + 1.9])  # positives 0.995 and -0.32, negatives -0.32 to -0.79
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = score_histogram(embeddings, torch.tensor([0, 0, 1, 1]), bins=2)
    assert found.positives.tolist() == [2, 2]
    assert found.negatives.tolist() == [8, 0]
    assert found.overlap == pytest.approx(0.5)


def test_scores_that_are_all_equal_overlap_wholly():
    angles = torch.arange(3) * 2 * math.pi / 3  # any two differ by 120 degrees
    found = score_histogram(torch.stack([angles.cos(), angles.sin()], dim=1).double(), torch.tensor([0, 0, 1]), bins=1)
    assert found.overlap == pytest.approx(1)


def test_going_through_few_rows_at_a_time_changes_nothing(monkeypatch):
    embeddings, labels = points(23), torch.arange(23) % 5
    at_once = score_histogram(embeddings, labels)
    monkeypatch.setattr(score_figures, "_ROWS", 4)
    in_parts = score_histogram(embeddings, labels)
    cosines = embeddings.double() @ embeddings.double().T
    off = ~torch.eye(23, dtype=torch.bool)
    same = labels[:, None] == labels
    assert int(at_once.positives.sum()) == int((same & off).sum())
    assert int(at_once.negatives.sum()) == int((~same).sum())
    assert at_once.means == pytest.approx((float(cosines[same & off].mean()), float(cosines[~same].mean())))
    assert torch.equal(at_once.positives, in_parts.positives)
    assert torch.equal(at_once.negatives, in_parts.negatives)
    assert in_parts.means == pytest.approx(at_once.means)


def test_a_collapse_is_seen_beside_a_spread_run(tmp_path):
    labels = torch.arange(40) % 4
    spread = points(40)
    collapsed = torch.nn.functional.normalize(torch.ones(4) + 1e-3 * spread, dim=1)
    found = score_distributions(tmp_path / "scores.png", {"no margin": (collapsed, labels), "margin": (spread, labels)})
    assert (tmp_path / "scores.png").read_bytes().startswith(PNG)
    widths = {name: float(scores.edges[-1] - scores.edges[0]) for name, scores in found.items()}
    assert widths["no margin"] < 1e-4
    assert widths["margin"] > 1
    assert found["no margin"].overlap < 1  # bins are fine enough to tell what order there is


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0]])
def test_scores_of_one_kind_have_no_two_distributions(labels):
    with pytest.raises(ValueError, match="two images of one class and two of different classes"):
        score_histogram(points(4), torch.tensor(labels))


def test_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a run at least"):
        score_distributions(tmp_path / "a.png", {})

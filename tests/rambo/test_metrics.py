import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rambo import blocks
from rambo.evaluation import RetrievalMetrics, embed
from rambo.metrics import nearest, retrieval_metrics


def slow_definition(queries, query_labels, gallery, gallery_labels, own, recall_at):
    """Sorts the list of every query, irrelevant items first among equals, and reads the metrics off it."""
    rows = []
    for query, label, self_position in zip(queries, query_labels, own, strict=True):
        items = [
            (-float(query @ item), bool(other == label))
            for position, (item, other) in enumerate(zip(gallery, gallery_labels, strict=True))
            if position != self_position
        ]
        hits = [relevant for _, relevant in sorted(items)]  # False sorts before True
        relevant = sum(hits)
        if relevant == 0:
            continue
        precisions = [sum(hits[: i + 1]) / (i + 1) if hit else 0.0 for i, hit in enumerate(hits)]
        row = {f"recall@{k}": float(any(hits[:k])) for k in recall_at}
        row["r_precision"] = sum(hits[:relevant]) / relevant
        row["map_at_r"] = sum(precisions[:relevant]) / relevant
        row["map"] = sum(precisions) / relevant
        rows.append(row)
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return {**means, "queries_without_match": len(queries) - len(rows)}


def on_circle(*degrees):
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_values_by_hand():
    embeddings, labels = on_circle(0.0, 10.0, 25.0, 47.0, 80.0), torch.tensor([0, 1, 0, 1, 1])
    # labels as each image sees them, nearest first:  0: 1 0 1 1   10: 0 0 1 1   25: 1 1 0 1   47: 0 1 1 0   80: 1 0 1 0
    result = retrieval_metrics(embeddings, labels, recall_at=[1, 2, 3], map=True)
    assert result["recall@1"] == pytest.approx((0 + 0 + 0 + 0 + 1) / 5)
    assert result["recall@2"] == pytest.approx((1 + 0 + 0 + 1 + 1) / 5)
    assert result["recall@3"] == 1
    assert result["r_precision"] == pytest.approx((0 / 1 + 0 / 2 + 0 / 1 + 1 / 2 + 1 / 2) / 5)
    assert result["map_at_r"] == pytest.approx((0 + 0 + 0 + (1 / 2) / 2 + 1 / 2) / 5)
    average_precisions = [1 / 2, (1 / 3 + 2 / 4) / 2, 1 / 3, (1 / 2 + 2 / 3) / 2, (1 / 1 + 2 / 3) / 2]
    assert result["map"] == pytest.approx(sum(average_precisions) / 5)
    assert result["queries_without_match"] == 0


def test_a_perfect_embedding_scores_one():
    labels = torch.arange(40) % 8
    result = retrieval_metrics(torch.eye(8)[labels], labels, recall_at=[1], map=True)
    assert result == {"recall@1": 1, "r_precision": 1, "map_at_r": 1, "map": 1, "queries_without_match": 0}


@pytest.mark.parametrize("items", [10, 37, 1000, 1999])
@pytest.mark.parametrize("dimensions", [3, 64, 200])
def test_a_collapsed_model_finds_nothing(items, dimensions):
    """Wherever a matrix product rounds differently, and whether scores are sorted, searched or grouped."""
    torch.manual_seed(items)
    embeddings = nn.functional.normalize(torch.rand(dimensions), dim=0).expand(items, -1)
    labels = torch.arange(items) // 2
    result = retrieval_metrics(embeddings, labels, recall_at=[1, 8], map=items <= 37)
    assert (result["recall@1"], result["r_precision"], result["map_at_r"]) == (0, 0, 0)
    if items <= 37:  # the relevant item stands last of items - 1
        assert result["map"] == pytest.approx(1 / (items - 1))


def test_a_duplicate_is_not_taken_for_the_query_itself():
    """Two equal images of different classes: each finds the other first, and never itself."""
    embeddings = on_circle(0.0, 0.0, 20.0, 60.0)
    result = retrieval_metrics(embeddings, torch.tensor([0, 1, 0, 1]), recall_at=[1, 2])
    # labels seen by the first: 1 0 1; the second: 0 0 1; the third: 1 (tied, so before) 0 1; the fourth: 0 0 (tied) 1
    assert result["recall@1"] == 0
    assert result["recall@2"] == pytest.approx((1 + 0 + 1 + 0) / 4)


def test_queries_without_a_match_are_left_out_and_counted():
    embeddings = on_circle(0.0, 5.0, 50.0, 90.0)
    result = retrieval_metrics(embeddings, torch.tensor([3, 3, 4, 5]), recall_at=[1])
    assert result["recall@1"] == 1
    assert result["queries_without_match"] == 2


def test_labels_beyond_float32_stay_apart():
    big = 2**24
    labels = torch.tensor([big, big + 1, big + 1, big])  # equal in float32
    result = retrieval_metrics(on_circle(0.0, 1.0, 40.0, 41.0), labels, recall_at=[1])
    assert result["recall@1"] == 0


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_equals_the_slow_definition(data):
    """With ties, duplicates, classes of any size and queries without a match; integer vectors give exact scores."""
    items = data.draw(st.integers(2, 24))
    vector = st.lists(st.integers(-2, 2), min_size=3, max_size=3)
    embeddings = torch.tensor(data.draw(st.lists(vector, min_size=items, max_size=items)), dtype=torch.float32)
    labels = torch.tensor(data.draw(st.lists(st.integers(0, 4), min_size=items, max_size=items)))
    roles = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=items, max_size=items)))
    if data.draw(st.booleans()):
        roles = torch.zeros_like(roles)
    asking, found = (roles != 2).nonzero()[:, 0], (roles != 1).nonzero()[:, 0]
    own = [found.tolist().index(i) if i in found.tolist() else -1 for i in asking.tolist()]
    if not any((labels[found] == labels[i]).sum() > (own[n] >= 0) for n, i in enumerate(asking)):
        return  # nothing to measure
    recall_at = [1, 2, data.draw(st.integers(3, 30))]
    expected = slow_definition(
        embeddings[asking], labels[asking], embeddings[found], labels[found], own, recall_at=recall_at
    )
    arguments = (embeddings[asking], labels[asking], embeddings[found], labels[found])
    got = retrieval_metrics(*arguments, own_positions=torch.tensor(own), recall_at=recall_at, map=True)
    assert got == pytest.approx(expected, abs=1e-12)
    del expected["map"]
    got = retrieval_metrics(*arguments, own_positions=torch.tensor(own), recall_at=recall_at)
    assert got == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 3, 17]), st.sampled_from([200, 999, 2500]))
def test_the_highest_scores_are_those_of_a_stable_sort(seed, count, items):
    """In blocks of any size, in either layout, with ties and where too few of a row count."""
    torch.manual_seed(seed)
    scores = torch.randint(-30, 30, (4, items)).float()
    scores[1, 5:] = -torch.inf
    expected = scores.sort(dim=1, descending=True, stable=True)
    highest, start = blocks.Highest(4, count, torch.float32, scores.device), 0
    for part in scores.split(1 + seed % 701, dim=1):
        rows = slice(0, 3) if seed % 2 else slice(0, 4)
        highest.update(part[rows].T.contiguous().T if seed % 3 else part[rows].contiguous(), start, rows)
        highest.update(part[3:].contiguous(), start, slice(3, 4)) if seed % 2 else None
        start += part.shape[1]
    found, places = highest.result()
    assert torch.equal(found, expected.values[:, :count])
    assert torch.equal(places[found > -torch.inf], expected.indices[:, :count][found > -torch.inf])


@pytest.mark.parametrize(("items", "classes"), [(300, 12), (2000, 400)])
def test_equals_pytorch_metric_learning(items, classes):
    calculators = pytest.importorskip(
        "pytorch_metric_learning.utils.accuracy_calculator", reason="optional extra: peers"
    )
    pytest.importorskip("faiss", reason="optional extra: peers")
    torch.manual_seed(0)
    labels = torch.randint(0, classes, (items,))
    embeddings = nn.functional.normalize(torch.randn(items, 32) + 0.7 * torch.randn(classes, 32)[labels], dim=1)
    names = ("precision_at_1", "r_precision", "mean_average_precision_at_r", "mean_average_precision")
    theirs = calculators.AccuracyCalculator(include=names, device=torch.device("cpu")).get_accuracy(embeddings, labels)
    ours = retrieval_metrics(embeddings, labels, map=True)
    assert [ours[name] for name in ("recall@1", "r_precision", "map_at_r", "map")] == pytest.approx(
        [theirs[name] for name in names], abs=1e-6
    )
    assert 0.05 < ours["recall@1"] < 0.95  # neither chance nor perfection


def test_neither_chunks_nor_order_change_a_number(monkeypatch):
    torch.manual_seed(1)
    embeddings, labels = nn.functional.normalize(torch.randn(150, 8), dim=1), torch.randint(0, 20, (150,))
    whole = retrieval_metrics(embeddings, labels, map=True)
    for columns, queries in ((150, 7), (13, 150), (64, 64), (39, 5)):
        monkeypatch.setitem(blocks.COLUMNS, "cpu", columns)
        monkeypatch.setitem(blocks.BLOCK_BYTES, "cpu", columns * 4 * queries)
        assert retrieval_metrics(embeddings, labels, map=True) == pytest.approx(whole, abs=1e-12)
        few = retrieval_metrics(embeddings, labels, recall_at=[1, 2, 4, 8])
        assert few == pytest.approx({name: value for name, value in whole.items() if name != "map"}, abs=1e-12)
    order = torch.randperm(150)
    assert retrieval_metrics(embeddings[order], labels[order], map=True) == pytest.approx(whole, abs=1e-12)


def test_half_and_double_precision():
    torch.manual_seed(2)
    embeddings, labels = nn.functional.normalize(torch.randn(100, 16), dim=1), torch.arange(100) % 9
    double = retrieval_metrics(embeddings.double(), labels, map=True)
    assert retrieval_metrics(embeddings, labels, map=True) == pytest.approx(double, abs=1e-9)
    with torch.autocast("cpu", dtype=torch.bfloat16):  # as when a trainer evaluates within its mixed precision
        assert retrieval_metrics(embeddings, labels, map=True) == pytest.approx(double, abs=1e-9)


def test_refusals():
    embeddings, labels = on_circle(0.0, 1.0, 2.0), torch.tensor([0, 0, 1])
    with pytest.raises(ValueError, match="one label each"):
        retrieval_metrics(embeddings, labels[:2])
    with pytest.raises(ValueError, match="must be integers"):
        retrieval_metrics(embeddings, labels.float())
    with pytest.raises(ValueError, match="1 of 3 query embeddings hold nan"):
        retrieval_metrics(torch.tensor([[0.0, 1], [float("nan"), 0], [1, 0]]), labels)
    with pytest.raises(ValueError, match="none of the 3 queries has a relevant item"):
        retrieval_metrics(embeddings, torch.arange(3))
    with pytest.raises(ValueError, match="without gallery_labels"):
        retrieval_metrics(embeddings, labels, embeddings)
    with pytest.raises(ValueError, match="positive integers"):
        RetrievalMetrics(recall_at=[0, 1])


def test_nearest_leaves_out_the_query_and_keeps_order():
    embeddings = on_circle(0.0, 10.0, 25.0, 47.0, 80.0)
    found = nearest(embeddings[[2, 4]], embeddings, 3, own_positions=torch.tensor([2, 4]))
    assert found.tolist() == [[1, 3, 0], [3, 2, 1]]
    assert nearest(embeddings[[2]], embeddings, 2).tolist() == [[2, 1]]
    with pytest.raises(ValueError, match="between 1 and the 4 items"):
        nearest(embeddings, embeddings, 5, own_positions=torch.arange(5))


class Points(nn.Module):
    """Answers with the point that is written in the image's place; dropout shows the mode."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.9)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        return self.dropout(batch["image"]) * self.scale


def batches(embeddings, labels, roles=None):
    index = torch.arange(len(labels))
    for part in index.split(3):
        yield {"image": embeddings[part], "label": labels[part], "index": part} | (
            {} if roles is None else {"role": roles[part]}
        )


@pytest.mark.parametrize("training", [True, False])
def test_embed_gathers_without_gradients_and_restores_the_mode(training):
    embeddings, labels = on_circle(0.0, 10.0, 20.0, 30.0, 40.0), torch.arange(5)
    model = Points().train(training)
    got = embed(model, batches(embeddings, labels))
    assert torch.equal(got.embeddings, embeddings)  # so dropout was off
    assert got.indices.tolist() == got.labels.tolist() == [0, 1, 2, 3, 4]
    assert got.roles.tolist() == [0] * 5
    assert not got.embeddings.requires_grad
    assert model.training == training
    with pytest.raises(ValueError, match="no batch"):
        embed(model, [])


@pytest.mark.parametrize("order", [True, False])
def test_the_names_are_those_of_what_is_given(order):
    metrics = RetrievalMetrics(recall_at=[1, 3], map=order)
    assert metrics.names() == list(metrics(Points(), batches(on_circle(0.0, 1.0, 50.0), torch.tensor([0, 0, 1]))))


def test_roles_choose_queries_and_gallery():
    embeddings, labels = on_circle(0.0, 1.0, 50.0, 51.0, 5.0), torch.tensor([0, 0, 1, 1, 1])
    metrics = RetrievalMetrics(recall_at=[1], map=True)
    assert metrics(Points(), batches(embeddings, labels))["recall@1"] == pytest.approx(4 / 5)
    roles = torch.tensor([1, 2, 1, 2, 2])  # 0 seeks among 1, 50, 51 and 5 less itself: 1 first; 50 finds 51
    assert metrics(Points(), batches(embeddings, labels, roles))["recall@1"] == 1
    mixed = torch.tensor([0, 2, 0, 2, 1])  # 5 seeks among 0, 1, 50, 51 and finds 1
    assert metrics(Points(), batches(embeddings, labels, mixed))["recall@1"] == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="got 0 and 5"):
        metrics(Points(), batches(embeddings, labels, torch.full((5,), 2)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    levels=st.integers(0, 2),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
)
def test_any_own_position_gives_what_the_definition_gives(seed, sizes, levels, dtype):
    """Also where the gallery holds the query under another label, or elsewhere twice."""
    random = torch.Generator().manual_seed(seed)
    queries, gallery = (torch.randn(size, 3, generator=random, dtype=torch.float64) for size in sizes)
    if levels:
        queries, gallery = (part.mul(levels).round() for part in (queries, gallery))
    queries, gallery = queries.to(dtype), gallery.to(dtype)
    query_labels, gallery_labels = (torch.randint(0, 3, (size,), generator=random) for size in sizes)
    own = torch.randint(-1, sizes[1], (sizes[0],), generator=random)
    arguments = (queries, query_labels, gallery, gallery_labels)
    try:
        kind = torch.float64 if dtype == torch.float64 else torch.float32
        expected = slow_definition(queries.to(kind), query_labels, gallery.to(kind), gallery_labels, own, [1, 2])
    except IndexError:
        with pytest.raises(ValueError, match="none of the"):
            retrieval_metrics(*arguments, own_positions=own, recall_at=[1, 2], map=True)
        return
    assert retrieval_metrics(*arguments, own_positions=own, recall_at=[1, 2], map=True) == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(exponents=st.tuples(st.floats(-30, 30), st.floats(-30, 30)), seed=st.integers(0, 100))
def test_no_scale_changes_a_metric(exponents, seed):
    """Products that overflow were ranked in favour of the model, and those that underflow tied."""
    random = torch.Generator().manual_seed(seed)
    queries, gallery = torch.randn(2, 12, 3, generator=random)
    labels = torch.arange(12) % 4
    q, g = (10.0**exponent for exponent in exponents)
    assert retrieval_metrics(queries * q, labels, map=True) == retrieval_metrics(queries, labels, map=True)
    same = retrieval_metrics(queries * q, labels, gallery * g, labels, map=True)
    assert same == retrieval_metrics(queries, labels, gallery, labels, map=True)


def test_any_integer_will_do_for_k():
    labels = torch.arange(6) // 2
    expected = retrieval_metrics(torch.eye(6), labels, recall_at=[1, 2])
    assert retrieval_metrics(torch.eye(6), labels, recall_at=numpy.array([1, 2])) == expected
    assert retrieval_metrics(torch.eye(6), labels, recall_at=[torch.tensor(1), numpy.int64(2)]) == expected
    assert RetrievalMetrics(recall_at=numpy.array([1, 2])).names()[0] == "recall@1"
    for bad in ([1.0], [True], [0], [], numpy.array([1.5]), ["1"]):
        with pytest.raises(ValueError, match="positive integers"):
            retrieval_metrics(torch.eye(6), labels, recall_at=bad)


@pytest.mark.parametrize(
    ("gallery", "own", "message"),
    [
        (torch.eye(6)[:, :5], None, "6 dimensions cannot be compared with a gallery of 5"),
        (torch.eye(6), torch.arange(5), r"one integer for each of the 6 queries, got torch.int64 \(5,\)"),
        (torch.eye(6), torch.arange(6.0), r"one integer .* got torch.float32"),
        (torch.eye(6), torch.arange(6) + 1, "between 0 and 5, or be -1 .* got 1 to 6"),
        (torch.eye(6), torch.arange(6) - 2, "between 0 and 5, or be -1 .* got -2 to 3"),
    ],
)
def test_what_does_not_fit_is_refused_by_a_sentence(gallery, own, message):
    labels = torch.arange(6) // 2
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(torch.eye(6), labels, gallery, labels, own_positions=own)

"""k-reciprocal re-ranking against its definition in sets, and as a metric; means over classes."""

import math

import pytest
import torch
from torch import nn

from harness.record.config import fingerprint
from rambo import reranking
from rambo.evaluation import RetrievalMetrics
from rambo.metrics import metric_names, retrieval_metrics
from rambo.reranking import reranked

SETTINGS = {"k1": 6, "k2": 3, "weight": 0.3}


def points(count, seed, spread=0.6):
    """Unit vectors in three clouds, and which cloud each is from."""
    torch.manual_seed(seed)
    labels = torch.arange(count) % 3
    return nn.functional.normalize(torch.eye(3)[labels] + spread * torch.randn(count, 3), dim=1), labels


def slow_distances(everything, k1, k2, weight):
    """Zhong et al. 2017, section 3, with sets, for all pairs; conventions of the released code."""
    count = len(everything)
    first = [[float((p - q).square().sum()) for q in everything.double()] for p in everything.double()]
    first = [[value / max(row) for value in row] for row in first]
    order = [[p, *sorted((q for q in range(count) if q != p), key=row.__getitem__)] for p, row in enumerate(first)]

    def reciprocal(p, k):
        return {q for q in order[p][: k + 1] if p in order[q][: k + 1]}

    rows = []
    for p in range(count):
        expanded = reciprocal(p, k1)
        for q in reciprocal(p, k1):
            theirs = reciprocal(q, round(k1 / 2))
            if len(theirs & reciprocal(p, k1)) > 2 / 3 * len(theirs):
                expanded = expanded | theirs
        weights = [math.exp(-first[p][g]) if g in expanded else 0.0 for g in range(count)]
        rows.append([value / sum(weights) for value in weights])
    rows = [[sum(rows[q][g] for q in order[p][:k2]) / k2 for g in range(count)] for p in range(count)]

    def distance(p, g):
        least, most = (sum(map(choose, rows[p], rows[g])) for choose in (min, max))
        return (1 - weight) * (1 - least / most) + weight * first[p][g]

    return torch.tensor([[distance(p, g) for g in range(count)] for p in range(count)])


@pytest.mark.parametrize(("k1", "k2", "weight"), [(6, 3, 0.3), (7, 1, 0.0), (5, 6, 1.0), (3, 2, 0.5)])
def test_equals_the_definition(monkeypatch, k1, k2, weight):
    monkeypatch.setattr(reranking, "_ROWS", 7)
    vectors, _ = points(30, seed=k1)
    expected = slow_distances(vectors, k1, k2, weight)
    alone = reranked(vectors, vectors, torch.arange(30), k1=k1, k2=k2, weight=weight)
    torch.testing.assert_close(-alone, expected.float(), atol=2e-6, rtol=0)
    own = torch.tensor([-1] * 8 + [3, 4])  # ten ask, of which two are in the gallery
    asking = torch.cat([torch.arange(22, 30), torch.tensor([3, 4])])
    apart = reranked(3 * vectors[asking], vectors[:22], own, k1=k1, k2=k2, weight=weight)
    torch.testing.assert_close(-apart, expected[asking, :22].float(), atol=2e-6, rtol=0)


def test_metrics_after_reranking_are_read_off_its_order():
    vectors, labels = points(40, seed=3, spread=0.9)
    found = retrieval_metrics(vectors, labels, recall_at=[1, 3], map=True, rerank=SETTINGS)
    plain = retrieval_metrics(vectors, labels, recall_at=[1, 3], map=True)
    assert found == plain | {name: value for name, value in found.items() if name.startswith("reranked_")}
    order = slow_distances(vectors, **SETTINGS).fill_diagonal_(torch.inf).argsort(1)[:, :-1]
    hits = labels[order] == labels[:, None]
    precision = (hits.cumsum(1) / torch.arange(1, 40)) * hits
    assert found["reranked_recall@3"] == pytest.approx(float(hits[:, :3].any(1).double().mean()))
    assert found["reranked_map"] == pytest.approx(float((precision.sum(1) / hits.sum(1)).mean()), abs=1e-6)
    assert found["reranked_map"] != found["map"]


def test_means_over_classes_count_each_class_once():
    vectors, _ = points(40, seed=5, spread=0.9)
    labels = torch.tensor([0] * 3 + [1] * 10 + [2] * 26 + [3])  # the last has nothing to find
    found = retrieval_metrics(vectors, labels, recall_at=[1, 2], map=True, class_means=True, rerank=SETTINGS)
    own = torch.arange(40)
    by_class = [
        retrieval_metrics(
            vectors[rows], labels[rows], vectors, labels, own_positions=own[rows], recall_at=[1, 2], map=True
        )
        for rows in (labels == label for label in range(3))
    ]
    for name in ("recall@1", "recall@2", "r_precision", "map_at_r", "map"):
        expected = sum(one[name] for one in by_class) / 3
        assert found[f"class_mean_{name}"] == pytest.approx(expected, abs=1e-12)
        assert found[f"class_mean_{name}"] != found[name]
    assert list(found) == metric_names([1, 2], True, class_means=True, rerank=True)


def test_options_that_are_off_leave_runs_what_they_were():
    before = {"metrics": {"_target_": "rambo.evaluation.RetrievalMetrics", "recall_at": [1]}}
    off = {"metrics": {**before["metrics"], "class_means": False, "rerank": None}}
    assert fingerprint(off) == fingerprint(before)
    assert RetrievalMetrics(recall_at=[1]).names() == ["recall@1", "r_precision", "map_at_r", "queries_without_match"]


def test_what_cannot_be_reranked_is_refused(monkeypatch):
    for bad in ({}, {"k1": 0, "k2": 1, "weight": 0.3}, {"k1": 20, "k2": 22, "weight": 0.3}, SETTINGS | {"weight": 2}):
        with pytest.raises(ValueError, match=r"re-ranking needs k1 and k2, .* such as \{k1: 20, k2: 6, weight: 0.3\}"):
            RetrievalMetrics(rerank=bad)
    monkeypatch.setattr(reranking, "MOST", 20)
    vectors, labels = points(21, seed=0)
    with pytest.raises(ValueError, match=r"there are 21 where 20 can be: set metrics\.rerank=null, or"):
        retrieval_metrics(vectors, labels, rerank=SETTINGS)

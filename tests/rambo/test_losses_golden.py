"""Loss values and gradients recorded from the authors' published code (PyTorch 2.13, CPU), and how ours compare.

`golden/rambo_golden.npz` holds data alone: inputs, and what came out in float64 and in float32. No two scores of a row
come closer than 4e-6, so both precisions rank alike.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rambo.losses import MeanAveragePrecisionLoss, RecallLoss
from rambo.ranking import Blackbox, rank, ranks

GOLDEN = np.load(Path(__file__).parent / "golden" / "rambo_golden.npz", allow_pickle=False)
META: dict[str, dict[str, Any]] = json.loads(str(GOLDEN["meta_json"]))
PRECISIONS = {"float64": (torch.float64, ""), "float32": (torch.float32, "_f32")}
COUNTED_AT_MOST = pytest.mark.parametrize("counted_at_most", [0, 32, 10**6])
"""Rows are always sorted, sorted or counted by size, and always counted."""
BOUND = "rambo.ranking.relevant.COUNTED_AT_MOST"


def of_kind(*kinds: str) -> list[str]:
    return [case for case, meta in META.items() if meta["kind"] in kinds]


def read(case: str, name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[f"{case}__{name}"])


def assert_recorded(got: Tensor, case: str, name: str, step: int | None = None) -> None:
    recorded = read(case, name).double()
    torch.testing.assert_close(
        got.detach().double(), recorded if step is None else recorded[step], rtol=1e-5, atol=1e-6
    )


def official_recall(case: str, **options: Any) -> RecallLoss:
    meta = META[case]
    return RecallLoss(
        meta["lambda_val"],
        margin=meta.get("margin", 0.0),
        weight=meta["weight_fn"],
        preset="official",
        memory_batches=meta.get("batch_memory", 0),
        denormalize="columns" if case == "c11_rect_cols" else None,
        **options,
    )


def test_the_file_holds_all_twenty_cases():
    assert len(META) == 20


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", of_kind("TrueRanker"))
def test_ranks_and_their_gradient(case, precision):
    dtype, suffix = PRECISIONS[precision]
    scores = read(case, "scores").to(dtype).requires_grad_()
    ranked = rank(scores, Blackbox(META[case]["lambda_val"]), ties="last_index_first", normalize=True)
    assert torch.equal(ranks(scores, ties="last_index_first"), read(case, "rank_int"))
    assert_recorded(ranked, case, "rank")
    ranked.backward(read(case, "upstream").to(dtype))
    assert_recorded(scores.grad, case, "grad" + suffix)


@COUNTED_AT_MOST
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", of_kind("RecallLoss"))
def test_recall_loss(case, precision, counted_at_most, monkeypatch):
    monkeypatch.setattr(BOUND, counted_at_most)
    dtype, suffix = PRECISIONS[precision]
    scores = read(case, "scores").to(dtype).requires_grad_()
    loss = official_recall(case).from_scores(scores, read(case, "targets"))
    loss.backward()
    assert_recorded(loss, case, "loss" + suffix)
    assert_recorded(scores.grad, case, "grad" + suffix)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", of_kind("BatchMemoryRecallLoss"))
def test_recall_loss_with_row_memory(case, precision):
    dtype, suffix = PRECISIONS[precision]
    recall = official_recall(case)
    for step in range(META[case]["steps"]):
        scores = read(case, "scores")[step].to(dtype).requires_grad_()
        loss = recall.from_scores(scores, read(case, "targets")[step])
        loss.backward()
        assert_recorded(loss, case, "loss" + suffix, step)
        assert_recorded(scores.grad, case, "grad" + suffix, step)


class RecordedNoise(MeanAveragePrecisionLoss):
    """Draws what was drawn when the numbers were recorded."""

    def __init__(self, draws: list[Tensor], **options: Any) -> None:
        super().__init__(**options)
        self.draws = draws

    def _draw_noise(self, values: Tensor) -> Tensor:
        draw = self.draws.pop(0)
        assert draw.shape == values.shape
        return draw.to(values.dtype)


@COUNTED_AT_MOST
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", of_kind("MapLoss"))
def test_mean_average_precision_loss(case, precision, counted_at_most, monkeypatch):
    monkeypatch.setattr(BOUND, counted_at_most)
    dtype, suffix = PRECISIONS[precision]
    meta = META[case]
    noisy = meta["margin"] > 0
    draws = [read(case, f"noise_{term}_step{step}") for step in (1, 2) for term in ("class", "inter")] if noisy else []
    average_precision = RecordedNoise(
        draws,
        interpolation=meta["lambda_val"],
        margin=meta["margin"],
        interclass_weight=meta["interclass_coef"],
        preset="official",
        memory_batches=meta["batch_memory"],
        margin_noise="half_normal" if noisy else "none",
    )
    for step in range(meta["steps"]):
        scores = read(case, "scores")[step].to(dtype).requires_grad_()
        loss = average_precision(scores, read(case, "targets")[step])
        loss.backward()
        assert_recorded(loss, case, "loss" + suffix, step)
        assert_recorded(scores.grad, case, "grad" + suffix, step)
    assert not draws


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", of_kind("pipeline+RecallLoss"))
def test_from_embeddings_to_recall_loss(case, precision):
    dtype, suffix = PRECISIONS[precision]
    embeddings = read(case, "embeddings").to(dtype).requires_grad_()
    loss = official_recall(case)(embeddings, read(case, "labels"))
    loss.backward()
    assert_recorded(loss, case, "loss" + suffix)
    assert_recorded(embeddings.grad, case, "grad" + suffix)


def test_every_case_is_compared():
    kinds = ("TrueRanker", "RecallLoss", "BatchMemoryRecallLoss", "MapLoss", "pipeline+RecallLoss")
    assert set(of_kind(*kinds)) == set(META)

"""The one normaliser: values, the rule for zero, every scale, and that nothing else divides by a length."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rambo.losses import AveragePrecisionLoss, RecallLoss, SmoothAPLoss
from rambo.ranking import directions_and_lengths, unit_vectors
from ranksim.losses import ConR, RankNContrast, RankSimilarity

ROOT = Path(__file__).parents[2]

LOSSES = {
    "recall": lambda x, y: RecallLoss(1.0)(x, y),
    "recall, official": lambda x, y: RecallLoss(1.0, preset="official")(x, y),
    "average precision": lambda x, y: AveragePrecisionLoss(1.0)(x, y),
    "smooth AP": lambda x, y: SmoothAPLoss(0.1)(x, y),
    "rank similarity": lambda x, y: RankSimilarity(2.0, 100.0, "none")(x, y.float()),
    "rank similarity, legacy": lambda x, y: RankSimilarity(2.0, 100.0, "none", legacy_backward=True)(x, y.float()),
    "rank-n-contrast": lambda x, y: RankNContrast(similarity="cosine")(x, y.float()),
    "ConR": lambda x, y: ConR()(x, 10.0 * y, torch.zeros(12)),
}
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def vectors(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value_and_gradient(loss, embeddings, labels):
    leaf = embeddings.clone().requires_grad_()
    value = loss(leaf, labels)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_ordinary_vectors_and_gradients_equal_those_of_torch_to_the_last_bit(seed, dtype):
    leaf, other = vectors(seed, dtype).requires_grad_(), vectors(seed, dtype).requires_grad_()
    ours, theirs = unit_vectors(leaf), torch.nn.functional.normalize(other, dim=1)
    assert torch.equal(ours, theirs)
    (ours**3).sum().backward()
    (theirs**3).sum().backward()
    assert torch.equal(leaf.grad, other.grad)
    assert torch.equal(directions_and_lengths(leaf)[1], torch.linalg.vector_norm(other.detach(), dim=1, keepdim=True))


@given(power=st.integers(-100, 100), dim=st.sampled_from([0, 1, -1]))
def test_a_power_of_two_changes_no_bit(power, dim):
    plain, scale = vectors(), 2.0**power
    leaf, other = plain.clone().requires_grad_(), (plain * scale).requires_grad_()
    assert torch.equal(unit_vectors(other, dim), unit_vectors(leaf, dim))
    assert torch.equal(directions_and_lengths(other, dim)[1], directions_and_lengths(leaf, dim)[1] * scale)
    (unit_vectors(leaf, dim) ** 3).sum().backward()
    (unit_vectors(other, dim) ** 3).sum().backward()
    assert torch.equal(other.grad * scale, leaf.grad)


@pytest.mark.parametrize("length", [0.0, 1e-45, 1e-39])
def test_zero_has_no_direction_and_gets_no_gradient_of_any_order(length):
    leaf = torch.tensor([[length, -length], [3.0, 4.0]], requires_grad=True)
    directions, lengths = directions_and_lengths(leaf)
    assert directions.tolist() == [[0.0, 0.0], pytest.approx([0.6, 0.8])]
    assert lengths.tolist() == [[torch.inf], [5.0]]
    (slope,) = torch.autograd.grad((directions + directions**3).sum(), leaf, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), leaf)
    for found in (slope, second):
        assert found[0].tolist() == [0, 0]
        assert found[1].isfinite().all()
        assert found[1].count_nonzero() == 2


def test_it_is_differentiable_in_every_way():
    rows = vectors(dtype=torch.float64)[:3].requires_grad_()
    assert torch.autograd.gradcheck(unit_vectors, rows, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(unit_vectors, rows)


def test_half_precision_becomes_float32_and_nan_stays():
    assert unit_vectors(torch.tensor([[6e4, 6e4]], dtype=torch.float16)).tolist() == [pytest.approx([0.5**0.5] * 2)]
    for bad in (torch.nan, torch.inf):
        assert unit_vectors(torch.tensor([[1.0, bad]])).isnan().any()
    with pytest.raises(ValueError, match=r"at least one entry each .* got shape \(3, 0\)"):
        unit_vectors(torch.zeros(3, 0))


@EVERY_LOSS
def test_a_dead_embedding_gets_no_gradient_and_disturbs_no_other(loss):
    embeddings, labels = vectors(), torch.arange(12) % 3
    embeddings[3] = 0
    _, gradient = value_and_gradient(loss, embeddings, labels)
    assert gradient[3].tolist() == [0] * 5
    assert 0 < gradient.abs().max() < 100


@settings(max_examples=20, deadline=None)
@given(exponent=st.floats(-30, 30))
@EVERY_LOSS
def test_no_scale_of_embeddings_changes_a_loss(loss, exponent):
    scale, labels = 10.0**exponent, torch.arange(12) % 3
    value, gradient = value_and_gradient(loss, vectors(), labels)
    same, scaled = value_and_gradient(loss, vectors() * scale, labels)
    torch.testing.assert_close(same, value)
    torch.testing.assert_close(scaled.double() * scale, gradient.double(), rtol=1e-3, atol=1e-5)
    assert gradient.count_nonzero()


def test_nothing_else_divides_by_a_length():
    """Otherwise there would be two rules for zero."""
    found = []
    for path in (path for package in ("harness", "rambo", "ranksim") for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
            if name in ("normalize", "vector_norm", "cosine_similarity") and path.name != "unit_vectors.py":
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    allowed = (" self.normalize", " self.loss.normalize", " normalize")  # the option
    assert [place for place in found if not place.endswith(allowed) and "rambo/blocks.py" not in place] == []  # bounds

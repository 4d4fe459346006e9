"""Ranks, tie rules, gradient rules and the attached gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from rambo.ranking import TIES, Blackbox, Identity, SoftRank, descending_order, rank, ranks, with_gradient
from rambo.ranking import exact as exact_ranks

RULES = [Blackbox(2.0), Blackbox(2.0, projection="std"), Identity(), Identity("std"), SoftRank(0.5)]


def slow_ranks(scores: list[float], ties: str, relevance: list[int]) -> list[int]:
    """The definition: 1 + the number of items that stand before."""

    def before(j: int, i: int) -> bool:
        if scores[j] != scores[i]:
            return scores[j] > scores[i]
        if ties == "pessimistic" and relevance[j] != relevance[i]:
            return relevance[j] < relevance[i]
        return j > i if ties == "last_index_first" else j < i

    return [1 + sum(before(j, i) for j in range(len(scores)) if j != i) for i in range(len(scores))]


def test_the_largest_score_has_rank_one():
    assert ranks(torch.tensor([0.3, 0.9, -1.0])).tolist() == [2, 1, 3]


@pytest.mark.parametrize(
    ("ties", "expected"),
    [("first_index_first", [1, 2, 4, 3]), ("last_index_first", [3, 2, 4, 1]), ("pessimistic", [2, 3, 4, 1])],
)
def test_tie_rules(ties, expected):
    scores, relevance = torch.tensor([5.0, 5.0, 1.0, 5.0]), torch.tensor([1, 1, 0, 0])
    assert ranks(scores, ties, relevance).tolist() == expected


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(TIES))
def test_ranks_equal_their_definition(data, ties):
    items = data.draw(st.integers(1, 12))
    row = st.lists(st.integers(-2, 2), min_size=items, max_size=items)
    scores = [data.draw(row), data.draw(row)]
    relevance = [[value % 2 for value in data.draw(row)] for _ in scores]
    got = ranks(torch.tensor(scores).float(), ties, torch.tensor(relevance))
    assert got.tolist() == [slow_ranks(s, ties, r) for s, r in zip(scores, relevance, strict=True)]


def test_any_leading_dimensions():
    scores = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([ranks(row) for row in scores.reshape(-1, 5)]).reshape(scores.shape)
    assert torch.equal(ranks(scores), expected)
    assert ranks(scores[0, 0, 0]).tolist() == expected[0, 0, 0].tolist()
    assert ranks(torch.zeros(3, 0)).shape == (3, 0)


def test_precision():
    close = torch.tensor([1.0, 1.0 + 1e-12], dtype=torch.float64)
    assert ranks(close).tolist() == [2, 1]  # float32 could not tell them apart
    assert rank(close, Blackbox(1.0)).dtype == torch.float64
    half = torch.tensor([1.0, 2.0], dtype=torch.float16, requires_grad=True)
    ranked = rank(half, Blackbox(1.0))
    assert ranked.dtype == torch.float32
    ranked[0].backward()
    assert half.grad.dtype == torch.float16


@pytest.mark.parametrize("ties", TIES)
def test_long_rows_keep_ties_in_order(ties):
    # sorts that are not stable only show it on long rows
    order = descending_order(torch.zeros(1, 5000), ties, torch.zeros(1, 5000))
    expected = torch.arange(5000)
    assert torch.equal(order[0], expected.flip(0) if ties == "last_index_first" else expected)


def ranks_by_counting(scores: Tensor, ties: str, relevance: Tensor) -> Tensor:
    """The definition for whole rows: 1 + the number of items that stand before."""
    other, own = scores[..., None, :], scores[..., :, None]
    position = torch.arange(scores.shape[-1])
    first = position[None, :] < position[:, None]
    if ties == "last_index_first":
        first = position[None, :] > position[:, None]
    elif ties == "pessimistic":
        worse, same = relevance[..., None, :] < relevance[..., :, None], relevance[..., None, :] == relevance[..., None]
        first = worse | (same & first)
    return 1 + ((other > own) | ((other == own) & first)).sum(dim=-1)


def scores_of_many_kinds(shape: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(sum(shape))
    scores, share = torch.randn(shape, generator=generator), torch.rand(shape, generator=generator)
    tied = torch.randint(-3, 4, shape, generator=generator) / 4
    infinite = torch.where(share < 0.2, math.inf, torch.where(share > 0.8, -math.inf, tied))
    return {
        "distinct": scores,
        "tied": tied,
        "signed zeros": torch.where(share < 0.3, 0.0, torch.where(share < 0.6, -0.0, tied)),
        "infinite": infinite,
        "smallest": scores * 1e-42,
        "largest": scores.sign() * torch.finfo().max * share,
        "neighbours": torch.where(share < 0.5, tied, torch.nextafter(tied, torch.tensor(math.inf))),
        "half": infinite.half(),
        "double": torch.where(share < 0.5, tied.double(), tied + 1e-12),
        "strided": torch.stack([tied, scores], dim=-1)[..., 1],
        "transposed": tied.transpose(0, -1).contiguous().transpose(0, -1),
    }


@pytest.mark.parametrize("threads", [1, 8])
@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 31), (200, 15), (128, 16), (100, 64), (3, 4, 300), (20, 257), (2, 1100)])
def test_every_way_to_sort_gives_the_ranks_by_definition(shape, ties, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    relevance = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.3
    for kind, scores in scores_of_many_kinds(shape).items():
        before, expected = scores.clone(), ranks_by_counting(scores, ties, relevance)
        got = ranks(scores, ties, relevance)
        assert (got.dtype, got.device) == (torch.int64, scores.device)
        assert torch.equal(got, expected), kind
        assert torch.equal(scores, before)
        with monkeypatch.context() as patch:
            patch.setattr(exact_ranks, "_NUMPY", False)
            assert torch.equal(ranks(scores, ties, relevance), expected), kind
        single = ranks(scores, ties, relevance, dtype=torch.float32)
        assert single.dtype == torch.float32
        assert torch.equal(single, expected.float())


def test_scores_are_packed_where_that_pays(monkeypatch):
    packed = []
    monkeypatch.setattr(exact_ranks, "_packed_order", lambda scores, ties, relevance: packed.append(scores.shape))
    for rows, items, threads in [(64, 64, 9), (512, 511, 2), (1, 4096, 9), (64, 4096, 1)]:
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        packed.clear()
        descending_order(torch.zeros(rows, items))
        assert packed == ([(rows, items)] if exact_ranks._NUMPY else [])
        descending_order(torch.zeros(rows, items, dtype=torch.float64))
        descending_order(torch.zeros(rows, items, device="meta"))
        assert len(packed) <= 1
    packed.clear()
    for rows, items, threads in [(18, 64, 1), (512, 511, 3), (64, 4096, 2), (512, 15, 1)]:
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        descending_order(torch.zeros(rows, items))
    assert not packed


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("ties", TIES)
def test_recorded_and_transformed_ranks_follow_new_scores(ties):
    """What NumPy does cannot be recorded, and would give the old scores' ranks for ever."""
    first, second = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    relevance = first < 0
    expected = ranks(second, ties, relevance)

    def ranked(scores: Tensor) -> Tensor:
        return ranks(scores, ties, relevance, check_nan=False)

    recorded = make_fx(ranked)(first)
    assert torch.equal(recorded(second), expected)
    assert torch.equal(torch.func.functionalize(ranked)(second), expected)
    many = torch.func.vmap(ranked)(torch.stack([first, second]))
    assert torch.equal(many[1], expected)
    compiled = torch.compile(ranked, backend="eager", fullgraph=True)
    compiled(first)
    assert torch.equal(compiled(second), expected)
    with torch.device("meta"):  # the default of the moment must not matter
        assert torch.equal(ranked(second), expected)


def test_bad_input_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match="NaN"):
        ranks(torch.tensor([0.0, math.nan]))
    with pytest.raises(TypeError, match=r"floating point.*int64"):
        ranks(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="at least one dimension"):
        ranks(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"pessimistic ties need a relevance.*none"):
        ranks(torch.zeros(2), "pessimistic")
    with pytest.raises(ValueError, match="got 'alphabetical'"):
        ranks(torch.zeros(2), "alphabetical")
    for interpolation in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"lambda.*got {interpolation}"):
            Blackbox(interpolation)
    with pytest.raises(ValueError, match=r"scale must be one of normalized, integer, got 'items'"):
        Blackbox(1.0, scale="items")
    with pytest.raises(ValueError, match=r"projection must be .*'sphere'"):
        Identity("sphere")
    with pytest.raises(ValueError, match="temperature"):
        SoftRank(0.0)


def test_blackbox_gradient_by_hand():
    # Integer ranks (2, 1, 3); moving the third score by lambda * g = 10 puts it first: (3, 2, 1).
    scores = torch.tensor([0.5, 1.0, 0.0], requires_grad=True)
    rank(scores, Blackbox(5.0, scale="integer")).backward(torch.tensor([0.0, 0.0, 2.0]))
    assert scores.grad.tolist() == pytest.approx([-(2 - 3) / 5, -(1 - 2) / 5, -(3 - 1) / 5])


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), quarters=st.integers(1, 40), ties=st.sampled_from(TIES))
def test_blackbox_gradient_is_its_defining_difference(seed, quarters, ties):
    # 8 items and a lambda of so many quarters keep every sum exact, so that ties stay ties
    interpolation, generator = quarters / 4, torch.Generator().manual_seed(seed)
    scores = torch.randint(-3, 4, (3, 8), generator=generator).double().requires_grad_()
    upstream = torch.randint(-2, 3, (3, 8), generator=generator).double()
    relevance = torch.randint(0, 2, (3, 8), generator=generator)
    rank(scores, Blackbox(interpolation), ties, relevance, normalize=True).backward(upstream)

    moved = scores.detach() + interpolation * upstream
    before, after = (ranks(s, ties, relevance).double() / 8 for s in (scores, moved))
    torch.testing.assert_close(scores.grad, -(before - after) / interpolation)


def test_normalised_lambda_is_an_integer_lambda_times_items():
    scores = torch.randn(4, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    upstream = torch.randn(4, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    normalised = Blackbox(0.5).score_gradient(scores, upstream)
    torch.testing.assert_close(normalised, Blackbox(0.5 * 7, "integer").score_gradient(scores, upstream))
    assert normalised.count_nonzero()


def test_identity_turns_the_sign():
    scores, upstream = torch.randn(2, 4), torch.randn(2, 4)
    assert torch.equal(Identity(scale="integer").score_gradient(scores, upstream), -upstream)
    assert torch.equal(Identity().score_gradient(scores, upstream), -4 * upstream)


@pytest.mark.parametrize("rule", [Identity("mean"), Identity("norm"), Identity("std"), Blackbox(3.0, projection="std")])
def test_projected_gradients_are_orthogonal_to_what_the_projection_ignores(rule):
    scores = torch.randn(3, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    upstream = torch.randn(3, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    gradient = rule.score_gradient(scores, upstream)
    assert gradient.abs().max() > 0.01
    zero = torch.zeros(3, dtype=torch.float64)
    if rule.projection in ("mean", "std"):  # adding a constant changes nothing
        torch.testing.assert_close(gradient.sum(dim=1), zero)
    if rule.projection == "norm":  # neither does stretching
        torch.testing.assert_close((gradient * scores).sum(dim=1), zero)
    if rule.projection == "std":
        centred = scores - scores.mean(dim=1, keepdim=True)
        torch.testing.assert_close((gradient * centred).sum(dim=1), zero)


def test_soft_rank_gradient_is_that_of_the_relaxed_rank(monkeypatch):
    monkeypatch.setattr("rambo.ranking.gradient_rules._SOFT_RANK_PAIRS", 40)  # several chunks
    scores = torch.randn(2, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 8, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    upstream[:, 3] = 0
    relaxed = 0.5 + torch.sigmoid((scores[:, None, :] - scores[:, :, None]) / 0.3).sum(dim=2)
    (expected,) = torch.autograd.grad(relaxed, scores, upstream)
    torch.testing.assert_close(SoftRank(0.3).score_gradient(scores.detach(), upstream), expected)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_questions_asked_of_every_rule(rule):
    scores = torch.randn(3, 10, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    upstream = torch.zeros(3, 10, dtype=torch.float64)
    upstream[:, :2] = torch.rand(3, 2, generator=torch.Generator().manual_seed(8)).double()
    gradient = rule.score_gradient(scores, upstream)
    assert gradient.shape == scores.shape
    assert gradient.isfinite().all()
    assert gradient.count_nonzero()
    shuffled = torch.randperm(10, generator=torch.Generator().manual_seed(9))
    moved = rule.score_gradient(scores[:, shuffled], upstream[:, shuffled])
    torch.testing.assert_close(moved, gradient[:, shuffled])
    single = rule.score_gradient(scores.float(), upstream.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), gradient, rtol=1e-4, atol=1e-5)
    stacked = rule.score_gradient(scores[:, None], upstream[:, None])
    torch.testing.assert_close(stacked[:, 0], gradient)


def test_rank_refuses_a_second_derivative():
    scores = torch.tensor([1.0, 2.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(rank(scores, Blackbox(1.0)).square().sum(), scores, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated once"):
        gradient.sum().backward()


def test_rank_under_autocast_stays_in_float32():
    scores = torch.tensor([1.0, 1.0 + 1e-4, 1.0 + 2e-4], requires_grad=True)  # equal in bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ranked = rank(scores, Blackbox(1.0))
    assert ranked.tolist() == [3, 2, 1]
    assert ranked.dtype == torch.float32


def attached(scores: Tensor, gradient: Tensor) -> Tensor:
    return with_gradient(torch.tensor(7.0), scores, gradient)


def test_attached_gradient_is_linear():
    gradient = torch.tensor([1.0, -2.0])
    scores = torch.zeros(2, requires_grad=True)
    loss = attached(scores, gradient)
    assert loss.item() == 7
    (3 * loss + 2 * attached(scores, gradient)).backward()
    assert scores.grad.tolist() == [5.0, -10.0]


def test_attached_gradient_passes_on_to_what_the_scores_depend_on():
    weights = torch.tensor([2.0], requires_grad=True)
    attached(weights * torch.tensor([1.0, 3.0]), torch.tensor([1.0, 10.0])).backward()
    assert weights.grad.tolist() == [31.0]


def test_attached_gradient_of_the_wrong_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        attached(torch.zeros(2), torch.zeros(3))

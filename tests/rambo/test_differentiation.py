"""Every way to differentiate, for every loss: the right value, or a sentence of ours."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from rambo.losses import (
    AveragePrecisionLoss,
    MeanAveragePrecisionLoss,
    PNPLoss,
    RecallLoss,
    RoadmapLoss,
    SmoothAPLoss,
    SmoothRecallLoss,
    SupAPLoss,
    SupRecallLoss,
)
from rambo.ranking import Blackbox, Identity, rank, with_gradient
from ranksim.losses import RankSimilarity

LABELS = torch.arange(12) % 3
RELEVANCE = torch.rand(12, 5, generator=torch.Generator().manual_seed(1)) > 0.6

ATTACHED = {
    "recall": lambda x: RecallLoss(1.0)(x, LABELS),
    "recall, official, by dot products": lambda x: RecallLoss(1.0, preset="official", normalize=False)(x, LABELS),
    "recall with another rule": lambda x: RecallLoss(1.0, rule=Identity("std"))(x, LABELS),
    "recall of scores": lambda x: RecallLoss(1.0).from_scores(x, RELEVANCE),
    "recall with a gallery": lambda x: RecallLoss(1.0, memory_batches=2)(x, LABELS),
    "recall without a pair": lambda x: RecallLoss(1.0)(x, torch.arange(12)),
    "recall with ids, ignored pairs and references": lambda x: RecallLoss(1.0)(
        x, LABELS, ref_emb=x.detach().flip(0), ref_labels=LABELS.flip(0), ids=LABELS, ref_ids=LABELS + 1
    ),
    "recall of every query": lambda x: RecallLoss(1.0, reduction="none")(x, LABELS).square().sum(),
    "average precision": lambda x: AveragePrecisionLoss(1.0)(x, LABELS),
    "mean average precision": lambda x: MeanAveragePrecisionLoss(1.0)(x, RELEVANCE),
    "rank similarity": lambda x: RankSimilarity(2.0, 100.0, "none")(x, LABELS.float()),
    "with_gradient": lambda x: with_gradient(x.detach().sum(), x, x.detach() + 1),
}
RULED_LATER = {
    "rank": lambda x: rank(x.tanh(), Blackbox(1.0)).square().mean(),
    "rank similarity, legacy": lambda x: RankSimilarity(2.0, 100.0, "none", legacy_backward=True)(x, LABELS.float()),
}
SMOOTH = {
    "smooth AP": lambda x: SmoothAPLoss(0.1)(x, LABELS),
    "SupAP": lambda x: SupAPLoss(0.1)(x, LABELS),
    "SupRecall": lambda x: SupRecallLoss((1, 2), temperature=0.1)(x, LABELS),
    "RS@k": lambda x: SmoothRecallLoss((1, 2), 0.1)(x, LABELS),
    "PNP": lambda x: PNPLoss("I_b", 0.1)(x, LABELS),
    "ROADMAP": lambda x: RoadmapLoss(temperature=0.1)(x, LABELS),
}


def every(*losses):
    together = {name: loss for some in losses for name, loss in some.items()}
    return pytest.mark.parametrize("loss", together.values(), ids=together)


def drawn(seed: int) -> Tensor:
    return torch.randn(12, 5, generator=torch.Generator().manual_seed(seed))


def expected(loss) -> Tensor:
    leaf = drawn(0).requires_grad_()
    loss(leaf).backward()
    assert leaf.grad is not None
    return leaf.grad


def along(loss) -> Tensor:
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(loss(forward_ad.make_dual(drawn(0), drawn(1)))).tangent
    assert found is not None
    return found


def batched(loss) -> Tensor:
    leaf = drawn(0).requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf, torch.ones(2), is_grads_batched=True)[0]


@every(ATTACHED, RULED_LATER, SMOOTH)
def test_functional_gradients_are_those_of_backward(loss):
    torch.testing.assert_close(torch.func.grad(loss)(drawn(0)), expected(loss))
    torch.testing.assert_close(torch.func.vjp(loss, drawn(0))[1](torch.tensor(1.0))[0], expected(loss))


@every(ATTACHED, SMOOTH)
def test_jacobians_and_tangents_are_those_of_backward(loss):
    gradient = expected(loss)
    slope = (gradient * drawn(1)).sum()
    torch.testing.assert_close(torch.func.jvp(loss, (drawn(0),), (drawn(1),))[1], slope, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(along(loss), slope, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.func.jacrev(loss)(drawn(0)), gradient)
    torch.testing.assert_close(torch.func.jacfwd(loss)(drawn(0)), gradient)
    torch.testing.assert_close(batched(loss)[1], gradient)


@every(RULED_LATER)
def test_a_rule_in_the_backward_pass_says_that_there_is_no_other(loss):
    for forwards in (lambda: torch.func.jvp(loss, (drawn(0),), (drawn(1),)), lambda: along(loss)):
        with pytest.raises(RuntimeError, match=r"no forward-mode derivative .* use with_gradient"):
            forwards()
    for mapped in (lambda: torch.func.jacrev(loss)(drawn(0)), lambda: batched(loss)):
        with pytest.raises(RuntimeError, match="cannot be mapped over by vmap"):
            mapped()


def penalty(loss, inner: Tensor, leaf: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss(inner), leaf, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), leaf)[0]


@every(ATTACHED, RULED_LATER)
def test_nothing_on_ranks_is_differentiated_twice(loss):
    leaf, weight = drawn(0).requires_grad_(), torch.eye(5).requires_grad_()
    for twice in (
        lambda: penalty(loss, leaf, leaf),
        lambda: penalty(loss, (drawn(0) @ weight).tanh(), weight),  # through what comes before as well
        lambda: torch.func.grad(lambda x: torch.func.grad(loss)(x).square().sum())(drawn(0)),
        lambda: torch.func.jvp(torch.func.grad(loss), (drawn(0),), (drawn(1),)),
    ):
        with pytest.raises(RuntimeError, match=r"(can be differentiated once|no forward-mode derivative).*; "):
            twice()
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"differentiated once|no forward-mode"):
        torch.autograd.grad(loss(forward_ad.make_dual(leaf, drawn(1))), leaf)
    (kept,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)  # which alone is no second derivative
    torch.testing.assert_close(kept.detach(), expected(loss))


def test_smooth_ap_is_differentiated_twice():
    loss, leaf = SMOOTH["smooth AP"], drawn(0).double().requires_grad_()
    leaf.data[3] = 0  # a dead one
    assert torch.func.hessian(loss)(leaf.detach()).isfinite().all()
    live = leaf.detach()[[0, 1, 2, 4, 5]].requires_grad_()
    labels = torch.tensor([0, 0, 1, 1, 0])
    assert torch.autograd.gradgradcheck(lambda x: SmoothAPLoss(0.1)(x, labels), live)


@every(ATTACHED, RULED_LATER, SMOOTH)
def test_mapping_over_samples_is_refused_by_a_sentence(loss):
    two = torch.stack([drawn(0), drawn(1)])
    if loss is ATTACHED["with_gradient"]:
        torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(two)[0], expected(loss))
        return
    for call in (loss, torch.func.grad(loss)):
        with pytest.raises(RuntimeError, match=r"cannot be mapped over by vmap .* loop over the samples"):
            torch.func.vmap(call)(two)


def test_mapping_over_labels_is_refused_by_a_sentence():
    two, embeddings = torch.stack([LABELS, LABELS]), drawn(0)
    for loss in (RecallLoss(1.0), AveragePrecisionLoss(1.0), SmoothAPLoss(0.1), RankSimilarity(2.0, 100.0, "none")):
        with pytest.raises(RuntimeError, match="cannot be mapped over by vmap"):
            torch.func.vmap(lambda y, loss=loss: loss(embeddings, y))(two)


@pytest.mark.slow
@every(ATTACHED, RULED_LATER, SMOOTH)
def test_compiled_losses_have_the_same_gradient(loss):
    torch._dynamo.reset()
    torch.testing.assert_close(expected(torch.compile(loss, backend="aot_eager")), expected(loss))

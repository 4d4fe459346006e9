"""The losses of peers against what their official code gave.

`golden/peers_golden.npz` holds data alone: inputs, parameters, and in float64 the loss, its gradient in the embeddings
and the loss of each query. `pnp_*` on unequal classes is by pytorch-metric-learning, `*_noself` by the formula alone.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rambo.losses import CalibrationLoss, PNPLoss, RoadmapLoss, SiMix, SmoothRecallLoss, SupAPLoss, SupRecallLoss

GOLDEN = np.load(Path(__file__).parent / "golden" / "peers_golden.npz", allow_pickle=False)
CASES = sorted({name.split("__")[0] for name in GOLDEN.files if not name.startswith("in_")})
BY_QUERY = [case for case in CASES if f"{case}__per_query" in GOLDEN.files and "simix" not in case]


def given(case):
    return {name.split("__")[1]: GOLDEN[name] for name in GOLDEN.files if name.startswith(f"{case}__")}


def numbers(case, **names):
    there = given(case)
    return {ours: float(there[theirs]) for ours, theirs in names.items() if theirs in there}


def sup_rank(case):
    found = numbers(case, temperature="tau", slope="rho", delta="delta", start="start", offset="offset")
    return found | ({"offset": None} if math.isnan(found["offset"]) else {})


def loss_of(case, **options):
    kind, there = case.split("_")[0], given(case)
    options["normalize"] = kind == "calib"
    if kind == "rsk":
        options |= numbers(case, temperature="tau2", rank_temperature="tau1")
        at = [int(k) for k in there["k_vals"]]
        return SmoothRecallLoss(at, exclude_self=not there["query_in_rank"], **options)
    if kind == "supap":
        return SupAPLoss(**sup_rank(case), **options)
    if kind == "suprecall":
        at = [int(k) for k in there["at_k"]]
        return SupRecallLoss(at, float(there["temp"]), **sup_rank(case), **options)
    if kind == "calib":
        return CalibrationLoss(**numbers(case, relevant_margin="pos_margin", irrelevant_margin="neg_margin"), **options)
    if kind == "pnp":
        variant = next(name for name in ("I_u", "I_b", "D_s", "D_q", "O") if f"pnp_{name}" in case)
        return PNPLoss(variant, **numbers(case, temperature="tau", b="b", alpha="alpha"), **options)
    weights = [float(weight) for weight in there["weights"]]
    return RoadmapLoss(*weights, **options)


def batch(case):
    name = str(GOLDEN[f"{case}__input"])
    return torch.tensor(GOLDEN[f"in_{name}__emb"]), torch.tensor(GOLDEN[f"in_{name}__labels"])


def assert_equal(case, value, gradient):
    np.testing.assert_allclose(value, GOLDEN[f"{case}__loss"], rtol=1e-10, atol=1e-12)
    expected = GOLDEN[f"{case}__grad_emb"]
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-9 * abs(expected).max())


@pytest.mark.parametrize("case", [case for case in CASES if "simix" not in case and "rect" not in case])
def test_a_loss_and_its_gradient_are_the_official_ones_in_any_order(case):
    embeddings, labels = batch(case)
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    for order in (torch.arange(len(labels)), shuffled):
        leaf = embeddings[order].requires_grad_()
        value = loss_of(case)(leaf, labels[order])
        value.backward()
        gradient = torch.empty_like(leaf)
        gradient[order] = leaf.grad
        assert_equal(case, value.item(), gradient)


@pytest.mark.parametrize("case", BY_QUERY)
def test_each_query_costs_what_it_does_officially(case):
    loss = loss_of(case, reduction="none", on_empty="nan")
    if "rect" in case:
        name = str(GOLDEN[f"{case}__input"])
        values = loss.from_scores(*(torch.tensor(GOLDEN[f"in_{name}__{part}"]) for part in ("scores", "target")))
    else:
        values = loss(*batch(case))
    np.testing.assert_allclose(values, GOLDEN[f"{case}__per_query"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", [case for case in CASES if "simix" in case])
def test_mixtures_are_mixed_as_in_the_official_code(case):
    embeddings, labels = batch(case)
    shares, starts = {}, torch.cat([torch.zeros(1), labels.bincount().cumsum(0)])
    for block, alphas in enumerate(GOLDEN[f"{case}__alphas"]):
        for (a, b), alpha in zip(GOLDEN[f"{case}__pairs"], alphas, strict=True):
            first, second = int(starts[block]) + int(a), int(starts[block]) + int(b)
            shares[min(first, second), max(first, second)] = alpha if first < second else 1 - alpha
    leaf = embeddings.requires_grad_()
    value = SiMix(loss_of(case))(leaf, labels, torch.tensor([shares[pair] for pair in sorted(shares)]))
    value.backward()
    assert_equal(case, value.item(), leaf.grad)


def test_mixtures_are_drawn_in_training_alone():
    embeddings, labels = batch("rsk_cub64")
    mixed, plain = SiMix(SmoothRecallLoss()), SmoothRecallLoss()
    assert mixed(embeddings, labels) != mixed(embeddings, labels)
    assert mixed.eval()(embeddings, labels) == plain(embeddings, labels)
    with pytest.raises(ValueError, match="memory=none"):
        SiMix(SmoothRecallLoss(memory="gallery", memory_batches=1))


def test_calibration_has_a_value_where_nothing_is_relevant():
    scores = torch.tensor([[0.9, 0.5, 0.8]])
    value = CalibrationLoss().from_scores(scores, torch.zeros(1, 3)).item()
    assert value == pytest.approx(((0.9 - 0.6) + (0.8 - 0.6)) / 2)


def test_who_is_alone_counts_or_not():
    # the means that the notes beside the golden vectors give for the other choice
    for case, loss, expected in (
        ("pnp_O_single24", PNPLoss(lone="count", normalize=False), 2.862947),
        ("pnp_O_small6x10", PNPLoss(exclude_self=True, normalize=False), 3 / 2 * 0.187977074612),
        ("supap_cub64", SupAPLoss(exclude_self=True, normalize=False), 0.658467),
    ):
        assert loss(*batch(case)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("kind", [SmoothRecallLoss, PNPLoss, SupAPLoss, SupRecallLoss, CalibrationLoss])
def test_a_memory_is_a_gallery_in_which_each_query_is_known(kind, exclude_self):
    draws = torch.Generator().manual_seed(0)
    earlier, now = torch.randn(2, 8, 4, generator=draws, dtype=torch.float64)
    labels, ids = torch.tensor([0, 0, 0, 1, 1, 2, 2, 3]), torch.arange(8)
    other_labels, other_ids = labels.flip(0) + 1, ids.flip(0) + 4  # class 3 is no longer alone, some come again
    loss = kind(exclude_self=exclude_self, memory="gallery", memory_batches=1)
    plain = kind(exclude_self=exclude_self)
    assert torch.equal(loss(earlier, other_labels, ids=other_ids), plain(earlier, other_labels, ids=other_ids))
    both = torch.cat([now, earlier]), torch.cat([labels, other_labels])
    expected = plain(now, labels, None, *both, ids=ids, ref_ids=torch.cat([ids, other_ids]))
    torch.testing.assert_close(loss(now, labels, ids=ids), expected)


@pytest.mark.parametrize("ignored", [math.nan, -math.inf])
def test_what_is_ignored_may_be_anything(ignored):
    scores, relevance = torch.rand(3, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(3, 6)
    relevance[:, :2] = 1
    hidden = torch.cat([scores, torch.full((3, 1), ignored)], dim=1), torch.nn.functional.pad(relevance, (0, 1))
    for kind in (SmoothRecallLoss, PNPLoss, SupAPLoss, SupRecallLoss, CalibrationLoss, RoadmapLoss):
        found = kind().from_scores(*hidden, torch.tensor([0, 0, 0, 0, 0, 0, 1]).expand(3, -1), items=6)
        torch.testing.assert_close(found, kind().from_scores(scores, relevance))


@pytest.mark.parametrize("before", [0.0, 1e-9, 1e-5, 1e-3, 0.0099, 0.0101, 1.0, 1e3])
def test_the_small_penalties_of_pnp_keep_their_digits(before):
    exact = math.fsum((-1) ** n * (2 * before) ** n / n for n in range(2, 40)) if before < 0.02 else None
    exact = 2 * before - math.log1p(2 * before) if exact is None else exact
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        found = PNPLoss("I_b")._penalty(torch.tensor([before], dtype=dtype)).item()
        assert found == pytest.approx(exact / 4, rel=tolerance, abs=0)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: SmoothRecallLoss(at=[]), "at must name one cut-off or more"),
        (lambda: SupRecallLoss(at=[0, 1]), r"whole number from 1, got \[0, 1\]"),
        (lambda: SmoothRecallLoss(temperature=0), "temperature must be > 0"),
        (lambda: SupAPLoss(slope=-1), "slope must be >= 0"),
        (lambda: PNPLoss("D"), "variant must be one of O, I_u, I_b, D_s, D_q"),
        (lambda: PNPLoss(alpha=math.nan), "alpha must be > 0"),
        (lambda: CalibrationLoss(reduction="none"), "a mean over pairs, not over queries"),
        (lambda: CalibrationLoss(on_empty="nan"), "has a value where nothing is relevant"),
        (lambda: RoadmapLoss(memory="gallery", memory_batches=2), "memory must be one of none"),
    ],
)
def test_settings_out_of_range_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()

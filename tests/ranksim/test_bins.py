import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ranksim.bins import Bins, Density, bin_of

GOLDEN = np.load(Path(__file__).parent / "golden" / "ranksim_golden.npz", allow_pickle=False)
SCORES = Bins.uniform(0, 5, 0.1)
AGES = Bins.uniform(0, 121, 1)


def test_score_edges_are_those_of_the_official_code():
    assert SCORES.edges.dtype == torch.float32
    assert torch.equal(SCORES.edges, torch.from_numpy(GOLDEN["sts/ranksim/bin_edges"]))


@pytest.mark.parametrize("split", ["ranksim", "yang"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_score_bins_are_those_of_the_official_code(split, dtype):
    """Of every row of both published test sets; the scores are recorded in float32."""
    labels = torch.from_numpy(GOLDEN[f"shots_sts/{split}/label"]).to(dtype)
    assert torch.equal(SCORES(labels), torch.from_numpy(GOLDEN[f"sts/{split}/test_bin"]).long())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_score_on_an_edge_opens_its_bin(dtype):
    scores = torch.tensor([tenths / 10 for tenths in range(50)], dtype=dtype)
    assert torch.equal(SCORES(scores), torch.arange(50))


def test_edges_in_double_precision_would_misplace_scores():
    scores = torch.from_numpy(GOLDEN["shots_sts/ranksim/label"]).double()
    in_double = torch.bucketize(scores, torch.linspace(0, 5, 51, dtype=torch.float64)[1:-1], right=True)
    assert int((in_double != SCORES(scores)).sum()) > 100


def test_an_age_is_its_own_bin_and_very_old_people_share_the_last():
    ages = torch.tensor([0.0, 1.0, 35.0, 35.9, 119.0, 120.0, 121.0, 186.0])
    assert AGES(ages).tolist() == [0, 1, 35, 35, 119, 120, 120, 120]
    assert AGES(ages.long()).tolist() == [0, 1, 35, 35, 119, 120, 120, 120]


def test_bins_of_any_width():
    bins = Bins([-5.0, 0.0, 0.5, 100.0])
    assert bins.count == 3
    assert bins.centres.tolist() == [-2.5, 0.25, 50.25]
    targets = torch.tensor([[-math.inf, -5.0, -0.1], [0.0, 0.49, 0.5], [99.0, 100.0, math.inf]])
    assert bins(targets).tolist() == [[0, 0, 0], [1, 1, 2], [2, 2, 2]]


def test_one_bin_takes_everything():
    assert Bins([0.0, 1.0])(torch.tensor([-1.0, 0.5, 7.0])).tolist() == [0, 0, 0]


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=20, unique=True),
    st.lists(st.floats(-2e6, 2e6, width=32), min_size=1, max_size=30),
)
def test_bins_agree_with_their_definition(edges, targets):
    edges = sorted({value + 0.0 for value in edges})  # -0.0 and 0.0 are one edge
    expected = []
    for target in targets:
        inside = [k for k in range(len(edges) - 1) if edges[k] <= target < edges[k + 1]]
        expected.append(inside[0] if inside else 0 if target < edges[0] else len(edges) - 2)
    assert Bins(edges)(torch.tensor(targets)).tolist() == expected


def test_strided_targets_make_no_warning(recwarn):
    assert AGES(torch.arange(10.0).reshape(5, 2)[:, 1]).tolist() == [1, 3, 5, 7, 9]
    assert not recwarn.list


def test_equal_bins_are_equal():
    assert Bins.uniform(0, 3, 1) == Bins([0, 1, 2, 3])
    assert Bins([0, 1, 2]) != Bins([0, 1, 3])
    assert Bins([0, 1]) != "bins"
    assert repr(SCORES) == "Bins(50 from 0 to 5)"


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([0.0], "at least two finite edges"),
        ([[0.0, 1.0]], "at least two finite edges"),
        ([0.0, 2.0, 1.0], "edge 2 is 1 after 2"),
        ([0.0, 1.0, 1.0], "edge 2 is 1 after 1"),
        ([1.0, 1.0 + 1e-9], "in float32"),
        ([0.0, math.inf], "finite edges"),
        ([0.0, math.nan, 1.0], "finite"),
    ],
)
def test_edges_that_make_no_bins_are_refused(edges, message):
    with pytest.raises(ValueError, match=message):
        Bins(edges)


@pytest.mark.parametrize(
    ("low", "high", "width", "message"),
    [
        (0, 5, 0, "width > 0"),
        (0, 5, -1, "width > 0"),
        (5, 0, 1, "low < high"),
        (0, math.nan, 1, "low < high"),
        (0, 5, 0.3, "no whole number"),
        (0, 1, 3, "no whole number"),
    ],
)
def test_uniform_bins_that_do_not_fit_are_refused(low, high, width, message):
    with pytest.raises(ValueError, match=message):
        Bins.uniform(low, high, width)


def test_a_missing_target_is_refused():
    with pytest.raises(ValueError, match="1 of 3 targets are nan"):
        AGES(torch.tensor([1.0, math.nan, 2.0]))
    with pytest.raises(ValueError, match="2 of 2 targets are nan"):
        bin_of(torch.tensor([math.nan, math.nan]), AGES.edges)


def test_density_counts_training_targets():
    density = Density(torch.tensor([3.0, 3.0, 7.0, 150.0, -1.0]), AGES)
    assert density.counts.dtype == torch.int64
    assert density.counts.nonzero()[:, 0].tolist() == [0, 3, 7, 120]
    assert density.counts[[0, 3, 7, 120]].tolist() == [1, 2, 1, 1]
    assert (density.lowest, density.highest) == (-1.0, 150.0)
    assert density.targets.tolist() == [3.0, 3.0, 7.0, 150.0, -1.0]
    assert density.bins is AGES
    assert density.official_shots is None
    assert repr(density) == "Density(5 targets from -1 to 150, in 4 of 121 bins)"


@pytest.mark.parametrize("split", ["ranksim", "yang"])
def test_density_of_the_published_scores(split):
    found = torch.from_numpy(GOLDEN[f"sts/{split}/train_bin"]).long()
    counts = Density(SCORES.centres[found], SCORES).counts
    assert torch.equal(counts, torch.from_numpy(GOLDEN[f"sts/{split}/train_hist50"]))


def test_density_of_a_column_and_of_whole_numbers():
    assert Density(torch.tensor([[3], [4]]), AGES).targets.tolist() == [3.0, 4.0]


def test_official_shots_are_kept():
    shots = {"many": [0, 1], "medium": [2], "few": [3]}
    density = Density(torch.tensor([0.5]), Bins([0, 1, 2, 3, 4]), official_shots=shots)
    assert density.official_shots == {"many": (0, 1), "medium": (2,), "few": (3,)}


@pytest.mark.parametrize(
    ("shots", "message"),
    [
        ({"low": [0]}, r"under many, medium, few, bins .* got {'low': \(0,\)}"),
        ({"many": [4]}, r"bins from 0 to 3, each once, got {'many': \(4,\)}"),
        ({"many": [-1]}, "bins from 0 to 3"),
        ({"many": [0], "few": [0]}, "each once"),
    ],
)
def test_official_shots_that_do_not_fit_are_refused(shots, message):
    with pytest.raises(ValueError, match=message):
        Density(torch.tensor([0.5]), Bins([0, 1, 2, 3, 4]), official_shots=shots)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([1.0, math.nan], "training targets hold NaN or infinity: 1 of 2, first at row 1"),
        ([math.inf], "NaN or infinity"),
        ([], "at least one training sample"),
        ([[1.0, 2.0]], "training targets must be one a sample"),
    ],
)
def test_targets_without_a_density_are_refused(targets, message):
    with pytest.raises(ValueError, match=message):
        Density(torch.tensor(targets), AGES)

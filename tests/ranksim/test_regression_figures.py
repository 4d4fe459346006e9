import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import scipy.stats
import torch
from torch import nn

from ranksim.bins import Bins, Density
from ranksim.figures import error_by_target, predicted_against_true, target_density
from ranksim.figures.similarity import similarity_matrices
from ranksim.pictures import RegressionPictures


def is_picture(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def small_density(official_shots=None):
    """Three samples in [1, 2), two in [2, 3), one in [4, 5) of the bins 0 to 6."""
    return Density(torch.tensor([1.0, 1.1, 1.9, 2.0, 2.5, 4.5]), Bins.uniform(0, 6, 1), official_shots)


def test_a_smoothed_density_is_drawn_with_as_many_samples(tmp_path):
    smoothed = torch.tensor([1.0, 3, 3, 2, 2, 1])  # 12, while there are 6 samples
    heights = target_density(tmp_path / "a.png", small_density(), {"flat": smoothed}, many=2, few=2)
    assert heights["samples"].tolist() == [0, 3, 2, 0, 1, 0]
    assert heights["flat"].tolist() == [0.5, 1.5, 1.5, 1, 1, 0.5]
    assert is_picture(tmp_path / "a.png")


@pytest.mark.parametrize("settings", [{}, {"logarithmic": True}, {"shot_rule": "official_bins"}])
def test_densities_of_any_settings(tmp_path, settings):
    density = small_density({"many": [1], "medium": [2], "few": [0, 3, 4, 5]})
    target_density(tmp_path / "a.png", density, quantity="age", unit="years", **settings)
    assert is_picture(tmp_path / "a.png")


@pytest.mark.parametrize("counts", [torch.ones(5), torch.zeros(6)])
def test_a_smoothed_density_that_fits_no_bins_is_refused(tmp_path, counts):
    with pytest.raises(ValueError, match="smoothed density odd needs a count for each of 6 bins"):
        target_density(tmp_path / "a.png", small_density(), {"odd": counts})


def test_errors_are_the_means_of_each_bin(tmp_path):
    targets = torch.tensor([1.2, 1.4, 4.9])
    results = {"a": (targets + torch.tensor([1.0, -2.0, 0.5]), targets), "b": (targets + 3, targets)}
    curves = error_by_target(tmp_path / "a.png", results, small_density(), many=2, few=2)
    assert curves["a"][:, 0].tolist() == [1.5, 2.5, 3.5, 4.5]  # what lies outside of all targets is not drawn
    assert curves["a"][[0, 3], 1].tolist() == pytest.approx([1.5, 0.5], rel=1e-6)
    assert curves["a"][1:3, 1].isnan().all()
    assert curves["b"][[0, 3], 1].tolist() == pytest.approx([3, 3], rel=1e-6)
    assert is_picture(tmp_path / "a.png")


def test_many_bins_are_joined(tmp_path):
    density = Density(torch.arange(101.0), Bins.uniform(0, 121, 1))  # 101 bins shown, joined by four
    targets = torch.arange(101.0)
    curve = error_by_target(tmp_path / "a.png", {"a": (targets * 2, targets)}, density)["a"]
    assert curve.shape == (26, 2)
    assert curve[0].tolist() == [2, (0 + 1 + 2 + 3) / 4]
    assert curve[-1].tolist() == [100.5, 100]  # the last has one bin only


def test_targets_outside_the_training_range_are_drawn(tmp_path):
    targets = torch.tensor([0.5, 5.5])
    curve = error_by_target(tmp_path / "a.png", {"a": (targets + 1, targets)}, small_density())["a"]
    assert curve[[0, -1]].tolist() == [[0.5, 1], [5.5, 1]]


def test_features_that_turn_with_the_target_agree_with_it(tmp_path):
    targets = torch.arange(0.0, 90, 1)
    angle = targets.deg2rad()
    turning = torch.stack([angle.cos(), angle.sin()], dim=1)
    there_and_back = torch.stack([(2 * angle).cos(), torch.zeros(90)], dim=1) + torch.tensor([0.0, 1.0])
    draws = torch.Generator().manual_seed(0)
    features = {"turning": turning, "folded": there_and_back, "noise": torch.randn(90, 8, generator=draws)}
    found = similarity_matrices(tmp_path / "a.png", features, targets, quantity="angle", unit="degrees")
    assert list(found) == ["targets", "turning", "folded", "noise"]
    assert found["targets"].matrix[0, 29] == -87  # groups of three, so means of 1 and 88
    expected = [math.cos(math.radians(87 + k)) for k in (-2, -1, -1, 0, 0, 0, 1, 1, 2)]
    assert float(found["turning"].matrix[0, 29]) == pytest.approx(sum(expected) / 9, abs=1e-6)
    within = [math.cos(math.radians(k)) for k in (1, 1, 2)]
    assert float(found["turning"].matrix[4, 4]) == pytest.approx(sum(within) / 3, abs=1e-6)
    assert found["turning"].agreement > 0.995
    assert found["folded"].agreement == pytest.approx(
        sum(
            scipy.stats.spearmanr(a, b)[0] for a, b in zip(found["targets"].matrix, found["folded"].matrix, strict=True)
        )
        / 30
    )
    assert abs(found["noise"].agreement) < 0.3
    assert is_picture(tmp_path / "a.png")


def test_the_agreement_does_not_reward_a_sample_for_being_like_itself(tmp_path):
    # One sample of each target: nothing can be said of a group by itself, and nothing is drawn there.
    found = similarity_matrices(tmp_path / "a.png", {"a": torch.eye(5)}, torch.arange(5.0))
    assert found["a"].matrix.diagonal().isnan().all()
    assert (found["a"].matrix.fill_diagonal_(0) == 0).all()
    assert math.isnan(found["a"].agreement)  # all other cosines are equal


@pytest.mark.parametrize(
    ("features", "targets"),
    [
        ({}, [1.0, 2.0]),
        ({"a": torch.ones(2, 3)}, [1.0, 1.0]),
        ({"targets": torch.ones(2, 3)}, [1.0, 2.0]),
        ({"a": torch.ones(3, 3)}, [1.0, 2.0]),
        ({"a": torch.full((2, 3), math.inf)}, [1.0, 2.0]),
    ],
)
def test_similarities_of_nothing_are_refused(tmp_path, features, targets):
    with pytest.raises(ValueError, match=r"similarities need|the features a must be finite"):
        similarity_matrices(tmp_path / "a.png", features, torch.tensor(targets))


@pytest.mark.parametrize("methods", [1, 5])
def test_mean_predictions_along_the_targets(tmp_path, methods):
    targets = torch.tensor([0.0, 0.0, 1.0, 2.0])
    predictions = torch.tensor([1.0, 3.0, 5.0, -1.0])
    results = {f"method {k}": (predictions + k, targets) for k in range(methods)}
    drawn = predicted_against_true(tmp_path / "a.png", results, quantity="age", unit="years")
    assert len(drawn) == methods
    for k, means in enumerate(drawn.values()):
        assert means.tolist() == [[0, 2 + k], [1, 5 + k], [2, -1 + k]]
    assert is_picture(tmp_path / "a.png")


def test_one_target_alone_can_be_drawn(tmp_path):
    drawn = predicted_against_true(tmp_path / "a.png", {"a": (torch.ones(3), torch.ones(3))})
    assert drawn["a"].tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({}, "one method at least"),
        ({"a": (torch.ones(3), torch.ones(2))}, "a has 3 predictions for 2 targets"),
        ({"a": (torch.full((2,), math.nan), torch.ones(2))}, "predictions hold NaN or infinity: 2 of 2"),
    ],
)
def test_results_that_do_not_fit_are_refused(tmp_path, results, words):
    with pytest.raises(ValueError, match=words):
        predicted_against_true(tmp_path / "a.png", results)
    with pytest.raises(ValueError, match=words):
        error_by_target(tmp_path / "a.png", results, small_density())


class Model(nn.Module):
    def forward(self, batch):
        values = batch["target"].reshape(len(batch["target"]), -1) + 1
        return SimpleNamespace(prediction=values.reshape(batch["target"].shape), features=values)


class Loader(list):
    """Batches of a data set."""

    def __init__(self, targets, density):
        super().__init__([{"target": targets, "index": torch.arange(len(targets))}])
        self.dataset = SimpleNamespace(density=density)


@pytest.mark.parametrize(
    ("targets", "density", "names"),
    [
        (torch.rand(9), small_density(), {"predicted_against_true", "similarity", "error_by_target"}),
        (torch.rand(9), None, {"predicted_against_true", "similarity"}),
        (torch.ones(9), small_density(), {"predicted_against_true", "error_by_target"}),
        (torch.rand(9, 2), None, {"predicted_against_true"}),
    ],
)
def test_a_run_leaves_the_pictures_of_a_split(tmp_path, targets, density, names):
    pictures = RegressionPictures(quantity="age", unit="years")
    paths = pictures(Model(), Loader(targets, density), tmp_path, "test")
    assert paths == {name: tmp_path / f"{name}_test.png" for name in names}
    assert all(is_picture(path) for path in paths.values())

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from ranksim.bins import SHOTS, Bins, Density
from ranksim.evaluation import RegressionMetrics, predict
from ranksim.metrics import average_ranks, correlation, regression_metrics, shot_groups

GOLDEN = np.load(Path(__file__).parent / "golden" / "ranksim_golden.npz")
# The lists of the official code for STS-B-DIR, by bins of 0.1; all other bins are few.
STS_MANY = (0, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 49)
STS_SHOTS = {"many": STS_MANY, "medium": (2, 4, 6, 8, 27, 35, 37)}


def golden(name):
    return torch.from_numpy(GOLDEN[name])


def agedb():
    return Density(torch.arange(121.0).repeat_interleave(golden("lds/agedb_train_hist")), Bins.uniform(0, 121, 1))


def small_density():
    """Three samples in [1, 2), two in [2, 3), one in [4, 5) of the bins 0 to 6."""
    return Density(torch.tensor([1.0, 1.1, 1.9, 2.0, 2.5, 4.5]), Bins.uniform(0, 6, 1))


def assert_row(numbers, row, shot, names):
    for name, value in zip(names, row, strict=True):
        assert numbers[f"{name}{shot}"] == pytest.approx(float(value), rel=1e-6, abs=0), f"{name}{shot}"


# values


def test_each_metric_is_its_formula():
    predictions, targets = torch.tensor([2.0, 1.0, 7.0]), torch.tensor([1.0, 3.0, 3.0])  # errors 1, 2, 4
    numbers = regression_metrics(predictions, targets)
    assert numbers["mae"] == pytest.approx((1 + 2 + 4) / 3)
    assert numbers["mse"] == pytest.approx((1 + 4 + 16) / 3)
    assert numbers["gmean"] == pytest.approx((1 * 2 * 4) ** (1 / 3))
    # Centred: predictions -4/3, -7/3, 11/3 and targets -4/3, 2/3, 2/3, all times 3; then ranks 2, 1, 3 and 1, 2.5, 2.5.
    assert numbers["pearson"] == pytest.approx((16 - 14 + 22) / math.sqrt((16 + 49 + 121) * (16 + 4 + 4)))
    assert numbers["spearman"] == pytest.approx((0 * -1 + -1 * 0.5 + 1 * 0.5) / math.sqrt(2 * (1 + 0.25 + 0.25)))
    assert set(numbers) == {"mae", "mse", "gmean", "pearson", "spearman"}


def test_a_shot_has_the_metrics_of_its_samples():
    predictions, targets = torch.tensor([2.0, 1.0, 7.0, 4.0]), torch.tensor([1.5, 2.5, 2.0, 4.0])
    numbers = regression_metrics(predictions, targets, small_density(), many=2, few=2)
    # Bins of the targets hold 3, 2, 2, 1 training samples: many, medium, medium, few; errors 0.5, 1.5, 5, 0.
    assert numbers["mae"] == pytest.approx(7 / 4)
    assert numbers["mae_many"] == numbers["gmean_many"] == pytest.approx(0.5)
    assert numbers["mae_medium"] == pytest.approx(6.5 / 2)
    assert numbers["mse_medium"] == pytest.approx((1.5**2 + 5**2) / 2)
    assert numbers["pearson_medium"] == pytest.approx(-1)
    assert numbers["mae_few"] == numbers["gmean_few"] == 0
    assert "pearson_few" not in numbers  # one sample has no correlation
    assert "mae_zero_interpolation" not in numbers
    assert numbers["balanced_mae"] == pytest.approx((0.5 + 6.5 / 2 + 0) / 3)
    assert numbers["balanced_mae_medium"] == pytest.approx(6.5 / 2)  # both share a bin


def test_shots_change_at_more_than_many_and_fewer_than_few():
    counts = torch.tensor([0, 19, 20, 100, 101])
    density = Density(torch.arange(5.0).repeat_interleave(counts), Bins.uniform(0, 5, 1))
    assert [SHOTS[i] for i in density.shots()] == ["few", "few", "medium", "medium", "many"]
    assert density.shots(few=0)[0] == SHOTS.index("medium")


def test_targets_without_training_samples_are_few_and_reported_by_themselves():
    targets = torch.tensor([1.5, 3.5, 0.5, 5.5, 5.9])  # seen, between, below, above, above
    predictions = targets + torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    numbers = regression_metrics(predictions, targets, small_density(), many=2, few=2)
    assert numbers["mae_zero_interpolation"] == pytest.approx(2)
    assert numbers["mae_zero_extrapolation"] == pytest.approx((3 + 4 + 5) / 3)
    assert numbers["mae_few"] == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert numbers["balanced_mae_zero_extrapolation"] == pytest.approx((3 + (4 + 5) / 2) / 2)


def test_the_outermost_bins_take_what_lies_beyond():
    density = Density(torch.tensor([119.0, 125.0]), Bins.uniform(0, 121, 1))
    groups = shot_groups(torch.tensor([130.0, 119.5]), density, "counts", many=1, few=1)
    assert not groups["zero_extrapolation"].any()
    assert groups["medium"].all()


@pytest.mark.parametrize(
    ("rule", "overall", "few"),
    [
        ("none", 0.0, 0.0),
        ("zeros", math.sqrt(1e-10 * 4), 1e-10),
        ("every", math.sqrt(1e-10 * (4 + 1e-10)), 1e-10),
        ("every_overall", math.sqrt(1e-10 * (4 + 1e-10)), 0.0),
    ],
)
def test_what_an_exact_hit_does_to_the_geometric_mean(rule, overall, few):
    predictions, targets = torch.tensor([4.0, 5.0]), torch.tensor([4.0, 1.0])
    numbers = regression_metrics(predictions, targets, small_density(), many=2, few=2, gmean_eps=rule)
    assert numbers["gmean"] == pytest.approx(overall, rel=1e-12, abs=0)
    assert numbers["gmean_few"] == pytest.approx(few, rel=1e-12, abs=0)
    assert numbers["gmean_many"] == pytest.approx(4, rel=1e-9)


def test_vector_targets_pool_errors_and_average_correlations():
    predictions = torch.tensor([[1.0, 0.0], [2.0, 2.0], [4.0, 1.0]])
    targets = torch.tensor([[0.0, 4.0], [2.5, 2.0], [4.0, 3.0]])
    numbers = regression_metrics(predictions, targets)
    assert numbers["mae"] == pytest.approx((1 + 4 + 0.5 + 0 + 0 + 2) / 6)
    each = [scipy.stats.pearsonr(predictions[:, k], targets[:, k])[0] for k in (0, 1)]
    assert numbers["pearson"] == pytest.approx(sum(each) / 2, rel=1e-5)
    with pytest.raises(ValueError, match="targets are \\(3, 2\\): give no density"):
        regression_metrics(predictions, targets, small_density())


# references


@pytest.mark.parametrize("case", ["noise", "shrink", "exact"])
def test_shots_of_agedb_equal_the_official_code(case):
    predictions, targets = golden(f"shots/{case}/pred"), golden("shots/labels")
    numbers = regression_metrics(predictions, targets, agedb())
    for row, shot in zip(GOLDEN[f"shots/{case}/metrics"], ("", "_many", "_medium", "_few"), strict=True):
        assert_row(numbers, row, shot, ("mse", "mae", "gmean"))
    with_eps = regression_metrics(predictions, targets, agedb(), gmean_eps="every_overall")
    assert with_eps["gmean"] == pytest.approx(float(GOLDEN[f"shots/{case}/gmean_overall_eps"]), rel=1e-6)
    assert {name: value for name, value in with_eps.items() if name != "gmean"} == {
        name: value for name, value in numbers.items() if name != "gmean"
    }


def test_ages_that_nobody_trained_on_equal_the_official_code():
    predictions = torch.cat([golden("shots/noise/pred"), golden("shots/zero/pred_extra")])
    extra = golden("shots/zero/labels_extra")
    numbers = regression_metrics(predictions, torch.cat([golden("shots/labels"), extra]), agedb())
    for row, shot in zip(GOLDEN["shots/zero/metrics"], ("_many", "_medium", "_few"), strict=True):
        assert_row(numbers, row, shot, ("mse", "mae", "gmean"))
    assert extra.tolist() == [0, 0, 2]  # training ages are 1 and from 3 to 101
    assert numbers["mae_zero_extrapolation"] == pytest.approx((5 + 9) / 2)
    assert numbers["mae_zero_interpolation"] == pytest.approx(1)


def test_the_shot_of_every_age_equals_the_official_code():
    expected = 2 - golden("shots/shot_of_label").long()  # there 2 is many
    assert torch.equal(agedb().shots(), expected)


@pytest.mark.parametrize("split", ["ranksim", "yang"])
def test_shots_of_sts_b_equal_the_official_code(split):
    bins = Bins.uniform(0, 5, 0.1)
    trained_on = bins.centres[golden(f"sts/{split}/train_bin").long()]
    density = Density(trained_on, bins, STS_SHOTS)
    assert torch.equal(density.counts, golden(f"sts/{split}/train_hist50"))
    predictions, targets = 5 * golden(f"shots_sts/{split}/pred"), golden(f"shots_sts/{split}/label")
    numbers = regression_metrics(predictions, targets, density, shot_rule="official_bins", gmean_eps="zeros")
    groups = shot_groups(targets, density, "official_bins", 100, 20)
    for row, shot in zip(GOLDEN[f"shots_sts/{split}/metrics"], ("", "_many", "_medium", "_few"), strict=True):
        assert_row(numbers, row[:5], shot, ("mse", "mae", "gmean", "pearson", "spearman"))
        assert int(groups[shot[1:]].sum() if shot else len(targets)) == row[5]
    assert not torch.equal(
        groups["few"], shot_groups(targets, density, "counts", 100, 20)["few"]
    )  # the lists are not the counts


@given(st.lists(st.tuples(*[st.integers(-4, 4)] * 2), min_size=2, max_size=30))
def test_correlations_equal_scipy(pairs):
    a, b = torch.tensor(pairs, dtype=torch.float64).T
    assert average_ranks(a).tolist() == scipy.stats.rankdata(a).tolist()
    if len(a.unique()) == 1 or len(b.unique()) == 1:
        assert correlation(a, b) is None
    else:
        assert float(correlation(a, b)) == pytest.approx(scipy.stats.pearsonr(a, b)[0], abs=1e-12)
        numbers = regression_metrics(a, b)
        assert numbers["spearman"] == pytest.approx(scipy.stats.spearmanr(a, b)[0], abs=1e-12)


def test_the_geometric_mean_equals_scipy_beyond_the_range_of_products():
    errors = torch.logspace(-30, 20, 500, dtype=torch.float64)  # their product is far below the smallest float
    assert regression_metrics(errors, torch.zeros(500))["gmean"] == pytest.approx(scipy.stats.gmean(errors), rel=1e-9)


# questions


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_correlation_does_not_depend_on_the_scale(scale):
    a, b = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64), torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    assert float(correlation(scale * a, b / scale)) == pytest.approx(scipy.stats.pearsonr(a, b)[0])


def test_neither_order_nor_a_column_nor_float64_matters():
    draws = torch.Generator().manual_seed(0)
    targets = 6 * torch.rand(200, generator=draws)
    predictions = targets + torch.randn(200, generator=draws)
    numbers = regression_metrics(predictions, targets, small_density(), many=2, few=2)
    assert {"mae_many", "mae_medium", "mae_few", "mae_zero_interpolation", "mae_zero_extrapolation"} <= set(numbers)
    order = torch.randperm(200, generator=draws)
    variants = [
        (predictions[order], targets[order]),
        (predictions[:, None], targets),
        (predictions.double(), targets[:, None].double()),
    ]
    for other in variants:
        found = regression_metrics(*other, small_density(), many=2, few=2)
        assert found.keys() == numbers.keys()
        assert list(found.values()) == pytest.approx([numbers[name] for name in found], rel=1e-12)


def test_constant_predictions_have_no_correlation():
    numbers = regression_metrics(torch.full((4,), 0.1), torch.arange(4.0))
    assert set(numbers) == {"mae", "mse", "gmean"}


def test_a_perfect_model():
    targets = torch.tensor([1.0, 2.0, 4.0])
    numbers = regression_metrics(targets, targets, small_density())
    assert numbers["mae"] == numbers["mse"] == numbers["gmean"] == numbers["balanced_mae"] == 0
    assert [numbers["pearson"], numbers["spearman"]] == pytest.approx([1, 1])
    assert max(numbers["pearson"], numbers["spearman"]) <= 1


@pytest.mark.parametrize(
    ("predictions", "targets", "words"),
    [
        (
            [1.0, math.nan, math.inf],
            [1.0, 2.0, 3.0],
            "predictions hold NaN or infinity: 2 of 3.*diverged",
        ),
        ([1.0], [math.nan], "targets hold NaN or infinity: 1 of 1"),
        ([], [], "targets must be .* not empty"),
        ([1.0, 2.0], [1.0], r"got targets \(1,\) and predictions \(2,\)"),
        ([[1.0, 2.0]], [1.0], r"got targets \(1,\) and predictions \(1, 2\)"),
    ],
)
def test_bad_numbers_are_refused_in_a_sentence(predictions, targets, words):
    with pytest.raises(ValueError, match=words):
        regression_metrics(torch.tensor(predictions), torch.tensor(targets))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"shot_rule": "median"}, "shot_rule must be one of counts, official_bins, got 'median'"),
        ({"gmean_eps": "1e-10"}, "gmean_eps must be one of none, zeros, every, every_overall, got '1e-10'"),
        ({"many": 10}, "0 <= few <= many, got few=20 and many=10"),
        ({"few": -1}, "got few=-1"),
    ],
)
def test_bad_settings_are_refused_early(settings, words):
    with pytest.raises(ValueError, match=words):
        RegressionMetrics(**settings)
    with pytest.raises(ValueError, match=words):
        regression_metrics(torch.ones(1), torch.ones(1), **settings)


def test_official_lists_are_asked_for_only_where_they_are():
    with pytest.raises(ValueError, match="no official lists of shots; use shot_rule counts"):
        small_density().shots("official_bins")
    with pytest.raises(ValueError, match="needs a density"):
        regression_metrics(torch.ones(1), torch.ones(1), shot_rule="official_bins")


# runs


class Numbers(torch.utils.data.Dataset):
    """The first column is the target."""

    def __init__(self, density=None):
        self.numbers = torch.rand(23, 2, generator=torch.Generator().manual_seed(1)) * 6
        if density is not None:
            self.density = density

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        return {"numbers": self.numbers[index], "target": self.numbers[index, 0], "index": index}


class Noisy(nn.Module):
    """Predicts the sum of the columns; while training, nonsense."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, batch):
        features = batch["numbers"] * (math.nan if self.training else self.weight)
        return SimpleNamespace(prediction=features.sum(1), features=features, smoothed=features)


def loader(density=None):
    return torch.utils.data.DataLoader(Numbers(density), batch_size=5)


@pytest.mark.parametrize("training", [True, False])
def test_predictions_are_those_of_evaluation_and_the_mode_stays(training):
    model = Noisy().train(training)
    data = predict(model, loader())
    numbers = loader().dataset.numbers
    assert model.training is training
    assert torch.equal(data.predictions, numbers.sum(1))
    assert torch.equal(data.targets, numbers[:, 0])
    assert torch.equal(data.features, numbers)
    assert not data.predictions.requires_grad
    assert predict(model, loader(), features=False).features.shape == (23, 0)


def test_the_mode_stays_even_if_the_model_fails():
    model = Noisy().train()
    with pytest.raises(KeyError):
        predict(model, [{"target": torch.ones(1), "index": torch.ones(1)}])
    assert model.training


def test_an_empty_loader_is_refused():
    with pytest.raises(ValueError, match="gave no batch"):
        predict(Noisy(), [])


def test_metrics_of_a_loader_use_the_training_density_of_its_data_set():
    numbers = loader().dataset.numbers
    found = RegressionMetrics(many=2, few=2, gmean_eps="every")(Noisy(), loader(small_density()))
    assert found == regression_metrics(numbers.sum(1), numbers[:, 0], small_density(), many=2, few=2, gmean_eps="every")
    assert found["mae"] == pytest.approx(float(numbers[:, 1].mean()))
    assert "mae_many" not in RegressionMetrics()(Noisy(), loader())


def test_the_names_are_those_of_what_can_be_given():
    # Two targets of every shot and of every kind of zero-shot, so that all is defined.
    targets = torch.tensor([0.2, 0.4, 1.2, 1.4, 2.2, 2.4, 3.2, 3.4, 4.2, 5.4])
    given = regression_metrics(targets.square(), targets, small_density(), many=2, few=2)
    of_targets = {f"{name}_of_*" for name in ("mae", "mse", "gmean", "pearson", "spearman")}  # of several targets
    assert set(RegressionMetrics().names()) == set(given) | of_targets


def test_a_diverged_model_says_so():
    model = Noisy()
    model.weight.data.fill_(math.nan)
    with pytest.raises(ValueError, match=r"predictions hold NaN or infinity: 23 of 23.*diverged"):
        RegressionMetrics()(model, loader())

"""The model, the objective, and how they meet the trainer's contracts."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from harness.data.backbones import SmallConvNet
from harness.train.optimization import build_optimizer
from ranksim.bins import Bins, Density
from ranksim.imbalance import Reweighting
from ranksim.losses import L1, BatchBalancedMSE, ConR, RankSimilarity
from ranksim.model import ImageEncoder, NumbersEncoder, Regressed, Regressor
from ranksim.objective import RegressionObjective
from ranksim.smoothing import FeatureSmoothing

BINS = Bins.uniform(0, 10, 1)


def batch(n=8, columns=3, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return {
        "numbers": torch.randn(n, columns, generator=draws),
        "target": torch.randint(0, 10, (n,), generator=draws).float(),
        "index": torch.arange(n),
    }


def model(smoothing=None, **options):
    torch.manual_seed(0)
    return Regressor(NumbersEncoder(3, [6, 5]), smoothing, **options)


def smoothing(**options):
    return partial(FeatureSmoothing, bins=BINS, kernel="gaussian", size=5, sigma=2.0, **options)


def density():
    return Density(torch.tensor([0.0] * 16 + [1.0] * 4 + [2.0]), BINS)


class TestModel:
    def test_a_prediction_is_the_scaled_head_on_the_features(self):
        plain, scaled = model(), model(target_scale=5.0)
        output = plain(batch())
        assert output.prediction.shape == (8,)
        assert output.features.shape == (8, 5)
        assert output.smoothed is output.features
        assert torch.equal(output.prediction, plain.head(output.features)[:, 0])
        assert torch.equal(scaled(batch()).prediction, 5 * output.prediction)

    def test_vector_targets_have_a_column_each(self):
        assert model(outputs=2)(batch()).prediction.shape == (8, 2)

    def test_smoothing_acts_from_its_second_epoch_on_and_never_in_evaluation(self):
        network = model(smoothing())
        data = SimpleNamespace(training_pass=lambda epoch: [batch(64, seed=epoch), batch(64, seed=epoch + 100)])
        first = network(batch())
        assert torch.equal(first.smoothed, first.features)  # nothing is known yet
        for epoch in (1, 2, 3):
            network.eval()
            network.end_of_epoch(network, data, epoch)
        output = network(batch())
        assert not torch.allclose(output.smoothed, output.features)
        assert torch.equal(output.prediction, network.head(output.smoothed)[:, 0])
        network.eval()
        still = network(batch())
        assert still.smoothed is still.features

    def test_statistics_can_be_those_of_smoothed_features_as_officially(self):
        means = {}
        for of in ("raw", "smoothed"):
            network = model(smoothing(), statistics_of=of)
            for epoch in range(1, 5):
                data = SimpleNamespace(training_pass=lambda epoch: [batch(64, seed=epoch)])
                network.end_of_epoch(network, data, epoch)
            means[of] = network.smoothing.state_dict()
        assert any(not torch.equal(means["raw"][name], means["smoothed"][name]) for name in means["raw"])

    def test_bins_left_open_are_those_of_the_data_and_one_bucket_is_refused(self):
        network = model(partial(FeatureSmoothing, bins=None))
        assert network.smoothing is None
        network.prepare(
            SimpleNamespace(density=density(), parts={"train": SimpleNamespace(inputs={"numbers": torch.zeros(2, 3)})})
        )
        assert network.smoothing.bins == BINS
        far = Density(torch.tensor([100.0, 200.0]), Bins.uniform(0, 300, 1))
        data = SimpleNamespace(density=far, parts={"train": SimpleNamespace(inputs={"numbers": torch.zeros(2, 3)})})
        with pytest.raises(ValueError, match="all training targets are in one of the buckets"):
            model(smoothing()).prepare(data)

    def test_images_are_scaled_to_zero_mean(self):
        seen = []

        class Backbone(nn.Module):
            num_features = 3

            def forward(self, image):
                seen.append(image)
                return image

        encoder = ImageEncoder(Backbone())
        image = torch.tensor([0, 255], dtype=torch.uint8).view(1, 1, 1, 2).expand(1, 3, 1, 2)
        assert torch.equal(encoder({"image": image}), torch.zeros(1, 3))  # the mean of -1 and 1
        assert torch.equal(seen[0][0, 0, 0], torch.tensor([-1.0, 1.0]))
        with pytest.raises(ValueError, match="must be uint8"):
            encoder({"image": image.float()})

    def test_a_small_network_on_pictures_learns_from_every_parameter(self):
        network = Regressor(ImageEncoder(SmallConvNet(width=4)))
        image = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
        network({"image": image}).prediction.square().sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in network.parameters())

    def test_numbers_take_their_columns_from_the_data(self):
        encoder = NumbersEncoder(hidden=[4])
        encoder.prepare(SimpleNamespace(parts={"train": SimpleNamespace(inputs={"numbers": torch.zeros(2, 7)})}))
        assert encoder({"numbers": torch.zeros(2, 7)}).shape == (2, 4)
        with pytest.raises(ValueError, match=r"built for 7 columns, got numbers of shape \(2, 3\)"):
            encoder({"numbers": torch.zeros(2, 3)})
        with pytest.raises(ValueError, match="the samples of X have none"):
            NumbersEncoder().prepare(SimpleNamespace(title="X", parts={"train": SimpleNamespace(inputs={})}))

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"outputs": 0}, "outputs must be at least 1"),
            ({"dropout": 1.0}, "dropout must be"),
            ({"target_scale": 0.0}, "target_scale must be > 0 and finite"),
            ({"target_scale": float("nan")}, "target_scale must be > 0 and finite"),
            ({"statistics_of": "both"}, "statistics_of must be one of raw, smoothed, got 'both'"),
        ],
    )
    def test_bad_settings_are_refused(self, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            model(**options)


class TestObjective:
    def output(self, requires_grad=True):
        draws = torch.Generator().manual_seed(1)
        features = torch.randn(6, 4, generator=draws).requires_grad_(requires_grad)
        return Regressed(features.sum(1), features, features * 2)

    target = torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 0.0])

    def test_the_base_loss_is_of_scaled_numbers_and_the_regulariser_of_plain_ones(self):
        seen = []

        class Recording(nn.Module):
            wants_predictions = True

            def forward(self, features, targets, predictions):
                seen.append((features, targets, predictions))
                return features.sum() * 0 + 7

        output = self.output()
        named = RegressionObjective(L1(), regularizer=Recording(), target_scale=5.0)(output, {"target": self.target})
        expected = ((output.prediction - self.target).abs() / 5).mean()
        assert named["base_loss"] == pytest.approx(expected.item(), rel=1e-6)
        assert named["loss"].item() == pytest.approx(expected.item() + 7, rel=1e-6)
        assert seen[0][0] is output.smoothed
        assert torch.equal(seen[0][1], self.target)
        assert seen[0][2] is output.prediction
        RegressionObjective(L1(), regularizer=Recording(), regularized="raw")(output, {"target": self.target})
        assert seen[1][0] is output.features

    def test_weights_act_on_the_base_loss_alone(self):
        weighting = Reweighting("inverse")
        objective = RegressionObjective("ranksim.losses.L1", weighting)
        objective.prepare(SimpleNamespace(density=density()))
        output = self.output()
        inverse = torch.tensor([1 / 16, 1 / 4, 1.0])[self.target.long()] * 21 / 3  # mean 1 over 16 + 4 + 1 samples
        expected = (inverse * (output.prediction - self.target).abs()).mean()
        assert objective(output, {"target": self.target})["loss"].item() == pytest.approx(expected.item(), rel=1e-6)

    def test_no_weighting_and_weighting_none_are_the_same(self):
        output, batch = self.output(), {"target": self.target}
        objective = RegressionObjective(L1(), Reweighting("none"))
        objective.prepare(SimpleNamespace(density=density()))
        assert objective(output, batch)["loss"] == RegressionObjective(L1())(output, batch)["loss"]

    def test_a_frozen_encoder_is_not_regularised(self):
        objective = RegressionObjective(L1(), regularizer=RankSimilarity(weight=100.0))
        assert "regularizer" in objective(self.output(), {"target": self.target})
        frozen = self.output(requires_grad=False)
        with pytest.raises(ValueError, match="nothing before them is trained: set regularizer=none"):
            objective(frozen, {"target": self.target})
        objective.second_stage()
        assert "regularizer" not in objective(frozen, {"target": self.target})

    def test_weights_are_refused_by_a_loss_that_takes_none(self):
        with pytest.raises(ValueError, match="BatchBalancedMSE corrects the imbalance itself"):
            RegressionObjective(BatchBalancedMSE(), Reweighting("inverse"))

    def test_health_and_own_parameters_reach_the_trainer(self):
        objective = RegressionObjective(BatchBalancedMSE(initial_noise=1.0), regularizer=ConR())
        objective.prepare(SimpleNamespace(density=density()))
        named = objective(self.output(), {"target": self.target})
        assert {"loss", "base_loss", "regularizer"} < named.keys()
        optimizer = build_optimizer(partial(torch.optim.SGD, lr=0.01), model(), objective)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == 7  # two for each of 3 layers, and sigma
        assert optimizer.param_groups[-1]["lr"] > 0.01
        assert set(objective.settings) == {"loss", "weighting", "regularizer"}

    @pytest.mark.parametrize(
        ("arguments", "error", "sentence"),
        [
            ({"loss": "ranksim.losses.L3"}, ImportError, "no L3 in ranksim.losses"),
            ({"loss": "ranksim.losses.L1", "beta": 1.0}, TypeError, "takes no beta"),
            ({"loss": 3}, TypeError, "loss must be a torch module"),
            ({"loss": L1(), "regularized": "both"}, ValueError, "regularized must be one of raw, smoothed, got 'both'"),
            ({"loss": L1(), "target_scale": -1.0}, ValueError, "target_scale must be > 0 and finite, got -1"),
        ],
    )
    def test_bad_settings_are_refused(self, arguments, error, sentence):
        with pytest.raises(error, match=sentence):
            RegressionObjective(**arguments)

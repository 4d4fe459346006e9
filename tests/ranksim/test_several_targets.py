"""Several targets in a table: what is trained, measured and predicted of them, and what is of one target alone."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from loaded_script import loaded

from harness.device import to_device
from harness.record import load
from harness.record.restored import restored
from harness.train.evaluated import evaluate
from ranksim import pictures
from ranksim.bins import Bins, Density
from ranksim.datasets.fixture import write_table
from ranksim.datasets.table import TableData
from ranksim.evaluation import RegressionMetrics, predict
from ranksim.imbalance import Reweighting
from ranksim.losses import L1, FocalMSE, HistogramBalancedMSE, RankSimilarity
from ranksim.metrics import metrics_of_several, regression_metrics
from ranksim.model import NumbersEncoder, Regressed, Regressor
from ranksim.objective import RegressionObjective
from ranksim.smoothing import FeatureSmoothing

NAMES, SCALES = ["price", "rent"], [100.0, 10.0]
RUN = ("table_ranksim", "data.target=[price,rent]", "data.split=random", "data.target_scale=[100,10]")


def table(root, cells=("30", "5"), **options):
    rows = [(i, i % 4, 100 * i, f"{200 - i}", ("train", "val", "test")[i % 3]) for i in range(30)]
    rows[3] = (3, 3, *cells, "train")
    write_table(root / "table.csv", ("area", "rooms", "price", "Rent", "split"), rows)
    return TableData(root, **{"target": NAMES, "target_scale": SCALES, "bins": 5, **options})


def test_a_sample_has_a_number_for_each_target_and_no_target_is_a_feature(tmp_path):
    data = table(tmp_path)
    assert next(iter(data.train))["target"].shape == (10, 2)
    assert data.parts["test"].targets.tolist()[:2] == [[200.0, 198.0], [500.0, 195.0]]
    assert data.features == ["area", "rooms"]
    assert (data.target_names, data.density, data.bins) == (["price", "Rent"], None, None)
    told = data.describe()
    assert (told["target"], told["target_scale"], "bins" in told) == (["price", "Rent"], SCALES, False)
    assert told["train"] == {"samples": 10, "different": 10, "lowest": [0.0, 5.0], "highest": [2700.0, 200.0]}
    assert "density" not in data.for_use({})


def test_a_list_of_one_target_is_that_target(tmp_path):
    one, alone = (
        table(tmp_path, target=target, target_scale=scale) for target, scale in (("price", 7), (["price"], [7]))
    )
    assert (alone.fingerprint, alone.describe()) == (one.fingerprint, one.describe())
    assert alone.for_use({}) == one.for_use({})
    assert next(iter(alone.train))["target"].shape == (10,)


def test_one_target_stays_as_it_was(tmp_path):
    """The place and the fingerprint of its stand-in data are those of before there could be several."""
    data = TableData(tmp_path / "table", bins=5, fixture=True)
    assert (data.root.name, data.fingerprint[:16]) == ("table_dc4b40e5_fixture", "0c8e2451e9477b27")
    assert "outputs" not in Regressor(NumbersEncoder(2)).without_data()
    assert Regressor(NumbersEncoder(2), target_scale=[5]).target_scale == 5.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": []}, "data.target must name one column, or several different ones"),
        ({"target": ["price", "price"]}, "data.target must name one column, or several different ones"),
        ({"target": ["price", "Price"]}, r"data.target must name one column, .*, got \['price', 'price'\]"),
        ({"target": "price", "target_scale": 1, "features": ["PRICE"]}, "the target 'price' cannot be a feature"),
        ({"categories": ["Price"]}, "'price' cannot be one of data.categories and the target"),
        ({"features": ["area", "Area"]}, r"data.features names a column twice, got \['area', 'area'\]"),
        ({"features": ["area", "rent"]}, "the target 'rent' cannot be a feature as well"),
        ({"target_scale": [1, 2, 3]}, r"target_scale has 3 numbers for 2 targets \(price, rent\); give one for all"),
        ({"target_scale": [1, 0]}, "target_scale must be a positive number"),
        ({"target": ["price", "rant"]}, "has no column 'rant'"),
        ({"cells": ("nan", "5")}, r"targets that are not a finite number \(row 4, line 5: nan 5\)"),
        ({"split_column": None}, "data.split=imbalanced balances the parts over one target, .* set data.split=random"),
    ],
)
def test_what_cannot_be_is_refused_before_training(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        table(tmp_path, **options)


def test_targets_that_metrics_or_training_cannot_tell_are_refused(tmp_path):
    write_table(tmp_path / "table.csv", ("a", "b/c", "b_c", "five"), [(i, i * i, -i, 5) for i in range(30)])
    with pytest.raises(ValueError, match=r"metrics write a slash as a stroke below, in which targets \['b/c', 'b_c'\]"):
        TableData(tmp_path, target=["b/c", "b_c"], bins=5, split="random")
    with pytest.raises(ValueError, match=r"every target 'five' of table in .* is 5 .*: there is nothing to learn"):
        TableData(tmp_path, target=["b/c", "five"], bins=5, split="random")


def test_what_goes_by_the_density_of_one_target_is_refused(tmp_path):
    data = table(tmp_path)
    for objective, way_out in (
        (RegressionObjective(L1(), Reweighting("inverse")), "re-weighting goes by .* set weighting=none"),
        (RegressionObjective(HistogramBalancedMSE()), "HistogramBalancedMSE goes by .* choose another loss"),
    ):
        with pytest.raises(ValueError, match=way_out):
            objective.prepare(data)
    smoothed = Regressor(NumbersEncoder(), partial(FeatureSmoothing, bins=Bins([0, 1, 2, 3])))
    with pytest.raises(ValueError, match=r"feature smoothing goes by .* set fds=none, or name one column"):
        smoothed.prepare(data)
    with pytest.raises(ValueError, match=r"model.outputs is 3, and data.target names 2 columns \(price, Rent\)"):
        Regressor(NumbersEncoder(), outputs=3).prepare(data)
    with pytest.raises(ValueError, match="shot_rule official_bins is of one target"):
        RegressionMetrics("official_bins")(prepared(data), data.evaluation["test"])


def prepared(data):
    model = Regressor(NumbersEncoder(hidden=[3]), target_scale=SCALES)
    model.prepare(data)
    return model.eval()


def test_each_output_is_in_the_unit_of_its_target(tmp_path):
    model, batch = prepared(table(tmp_path)), {"numbers": torch.tensor([[1.0, 2.0], [3.0, -1.0]])}
    found = model(batch)
    torch.testing.assert_close(found.prediction, model.head(found.features) * torch.tensor(SCALES))
    assert model.without_data()["outputs"] == 2
    assert not [name for name in model.state_dict() if "scale" in name]


@pytest.mark.parametrize("loss", [L1(), FocalMSE()])
def test_the_loss_is_the_mean_over_samples_and_scaled_targets(loss):
    prediction, target = torch.tensor([[300.0, 50.0], [100.0, 20.0]]), torch.tensor([[100.0, 40.0], [150.0, 20.0]])
    output = Regressed(prediction, prediction, prediction)
    found = RegressionObjective(loss, target_scale=SCALES)(output, {"target": target})["loss"]
    errors = torch.tensor([2.0, 1.0, -0.5, 0.0])
    assert float(found) == pytest.approx(float(loss.per_sample(errors).mean()))


def test_neighbours_are_those_of_scaled_targets_by_their_distance(tmp_path):
    """(100, 100) and (200, 200) would be the same by their cosine, and by unscaled distance the price alone counts."""
    features = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.tensor([[100.0, 90.0], [200.0, 20.0], [320.0, 60.0], [410.0, 5.0], [530.0, 44.0], [777.0, 10.0]])
    term = RankSimilarity(interpolation=2.0)
    objective = RegressionObjective(L1(), regularizer=term, target_scale=SCALES)
    objective.prepare(table(tmp_path))
    batch = {"target": target}
    found = objective(Regressed(target * 1.0, features, features), batch)["regularizer"]
    expected = RankSimilarity(2.0, label_similarity="distance")(features, target / torch.tensor(SCALES))
    unscaled = RankSimilarity(2.0, label_similarity="distance")(features, target)
    by_cosine = RankSimilarity(2.0)(features, target / torch.tensor(SCALES))
    assert found == expected.detach()
    assert expected != unscaled
    assert expected != by_cosine
    chosen = RegressionObjective(L1(), regularizer=RankSimilarity(2.0, label_similarity="cosine"))
    chosen.prepare(table(tmp_path))
    assert chosen.regularizer.label_similarity == "cosine"  # what was asked for stays


def test_one_target_is_compared_as_ever():
    objective = RegressionObjective(L1(), regularizer=RankSimilarity(2.0))
    objective.prepare(SimpleNamespace(density=Density([0.0, 1.0], Bins([0, 1, 2]))))
    assert objective.regularizer.label_similarity is None


def test_targets_divided_for_the_regulariser_keep_their_copy_on_the_host():
    seen = []

    class Seeing(torch.nn.Module):
        def forward(self, features, targets):
            seen.append(targets)
            return features.sum() * 0

    objective = RegressionObjective(L1(), regularizer=Seeing(), target_scale=SCALES)
    target, output = torch.tensor([[100.0, 40.0]]), torch.ones(1, 2, requires_grad=True)
    target.on_host = to_device(target.clone(), torch.device("cpu"))
    objective(Regressed(output, output, output), {"target": target})
    assert seen[0].tolist() == seen[0].on_host.tolist() == [[1.0, 4.0]]


def test_metrics_are_those_of_each_target_and_of_all_in_their_scale():
    prediction, target = torch.tensor([[300.0, 50.0], [100.0, 20.0]]), torch.tensor([[100.0, 40.0], [150.0, 21.0]])
    found = metrics_of_several(prediction, target, ["price", "km/h"], SCALES)
    assert found["mae"] == pytest.approx((2.0 + 1.0 + 0.5 + 0.1) / 4)
    assert found["mse"] == pytest.approx((4.0 + 1.0 + 0.25 + 0.01) / 4)
    assert (found["mae_of_price"], found["mae_of_km_h"]) == (125.0, 5.5)
    assert found["gmean_of_price"] == pytest.approx(math.sqrt(200 * 50))
    assert (found["pearson_of_price"], found["pearson_of_km_h"], found["pearson"]) == pytest.approx((-1, 1, 0))
    own = {f"{name}_of_price": value for name, value in regression_metrics(prediction[:, 0], target[:, 0]).items()}
    assert own.items() <= found.items()
    assert {f"{name.partition('_of_')[0]}_of_*" for name in found if "_of_" in name} <= set(RegressionMetrics().names())


def script(name, *words):
    module = loaded(name)
    module.main(list(map(str, words)))


def test_a_run_measures_and_predicts_each_target_in_its_unit(runs_of, tmp_path, capsys, monkeypatch):
    run = runs_of(*RUN)
    its, model = restored(run, "best_on_validation"), load(run, device="cpu")
    own = predict(its.model, its.data.evaluation["test"])
    assert own.predictions.shape == own.targets.shape == (9, 2)
    assert (model.facts["target"], model.facts["target_scale"]) == (NAMES, [100, 10])
    measured = model.facts["metrics"]
    assert measured["test/mae_of_rent"] == pytest.approx(float((own.predictions - own.targets)[:, 1].abs().mean()))
    assert model.facts["measures"]["mae_of_rent"] == {"kind": "error", "higher_is_better": False}
    script("predict", run, its.data.root / "table.csv", "--out", tmp_path / "out.csv", "--device", "cpu")
    assert "90 predictions (price, rent)" in capsys.readouterr().out
    header, *lines = (line.split(",") for line in (tmp_path / "out.csv").read_text().splitlines())
    assert header[-4:] == ["price", "rent", "prediction_price", "prediction_rent"]
    rows = [int(name.split()[1]) - 1 for name in its.data.parts["test"].names]
    found = torch.tensor([[float(text) for text in lines[row][-2:]] for row in rows])
    torch.testing.assert_close(found, own.predictions)
    with pytest.raises(SystemExit, match="has a column 'prediction_price' already"):
        script("predict", run, tmp_path / "out.csv", "--out", tmp_path / "b.csv", "--device", "cpu")
    seen = {}
    monkeypatch.setattr(pictures, "predicted_against_true", lambda path, results, **axes: seen.update(results))
    drawn = pictures.RegressionPictures()(its.model, its.data.evaluation["test"], tmp_path, "test")
    assert list(drawn) == ["predicted_against_true"]
    assert list(seen) == ["price / 100", "rent / 10"]
    torch.testing.assert_close(
        torch.stack(seen["rent / 10"]), torch.stack([own.predictions, own.targets])[:, :, 1] / 10
    )
    with pytest.raises(SystemExit, match="these figures are of one target, and the runs predict price, rent"):
        script("figures", "errors", "--run", run, "--out", tmp_path)


def test_a_run_is_measured_on_as_many_targets_in_its_own_scale(runs_of, tmp_path):
    run = runs_of(*RUN)
    model = load(run, device="cpu")
    _, report = evaluate(run, model, ["data.target_scale=[1,1]"], tmp_path / "again")
    metrics = report["results"]["last"]["metrics"]
    assert metrics["test/mae"] == pytest.approx(model.facts["metrics"]["test/mae"])
    with pytest.raises(ValueError, match=r"the model predicts 2 numbers .* has 1 \(price\); name as many columns"):
        evaluate(run, model, ["data.target=price", "data.target_scale=1"], tmp_path / "one")
    with pytest.raises(ValueError, match=r"predicts price, rent, .* 'rent' at another place \(rent, price\)"):
        evaluate(run, model, ["data.target=[rent,price]"], tmp_path / "swapped")

"""Which way a metric is better and how it is shown: declared by the metrics, never told from a name."""

import math
import re
from pathlib import Path
from typing import ClassVar

import pytest
from hydra.utils import get_class

from harness.record import measures
from harness.record.composition import CONFIGS, composed
from harness.record.measures import Measure
from rambo.detection.metrics import DetectionMetrics
from rambo.evaluation import RetrievalMetrics
from ranksim.evaluation import RegressionMetrics

EXPERIMENTS = sorted(path.stem for path in (Path(CONFIGS) / "experiment").glob("*.yaml"))
SHARE, ERROR = Measure("share", True), Measure("error", False)


class Likelihood:
    measures: ClassVar = {"nll*": {"kind": "plain", "higher_is_better": False}}


@pytest.mark.parametrize(
    ("value", "than", "higher", "lower"),
    [
        (2.0, 1.0, True, False),
        (1.0, 2.0, False, True),
        (1.0, 1.0, False, False),
        (math.nan, 1.0, False, False),
        (1.0, math.nan, True, True),
        (1.0, None, True, True),
        (None, 1.0, False, False),
        (math.nan, math.nan, False, False),
        (math.inf, 1.0, False, False),
        (1.0, -math.inf, True, True),
    ],
)
def test_any_number_beats_what_is_none(value, than, higher, lower):
    assert measures.is_better(value, than, higher_is_better=True) is higher
    assert measures.is_better(value, than, higher_is_better=False) is lower


@pytest.mark.parametrize(
    ("metrics", "of", "name"),
    [
        (RetrievalMetrics(), {}, "queries_without_match"),
        (RetrievalMetrics(map=True), SHARE, None),
        (DetectionMetrics(draws=1), SHARE, None),
        (RegressionMetrics(), ERROR, "mae"),
        (RegressionMetrics(), ERROR, "balanced_mae_zero_extrapolation"),
        (RegressionMetrics(), SHARE, "spearman_few"),
    ],
)
def test_our_metrics_declare_everything_that_they_give(metrics, of, name):
    assert all(measures.declared(metrics, given) is not None for given in metrics.names())
    names = [name] if name else [given for given in metrics.names() if given != "queries_without_match"]
    assert {measures.declared(metrics, given) for given in names} == {of or Measure("count")}


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_goes_by_a_declared_direction(experiment):
    config = composed([f"experiment={experiment}"])
    found = measures.declared(get_class(config["metrics"]["_target_"]), config["trainer"]["monitor"])
    assert found.higher_is_better is config["trainer"]["higher_is_better"]


def test_a_direction_against_the_declared_one_is_refused_with_the_way_out():
    assert measures.direction(Likelihood(), "nll", False) is None
    sentence = "trainer.higher_is_better=true, but nll is better when lower: trainer.higher_is_better=false"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        measures.direction(Likelihood(), "nll", True)
    assert "do not declare which way accuracy is better" in measures.direction(Likelihood(), "accuracy", True)


@pytest.mark.parametrize(
    "wrong", [{"kind": "percent"}, {"kind": "share", "higher_is_better": "yes"}, {"unit": "%"}, "share"]
)
def test_a_measure_of_an_unknown_kind_is_refused(wrong):
    with pytest.raises(ValueError, match=r"measures of nll"):
        measures.declared(type("Own", (), {"measures": {"nll": wrong}}), "nll")


def report(target=None, **more):
    config = {"metrics": {"_target_": target} if target else {}, "trainer": {"monitor": "nll"}}
    return {"config": config, **more}


def test_a_report_says_how_its_numbers_are_read():
    results = {"last": {"metrics": {"test/nll": 1.0, "test/nll_few": 2.0, "test/other": 3.0}}}
    written = measures.record(Likelihood(), results)
    lower = {"kind": "plain", "higher_is_better": False}
    assert written == {"nll": lower, "nll_few": lower}
    assert measures.of([report(measures=written)], "test/nll_few") == Measure("plain", False)
    assert measures.of([report(measures=written)], "test/other") == Measure()


def test_an_old_report_is_read_by_our_own_metrics_and_by_nobody_elses():
    old = report("ranksim.evaluation.RegressionMetrics")
    assert measures.of([old], "test/mae_few") == ERROR
    assert measures.of([old], "test/pearson") == SHARE
    assert measures.of([report("somebody.Own")], "test/mae") == Measure()
    assert measures.of([report("ranksim.evaluation.Gone")], "test/mae") == Measure()
    assert measures.of([report("somebody.Own"), old], "test/mae") == ERROR


def test_the_direction_of_an_undeclared_metric_is_known_if_it_chose_the_epochs():
    old = report("somebody.Own")
    old["config"]["trainer"]["higher_is_better"] = False
    assert measures.of([old], "test/nll") == Measure("plain", False)
    assert measures.of([old], "test/accuracy") == Measure()


@pytest.mark.parametrize(
    ("kind", "values", "decimals"),
    [
        ("share", [64.0], 1),
        ("error", [7.1, 7.3], 2),
        ("error", [0.891], 3),
        ("plain", [-120.5], 2),
        ("plain", [0.000123], 6),
        ("plain", [0.0], 3),
        ("count", [3.0, 3.0], 0),
        ("count", [3.0, 5.0], 1),
    ],
)
def test_decimals(kind, values, decimals):
    assert Measure(kind).decimals(values) == decimals

"""Which epoch is best, also where the monitored metric is now and then no number."""

import math
from typing import ClassVar

import pytest
from toy import fit

from harness import checkpoint
from harness.record import runs
from harness.train.evaluation import Evaluation
from harness.train.stopping import EarlyStopping

NAN = math.nan


class InTurn:
    """A metric that takes these values, on every split alike, evaluation by evaluation."""

    def __init__(self, values, splits=2):
        self.values = [value for value in values for _ in range(splits)]

    def __call__(self, model, loader):
        return {"closeness": self.values.pop(0)}


@pytest.mark.parametrize(
    ("higher", "values", "best"),
    [
        (True, [NAN, 0.1, 0.3, 0.2], 3),
        (False, [NAN, 0.3, 0.1, 0.2], 3),
        (True, [0.2, NAN, 0.1, NAN], 1),
        (False, [NAN, NAN, NAN, 0.5], 4),
        (True, [-math.inf, NAN, 0.1, math.inf], 3),
        (True, [NAN, NAN, NAN, NAN], 1),
    ],
)
def test_a_nan_beats_no_number_and_any_number_beats_nan(tmp_path, higher, values, best):
    results, _ = fit(tmp_path, 4, metrics=InTurn(values), evaluate_first=False, higher_is_better=higher)
    for split in ("validation", "test"):
        assert results[f"best_on_{split}"]["epoch"] == best
        assert checkpoint.load(tmp_path / "checkpoints" / f"best_on_{split}.pt")["epoch"] == best


def test_early_stopping_by_a_metric_that_begins_with_nan_does_stop(tmp_path):
    values = [NAN, 0.5, 0.4, 0.3, 0.2, 0.1]
    results, _ = fit(tmp_path, 6, metrics=InTurn(values), evaluate_first=False, stopping=EarlyStopping(2))
    assert results["last"]["epoch"] == 4
    assert results["best_on_validation"]["epoch"] == 2


def test_a_metric_that_never_was_a_number_is_said_and_no_epoch_is_called_best(tmp_path, caplog):
    caplog.set_level("INFO")
    results, _ = fit(tmp_path, 2, metrics=InTurn([NAN, NAN]), evaluate_first=False)
    assert "test/closeness was not a number in any evaluation: best_on_test is the first epoch" in caplog.text
    assert "(best)" not in caplog.text
    runs.finish(tmp_path, {"results": results})
    assert runs.read_json(tmp_path / "report.json")["results"]["best_on_test"]["metrics"]["test/closeness"] is None


def test_a_number_in_between_is_enough_to_keep_quiet(tmp_path, caplog):
    fit(tmp_path, 2, metrics=InTurn([NAN, 0.5]), evaluate_first=False)
    assert "was not a number" not in caplog.text


class Declared(InTurn):
    measures: ClassVar = {"closeness": {"kind": "error", "higher_is_better": False}}


def test_the_declared_direction_is_kept_to(tmp_path, caplog):
    with pytest.raises(ValueError, match=r"closeness is better when lower: trainer.higher_is_better=false"):
        Evaluation(Declared([]), {}, "closeness", higher_is_better=True)
    assert Evaluation(Declared([]), {}, "closeness", higher_is_better=False).undeclared is None
    fit(tmp_path, 1, metrics=InTurn([0.5]), evaluate_first=False)
    assert caplog.text.count("do not declare which way closeness is better; trainer.higher_is_better says: higher") == 1

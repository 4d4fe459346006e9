import math
import re

import pytest
from omegaconf import OmegaConf

from harness.train import objective, stopping

RECALL = {"monitor": "recall@1", "higher_is_better": True}
ERROR = {"monitor": "mae", "higher_is_better": False}
GRID: dict[str, str] = {}  # a grid has no direction


def optuna(direction):
    return {"direction": direction}


@pytest.mark.parametrize(
    ("name", "trainer", "sweeper"),
    [
        (None, RECALL, GRID),
        ("validation/mae", ERROR | {"splits": ["validation"]}, optuna("minimize")),
        ("validation/recall@1", RECALL, GRID),
        ("validation/recall@1", RECALL, optuna("maximize")),
        ("validation/mae", ERROR, optuna("minimize")),
    ],
)
def test_a_search_may_go_by_the_validation_metric_that_selects_the_epoch(name, trainer, sweeper):
    objective.check(name, trainer, sweeper)


@pytest.mark.parametrize(
    ("name", "trainer", "sweeper", "sentence"),
    [
        (None, RECALL, optuna("maximize"), "needs to know what to go by: objective=validation/recall@1"),
        ("test/recall@1", RECALL, GRID, "flatter what is then reported on it; use objective=validation/recall@1"),
        ("test/mae", ERROR, optuna("minimize"), "use objective=validation/mae"),
        ("validation/recall@2", RECALL, GRID, "the metric that selects the epoch, validation/recall@1"),
        ("validation/mae", ERROR | {"splits": ["test"]}, GRID, "add it to trainer.splits=['test']"),
        ("recall@1", RECALL, GRID, "the metric that selects the epoch, validation/recall@1"),
        ("validation/recall@1", RECALL, optuna("minimize"), "better when higher: hydra.sweeper.direction=maximize"),
        ("validation/mae", ERROR, optuna("maximize"), "better when lower: hydra.sweeper.direction=minimize"),
        ("validation/mae", ERROR, optuna(["minimize", "maximize"]), "hydra.sweeper.direction=minimize"),
    ],
)
def test_anything_else_is_refused_with_the_way_out(name, trainer, sweeper, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        objective.check(name, trainer, sweeper)


@pytest.mark.parametrize(
    ("data", "way"),
    [
        ({"validation_fraction": 0.0}, "data.validation_fraction=0.2"),
        ({"validation": []}, "data.validation that data.train does not have"),
        ({}, "use data that have one"),
    ],
)
def test_data_without_a_validation_split_are_refused(data, way):
    with pytest.raises(ValueError, match=f"these data have no validation split; .*{way}"):
        objective.check_split("validation/mae", ["test"], data)
    objective.check_split("validation/mae", ["validation", "test"], data)
    objective.check_split(None, ["test"], data)


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        ({"validation_fraction": 0.0}, True),
        ({"validation_fraction": 0.2}, False),
        ({"validation_fraction": 0.0, "validation_classes": ["wren"]}, False),
        ({"validation": []}, True),
        ({"validation": ["val"]}, False),
        ({"root": "data"}, False),  # only the data themselves can tell
    ],
)
def test_a_search_without_a_split_ends_before_its_first_job(data, refused):
    config = OmegaConf.create(
        {"objective": "validation/mae", "trainer": ERROR, "data": data, "hydra": {"sweeper": optuna("minimize")}}
    )
    if refused:
        with pytest.raises(SystemExit, match="error: objective=validation/mae: these data have no validation split"):
            objective.BeforeSweep().on_multirun_start(config)
    else:
        objective.BeforeSweep().on_multirun_start(config)


def test_the_objective_is_that_of_the_epoch_that_validation_selects():
    def at(epoch, validation, test):
        return {"epoch": epoch, "metrics": {"validation/recall@1": validation, "test/recall@1": test}}

    results = {"last": at(3, 0.4, 0.9), "best_on_test": at(3, 0.4, 0.9), "best_on_validation": at(2, 0.5, 0.7)}
    assert objective.value({"results": results}, "validation/recall@1", True) == 0.5
    assert objective.value({"results": results}, None, True) is None


@pytest.mark.parametrize("nothing", [math.nan, None, math.inf])
def test_a_run_without_a_number_counts_as_the_worst(nothing, caplog):
    results = {"best_on_validation": {"epoch": 1, "metrics": {"validation/mae": nothing}}}
    assert objective.value({"results": results}, "validation/mae", False) == math.inf
    assert objective.value({"results": results}, "validation/mae", True) == -math.inf
    assert "validation/mae was not a number in any evaluation" in caplog.text


def test_a_training_that_came_to_nothing_is_worse_than_any():
    assert stopping.worst(higher_is_better=True) == -math.inf
    assert stopping.worst(higher_is_better=False) == math.inf

import copy
import math
from pathlib import Path

import pytest

from harness.record.repeat import Recorded, compared

CONFIG = {
    "seed": 0,
    "data": {"seed": 0, "root": "data/cub"},
    "loss": {"margin": 0.1, "memory": None},
    "trainer": {"monitor": "recall@1"},
    "workers": 4,
}
REPORT = {
    "device": "cpu",
    "code": {"revision": "a" * 40, "dirty": False},
    "python": "3.11.7",
    "packages": {"torch": "2.14.1"},
    "hardware": {"processor": "X", "threads": 2, "gpus": []},
    "data": {"fingerprint": "f" * 64, "train": {"images": 3}},
    "loss": {"ties": "first"},
    "results": {
        "last": {"epoch": 2, "metrics": {"test/map": 0.25, "test/recall@1": 0.5, "test/few": math.nan}},
        "seconds": 1.0,
    },
}


def run(**changes):
    """The run above with values changed: config__loss__margin=0.2."""
    record = {"config": copy.deepcopy(CONFIG), **copy.deepcopy(REPORT)}
    for place, value in changes.items():
        *parents, key = place.split("__")
        node = record
        for parent in parents:
            node = node[parent]
        if value is None:
            del node[key]
        else:
            node[key] = value
    return Recorded(Path("run"), record.pop("config"), record, "results" in record)


def test_a_run_is_a_repeat_of_itself():
    found = compared(run(), run())
    assert found.differing == {}
    assert found.same == {
        "config": 4, "code": 2, "data": 2, "versions": 2, "hardware": 4, "loss as built": 1, "results": 4,
    }  # fmt: skip
    assert found.verdict() == "A repeat: every result is equal."


@pytest.mark.parametrize(
    ("changes", "section", "expected"),
    [
        ({"config__loss__margin": 0.2}, "config", {"loss.margin": (0.1, 0.2)}),
        ({"config__loss__new": 7}, "config", {"loss.new": (None, 7)}),
        ({"config__seed": None}, "config", {"seed": (0, None)}),
        ({"code__revision": "b" * 40}, "code", {"revision": ("a" * 40, "b" * 40)}),
        ({"data__fingerprint": "e" * 64}, "data", {"fingerprint": ("f" * 64, "e" * 64)}),
        ({"packages__torch": "2.15"}, "versions", {"torch": ("2.14.1", "2.15")}),
        ({"python": "3.12.1"}, "versions", {"python": ("3.11.7", "3.12.1")}),
        ({"device": "cuda"}, "hardware", {"device": ("cpu", "cuda")}),
        ({"hardware__threads": 1}, "hardware", {"threads": (2, 1)}),
        ({"loss__ties": "mean"}, "loss as built", {"ties": ("first", "mean")}),
        ({"results__last__metrics__test/recall@1": 0.5625}, "results", {"last/test/recall@1": (0.5, 0.5625)}),
        ({"results__last__epoch": 1}, "results", {"last/epoch": (2, 1)}),
    ],
)
def test_the_one_value_that_differs_is_found_and_the_rest_is_named_as_equal(changes, section, expected):
    found = compared(run(), run(**changes))
    assert found.differing == {section: expected}
    assert section not in found.same
    assert len(found.same) == 6


def test_the_metric_that_selects_comes_first():
    other = run(**{"results__last__metrics__test/map": 0.3, "results__last__metrics__test/recall@1": 0.6})
    assert list(compared(run(), other).differing["results"]) == ["last/test/recall@1", "last/test/map"]


def test_what_shapes_no_number_is_only_named_and_null_counts_as_absent():
    found = compared(run(), run(config__workers=0, config__data__root="elsewhere", config__loss__memory=None))
    assert found.differing == {}
    assert found.changes_nothing == ["data.root", "workers"]
    assert found.verdict() == "A repeat: every result is equal."


WORSE = {"results__last__metrics__test/map": 0.3}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (WORSE, "The results differ although all that they are made from is equal: this run does not repeat here."),
        (
            {"config__threads": 2, "config__workers": 3, **WORSE},
            "The results differ, as do settings that may move the last digits: threads.",
        ),
        ({"config__seed": 1, "config__data__seed": 1, **WORSE}, "One method with two seeds."),
        ({"config__loss__margin": 0.2, **WORSE}, "The results differ; what they are made from differs in config."),
        (
            {"config__loss__margin": 0.2, "python": "3.12", "device": "cuda", **WORSE},
            "The results differ; what they are made from differs in config, versions and hardware.",
        ),
        ({"device": "cuda"}, "Every result is equal; what they are made from differs in hardware."),
        (
            {"code": {}, **WORSE},
            "The results differ; what they are made from is equal, and code of one is not on record.",
        ),
        ({"results": None}, "There are no results of both to compare; what they are made from is equal."),
    ],
)
def test_the_verdict(changes, verdict):
    assert compared(run(), run(**changes)).verdict() == verdict
    assert compared(run(**changes), run()).verdict() == verdict


def test_uncommitted_changes_of_which_nothing_is_known_are_not_called_equal():
    dirty = {"code": {"revision": "a" * 40, "dirty": True}}
    assert compared(run(**dirty), run(**dirty)).unknown == ["code"]
    known = {"code": {"revision": "a" * 40, "dirty": True, "changes": "c" * 64}}
    assert compared(run(**known), run(**known)).same["code"] == 3


def test_losses_without_settings_are_passed_over():
    found = compared(run(loss={}), run(loss={}))
    assert "loss as built" not in [*found.same, *found.differing, *found.unknown]

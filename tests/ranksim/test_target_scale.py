"""Targets that are far from 1 once divided by their scale: said before training, with a scale that would do."""

import logging

import pytest
import torch

from ranksim.datasets.samples import warn_of_scale
from ranksim.datasets.table import TableData
from ranksim.datasets.transforms import Resize

SPREAD = torch.linspace(0.2, 2.0, 101)  # its median is 1.1, its 90th percentile 1.82


@pytest.mark.parametrize(
    ("unit", "scale", "advice"),
    [
        (300_000.0, 1.0, "1000000"),
        (300_000.0, 300.0, "1000000"),
        (-50.0, 1.0, "100"),
        (1e-3, 1.0, "1e-2"),
        (1e-5, 1.0, "1e-4"),
        (300_000.0, 100_000.0, None),
        (1.0, 1.0, None),
        (9.0, 1.0, None),  # just below ten times the scale
        (0.006, 1.0, None),
    ],
)
def test_the_bounds_and_the_advice(unit, scale, advice, caplog):
    warn_of_scale(SPREAD * unit, scale, ["price"])
    if advice is None:
        assert caplog.text == ""
        return
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"price is {1.1 * abs(unit):g} in the median, where data.target_scale is {scale:g}, and a")
    assert said.endswith(f"set data.target_scale={advice}")
    caplog.clear()
    warn_of_scale(SPREAD * unit, float(advice), ["price"])
    assert caplog.text == ""  # the advice does


def test_of_several_targets_those_that_are_well_scaled_keep_their_scale(caplog):
    targets = torch.stack([SPREAD * 1e5, SPREAD * 20, SPREAD], dim=1)
    warn_of_scale(targets, [1.0, 10.0, 1.0], ["price", "rooms", "score"])
    assert "price is 110000" in caplog.text
    assert "rooms" not in caplog.text
    assert "set data.target_scale=[1000000,10,1]" in caplog.text
    caplog.clear()
    warn_of_scale(targets, 1.0, ["price", "rooms", "score"])
    assert "set data.target_scale=[1000000,100,1]" in caplog.text


def test_targets_that_are_all_zero_are_nobodys_fault(caplog):
    warn_of_scale(torch.zeros(5), 1.0, ["price"])
    assert caplog.text == ""


def test_a_table_says_it_when_it_is_opened_and_stand_in_data_do_not(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    rows = [f"{number},{100_000 + 3_000 * number}" for number in range(80)]
    (tmp_path / "table.csv").write_text("\n".join(["area,price", *rows]))
    options = {"target": "price", "split": "random", "bins": 10}
    options |= {"train_transform": Resize(8), "test_transform": Resize(8)}
    TableData(tmp_path, **options)
    assert "set data.target_scale=1000000" in caplog.text
    caplog.clear()
    TableData(tmp_path, **options, target_scale=1e5)
    TableData(tmp_path / "none", **options, fixture=True)
    assert "target_scale" not in caplog.text

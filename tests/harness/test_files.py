"""What we write is JSON; what older code wrote beside it stays readable."""

import json
import math

import pytest

from harness import files


def strictly(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_not_finite_is_null_wherever_it_stands(tmp_path):
    value = {"a": math.nan, "b": [1.0, -math.inf, {"c": (math.inf, "nan")}], "d": 2}
    files.write_json(tmp_path / "a.json", value)
    expected = {"a": None, "b": [1.0, None, {"c": [None, "nan"]}], "d": 2}
    assert strictly((tmp_path / "a.json").read_text()) == expected
    assert files.read_json(tmp_path / "a.json") == expected


def test_files_of_before_are_read_as_if_they_said_null(tmp_path):
    (tmp_path / "old.json").write_text('{"a": NaN, "b": [Infinity, -Infinity, 1.5]}')
    assert files.read_json(tmp_path / "old.json") == {"a": None, "b": [None, None, 1.5]}


@pytest.mark.parametrize("text", ["", '{"a": ', "nan"])
def test_what_is_cut_off_is_none(text):
    with pytest.raises(json.JSONDecodeError):
        files.from_json(text)

import pytest

from engine import runs

CONFIG = {"seed": 0, "trainer": {"epochs": 2}, "loss": {"margin": 0.1}, "workers": 4, "resume": None}


def test_a_run_may_go_on_with_other_workers_and_more_epochs(tmp_path):
    runs.begin(tmp_path, CONFIG)
    runs.check_same(tmp_path, CONFIG | {"workers": 0, "trainer": {"epochs": 5}, "resume": str(tmp_path)})


def test_a_run_may_not_go_on_with_another_loss(tmp_path):
    runs.begin(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=r"another config: loss.margin was 0.1, is 0.2"):
        runs.check_same(tmp_path, CONFIG | {"loss": {"margin": 0.2}})


def test_resuming_nothing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run there \(config.yaml is missing\)"):
        runs.check_same(tmp_path, CONFIG)


def test_a_finished_run_does_not_go_on(tmp_path):
    runs.begin(tmp_path, CONFIG)
    runs.finish(tmp_path, {"results": {}})
    with pytest.raises(FileExistsError, match="that run is finished"):
        runs.check_same(tmp_path, CONFIG)


def test_a_truncated_report_is_refused_by_name(tmp_path):
    runs.write_json(tmp_path / "report.json", {"a": [1, 2]})
    assert runs.read_json(tmp_path / "report.json") == {"a": [1, 2]}
    (tmp_path / "report.json").write_text('{"a": [1')
    with pytest.raises(ValueError, match=r"report.json is truncated or not JSON"):
        runs.read_json(tmp_path / "report.json")

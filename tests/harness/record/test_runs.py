import hashlib
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from harness.record import runs
from harness.record.config import fingerprint, is_under

CONFIGS = Path(__file__).parents[3] / "configs"

CONFIG = {"seed": 0, "trainer": {"epochs": 2}, "loss": {"margin": 0.1}, "workers": 4, "resume": None}
REPORT = {"config": {}, "data": {}, "results": {}}


def test_a_run_may_go_on_with_other_workers_and_more_epochs(tmp_path):
    runs.begin(tmp_path, CONFIG)
    runs.check_config(tmp_path, CONFIG | {"workers": 0, "trainer": {"epochs": 5}, "resume": str(tmp_path)})


def demo(*overrides):
    """What train.py makes of the command line."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return OmegaConf.to_container(compose("train", ["experiment=demo_rambo", *overrides]), resolve=True)


@pytest.mark.parametrize(
    "override",
    [
        "workers=3",
        "trainer.profile=true",
        "data.pin_memory=true",
        "+data.cache=elsewhere",
        "+data.root=elsewhere",
        "paths.data=elsewhere",
        "tracking.wandb=disabled",
        "trainer.log_every=1",
        "pictures=detection",
        "resume=folder",
    ],
)
def test_what_changes_no_number_may_change(tmp_path, override):
    runs.begin(tmp_path, demo())
    assert demo(override) != demo()
    runs.check_config(tmp_path, demo(override))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("seed=1", "data.seed was 0, is 1; seed was 0, is 1; trainer.seed was 0, is 1$"),
        ("threads=2", "threads was absent, is 2$"),  # sums may differ in the last bit
        ("trainer.device=cpu", "trainer.device was auto, is cpu$"),
        ("+data.cached=1", "data.cached was absent, is 1$"),  # begins like data.cache, and is another thing
        ("loss.margin=0.3", "loss.margin was 0.02, is 0.3$"),
    ],
)
def test_what_changes_numbers_may_not(tmp_path, override, named):
    runs.begin(tmp_path, demo())
    with pytest.raises(ValueError, match=f"was run with another config: {named}"):
        runs.check_config(tmp_path, demo(override))


def test_more_epochs_are_refused_with_the_reason_where_the_schedule_follows_them(tmp_path):
    runs.begin(tmp_path, demo())
    with pytest.raises(
        ValueError,
        match=r"scheduler.T_max was 8, is 10; scheduler.T_max follows trainer.epochs here: keep trainer.epochs=8 or",
    ):
        runs.check_config(tmp_path, demo("trainer.epochs=10"))
    runs.check_config(tmp_path, demo("trainer.epochs=10", "scheduler.T_max=8"))
    runs.begin(tmp_path, demo("scheduler=one_cycle"))
    with pytest.raises(
        ValueError, match=r"scheduler.epochs was 8, is 10; scheduler.epochs follows trainer.epochs here"
    ):
        runs.check_config(tmp_path, demo("scheduler=one_cycle", "trainer.epochs=10"))
    runs.begin(tmp_path, demo("scheduler=constant"))
    runs.check_config(tmp_path, demo("scheduler=constant", "trainer.epochs=10"))


@pytest.mark.parametrize(
    ("key", "under"),
    [("data.cache", True), ("data.cache.folder", True), ("data.cached", False), ("data", False), ("cache", False)],
)
def test_a_key_is_under_itself_and_what_it_begins_with_up_to_a_dot(key, under):
    assert is_under(key, ("paths", "data.cache")) is under


def test_a_run_may_not_go_on_with_another_loss(tmp_path):
    runs.begin(tmp_path, CONFIG)
    with pytest.raises(ValueError, match=r"another config: loss.margin was 0.1, is 0.2"):
        runs.check_config(tmp_path, CONFIG | {"loss": {"margin": 0.2}})


def test_a_run_keeps_what_it_began_with(tmp_path):
    record = {"seed": 0, "code": {"revision": "a"}, "python": "3.11.7", "device": "cpu"}
    runs.begin(tmp_path / "clean", CONFIG)
    assert [path.name for path in (tmp_path / "clean").iterdir()] == ["config.yaml"]
    assert runs.begun_otherwise(tmp_path / "clean", record) == {}
    runs.begin(tmp_path / "dirty", CONFIG, record, b"patch")
    assert runs.read_json(tmp_path / "dirty" / runs.BEGAN) == record
    assert (tmp_path / "dirty" / runs.PATCH).read_bytes() == b"patch"
    runs.begin(tmp_path / "large", CONFIG, record, b"x" * (runs.LARGEST_PATCH + 1))
    assert not (tmp_path / "large" / runs.PATCH).exists()
    assert runs.begun_otherwise(tmp_path / "dirty", record | {"seed": 1}) == {}
    changed = record | {"code": {"revision": "b"}, "device": "cuda"}
    assert runs.begun_otherwise(tmp_path / "dirty", changed) == {"began": {"code": {"revision": "a"}, "device": "cpu"}}


def test_a_damaged_config_is_refused_and_one_of_before_is_read(tmp_path):
    config = {"seed": 1, "trainer": {"epochs": 12}}
    runs.begin(tmp_path, config)
    whole = (tmp_path / "config.yaml").read_text()
    assert runs.read_config(tmp_path) == config
    for damaged in (whole.replace("seed: 1", "seed: 3"), whole.replace("  epochs: 12\n", ""), whole[:-2], whole[:-1]):
        (tmp_path / "config.yaml").write_text(damaged)
        with pytest.raises(ValueError, match=r"config.yaml cannot be read \(it is not what was written there; if you"):
            runs.read_config(tmp_path)
    (tmp_path / "config.yaml").write_text(whole.partition("\n")[2])  # as earlier versions did
    assert runs.read_config(tmp_path) == config


def test_a_record_of_numbers_that_is_not_the_one_of_the_report_is_refused(tmp_path):
    (tmp_path / runs.METRICS).write_text('{"step": 1}\n')
    known = hashlib.sha256((tmp_path / runs.METRICS).read_bytes()).hexdigest()
    assert runs.read_metrics(tmp_path) == b'{"step": 1}\n'  # nothing is known of it yet
    runs.finish(tmp_path, {"results": {}, "sums": {runs.METRICS: known}})
    assert runs.read_metrics(tmp_path) == b'{"step": 1}\n'
    (tmp_path / runs.METRICS).write_text('{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl is damaged: it is not what the run wrote"):
        runs.read_metrics(tmp_path)
    runs.finish(tmp_path, {"results": {}})  # of an earlier version
    assert runs.read_metrics(tmp_path) == b'{"step": 2}\n'


def test_a_truncated_report_is_refused_by_name(tmp_path):
    runs.write_json(tmp_path / "report.json", {"a": [1, 2]})
    assert runs.read_json(tmp_path / "report.json") == {"a": [1, 2]}
    (tmp_path / "report.json").write_text('{"a": [1')
    with pytest.raises(ValueError, match=r"report.json is truncated or not JSON"):
        runs.read_json(tmp_path / "report.json")


def test_a_run_is_known_by_what_shapes_its_numbers():
    known = fingerprint(demo())
    assert known == fingerprint(demo("workers=3", "threads=1", "+data.root=elsewhere", "trainer.device=cpu"))
    assert known == fingerprint(demo("+new_option=null"))  # a new option leaves finished runs what they were
    assert known == fingerprint(demo("+data.decode=exact"))  # nor does one that came with the value it had
    assert known == fingerprint(demo("+data.split=open"))
    changes = ("seed=1", "loss.margin=0.3", "scale=fixture", "+data.decode=scaled")
    assert len({known, *(fingerprint(demo(change)) for change in changes)}) == 5


def test_a_run_of_the_first_version_goes_on(tmp_path):
    now, first = demo(), demo()
    first["metrics"] = {"_target_": now["metrics"]["_target_"], "recall_at": [1, 2, 4, 8], "map": False}
    later = {"evaluation_precision", "matmul", "chunk", "average", "profile"}
    first["trainer"] = {key: value for key, value in now["trainer"].items() if key not in later}
    runs.begin(tmp_path, first)
    runs.check_config(tmp_path, now)
    with pytest.raises(ValueError, match=r"another config: metrics.engine was absent, is faiss"):
        runs.check_config(tmp_path, demo("metrics.engine=faiss"))


@pytest.mark.parametrize(
    "same",
    [
        ["loss.margin=2e-2", "recall.margin=7"],  # what a recipe would have given, where the loss has its own
        ["++recall.unknown=1", "+published.recall=0.5", "+notes=[as in the paper]"],
        ["optimizer.weight_decay=0.0001", "trainer.epochs=8.0"],
        ["paths.data=elsewhere", "paths.outputs=there"],
        ["reuse=true", "objective=validation/recall@1", "+mine=3"],
    ],
)
def test_what_a_run_is_not_built_from_is_not_asked(same):
    assert fingerprint(demo(*same)) == fingerprint(demo())


def built(value, **more):
    return fingerprint({"seed": 0, "loss": {"value": value}, **more})


def test_a_value_counts_however_it_is_written():
    for one, other in ((0, 0.0), (0.0, -0.0), ([1, {"a": 2.0}], [1.0, {"a": 2, "b": None}]), (1e3, 1000)):
        assert built(one) == built(other)
    values = (0, 1, 0.5, 1e-3, "0", False, True, None, [0], [[0]], "", float("inf"), 10**17 + 1, 1e17)
    assert len({built(value) for value in values}) == len(values)


def test_a_file_below_the_data_is_the_same_wherever_they_lie():
    here, there = (built(f"{at}/glove/a.txt", paths={"data": at}) for at in ("/here", "/there/"[:-1]))
    assert here == there
    assert here != built("/here/glove/b.txt", paths={"data": "/here"})
    assert built("/here/a.txt", paths={"data": "/there"}) != built("/here/b.txt", paths={"data": "/there"})
    assert built("/hereabouts/a", paths={"data": "/here"}) != built("/thereabouts/a", paths={"data": "/there"})
    assert built("/a", paths={"data": "/"}) != built("/b", paths={"data": "/"})


def test_in_two_stages_every_key_counts_as_the_first_may_be_built_from_any():
    one, other = ({"first_stage": {"changes": {"recipe": "b"}}, "recipes": {"b": {"lr": lr}}} for lr in (1, 2))
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint(one | {"workers": 3}) == fingerprint(one | {"paths": {"data": "x"}})


# A refactor that moves one of these has every finished run made again: that is to be said, and to have a reason.
KNOWN = {
    "e1": {"seed": 0, "deterministic": True, "loss": {"_target_": "a.Loss", "margin": 0.02, "rule": None}},
    "e2": {"seed": 1, "trainer": {"epochs": 2.0, "device": "cpu"}, "data": {"root": "x", "sampler": {"size": 8}}},
    "e3": {"seed": 0, "first_stage": {"retrain": ["head"]}, "weighting": {"kind": "inverse"}, "workers": 4},
    "e4": {"seed": 0, "model": {"vectors": "d/glove.txt", "layers": [1, 2.5]}, "paths": {"data": "d"}, "notes": "n"},
}


def test_fingerprints_stay_what_they_are():
    assert {name: fingerprint(config) for name, config in KNOWN.items()} == {
        "e1": "bcdfb23824ce9a1d",
        "e2": "98a6d31f8eab19e8",
        "e3": "51b2bf8064f1a4cc",
        "e4": "8669763b58a39efd",
    }


@pytest.mark.parametrize("content", [b"{", b"\x8d\xe4\xff"])
def test_a_json_file_that_is_none_is_named(tmp_path, content):
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"report\.json is truncated or not JSON"):
        runs.read_json(tmp_path / "report.json")

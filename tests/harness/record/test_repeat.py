import copy
import functools
import hashlib
import shlex

import pytest

from harness.record import composition as experiments
from harness.record import repeat, runs
from harness.record.config import fingerprint, shaping

RECORD = {
    "experiment": "demo_rambo",
    "overrides": ["scale=fixture", "loss.margin=0.3"],
    "seed": 0,
    "device": "cpu",
    "code": {"revision": "a" * 40, "dirty": False},
    "python": "3.11.7",
    "packages": {"torch": "2.14.1", "timm": "1.0.31"},
    "hardware": {"threads": 2},
    "data": {"name": "glyphs", "fingerprint": "0123456789abcdef" * 4},
    "downloads": [],
}


@functools.cache
def made(overrides):
    return experiments.composed(overrides)


def composed(overrides):
    """Of its own for every caller, but made once."""
    return copy.deepcopy(made(tuple(overrides)))


def recorded(folder, finished=True, config=None, patch=b"", **changes):
    """A run folder as train.py leaves it."""
    record = RECORD | changes
    config = composed([f"experiment={record['experiment']}", *record["overrides"]]) if config is None else config
    record = {"command": repeat.command(record, config)} | record
    runs.begin(folder, config, record, patch)
    if finished:
        runs.finish(folder, record | {"config": config, "results": {}})
    return repeat.read(folder)


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("experiment", "overrides"),
    [
        ("demo_rambo", ["scale=fixture", "loss=triplet", "seed=3", "+loss.more=null", "paths.data='/a b/(c)'"]),
        (
            "stsb_small_vanilla",
            ["lds=gaussian", "weighting=sqrt_inverse", "regularizer=ranksim", "threads=1", "seed=2"],
        ),
        (
            "omniglot_rambo",
            ["+sweep=search_rambo", "loss.margin=0.1", "optimizer.lr=0.001", "loss.interpolation=2"],
        ),
        ("cub_rambo", ["+sweep=memory_length", "loss.memory_batches=3"]),
        ("cub_rambo", ["+sweep=[seeds,memory_length]", "loss.memory_batches=3", "loss.memory=rows"]),
        (
            "omniglot_rambo",
            ["+sweep=losses", "loss=recall", "reuse=true", "tracking.wandb=disabled", "model.mean=[0.1]"],
        ),
    ],
)
def test_the_command_makes_the_same_run(tmp_path, experiment, overrides, finished):
    config = composed([f"experiment={experiment}", *overrides])
    run = recorded(tmp_path, finished, config, experiment=experiment, overrides=overrides)
    repeat.check(run)
    python, script, *words = run.report["command"]
    assert (python, script) == ("python", "train.py")
    assert fingerprint(composed(words)) == fingerprint(config) == fingerprint(run.config)
    assert shaping(composed(words)) == shaping(run.config)
    assert f"seed={config['seed']}" in words
    assert ("threads=1" if "threads=1" in overrides else "threads=2") in words
    assert "trainer.device=cpu" in words
    assert not any("sweep" in word or "reuse" in word for word in words)


def test_data_elsewhere_are_found_again(tmp_path):
    elsewhere = composed(["experiment=omniglot_rambo", "paths.data='/large disk/(1)'"])
    run = recorded(tmp_path, config=elsewhere, experiment="omniglot_rambo", overrides=[])
    assert composed(run.report["command"][2:])["data"]["root"] == "/large disk/(1)/omniglot"


def test_an_unfinished_run_tells_so(tmp_path):
    assert recorded(tmp_path, finished=False).name == "demo_rambo, seed 0, unfinished"


def test_the_command_of_a_first_stage_is_that_of_its_run():
    record = RECORD | {"experiment": "demo_rambo_first_stage"}
    assert repeat.command(record, composed(["experiment=demo_rambo"]))[2] == "experiment=demo_rambo"


def test_a_run_of_several_processes_is_repeated_by_as_many(tmp_path):
    """Each on a GPU of its own, and not all on the first; also where one process has begun the run."""
    run = recorded(tmp_path, processes=3, device="cuda:0", finished=False)
    repeat.check(run)
    assert run.report["command"][:4] == ["torchrun", "--standalone", "--nproc-per-node=3", "train.py"]
    words = repeat.arguments(run.report["command"])
    assert fingerprint(composed(words)) == fingerprint(run.config)
    assert "trainer.device=cuda" in words
    runs.go_on(tmp_path, run.config, RECORD | {"command": repeat.command(RECORD, run.config)})
    repeat.check(repeat.read(tmp_path))
    assert runs.begun_otherwise(tmp_path, RECORD | {"processes": 1})["began"]["processes"] == 3


def test_code_comes_back_by_its_revision_and_the_patch_that_was_kept(tmp_path):
    revision = "git checkout " + "a" * 40
    assert repeat.code_steps(recorded(tmp_path / "clean")) == ([revision], "")
    patch = b"diff"
    code = {"revision": "a" * 40, "dirty": True, "changes": hashlib.sha256(patch).hexdigest()}
    kept = recorded(tmp_path / "it's kept", patch=patch, code=code)
    steps, remark = repeat.code_steps(kept)
    assert steps[0] == revision
    assert shlex.split(steps[1]) == ["git", "apply", str(tmp_path / "it's kept" / runs.PATCH)]
    assert remark == ""
    for name, changed in {"lost": b"", "another": b"dif"}.items():
        steps, remark = repeat.code_steps(recorded(tmp_path / name, patch=changed, code=code))
        assert steps == [revision]
        assert remark.startswith("The code had uncommitted changes that were not kept (their sha256 is ")
    assert repeat.code_steps(recorded(tmp_path / "no git", code={})) == (
        [],
        "The revision of the code is not on record.",
    )


def test_versions_are_constraints_of_pip(tmp_path):
    assert repeat.constraints(recorded(tmp_path)) == ["torch==2.14.1", "timm==1.0.31"]


@pytest.mark.parametrize(
    ("overrides", "downloads", "commands", "remark"),
    [
        (["experiment=omniglot_rambo"], ["omniglot"], ["python scripts/download.py omniglot"], "0123456789abcdef."),
        (
            ["experiment=omniglot_rambo", "scale=fixture"],
            ["omniglot"],
            [],
            "stand-in data, which the run writes itself.",
        ),
        (["experiment=demo_rambo"], [], [], "glyphs, fingerprint 0123456789abcdef. Needs no download."),
        (["experiment=folder_rambo", "data.root=/my/images"], [], [], "The run read them from /my/images."),
        (["experiment=demo_rambo"], ["cub; rm -rf ~"], ["python scripts/download.py 'cub; rm -rf ~'"], ""),
    ],
)
def test_data_come_back_by_their_download(tmp_path, overrides, downloads, commands, remark):
    found, said = repeat.data_steps(recorded(tmp_path, config=composed(overrides), downloads=downloads))
    assert found == commands
    assert said.endswith(remark)


# Bad input


def test_a_finished_run_without_its_report_is_said(tmp_path):
    recorded(tmp_path)
    (tmp_path / "report.json").unlink()
    with pytest.raises(ValueError, match=r"is marked as finished but has no report\.json"):
        repeat.read(tmp_path)


def test_what_is_no_run_is_said(tmp_path):
    for nothing in (tmp_path / "gone", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"is no run folder \(config.yaml is missing\); one is outputs/"):
            repeat.read(nothing)
    recorded(tmp_path / "demo" / "seed0")
    with pytest.raises(FileNotFoundError, match=r"below it are 1, such as .*demo/seed0$"):
        repeat.read(tmp_path)


def test_a_first_stage_is_repeated_with_its_run(tmp_path):
    runs.begin(tmp_path / "run" / "first_stage", {"seed": 0})
    with pytest.raises(ValueError, match=r"first stage of a run and is repeated with it; give .*/run$"):
        repeat.read(tmp_path / "run" / "first_stage")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("report.json", '{"seed": 0, "con', "report.json is truncated or not JSON"),
        ("report.json", "[1]", "report.json is no report of a run"),
        ("config.yaml", "seed: 0\nloss: {a: [1,", "config.yaml cannot be read"),
        ("config.yaml", "", "config.yaml holds no settings"),
        ("config.yaml", "- 1", "config.yaml holds no settings"),
    ],
)
def test_a_truncated_file_is_refused_by_name(tmp_path, file, content, sentence):
    recorded(tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(ValueError, match=sentence) as error:
        repeat.read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_run_that_wrote_nothing_down_is_said(tmp_path):
    runs.begin(tmp_path, composed(["experiment=demo_rambo"]))
    with pytest.raises(ValueError, match=r"was made before runs wrote down how to repeat them \(it has no command, "):
        repeat.check(repeat.read(tmp_path))


@pytest.mark.parametrize(
    "command",
    [
        ["rm", "-rf", "~"],
        ["python", "train.py", "--config-dir=theirs"],
        ["python", "train.py", 1],
        ["torchrun", "--standalone", "--nproc-per-node=2;x", "train.py"],
        ["torchrun", "--standalone", "train.py"],
        [],
    ],
)
def test_a_command_that_no_run_writes_is_refused(tmp_path, command):
    with pytest.raises(ValueError, match="holds a command that no run writes"):
        repeat.check(recorded(tmp_path, command=command))

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from loaded_script import loaded

from harness.record import repeat, reproducibility, runs
from harness.record.composition import composed
from harness.record.config import fingerprint
from rambo.datasets.cub_crops import CUBCrops
from rambo.detection.voc import VOC2007, PascalVOC

ROOT = Path(__file__).parents[2]


script = loaded("provenance")

OVERRIDES = ["scale=fixture", "loss=triplet", "seed=3", "tracking.project='a long name (of a project)'"]
HERE = {
    "code": {"revision": "a" * 40, "dirty": False},
    "python": "3.11.7",
    "packages": {"torch": "2.14.1", "timm": "1.0.31"},
    "hardware": {"processor": "X", "instructions": "AVX2", "platform": "Linux", "cores": 2, "threads": 2, "gpus": []},
}
METRICS = {f"test/recall@{k}": k / 10 for k in (1, 2, 4, 8)}


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """What the script believes to run on."""
    monkeypatch.setattr(reproducibility, "provenance", lambda: (HERE, b""))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture(scope="module")
def config():
    return composed(["experiment=demo_rambo", *OVERRIDES])


@pytest.fixture
def make(tmp_path, config):
    """Makes a run folder as train.py leaves it, with parts of its record changed."""

    def made(name, finished=True, metrics=METRICS, config=config, **changes):
        folder = tmp_path / name
        record = {"experiment": "demo_rambo", "overrides": OVERRIDES, "seed": 3, "device": "cpu", **HERE, **changes}
        record |= {"data": {"name": "glyphs", "fingerprint": "f" * 64}, "downloads": []}
        record["command"] = repeat.command(record, config)
        runs.begin(folder, config, record)
        if finished:
            results = {"last": {"epoch": 2, "metrics": metrics}}
            runs.finish(folder, {**record, "config": config, "loss": {"ties": "first"}, "results": results})
        return folder

    return made


@pytest.fixture
def said(capsys):
    def say(*arguments):
        script.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return say


@pytest.mark.parametrize("finished", [True, False])
def test_the_command_that_is_printed_makes_the_same_run(make, said, config, finished):
    text = said(make("run", finished))
    (line,) = [line.strip() for line in text.splitlines() if line.strip().startswith("python train.py")]
    words = shlex.split(line)[2:]
    assert fingerprint(composed(words)) == fingerprint(config)
    assert f"Here it is the same run, {fingerprint(config)}." in text
    assert {"threads=2", "trainer.device=cpu", "seed=3"} <= set(words)


def test_every_step_is_there_with_what_is_the_same_here(make, said):
    folder = make("run")
    lines = [line.strip() for line in said(folder).splitlines()]
    assert lines[0].startswith("demo_rambo, seed 3  ")
    for line in (
        "1. Code",
        "git checkout " + "a" * 40,
        "The code here is the same.",
        "2. Packages, under Python 3.11.7",
        f"python scripts/provenance.py {folder} --constraints > constraints.txt",
        "Here all 2 versions are the same.",
        "3. Data",
        "glyphs, fingerprint ffffffffffffffff: stand-in data, which the run writes itself.",
        "4. Command",
        "5. Bits are the same on",
        "cpu, threads: 2, X, AVX2, Linux.",
        "Here it is all the same.",
    ):
        assert line in lines


def test_what_is_otherwise_here_is_said(make, said):
    text = said(
        make(
            "run",
            code={"revision": "b" * 40, "dirty": True, "changes": "c" * 64},
            packages={"torch": "2.13.0", "timm": "1.0.31", "nltk": "3.9"},
            hardware=HERE["hardware"] | {"instructions": "AVX512"},
            began={"code": {"revision": "c" * 40}},
            device="cuda",
        )
    )
    for sentence in (
        "The code had uncommitted changes that were not kept (their sha256 is cccccccccccccccc...)",
        "The code here is of another revision (aaaaaaaaaaaa).",
        "The run was interrupted and went on with another code: no one setting repeats it.",
        "Here differ: torch 2.14.1 (was 2.13.0), nltk is missing (was 3.9).",
        "Here differ: instructions; expect other last bits.",
        "On a GPU the bits repeat as far as its operations have deterministic algorithms.",
    ):
        assert sentence in text


def test_a_command_that_makes_another_run_here_is_said(make, said, config):
    changed = config | {"metrics": config["metrics"] | {"map": not config["metrics"]["map"]}}
    assert f"Here it is another run: metrics.map was {changed['metrics']['map']}" in said(make("a", config=changed))
    assert "It does not compose here: " in said(make("b", experiment="no_such"))


def test_a_run_of_before_this_was_written_down_is_answered_with_a_sentence(tmp_path, said, config):
    runs.begin(tmp_path, config)
    with pytest.raises(SystemExit, match=r"error: .* was made before runs wrote down how to repeat them"):
        said(tmp_path)


def test_every_data_set_knows_what_its_download_is_called(tmp_path):
    for name, kind in loaded("download").DATA.items():
        if not issubclass(kind, PascalVOC | CUBCrops):  # which look at what is there; see test_cub_crops.py
            assert kind.downloads == (name,)
    assert VOC2007(tmp_path, fixture=True).downloads == ("voc2007",)
    both = PascalVOC(tmp_path, fixture=True, train=[[2012, "trainval"], [2007, "trainval"]])
    assert both.downloads == ("voc2007", "voc2012")


def test_constraints_alone_are_what_pip_reads(make, said):
    assert said(make("run"), "--constraints") == "torch==2.14.1\ntimm==1.0.31\n"


def rows(text):
    """The cells of the table that are not empty, line by line, without its heads."""
    return [line.split() for line in text.splitlines() if line.startswith(" ") and line.strip()][2:]


def test_two_runs_are_compared_in_one_screen(make, said, config):
    other = config | {"seed": 4, "workers": 9, "loss": config["loss"] | {"margin": 0.7}}
    better = {name: value + 0.05 for name, value in METRICS.items()}
    text = said(make("one"), make("other", config=other, metrics=better, code={"revision": "b" * 40, "dirty": False}))
    flat = " ".join(text.split())
    assert "The results differ; what they are made from differs in config and code." in flat
    assert "same: data (2), versions (3), hardware (7), loss as built (1)" in text
    assert "different, though not what makes a run another one: workers" in text
    assert "git diff aaaaaaaaaaaa bbbbbbbbbbbb -- '*.py' '*.yaml'" in text
    assert ["code", "revision", "aaaaaaaaaaaa...", "bbbbbbbbbbbb..."] in rows(text)
    assert ["results", "last/test/recall@1", "0.1", "0.15", "+0.05"] in rows(text)
    assert ["seed", "3", "4"] in rows(text)
    assert len(text.splitlines()) < 30


def test_results_that_look_alike_are_shown_with_their_gap(make, said):
    text = said(make("one"), make("other", metrics=METRICS | {"test/recall@1": 0.1 + 2**-40}))
    assert rows(text) == [["results", "last/test/recall@1", "0.1", "0.1", "+9.1e-13"]]


def test_a_repeat_is_called_one(make, said):
    text = said(make("one"), make("other"))
    assert "A repeat: every result is equal." in text
    assert rows(text) == []


def test_long_sections_are_cut_until_all_is_asked_for(make, said):
    many = {f"test/recall@{k}": k / 100 for k in range(1, 12)}
    folders = make("one", metrics=many), make("other", metrics=dict.fromkeys(many, 0.5))
    assert f"and {11 - script.SHOWN} more (--all)" in said(*folders)
    text = said(*folders, "--all")
    assert all(f"last/{name} " in text for name in many)
    assert "--all" not in text


@pytest.mark.parametrize("second", [False, True])
def test_what_is_no_run_is_answered_with_a_sentence(make, tmp_path, second):
    run = make("run")
    (tmp_path / "empty").mkdir()
    broken = make("broken")
    (broken / "report.json").write_text('{"seed": 0, "conf')
    for folder, sentence in (
        (tmp_path / "gone", "is no run folder (config.yaml is missing)"),
        (tmp_path / "empty", "is no run folder (config.yaml is missing)"),
        (broken, "report.json is truncated or not JSON"),
    ):
        with pytest.raises(SystemExit) as answer:
            script.main([str(run), str(folder)] if second else [str(folder)])
        assert str(answer.value).startswith("error: ")
        assert sentence in str(answer.value)
        assert "\n" not in str(answer.value)


@pytest.mark.slow
def test_a_run_is_repeated_by_the_command_that_is_printed(tmp_path):
    """The real thing: train, ask how, do as told, compare."""

    def python(*arguments):
        done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    place = ["experiment=demo_rambo", "scale=fixture", "trainer.epochs=1", f"paths.outputs='{tmp_path} (1)'"]
    python("train.py", *place, "seed=5", "loss.margin=0.3")
    outputs = Path(f"{tmp_path} (1)")
    (first,) = (path.parent for path in outputs.rglob("DONE"))
    (line,) = [
        x for x in python("scripts/provenance.py", first).splitlines() if x.strip().startswith("python train.py")
    ]
    python(*shlex.split(line)[1:])
    (second,) = (path.parent for path in outputs.rglob("DONE") if path.parent != first)
    text = python("scripts/provenance.py", first, second)
    assert "result is equal" in text
    for section in ("config", "data", "versions", "hardware", "results"):
        assert f"{section} (" in text.partition("same: ")[2].partition("\n")[0]

    # As if the second had been interrupted before its report, under another Python.
    for name in ("DONE", "report.json"):
        (second / name).unlink()
    runs.write_json(second / runs.BEGAN, runs.read_json(second / runs.BEGAN) | {"python": "3.9.0"})
    python(*shlex.split(line)[1:], f"resume='{second}'")
    report = runs.read_json(second / "report.json")
    assert report["began"]["python"] == "3.9.0"
    assert "went on with another" in python("scripts/provenance.py", second)
    assert report["results"]["last"]["metrics"] == runs.read_json(first / "report.json")["results"]["last"]["metrics"]

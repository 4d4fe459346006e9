"""What a table has to run: every row and seed once, finished runs never again, failures told."""

import shutil

import pytest
from table_toy import finished, loaded

from harness.record import runs
from harness.record.composition import composed
from harness.record.config import fingerprint
from harness.record.index import Found
from harness.study import execution, jobs, table_cells
from harness.study.jobs import Outputs
from ranksim.datasets.fixture import write_own

METRICS = (("test/recall@1", "test/mae"), ("test/recall@2", "test/mse"), ("better: higher", "better: lower"))

ENTRY = """
import sys, time, pathlib
arguments = dict(a.split("=", 1) for a in sys.argv[1:])
pathlib.Path(__file__).with_name("called").open("a").write(" ".join(sys.argv[1:]) + "\\n")
print("epoch 1/2  loss 0.5", flush=True)
if arguments["seed"] == "1":
    sys.exit("some warning\\nerror: no letters in data/letters; run: python scripts/download.py letters")
"""


def plan(table, tmp_path, seeds=2, **named):
    return Outputs(tmp_path / "outputs").locate(jobs.plan(table, seeds, **named))


def test_a_plan_has_every_row_with_every_seed_and_the_arguments_of_train(tmp_path):
    planned = plan(loaded(tmp_path), tmp_path)
    assert [(job.row, job.seed) for job in planned] == [("ours", 0), ("ours", 1)]
    assert planned[1].arguments == ("experiment=demo_rambo", "loss.margin=0.1", "seed=1")
    assert [job.fingerprint for job in planned] == [fingerprint(composed(job.arguments)) for job in planned]
    fixture = plan(loaded(tmp_path), tmp_path, scale="fixture")
    assert fixture[0].arguments == (
        "experiment=demo_rambo",
        "loss.margin=0.1",
        "scale=fixture",
        "trainer.pictures=false",
        "seed=0",
    )
    assert not {job.fingerprint for job in planned} & {job.fingerprint for job in fixture}


def test_runs_that_are_there_are_found_and_only_the_rest_is_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(Outputs, "data", lambda self, job: "a")
    planned = plan(loaded(tmp_path), tmp_path, seeds=4)
    record = {"data": {"fingerprint": "a"}}
    for seed, name in ((0, "a"), (0, "b"), (1, "c"), (2, "d")):
        runs.begin(tmp_path / "outputs" / name, composed([*planned[seed].arguments, "threads=1", "workers=0"]), record)
    for name in ("a", "b"):
        runs.finish(tmp_path / "outputs" / name, {"config": {}, "results": {}, **record})
    (tmp_path / "outputs" / "c" / "checkpoints").mkdir()
    (tmp_path / "outputs" / "c" / "checkpoints" / "last.pt").touch()
    planned = Outputs(tmp_path / "outputs").locate(planned)
    assert [job.finished and job.finished.name for job in planned] == ["b", None, None, None]  # the newest
    assert [job.interrupted and job.interrupted.name for job in planned] == [None, "c", None, None]
    assert [job.seed for job in jobs.to_do(planned)] == [1, 2, 3]


def test_runs_on_other_data_are_left_out_and_told_unless_the_data_are_gone(tmp_path):
    """The table of the data is edited where it lies, moved, and removed; a run knows which data it had."""
    table = write_own(tmp_path / "mine", "table.csv", "y", None, ["a", "b"]) / "table.csv"

    def found_in(root):
        settings = f"[data.root='{root}',data.target=y,data.image=null,model=perceptron]"
        row = ("overrides: [loss.margin=0.1]", f"overrides: {settings}")
        changed = loaded(tmp_path, row, ("demo_rambo", "table_ranksim"), *METRICS)
        outputs = Outputs(tmp_path / "outputs")
        (job,) = outputs.locate(jobs.plan(changed, 1))
        return job, outputs.notes([job])

    first, _ = found_in(table.parent)
    mark = Outputs(tmp_path).data(first)
    folder = finished(tmp_path / "outputs" / "a", data=mark)
    runs.write_config(folder, composed(first.arguments))
    assert found_in(table.parent)[0].finished == folder
    moved = shutil.move(table.parent, tmp_path / "moved")
    job, notes = found_in(moved)
    assert (job.finished, notes) == (folder, [])
    job, notes = found_in(table.parent)
    assert job.finished == folder
    assert len(notes) == 1
    assert notes[0].startswith("  whether finished runs are on these data is not known: no table ")
    shutil.move(moved, table.parent)
    header, _, *rest = table.read_text().splitlines()
    table.write_text("\n".join([header, "0.5,0.5,0.5", *rest]) + "\n")
    job, notes = found_in(table.parent)
    assert job.finished is None
    assert notes == ["  1 finished run left out: on other data than are there now"]
    assert jobs.to_do([job]) == [job]


def test_rows_on_different_data_are_both_run(tmp_path):
    """What they are known by is equal, as the place of data is not part of it."""
    again = "  again: {name: Again, experiment: demo_rambo, overrides: [loss.margin=0.1, +data.root=there]}\nnotes:"
    planned = plan(loaded(tmp_path, ("notes:", again)), tmp_path, seeds=1)
    assert planned[0].fingerprint == planned[1].fingerprint
    assert jobs.to_do(planned) == planned


def test_a_run_that_two_rows_share_is_made_once(tmp_path):
    again = "  again: {name: Again, experiment: demo_rambo, overrides: [loss.margin=0.1, workers=2]}\nnotes:"
    planned = plan(loaded(tmp_path, ("notes:", again)), tmp_path)
    assert len(planned) == 4
    assert [job.name for job in jobs.to_do(planned)] == ["toy/ours, seed 0", "toy/ours, seed 1"]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "demo_rambo",
            "demo_ramba",
            r"toy.yaml: rows.ours: .*there is no experiment demo_ramba; did you mean demo_rambo",
        ),
        ("loss.margin", "loss.margn", r"toy.yaml: rows.ours: .*there is no key loss.margn; did you mean loss.margin"),
        (
            "loss.margin=0.1",
            "loss=nothing",
            r"toy.yaml: rows.ours: .*there is no loss nothing; choose from average_pre",
        ),
        (
            "test/recall@2",
            "test/recall@3",
            r"columns.R@2.metric is test/recall@3, which rows.ours \(demo_rambo\) does not",
        ),
    ],
)
def test_a_row_that_cannot_be_run_is_told_before_anything_is(tmp_path, old, new, says):
    with pytest.raises(ValueError, match=says) as error:
        plan(loaded(tmp_path, (old, new)), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seeds", [0, -1])
def test_no_seeds_are_refused(tmp_path, seeds):
    with pytest.raises(ValueError, match=f"seeds must be at least 1, got {seeds}"):
        plan(loaded(tmp_path), tmp_path, seeds=seeds)


def test_a_failing_run_costs_itself_only_and_its_sentence_is_kept(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(execution, "IMPORTED", ())
    (tmp_path / "train.py").write_text(ENTRY)
    planned = plan(loaded(tmp_path), tmp_path, seeds=3)
    outputs = Outputs(tmp_path / "out (1)", 1)
    outputs.entry = tmp_path / "train.py"
    failed = outputs.run(planned)
    assert failed == {planned[1].fingerprint: "no letters in data/letters; run: python scripts/download.py letters"}
    assert [("FAILED" in line) for line in capsys.readouterr().out.splitlines()] == [False, True, False]
    called = (tmp_path / "called").read_text().splitlines()
    assert len(called) == 3
    assert all(f"reuse=true paths.outputs='{tmp_path / 'out (1)'}'" in line for line in called)
    assert Outputs(tmp_path).run([]) == {}


def test_what_a_run_said_last_stands_for_its_failure():
    assert jobs.sentence("error: old\nerror: margin must be > 0\n  \nlogged later\n") == "margin must be > 0"
    assert jobs.sentence("Traceback ...\nKeyError: 'x'\n") == "KeyError: 'x'"
    assert jobs.sentence("\n") == "it ended without a word"


def test_a_failure_names_files_as_seen_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert jobs.sentence(f"error: {tmp_path}/outputs/a is gone") == "outputs/a is gone"
    assert jobs.sentence("error: /elsewhere/a is gone") == "/elsewhere/a is gone"


def test_a_plan_and_its_runs_fill_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(Outputs, "data", lambda self, job: "a")
    table, outputs = loaded(tmp_path), Outputs(tmp_path)
    planned = plan(table, tmp_path, seeds=3)
    folder = finished(tmp_path / "outputs" / "a")
    outputs.found = {planned[0].fingerprint: Found([folder])}
    filled = table_cells.fill(table, outputs.locate(planned), 3, failed={planned[1].fingerprint: "out of memory"})
    assert filled.missing == 2
    assert filled.faults == ["Ours, log log, seed 1: failed: out of memory"]
    assert filled.lines[1].cells["R@1"].values == {0: 64.0}

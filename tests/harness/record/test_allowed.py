"""Configs that somebody else wrote: what they may name, and that nothing runs on any way in."""

import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from loaded_script import loaded
from omegaconf import OmegaConf

from harness.record import allowed, reproducibility, reuse, runs
from harness.record.allowed import NotAllowedError
from harness.record.composition import CONFIGS, composed
from harness.record.config import nodes
from harness.record.restored import restored

ROOT = Path(__file__).parents[3]
OBJECTIVE = "rambo.objective.RetrievalObjective"


class Touches:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


class TheirData:
    """Of the fingerprint that the folder claims."""

    def describe(self):
        return {"fingerprint": "a"}


def hostile(witness):
    """Configs that would leave the file `witness`, or change something else, were they built."""
    pickled = witness.with_suffix(".pt")
    pickled.write_bytes(pickle.dumps(Touches(witness)))
    touch, write = f"touch {witness}", f"open({str(witness)!r}, 'w')"
    return {
        "system": {"_target_": "os.system", "command": touch},
        "eval": {"_target_": "builtins.eval", "_args_": [write]},
        "Popen": {"_target_": "subprocess.Popen", "args": ["touch", str(witness)]},
        "write_text": {"_target_": "pathlib.Path.write_text", "self": str(witness), "data": "x"},
        "torch.load": {"_target_": "torch.load", "f": str(pickled), "weights_only": False},
        "through our module": {"_target_": "harness.files.os.system", "command": touch},
        "through a library": {"_target_": "torch.nn.modules.module.torch.load", "f": str(pickled)},
        "by a lookup": {"_target_": "hydra.utils.get_method", "path": "os.system"},
        "import": {"_target_": "antigravity.webbrowser"},
        "our function": {"_target_": "harness.files.write_json", "path": str(witness), "value": 1},
        "our method": {"_target_": "harness.study.execution.Worker.end", "self": None},
        "a data set of pickles": {"_target_": "torchvision.datasets.CIFAR10", "root": str(witness)},
        "a library's method": {"_target_": "torchvision.models._api.WeightsEnum.get_state_dict", "self": None},
        "partial": {"_target_": "os.system", "_partial_": True},
        "nested": {"_target_": OBJECTIVE, "loss": {"_target_": "os.system", "command": touch}},
        "in a list": {"_target_": "torch.nn.Sequential", "a": [{"b": [{"_target_": "os.system", "command": touch}]}]},
        "class by name": {"_target_": OBJECTIVE, "loss": "os.system", "command": touch},
        "detector's loss": {"_target_": "rambo.detection.objective.DetectionObjective", "classification": "os.system"},
        "by position": {"_target_": OBJECTIVE, "_args_": ["os.system"], "command": touch},
        "interpolated": {"_target_": "${first:os.system}", "command": touch},
        "environment": {"_target_": "torch.nn.Linear", "in_features": "${oc.env:HOME}"},
        "no name": {"_target_": 3},
    }  # fmt: skip


HOSTILE = [
    "system", "eval", "Popen", "write_text", "torch.load", "through our module", "through a library", "by a lookup",
    "import", "our function", "our method", "a data set of pickles", "a library's method", "partial", "nested",
    "in a list", "class by name", "detector's loss", "by position", "interpolated", "environment", "no name",
]  # fmt: skip


def names():
    """Every name in the configs that this project comes with, by what it stands under."""
    for path in sorted(CONFIGS.rglob("*.yaml")):
        yield from nodes(yaml.safe_load(path.read_text()))


def called(monkeypatch, name, *words):
    """What a command answers."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    with pytest.raises(SystemExit) as end:
        loaded(name).main()
    return str(end.value)


@pytest.fixture(scope="module")
def usual():
    return composed(["experiment=demo_rambo", "scale=fixture", "trainer.device=cpu"])


@pytest.fixture
def run(tmp_path, usual):
    """Makes a run folder with a changed config, which a stranger could have sent."""

    def made(name="run", overrides=(), **changes):
        record = {"experiment": "demo_rambo", "overrides": ["scale=fixture", "trainer.device=cpu", *overrides]}
        runs.begin(tmp_path / name, {"seed": 0}, record | {"seed": 0, "data": {"fingerprint": "a"}})
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(usual | changes))
        return tmp_path / name

    return made


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_stranger_names_is_not_built(kind, tmp_path, run):
    witness = tmp_path / "witness"
    config = hostile(witness)[kind]
    assert list(hostile(witness)) == HOSTILE
    with pytest.raises(NotAllowedError, match="config: "):
        allowed.check({"model": {"deeper": [config]}}, "config")
    for noun in ("data", "model", "metrics", "loss"):
        with pytest.raises(NotAllowedError, match=r"config.yaml: "):
            restored(run(f"{kind} {noun}", **{noun: config}), "untrained")
    assert not witness.exists()
    assert "antigravity" not in sys.modules


def test_figures_are_not_drawn_of_it(tmp_path, run, monkeypatch):
    witness = tmp_path / "witness"
    for kind in ("system", "class by name", "import"):
        config = hostile(witness)[kind]
        folder = run(kind, **{"loss" if kind == "class by name" else "metrics": config})
        for figure in ("scores", "sparsity"):
            said = called(monkeypatch, "figures", figure, "--run", folder, "--weights", "untrained", "--out", tmp_path)
            assert said.startswith("error: ")
            assert "may not build" in said or figure == "sparsity"  # for which such a run has nothing on record
    assert not witness.exists()


@pytest.mark.parametrize(
    "override",
    [
        "+loss.extra={{_target_:os.system,command:'touch {witness}'}}",
        "loss.loss=os.system",
        "+model.extra.{{_target_}}=os.system",
        "+hydra.callbacks.x._target_=os.system",
        "hydra.searchpath=[pkg://antigravity]",
        "+data@hydra.callbacks.x=cub",
        "hydra/launcher=joblib",
    ],
)
def test_no_table_comparison_or_record_runs_it(override, tmp_path, run, monkeypatch, capsys):
    witness = tmp_path / "witness"
    override = override.format(witness=witness).replace("{_target_}", "_target_")
    table = yaml.safe_load((CONFIGS / "table" / "demo.yaml").read_text())
    table["rows"] = {"x": {"name": "X", "experiment": "demo_rambo", "overrides": [override]}}
    fair = yaml.safe_load((CONFIGS / "fair" / "omniglot.yaml").read_text())
    fair["overrides"] = [*fair.get("overrides", []), override]
    for name, content in (("table", table), ("fair", fair)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "theirs.yaml").write_text(yaml.safe_dump(content))
        where = ["--tables" if name == "table" else "--files", tmp_path / name, "--runs", tmp_path / "runs"]
        said = called(monkeypatch, name, "theirs", *where)
        assert said.startswith("error: theirs.yaml: ")
        assert "may not build" in said or "for the command line alone" in said
    with pytest.raises(NotAllowedError):
        composed(["experiment=demo_rambo", override])
    folder = run()
    record = {"experiment": "demo_rambo", "overrides": [], "device": "cpu", **reproducibility.provenance()[0]}
    theirs = {"command": ["python", "train.py", "experiment=demo_rambo", override], "data": {}, "downloads": []}
    runs.write_json(folder / runs.BEGAN, record | theirs)
    loaded("provenance").main([str(folder)])
    said = capsys.readouterr().out
    assert "Not shown, as it should not be run unseen." in said
    assert "train.py" not in said
    assert not witness.exists()
    assert not (tmp_path / "runs").exists()


SECRETS = [
    "+data.note=${oc.env:WANDB_API_KEY}",
    "+data.note='${oc.env:WANDB_API_KEY,none}'",
    "+data.note=a${oc.env:WANDB_API_KEY}b",
    "+data.note=${${loss.kind}:WANDB_API_KEY}",
    "+data.note={a: [1, '${oc.env:WANDB_API_KEY}']}",
    "+data.note=${home:paths}",
    "+data.note=${oc.decode:'[1]'}",
    "+data.note=${hydra:runtime.cwd}",
]


@pytest.mark.parametrize("override", SECRETS)
def test_no_file_reads_the_environment(override, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cret" * 7)
    with pytest.raises(NotAllowedError, match="for the command line alone: write the value itself") as error:
        composed(["experiment=demo_rambo", override])
    assert "s3cret" not in str(error.value)
    for name in ("table", "fair"):
        theirs = yaml.safe_load((CONFIGS / name / ("demo.yaml" if name == "table" else "omniglot.yaml")).read_text())
        if name == "table":
            theirs["rows"] = {"x": {"name": "X", "experiment": "demo_rambo", "overrides": [override]}}
        else:
            theirs["overrides"] = [*theirs.get("overrides", []), override]
        (tmp_path / name).mkdir()
        (tmp_path / name / "theirs.yaml").write_text(yaml.safe_dump(theirs))
        where = ["--tables" if name == "table" else "--files", tmp_path / name, "--runs", tmp_path / "runs"]
        assert "for the command line alone: write the value itself" in called(monkeypatch, name, "theirs", *where)
    assert not (tmp_path / "runs").exists()


def test_a_value_of_the_config_may_stand_for_another():
    assert composed(["experiment=demo_rambo", "+data.note=${seed}", "seed=7"])["data"]["note"] == 7


def test_a_run_that_goes_on_takes_plain_values_alone(tmp_path, run):
    """`reuse` takes threads and device over from the interrupted run, and the trainer is built with them."""
    config = OmegaConf.create(composed(["experiment=demo_rambo", "reuse=true", f"paths.outputs='{tmp_path}'"]))
    for device in ({"_target_": "os.system", "command": f"touch {tmp_path / 'x'}"}, "${oc.env:HOME}", ["cpu"]):
        folder = run()
        theirs = OmegaConf.to_container(config)
        theirs["trainer"]["device"] = device
        (folder / "config.yaml").write_text(yaml.safe_dump(theirs))
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.pt").touch()
        with pytest.raises(ValueError, match=r"trainer.device is .*, wanted a number or a device"):
            reuse.once(config, tmp_path / "new", lambda config: TheirData(), lambda *given: pytest.fail(f"ran {given}"))
    assert not (tmp_path / "x").exists()


def test_a_resumed_run_is_what_the_command_line_says(tmp_path, run):
    """Nothing is built of the config in the folder."""
    folder = run(model=hostile(tmp_path / "witness")["system"])
    words = ["experiment=demo_rambo", "scale=fixture", "trainer.device=cpu", f"resume={folder}"]
    done = subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "was run with another config: model." in done.stderr
    assert not (tmp_path / "witness").exists()


def test_what_this_project_comes_with_may_be_named():
    found = {value for path, value in names() if path and path[-1] == "_target_"}
    for name in sorted(found - {"harness.train.objective.BeforeSweep", "harness.record.place.Writable"}):
        if not name.startswith("pytorch_metric_learning") or importlib.util.find_spec("pytorch_metric_learning"):
            allowed.named(name, "configs")
    for name in (
        "timm.create_model", "timm.models.VisionTransformer", "torch.optim.SGD", "torch.utils.data.DataLoader",
        "torchvision.models.resnet50", "torchvision.transforms.v2.Resize", "ranksim.bins.Bins.uniform",
    ):  # fmt: skip
        allowed.named(name, "configs")


def test_a_user_trusts_packages_by_name():
    name = f"{__name__}.{called.__name__}"
    with pytest.raises(NotAllowedError, match=f"--allow {name}"):
        allowed.check({"_target_": name}, "config")
    allowed.check({"_target_": name}, "config", allow=[__name__])
    with pytest.raises(NotAllowedError, match=r"that is posix.system, which"):
        allowed.check({"_target_": f"{__name__}.subprocess.os.system"}, "config", allow=[__name__])

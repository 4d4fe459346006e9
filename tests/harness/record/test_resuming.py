"""One folder, one run, and a config that says what the folder holds."""

import pytest
import torch
from omegaconf import OmegaConf

from harness import checkpoint
from harness.data.pretrained import key_of_weights
from harness.record import reuse, runs, schema, stages
from harness.record.composition import CONFIGS
from harness.record.config import fingerprint, resolved, targets
from harness.record.index import index


def config(**changes):
    values = {"seed": 0, "first_stage": None, "loss": {"margin": 0.1}, "trainer": {"epochs": 2}, "data": {"root": "a"}}
    return OmegaConf.merge(OmegaConf.create(values), changes)


def begun(folder, epochs_trained=None, **changes):
    runs.begin(folder, resolved(config(**changes)), {"overrides": [], "data": {"fingerprint": "a"}})
    if epochs_trained is not None:
        checkpoint.save(folder / "checkpoints" / "last.pt", {"epoch": epochs_trained, "weight": torch.ones(3)})
    return folder


def test_resuming_nothing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is no run folder \(config.yaml is missing\)"):
        runs.check_resumed(tmp_path, config())


def test_a_finished_run_goes_on_for_more_epochs_alone(tmp_path):
    runs.finish(begun(tmp_path, 2), {"results": {}})
    with pytest.raises(FileExistsError, match=r"that run is finished; give more trainer.epochs to go on with it$"):
        runs.check_resumed(tmp_path, config())
    longer = config(trainer={"epochs": 3})
    runs.check_resumed(tmp_path, longer)
    runs.begin(tmp_path, resolved(config(scheduler={"T_max": 2})))
    with pytest.raises(ValueError, match=r"T_max follows trainer.epochs here: keep trainer.epochs=2 or start a new"):
        runs.check_resumed(tmp_path, OmegaConf.merge(longer, {"scheduler": {"T_max": 3}}))
    (tmp_path / "checkpoints" / "last.pt").unlink()
    with pytest.raises(FileExistsError, match=r"give more trainer.epochs .* \(which takes .*last.pt\)"):
        runs.check_resumed(tmp_path, longer)


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ({"weights": "hub"}, "model.weights"),
        ({"encoder": {"weights": None}}, "model.encoder.weights"),
        ({"encoder": {"width": 3}}, None),
        ({}, None),
    ],
)
def test_weights_are_advised_where_the_model_takes_some_and_by_their_key(model, key, tmp_path):
    """Of every model that there is, the key is one that a new run takes."""
    runs.finish(begun(tmp_path, 2, model=model), {"results": {}})
    followed = {"model": model, "scheduler": {"T_max": 3}, "trainer": {"epochs": 3}}
    runs.begin(tmp_path / "b", resolved(config(model=model, scheduler={"T_max": 2})))
    said = []
    for check in (
        lambda: runs.check_resumed(tmp_path, config(model=model)),
        lambda: runs.check_config(tmp_path / "b", resolved(config(**followed))),
    ):
        with pytest.raises((FileExistsError, ValueError)) as error:
            check()
        said.append(str(error.value))
    folders = (f"{tmp_path} instead of resume", f"{tmp_path / 'b'}")
    assert [f"{key}={folder}" in text for folder, text in zip(folders, said, strict=True)] == [key is not None] * 2
    assert ["weights=" in text for text in said] == [key is not None] * 2


@pytest.mark.parametrize("path", sorted((CONFIGS / "model").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_key_of_weights_is_one_of_the_model_it_is_told_for(path):
    model = OmegaConf.load(path)
    key = key_of_weights(model)
    if "_target_" not in model:  # it is completed by another file
        return
    takes = [name for name, node in targets(OmegaConf.to_container(model)) if "weights" in schema.parameters(node)[0]]
    assert [f"model.{name}.weights".replace("..", ".") for name in takes] == ([] if key is None else [key])


def test_a_folder_says_what_a_run_has_become(tmp_path):
    """Begun with 2 epochs and gone on with to 4, it answers for 4, finished or not, and never for 2."""
    folder, longer = begun(tmp_path / "a", 1), config(trainer={"epochs": 4}, data={"root": "b"})
    (folder / "report.json").write_text("of 2 epochs")
    runs.check_resumed(folder, longer)
    now = {"overrides": ["trainer.epochs=4"], "command": ["python", "train.py", "trainer.epochs=4"]}
    runs.go_on(folder, resolved(longer), now | {"device": "cpu"})
    (key,) = index(tmp_path)
    assert key == fingerprint(resolved(longer)) != fingerprint(resolved(config()))
    assert runs.read_config(folder)["data"]["root"] == "b"
    assert runs.read_json(folder / runs.BEGAN) == now | {"data": {"fingerprint": "a"}}
    assert not (folder / "report.json").exists()


def test_a_run_does_not_go_on_for_fewer_epochs_than_it_has(tmp_path):
    folder = begun(tmp_path, 3, trainer={"epochs": 4})
    runs.check_resumed(folder, config(trainer={"epochs": 3}))
    with pytest.raises(ValueError, match=r"trainer.epochs=2, but 3 epochs are trained already; give at least 3"):
        runs.check_resumed(folder, config())
    (folder / "checkpoints" / "last.pt").write_bytes(b"PK")
    with pytest.raises(checkpoint.CheckpointError, match="truncated or not a checkpoint"):
        runs.check_resumed(folder, config())


def test_a_finished_first_stage_keeps_its_epochs(tmp_path):
    """Else the second would be of 4 epochs, the first of 2, and the config of the folder say 4."""
    two = {"first_stage": {"changes": {"loss": {"margin": 0.5}}}}
    folder = begun(tmp_path, **two)
    below = folder / stages.FOLDER
    runs.begin(below, resolved(stages.first_stage(config(**two), below)))
    longer = config(**two, trainer={"epochs": 4})
    runs.check_resumed(folder, longer)
    runs.finish(below, {})
    runs.check_resumed(folder, config(**two, data={"root": "b"}))
    with pytest.raises(ValueError, match=r"first_stage was run with another config: trainer.epochs was 2, is 4"):
        runs.check_resumed(folder, longer)


def test_the_data_that_a_run_began_with_are_on_record(tmp_path):
    assert runs.data_of(begun(tmp_path)) == "a"
    assert runs.data_of(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("left", runs.LEFT)
def test_a_folder_that_holds_anything_of_a_run_is_refused(tmp_path, left):
    for name in ("train.log", ".running"):  # which are there before a run begins
        (tmp_path / name).touch()
    runs.check_unused(tmp_path)
    (tmp_path / left).mkdir()
    with pytest.raises(FileExistsError, match=r"holds a run already.* mix the two; choose another folder or leave"):
        runs.check_unused(tmp_path)


def test_the_way_out_of_a_used_folder_is_going_on_if_that_is_possible(tmp_path):
    with pytest.raises(FileExistsError, match=rf"go on with it \(resume={tmp_path}\), choose another folder, or"):
        runs.check_unused(begun(tmp_path, 1))
    runs.finish(tmp_path, {})
    with pytest.raises(FileExistsError, match=r"mix the two; choose another folder or leave hydra.run.dir out"):
        runs.check_unused(tmp_path)


def beginning(folder, **changes):
    return reuse.beginning(config(**{"resume": None, **changes}), folder)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path):
    """By its folder and by `resume`, whatever it had come to; another config is refused by `resume` alone."""
    assert beginning(tmp_path).resume is None
    (tmp_path / "train.log").touch()
    assert beginning(tmp_path, resume=str(tmp_path)).resume is None  # killed before it wrote its config
    begun(tmp_path)
    begun(tmp_path / stages.FOLDER)
    for stage in (tmp_path, tmp_path / stages.FOLDER):
        (stage / "metrics.jsonl").write_text('{"step": 0, "epoch": 0, "test/recall@1": 0.5}\n{"step": 1, "lo')
        (stage / "checkpoints").mkdir()
        (stage / "checkpoints" / "last.pt.0123456789ab.writing").touch()
        assert beginning(tmp_path).resume is beginning(tmp_path, resume=str(tmp_path)).resume is None
    assert beginning(tmp_path, seed=1).resume is None
    with pytest.raises(ValueError, match=r"was run with another config: seed was 0, is 1"):
        beginning(tmp_path, seed=1, resume=str(tmp_path))


WORTH = ["checkpoints/previous.pt", "checkpoints/best_on_test.pt", "report.json", "stopped.json", "pictures/a.png"]


@pytest.mark.parametrize("name", [*WORTH, "metrics.jsonl"])
@pytest.mark.parametrize("stage", [".", stages.FOLDER])
def test_what_a_run_came_to_is_never_taken_for_a_beginning(tmp_path, stage, name):
    path = begun(tmp_path) / stage / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"step": 0, "epoch": 0}\n{"step": 10, "loss": 0.5}\n')
    with pytest.raises(FileExistsError, match="holds a run already"):
        beginning(tmp_path)
    if runs.saved(tmp_path):  # damaged, but a checkpoint
        with pytest.raises(checkpoint.CheckpointError, match="truncated or not a checkpoint"):
            checkpoint.newest(path.parent)
    else:
        with pytest.raises(FileNotFoundError, match="its checkpoints are gone"):
            beginning(tmp_path, resume=str(tmp_path))
    assert path.is_file()


@pytest.mark.parametrize("own", ["model", "checkpoints", "pictures", "config.yaml"])
def test_what_is_called_as_something_of_a_run_but_of_none_is_never_taken_away(tmp_path, own):
    """As `hydra.run.dir=.` finds in a project of somebody else's."""
    path = tmp_path / own
    path = path if path.suffix else path / "thesis.bin"
    path.parent.mkdir(exist_ok=True)
    path.write_text("years: 3")
    with pytest.raises(FileExistsError, match="holds a run already"):
        beginning(tmp_path)
    assert path.read_text() == "years: 3"


def test_the_model_of_a_run_is_kept_where_somebody_removed_the_rest(tmp_path):
    weights = begun(tmp_path) / runs.MODEL / "model.safetensors"
    weights.parent.mkdir()
    weights.touch()
    with pytest.raises(FileExistsError, match="holds a run already"):
        beginning(tmp_path)


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_takes_back_its_own_mirrors_alone(tmp_path, killed):
    (tmp_path / "wandb").mkdir()
    if killed:
        begun(tmp_path)

    def fails():
        with reuse.unused_unless_saved(tmp_path):
            assert (tmp_path / "wandb").exists() is not killed
            (begun(tmp_path) / "tensorboard").mkdir()
            raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        fails()
    assert [path.name for path in tmp_path.iterdir()] == ([] if killed else ["wandb"])


def test_a_run_goes_on_from_its_previous_checkpoint_where_the_last_is_damaged(tmp_path):
    folder = begun(tmp_path, 3, trainer={"epochs": 4})
    checkpoint.save(folder / "checkpoints" / checkpoint.PREVIOUS, {"epoch": 2})
    (folder / "checkpoints" / checkpoint.LAST).write_bytes(b"PK")
    assert beginning(folder, resume=str(folder), trainer={"epochs": 4}).resume == str(folder)
    (folder / "checkpoints" / checkpoint.LAST).unlink()
    assert runs.saved(folder)
    assert beginning(folder, resume=str(folder), trainer={"epochs": 4}).resume == str(folder)

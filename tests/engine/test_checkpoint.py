import errno
import functools

import pytest
import torch

from engine import checkpoint
from engine.checkpoint import CheckpointError


def test_what_is_saved_comes_back(tmp_path):
    state = {"weight": torch.arange(3.0), "epoch": 2, "best": {"test": 0.5}}
    checkpoint.save(tmp_path / "a" / "last.pt", state)
    back = checkpoint.load(tmp_path / "a" / "last.pt")
    assert torch.equal(back.pop("weight"), state.pop("weight"))
    assert back == state


def test_a_full_disk_leaves_the_checkpoint_before_unharmed(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})

    def full(state, file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*last.pt|last.pt.*No space left on device"):
        checkpoint.save(path, {"epoch": 2})
    monkeypatch.undo()
    assert checkpoint.load(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_a_disk_that_is_really_full_is_reported(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails instead of the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(CheckpointError, match="could not write"):
            checkpoint.save(path, {"weight": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert checkpoint.load(path) == {"epoch": 1}


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"weight": torch.zeros(1000)})
    whole = path.read_bytes()
    path.write_bytes(whole[: keep if isinstance(keep, int) else int(keep * len(whole))])
    with pytest.raises(CheckpointError, match=r"last.pt is truncated or not a checkpoint"):
        checkpoint.load(path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"model": functools.partial(print, "run")}, path)
    with pytest.raises(CheckpointError, match=r"evil.pt is truncated or not a checkpoint"):
        checkpoint.load(path)


def test_something_else_than_a_dict_is_refused(tmp_path):
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    with pytest.raises(CheckpointError, match="holds a Tensor, wanted the dict"):
        checkpoint.load(tmp_path / "tensor.pt")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*none.pt"):
        checkpoint.load(tmp_path / "none.pt")

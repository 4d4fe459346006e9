import hashlib
import os
import platform
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.record import reproducibility
from harness.record.reproducibility import code_state, provenance, set_up
from harness.seeds import derived_seed, seed_everything

ROOT = Path(__file__).parents[3]


def test_a_derived_seed_is_the_same_everywhere_and_depends_on_every_part():
    # sha256("1/2") begins with these eight bytes; any machine must find the same seed.
    assert derived_seed(1, 2) == int.from_bytes(hashlib.sha256(b"1/2").digest()[:8], "little") // 2
    assert len({derived_seed(1, 2), derived_seed(2, 1), derived_seed(12), derived_seed(1, 2, 0)}) == 4


def test_seeding_repeats_the_draws_of_both_generators():
    seed_everything(3, 4)
    first = (random.random(), torch.rand(2).tolist())
    seed_everything(3, 4)
    assert (random.random(), torch.rand(2).tolist()) == first


def test_set_up_refuses_no_threads_and_turns_determinism_on_and_off():
    with pytest.raises(ValueError, match="threads must be at least 1 or null, got 0"):
        set_up(0, True)
    threads = torch.get_num_threads()
    set_up(threads, True)
    assert torch.are_deterministic_algorithms_enabled()
    set_up(None, False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


def test_set_up_fills_no_memory_that_is_written_anyway():
    set_up(None, True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    set_up(None, False)


FAULTS = """
import resource, torch
from harness.record.reproducibility import set_up
set_up(1, True)
torch.ones(2**22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone is asked to keep freed memory")
def test_set_up_keeps_freed_memory_unless_a_variable_says_otherwise():
    def faults(**variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        command = [sys.executable, "-c", FAULTS]
        done = subprocess.run(command, env=environment | variables, capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults() < 5 * 4096  # pages of one or two tensors, by where the heap has room, among twenty
    assert faults(MALLOC_MMAP_THRESHOLD_="131072") > 10 * 4096


def state(folder):
    return code_state(folder)[0]


def test_the_code_tells_revision_and_dirt(tmp_path):
    assert state(tmp_path) == {}
    run = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*run, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*run, "add", "."], check=True)
    subprocess.run([*run, "commit", "-qm", "one"], check=True)
    assert state(tmp_path)["dirty"] is False
    assert len(state(tmp_path)["revision"]) == 40
    assert "changes" not in state(tmp_path)
    (tmp_path / "file").write_text("2")
    (tmp_path / "notes.txt").write_text("neither is code or config")
    assert state(tmp_path)["dirty"] is False
    (tmp_path / "new.py").write_text("3")
    assert state(tmp_path)["dirty"] is True
    assert state(tmp_path)["changes"] == hashlib.sha256(code_state(tmp_path)[1]).hexdigest()


def test_code_inside_somebody_elses_checkout_has_no_revision(tmp_path, monkeypatch):
    """As an environment has it below a project, or a copy in a subfolder: theirs is not the revision of this code."""
    run = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    inside = tmp_path / "venv" / "site-packages"
    inside.mkdir(parents=True)
    (inside / "a.py").write_text("1")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*run, *arguments], check=True)
    (inside / "a.py").write_text("2")
    assert state(inside) == {}
    assert code_state(inside)[1] == b""
    assert state(tmp_path)["dirty"] is True
    link = tmp_path.parent / f"{tmp_path.name}_link"
    link.symlink_to(tmp_path)
    assert state(link) == state(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # as git sets it for what its hooks call
    assert state(inside) == {}


def test_uncommitted_code_can_be_brought_back(tmp_path):
    assert code_state(tmp_path) == ({}, b"")
    there, clone = tmp_path / "there", tmp_path / "clone"
    (there / "engine").mkdir(parents=True)
    (there / "tests").mkdir()
    run = ["git", "-C", str(there), "-c", "user.name=a", "-c", "user.email=a@b"]
    (there / "engine" / "a.py").write_text("one = 1\n")
    (there / "gone.yaml").write_text("old: 1\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["clone", "-q", ".", str(clone)]):
        subprocess.run([*run, *arguments], check=True)
    (there / "engine" / "a.py").write_text("one = 2\n")
    (there / "engine" / "neü b.py").write_text("two = 2\n")
    (there / "gone.yaml").unlink()
    (there / "notes.txt").write_text("no code")
    (there / "tests" / "test_a.py").write_text("")
    _, patch = code_state(there)
    subprocess.run(["git", "-C", str(clone), "apply"], input=patch, check=True)
    assert (clone / "engine" / "a.py").read_text() == "one = 2\n"
    assert (clone / "engine" / "neü b.py").read_text() == "two = 2\n"
    assert sorted(path.name for path in clone.rglob("*.*") if ".git" not in path.parts) == ["a.py", "neü b.py"]


def test_provenance_names_what_ran(monkeypatch):
    record, _ = provenance()
    assert record["packages"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert record["hardware"]["threads"] == torch.get_num_threads()
    assert record["hardware"]["instructions"] == torch.backends.cpu.get_cpu_capability()
    monkeypatch.setattr(reproducibility, "RECORDED_PACKAGES", ("no-such-package",))
    assert provenance()[0]["packages"] == {}


def test_peak_memory_grows_with_what_is_held():
    """In a process of its own, since a peak never falls; under a shell, since Linux hands it on to what is executed."""
    code = (
        "import torch; from harness.record.reproducibility import peak_memory\n"
        "before = peak_memory(torch.device('cpu'))['process_bytes']\n"
        "held = torch.ones(50_000_000)\n"
        "print(peak_memory(torch.device('cpu'))['process_bytes'] - before)"
    )
    command = ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, code]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert 0.9 * 4 * 50_000_000 < int(said) < 2 * 4 * 50_000_000


def test_only_a_gpu_counts_its_peak_anew(monkeypatch):
    devices = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", devices.append)
    reproducibility.reset_peak_memory(torch.device("cpu"))
    reproducibility.reset_peak_memory(torch.device("cuda", 1))
    assert devices == [torch.device("cuda", 1)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_of_a_gpu_is_that_of_the_run():
    device = torch.device("cuda")
    held = torch.ones(50_000_000, device=device)
    del held
    reproducibility.reset_peak_memory(device)
    assert reproducibility.peak_memory(device)["device_bytes"] < 4 * 50_000_000

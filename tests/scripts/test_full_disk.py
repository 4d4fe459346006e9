"""Whatever a command writes: on a full disk it ends with one sentence, and what was there before is unharmed."""

import errno
import os
import sys

import pytest
from loaded_script import loaded
from PIL import Image

from harness import files

RUNS = {  # a command on a run: what it writes, and its arguments
    "a page of runs": ("report", "page.html", ["{run}", "--html", "{out}"]),
    "figures of runs": (
        "report",
        "glyphs-stand-in_curves.png",
        ["{run}", "--html", "{other}", "--figures", "{folder}"],
    ),
    "a figure": ("figures", "retrievals.png", ["retrievals", "--run", "{run}", "--out", "{folder}"]),
    "a figure of no run": ("figures", "landscape.svg", ["landscape", "--out", "{folder}"]),
    "a table": ("table", "demo.md", ["demo", "--no-run", "--runs", "{run}", "--out", "{folder}"]),
    "embeddings": ("embed", "found.npz", ["{run}", "{pictures}", "--out", "{out}", "--force"]),
    "a model": ("export", "model", ["{run}", "--to", "safetensors", "--out", "{folder}/other"]),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(2):
        Image.new("RGB", (16, 16), (number, 9, 9)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_a_full_disk_ends_a_command_with_a_sentence(name, runs_of, pictures, tmp_path, monkeypatch, capsys):
    script, file, arguments = RUNS[name]
    run, folder = runs_of("demo_rambo"), tmp_path / "written"
    folder.mkdir()
    (folder / file).write_text("before")
    places = {"run": run, "folder": folder, "out": folder / file, "other": tmp_path / "x.html", "pictures": pictures}
    words = [argument.format(**places) for argument in arguments]

    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    with pytest.raises(SystemExit) as end:
        loaded(script).main()
    assert str(end.value.code).startswith("error: could not write ")
    assert "(No space left on device)" in str(end.value.code)
    assert "\n" not in str(end.value.code)
    assert (folder / file).read_text() == "before"
    assert [path.name for path in folder.iterdir()] == [file]

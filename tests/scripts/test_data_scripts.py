import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from loaded_script import loaded

from harness.data.download import RemoteFile
from rambo.datasets.cub import CUB200
from rambo.datasets.fixture import write_cub, write_inshop, write_omniglot
from rambo.datasets.inshop import InShop
from rambo.datasets.omniglot import Omniglot

SCRIPTS = Path(__file__).parents[2] / "scripts"


download, fixture = loaded("download"), loaded("fixture")


def test_complete_data_are_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(CUB200, "expected", {})
    root = write_cub(tmp_path / "cub")
    assert download.main(["cub", "--root", str(root)]) == 0
    expected = f"CUB-200-2011 is complete in {root}: train 48 samples, 8 classes; test 48 samples, 8 classes\n"
    assert capsys.readouterr().out == expected
    assert download.main(["cub", "--root", str(root), "--verify"]) == 0
    assert capsys.readouterr().out == expected


def test_verify_accepts_every_layout_of_inshop_that_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(InShop, "expected", {})
    root = write_inshop(tmp_path / "inshop")
    inner = root / "In-shop Clothes Retrieval Benchmark"
    if not inner.exists():
        inner.mkdir()
        for part in [path for path in root.iterdir() if path != inner and not path.name.startswith(".")]:
            shutil.move(part, inner / part.name)
    assert download.main(["inshop", "--root", str(root), "--verify"]) == 0, capsys.readouterr().out


def test_verify_names_every_damaged_image(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(CUB200, "expected", {})
    root = write_cub(tmp_path / "cub")
    images = sorted((root / "CUB_200_2011" / "images").rglob("*_0003_*.jpg"))[:2]
    for image in images:
        image.write_bytes(image.read_bytes()[:300])
    assert download.main(["cub", "--root", str(root), "--verify"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert all(f"cannot read the image {image}" in line for image, line in zip(images, told, strict=True))


def test_verify_names_wrong_counts_and_wrong_hashes(tmp_path, capsys):
    root = write_omniglot(tmp_path / "omniglot")
    assert download.main(["omniglot", "--root", str(root), "--verify"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert "images_background_small1.zip has " in told[0]
    assert "expected 1,319,022" in told[0]
    assert "images_background_small2.zip has " in told[1]
    assert "it is damaged, or another split; remove it and run: python scripts/download.py omniglot" in told[2]


def test_absent_data_are_said_to_be_absent(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("RANKING_DATA", str(tmp_path))
    assert download.main(["sop", "--verify"]) == 1
    assert f"no Stanford Online Products in {tmp_path / 'sop'}" in capsys.readouterr().out


def test_inshop_says_what_to_do_and_takes_what_was_put_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(InShop, "expected", {})
    root = tmp_path / "inshop"
    assert download.main(["inshop", "--root", str(root)]) == 1
    error = capsys.readouterr().err
    assert "under an agreement" in error
    assert f"put img.zip into {root}/Img and list_eval_partition.txt into {root}/Eval" in error

    made = write_inshop(tmp_path / "made") / "In-shop Clothes Retrieval Benchmark"
    (root / "Img").mkdir(parents=True)
    (root / "Eval").mkdir()
    (made / "Eval" / "list_eval_partition.txt").rename(root / "Eval" / "list_eval_partition.txt")
    shutil.make_archive(str(root / "Img" / "img"), "zip", made / "Img", "img")
    assert download.main(["inshop", "--root", str(root), "--keep-archives"]) == 0
    assert "In-Shop Clothes Retrieval is complete" in capsys.readouterr().out
    assert (root / "Img" / "img.zip").exists()


def test_a_failed_download_ends_with_its_reason_and_status_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Omniglot, "files", (RemoteFile("x.zip", urls=("http://127.0.0.1:9/x.zip",)),))
    assert download.main(["omniglot", "--root", str(tmp_path)]) == 1
    assert "cannot download x.zip (http://127.0.0.1:9/x.zip: " in capsys.readouterr().err


def test_an_interrupted_download_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "obtain", interrupted)
    assert download.main(["omniglot", "--root", str(tmp_path)]) == 130
    assert "run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["mnist"], ["cub", "--no-such-option"]])
@pytest.mark.parametrize("module", [download, fixture], ids=["download", "fixture"])
def test_wrong_usage_shows_the_choices(arguments, module, capsys):
    with pytest.raises(SystemExit) as ended:
        module.main(arguments)
    assert ended.value.code == 2
    assert "cub" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["cub", "cub_crops", "sop", "inshop", "omniglot", "folder"])
def test_fixture_says_where_it_wrote(tmp_path, capsys, layout, monkeypatch):
    monkeypatch.setenv("RANKING_DATA", str(tmp_path))
    assert fixture.main([layout]) == 0
    assert capsys.readouterr().out == f"{tmp_path / f'{layout}_fixture'}\n"
    assert (tmp_path / f"{layout}_fixture").is_dir()


def test_fixture_on_a_place_that_is_no_folder(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert fixture.main(["cub", str(tmp_path / "file" / "cub")]) == 1
    assert "file" in capsys.readouterr().err


def test_scripts_run_from_anywhere_without_installation(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, SCRIPTS / "fixture.py", "folder", tmp_path / "things"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "things_fixture")


# No size or hash of these is published; what is in them is checked after unpacking, or by git's own hash.
UNHASHED = {"imdb_wiki.csv", "imdb_crop.tar", "wiki_crop.tar", "BCCD_Dataset.zip", "vision.zip"}


def test_the_addresses_are_complete():
    for kind in download.DATA.values():
        assert kind.files
        for file in kind.files:
            assert all(url.startswith(("http", "ftp")) for url in file.urls)
            if not file.urls:
                assert "agreement" in kind.by_hand
            elif file.name not in UNHASHED:
                assert file.size
                assert len(file.sha256 or "") == 64

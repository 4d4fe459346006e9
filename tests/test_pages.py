"""README, docs/ and the docstrings as pages."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_pages_are_built_without_a_warning_and_show_docstrings(tmp_path):
    for module in ("material", "mkdocstrings_handlers.python"):
        pytest.importorskip(module, reason="optional extra: docs")
    for name in ("Makefile", "mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("docs", "benchmarks", "harness", "rambo", "ranksim"):
        (tmp_path / name).symlink_to(ROOT / name)
    made = ["make", "docs", "READY=", f"BIN={Path(sys.executable).parent}"]
    done = subprocess.run(made, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "build" / "site" / "docs" / "api" / "losses.html").read_text()
    assert 'id="rambo.losses.RecallLoss"' in page
    assert "A patent application" in (tmp_path / "build" / "site" / "index.html").read_text()

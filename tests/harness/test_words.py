"""Whatever a folder is called, the printed command brings it back through the shell and Hydra's grammar."""

import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from harness import words
from harness.record.command_line import interrupted, refusal
from harness.record.composition import CONFIGS

PARSER = OverridesParser.create()
SIGNS = st.text("ab/.~ '\"\\${}[](),=%:!\n#*?1-+&|;<>数", min_size=1, max_size=12)
PATHS = SIGNS | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
PATHS = PATHS.filter(lambda path: path != "???")  # to OmegaConf a missing value, also between quotes


def back(line):
    """What train.py would find under the key."""
    (word,) = shlex.split(line)
    return OmegaConf.create({"given": PARSER.parse_override(word).value()}).given


@given(PATHS)
def test_any_path_comes_back(path):
    assert back(words.line([words.override("data.root", path)])) == path


@pytest.mark.parametrize("value", [1, 1.5, 1e-5, True, None, [1, "a b"], "1e5", "null", "TRUE", ".5", "1_0", ""])
def test_any_value_comes_back_as_what_it_was(value):
    found = back(words.line([words.override("key", value)]))
    assert found == value
    assert type(found) is type(value) or isinstance(value, list)


def test_the_common_case_is_easy_to_read():
    assert words.line([words.override("data.root", "photos/数据")]) == "\"data.root='photos/数据'\""
    assert words.line([words.override("data.root", "photos/birds")]) == "data.root=photos/birds"


@given(SIGNS.filter(lambda path: not path.strip().startswith(("[", "{")) and "'" not in path and '"' not in path))
def test_what_hydra_cannot_read_is_answered_with_the_line_that_it_can(path):
    said = refusal(["experiment=folder_rambo", f"data.root={path}"], CONFIGS)
    if said is not None and "quote it twice: " in said:
        assert back(said.partition("quote it twice: ")[2]) == path.strip()


def test_an_interrupted_run_in_any_folder_is_told_how_to_go_on(tmp_path):
    folder = tmp_path / "it's (1), a=b ~数"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.pt").touch()
    assert back(interrupted(folder=folder).partition("the same command and ")[2]) == str(folder)

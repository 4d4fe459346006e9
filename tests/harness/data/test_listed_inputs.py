"""Which pictures a command is told to read."""

import pytest

from harness.data.inputs import pictures
from harness.data.reading import Images
from harness.data.spreadsheet import read_spreadsheet
from ranksim.datasets.reading import Numbers, SentencePairs


def test_a_folder_a_list_or_a_picture_is_meant(tmp_path):
    names = ["b/2.JPG", "a.png", "b/1.jpeg", ".hidden/3.png", "b/notes.txt"]
    for name in names:
        (tmp_path / "all" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / name).touch()
    wanted = [tmp_path / "all" / name for name in ("a.png", "b/1.jpeg", "b/2.JPG")]
    assert pictures(tmp_path / "all") == wanted
    assert pictures(str(wanted[1])) == wanted[1:2]
    (tmp_path / "list.txt").write_text(f"all/b/2.JPG\n\n{wanted[0]}\n")
    (tmp_path / "list.csv").write_text(f"age;Image\n3;all\\b\\2.JPG\n4;{wanted[0]}\n")
    for name in ("list.txt", "list.csv"):
        assert pictures(tmp_path / name) == [wanted[2], wanted[0]]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone", None, "there is no .*gone; name a picture"),
        ("a.txt", "\n", "a.txt has no picture"),
        ("a.pdf", "", "a.pdf is no picture"),
        ("a.csv", "age\n3\n", "has no column 'path'; its columns are age"),
        ("a.csv", "path,age\n,3\n", "row 1 names no image"),
    ],
)
def test_what_means_no_picture_is_told(name, content, said, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        pictures(tmp_path / name)


@pytest.mark.parametrize("reads", ["table", "numbers", "sentences", "pictures", "images"])
@pytest.mark.parametrize("wrong", ["gone.csv", "a_folder.csv"])
def test_whoever_reads_a_file_that_is_none_says_so_in_a_sentence(reads, wrong, tmp_path):
    """`predict`, `embed`, `evaluate` and `search` in Python as on the command line: no bare error of the system."""
    (tmp_path / "a_folder.csv").mkdir()
    readers = {
        "table": read_spreadsheet,
        "numbers": Numbers({"a": {"mean": 0.0, "deviation": 1.0}}).listed,
        "sentences": SentencePairs("a\nb").listed,
        "pictures": pictures,
        "images": lambda path: Images().read(path),
    }
    with pytest.raises((OSError, ValueError)) as error:
        readers[reads](tmp_path / wrong)
    said = str(error.value)
    assert wrong in said
    assert not said.startswith("[Errno")
    assert "\n" not in said

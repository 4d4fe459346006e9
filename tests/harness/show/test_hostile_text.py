"""Pages of what strangers wrote: names, notes and settings are text in them, whatever they say."""

import json

import pytest
from made_runs import made
from parsed_page import Page
from PIL import Image

from harness.files import SUM, write_json
from harness.show import neighbours_page, report_page, report_tables
from harness.show.report_facts import warnings
from harness.show.sheet import Line, Sheet, html
from harness.study.results import find_runs, studies

PAYLOAD = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}{%raw%}&lt;b&gt;javascript:alert(3)"
ACTIVE = {"script", "iframe", "object", "embed", "base", "form"}


def harmless(text):
    """Whether a browser would run, fetch or follow nothing of it."""
    page = Page(text)
    assert page.problems == []
    for tag, attributes in page.elements:
        assert tag not in ACTIVE
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "action"):
                assert (value or "#").startswith(("#", "data:"))
    assert "49" not in page.text.replace(PAYLOAD, "")  # no template of theirs was filled in
    return True


def leaves(value, path=()):
    """Where the texts of a JSON value are, and where its keys are."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for key, inner in enumerate(value):
            yield from leaves(inner, (*path, key))
    elif isinstance(value, str):
        yield path


def put(value, path, text):
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = text


@pytest.mark.parametrize("extra", [{}, {"hardware": {"processor": "p", "platform": "l", "gpus": ["g"], "cores": 2}}])
def test_a_report_of_hostile_runs_runs_nothing(tmp_path, extra):
    first = made(tmp_path / "0", 0, 0.5, {"loss.kind": "x"}, ["loss=x"], started="2026-01-01T00:00:00Z", **extra)
    made(tmp_path / "1", 1, 0.6)
    sound = json.loads((first / "report.json").read_text())
    sound.pop(SUM, None)  # a stranger's record has none, or the right one
    where = [path for path in leaves(sound) if path[0] not in ("measures", "started")]
    assert len(where) > 8
    everywhere = json.loads(json.dumps(sound))
    for path in where:
        put(everywhere, path, f"{PAYLOAD} {'.'.join(map(str, path))}")
    write_json(first / "report.json", everywhere)
    notes = [f"left out: {PAYLOAD}"]
    grouped = studies(find_runs([tmp_path]), notes.append)
    assert sum(len(study.runs) for study in grouped) == 2  # none was refused
    said = [*notes, *warnings(grouped, [])]
    text = report_page.write(tmp_path / "page.html", grouped, said, report_tables.Choice()).read_text()
    assert harmless(text)
    assert "&lt;script&gt;" in text


def test_a_page_of_neighbours_with_hostile_names_runs_nothing(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "program.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    shown = [
        neighbours_page.Pictured(str(tmp_path / name), PAYLOAD, PAYLOAD, {PAYLOAD: PAYLOAD})
        for name in ("a.png", "program.jpg", PAYLOAD.replace("/", "_"))
    ]
    neighbours_page.write(tmp_path / "p.html", PAYLOAD, {PAYLOAD: PAYLOAD}, [(shown[0], shown)], [PAYLOAD])
    text = (tmp_path / "p.html").read_text()
    assert harmless(text)
    assert len(Page(text).all("img")) == 2


def test_a_table_of_hostile_words_runs_nothing():
    lines = [Line([PAYLOAD, PAYLOAD], "ours"), Line([PAYLOAD], "group")]
    words = dict.fromkeys(("title", "banner"), PAYLOAD) | {"above": [PAYLOAD], "below": [PAYLOAD]}
    assert harmless(html(Sheet([PAYLOAD, PAYLOAD], lines, command=PAYLOAD, **words)))

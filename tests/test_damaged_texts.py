"""Every reader of a text that somebody else wrote: it reads the text, or says in an error of ours which file is bad."""

import json
import re
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.data.image_list import image_list
from harness.data.inputs import pictures
from harness.data.spreadsheet import read_spreadsheet
from harness.files import read_json
from harness.record import runs, standalone
from harness.record.composition import CONFIGS
from harness.record.restored import recorded
from harness.show.figures import recorded_curve
from harness.study.fair_file import Fair
from harness.study.tables import Table
from rambo.datasets.listing import from_table
from rambo.detection.coco import COCOStyle
from rambo.detection.data import VOCStyle
from rambo.detection.fixture import SHAPES, write_coco, write_flat, write_yolo
from rambo.detection.yolo import YOLOStyle
from ranksim.datasets.table import TableData

ERRORS = (ValueError, FileNotFoundError)
TABLE = "path,label,split,crop\na b.png,robin,train,\nb.png,robin,train,0 0 5 5\n'c.png',wren,test,\nd.png,wren,test,\n"
NUMBERS = "price;rooms;city\n" + "".join(f"{k},5;{k % 4};{'abc'[k % 3]}\n" for k in range(60))
REPORT = {
    "config": {"seed": 0, "loss": {"_target_": "rambo.losses.RecallLoss"}},
    "data": {"name": "birds", "fingerprint": "a" * 64, "train": {"images": 7}},
    "results": {"last": {"epoch": 2, "metrics": {"test/recall@1": 0.5}}},
}
CONFIG = "seed: 0\nloss:\n  _target_: rambo.losses.RecallLoss\n  margin: 0.1\ndata: {root: data, size: [1, 2]}\n"
LINES = "".join(json.dumps({"step": k, "epoch": k, "loss": 0.5 / (k + 1)}) + "\n" for k in range(9))
FACTS = {"format": 1, "model": {"_target_": "torch.nn.Identity"}, "epoch": 3, "reader": {}}


def report_of(path):
    return runs.read_report(path.parent), runs.data_of(path.parent)


def table_of(path):
    return TableData(path.parent, path.name, "price", bins=5, split="random", categories=["city"], missing="mean")


TEXTS = {  # what is read: its name, a sound text, and the reader
    "spreadsheet": ("t.csv", TABLE, read_spreadsheet),
    "tab": ("t.tsv", TABLE.replace(",", "\t"), read_spreadsheet),
    "images with classes": ("t.csv", TABLE, from_table),
    "list of images": ("t.txt", "a.png\nfolder/b.png\n../c.png\n", pictures),
    "table of images": ("t.csv", TABLE, image_list),
    "targets": ("t.csv", NUMBERS, table_of),
    "JSON of a run": ("began.json", json.dumps(REPORT), read_json),
    "report": ("report.json", json.dumps(REPORT), report_of),
    "what a run began with": ("began.json", json.dumps(REPORT), lambda path: runs.data_of(path.parent)),
    "config of a run": ("config.yaml", CONFIG, lambda path: runs.read_config(path.parent)),
    "why it stopped": ("stopped.json", '{"reason": "the loss became nan"}', lambda path: runs.why_stopped(path.parent)),
    "curve": ("metrics.jsonl", LINES, lambda path: recorded_curve(path.parent, "loss")),
    "record": ("metrics.jsonl", LINES, lambda path: recorded(path.parent, "loss")),
    "model.json": ("model.json", json.dumps(FACTS), lambda path: standalone._facts(path.parent)),
    "table of a paper": ("sop.yaml", (CONFIGS / "table/sop.yaml").read_text(), Table.load),
    "fair comparison": ("stsb.yaml", (CONFIGS / "fair/stsb.yaml").read_text(), Fair.load),
}
PIECES = [
    *(
        b"nan",
        b"-1",
        b"1e999",
        b"9" * 400,
        b"9" * 5000,
        b"0x",
        b"1_0",
        b"null",
        b"true",
        b"2020-99-99",
        b"''",
        b'"',
        b"'",
    ),
    *(b"[", b"]", b"{", b"}", b"[" * 3000, b"{a: " * 3000, b'{"a":' * 3000, b":", b"- ", b"? ", b"&a ", b"*a", b"<<: "),
    *(b"\0", b"\n", b"\r", b"\t", b" ", b",", b";", b"|", b"\xff", b"\xff\xfe", b"\xed\xa0\x80", "ü".encode(), b"\\"),
    *(
        b"!!python/object/apply:os.system [id]",
        b"!!binary x",
        b"!!int x",
        b"${oc.env:HOME}",
        b"${a",
        b'sep="\n',
        b"sep=;\r\n",
    ),
    *(b"<", b">", b"&lol;", b"<a>" * 3000, b"</annotation>", b"<![CDATA[", b"../" * 2000, b"x" * 9000, b"/" * 300),
]
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 40), st.one_of(st.sampled_from(PIECES), st.binary(max_size=6))),
    min_size=1,
    max_size=4,
)
often = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)


def edited(text, edits):
    """The text with bytes cut out, and others put in their place."""
    content = text.encode() if isinstance(text, str) else text
    for place, cut, piece in edits:
        start = int(place * len(content))
        content = content[:start] + piece + content[start + cut :]
    return content


def read_or_refused(reader, path):
    """Whether it was read; any other error than ours, or one that does not name the file, fails."""
    try:
        reader(path)
    except ERRORS as error:
        named(path, error)
        return False
    return True


def named(path, error):
    """A file that is missing may be named by its folder."""
    said = str(error)
    assert path.name in said or str(path.parent) in said, repr(error)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


@pytest.mark.parametrize("what", TEXTS)
def test_a_damaged_text_is_read_or_refused_by_name(place, what):
    name, text, reader = TEXTS[what]
    folder = place / re.sub(r"\W", "", what)
    folder.mkdir()
    for picture in ("a.png", "a b.png"):
        (folder / picture).touch()
    path, read = folder / name, []
    path.write_text(text)
    assert read_or_refused(reader, path)

    @settings(often, max_examples=40 if name.endswith(".yaml") else 150)
    @given(EDITS)
    def try_all(edits):
        path.write_bytes(edited(text, edits))
        read.append(read_or_refused(reader, path))

    try_all()
    assert not all(read)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


def places(value, path=()):
    """Where everything in a JSON value is."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def replaced(value, path, other):
    """The value with another one at a place."""
    if not path:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], other)
    return copy


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 96, "height": 72}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [3, 4, 20, 30], "iscrowd": 0}],
    "categories": [{"id": 1, "name": "circle"}],
}


@pytest.mark.parametrize("what", ["report", "what a run began with", "why it stopped", "model.json", "curve", "record"])
def test_json_with_other_values_is_read_or_refused_by_name(place, what):
    name, text, reader = TEXTS[what]
    (folder := place / f"values{re.sub(r'[^a-z]', '', what)}").mkdir()
    sound = json.loads(text.splitlines()[0])
    where = list(places(sound))

    @often
    @given(st.sampled_from(where), VALUES)
    def try_all(at, value):
        (folder / name).write_text(json.dumps(replaced(sound, at, value)) + "\n")
        read_or_refused(reader, folder / name)

    try_all()


# boxes


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """Data of each layout, and one of the files that say where their boxes are."""
    base = tmp_path_factory.mktemp("boxes")
    voc = Path(write_flat(base / "voc", {"": ["train", "test"]}, SHAPES))
    write_coco(base / "coco", {"train": 3, "test": 3}, SHAPES)
    write_yolo(base / "yolo", {"train": 3, "test": 3}, SHAPES)
    sets = {part: [[part, f"annotations/{part}.json"]] for part in ("train", "test")}
    own = VOCStyle(voc, train=["train"], test=["test"], classes=SHAPES)
    return {
        "VOC": (own, sorted(voc.glob("Annotations/*.xml"))[0]),
        "list of VOC": (own, voc / "ImageSets/Main/train.txt"),
        "COCO": (COCOStyle(base / "coco", classes=SHAPES, **sets), base / "coco/annotations/train.json"),
        "YOLO": (YOLOStyle(base / "yolo", classes=SHAPES), sorted((base / "yolo/labels/train").iterdir())[0]),
        "data.yaml": (YOLOStyle(base / "yolo", classes=SHAPES), base / "yolo/data.yaml"),
    }


def told_of(data, error):
    """A class that one file alone has, or lacks, may be told with another file."""
    assert str(data.root) in str(error) or "data.classes" in str(error), repr(error)


@contextmanager
def sound_again(path):
    """What the file at a path holds, which it holds again after."""
    sound = path.read_bytes()
    try:
        yield sound
    finally:
        path.write_bytes(sound)


def try_boxes(data, path, drawn, content):
    """Reads boxes with the file at `path` as `content` makes it of what is drawn; some must be refused."""
    refused = []

    @often
    @given(drawn)
    def try_all(one):
        path.write_bytes(content(one))
        data.declared = ()
        try:
            data.load_parts()
        except ERRORS as error:
            told_of(data, error)
            refused.append(one)

    try_all()
    assert refused


@pytest.mark.parametrize("layout", ["VOC", "list of VOC", "COCO", "YOLO", "data.yaml"])
def test_damaged_annotations_are_read_or_refused_by_name(boxes, layout):
    data, path = boxes[layout]
    with sound_again(path) as sound:
        try_boxes(data, path, EDITS, lambda edits: edited(sound, edits))


def test_coco_with_other_values_is_read_or_refused_by_name(boxes):
    data, path = boxes["COCO"]
    with sound_again(path) as sound:
        said = json.loads(sound)
        drawn = st.tuples(st.sampled_from(list(places(said))), VALUES)
        try_boxes(data, path, drawn, lambda one: json.dumps(replaced(said, *one)).encode())


LAUGHS = "".join(f'<!ENTITY l{k} "{f"&l{k - 1};" * 10}">' for k in range(1, 10))
ENTITIES = {
    "a billion laughs": f'<!DOCTYPE annotation [<!ENTITY l0 "lol">{LAUGHS}]><annotation>&l9;</annotation>',
    "one laugh": '<!DOCTYPE annotation [<!ENTITY l "lol">]><annotation>&l;</annotation>',
    "a file": '<!DOCTYPE annotation [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation>&f;</annotation>',
    "an address": '<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/a.dtd"><annotation>&f;</annotation>',
    "parameters": '<!DOCTYPE annotation [<!ENTITY % p SYSTEM "http://127.0.0.1:9/a.dtd"> %p;]><annotation/>',
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("kind", ENTITIES)
def test_xml_with_entities_is_refused(boxes, kind, encoding):
    data, path = boxes["VOC"]
    with sound_again(path):
        path.write_bytes(ENTITIES[kind].encode(encoding))
        with pytest.raises(ValueError, match=rf"{path.name} is not XML that can be read \(.*entit"):
            data.load_parts()


REPEATED = "a0: &a0 [lol, lol]\n" + "".join(f"a{k}: &a{k} [{f'*a{k - 1}, ' * 9}]\n" for k in range(1, 12))


@pytest.mark.parametrize("reader", ["table of a paper", "fair comparison", "config of a run"])
def test_yaml_that_repeats_itself_without_end_is_refused(tmp_path, reader):
    name, _, read = TEXTS[reader]
    (tmp_path / name).write_text(REPEATED)
    assert not read_or_refused(read, tmp_path / name)


def test_yaml_of_yolo_that_repeats_itself_is_refused(boxes):
    data, path = boxes["data.yaml"]
    with sound_again(path):
        path.write_text(REPEATED + "names: *a11\ntrain: images/train\n")
        with pytest.raises(
            ValueError, match=r"data.yaml is not YAML that can be read \(it refers to another part of itself"
        ):
            data.load_parts()

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rambo.detection import pictures as figures
from rambo.detection.pictures import DetectionPictures

PNG = b"\x89PNG"


def boxes(*corners, labels=None):
    return {
        "boxes": torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels or [1] * len(corners), dtype=torch.int64),
    }


def picture(height=20, width=30):
    return torch.full((3, height, width), 90, dtype=torch.uint8)


def size(path):
    """Width and height as the PNG's first chunk has them."""
    content = path.read_bytes()
    assert content.startswith(PNG)
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_curves_start_at_recall_zero_and_are_returned_by_class_and_method(tmp_path):
    curve = torch.tensor([[0.5, 0.5, 1.0], [1.0, 0.5, 2 / 3]], dtype=torch.float64)
    nothing = torch.zeros(2, 0, dtype=torch.float64)
    curves = {"cat": {"RaMBO": curve, "cross-entropy": nothing}, "dog": {"cross-entropy": curve}}
    drawn = figures.precision_recall(tmp_path / "curves.png", curves)
    expected = [[0, 0.5, 0.5, 1], [1, 1, 0.5, pytest.approx(2 / 3)]]
    assert {name: list(lines) for name, lines in drawn.items()} == {"cat": ["RaMBO"], "dog": ["cross-entropy"]}
    assert drawn["cat"]["RaMBO"].tolist() == drawn["dog"]["cross-entropy"].tolist() == expected
    assert size(tmp_path / "curves.png")


def test_many_classes_take_more_rows_of_panels(tmp_path):
    curve = torch.tensor([[1.0], [1.0]])
    heights = []
    for count in (5, 20):
        figures.precision_recall(tmp_path / "many.png", {f"class {k}": {"a": curve} for k in range(count)})
        heights.append(size(tmp_path / "many.png")[1])
    assert heights[1] > 2.5 * heights[0]


def test_styles_tell_kinds_apart_by_line_as_well():
    colours, lines = zip(*figures.BOX_STYLES.values(), strict=True)
    assert len(set(colours)) == len(set(lines)) == 3


def data_of(images, truth, classes):
    easy = [{**entry, "difficult": torch.zeros(len(entry["labels"]), dtype=torch.bool)} for entry in truth]
    return SimpleNamespace(ground_truth=easy, classes=classes, image=lambda index: images[index])


def found(*scored, labels=None):
    return {**boxes(*(box for box, _ in scored), labels=labels), "scores": torch.tensor([score for _, score in scored])}


def test_boxes_of_every_kind_are_drawn_and_counted(tmp_path, monkeypatch):
    placed = []
    draw = figures._draw_box
    monkeypatch.setattr(figures, "_draw_box", lambda axes, *rest: (placed.append(rest), draw(axes, *rest)))
    truth = [boxes([1, 2, 8, 9], [3, 3, 6, 6], [0, 0, 2, 2], labels=[2, 1, 1]), boxes([5, 5, 9, 9])]
    answers = [found(([1, 2, 8, 9], 0.7), labels=[2]), found(([5, 5, 9, 9], 0.9), ([0, 0, 30, 20], 0.5))]
    data = data_of([picture(), picture(40, 10)], truth, ["cat", "dog"])
    counts = figures.detections(tmp_path / "found.png", answers, data)
    assert counts == {"right": 2, "wrong": 1, "missed": 2}
    assert placed[0] == ([1, 2, 8, 9], "dog", "right")
    assert [(name, kind) for _, name, kind in placed[1:]] == [
        ("cat", "missed"), ("cat", "missed"), ("cat", "right"), ("cat", "wrong"),
    ]  # fmt: skip
    assert size(tmp_path / "found.png")


def test_the_picture_bears_the_boxes_where_they_belong(tmp_path):
    """Of two otherwise equal pictures only one has a box, and they differ around it alone."""
    from matplotlib.image import imread

    shown = {}
    for name, there in [("with", boxes([2, 3, 28, 6])), ("without", boxes())]:
        figures.detections(tmp_path / f"{name}.png", [found()], data_of([picture(30, 30)], [there], ["x"]))
        shown[name] = torch.from_numpy(imread(tmp_path / f"{name}.png")[..., :3].copy())
    rows = (shown["with"] != shown["without"]).any(2).any(1).nonzero()[:, 0]
    height = len(shown["with"])
    body = rows[rows > height // 5]  # below the legend, which counts the box
    assert len(body)
    assert body.max() < height // 2  # the box ends at 6 of 30


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="no class"):
        figures.precision_recall(tmp_path / "a.png", {})
    with pytest.raises(ValueError, match="8 methods cannot be told apart"):
        figures.precision_recall(tmp_path / "a.png", {"cat": {f"m{k}": torch.ones(2, 1) for k in range(8)}})
    assert not list(tmp_path.iterdir())


class Scenes(torch.utils.data.Dataset):
    """Eight pictures with a cat each; the dogs are all difficult."""

    classes = ("cat", "dog")

    def __init__(self):
        entry = {**boxes([2, 2, 12, 12], [15, 5, 25, 15], labels=[1, 2]), "difficult": torch.tensor([False, True])}
        self.ground_truth = [entry] * 8
        self.seen = []

    def __len__(self):
        return 8

    def image(self, index):
        self.seen.append(index)
        return picture()

    def __getitem__(self, index):
        return index


class Finder(nn.Module):
    """Finds the cat of pictures of an even number."""

    def forward(self, batch):
        scores = torch.tensor([0.5])
        answers = (
            boxes([2, 2, 12, 12]) if index % 2 == 0 else boxes([0, 0, 3, 3]) for index in batch["index"].tolist()
        )
        return [{**answer, "scores": scores} for answer in answers]


def test_a_picture_of_no_image_is_refused():
    with pytest.raises(ValueError, match="at least 1 image"):
        DetectionPictures(shown=0)


def test_a_run_leaves_both_pictures_of_a_split(tmp_path, monkeypatch):
    drawn = {}
    for name in ("precision_recall", "detections"):
        original = getattr(figures, name)

        def kept(path, *arguments, name=name, original=original):
            drawn[name] = (arguments, original(path, *arguments))

        monkeypatch.setattr(figures, name, kept)
    loader = torch.utils.data.DataLoader(Scenes(), batch_size=3, collate_fn=lambda i: {"index": torch.tensor(i)})
    paths = DetectionPictures(shown=3)(Finder(), loader, tmp_path, "test")
    assert paths == {name: tmp_path / f"{name}_test.png" for name in ("precision_recall", "detections")}
    assert all(size(path) for path in paths.values())
    _, curves = drawn["precision_recall"]
    assert list(curves) == ["cat"]  # no dog counts
    assert curves["cat"]["test"].shape == (2, 9)
    (_, data, shown), counts = drawn["detections"]
    assert (data, shown) == (loader.dataset, 3)
    assert loader.dataset.seen == [0, 4, 7]  # 3.5 is rounded to even
    assert counts == {"right": 2, "wrong": 1, "missed": 1}

import json

import pytest
import torch
from torch import nn

from harness.show.figures import learning_curves
from rambo.evaluation import Embedded
from rambo.figures import loss_landscape, neighbours_of_some, retrieval_grid
from rambo.pictures import RetrievalPictures
from rambo.ranking import ranks

PNG = b"\x89PNG"


class Pictures(torch.utils.data.Dataset):
    """Six flat pictures of two classes, whose brightness is their place."""

    labels = (0, 0, 0, 1, 1, 1)

    def __len__(self):
        return 6

    def image(self, index):
        return torch.full((3, 4, 4), 40 * index, dtype=torch.uint8)

    def __getitem__(self, index):
        return {"image": self.image(index), "label": self.labels[index], "index": index}


class Brightness(nn.Module):
    def forward(self, batch):
        angle = batch["image"].float().mean((1, 2, 3)) / 200
        return torch.stack([angle.cos(), angle.sin()], dim=1)


def loader():
    return torch.utils.data.DataLoader(Pictures(), batch_size=4)


def test_the_landscape_at_tiny_lambda_is_the_loss_itself(tmp_path):
    surfaces = loss_landscape(tmp_path / "a.png", interpolations=(1e-9, 8.0), resolution=12)
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    import numpy as np

    draws = np.random.RandomState(45)  # the recipe of the authors' notebook, written out
    u, v, g = draws.rand(7), draws.rand(2, 7), draws.rand(7) + 1
    heights = [
        [float((ranks(torch.tensor(20 * u + 30 * (a * v[0] + b * v[1]))).double() / 7 * torch.tensor(g)).sum())
         for b in np.linspace(0, 1, 12)]
        for a in np.linspace(0, 1, 12)
    ]  # fmt: skip
    expected = torch.tensor(heights) - min(map(min, heights))
    assert torch.allclose(surfaces[1e-9], expected.double(), atol=1e-6)
    assert len(surfaces[1e-9].mul(1e6).round().unique()) < len(surfaces[8.0].mul(1e6).round().unique())


def test_the_grid_shows_the_neighbours_and_counts_the_right_ones(tmp_path):
    # Queries 0, 2 and 5, two neighbours each: 0 finds 1, 2 (both right), 2 finds 1 and 3 (one right), 5 finds 4 and 3.
    share = retrieval_grid(tmp_path / "grid.png", Brightness(), loader(), queries=3, shown=2)
    assert share == pytest.approx(5 / 6)
    assert (tmp_path / "grid.png").read_bytes().startswith(PNG)


def test_query_and_gallery_roles_are_respected():
    embeddings = nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), dim=1)
    data = Embedded(embeddings, torch.tensor([0, 0, 1, 1]), torch.arange(4), torch.tensor([1, 2, 2, 1]))
    asking, found = neighbours_of_some(data, queries=8, shown=1)
    assert asking.tolist() == [0, 3]
    assert found.tolist() == [[1], [2]]


def test_a_run_leaves_the_grid_of_a_split(tmp_path):
    paths = RetrievalPictures()(Brightness(), loader(), tmp_path, "test")
    assert paths == {"retrievals": tmp_path / "retrievals_test.png"}
    assert paths["retrievals"].exists()


def record(folder, values):
    folder.mkdir()
    lines = [{"step": 0, "step/loss": 1.0}]
    lines += [{"step": e, "epoch": e, "test/recall@1": value} for e, value in values.items()]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_curves_are_read_from_the_record(tmp_path):
    runs = [record(tmp_path / "a", {0: 0.1, 1: 0.5}), record(tmp_path / "b", {0: 0.2, 1: 0.7})]
    drawn = learning_curves(tmp_path / "curves.png", {"RaMBO": runs}, "test/recall@1", "recall@1")
    assert drawn["RaMBO"].tolist() == [[0.1, 0.5], [0.2, 0.7]]
    assert (tmp_path / "curves.png").read_bytes().startswith(PNG)


def test_curves_of_different_epochs_have_no_mean(tmp_path):
    runs = [record(tmp_path / "a", {0: 0.1, 1: 0.5}), record(tmp_path / "b", {0: 0.2})]
    with pytest.raises(ValueError, match="RaMBO were not evaluated at the same epochs"):
        learning_curves(tmp_path / "curves.png", {"RaMBO": runs}, "test/recall@1", "recall@1")

import math
import sys

import pytest
import torch

from rambo.figures.projection import embedding_projection, principal_components

PNG = b"\x89PNG"


def rows(count=40, dimensions=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, dimensions, generator=generator, dtype=torch.float64) * torch.arange(1, dimensions + 1)


def test_components_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.decomposition")
    data = rows()
    theirs = sklearn.PCA(2).fit(data.numpy())
    points, explained = principal_components(data)
    assert explained == pytest.approx(tuple(theirs.explained_variance_ratio_))
    assert torch.allclose(points.abs(), torch.from_numpy(theirs.transform(data.numpy())).abs(), atol=1e-9)


def test_a_plane_keeps_its_distances():
    flat = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    turned = flat @ torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    points, explained = principal_components(turned)
    assert sum(explained) == pytest.approx(1)
    assert torch.allclose(torch.cdist(points, points), torch.cdist(flat, flat), atol=1e-9)


def test_the_picture_does_not_flip_with_the_order_of_images():
    data, order = rows(), torch.randperm(40, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(principal_components(data)[0][order], principal_components(data[order])[0])


def test_one_dimension_and_no_variance_have_a_picture_as_well(tmp_path):
    labels = torch.arange(6) % 2
    line = embedding_projection(tmp_path / "a.png", torch.arange(6.0)[:, None], labels)
    assert line.explained == (1, 0)
    assert line.points[:, 1].abs().max() == 0
    assert line.points[:, 0].abs().tolist() == pytest.approx([2.5, 1.5, 0.5, 0.5, 1.5, 2.5])
    collapsed = embedding_projection(tmp_path / "b.png", torch.ones(6, 3), labels)
    assert collapsed.points.abs().max() == 0
    assert collapsed.explained == (0, 0)


def test_classes_are_spread_evenly_over_the_labels(tmp_path):
    labels = torch.arange(63) % 21
    found = embedding_projection(tmp_path / "a.png", rows(63), labels, classes=5, names={0: "Ж", 5: "a" * 80})
    assert torch.unique(found.labels).tolist() == [0, 5, 10, 15, 20]
    assert torch.equal(found.labels, labels[found.indices])
    assert found.points.shape == (15, 2)
    expected, _ = principal_components(rows(63)[found.indices])
    assert torch.allclose(found.points, expected)
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_neighbourhoods_by_scikit_learn(tmp_path):
    pytest.importorskip("sklearn")
    labels = torch.arange(12) % 2
    apart = rows(12) / 100 + 50.0 * labels[:, None]
    found = embedding_projection(tmp_path / "a.svg", apart, labels, method="tsne")
    assert all(math.isnan(share) for share in found.explained)
    distances = torch.cdist(found.points, found.points).fill_diagonal_(math.inf)
    assert torch.equal(labels[distances.argmin(1)], labels)


def test_refusals(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    monkeypatch.setitem(sys.modules, "sklearn.manifold", None)
    data, labels = rows(6), torch.arange(6) % 2
    with pytest.raises(ModuleNotFoundError, match="pip install umap-learn"):
        embedding_projection(tmp_path / "a.png", data, labels, method="umap")
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        embedding_projection(tmp_path / "a.png", data, labels, method="tsne")
    with pytest.raises(ValueError, match="method must be one of pca, tsne, umap, got 'lda'"):
        embedding_projection(tmp_path / "a.png", data, labels, method="lda")
    with pytest.raises(ValueError, match="1 to 7 classes"):
        embedding_projection(tmp_path / "a.png", data, labels, classes=8)
    with pytest.raises(ValueError, match="three images at least, got 2"):
        embedding_projection(tmp_path / "a.png", data[:2], labels[:2])
    assert not list(tmp_path.iterdir())

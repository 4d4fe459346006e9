"""Searches that never hold all scores, and embeddings that need not fit into memory: equal to those that do."""

import errno
import sys
import tempfile

import numpy
import pytest
import torch
from spawned import processes
from torch import nn
from torch.utils.data import DataLoader

from harness.data.loading import EvaluationShare
from harness.files import WriteError
from harness.train import rows
from rambo import blocks, neighbours
from rambo.evaluation import RetrievalMetrics
from rambo.metrics import retrieval_metrics
from rambo.search import search

ITEMS = 97


def vectors(items=ITEMS, seed=0, levels=None):
    drawn = torch.randn(items, 6, generator=torch.Generator().manual_seed(seed))
    return nn.functional.normalize(drawn, dim=1) if levels is None else drawn.mul(levels).round()


class Points(torch.utils.data.Dataset):
    """Vectors, some of them equal, in ten classes; with roles, queries and gallery are mixed."""

    def __init__(self, roles):
        self.vectors, self.roles = vectors(), roles
        self.vectors[50:60] = self.vectors[:10]

    def __len__(self):
        return ITEMS

    def __getitem__(self, index):
        role = {"alike": 0, "mixed": index % 3, "apart": 1 + (index > 30)}[self.roles]
        return {"image": self.vectors[index], "label": index % 10, "index": index, "role": role}


class Itself(nn.Module):
    def forward(self, batch):
        return batch["image"]


def measured(roles, shared=False, **options):
    sampler = EvaluationShare(ITEMS, 8) if shared else None
    loader = DataLoader(Points(roles), batch_size=8, sampler=sampler)
    return RetrievalMetrics(recall_at=[1, 5], **options)(Itself(), loader)


@pytest.mark.parametrize("roles", ["alike", "mixed", "apart"])
def test_embeddings_in_a_file_give_the_same_numbers_to_the_last_bit(roles, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = []
    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: made.append(real()) or made[-1])
    inside = measured(roles)
    assert not made
    for memory in (0, 500, "1 KiB"):
        assert measured(roles, memory=memory) == inside
    assert made
    assert measured(roles, memory=0, map=True) == measured(roles, map=True)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence(monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with pytest.raises(WriteError, match=r"No space left on device.*: free some space, set TMPDIR .* metrics.memory"):
        measured("alike", memory=100)


def test_memory_is_bytes_or_a_unit():
    assert [rows.bytes_of(memory) for memory in (0, 1e3, "7", "1.5 KiB", "2GiB")] == [0, 1000, 7, 1536, 2 * 2**30]
    assert rows.bytes_of(None) > 2**20
    for bad in ("two", "2 GB", -1, True, "1 KiB more"):
        with pytest.raises(ValueError, match="must be a number of bytes, or such as 500 MiB or 2 GiB"):
            rows.bytes_of(bad)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(("columns", "queries"), [(1, 97), (7, 97), (33, 5), (64, 64), (96, 1), (500, 13)])
def test_a_search_in_blocks_of_any_size_is_a_stable_sort(columns, queries, own, monkeypatch):
    """Integer vectors have many equal scores, and some are there twice."""
    monkeypatch.setitem(blocks.COLUMNS, "cpu", columns)
    monkeypatch.setitem(blocks.BLOCK_BYTES, "cpu", 4 * min(columns, ITEMS) * queries)
    gallery = vectors(levels=1)
    scores = gallery[20:60] @ gallery.T
    positions = torch.arange(20, 60)
    if own:
        scores[torch.arange(40), positions] = -torch.inf
    expected = scores.sort(dim=1, descending=True, stable=True)
    for k in (1, 4, 60):
        found, places = search(gallery[20:60], gallery, k, own_positions=positions if own else None)
        assert torch.equal(found, expected.values[:, :k])
        assert torch.equal(places, expected.indices[:, :k])


def test_a_search_of_a_mapped_file_and_of_other_types(tmp_path):
    gallery = vectors()
    numpy.save(tmp_path / "gallery.npy", gallery.numpy())
    mapped = torch.from_numpy(numpy.load(tmp_path / "gallery.npy", mmap_mode="c"))
    expected = search(gallery[:9], gallery, 5)
    assert all(map(torch.equal, search(mapped[:9], mapped, 5), expected))
    found, places = search(gallery[:9].double(), gallery, 5)
    assert found.dtype == torch.float64
    assert torch.equal(places, expected[1])
    assert torch.equal(search(gallery[:9] * 1e25, gallery * 1e25, 5)[1], expected[1])
    torch.testing.assert_close(search(gallery[:9] * 1e18, gallery * 1e15, 5)[0], expected[0] * 1e33)


def test_equal_items_have_equal_scores_in_all_blocks(monkeypatch):
    gallery = torch.cat([vectors(40), vectors(40), vectors(40)[:17]])
    monkeypatch.setitem(blocks.COLUMNS, "cpu", 13)
    expected = torch.stack([torch.arange(17), torch.arange(17) + 40, torch.arange(17) + 80], dim=1)
    assert torch.equal(search(gallery[:17], gallery, 3)[1], expected)


@pytest.mark.parametrize("few", [0, 2**20])
@pytest.mark.parametrize("recall_at", [[1, 4], [1, 70]])
def test_one_product_for_two_items_changes_no_number(few, recall_at, monkeypatch):
    """In leave-one-out a score serves both of its items, unless too much would have to be kept."""
    torch.manual_seed(0)
    embeddings, labels = vectors(200, levels=3), torch.randint(0, 50, (200,))
    expected = retrieval_metrics(embeddings, labels, embeddings.clone(), labels, own_positions=torch.arange(200))
    deep = retrieval_metrics(embeddings, labels, recall_at=recall_at, map=True)
    for columns, queries in ((200, 200), (128, 64), (75, 31)):
        monkeypatch.setitem(blocks.COLUMNS, "cpu", columns)
        monkeypatch.setitem(blocks.BLOCK_BYTES, "cpu", 4 * columns * queries)
        monkeypatch.setattr(neighbours, "STATE_BYTES", few)
        assert retrieval_metrics(embeddings, labels) == pytest.approx(expected, abs=1e-12)
        found = retrieval_metrics(embeddings, labels, recall_at=recall_at)
        assert found == pytest.approx({name: deep[name] for name in found}, abs=1e-12)


@pytest.mark.parametrize("roles", ["alike", "mixed", "apart"])
def test_faiss_finds_the_same(roles):
    pytest.importorskip("faiss", reason="optional extra: peers")
    assert measured(roles, engine="faiss", memory=0) == pytest.approx(measured(roles), abs=1e-12)
    gallery, integers = vectors(2000), vectors(2000, levels=2)
    for some, kind in ((gallery, torch.float32), (integers, torch.float32), (integers, torch.bfloat16)):
        queries, own = some[100:400].to(kind), torch.arange(100, 400)
        for k in (1, 10):
            found = search(queries, some.to(kind), k, own_positions=own, engine="faiss")
            expected = search(queries, some.to(kind), k, own_positions=own)
            assert torch.equal(found[1], expected[1])
            torch.testing.assert_close(found[0], expected[0])


def test_what_an_engine_cannot_do_is_one_sentence(monkeypatch):
    with pytest.raises(ValueError, match="engine must be one of exact, faiss, got 'annoy'"):
        RetrievalMetrics(engine="annoy")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match="run: pip install faiss-cpu, or use engine=exact"):
        search(vectors(), vectors(), 1, engine="faiss")
    monkeypatch.setitem(sys.modules, "faiss", object())
    with pytest.raises(ValueError, match=r"metrics.map orders the whole list.*: use engine=exact"):
        RetrievalMetrics(map=True, engine="faiss")
    with pytest.raises(ValueError, match="faiss searches in float32, and the queries are float64"):
        search(vectors().double(), vectors(), 1, engine="faiss")


def what_processes_find():
    loader = DataLoader(Points("apart"), batch_size=8, sampler=EvaluationShare(20, 8))  # 20 queries, no gallery
    metrics = RetrievalMetrics()
    with pytest.raises(ValueError, match="evaluation needs queries") as refusal:
        metrics(Itself(), loader)
    return [measured("mixed", shared=True, memory=memory) for memory in (None, 0)], str(refusal.value)


def test_processes_send_the_main_one_their_rows_and_hear_what_it_finds(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(rows, "PIECE_BYTES", 24 * 10)
    alone = measured("mixed")
    for found, refusal in processes(3, what_processes_find, tmp_path):
        assert found == [alone, alone]
        assert refusal.endswith("got 20 and 0 images")

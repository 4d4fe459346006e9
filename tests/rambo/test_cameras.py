"""Retrieval without the query's camera, as in person re-identification: the metrics, and tables that tell cameras."""

import csv

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_listing import listed, opened, pictures
from torch import nn

from rambo import blocks, neighbours
from rambo.evaluation import RetrievalMetrics
from rambo.metrics import retrieval_metrics


def on_line(*places):
    """Unit vectors of which those at near places are near."""
    angles = torch.deg2rad(torch.tensor(places))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def one_by_one(queries, gallery, own, recall_at):
    """The definition, each side as (vectors, labels, cameras): of every query the whole list, sorted, without junk."""
    rows = []
    for place, (query, label, camera) in enumerate(zip(*queries, strict=True)):
        hits = sorted(
            (-float(query @ item), bool(other == label))  # False before True: an irrelevant item first among equals
            for at, (item, other, took) in enumerate(zip(*gallery, strict=True))
            if at != own[place] and not (other == label and took == camera)
        )
        places = [rank for rank, (_, right) in enumerate(hits, start=1) if right]
        if not places:
            continue
        precisions = [(number / rank, rank) for number, rank in enumerate(places, start=1)]
        rows.append({f"recall@{k}": float(places[0] <= k) for k in recall_at})
        rows[-1]["r_precision"] = sum(rank <= len(places) for rank in places) / len(places)
        rows[-1]["map_at_r"] = sum(value for value, rank in precisions if rank <= len(places)) / len(places)
        rows[-1]["map"] = sum(value for value, _ in precisions) / len(places)
    if not rows:
        return None
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    return {**means, "queries_without_match": len(queries[0]) - len(rows)}


def test_values_by_hand():
    embeddings, labels = on_line(0.0, 1.0, 5.0, 8.0, 60.0), torch.tensor([0, 0, 1, 0, 1])
    cameras = torch.tensor([0, 0, 0, 1, 0])
    got = retrieval_metrics(embeddings, labels, query_cameras=cameras, recall_at=[1, 2], map=True)
    # the first two see 5 (wrong) and 8 (right), and not each other; 8 sees 5 (wrong), 1 and 0 (right)
    assert (got["recall@1"], got["recall@2"]) == (0, 1)
    assert got["r_precision"] == pytest.approx((0 + 0 + 1 / 2) / 3)
    assert got["map"] == pytest.approx((1 / 2 + 1 / 2 + (1 / 2 + 2 / 3) / 2) / 3)
    assert got["queries_without_match"] == 2  # those of class 1 were taken by one camera


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    one_set=st.booleans(),
    most=st.tuples(st.integers(1, 6), st.integers(1, 4)),
    sizes=st.tuples(st.integers(1, 9), st.integers(2, 40)),
    columns=st.sampled_from([3, 16, 4096]),
)
def test_equals_the_definition(seed, one_set, most, sizes, columns):
    """With ties, in blocks, of one set and of a gallery that may hold the query, and that under another camera."""
    random = torch.Generator().manual_seed(seed)

    def side(count):
        drawn = (torch.randint(0, kinds, (count,), generator=random) for kinds in most)
        return torch.randint(-2, 3, (count, 3), generator=random).float(), *drawn

    gallery = side(sizes[1])
    queries = gallery if one_set else side(sizes[0])
    own = torch.arange(sizes[1]) if one_set else torch.randint(-1, sizes[1], (sizes[0],), generator=random)
    arguments = (*queries[:2],) if one_set else (*queries[:2], *gallery[:2])
    options = {"recall_at": [1, 3], "query_cameras": queries[2]}
    options |= {} if one_set else {"gallery_cameras": gallery[2], "own_positions": own}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(blocks.COLUMNS, "cpu", columns)
        patch.setitem(blocks.BLOCK_BYTES, "cpu", 4 * 7 * min(columns, sizes[1]))
        patch.setattr(neighbours, "STATE_BYTES", 0 if seed % 2 else 2**20)
        expected = one_by_one(queries, gallery, own, [1, 3])
        if expected is None:
            with pytest.raises(ValueError, match=r"none of the .* check the labels and the cameras"):
                retrieval_metrics(*arguments, **options)
            return
        assert retrieval_metrics(*arguments, **options, map=True) == pytest.approx(expected, abs=1e-12)
        del expected["map"]
        assert retrieval_metrics(*arguments, **options) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("one_set", [True, False])
def test_faiss_finds_the_same(one_set):
    pytest.importorskip("faiss", reason="optional extra: peers")
    random = torch.Generator().manual_seed(0)
    vectors = nn.functional.normalize(torch.randn(400, 6, generator=random), dim=1)
    labels, cameras = torch.arange(400) % 50, torch.randint(0, 3, (400,), generator=random)
    if one_set:
        arguments, options = (vectors, labels), {"query_cameras": cameras}
    else:
        arguments = (vectors[:90], labels[:90], vectors[90:], labels[90:])
        options = {"query_cameras": cameras[:90], "gallery_cameras": cameras[90:]}
    expected = retrieval_metrics(*arguments, **options)
    assert retrieval_metrics(*arguments, **options, engine="faiss") == pytest.approx(expected, abs=1e-12)
    assert expected != retrieval_metrics(*arguments)


def test_each_item_by_a_camera_of_its_own_is_as_without_cameras():
    vectors = nn.functional.normalize(torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    labels = torch.arange(60) // 5
    rerank = {"k1": 6, "k2": 3, "weight": 0.3}
    expected = retrieval_metrics(vectors, labels, map=True, class_means=True, rerank=rerank)
    got = retrieval_metrics(vectors, labels, query_cameras=torch.arange(60), map=True, class_means=True, rerank=rerank)
    assert got == expected


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ({"query_cameras": torch.arange(6)}, "of queries or of the gallery alone"),
        ({"query_cameras": torch.arange(6), "gallery_cameras": torch.arange(5)}, "one integer for each of the 6 label"),
        ({"query_cameras": torch.rand(6), "gallery_cameras": torch.arange(6)}, "one integer .* got torch.float32"),
    ],
)
def test_cameras_that_do_not_fit_are_refused(cameras, message):
    labels = torch.arange(6) // 2
    with pytest.raises(ValueError, match=message):
        retrieval_metrics(torch.eye(6), labels, torch.eye(6), labels, **cameras)


# tables


HEADER = ("path", "label", "split", "role", "Camera")


def persons(root):
    """Six persons, four to be tested on: each before two cameras, twice before the first; queries are by the second."""
    rows = []
    for number, name in enumerate("abcdef"):
        for shot, (camera, role) in enumerate([("north", "gallery"), ("north", "gallery"), ("south", "query")]):
            rows.append((f"{name}/{shot}.png", name, "train" if number < 2 else "test", role, camera))
    pictures(root, *(row[0] for row in rows))
    return rows


def with_cameras(root, rows, header=HEADER, **options):
    with (root / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return opened(root, table="images.csv", camera_column="camera", **options)


class Coded(nn.Module):
    """Answers with a vector for the place of each image in its part."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors = nn.Parameter(vectors)

    def forward(self, batch):
        return self.vectors[batch["index"]]


@pytest.mark.parametrize("roles", [True, False])
def test_a_column_of_cameras_reaches_the_metrics(roles, tmp_path):
    rows = persons(tmp_path)
    if not roles:
        rows = [(*row[:3], "both", row[4]) for row in rows]
    data = with_cameras(tmp_path, rows)
    test = data.parts["test"]
    assert data.parts["train"].cameras is None
    assert test.cameras.tolist() == [0, 0, 1] * 4
    assert data.describe()["test"]["cameras"] == 2
    assert test.answerable().tolist() == ([False, False, True] if roles else [True] * 3) * 4
    vectors = nn.functional.normalize(torch.randn(12, 4, generator=torch.Generator().manual_seed(1)), dim=1)
    asking, found = (test.roles != 2, test.roles != 1) if roles else [torch.ones(12, dtype=torch.bool)] * 2
    own = torch.full((int(asking.sum()),), -1) if roles else torch.arange(12)
    sides = [(vectors[who], test.labels[who], test.cameras[who]) for who in (asking, found)]
    got = RetrievalMetrics(recall_at=[1], map=True)(Coded(vectors), data.evaluation["test"])
    assert got == pytest.approx(one_by_one(*sides, own, [1]), abs=1e-6)


def test_cameras_count_in_the_fingerprint_and_without_the_option_they_are_passed_over(tmp_path):
    rows = persons(tmp_path)
    data = with_cameras(tmp_path, rows)
    assert listed(tmp_path, HEADER, rows).parts["test"].cameras is None
    plain = listed(tmp_path, HEADER[:-1], [row[:-1] for row in rows]).describe()["fingerprint"]
    assert listed(tmp_path, HEADER, rows).describe()["fingerprint"] == plain
    moved = [(*row[:-1], "west" if row[0] == "f/2.png" else row[-1]) for row in rows]
    assert len({plain, data.describe()["fingerprint"], with_cameras(tmp_path, moved).describe()["fingerprint"]}) == 3


def test_classes_held_out_for_validation_are_told_by_camera_too(tmp_path):
    rows = [(*row[:2], "train" if row[1] in "abcd" else "test", "both", row[4]) for row in persons(tmp_path)]
    data = with_cameras(tmp_path, rows, validation_fraction=0.5)
    assert data.parts["validation"].cameras.tolist() == [0, 0, 1] * 2


def test_what_is_lacking_is_one_sentence(tmp_path, caplog):
    rows = persons(tmp_path)
    one = [(*row[:-1], "north") for row in rows]
    with pytest.raises(ValueError, match=r"no query of the test part .* by another camera .* data.camera_column=null"):
        with_cameras(tmp_path, one)
    with pytest.raises(ValueError, match=r"row 3 has no Camera; name what took each image"):
        with_cameras(tmp_path, [*rows[:2], (*rows[2][:-1], ""), *rows[3:]])
    with pytest.raises(ValueError, match="has no column 'camera'; its columns are path, label"):
        with_cameras(tmp_path, [row[:-1] for row in rows], HEADER[:-1])
    with pytest.raises(ValueError, match=r"data.camera_column=camera names a column of a table, and there is none"):
        opened(tmp_path, camera_column="camera")
    caplog.clear()
    with_cameras(tmp_path, [(*row[:-1], "south" if row[1] == "c" else row[-1]) for row in rows])
    assert "1 of 4 test classes in" in caplog.text
    assert "have no image by another camera to find (c)" in caplog.text
    trained = [(*row[:-1], "south" if row[1] in "ab" else row[-1]) for row in rows]
    caplog.clear()
    with_cameras(tmp_path, trained)  # a loss ranks all images of its batch, by whatever camera
    assert "camera" not in caplog.text

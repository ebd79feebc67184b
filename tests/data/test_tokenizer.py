"""Byte-level BPE: exact size, exact bytes, cached by what it was trained on."""

import time

import pytest

from moe_toy.data.domains import TextSource
from moe_toy.data.tokenizer import EOS, Tokenizer, break_words, prepare_tokenizer, train
from moe_toy.errors import UserError

ENGLISH = ["the cat sat on the mat and the dog sat on the log"] * 5
MANY_BYTES = "naïve café, Ελληνικά, 日本語のテキスト, 🙂🙃 and \t tabs\n\n"


class Texts(TextSource):
    """A source of one domain; `version` stands for its content."""

    domains = ("only",)

    def __init__(self, texts=ENGLISH, version="a"):
        self.texts, self.version, self.reads = texts, version, 0

    def check(self): ...

    def prepare(self): ...

    def documents(self, domain, split):
        self.reads += 1
        return iter(self.texts)

    def fingerprint(self):
        return self.version


def prepare(source, root, name=None, vocab_size=270):
    return prepare_tokenizer(source, name=name, vocab_size=vocab_size, sample_bytes=1000, root=root)


def test_the_vocabulary_has_exactly_the_size_asked_for():
    tokenizer = train(ENGLISH, 270)
    assert tokenizer.vocab_size == 270
    assert tokenizer.backend.token_to_id(EOS) == tokenizer.eos_id == 0


@pytest.mark.parametrize("text", [MANY_BYTES, "the cat", " \n ", "\x00\x7f"])
def test_token_bytes_add_up_to_the_utf8_length(text):
    tokenizer = train([*ENGLISH, MANY_BYTES], 280)
    [ids] = tokenizer.encode([text])
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())


def test_characters_split_over_tokens_count_their_bytes_once_each():
    tokenizer = train(ENGLISH, 257)  # bytes only
    [ids] = tokenizer.encode(["日"])
    assert len(ids) == 4  # three bytes and EOS
    assert tokenizer.token_bytes[ids].tolist() == [1, 1, 1, 0]


def test_merges_that_a_file_says_to_drop_at_random_are_kept(tmp_path):
    tokenizer = train(ENGLISH, 270)
    plain = tokenizer.encode(ENGLISH)
    tokenizer.backend.model.dropout = 0.5
    tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode(ENGLISH) == plain


def test_decoding_gives_the_text_back():
    tokenizer = train(ENGLISH, 270)
    [ids] = tokenizer.encode([MANY_BYTES])
    assert tokenizer.decode(ids[:-1]) == MANY_BYTES


def test_every_document_ends_with_exactly_one_eos():
    tokenizer = train(ENGLISH, 270)
    assert [ids.count(0) for ids in tokenizer.encode(["the cat", f"the cat{EOS}", ""])] == [1, 1, 1]


def test_literal_added_tokens_count_their_own_bytes():
    tokenizer = train(ENGLISH, 270)
    tokenizer.backend.add_tokens(["äöü"])
    extended = Tokenizer(tokenizer.backend)
    [ids] = extended.encode(["the äöü"])
    assert extended.token_bytes[ids].sum() == len("the äöü".encode())


def test_it_is_trained_once_and_again_when_the_text_changes(tmp_path):
    source = Texts()
    first = prepare(source, tmp_path)
    assert prepare(source, tmp_path) == first
    assert source.reads == 1
    assert prepare(Texts(version="b"), tmp_path) != first
    assert Tokenizer.load(first).fingerprint == train(ENGLISH, 270).fingerprint


def test_a_file_is_used_as_it_is(tmp_path):
    path = prepare(Texts(), tmp_path)
    assert prepare(Texts(version="b"), tmp_path, name=str(path)) == path


def test_two_tokenizers_of_equal_content_share_a_fingerprint_and_others_do_not():
    assert train(ENGLISH, 270).fingerprint == train(ENGLISH, 270).fingerprint != train(ENGLISH, 271).fingerprint


@pytest.mark.parametrize(
    ("vocab_size", "message"), [(256, "too small; 256 bytes and EOS need 257"), (5000, "too large for this text")]
)
def test_impossible_sizes_are_refused(vocab_size, message):
    with pytest.raises(UserError, match=message):
        train(ENGLISH, vocab_size)


def test_a_full_disk_is_an_error_of_the_system(tmp_path):
    path = prepare(Texts(), tmp_path)
    path.unlink()
    path.with_name(f"{path.name}.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        prepare(Texts(), tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.json: no such file"):
        prepare(Texts(), tmp_path, name=str(tmp_path / "nowhere.json"))


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text("{}")
    with pytest.raises(UserError, match=r"bad.json is not a tokenizer.json"):
        Tokenizer.load(path)


def test_an_unreachable_name_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"data.tokenizer=no/such-name: cannot fetch it") as error:
        prepare(Texts(), tmp_path, name="no/such-name")
    assert "\n" not in str(error.value)


def test_a_tokenizer_without_bytes_is_refused():
    import tokenizers

    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({EOS: 0, "a": 1}, unk_token=EOS))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    with pytest.raises(UserError, match="not byte-level"):
        _ = Tokenizer(words).token_bytes


def test_texts_are_neither_cut_nor_padded_as_a_file_may_ask_for(tmp_path):
    tokenizer = train(ENGLISH, 270)
    wanted = tokenizer.encode(ENGLISH)
    tokenizer.backend.enable_truncation(2)
    tokenizer.backend.enable_padding(length=1000)
    tokenizer.backend.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path / "tokenizer.json").encode(ENGLISH) == wanted


def test_the_name_of_a_special_token_within_a_text_is_text():
    tokenizer = train([*ENGLISH, EOS], 280)
    [ids] = tokenizer.encode([f"the cat{EOS}sat"])
    assert ids.count(tokenizer.eos_id) == 1
    assert ids[-1] == tokenizer.eos_id
    assert tokenizer.token_bytes[ids].sum() == len(f"the cat{EOS}sat")
    assert tokenizer.decode(ids[:-1]) == f"the cat{EOS}sat"


def test_a_document_longer_than_the_sample_is_cut(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("moe_toy.data.tokenizer.train", lambda texts, size: given.extend(texts) or train(ENGLISH, size))
    prepare(Texts(["ä" * 5_000_000]), tmp_path)
    assert [len(text.encode()) for text in given] == [1000]
    assert set(given[0]) == {"ä"}


def test_long_words_do_not_hold_up_training():
    started = time.process_time()
    tokenizer = train(["x" * 400_000 + " " * 400_000, *ENGLISH], 270)
    assert time.process_time() - started < 20  # more than two minutes where a word may be as long as it likes
    assert tokenizer.vocab_size == 270


@pytest.mark.parametrize("text", ["", "a b", "x" * 2500 + " " * 1500 + "y", "x" * 1000])
def test_breaking_words_loses_nothing(text):
    pieces = list(break_words(text))
    assert "".join(pieces) == text
    assert all(len(word) <= 1000 for piece in pieces for word in piece.split())


def test_a_folder_with_a_tokenizer_stands_for_it(tmp_path):
    """Such as a run directory, or that of a Hugging Face model."""
    (tmp_path / "run").mkdir()
    file = tmp_path / "run" / "tokenizer.json"
    train(["one two"] * 5, vocab_size=260).backend.save(str(file))
    assert prepare(Texts(), tmp_path / "cache", name=str(tmp_path / "run")) == file


def test_what_is_no_tokenizer_here_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("dangling", "circle", "gone.json", "folder/gone.json", "a/b/c", "x" * 200, ""):
        with pytest.raises(UserError, match=f"data.tokenizer={name}: no such file"):
            prepare(Texts(), tmp_path / "cache", name=name)
    (tmp_path / "notes").write_text("no tokenizer")
    with pytest.raises(UserError, match=r"notes is not a tokenizer.json"):
        Tokenizer.load(prepare(Texts(), tmp_path / "cache", name="notes"))

"""Token streams: documents in order, each ended by EOS, cut into blocks of any length."""

import pickle
import subprocess
import sys

import pytest

from moe_toy.data.domains import FileDomains
from moe_toy.data.packing import _batches, token_streams, tokenize
from moe_toy.data.tokenizer import train

TEXTS = {"letters": ["a b c", "d e f"], "numbers": ["1 2 3 4"]}


@pytest.fixture
def source(tmp_path):
    for domain, texts in TEXTS.items():
        for split in ("train", "validation"):
            path = tmp_path / "text" / split / f"{domain}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(f'{{"text": "{text}"}}' for text in texts))
    return FileDomains(path=tmp_path / "text", validation_fraction=0.1, max_characters=1000)


@pytest.fixture(scope="module")
def tokenizer():
    return train(["a"], 257)  # one token per byte


def text_of(stream, tokenizer):
    return tokenizer.decode(stream.block(0, stream.num_tokens).tolist())


def test_documents_follow_each_other_ended_by_eos(source, tokenizer, tmp_path):
    tokenize(source, tokenizer, tmp_path)
    letters, numbers = token_streams(source, tokenizer, tmp_path)["train"]
    assert text_of(letters, tokenizer) == "a b c<|endoftext|>d e f<|endoftext|>"
    assert text_of(numbers, tokenizer) == "1 2 3 4<|endoftext|>"


def test_blocks_are_consecutive_and_the_partial_one_is_dropped(source, tokenizer, tmp_path):
    tokenize(source, tokenizer, tmp_path)
    stream = token_streams(source, tokenizer, tmp_path)["train"][0]
    assert (stream.num_tokens, stream.num_blocks(5)) == (12, 2)
    assert [tokenizer.decode(stream.block(i, 5).tolist()) for i in range(2)] == ["a b c", "<|endoftext|>d e "]


def test_a_second_pass_reads_nothing(source, tokenizer, tmp_path, monkeypatch):
    tokenize(source, tokenizer, tmp_path)
    monkeypatch.setattr(source, "documents", lambda *_: pytest.fail("read again"))
    tokenize(source, tokenizer, tmp_path)


def test_another_tokenizer_or_text_goes_to_other_files(source, tokenizer, tmp_path):
    def paths(tokenizer):
        return {stream.path for stream in token_streams(source, tokenizer, tmp_path)["train"]}

    before = paths(tokenizer)
    assert before.isdisjoint(paths(train(["aa"], 258)))
    (tmp_path / "text" / "train" / "letters.jsonl").write_text('{"text": "something else"}')
    assert before.isdisjoint(paths(tokenizer))


def test_an_interrupted_pass_leaves_no_half_stream(source, tokenizer, tmp_path, monkeypatch):
    def broken(domain, split):
        yield "a"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(source, "documents", broken)
        with pytest.raises(KeyboardInterrupt):
            tokenize(source, tokenizer, tmp_path)
    assert not any(stream.path.exists() for stream in token_streams(source, tokenizer, tmp_path)["train"])
    tokenize(source, tokenizer, tmp_path)
    assert text_of(token_streams(source, tokenizer, tmp_path)["train"][1], tokenizer) == "1 2 3 4<|endoftext|>"


def test_large_vocabularies_take_four_bytes_a_token(source, tokenizer, tmp_path):
    tokenizer = train(["a"], 257)
    tokenizer.vocab_size = 2**16 + 1
    tokenize(source, tokenizer, tmp_path)
    stream = token_streams(source, tokenizer, tmp_path)["train"][1]
    assert stream.path.stat().st_size == 4 * stream.num_tokens
    assert text_of(stream, tokenizer) == "1 2 3 4<|endoftext|>"


def test_a_stream_travels_to_workers_without_its_tokens(source, tokenizer, tmp_path):
    tokenize(source, tokenizer, tmp_path)
    stream = token_streams(source, tokenizer, tmp_path)["train"][0]
    assert stream.num_tokens == 12
    assert len(pickle.dumps(stream)) < 500


TOKENIZE = """
import sys
from pathlib import Path
from moe_toy.data.domains import FileDomains
from moe_toy.data.packing import _batches, tokenize
from moe_toy.data.tokenizer import train

root = Path(sys.argv[1])
source = FileDomains(path=root / "text", validation_fraction=0.1, max_characters=1000)
tokenizer = train(["a"], 257)
print("ready", flush=True)
sys.stdin.readline()
tokenize(source, tokenizer, root)
"""


def test_two_processes_at_once_write_whole_streams(source, tokenizer, tmp_path):
    command = [sys.executable, "-c", TOKENIZE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [0, 0]
    streams = token_streams(source, tokenizer, tmp_path)
    assert [text_of(stream, tokenizer) for stream in streams["validation"]] == [
        "a b c<|endoftext|>d e f<|endoftext|>",
        "1 2 3 4<|endoftext|>",
    ]


def test_documents_are_encoded_by_size_not_by_number():
    texts = ["x" * 700_000, "y" * 300_000, "z" * 300_000, "w" * 3_000_000, "v"]
    assert [[text[0] for text in batch] for batch in _batches(iter(texts))] == [["x", "y"], ["z"], ["w"], ["v"]]

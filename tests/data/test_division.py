"""Which documents are for training and which for validation, of a domain that has few."""

import pytest

from moe_toy.data.division import PARTS, divide, hash_of
from moe_toy.data.domains import FileDomains
from moe_toy.errors import UserError


def files(path, fraction=0.05, max_characters=20_000):
    return FileDomains(path=path, validation_fraction=fraction, max_characters=max_characters)


def texts_of(source, domain):
    return {split: list(source.documents(domain, split)) for split in ("train", "validation")}


def paragraphs(number, first=0):
    return "\n\n".join(f"Paragraph {i} " + "word " * 20 for i in range(first, first + number))


def test_a_domain_with_both_kinds_is_divided_as_asked():
    documents = [f"document {i}" for i in range(200)]
    division = divide(lambda size: documents, 0.1, 100)
    assert (division.threshold, division.max_characters, division.remark) == (0.1 * 2**64, 100, "")


def test_of_few_documents_that_with_the_smallest_hash_is_for_validation():
    documents = [text for text in (f"few {i}" for i in range(100)) if hash_of(text) > 0.3 * 2**64][:5]
    division = divide(lambda size: documents, 0.3, 100)
    assert [text for text in documents if division.is_validation(text)] == [min(documents, key=hash_of)]
    assert division.remark == "one document becomes validation text, as none fell to it"


def test_where_all_fell_to_validation_that_with_the_largest_hash_is_trained_on():
    documents = [text for text in (f"all {i}" for i in range(100)) if hash_of(text) < 0.5 * 2**64][:5]
    division = divide(lambda size: documents, 0.5, 100)
    assert [text for text in documents if not division.is_validation(text)] == [max(documents, key=hash_of)]


def test_one_file_of_90_kb_has_text_of_each_kind(tmp_path):
    (tmp_path / "prose.txt").write_text(paragraphs(800))
    assert (tmp_path / "prose.txt").stat().st_size > 90_000
    source = files(tmp_path)
    source.check()
    texts = texts_of(source, "prose")
    assert len(texts["validation"]) >= 1
    assert len(texts["train"]) >= 2
    assert sum(map(len, texts["train"] + texts["validation"])) == len(paragraphs(800))


def test_a_file_too_short_for_two_documents_is_cut_finer(tmp_path, caplog):
    (tmp_path / "short.txt").write_text(paragraphs(40))
    source = files(tmp_path)
    source.check()
    with caplog.at_level("INFO"):
        source.prepare()
        source.prepare()
    assert len(caplog.messages) == 1
    texts = texts_of(source, "short")
    assert PARTS - 1 <= len(texts["train"] + texts["validation"]) <= PARTS
    assert min(len(texts["train"]), len(texts["validation"])) >= 1
    assert "short is small: its text is cut at" in caplog.text
    assert "data.source.max_characters leaves one document" in caplog.text


@pytest.mark.parametrize(("text", "number"), [("one line that cannot be cut", "1 document"), ("\r\r", "0 documents")])
def test_a_text_that_cannot_be_divided_is_refused(tmp_path, text, number):
    (tmp_path / "line.txt").write_bytes(text.encode())
    with pytest.raises(UserError, match=rf"^line has {number} to divide into training and validation text; add text"):
        files(tmp_path).check()


def test_equal_documents_share_a_split_and_are_refused_alone(tmp_path):
    (tmp_path / "same").mkdir()
    for name in "ab":
        (tmp_path / "same" / f"{name}.txt").write_text("The same text.")
    with pytest.raises(UserError, match="same has 1 document"):
        files(tmp_path).check()


def test_a_fraction_of_one_takes_all_for_validation(tmp_path):
    (tmp_path / "line.txt").write_text("one line")
    source = files(tmp_path, fraction=1.0)
    source.check()
    assert texts_of(source, "line") == {"train": [], "validation": ["one line"]}


def test_another_division_is_another_text(tmp_path):
    """Tokens of before, of which none were for validation, are not taken for those of now."""
    (tmp_path / "prose.txt").write_text(paragraphs(40))
    few = files(tmp_path)
    usual = files(tmp_path)
    usual._divisions["prose"] = divide(lambda size: [], 1.0, 20_000)
    assert few.fingerprint() == files(tmp_path).fingerprint() != usual.fingerprint()


def test_hundreds_of_small_domains_are_told_of_in_a_few_lines(tmp_path, caplog):
    for number in range(30):
        (tmp_path / f"d{number}.txt").write_text(paragraphs(3, first=100 * number))
    with caplog.at_level("INFO"):
        files(tmp_path).prepare()
    assert len(caplog.messages) == 5
    assert caplog.messages[-1] == "and so are 26 more domains"

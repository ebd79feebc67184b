"""Which files are text, of which domain and split, and what is refused because it would be left out or read twice."""

import pytest

from moe_toy.data.folders import LONGEST_NAME, files_by_split
from moe_toy.errors import UserError


def write(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))


def test_a_validation_folder_without_a_training_folder_is_no_domain(tmp_path):
    write(tmp_path / "validation" / "a.txt", tmp_path / "books" / "b.txt")
    with pytest.raises(UserError, match=r"has validation/ but no train/; add it, or rename it if that is a domain"):
        files_by_split(tmp_path)


@pytest.mark.parametrize("stray", ["c.txt", "books/a.txt", "more.JSONL"])
def test_text_beside_the_splits_is_not_left_out_in_silence(tmp_path, stray):
    write(tmp_path / "train" / "a.txt", tmp_path / "val" / "a.txt", tmp_path / stray)
    with pytest.raises(UserError, match=rf"{stray.split('/')[0]} lies beside train/ and val/, where it is not read"):
        files_by_split(tmp_path)


@pytest.mark.parametrize("beside", ["test/a.txt", "README.md", ".cache/a.txt", "LICENSE"])
def test_what_is_held_out_or_no_text_may_lie_beside_the_splits(tmp_path, beside):
    write(tmp_path / "train" / "a.txt", tmp_path / "val" / "a.txt", tmp_path / beside)
    assert {split: list(files) for split, files in files_by_split(tmp_path).items()} == {
        "train": ["a"],
        "validation": ["a"],
    }


@pytest.mark.parametrize(("more", "less"), [("train", "validation"), ("validation", "train")])
def test_a_domain_of_one_split_only_is_refused(tmp_path, more, less):
    write(tmp_path / "train" / "a.txt", tmp_path / "validation" / "a.txt", tmp_path / more / "b.txt")
    with pytest.raises(UserError, match=rf"{less} has no text for b, which \S+{more} has; add it there"):
        files_by_split(tmp_path)


def test_a_link_to_a_domain_beside_it_would_double_its_text(tmp_path):
    write(tmp_path / "books" / "a.txt")
    (tmp_path / "more").symlink_to(tmp_path / "books")
    with pytest.raises(UserError, match=r"more is a link to \S+books, whose text is read already; remove it"):
        files_by_split(tmp_path)


def test_validation_text_that_is_a_link_to_training_text_is_refused(tmp_path):
    write(tmp_path / "train" / "a.txt", tmp_path / "validation" / "b.txt")
    (tmp_path / "validation" / "a.txt").symlink_to(tmp_path / "train" / "a.txt")
    with pytest.raises(UserError, match=r"a.txt is a link to \S+train/a.txt, whose text is read already"):
        files_by_split(tmp_path)


def test_two_links_to_one_folder_are_refused_and_one_is_followed(tmp_path):
    write(tmp_path / "elsewhere" / "in" / "a.txt", tmp_path / "text" / "own" / "b.txt")
    (tmp_path / "text" / "one").symlink_to(tmp_path / "elsewhere")
    assert list(files_by_split(tmp_path / "text")["train"]) == ["one", "own"]
    (tmp_path / "text" / "two").symlink_to(tmp_path / "elsewhere" / "in")
    with pytest.raises(UserError, match="whose text another link gives already; remove one of them"):
        files_by_split(tmp_path / "text")


def test_links_to_each_other_end(tmp_path):
    write(tmp_path / "a" / "a.txt", tmp_path / "b" / "b.txt")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    with pytest.raises(UserError, match="whose text is read already"):
        files_by_split(tmp_path)


@pytest.mark.parametrize("name", ["two\nlines", "bell\a", "line\u2028separator"])
def test_names_that_would_break_a_line_are_refused_in_one(tmp_path, name):
    write(tmp_path / name / "a.txt")
    with pytest.raises(UserError, match="holds control characters; rename it") as error:
        files_by_split(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_name_too_long_for_the_files_made_of_it_is_refused(tmp_path):
    write(tmp_path / ("d" * (LONGEST_NAME + 1)) / "a.txt")
    with pytest.raises(UserError, match=rf"the domain d+... in \S+ has more than {LONGEST_NAME} bytes; rename it"):
        files_by_split(tmp_path)


def test_names_in_any_script_are_names(tmp_path):
    names = ["a b", "k=v", "it's", "książki", "كتب", "👩‍💻"]
    write(*(tmp_path / name / "a.txt" for name in names))
    assert sorted(files_by_split(tmp_path)["train"]) == sorted(names)


def test_two_links_to_one_file_elsewhere_would_validate_on_training_text(tmp_path):
    write(tmp_path / "elsewhere.jsonl")
    for split in ("train", "validation"):
        (tmp_path / "text" / split).mkdir(parents=True)
        (tmp_path / "text" / split / "a.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(UserError, match=r"train/a.jsonl and \S+validation/a.jsonl are links to one file"):
        files_by_split(tmp_path / "text")


def test_hard_links_would_double_a_text(tmp_path):
    write(tmp_path / "a.txt")
    (tmp_path / "b.txt").hardlink_to(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"a.txt and \S+b.txt are links to one file, whose text would be read twice"):
        files_by_split(tmp_path)


def test_a_link_to_a_folder_and_one_to_a_file_in_it_are_one_text(tmp_path):
    write(tmp_path / "elsewhere" / "a.txt")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "folder").symlink_to(tmp_path / "elsewhere")
    assert list(files_by_split(tmp_path / "text")["train"]) == ["folder"]
    (tmp_path / "text" / "file.txt").symlink_to(tmp_path / "elsewhere" / "a.txt")
    with pytest.raises(UserError, match="are links to one file"):
        files_by_split(tmp_path / "text")


@pytest.mark.parametrize("held_out", ["test/a.txt", "Eval.jsonl", "heldout/b.txt"])
def test_what_is_held_out_by_its_name_is_not_trained_on(tmp_path, held_out):
    write(tmp_path / "books" / "a.txt", tmp_path / held_out)
    with pytest.raises(UserError, match="which would be trained on; move it away, or rename it if it is a domain"):
        files_by_split(tmp_path)

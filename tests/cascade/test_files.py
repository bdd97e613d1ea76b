import errno
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from cascade.files import write_bytes, write_once, written_whole


def test_a_file_appears_with_its_whole_content_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")
    with written_whole(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["rows.csv"]


def test_what_fails_leaves_the_file_as_it_was_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")
    writing = written_whole(path)
    writing.__enter__().write_text("ne")
    assert not writing.__exit__(ValueError, ValueError("half-way"), None)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["rows.csv"]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old.onnx").touch()
    with written_whole(path) as partial:
        (partial / "submodels").mkdir(parents=True)
        (partial / "submodels" / "new.onnx").write_text("new")
    assert [str(one.relative_to(path)) for one in sorted(path.rglob("*"))] == ["submodels", "submodels/new.onnx"]
    assert os.listdir(tmp_path) == ["bundle"]


def test_a_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old.onnx").touch()
    writing = written_whole(path)
    writing.__enter__().mkdir()
    assert not writing.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert os.listdir(path) == ["old.onnx"]
    assert os.listdir(tmp_path) == ["bundle"]


def test_the_content_is_on_the_disk_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        happened.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")).rpartition(".")[2])
        fsync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        happened.append(f"rename {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    folder = tmp_path / "folder"
    folder.mkdir()
    write_bytes(folder / "state.pt", b"content")
    assert happened == ["sync partial", "rename state.pt", "sync folder"]


def test_every_name_that_a_file_system_takes_can_be_written_whole(tmp_path: Path) -> None:
    for name in ("a" * 251 + ".csv", "ü" * 125 + ".csv", os.fsdecode(b"\xff\xfe.csv")):
        write_bytes(tmp_path / name, b"content")
        assert (tmp_path / name).read_bytes() == b"content"


@pytest.mark.parametrize("links", [True, False])
def test_of_many_that_write_one_name_once_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "picture.png"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(partial(write_once, path, mode=0o600), contents))
    assert written.count(True) == 1
    assert path.read_bytes() == contents[written.index(True)]
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["picture.png"]

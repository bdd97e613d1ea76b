"""What a command may be told to classify, and what is refused in it."""

import io
import os
import subprocess
import sys
import tarfile
from importlib import import_module
from pathlib import Path

import pytest

from cascade.errors import CanonistiaError, PictureError, UsageError
from cascade.inputs.containers import CONTAINERS, Container, is_container
from cascade.inputs.item import Item
from cascade.inputs.sources import check_inputs, items_of_inputs
from tests.archives import write_tar, write_zip
from tests.conftest import Run, draw
from tests.webapps import encoded


def picture(seed: int) -> bytes:
    return encoded(draw("sky", seed))


def contents(items: object) -> dict[str, object]:
    """Return the bytes of each item by its name, or why there are none."""

    def read(item: Item) -> object:
        try:
            return item.read()
        except PictureError as error:
            return str(error)

    return {item.name: read(item) for item in items}


MEMBERS = {"b/1.png": picture(1), "a.png": picture(2), "notes.txt": b"x", ".hidden/3.png": picture(3)}


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tgz"])
def test_pictures_of_an_archive_come_in_its_order(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"photos.{ending}"
    if ending == "zip":
        write_zip(path, MEMBERS)
    else:
        write_tar(path, MEMBERS, "w" if ending == "tar" else "w:gz")
    found = list(items_of_inputs([str(path)]))
    assert [item.name for item in found] == [f"{path}::b/1.png", f"{path}::a.png"]
    assert [item.read() for item in found] == [picture(1), picture(2)]
    assert len({item.stamp for item in found}) == 2


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path: Path, write: object) -> None:
    name = "x.zip" if write is write_zip else "x.tar.gz"
    path = write(tmp_path / name, {"../out.png": picture(1), "/root.png": picture(1), "in.png": picture(2)})
    found = contents(items_of_inputs([str(path)]))
    assert found[f"{path}::in.png"] == picture(2)
    assert "leads out of the archive" in str(found[f"{path}::../out.png"])
    assert "leads out of the archive" in str(found[f"{path}::/root.png"])


def test_a_bomb_is_refused_without_being_unpacked(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "bomb.zip", {"bomb.png": b"\0" * 50_000_000, "good.png": picture(1)})
    found = contents(items_of_inputs([str(path)]))
    assert "which no picture does" in str(found[f"{path}::bomb.png"])
    assert found[f"{path}::good.png"] == picture(1)


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "lies.zip", {"large.png": b"\0" * 40_000})
    data = path.read_bytes()
    path.write_bytes(data.replace((40_000).to_bytes(4, "little"), (4_000).to_bytes(4, "little")))
    (found,) = contents(items_of_inputs([str(path)])).values()
    assert isinstance(found, str)


def test_links_and_devices_inside_a_tar_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "links.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("link.png", tarfile.SYMTYPE), ("pipe.png", tarfile.FIFOTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    assert set(contents(items_of_inputs([str(path)])).values()) == {
        "is a link or a device inside the archive; expected a file"
    }


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz"])
def test_a_damaged_archive_is_an_item_that_says_so(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"photos.{ending}"
    whole = write_zip(path, MEMBERS) if ending == "zip" else write_tar(path, MEMBERS)
    whole.write_bytes(whole.read_bytes()[:700])
    *_, last = contents(items_of_inputs([str(whole)])).values()
    assert "is not a complete archive" in str(last)


def test_lists_patterns_and_folders_are_taken_in_the_order_given(tmp_path: Path) -> None:
    for name in ("z/1.png", "z/deep/2.png", "a/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(1))
    strange = tmp_path / os.fsdecode(b"caf\xe9.png")
    strange.write_bytes(picture(1))
    names = tmp_path / "names.txt"
    names.write_bytes(os.fsencode(strange) + b"\n\n" + os.fsencode(tmp_path / "a") + b"\r\n")
    words = [f"{tmp_path}/z/**/*.png", f"@{names}", f"{tmp_path}/a/3.png"]
    check_inputs(words)
    found = [str(Path(item.name).relative_to(tmp_path)) for item in items_of_inputs(words)]
    assert found == ["z/1.png", "z/deep/2.png", strange.name, "a/3.png", "a/3.png"]


@pytest.mark.parametrize("word", ["nowhere.jpg", "@nowhere.txt", "nowhere/*.jpg"])
def test_a_word_that_names_nothing_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        check_inputs([word])


def test_standard_input_is_a_list(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    command = [sys.executable, "-m", "canonistia", "classify", "-", "--model", str(tiny_bundle)]
    words = f"{tmp_path}/a.png\n{tmp_path}/gone.png\n".encode()
    done = subprocess.run(command, input=words, capture_output=True, check=False)
    assert done.returncode == 3
    assert b"gone.png  error:" in done.stdout


def test_pictures_in_a_parquet_table_are_found(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    plain = pa.table({"name": ["one", "two", None], "content": [picture(1), None, picture(2)]})
    pq.write_table(plain, tmp_path / "plain.parquet")
    nested = pa.table({"image": [{"bytes": picture(3), "path": "x.png"}], "label": [1]})
    pq.write_table(nested, tmp_path / "nested.parquet")
    found = contents(items_of_inputs([str(tmp_path / "plain.parquet"), str(tmp_path / "nested.parquet")]))
    assert found == {
        f"{tmp_path}/plain.parquet::one": picture(1),
        f"{tmp_path}/plain.parquet::two": "has no bytes of a picture",
        f"{tmp_path}/plain.parquet::2": picture(2),
        f"{tmp_path}/nested.parquet::x.png": picture(3),
    }
    pq.write_table(pa.table({"label": [1]}), tmp_path / "none.parquet")
    with pytest.raises(CanonistiaError, match="has the columns label; expected"):
        list(items_of_inputs([str(tmp_path / "none.parquet")]))
    (tmp_path / "torn.parquet").write_bytes((tmp_path / "plain.parquet").read_bytes()[:200])
    (torn,) = contents(items_of_inputs([str(tmp_path / "torn.parquet")])).values()
    assert "is not a complete Parquet file" in str(torn)


def names_in_list(folder: Path, content: bytes) -> list[str]:
    (folder / "list.txt").write_bytes(content)
    return [item.name for item in items_of_inputs([f"@{folder / 'list.txt'}"])]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_list_in_any_unicode_encoding_names_its_files(tmp_path: Path, encoding: str, line_end: str) -> None:
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    content = mark + line_end.join(["wald/forêt 1.jpg", "", "b.png"]).encode(encoding)
    assert names_in_list(tmp_path, content) == ["wald/forêt 1.jpg", "b.png"]


def test_a_line_with_zero_bytes_is_an_item_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"a.jpg\nb\0c.jpg\n" + "d.jpg\n".encode("utf-16-le"))
    items = list(items_of_inputs([f"@{tmp_path / 'list.txt'}"]))
    assert items[0].name == "a.jpg"
    with pytest.raises(PictureError, match="save the list as UTF-8"):
        items[1].read()
    with pytest.raises(PictureError, match="save the list as UTF-8"):
        items[2].read()


def test_a_name_that_is_no_text_stays_as_it_is(tmp_path: Path) -> None:
    assert names_in_list(tmp_path, b"caf\xe9.png\n") == [os.fsdecode(b"caf\xe9.png")]


def test_members_of_an_archive_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    picture = encoded(draw("sky", 1))
    members = {
        "noending": picture,
        "b.jpg_large": picture,
        "notes.txt": b"text",
        "other": b"text",
        "@eaDir/t.jpg": picture,
    }
    for write, name in ((write_zip, "a.zip"), (write_tar, "a.tar.gz")):
        write(tmp_path / name, members)
        found = [item.name.partition("::")[2] for item in items_of_inputs([str(tmp_path / name)])]
        assert found == ["noending", "b.jpg_large"], name


def test_a_tar_that_unpacks_to_far_more_than_it_is_ends_early(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = 60_000_000
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    items = list(items_of_inputs([str(tmp_path / "bomb.tar.gz")]))
    assert sum(len(item.read()) for item in items if not reason_of(item)) == 0
    assert "which no picture does" in reason_of(items[0])
    assert len(items) == 2  # the rest of the archive is one item more


def reason_of(item: Item) -> str:
    try:
        item.read()
    except PictureError as error:
        return str(error)
    return ""


def test_a_pipe_behind_an_address_is_an_item_that_says_so(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    os.mkfifo(tmp_path / "pipe.jpg")
    (item,) = items_of_inputs([f"file://{tmp_path / 'pipe.jpg'}"])
    assert "pipe or a device" in reason_of(item)


@pytest.mark.parametrize(
    "address", ["ftp://127.0.0.1:1/a.jpg", "zip://a.jpg::file:///none/b.zip", "http://127.0.0.1:1/a.jpg"]
)
def test_an_address_that_is_gone_is_an_item_that_says_so(address: str) -> None:
    pytest.importorskip("fsspec")
    (item,) = items_of_inputs([address])
    assert reason_of(item).startswith("cannot be opened: ")


def test_pictures_of_chained_addresses_have_their_whole_names(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    for name in ("a.zip", "b.zip"):
        write_zip(tmp_path / name, {"1.png": encoded(draw("sky", 1))})
    items = list(items_of_inputs([f"zip://1.png::file://{tmp_path / name}" for name in ("a.zip", "b.zip")]))
    assert len({item.name for item in items}) == 2
    assert {item.stamp for item in items} == {""}


@pytest.mark.parametrize("container", CONTAINERS, ids=lambda container: container.what)
def test_every_kind_of_container_is_named_by_help_and_known_by_its_endings(run: Run, container: Container) -> None:
    shown = " ".join(run("classify", "--help").output.split())
    assert container.what in shown
    assert all(is_container(f"shard{ending.upper()}") for ending in container.endings)
    module, _, function = container.items.partition(":")
    assert callable(getattr(import_module(module), function))

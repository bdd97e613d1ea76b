"""Pictures in an object store, on a real server at this machine."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cascade.errors import CanonistiaError, PictureError
from cascade.inputs.sources import items_of_inputs
from tests.archives import write_tar, write_zip
from tests.conftest import Run, draw
from tests.waiting import started, wait_until
from tests.webapps import encoded

s3fs = pytest.importorskip("s3fs", reason="the batch extra is not installed")


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {"ACCESS_KEY_ID": "me", "SECRET_ACCESS_KEY": "me", "DEFAULT_REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    yield
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Return the address of a store that speaks S3."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    with started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_until(listens, what="the store's start")
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def bucket(store: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a bucket of three pictures and a text."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", store)
    files = s3fs.S3FileSystem()
    if not files.exists("photos"):
        files.mkdir("photos")
        for name, seed in (("b/2.png", 2), ("a.png", 1), ("c.png", 3)):
            files.pipe(f"photos/{name}", encoded(draw("sky", seed)))
        files.pipe("photos/notes.txt", b"x")
    return "s3://photos"


def test_pictures_of_a_bucket_come_in_order(bucket: str) -> None:
    found = list(items_of_inputs([bucket]))
    assert [item.name for item in found] == [f"{bucket}/a.png", f"{bucket}/b/2.png", f"{bucket}/c.png"]
    assert [item.read() for item in found] == [encoded(draw("sky", seed)) for seed in (1, 2, 3)]
    assert len({item.stamp for item in found} - {""}) == 3
    (one,) = items_of_inputs([f"{bucket}/b/2.png"])
    assert one.stamp == found[1].stamp


def test_a_bucket_is_classified(run: Run, bucket: str, tiny_bundle: object, tmp_path: object) -> None:
    result = run("classify", bucket, "--model", tiny_bundle, "--out", f"{tmp_path}/rows.csv")
    assert result.exit_code == 0, result.output
    with open(f"{tmp_path}/rows.csv") as file:
        names = [line.partition(",")[0] for line in file][1:]
    assert names == [f"{bucket}/{name}" for name in ("a.png", "b/2.png", "c.png")]


@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "parquet"])
def test_archives_and_tables_in_a_bucket_are_opened(bucket: str, tmp_path: Path, ending: str) -> None:
    pictures = {"in/1.png": encoded(draw("sky", 1)), "2.png": encoded(draw("sky", 2))}
    local = tmp_path / f"shard.{ending}"
    if ending == "parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        pa = pytest.importorskip("pyarrow")
        pq.write_table(pa.table({"path": list(pictures), "image": list(pictures.values())}), local)
    elif ending == "zip":
        write_zip(local, pictures)
    else:
        write_tar(local, pictures, "w" if ending == "tar" else "w:gz")
    address = f"s3://shards/{ending}/{local.name}"
    files = s3fs.S3FileSystem()
    files.makedirs("shards", exist_ok=True)
    files.put_file(str(local), address)
    for word in (address, f"s3://shards/{ending}/*.{ending}"):
        found = list(items_of_inputs([word]))
        assert {item.name: item.read() for item in found} == {f"{address}::{name}": pictures[name] for name in pictures}
    files.pipe(address, local.read_bytes()[: local.stat().st_size // 3])
    *_, last = items_of_inputs([address])
    with pytest.raises(PictureError, match="is not a complete"):
        last.read()


def test_a_pattern_that_nothing_in_a_bucket_fits_is_an_item_that_says_so(bucket: str) -> None:
    (item,) = items_of_inputs([f"{bucket}/*.tar"])
    with pytest.raises(PictureError, match="no file matches"):
        item.read()


@pytest.mark.parametrize("address", ["s3://photos/gone.png", "s3://nowhere/photos"])
def test_what_is_not_there_is_an_item_that_says_so(bucket: str, address: str) -> None:
    (item,) = items_of_inputs([address])
    with pytest.raises(PictureError, match="cannot be opened"):
        item.read()


def test_addresses_of_an_unknown_kind_are_refused() -> None:
    with pytest.raises(CanonistiaError, match="cannot be opened"):
        list(items_of_inputs(["nonsense://photos"]))


@contextmanager
def answering(statuses: list[int]) -> Iterator[str]:
    """Serve one picture to any request, after so many answers of other kinds; the last is repeated."""
    content = encoded(draw("sky", 5))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)) if status == 200 else "0")
            self.send_header("ETag", '"1"')
            self.end_headers()
            if status == 200 and self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_busy_store_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    statuses = [503, 200, 503, 503, 200]
    with answering(statuses) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        (item,) = items_of_inputs(["s3://photos/a.png"])
        assert item.read() == encoded(draw("sky", 5))
    assert statuses == [200]


def test_a_store_that_refuses_gives_a_row_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering([403]) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        (item,) = items_of_inputs(["s3://photos/a.png"])
        with pytest.raises(PictureError, match="cannot be opened: Forbidden"):
            item.read()

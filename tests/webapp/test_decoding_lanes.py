"""The lanes of decoding: memory is limited, the next turn is fair, and small pictures do not wait for heavy ones."""

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from flask import Flask
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cascade.errors import PictureError
from cascade.images.decoding import DecodingCost, decode, decoding_cost
from tests.waiting import wait_until
from webapp.problems import Problem
from webapp.requests.decoding_lanes import DecodingLanes, Lane

HEAVY = DecodingCost(200 * 2**20, 12_000_000)
SMALL = DecodingCost(2**20, 100_000)


@pytest.fixture(autouse=True)
def request_context() -> Iterator[None]:
    with Flask(__name__).test_request_context():
        yield


def in_a_request(call: Callable[[], object]) -> Callable[[], object]:
    app = Flask(__name__)

    def called() -> object:
        with app.test_request_context():
            return call()

    return called


def soon() -> float:
    return time.monotonic() + 0.02


def later() -> float:
    return time.monotonic() + 30


def refuse(lane: Lane | DecodingLanes, cost: DecodingCost, client: str = "a") -> None:
    with pytest.raises(Problem, match="too long"), lane.turn(cost, client, soon()):
        pass


def test_pictures_are_decoded_within_a_number_of_bytes_and_a_deadline() -> None:
    lane = Lane(5, 100)
    with lane.turn(DecodingCost(60, 1), "a", soon()), lane.turn(DecodingCost(40, 1), "a", soon()):
        for memory in (1, 1000):
            refuse(lane, DecodingCost(memory, 1))
    with lane.turn(DecodingCost(1000, 1), "a", soon()):  # needs more than there is: alone
        pass


def test_at_most_as_many_pictures_as_threads_are_decoded() -> None:
    lane = Lane(2, 100)
    with lane.turn(DecodingCost(0, 1), "a", soon()), lane.turn(DecodingCost(0, 1), "a", soon()):
        refuse(lane, DecodingCost(0, 1))


@pytest.mark.parametrize(
    ("waiting", "order"),
    [
        ([("a", 9_000_000, "large"), ("a", 0, "small")], ["small", "large"]),
        ([("a", 1, "a1"), ("a", 1, "a2"), ("a", 1, "a3"), ("b", 1, "b")], ["b", "a1", "a2", "a3"]),
    ],
    ids=["the small one first", "the client that had no turn yet first"],
)
def test_the_next_turn_is_fair(waiting: list[tuple[str, int, str]], order: list[str]) -> None:
    lane, had = Lane(1, 100), []

    def take(client: str, pixels: int, name: str) -> None:
        with lane.turn(DecodingCost(1, pixels), client, later()):
            had.append(name)

    with ThreadPoolExecutor(len(waiting)) as clients, lane.turn(DecodingCost(1, 1), "a", later()):
        for number, one in enumerate(waiting):
            clients.submit(in_a_request(lambda one=one: take(*one)))
            wait_until(lambda number=number: len(lane._waiting) == number + 1)
    assert had == order


def test_small_pictures_pass_heavy_ones_and_too_many_heavy_ones_are_refused_at_once() -> None:
    lanes, leave = DecodingLanes(2), threading.Event()

    def wait_and_leave() -> None:
        with lanes.turn(HEAVY, "a", later()):
            leave.wait()

    with ThreadPoolExecutor(33) as clients:
        try:
            for _ in range(33):  # one is decoded, 32 wait
                clients.submit(in_a_request(wait_and_leave))
            wait_until(lambda: len(lanes._heavy._waiting) == 32)
            with pytest.raises(Problem, match="large pictures are waiting") as refused, lanes.turn(HEAVY, "a", later()):
                pass
            assert (refused.value.status, refused.value.retry_after) == (503, 5)
            with ExitStack() as others:
                for _ in range(2):
                    others.enter_context(lanes.turn(SMALL, "a", soon()))
            refuse(lanes, HEAVY, "b")  # not before it waited
        finally:
            leave.set()


def test_what_fails_or_waits_in_vain_gives_its_place_back() -> None:
    lane = Lane(1, 100)
    for _ in range(3):
        with pytest.raises(ValueError, match="broken"), lane.turn(DecodingCost(70, 1), "a", soon()):
            raise ValueError("broken")
        with lane.turn(DecodingCost(70, 1), "a", soon()):
            refuse(lane, DecodingCost(70, 1))
    assert (lane._free_threads, lane._free_memory, lane._waiting) == (1, 100, [])


def saved(mode: str, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (2000, 2000)).save(file, kind, **options)
    return file.getvalue()


FILES = {
    "PNG colour": ("RGB", "PNG", {}),
    "PNG transparent": ("RGBA", "PNG", {}),
    "PNG palette": ("P", "PNG", {}),
    "PNG 16 bits": ("I;16", "PNG", {}),
    "JPEG progressive": ("RGB", "JPEG", {"progressive": True}),
    "JPEG CMYK": ("CMYK", "JPEG", {"progressive": True}),
    "WebP lossy": ("RGB", "WEBP", {"method": 0}),
    "WebP lossless": ("RGBA", "WEBP", {"lossless": True, "method": 0}),
    "AVIF": ("RGBA", "AVIF", {"speed": 10}),
    "GIF": ("P", "GIF", {}),
    "TIFF": ("CMYK", "TIFF", {"compression": "tiff_deflate"}),
    "PPM": ("RGB", "PPM", {}),
}
PROBE = """
import sys
from cascade.images.decoding import decode
from webapp.serving.limits import return_freed_memory
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
return_freed_memory()
for path in sys.argv[1:]:
    data = open(path, "rb").read()
    open("/proc/self/clear_refs", "w").write("5")
    before = kilobytes("VmRSS")
    decode(data, least_size=704)
    print(kilobytes("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_decoding_takes_no_more_memory_than_was_counted(tmp_path: Path) -> None:
    for name, (mode, kind, options) in FILES.items():
        (tmp_path / name).write_bytes(saved(mode, kind, **options))
    paths = [tmp_path / name for name in FILES]
    done = subprocess.run([sys.executable, "-c", PROBE, *paths], capture_output=True, text=True, check=True)
    for path, kilobytes in zip(paths, done.stdout.split(), strict=True):
        loaded_code = 8 * 2**20
        assert int(kilobytes) * 1024 <= decoding_cost(path.read_bytes(), least_size=704).memory + loaded_code, path.name


@pytest.mark.parametrize("data", [b"text", saved("L", "PNG")[:40], saved("L", "PNG")], ids=["text", "broken", "large"])
def test_a_file_that_is_refused_costs_nothing(data: bytes) -> None:
    assert decoding_cost(data, max_pixels=1_000_000) == DecodingCost(0, 0)


def test_a_png_whose_texts_fill_a_memory_is_refused() -> None:
    texts = PngInfo()
    for number in range(20):
        texts.add_text(str(number), "a" * 1_000_000, zip=True)
    data = saved("L", "PNG", pnginfo=texts)
    assert len(data) < 100_000
    assert decoding_cost(data) == DecodingCost(0, 0)
    with pytest.raises(PictureError, match="text chunks"):
        decode(data)


def test_a_jpeg_that_is_decoded_smaller_costs_less() -> None:
    data = saved("RGB", "JPEG")
    assert decoding_cost(data, least_size=704).memory < decoding_cost(data).memory

"""Uploads of mutated pictures: each one is answered or refused in one sentence, and nothing breaks."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import draw
from tests.webapps import application, encoded

SEEDS = [encoded(draw("sky", 61, (40, 30)), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")]
PLACES = st.floats(0, 1, exclude_max=True)  # of the picture's length
EDITS = st.one_of(
    st.tuples(st.just("write"), PLACES, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), PLACES, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("cut"), PLACES, st.integers(1, 40)),
    st.tuples(st.just("continue as"), PLACES, st.sampled_from(SEEDS)),
)


def mutated(seed: bytes, edits: list[tuple[str, float, Any]]) -> bytes:
    data = bytearray(seed)
    for kind, place, change in edits:
        where = int(place * len(data))
        if kind == "write":
            data[where : where + len(change)] = change
        elif kind == "insert":
            data[where:where] = change
        elif kind == "cut":
            del data[where : where + change]
        else:
            data[where:] = change[where:]
    return bytes(data)


# Pillow warns about some damage; in production this is a line in the log.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_a_thousand_mutated_pictures_never_break_the_service(tiny_bundle: Path) -> None:
    client = application(tiny_bundle).test_client()
    statuses: Counter[int] = Counter()

    @settings(max_examples=1000, deadline=None, derandomize=True, database=None)
    @given(st.sampled_from(SEEDS), st.lists(EDITS, min_size=1, max_size=6))
    def check(seed: bytes, edits: list[tuple[str, float, Any]]) -> None:
        answer = client.post("/api/v1/classify", data=mutated(seed, edits))
        statuses[answer.status_code] += 1
        assert answer.status_code in (200, 400, 413, 415, 422), answer.text

    check()
    # Both must happen often; otherwise the mutations are too small or too large for this test.
    assert statuses[200] > 100
    assert statuses.total() - statuses[200] > 100


@pytest.mark.parametrize("path", ["/", "/api/v1/classify"])
def test_mutated_forms_never_break_the_service(tiny_bundle: Path, path: str) -> None:
    client = application(tiny_bundle).test_client()
    rng = random.Random(1)
    head = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    whole = head + SEEDS[1] + b"\r\n--edge--\r\n"
    statuses = set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            where = rng.randrange(len(head) + 20)
            data[where : where + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
        answer = client.post(path, data=bytes(data), content_type="multipart/form-data; boundary=edge")
        statuses.add(answer.status_code)
    assert statuses <= {200, 400, 413, 415, 422}
    assert len(statuses) > 1

"""The upload path under mutated pictures: every one is answered or refused in a sentence, and nothing breaks."""

import random
from pathlib import Path

import pytest

from tests.conftest import draw
from tests.webapps import application, encoded, upload

SEEDS = [encoded(draw("sky", 61, (40, 30)), kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")]
MUTATIONS = 1000


def mutated(rng: random.Random) -> bytes:
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 8)):
        where = rng.randrange(len(data))
        match rng.randrange(5):
            case 0:
                data[where] = rng.randrange(256)
            case 1:
                data[where] ^= 1 << rng.randrange(8)
            case 2:
                del data[where : where + rng.randint(1, 40)]
            case 3:
                data[where:where] = rng.randbytes(rng.randint(1, 40))
            case 4:
                other = rng.choice(SEEDS)
                data[where:] = other[rng.randrange(len(other)) :]
        if not data:
            break
    return bytes(data)


# Pillow warns of some damage; outside of tests that is a line in the log.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_a_thousand_mutated_pictures_never_break_the_service(tiny_bundle: Path) -> None:
    client = application(tiny_bundle).test_client()
    rng = random.Random(0)
    seen: dict[str, int] = {}
    for start in range(0, MUTATIONS, 25):
        files = [(mutated(rng), f"{start + number}.jpg") for number in range(25)]
        answer = client.post("/api/v1/classify", data=upload(*files))
        assert answer.status_code in (200, 413, 415, 422), answer.text
        for result in answer.json["results"] if answer.status_code == 200 else []:
            outcome = "answered" if result["error"] is None else "refused"
            seen[outcome] = seen.get(outcome, 0) + 1
    # Both happened often, or the mutations are too timid or too wild to say anything.
    assert seen["answered"] > 100
    assert seen["refused"] > 100


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

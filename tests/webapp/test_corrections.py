"""Corrections: stored once, without metadata, most doubtful first; a failed one changes nothing."""

import csv
import hashlib
import http.client
import json
import re
import resource
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

import msgspec
import numpy as np
import pytest
from PIL import Image

from cascade import locks
from cascade.inference.prediction import Prediction
from tests.conftest import CLASSES, Run, draw
from tests.serving import running
from tests.webapps import application, encoded, upload
from trainers.data.dataset import load_data_set
from webapp.requests import corrections
from webapp.requests.corrections import MANIFEST, Collector, read_corrections
from webapp.serving.held import Held


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / MANIFEST).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def correct(client, data: bytes, label: str, name: str = "a.png"):
    page = client.post("/", data=upload((data, name), field="pictures")).text
    (token,) = re.findall(r'name="token" value="([^"]+)"', page)
    return client.post("/corrections", data={"token": token, "label": label})


def test_a_corrected_picture_is_kept_with_its_answer(tiny_bundle: Path, tmp_path: Path) -> None:
    client = application(tiny_bundle, collector=Collector(tmp_path, 10**9)).test_client()
    picture = draw("sky", 81)
    data = encoded(picture)
    answer = client.post("/api/v1/classify", data=data).json["results"][0]
    assert correct(client, data, "rows").status_code == 200
    (row,) = rows(tmp_path)
    assert (row["label"], row["split"], row["model"]) == ("rows", "training", "tiny")
    assert row["label_1"] == answer["label_1"]
    assert float(row["probability_1"]) == answer["probability_1"]
    with Image.open(tmp_path / row["path"]) as kept:
        assert np.array_equal(np.asarray(kept), np.asarray(picture))


def test_what_is_kept_is_for_the_operator_alone(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "kept"
    client = application(tiny_bundle, collector=Collector(folder, 10**9)).test_client()
    assert correct(client, encoded(draw("sky", 81)), "rows").status_code == 200
    kept = [folder, *folder.rglob("*")]
    assert len(kept) == 7  # the folder, three below it, the picture, the correction, and the manifest
    assert {path.stat().st_mode & 0o777 for path in kept if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in kept if path.is_file()} == {0o600}


@pytest.mark.parametrize("label", ["=sum", "+1", "-1", "@a", "'a"])
def test_a_class_that_looks_like_a_formula_is_read_back_as_it_was(tmp_path: Path, label: str) -> None:
    collector = Collector(tmp_path, 10**9)
    prediction = Prediction(label, 0.75, "sky", 0.25, "main", False, False, None)
    answer = SimpleNamespace(preview=draw("sky", 81), prediction=prediction, outcome=SimpleNamespace(doubt=0.5))
    served = SimpleNamespace(name=label, engine=SimpleNamespace(classes=(label, "sky")))
    collector.save(collector.offer(answer, served), label)  # type: ignore[arg-type]
    (row,) = read_corrections(tmp_path / MANIFEST)
    assert (row.label, row.label_1, row.model) == (label, label, label)


def test_no_metadata_is_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    client = application(tiny_bundle, collector=Collector(tmp_path, 10**9)).test_client()
    exif = Image.Exif()
    exif[0x0110] = "a camera with a serial number"
    file = tmp_path / "sent.jpg"
    draw("sky", 82).save(file, exif=exif, comment=b"a comment")
    correct(client, file.read_bytes(), "rows", "my name.jpg")
    (row,) = rows(tmp_path)
    stored = (tmp_path / row["path"]).read_bytes()
    manifest = (tmp_path / MANIFEST).read_text()
    for secret in ("camera", "comment", "my name"):
        assert secret.encode() not in stored
        assert secret not in manifest
    with Image.open(tmp_path / row["path"]) as kept:
        assert not kept.getexif()


def test_one_picture_is_kept_once_and_the_last_word_counts(tiny_bundle: Path, tmp_path: Path) -> None:
    for label in ("rows", "dots"):  # the second time as a new process would
        client = application(tiny_bundle, collector=Collector(tmp_path, 10**9)).test_client()
        assert correct(client, encoded(draw("sky", 83)), label).status_code == 200
    (row,) = rows(tmp_path)
    assert row["label"] == "dots"
    assert len(list(tmp_path.rglob("*.png"))) == 1


def test_the_most_doubtful_come_first(tiny_bundle: Path, tmp_path: Path) -> None:
    client = application(tiny_bundle, collector=Collector(tmp_path, 10**9)).test_client()
    noise = Image.effect_noise((90, 60), 90)
    for data in (encoded(draw("sky", 84)), encoded(noise), encoded(draw("rows", 84))):
        correct(client, data, "dots")
    doubts = [float(row["doubt"]) for row in rows(tmp_path)]
    assert doubts == sorted(doubts, reverse=True)
    assert len(set(doubts)) == 3


def test_wrong_corrections_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    client = application(tiny_bundle, collector=Collector(tmp_path, 10**9)).test_client()
    assert correct(client, encoded(draw("sky", 85)), "no such class").status_code == 422
    assert client.post("/corrections", data={"token": "made up", "label": "sky"}).status_code == 410
    assert not (tmp_path / MANIFEST).exists()
    without = application(tiny_bundle).test_client()
    assert without.post("/corrections", data={"token": "a", "label": "sky"}).status_code == 404


def test_a_full_folder_takes_no_more(tiny_bundle: Path, tmp_path: Path) -> None:
    first = encoded(draw("sky", 86))
    room = Collector(tmp_path, len(first) + 2000)
    client = application(tiny_bundle, collector=room).test_client()
    assert correct(client, first, "rows").status_code == 200
    assert correct(client, encoded(draw("rows", 86)), "rows").status_code == 507
    assert correct(client, first, "dots").status_code == 200  # it is there already
    assert [row["label"] for row in rows(tmp_path)] == ["dots"]


def test_a_disk_that_is_full_harms_neither_the_service_nor_what_is_kept(tiny_bundle: Path, tmp_path: Path) -> None:
    with running("--model", tiny_bundle, "--collect", tmp_path) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)

        def send(path: str, body: bytes, kind: str) -> tuple[int, str]:
            connection.request("POST", path, body, {"Content-Type": kind})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

        def correct_there(seed: int) -> int:
            head = b'--e\r\nContent-Disposition: form-data; name="pictures"; filename="a.png"\r\n\r\n'
            body = head + encoded(draw("sky", seed)) + b"\r\n--e--\r\n"
            _, page = send("/", body, "multipart/form-data; boundary=e")
            (token,) = re.findall(r'name="token" value="([^"]+)"', page)
            form = urlencode({"token": token, "label": "rows"}).encode()
            return send("/corrections", form, "application/x-www-form-urlencoded")[0]

        assert correct_there(1) == 200
        before = rows(tmp_path)
        # From now on no file of the service can grow beyond a few bytes, as on a full disk.
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text()
        resource.prlimit(int(children), resource.RLIMIT_FSIZE, (100, 100))
        assert correct_there(2) == 507
        assert rows(tmp_path) == before
        assert len(list(tmp_path.rglob("*.png"))) == 1
        assert not list(tmp_path.rglob("*.partial"))
        assert send("/api/v1/classify", encoded(draw("sky", 3)), "image/png")[0] == 200
        connection.close()


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "P", "I;16"])
def test_a_kept_picture_is_answered_like_the_one_sent(tiny_bundle: Path, tmp_path: Path, mode: str) -> None:
    client = application(tiny_bundle, collector=Collector(tmp_path, 10**9)).test_client()
    picture = draw("sky", 87)
    sent = (
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
        if mode == "I;16"
        else picture.convert(mode)
    )
    data = encoded(sent, "TIFF")
    correct(client, data, "rows")
    (row,) = rows(tmp_path)
    answers = [
        client.post("/api/v1/classify", data=body).json for body in (data, (tmp_path / row["path"]).read_bytes())
    ]
    assert answers[0] == answers[1]


def test_the_operator_may_take_pictures_and_rows_away(tiny_bundle: Path, tmp_path: Path) -> None:
    client = application(tiny_bundle, collector=Collector(tmp_path, 10**9)).test_client()
    for seed in (91, 92):
        correct(client, encoded(draw("sky", seed)), "rows")
    gone, kept = rows(tmp_path)
    (tmp_path / gone["path"]).unlink()
    lines = (tmp_path / MANIFEST).read_text().splitlines()
    (tmp_path / MANIFEST).write_text("\n".join([lines[0], lines[2]]) + "\n")
    assert correct(client, encoded(draw("sky", 93)), "dots").status_code == 200
    assert {row["path"] for row in rows(tmp_path)} > {kept["path"]}
    assert gone["path"] not in {row["path"] for row in rows(tmp_path)}
    for seed in (91, 92):
        assert correct(client, encoded(draw("sky", seed)), "dots").status_code == 200
    assert all((tmp_path / row["path"]).exists() for row in rows(tmp_path))
    assert len(rows(tmp_path)) == 3


def waiting(held: Held, seed: int) -> str:
    """Return the token of an answered picture that may be corrected."""
    prediction = Prediction("rows", 0.6, "dots", 0.3, "main", unsure=True, both=False, accepted=None)
    offer = {"picture": encoded(draw("sky", seed)), "prediction": prediction, "doubt": seed / 7, "model": "tiny"}
    return held.put(msgspec.msgpack.encode(offer | {"classes": CLASSES}))


def test_machines_that_share_a_folder_without_locks_lose_no_correction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "fcntl", None)
    held = Held()
    machines = [Collector(tmp_path, 10**9, held) for _ in range(3)]

    def correct_ten(number: int) -> None:
        for seed in range(10 * number, 10 * number + 12):  # two pictures are those of the next machine, too
            machines[number].save(waiting(held, seed), CLASSES[number])

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(correct_ten, range(3)))
    machines[0].save(waiting(held, 40), "rows")
    kept = rows(tmp_path)
    assert len({row["path"] for row in kept}) == len(kept) == 33
    for row in kept:
        content = (tmp_path / row["path"]).read_bytes()
        assert row["path"].endswith(f"{hashlib.sha256(content).hexdigest()}.png")
    assert not list(tmp_path.rglob("*.partial"))


def test_a_row_that_another_machine_overwrote_comes_back_and_old_entries_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()
    collector = Collector(tmp_path, 10**9, held)
    collector.save(waiting(held, 1), "rows")
    before = (tmp_path / MANIFEST).read_bytes()
    collector.save(waiting(held, 2), "dots")
    (tmp_path / MANIFEST).write_bytes(before)  # as a machine does that had read it before
    collector.save(waiting(held, 3), "sky")
    assert sorted(row["label"] for row in rows(tmp_path)) == ["dots", "rows", "sky"]
    changed = (tmp_path / MANIFEST).read_text().replace(",dots,training", ",sky,training")
    (tmp_path / MANIFEST).write_text(changed)  # by the operator, whose word stands
    monkeypatch.setattr(corrections, "_ENTRY_AGE", timedelta(0))
    collector.save(waiting(held, 4), "sky")
    assert sorted(row["label"] for row in rows(tmp_path)) == ["rows", "sky", "sky", "sky"]
    collector.save(waiting(held, 5), "sky")
    assert len(list((tmp_path / "entries").iterdir())) == 1  # the newest was gathered just now
    assert len(rows(tmp_path)) == 5


@pytest.mark.parametrize(
    "found", ["path,label\na,b\n", "nothing of the kind\n1\n", "path,label,split,doubt\na,b,training,x\n"]
)
def test_a_manifest_of_another_kind_is_refused_before_anything_is_served(
    run: Run, tiny_bundle: Path, tmp_path: Path, found: str
) -> None:
    (tmp_path / MANIFEST).write_text(found)
    result = run("serve", "--model", tiny_bundle, "--collect", tmp_path)
    assert result.exit_code == 1
    assert "cannot be read" in result.output


def test_corrections_are_trained_on_with_what_was_there_before(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    client = application(tiny_bundle, collector=Collector(tmp_path / "kept", 10**9)).test_client()
    for label in CLASSES:
        assert correct(client, encoded(draw(label, 95)), label).status_code == 200
    whole = run("check-data", tiny_data, "--add", tmp_path / "kept" / MANIFEST, "--fix", tmp_path / "all.csv")
    assert whole.exit_code == 0, whole.output
    light = ("--backbone", "timm/test_resnet", "--no-pretrained", "--size", 32, "--tracker", "none", "--epochs", 1)
    main, subs = tmp_path / "main", tmp_path / "subs"
    trained = run("train-main", tmp_path / "all.csv", "--out", main, *light)
    assert trained.exit_code == 0, trained.output
    trained = run("train-sub", tmp_path / "all.csv", "--main", main, "--out", subs, *light)
    assert trained.exit_code == 0, trained.output
    cleaned = run("check-data", tiny_data, "--fix", tmp_path / "before.csv")
    assert cleaned.exit_code == 0, cleaned.output
    before, after = (load_data_set(tmp_path / name, 0) for name in ("before.csv", "all.csv"))
    assert len(after.training) == len(before.training) + len(CLASSES)
    assert len(after.validation) == len(before.validation)
    assert json.loads((main / "config.json").read_text())["data_fingerprint"] == after.fingerprint

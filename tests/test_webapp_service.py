"""Several bundles in one service: by name, within a bound of memory, swapped whole."""

import dataclasses
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cascade.bundle import MANIFEST, BundleError
from cascade.picture import decode
from cascade.view import View
from tests.conftest import draw
from tests.webapps import application, encoded
from webapp.admission import Admission
from webapp.metrics import Metrics
from webapp.problems import Problem
from webapp.service import Service
from webapp.settings import Settings


@pytest.fixture
def bundles(tiny_bundle: Path, tmp_path: Path) -> list[Path]:
    """Return three bundles of different names."""
    return [named(tiny_bundle, tmp_path / name) for name in ("first", "second", "third")]


def named(bundle: Path, folder: Path) -> Path:
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"name": folder.name}))
    return folder


@pytest.fixture
def tight(bundles: list[Path]) -> Iterator[Service]:
    """Return a service with room for two of its three bundles."""
    roomy = Service(bundles[:1], Metrics())
    with roomy.use() as served:
        one = served.memory
    roomy.close()
    service = Service(bundles, Metrics(), memory=int(2.5 * one))
    yield service
    service.close()


def test_a_request_may_name_its_model(bundles: list[Path]) -> None:
    client = application(*bundles).test_client()
    data = encoded(draw("sky", 71))
    for name in ("second", "third"):
        assert client.post(f"/api/v1/classify?model={name}", data=data).json["model"] == name
        assert client.get(f"/v2/models/{name}/ready").json == {"ready": True}
    assert client.post("/api/v1/classify", data=data).json["model"] == "first"
    assert [model["name"] for model in client.get("/api/v1/models").json["models"]] == ["first", "second", "third"]


def test_two_bundles_of_one_name_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match="serve bundles of different names"):
        Service([tiny_bundle, tiny_bundle], Metrics())


def test_the_bundle_used_longest_ago_makes_room(tight: Service) -> None:
    for name in ("second", "third"):
        with tight.use(name):
            pass
    assert [tight.is_loaded(name) for name in tight.names] == [True, False, True]
    with tight.use("second"):
        assert [tight.is_loaded(name) for name in tight.names] == [True, True, False]


def test_a_bundle_that_made_room_still_answers_those_who_use_it(tight: Service) -> None:
    view = View(draw("sky", 72))
    with tight.use("second") as served:
        with tight.use("third"):
            assert not tight.is_loaded("second")
        outcome = served.batcher.submit(view).result(timeout=30)
    assert outcome.scores.sum() == pytest.approx(1)
    with pytest.raises(RuntimeError):
        served.batcher.submit(view)


def test_pictures_of_many_threads_get_their_own_answers(tiny_bundle: Path) -> None:
    service = Service([tiny_bundle], Metrics())
    pictures = [draw(label, seed) for seed in range(8) for label in ("sky", "rows", "dots")]
    with service.use() as served:
        expected = [served.engine.run([picture]).probabilities[0] for picture in pictures]
        got: dict[int, np.ndarray] = {}

        def ask(number: int) -> None:
            with served.batcher.coming():
                answer = served.batcher.submit(View(pictures[number]))
            got[number] = answer.result(timeout=60).scores

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(pictures))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    service.close()
    for number, scores in enumerate(expected):
        assert got[number].tolist() == scores.tolist()


def test_one_bad_batch_does_not_stop_the_next(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service([tiny_bundle], Metrics())
    with service.use() as served:
        with monkeypatch.context() as patch:
            patch.setattr(served.engine, "run", lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                served.batcher.submit(View(draw("sky", 1))).result(timeout=30)
        assert served.batcher.submit(View(draw("sky", 1))).result(timeout=30).scores.sum() == pytest.approx(1)
    service.close()


def test_a_settled_view_holds_the_pixels_and_not_the_picture(tiny_bundle: Path) -> None:
    service = Service([tiny_bundle], Metrics())
    with service.use() as served:
        picture = decode(encoded(draw("rows", 73, (300, 200))))
        view = View(picture)
        view.settle(served.engine.specs)
        assert view._picture is None
        assert served.engine.run([view]).probabilities.tolist() == served.engine.run([picture]).probabilities.tolist()
    service.close()


def test_admission_counts_pictures_and_bytes() -> None:
    limits = dataclasses.replace(Settings(), queue=3, max_upload_bytes=100)
    admission = Admission(limits, Metrics())
    admission.take(2, 700)
    with pytest.raises(Problem, match="hands full"):
        admission.take(2, 0)
    with pytest.raises(Problem, match="hands full"):
        admission.take(1, 101)
    admission.take(1, 100)
    admission.give_back(2, 700)
    admission.take(2, 0)

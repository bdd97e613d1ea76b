"""The batcher: who goes alone, who goes with others, and that it makes no difference to the answers."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest

from cascade.bundle.reading import read_bundle
from cascade.images.view import View, see
from cascade.inference.engine import Engine, Picture
from cascade.rules.cascade import CascadeOutput
from tests.conftest import CLASSES, draw
from tests.waiting import wait_until
from tests.webapps import submitted
from webapp.serving.batcher import BATCH_SIZE, Batcher
from webapp.serving.metrics import Metrics

LANES = 2


class Watched(Engine):
    """An engine that notes how many pictures came at once and in which thread, and that can be held up."""

    def __init__(self, bundle: Path, threads: int) -> None:
        super().__init__(read_bundle(bundle), threads)
        self.batches: list[int] = []
        self.threads: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def run(self, pictures: Sequence[Picture]) -> CascadeOutput:
        """Run the cascade."""
        self.batches.append(len(pictures))
        self.threads.append(threading.current_thread().name)
        assert self.go_on.wait(30)
        return super().run(pictures)


@pytest.fixture
def engines(tiny_bundle: Path) -> tuple[Watched, Watched]:
    """Return the engine for one picture and that for many."""
    return Watched(tiny_bundle, 2), Watched(tiny_bundle, 1)


@pytest.fixture
def batcher(engines: tuple[Watched, Watched]) -> Iterator[Batcher]:
    """Return a batcher of those engines."""
    alone, crowd = engines
    batcher = Batcher(alone, crowd, LANES, Metrics())
    yield batcher
    batcher.close()


def raise_memory_error(*_: object) -> None:
    raise MemoryError


def views(engine: Engine, count: int) -> list[View]:
    return [see(draw(CLASSES[number % 3], number), engine.specs) for number in range(count)]


def test_a_picture_alone_has_every_core_and_many_have_one_each(
    batcher: Batcher, engines: tuple[Watched, Watched]
) -> None:
    alone, crowd = engines
    pictures = views(alone, LANES + 5 * BATCH_SIZE)
    one_by_one = [submitted(batcher, picture).result(30) for picture in pictures]
    assert (alone.batches, crowd.batches) == ([1] * len(pictures), [])
    crowd.go_on.clear()
    with batcher.coming():  # as if one more were on its way
        futures = [submitted(batcher, picture) for picture in pictures]
    wait_until(lambda: len(crowd.batches) == LANES)
    crowd.go_on.set()
    wait(futures, 30)
    assert len(alone.batches) == len(pictures)
    # The first found a free lane each, the others went together.
    assert crowd.batches == [1] * LANES + [BATCH_SIZE] * 5
    for first, future in zip(one_by_one, futures, strict=True):
        assert np.array_equal(first.scores, future.result().scores)


def test_a_picture_alone_may_run_where_it_is_asked_and_beside_others_it_waits(
    batcher: Batcher, engines: tuple[Watched, Watched]
) -> None:
    alone, crowd = engines
    first, second = views(alone, 2)
    alone.go_on.clear()
    with ThreadPoolExecutor(1, "asking") as asking:
        answer = asking.submit(submitted, batcher, first, here=True)
        wait_until(lambda: alone.batches == [1])
        beside = submitted(batcher, second, here=True)
        assert beside.result(30).prediction.label_1  # while the first still runs
        assert not answer.done()
        alone.go_on.set()
        assert answer.result(30).done()
    assert (alone.batches, crowd.batches) == ([1], [1])
    assert alone.threads[0].startswith("asking")
    assert crowd.threads[0].startswith("models")


def test_a_picture_whose_client_left_is_not_run(batcher: Batcher, engines: tuple[Watched, Watched]) -> None:
    alone, crowd = engines
    pictures = views(crowd, LANES + 3)
    crowd.go_on.clear()
    with batcher.coming():
        futures = [submitted(batcher, picture) for picture in pictures]
    wait_until(lambda: len(crowd.batches) == LANES)
    assert all(future.cancel() for future in futures[LANES:])
    late = submitted(batcher, pictures[0])
    crowd.go_on.set()
    assert late.result(30).prediction.label_1
    assert sum(alone.batches + crowd.batches) == LANES + 1


def test_a_queue_whose_clients_all_left_keeps_nobody_from_closing(engines: tuple[Watched, Watched]) -> None:
    _, crowd = engines
    batcher = Batcher(*engines, LANES, Metrics())
    crowd.go_on.clear()
    with batcher.coming():
        futures = [submitted(batcher, picture) for picture in views(crowd, LANES + 1)]
    wait_until(lambda: len(crowd.batches) == LANES)
    with ThreadPoolExecutor(1) as closing:
        closed = closing.submit(batcher.close)
        assert futures[-1].cancel()
        crowd.go_on.set()
        closed.result(30)
    assert all(future.done() for future in futures)


def test_an_error_of_a_picture_run_where_it_is_asked_leaves_its_lane(
    batcher: Batcher, engines: tuple[Watched, Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, crowd = engines
    picture = views(alone, 1)[0]
    with monkeypatch.context() as broken:
        broken.setattr(Watched, "predictions", raise_memory_error)
        with pytest.raises(MemoryError):
            submitted(batcher, picture, here=True)
    assert submitted(batcher, picture, here=True).done()
    assert (alone.batches, crowd.batches) == ([1, 1], [])


def test_what_is_queued_is_answered_before_it_closes(engines: tuple[Watched, Watched]) -> None:
    batcher = Batcher(*engines, LANES, Metrics())
    futures = [submitted(batcher, picture) for picture in views(engines[0], 20)]
    batcher.close()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="closed"):
        submitted(batcher, views(engines[0], 1)[0])

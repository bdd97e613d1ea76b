"""The batcher: pictures run alone or together, with the same answers."""

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

CONCURRENT_BATCHES = 2


class Watched(Engine):
    """An engine that records batch sizes and threads, and that can be paused."""

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
    """Return the latency engine and the throughput engine."""
    return Watched(tiny_bundle, 2), Watched(tiny_bundle, 1)


@pytest.fixture
def batcher(engines: tuple[Watched, Watched]) -> Iterator[Batcher]:
    """Return a batcher with these engines."""
    latency, throughput = engines
    batcher = Batcher(latency, throughput, CONCURRENT_BATCHES, Metrics())
    yield batcher
    batcher.close()


def raise_memory_error(*_: object) -> None:
    raise MemoryError


def views(engine: Engine, count: int) -> list[View]:
    return [see(draw(CLASSES[number % 3], number), engine.specs) for number in range(count)]


def test_a_picture_alone_has_every_core_and_many_have_one_each(
    batcher: Batcher, engines: tuple[Watched, Watched]
) -> None:
    latency, throughput = engines
    pictures = views(latency, CONCURRENT_BATCHES + 5 * BATCH_SIZE)
    one_by_one = [submitted(batcher, picture).result(30) for picture in pictures]
    assert (latency.batches, throughput.batches) == ([1] * len(pictures), [])
    throughput.go_on.clear()
    with batcher.reserve():  # as if one more picture were being decoded
        futures = [submitted(batcher, picture) for picture in pictures]
    wait_until(lambda: len(throughput.batches) == CONCURRENT_BATCHES)
    throughput.go_on.set()
    assert not wait(futures, 30).not_done
    assert len(latency.batches) == len(pictures)
    # The first pictures started at once, one per batch; the others went together.
    assert throughput.batches == [1] * CONCURRENT_BATCHES + [BATCH_SIZE] * 5
    for first, future in zip(one_by_one, futures, strict=True):
        assert np.array_equal(first.scores, future.result().scores)


def test_a_picture_alone_may_run_where_it_is_asked_and_beside_others_it_waits(
    batcher: Batcher, engines: tuple[Watched, Watched]
) -> None:
    latency, throughput = engines
    first, second = views(latency, 2)
    latency.go_on.clear()
    with ThreadPoolExecutor(1, "asking") as asking:
        answer = asking.submit(submitted, batcher, first, inline=True)
        wait_until(lambda: latency.batches == [1])
        beside = submitted(batcher, second, inline=True)
        assert beside.result(30).prediction.label_1  # while the first still runs
        assert not answer.done()
        latency.go_on.set()
        assert answer.result(30).done()
    assert (latency.batches, throughput.batches) == ([1], [1])
    assert latency.threads[0].startswith("asking")
    assert throughput.threads[0].startswith("models")


def test_a_picture_whose_client_left_is_not_run(batcher: Batcher, engines: tuple[Watched, Watched]) -> None:
    latency, throughput = engines
    pictures = views(throughput, CONCURRENT_BATCHES + 3)
    throughput.go_on.clear()
    with batcher.reserve():
        futures = [submitted(batcher, picture) for picture in pictures]
    wait_until(lambda: len(throughput.batches) == CONCURRENT_BATCHES)
    assert all(future.cancel() for future in futures[CONCURRENT_BATCHES:])
    late = submitted(batcher, pictures[0])
    throughput.go_on.set()
    assert late.result(30).prediction.label_1
    assert sum(latency.batches + throughput.batches) == CONCURRENT_BATCHES + 1


def test_a_queue_whose_clients_all_left_keeps_nobody_from_closing(engines: tuple[Watched, Watched]) -> None:
    _, throughput = engines
    batcher = Batcher(*engines, CONCURRENT_BATCHES, Metrics())
    throughput.go_on.clear()
    with batcher.reserve():
        futures = [submitted(batcher, picture) for picture in views(throughput, CONCURRENT_BATCHES + 1)]
    wait_until(lambda: len(throughput.batches) == CONCURRENT_BATCHES)
    with ThreadPoolExecutor(1) as closing:
        closed = closing.submit(batcher.close)
        assert futures[-1].cancel()
        throughput.go_on.set()
        closed.result(30)
    assert all(future.done() for future in futures)


def test_an_error_of_a_picture_run_where_it_is_asked_leaves_its_place(
    batcher: Batcher, engines: tuple[Watched, Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    latency, throughput = engines
    picture = views(latency, 1)[0]
    with monkeypatch.context() as broken:
        broken.setattr(Watched, "predictions", raise_memory_error)
        with pytest.raises(MemoryError):
            submitted(batcher, picture, inline=True)
    assert submitted(batcher, picture, inline=True).done()
    assert (latency.batches, throughput.batches) == ([1, 1], [])


def test_what_is_queued_is_answered_before_it_closes(engines: tuple[Watched, Watched]) -> None:
    batcher = Batcher(*engines, CONCURRENT_BATCHES, Metrics())
    futures = [submitted(batcher, picture) for picture in views(engines[0], 20)]
    batcher.close()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="closed"):
        submitted(batcher, views(engines[0], 1)[0])

"""The batcher: who goes alone, who goes with others, and that it makes no difference to the answers."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from cascade.bundle import read_bundle
from cascade.engine import Engine, Picture
from cascade.rules import CascadeOutput
from cascade.view import View, see
from tests.conftest import CLASSES, draw
from tests.webapps import submitted
from webapp.batcher import BATCH_SIZE, Batcher
from webapp.metrics import Metrics


class Watched(Engine):
    """An engine that notes how many pictures came at once."""

    def __init__(self, bundle: Path, threads: int) -> None:
        super().__init__(read_bundle(bundle), threads)
        self.batches: list[int] = []

    def run(self, pictures: Sequence[Picture]) -> CascadeOutput:
        """Run the cascade."""
        self.batches.append(len(pictures))
        return super().run(pictures)


@pytest.fixture
def engines(tiny_bundle: Path) -> tuple[Watched, Watched]:
    """Return the engine for one picture and that for many."""
    return Watched(tiny_bundle, 2), Watched(tiny_bundle, 1)


@pytest.fixture
def batcher(engines: tuple[Watched, Watched]) -> Iterator[Batcher]:
    """Return a batcher of two lanes."""
    alone, crowd = engines
    batcher = Batcher(alone, crowd, 2, Metrics(), linger=0.5)
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
    pictures = views(alone, 40)
    one_by_one = [submitted(batcher, picture).result(30) for picture in pictures]
    assert (alone.batches, crowd.batches) == ([1] * 40, [])
    with ExitStack() as decoding:
        decoding.enter_context(batcher.coming())  # as if more were on their way: batches fill up
        futures = [submitted(batcher, picture) for picture in pictures]
        wait(futures, 30)
    assert len(alone.batches) == 40
    assert crowd.batches == [BATCH_SIZE] * 5
    for first, future in zip(one_by_one, futures, strict=True):
        assert np.array_equal(first.scores, future.result().scores)


def test_a_picture_alone_may_run_where_it_is_asked_and_beside_others_it_waits(
    batcher: Batcher, engines: tuple[Watched, Watched], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, crowd = engines
    first, second = views(alone, 2)
    threads: list[str] = []
    entered, go_on = threading.Event(), threading.Event()
    run = Watched.run

    def watched(engine: Watched, pictures: Sequence[Picture]) -> CascadeOutput:
        threads.append(threading.current_thread().name)
        entered.set()
        assert go_on.wait(30)
        return run(engine, pictures)

    monkeypatch.setattr(Watched, "run", watched)
    answers: list[bool] = []

    def ask() -> None:
        answers.append(submitted(batcher, first, here=True).done())

    asking = threading.Thread(target=ask, name="asking")
    asking.start()
    assert entered.wait(30)
    beside = submitted(batcher, second, here=True)  # returns at once: the first still runs
    assert not beside.done()
    go_on.set()
    asking.join(30)
    assert beside.result(30).prediction.label_1
    assert answers == [True]
    assert threads[0] == "asking"
    assert threads[1].startswith("models")
    assert (alone.batches, crowd.batches) == ([1], [1])


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
    batcher = Batcher(*engines, 2, Metrics(), linger=0.0)
    futures = [submitted(batcher, picture) for picture in views(engines[0], 20)]
    batcher.close()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="closed"):
        submitted(batcher, views(engines[0], 1)[0])

"""The pipeline: every picture answered once, in order, as the engine alone would answer it."""

import os
import random
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

import canonistia
from cascade.batch.pipeline import BATCH_BYTES, answers
from cascade.errors import PictureError
from cascade.inference.engine import Engine
from cascade.inputs.item import Item, items_of
from tests.conftest import CLASSES, draw


@pytest.fixture(scope="module")
def engine(tiny_bundle: Path) -> Engine:
    return canonistia.load(str(tiny_bundle), threads=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures of many sizes, some of them damaged."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(40):
        draw(CLASSES[seed % 3], seed, (40 + seed, 30 + seed)).save(folder / f"{seed:02d}.png")
    draw("sky", 99, (1200, 900)).save(folder / "large.jpg")
    for seed in (3, 17, 31):
        path = folder / f"{seed:02d}.png"
        path.write_bytes(path.read_bytes()[: 40 * (seed % 2)])
    return folder


@pytest.mark.parametrize(("workers", "readers", "batch"), [(1, 1, 1), (2, 1, 16), (3, 4, 7)])
def test_answers_are_the_engines_to_the_last_digit(
    engine: Engine, photos: Path, workers: int, readers: int, batch: int
) -> None:
    answered = list(answers(engine, items_of([photos]), workers, readers, batch))
    paths = sorted(photos.iterdir())
    assert [one.row.path for one in answered] == [str(path) for path in paths]
    for path, one in zip(paths, answered, strict=True):
        if one.row.error:
            with pytest.raises(PictureError, match=re.escape(f"{path}: {one.row.error}")):
                engine.classify([path])
        else:
            (alone,) = engine.classify([path])
            assert asdict(one.row) == asdict(alone) | {"path": str(path), "error": None}


def test_an_endless_input_is_answered_as_it_comes(engine: Engine) -> None:
    content = draw("rows", 1).tobytes()  # no picture: a row with an error costs no inference
    listed = 0

    def endless() -> Iterator[Item]:
        nonlocal listed
        while True:
            listed += 1
            yield Item(str(listed), len(content), "", lambda: content)

    running = answers(engine, endless(), workers=2)
    assert [next(running).row.path for _ in range(200)] == [str(number) for number in range(1, 201)]
    running.close()
    assert listed < 200 + 12 * 16


def test_large_files_are_held_a_few_at_a_time(engine: Engine) -> None:
    held = most = 0

    class Content(bytes):
        def __new__(cls) -> "Content":
            nonlocal held, most
            held += 1
            most = max(most, held)
            return super().__new__(cls, b"x")

        def __del__(self) -> None:
            nonlocal held
            held -= 1

    items = (Item(str(number), BATCH_BYTES // 2, "", Content) for number in range(300))
    assert sum(one.row.error is not None for one in answers(engine, items, workers=2)) == 300
    assert most <= 2 * 14


def test_what_cannot_be_read_is_a_row_and_the_others_go_on(engine: Engine, tmp_path: Path) -> None:
    draw("sky", 1).save(tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "circle.png").symlink_to("circle.png")
    (tmp_path / "device.png").symlink_to("/dev/null")
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    errors = {Path(one.row.path).name: one.row.error for one in answers(engine, items_of([tmp_path]), workers=2)}
    assert errors.pop("good.png") is None
    assert len(errors) == 4
    assert errors["pipe.png"] == errors["device.png"]
    assert "pipe or a device" in str(errors["pipe.png"])
    assert "symbolic links" in str(errors["circle.png"])
    assert "No such file" in str(errors["gone.png"])


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to the administrator")
def test_a_folder_that_may_not_be_listed_is_a_row(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    draw("sky", 1).save(tmp_path / "good.png")
    rows = [one.row for one in answers(engine, items_of([tmp_path]), workers=1)]
    (tmp_path / "closed").chmod(0o700)
    assert [(row.path, row.error) for row in rows if row.error] == [
        (str(tmp_path / "closed"), "cannot be listed: Permission denied")
    ]


def test_a_folder_that_vanishes_on_the_way_is_rows(engine: Engine, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        draw("sky", 1).save(tmp_path / folder / "one.png")
    items = items_of([tmp_path])
    first = next(items)
    for path in (tmp_path / "a" / "one.png", tmp_path / "b" / "one.png"):
        path.unlink()
        path.parent.rmdir()
    rows = [one.row for one in answers(engine, [first, *items], workers=1)]
    assert [(Path(row.path).name, row.error) for row in rows] == [
        ("one.png", "cannot be opened: No such file or directory"),
        ("b", "cannot be listed: No such file or directory"),
    ]


def test_names_that_are_no_text_are_kept(engine: Engine, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    draw("sky", 1).save(tmp_path / "plain.png")
    (tmp_path / "plain.png").rename(tmp_path / name)
    (row,) = (one.row for one in answers(engine, items_of([tmp_path]), workers=1))
    assert Path(row.path).name == name


def test_the_order_is_that_of_the_inputs(engine: Engine, photos: Path) -> None:
    names = [photos / f"{seed:02d}.png" for seed in range(40)]
    random.Random(0).shuffle(names)
    rows = [one.row.path for one in answers(engine, items_of(names), workers=3, batch_size=4)]
    assert rows == [str(name) for name in names]


def test_memory_that_runs_out_while_reading_is_a_row(
    engine: Engine, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError

    items = list(items_of([photos]))
    monkeypatch.setattr(Path, "read_bytes", no_memory)
    errors = [one.row.error for one in answers(engine, items, workers=1)]
    assert errors == ["does not fit into the memory that is left; make it smaller"] * len(items)

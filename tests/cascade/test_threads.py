"""Threads: the cores that a process has, and work done in order by several of them."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cascade.threads import Plan, in_order, plan, processors

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.mark.skipif(CORES < 2, reason="a quota below one core cannot be told from one core here")
def test_a_quota_of_a_group_above_limits_the_processors(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/jobs/mine\n")
    write(tmp_path, "sys/fs/cgroup/jobs/mine/cpu.max", "max 100000\n")
    assert processors(tmp_path) == CORES
    write(tmp_path, "sys/fs/cgroup/jobs/cpu.max", "50000 100000\n")
    assert processors(tmp_path) == 1


@pytest.mark.skipif(CORES < 2, reason="a quota below one core cannot be told from one core here")
def test_a_quota_of_the_first_version_limits_the_processors(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "3:cpuset:/\n4:cpu,cpuacct:/docker/1234\n0::/\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    assert processors(tmp_path) == CORES
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "99000\n")
    assert processors(tmp_path) == 1


def test_a_machine_without_groups_has_its_processors(tmp_path: Path) -> None:
    assert processors(tmp_path) == CORES


def test_affinity_limits_the_processors() -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert processors() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_many_pictures_have_a_thread_each_and_few_have_all() -> None:
    shared, things = plan(range(1000), 4)
    assert shared == Plan(workers=4, inference=1)
    assert list(things) == list(range(1000))
    shared, things = plan(range(3), 4)
    assert shared == Plan(workers=0, inference=4)
    assert list(things) == [0, 1, 2]


def test_results_come_in_order_whichever_is_done_first() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.05 if number < 2 else 0)
        return number

    assert list(in_order(slow_at_first, range(40), threads=4)) == list(range(40))


def test_endless_things_are_taken_only_as_the_results_are() -> None:
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield taken[-1]

    results = in_order(lambda number: number, endless(), threads=2)
    assert [next(results) for _ in range(10)] == list(range(10))
    results.close()
    assert len(taken) <= 10 + 5


def test_leaving_early_leaves_no_thread() -> None:
    before = threading.active_count()
    results = in_order(lambda number: number, range(1000), threads=3)
    assert next(results) == 0
    results.close()
    assert threading.active_count() == before


def test_an_error_of_the_work_comes_in_its_turn() -> None:
    results = in_order(lambda number: 6 // (3 - number), range(9), threads=2)
    assert [next(results) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_no_more_than_the_given_weight_waits() -> None:
    taken: list[int] = []

    def things() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, things(), 4, ahead=8, weight=lambda number: 10, most=25)
    assert next(results) == 0
    assert len(taken) == 3
    assert list(results) == list(range(1, 20))

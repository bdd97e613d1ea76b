"""Admission: pictures and bytes in progress are limited."""

import dataclasses

import pytest

from webapp.problems import Problem
from webapp.requests.admission import Admission
from webapp.serving.metrics import Metrics
from webapp.settings import Settings


def test_admission_counts_pictures_and_bytes() -> None:
    limits = dataclasses.replace(Settings(), queue=3, max_upload_bytes=100)
    admission = Admission(limits, Metrics())
    admission.acquire(2, 700)
    with pytest.raises(Problem, match="is busy"):
        admission.acquire(2, 0)
    with pytest.raises(Problem, match="is busy"):
        admission.acquire(1, 101)
    admission.acquire(1, 100)
    admission.release(2, 700)
    admission.acquire(2, 0)


def test_bytes_over_the_limit_that_came_alone_leave_room_for_their_pictures() -> None:
    admission = Admission(dataclasses.replace(Settings(), max_upload_bytes=100), Metrics())
    admission.acquire(1, 900)
    admission.acquire(3)
    with pytest.raises(Problem, match="is busy"):
        admission.acquire(1, 1)

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

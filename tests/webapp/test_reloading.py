"""The reloader: an unexpected error does not stop it."""

from pathlib import Path

import pytest

from tests.waiting import wait_until
from webapp.serving.metrics import Metrics
from webapp.serving.reloading import Reloader
from webapp.serving.service import Service


def test_the_reloader_outlives_what_nobody_foresaw(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service([tiny_bundle], Metrics())
    seen = []

    def reload(changed_only: bool) -> None:
        seen.append(changed_only)
        raise ZeroDivisionError

    monkeypatch.setattr(service, "reload", reload)
    reloader = Reloader()
    reloader.start(service)
    for times in (1, 2):
        reloader.request_reload()
        wait_until(lambda times=times: seen.count(False) >= times)
    reloader.stop()
    assert seen.count(False) == 2

"""The reloader: an unexpected error does not stop it."""

import hashlib
import json
import shutil
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


def test_a_bundle_copied_in_place_manifest_first_is_loaded_once_it_is_complete(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(tiny_bundle, tmp_path / "tiny")
    service = Service([folder], Metrics())
    try:
        newer = shutil.copytree(tiny_bundle, tmp_path / "newer")
        manifest = json.loads((newer / "bundle.json").read_text())
        model = newer / manifest["main"]["file"]["path"]
        model.write_bytes(model.read_bytes() + b"\x9a\x06\x01x")  # an unknown field, which ONNX Runtime passes over
        manifest["main"]["file"] |= {
            "size": model.stat().st_size,
            "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        }
        (folder / "bundle.json").write_text(json.dumps(manifest))
        before = service.bundle("tiny").sha256
        for _ in range(3):
            service.reload(changed_only=True)
        assert service.bundle("tiny").sha256 == before
        assert sum("is refused" in record.message for record in caplog.records) == 1
        shutil.copyfile(model, folder / manifest["main"]["file"]["path"])
        service.reload(changed_only=True)
        assert service.bundle("tiny").sha256 == hashlib.sha256((folder / "bundle.json").read_bytes()).hexdigest()
    finally:
        service.close()

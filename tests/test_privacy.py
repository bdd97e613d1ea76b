"""Nothing that runs here reports to anyone: no file of a library's reporter, no question for its host."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cascade.privacy import SETTINGS, report_nothing

ROOT = Path(__file__).resolve().parent.parent
# Each way by which the runtime comes into a process.
WAYS = {
    "python": "import canonistia; canonistia.load({model!r}, 1).classify([{picture!r}])",
    "classify": "import canonistia; canonistia.main(['classify', {picture!r}, '--model', {model!r}])",
    "evaluate": "import canonistia; canonistia.main(['evaluate', {folder!r}, '--model', {model!r}])",
    "engine": "from cascade.inference.engine import Engine; from pathlib import Path; Engine.load(Path({model!r}), 1)",
    "service": "from webapp.serving.metrics import Metrics; from webapp.serving.service import Service; "
    "from pathlib import Path; Service([Path({model!r})], Metrics()).close()",
    "export": "import export.bundles.parity",
    "benchmarks": "import benchmarks.precision",
}


def quiet_run(way: str, bundle: Path, data: Path, home: Path, *before: str) -> subprocess.CompletedProcess[str]:
    picture = next((data / "validation").rglob("*.png"))
    code = WAYS[way].format(model=str(bundle), picture=str(picture), folder=str(data / "validation"))
    own = {"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    command = [*before, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=home, env=own)


@pytest.mark.parametrize("way", list(WAYS))
def test_no_way_of_running_leaves_a_reporters_file_in_an_empty_home(
    way: str, tiny_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    done = quiet_run(way, tiny_bundle, tiny_data, tmp_path)
    assert done.returncode == 0, done.stderr
    left = [path for path in tmp_path.rglob("*") if path.is_file() and "matplotlib" not in path.parts]
    assert not left


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not here")
@pytest.mark.parametrize("way", ["classify", "service"])
def test_no_way_of_running_asks_for_a_host_or_opens_a_store(
    way: str, tiny_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    log = tmp_path / "calls"
    home = tmp_path / "home"
    home.mkdir()
    trace = ["strace", "--seccomp-bpf", "-f", "-q", "-o", str(log), "-e", "trace=openat,connect,sendto,mkdir"]
    done = quiet_run(way, tiny_bundle, tiny_data, home, *trace)
    if "ptrace" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    calls = log.read_text(errors="replace").splitlines()
    assert calls
    asked = [call for call in calls if "sin_port=htons(53)" in call or re.search(r"connect\(.*AF_INET6?,", call)]
    assert not asked
    written = [call for call in calls if re.search(r"(O_CREAT|mkdir\().*", call) and str(home) in call]
    assert not [call for call in written if "= -1" not in call]


def test_what_a_user_has_set_is_left_alone() -> None:
    environment = {"ORT_DISABLE_TELEMETRY": "0", "OTHER": "x"}
    report_nothing(environment)
    assert environment == {**SETTINGS, "ORT_DISABLE_TELEMETRY": "0", "OTHER": "x"}

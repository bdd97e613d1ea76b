"""The serve command: wrong options are refused before anything is served."""

from pathlib import Path

import pytest

from tests.conftest import Run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", "often"), "'often' is not a rate; expected such as '60/minute'"),
        (("--model", "no such"), "no bundle 'no such'"),
        (("--api-key-file", "empty"), "holds no key; expected one per line"),
    ],
)
def test_serve_says_what_is_wrong_with_its_options(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    result = run("serve", *options)
    assert result.exit_code != 0
    assert message in result.output.replace("\n", " ")


def test_too_little_memory_is_told_at_once(run: Run, tiny_bundle: Path) -> None:
    result = run("serve", "--model", tiny_bundle, "--model", tiny_bundle, "--memory", 1)
    assert result.exit_code == 1
    assert "--memory allows 1" in result.output

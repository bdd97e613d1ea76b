"""The documents say what the code does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import Run

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_pages_are_what_help_says(generate: ModuleType) -> None:
    pages = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert generate.command_pages() == pages, "run: python docs/generate.py"


def test_every_local_link_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("models/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_pages_name_only_files_and_tests_that_exist() -> None:
    pages = [*ROOT.glob("*.md"), *(page for page in ROOT.glob("docs/*.md") if page.name != "commands.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    files = re.findall(r"`((?:\w+/)+[\w.]+\.(?:py|md|toml|html))`", text)
    assert len(files) > 50
    assert [name for name in files if not (ROOT / name).exists()] == []
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/*.py"))
    assert [name for name in re.findall(r"`(test_\w+)`", text) if f"def {name}(" not in tests] == []


def test_the_pages_name_only_commands_and_options_that_exist(generate: ModuleType) -> None:
    known = dict(generate.commands())
    pages = [ROOT / "README.md", *(page for page in ROOT.glob("docs/*.md") if page.name != "commands.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    lines = re.findall(r"^ *canonistia ((?:[^\n]|(?<=\\)\n)+)$", text, re.MULTILINE)
    assert len(lines) > 15
    for line in lines:
        name, *words = line.split()
        options = {
            option for parameter in known[name].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word for word in words if word.startswith("--")} <= options, line


def test_the_readme_shows_what_classify_prints(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"^\$ \S+ classify .*\n((?:.+\n)+)```$", readme, re.MULTILINE)
    assert shown is not None
    monkeypatch.chdir(ROOT)
    samples = Path("data", "samples")
    result = run("classify", samples / "forest.jpg", samples / "store.jpg", *sorted(samples.glob("doubtful_*")))
    assert _without_figures(result.output) == _without_figures(shown[1])


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 700


def _without_figures(table: str) -> list[str]:
    """Return the words but the probabilities, whose last digit another processor may round otherwise."""
    return [word for word in table.split() if not word.endswith("%")]

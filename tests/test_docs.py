"""The documents say what the code does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_table_is_what_help_says(generate: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert generate.with_table(readme) == readme, "run: python docs/generate.py"


def test_the_command_pages_are_what_help_says(generate: ModuleType) -> None:
    pages = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert generate.command_pages() == pages, "run: python docs/generate.py"


def test_every_local_link_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("models/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readme_names_only_commands_and_options_that_exist(generate: ModuleType) -> None:
    known = dict(generate._commands())
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = re.findall(r"^canonistia (.+)$", text, re.MULTILINE)
    assert len(lines) == 7
    for line in lines:
        name, *words = line.split()
        options = {option for parameter in known[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, line

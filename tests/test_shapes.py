"""Functions stay short, and take few parameters."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [
    ROOT / "canonistia.py",
    *(p for room in ("cascade", "trainers", "export", "webapp") for p in ROOT.glob(f"{room}/**/*.py")),
]
MOST_LINES = 60
MOST_PARAMETERS = 7
TEMPLATES = {"model_card"}  # their lines are those of the text that they fill

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield every function of a module, methods and functions inside functions too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def is_click_callback(function: Function) -> bool:
    """Return whether a function is a command of click's: its parameters are the command's options."""
    calls = (decorator.func for decorator in function.decorator_list if isinstance(decorator, ast.Call))
    return any(ast.unparse(call) in ("click.command", "click.group") for call in calls)


def lines_of(function: Function) -> int:
    """Return the lines from ``def`` to the end, without the signature of a click callback."""
    assert function.end_lineno is not None
    first = function.body[0].lineno if is_click_callback(function) else function.lineno
    return function.end_lineno - first + 1


def parameters_of(function: Function) -> int:
    """Return the number of parameters without ``self`` and ``cls``."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, (given.vararg, given.kwarg))]
    return sum(parameter.arg not in ("self", "cls") for parameter in named)


def faults(source: str) -> list[str]:
    """Return what is too long or takes too much, one sentence for each."""
    found = []
    for function in functions(ast.parse(source)):
        if function.name not in TEMPLATES and (lines := lines_of(function)) > MOST_LINES:
            found.append(f"{function.name} has {lines} lines, expected at most {MOST_LINES}")
        if not is_click_callback(function) and (count := parameters_of(function)) > MOST_PARAMETERS:
            found.append(f"{function.name} has {count} parameters, expected at most {MOST_PARAMETERS}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_are_short_and_take_few_parameters(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8")) == []


def test_a_long_function_and_one_of_many_parameters_are_found() -> None:
    body = "\n    pass" * 60
    many = ", ".join("abcdefgh")
    assert faults(f"def f():{body}") == ["f has 61 lines, expected at most 60"]
    assert faults(f"class C:\n def f(self, {many}): pass") == ["f has 8 parameters, expected at most 7"]
    assert faults(f"class C:\n def f(self, {many[:-3]}): pass") == []
    assert faults(f"@click.command('f')\n@click.option('--a')\ndef f(\n{many}):{body}") == []

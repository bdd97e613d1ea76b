"""The texts of the page in every language."""

import re
from pathlib import Path
from string import Formatter

import pytest

from webapp.pages.texts import LANGUAGES, texts
from webapp.problems import STATUS

WEBAPP = Path(__file__).resolve().parents[2] / "webapp"
ENGLISH = texts("en").sentences


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_every_language_has_the_same_sentences_with_the_same_blanks(language: str) -> None:
    sentences = texts(language).sentences
    assert sentences.keys() == ENGLISH.keys()
    for key, sentence in sentences.items():
        assert blanks(sentence) == blanks(ENGLISH[key]), key
        assert sentence


def blanks(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name}


def test_every_sentence_is_used_and_none_is_missing() -> None:
    sources = "".join(path.read_text() for path in [*WEBAPP.rglob("*.py"), *WEBAPP.glob("templates/*.html")])
    asked = set(re.findall(r"""["']((?:\w+\.)+\w+)["']""", sources))
    counted = {f"{key}.{number}" for key in asked for number in ("one", "many")}
    by_name = {f"model.{name}" for name in ("stage_main", "stage_submodels", "stage_cascade", "grey", "rgb")}
    by_name |= {"language", "model.squash", "model.crop"} | {f"problem.{kind}" for kind in STATUS}
    assert by_name <= ENGLISH.keys()
    assert not ENGLISH.keys() - asked - counted - by_name


def test_numbers_are_written_as_the_language_does() -> None:
    assert texts("en").percent(0.9702) == "97.0%"
    assert texts("es").percent(0.9702) == "97,0\u00a0%"
    assert texts("en").number(1275) == "1,275"
    assert texts("es").number(1234.5, 1) == "1.234,5"
    assert texts("en").count("answers.pictures", 1) == "1 picture"
    assert texts("es").count("answers.pictures", 2) == "2 imágenes"

"""The texts of the page, one file per language, and numbers in the format of that language."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

LANGUAGES = ("en", "es")

_FOLDER = Path(__file__).parent.parent / "texts"


@dataclass(frozen=True)
class Texts:
    """The texts of one language; calling it returns a sentence with its blanks filled."""

    language: str
    sentences: Mapping[str, str]

    def __call__(self, key: str, /, **blanks: object) -> str:
        """Return the sentence of a dotted key; KeyError if there is none."""
        return self.sentences[key].format(**blanks)

    def count(self, key: str, number: int) -> str:
        """Return the sentence about one thing or about several, ``key.one`` or ``key.many``."""
        return self(f"{key}.one" if number == 1 else f"{key}.many", count=self.number(number))

    def number(self, value: float, decimals: int = 0) -> str:
        """Return a number with this many decimals."""
        return self._local(f"{value:,.{decimals}f}")

    def percent(self, share: float, decimals: int = 1) -> str:
        """Return a share in [0, 1] as a percentage."""
        return self("number.percent", number=self.number(100 * share, decimals))

    def _local(self, number: str) -> str:
        signs = {",": self.sentences["number.thousands"], ".": self.sentences["number.decimal"]}
        return "".join(signs.get(sign, sign) for sign in number)


@cache
def texts(language: str) -> Texts:
    """Return the texts of one of ``LANGUAGES``."""
    with (_FOLDER / f"{language}.toml").open("rb") as file:
        return Texts(language, dict(_flat(tomllib.load(file))))


def script_texts(texts: Texts, megabytes: int) -> dict[str, str]:
    """Return the sentences that scripts show; ``#`` stands for what they fill in."""
    kinds = {"both": "answers.both_count", "unsure": "answers.unsure_count", "refused": "answers.refused"}
    counts = {"pictures": "answers.pictures", "waiting": "answers.waiting", **kinds}
    return {
        "uploading": texts("form.uploading", percent=texts("number.percent", number="#")),
        "looking": texts("form.looking"),
        "waits": texts("form.waits", seconds="#"),
        "remove": texts("form.remove", name="#"),
        "unsureNone": texts("answers.unsure_none"),
        **{f"{name}One": texts(f"{key}.one", count=1) for name, key in counts.items()},
        **{f"{name}Many": texts(f"{key}.many", count="#") for name, key in counts.items()},
        "lost": texts("problem.lost"),
        "gone": texts("problem.gone", status="#"),
        "strange": texts("problem.strange", status="#"),
        "tooBig": texts("problem.too_big", megabytes=megabytes),
        "tooLarge": texts("problem.upload_too_large"),
        "rate": texts("problem.rate"),
    }


def _flat(tree: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for key, value in tree.items():
        pairs += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, str(value))]
    return pairs

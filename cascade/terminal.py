"""Text for a terminal: names come from strangers, and must not steer it."""

import unicodedata

_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, marks of direction, broken text, ends of lines and paragraphs
_JOINERS = "\u200c\u200d"  # words of some languages and some emoji are written with them


def printable(text: str) -> str:
    r"""Return text with each sign that a terminal obeys, or that hides or turns others, as ``\x1b`` or ``\u202e``.

    Rows in CSV, JSON and Parquet keep the names as they are; this is for what a person reads.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(sign if _is_shown(sign) else sign.encode("unicode_escape").decode() for sign in text)


def _is_shown(sign: str) -> bool:
    return sign in _JOINERS or unicodedata.category(sign) not in _STEERING

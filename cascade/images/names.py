"""Names of files as text: a name can be any bytes, and a table, a page or a terminal takes text."""

import os
import re

# Bytes that are not UTF-8, controls, and backslashes that would be taken for the sign of one.
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\udc80-\udcff]|\\(?=x[0-9a-f]{2})")
_SIGN = re.compile(rb"\\x([0-9a-f]{2})")


def text_of(name: str) -> str:
    r"""Return a name as text: bytes that are not UTF-8 become ``\xHH``, as in ``caf\xe9.jpg``, and so do controls.

    A backslash that already begins such a sign becomes ``\x5c``: :func:`name_of` gives the name back.
    """
    return _NO_TEXT.sub(
        lambda found: "".join(f"\\x{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape")), name
    )


def name_of(text: str) -> str:
    """Return the name that :func:`text_of` wrote as this text."""
    return os.fsdecode(_SIGN.sub(lambda sign: bytes.fromhex(sign[1].decode()), os.fsencode(text)))

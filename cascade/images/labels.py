"""Labels: which names a class may have, and the names of files that are made from them."""

import hashlib
import re
import unicodedata

_LONGEST = 255  # bytes of a folder's name, on all usual file systems
_LONGEST_MADE = 100  # bytes of a name that is made here: something is put before and behind it
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]|conin\$|conout\$)(\..*)?", re.IGNORECASE)
_PLAIN = re.compile(r"[\w .,()+=@-]", re.ASCII)


def normalised(name: str) -> str:
    """Return a label in its composed Unicode form (NFC): one name in two forms is one class."""
    return unicodedata.normalize("NFC", name)


def label_fault(label: str) -> str:
    """Return why a label cannot be one folder's name, such as ``holds a '/'``; empty where it can."""
    if not label.strip():
        return "is empty"
    if label in (".", ".."):
        return "is the name of a folder itself"
    for sign in "/\\":
        if sign in label:
            return f"holds a '{sign}'"
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in label):
        return "holds a control character, or is no Unicode text"
    if len(label.encode()) > _LONGEST:
        return f"is longer than {_LONGEST} bytes"
    return ""


def file_name(label: str) -> str:
    """Return a name for a file or folder of a label, the same for each label and another for every other one.

    Letters and digits of any script, spaces and ``.,()+=@-_`` stay as they are. Any other byte becomes ``%`` and two
    digits, and so does what a file system treats in its own way: a dot at the front, a dot or space at the end, the
    first letter of a name that Windows keeps for a device. A long name is shortened and gets a hash of the label.
    """
    label = normalised(label)
    made = "".join(sign if _PLAIN.fullmatch(sign) or sign.isalnum() else _escaped(sign) for sign in label)
    if made.startswith(".") or _DEVICES.fullmatch(made):
        made = _escaped(made[0]) + made[1:]
    if made.endswith((".", " ")):
        made = made[:-1] + _escaped(made[-1])
    if len(made.encode()) > _LONGEST_MADE:
        start = made.encode()[: _LONGEST_MADE - 17].decode(errors="ignore").rstrip(". ")
        made = f"{start}~{hashlib.sha256(label.encode()).hexdigest()[:16]}"
    return made


def _escaped(sign: str) -> str:
    return "".join(f"%{byte:02X}" for byte in sign.encode("utf-8", "surrogateescape"))

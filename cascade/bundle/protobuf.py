"""The wire format of protocol buffers, as far as it takes to look at an ONNX file without the onnx package."""

from collections.abc import Iterator

Value = int | memoryview

_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
_LONGEST_VARINT = 10  # bytes


def fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Yield number and value of each field of a message, in order: an integer, or bytes that are not copied.

    Raises
    ------
    ValueError
        The message is no protocol buffer, or is cut off.
    """
    place, end = 0, len(message)
    while place < end:
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value: Value
            value, place = _varint(message, place)
        else:
            if kind == _BYTES:
                size, place = _varint(message, place)
            elif kind in (_FIXED_64, _FIXED_32):
                size = 8 if kind == _FIXED_64 else 4
            else:
                raise ValueError(f"a field has the wire type {kind}")
            if size > end - place:
                raise ValueError("a field ends behind its message")
            value, place = message[place : place + size], place + size
        yield key >> 3, value


def packed(values: list[Value]) -> Iterator[int]:
    """Yield the integers of a repeated field, one per field or many in one."""
    for value in values:
        if isinstance(value, int):
            yield value
            continue
        place = 0
        while place < len(value):
            number, place = _varint(value, place)
            yield number


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    if place < len(message) and message[place] < 128:
        return message[place], place + 1
    number = 0
    for shift, byte in enumerate(message[place : place + _LONGEST_VARINT]):
        number |= (byte & 127) << (7 * shift)
        if byte < 128:
            return number, place + shift + 1
    raise ValueError("a number does not end")

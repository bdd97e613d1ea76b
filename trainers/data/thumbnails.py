"""Thumbnails: small copies of pictures for records and reports."""

import base64
import io
from pathlib import Path

from PIL import Image

from cascade.images.unreadable import decoded

SIZE = 160


def thumbnail(path: Path) -> Image.Image:
    """Return a picture in colour, at most 160 pixels wide and high."""
    picture = decoded(path).convert("RGB")
    picture.thumbnail((SIZE, SIZE))
    return picture


def as_data_url(picture: Image.Image) -> str:
    """Return a picture as a JPEG in a data URL, for self-contained pages."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()

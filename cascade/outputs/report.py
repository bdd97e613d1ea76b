"""The report: one page about a batch, in one self-contained file."""

import base64
import heapq
import io
import time
from collections import Counter
from html import escape
from pathlib import Path

from cascade.errors import CanonistiaError, PictureError
from cascade.files import written_whole
from cascade.images.decoding import decode
from cascade.images.folders import PassedOver
from cascade.images.names import text_of
from cascade.inputs.item import Item
from cascade.outputs.rows import Answered, Row
from cascade.rules.unsure import doubtfulness

DOUBTFUL = 24
_THUMBNAIL_SIZE = 160  # pixels
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem }
:root { color-scheme: light dark }
table { border-collapse: collapse } td, th { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top }
.number { text-align: right } meter { width: 12rem }
ul.pictures { display: flex; flex-wrap: wrap; gap: 1rem; padding: 0 }
ul.pictures li { list-style: none; width: 160px; overflow-wrap: anywhere } img { max-width: 160px; display: block }
"""
_ANSWERS = """<h2>How to read an answer</h2><ul>
<li><strong>One class with its probability</strong>: of the answers given at 80%, about 80 in 100 are right.
<li><strong>Shows both</strong>: the picture shows both classes, as a highway beside the sea does.
<li><strong>Not sure</strong>: the picture is unlike those that the model learned from, or no specialist recognised it.
</ul>"""


class Report:
    """Counts rows as they pass and keeps the most doubtful; its memory does not grow with the number of rows."""

    def __init__(self, title: str, passed: PassedOver) -> None:
        self._title = title
        self._passed = passed  # which is counted on until the report is written
        self._started = time.monotonic()
        self._rows = 0
        self._counts: Counter[str] = Counter()
        self._accepted: Counter[str] = Counter()
        self._promised = False  # whether the bundle says which answers are accepted
        self._routed = self._unsure = self._both = 0
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._doubtful: list[tuple[float, int, Item, Row]] = []

    def add(self, answered: Answered) -> None:
        """Count one row."""
        row = answered.row
        self._rows += 1
        if row.error:
            self._errors[row.error] += 1
            self._examples.setdefault(row.error, text_of(row.path))
            return
        assert row.label_1 is not None
        assert row.probability_1 is not None
        assert row.probability_2 is not None
        self._counts[row.label_1] += 1
        self._routed += row.stage == "submodels"
        self._unsure += bool(row.unsure)
        self._both += bool(row.both)
        self._promised |= row.accepted is not None
        if row.accepted:
            self._accepted[row.label_1] += 1
            return  # nobody need look at it
        doubt = doubtfulness(bool(row.unsure), row.probability_1, row.probability_2)
        heapq.heappush(self._doubtful, (doubt, -self._rows, answered.item, row))
        if len(self._doubtful) > DOUBTFUL:
            heapq.heappop(self._doubtful)

    def write(self, path: Path) -> None:
        """Write the page.

        Raises
        ------
        CanonistiaError
            It cannot be written.
        """
        try:
            with written_whole(path) as partial:
                partial.write_text(self._page(), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise CanonistiaError(f"{path} cannot be written ({error.strerror}); choose another --report") from error

    def _page(self) -> str:
        shown = [one for one in sorted(self._doubtful, key=lambda one: (-one[0], -one[1])) if one[0] > 0]
        title = "Look yourself: the most doubtful" if self._promised else "The most doubtful"
        errors = "".join(
            f"<tr><td class=number>{count:,}<td>{escape(cause)}<td>{escape(self._examples[cause])}"
            for cause, count in self._errors.most_common()
        )
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(self._title)}</title>"
            f"<style>{_STYLE}</style><h1>{escape(self._title)}</h1>"
            f"<table>{''.join(f'<tr><th>{name}<td>{escape(value)}' for name, value in self._facts())}</table>"
            f"<h2>Classes</h2><table>{self._classes()}</table>{_ANSWERS}"
            f"<h2>{title}</h2><ul class=pictures>{''.join(_shown(item, row) for *_, item, row in shown)}</ul>"
            + (f"<h2>Errors</h2><table><tr><th>files<th>cause<th>for example{errors}</table>" if errors else "")
        )

    def _facts(self) -> list[tuple[str, str]]:
        seconds = time.monotonic() - self._started
        answered, accepted = self._counts.total(), self._accepted.total()
        facts = [
            ("pictures", f"{self._rows:,}"),
            ("answered", f"{answered:,}"),
            ("decided by the submodels", _share(self._routed, answered)),
            ("marked unsure", _share(self._unsure, answered)),
            ("marked both", _share(self._both, answered)),
            ("errors", f"{self._errors.total():,}"),
            ("speed", f"{self._rows / seconds:,.1f} pictures per second"),
        ]
        if self._promised:
            facts[2:2] = [
                ("accepted", _share(accepted, answered)),
                ("look yourself", _share(answered - accepted, answered)),
            ]
        if passed := self._passed.describe():
            facts.append(("not looked at", passed))
        return facts

    def _classes(self) -> str:
        answered = self._counts.total()
        rows = []
        for label, count in self._counts.most_common():
            cells = f"<td>{escape(label)}<td class=number>{count:,}"
            if self._promised:
                accepted = self._accepted[label]
                cells += f"<td class=number>{accepted:,}<td class=number>{count - accepted:,}"
            rows.append(f"<tr>{cells}<td><meter max={answered} value={count}></meter> {_share(count, answered)}")
        head = "<tr><th>class<th>answers<th>accepted<th>look yourself<th>" if self._promised else ""
        return head + "".join(rows)


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else "0"


def _shown(item: Item, row: Row) -> str:
    first, second = escape(str(row.label_1)), escape(str(row.label_2))
    if row.both:
        answer = f"Shows both: {first} and {second}"
    elif row.unsure:
        answer = f"Not sure. Perhaps {first} ({row.probability_1:.0%}) or {second} ({row.probability_2:.0%})"
    else:
        answer = f"{first} {row.probability_1:.0%}<br>{second} {row.probability_2:.0%}"
    return f'<li><img alt="" src="{_thumbnail(item)}">{answer}<br><small>{escape(text_of(row.path))}</small>'


def _thumbnail(item: Item) -> str:
    try:
        picture = decode(item.read(), least_size=_THUMBNAIL_SIZE).convert("RGB")
    except PictureError:
        return "data:,"  # the file was there when it was classified
    picture.thumbnail((_THUMBNAIL_SIZE, _THUMBNAIL_SIZE))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()

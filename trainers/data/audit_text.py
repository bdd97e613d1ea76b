"""The audit as text."""

from cascade.terminal import printable
from trainers.data.audit import Audit, SamePicture
from trainers.data.dataset import too_few_to_export


def describe(report: Audit) -> str:
    """Return the report as text for a terminal, with the name of every faulty file."""
    splits = list(report.counts)
    width = max(len(name) for name in (*report.classes, "class"))
    lines = [f"layout: {report.layout}", ""] if report.layout else []
    lines += [f"{'class':<{width}}  " + "  ".join(f"{split:>10}" for split in splits)]
    for name in report.classes:
        lines.append(f"{name:<{width}}  " + "  ".join(f"{report.counts[split][name]:>10}" for split in splits))
    totals = [sum(report.counts[split].values()) for split in splits]
    lines.append(f"{'total':<{width}}  " + "  ".join(f"{total:>10}" for total in totals))
    if few := too_few_to_export(report.counts):
        lines.append(few)
    lines.append("")
    if report.smallest and report.median and report.largest:
        sizes = (report.smallest, report.median, report.largest)
        lines.append(
            "sizes: smallest {}x{}, median {}x{}, largest {}x{}".format(*(length for size in sizes for length in size))
        )
    lines.append("modes: " + ", ".join(f"{mode} {count}" for mode, count in sorted(report.modes.items())))
    for title, found in (
        ("unreadable", [f"{item.path}: {item.error}" for item in report.unreadable]),
        ("folders without a picture", list(report.empty)),
        ("files that are no pictures", [f"{name}: {count}" for name, count in sorted(report.passed_over.items())]),
        ("byte-identical", [_same_line(item) for item in report.same if item.identical]),
        ("near-identical", [_same_line(item) for item in report.same if not item.identical]),
    ):
        lines.append(f"{title}: {len(found) or 'none'}")
        lines += [f"  {line}" for line in found]
    return "\n".join(map(printable, lines))


def _same_line(same: SamePicture) -> str:
    marks = [
        mark for mark, is_set in (("ACROSS SPLITS", same.across_splits), ("TWO LABELS", same.across_labels)) if is_set
    ]
    return " = ".join(same.paths) + (f"  ({', '.join(marks)})" if marks else "")

"""An evaluation in words."""

from typing import Any


def describe(report: dict[str, Any]) -> str:
    """Return the report as text for a terminal: both stages, each class, the commonest confusions."""
    lines = [
        f"{report['bundle']['name']} on {report['pictures']} pictures; 95% intervals in brackets",
        "",
        f"{'':<9}{'top 1':<26}{'top 2':<26}calibration error",
    ]
    for stage in ("main", "cascade"):
        figures = report[stage]
        columns = [_share(figures[name], figures[f"{name}_interval"]) for name in ("top1", "top2")]
        lines.append(f"{stage:<9}{columns[0]:<26}{columns[1]:<26}{figures['ece']:.4f}")
    lines += ["", f"routed {report['routed']:.1%}, unsure {report['unsure']:.1%}", ""]
    width = max(len(label) for label in report["classes"])
    for label, figures in report["per_class"].items():
        top1 = _share(figures["top1"], figures["top1_interval"]) if figures["pictures"] else "no pictures"
        lines.append(f"{label:<{width}}  {figures['pictures']:>6}  {top1}")
    mistakes = [
        (count, true, predicted)
        for true, row in zip(report["classes"], report["confusion"], strict=True)
        for predicted, count in zip(report["classes"], row, strict=True)
        if true != predicted and count
    ]
    if mistakes:
        lines += ["", "commonest mistakes"]
        ordered = sorted(mistakes, key=lambda mistake: -mistake[0])[:5]
        lines += [f"{count:>4}  {true} taken for {predicted}" for count, true, predicted in ordered]
    return "\n".join(lines)


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"

"""The report of an evaluation as text."""

from statistics import fmean
from typing import Any

from cascade.terminal import printable


def describe(report: dict[str, Any]) -> str:
    """Return the report as text for a terminal: both stages, each class, the most frequent confusions."""
    lines = [
        f"{printable(report['bundle']['name'])} on {report['pictures']} pictures; 95% intervals in brackets",
        "",
        f"{'':<9}{'top 1':<26}{'top 2':<26}calibration error ({report['ece_bins']} equal bins)  seed score",
    ]
    for stage in ("main", "cascade"):
        figures = report[stage]
        columns = [_share(figures[name], figures[f"{name}_interval"]) for name in ("top1", "top2")]
        lines.append(f"{stage:<9}{columns[0]:<26}{columns[1]:<26}{figures['ece']:<28.4f}{figures['seed_score']:.4f}")
    before = report["main_before_calibration"]["ece"]
    lines += [
        "",
        f"calibration error of the main model before temperature scaling {before:.4f}",
        f"routed {report['routed']:.1%}, mean cost {report['cost']:.2f} main passes, unsure {report['unsure']:.1%}, "
        f"both {report['both']:.1%}",
    ]
    if "accepted" in report:
        lines.append(_accepted_line(report["accepted"]))
    for coverage, sets in report["answer_sets"].items():
        held, size = sets["coverage"], sets["mean_size"]
        lines.append(
            f"prediction sets for {float(coverage):.0%}: {held:.1%} contain the true class, {size:.2f} classes per set"
        )
    if "outside" in report:
        outside = report["outside"]
        lines.append(
            f"{outside['pictures']} out-of-distribution pictures: {outside['unsure']:.1%} marked unsure; "
            f"AUROC of the doubt {outside['auroc_of_doubt']:.4f}, of the main model's confidence "
            f"{outside['auroc_of_main_confidence']:.4f}"
        )
    if "pairs" in report:
        lines.append(_pairs_line(report["pairs"]))
    if "sources" in report:
        lines += ["", *_source_lines(report["sources"])]
    lines.append("")
    shown = {label: printable(label) for label in report["classes"]}
    width = max(map(len, shown.values()))
    for label, figures in report["per_class"].items():
        top1 = _share(figures["top1"], figures["top1_interval"]) if figures["pictures"] else "no pictures"
        lines.append(f"{shown[label]:<{width}}  {figures['pictures']:>6}  {top1}")
    mistakes = [
        (count, shown[true], shown[predicted])
        for true, row in zip(report["classes"], report["confusion"], strict=True)
        for predicted, count in zip(report["classes"], row, strict=True)
        if true != predicted and count
    ]
    if mistakes:
        lines += ["", "most frequent mistakes"]
        ordered = sorted(mistakes, key=lambda mistake: -mistake[0])[:5]
        lines += [f"{count:>4}  {true} classified as {predicted}" for count, true, predicted in ordered]
    if "stress" in report:
        lines += ["", *_stress_lines(report["stress"])]
    return "\n".join(lines)


def _source_lines(sources: dict[str, dict[str, Any]]) -> list[str]:
    """Return one line per source, and the means in which every source counts as much, whatever its size."""
    width = max(len("source"), *(len(name or "(none)") for name in sources))
    lines = [f"{'source':<{width}}  pictures  {'main top 1':<26}{'cascade top 1':<26}calibration error  unsure"]
    for name, figures in sources.items():
        shares = [_share(figures[stage]["top1"], figures[stage]["top1_interval"]) for stage in ("main", "cascade")]
        lines.append(
            f"{name or '(none)':<{width}}  {figures['pictures']:>8}  {shares[0]:<26}{shares[1]:<26}"
            f"{figures['cascade']['ece']:<19.4f}{figures['unsure']:.1%}"
        )
        if accepted := figures.get("accepted"):
            lines.append(f"{'':<{width}}  {_accepted_line(accepted)}")
    main, cascade = (fmean(one[stage]["top1"] for one in sources.values()) for stage in ("main", "cascade"))
    return [*lines, f"{'mean':<{width}}  {'':>8}  {main:<26.4f}{cascade:.4f}"]


def _pairs_line(pairs: dict[str, Any]) -> str:
    names = ("both_named", "both_marked", "false_marks")
    named, marked, false = (_share(pairs[name], pairs[f"{name}_interval"]) for name in names)
    return (
        f"{pairs['pictures']} pictures of two classes: both named {named}, both named and marked {marked}; of the "
        f"pictures of one class {false} are marked"
    )


def _accepted_line(accepted: dict[str, Any]) -> str:
    line = f"accepted {_share(accepted['share'], accepted['share_interval'])}"
    if accepted["accuracy"] is None:
        return line
    return f"{line}, of which right {_share(accepted['accuracy'], accepted['accuracy_interval'])}"


def _stress_lines(stress: dict[str, Any]) -> list[str]:
    """Return the stress test as a table: top 1 of both stages, and the cascade's calibration error, by strength."""
    columns = [(stage, figure) for figure, stage in (("top1", "main"), ("top1", "cascade"), ("ece", "cascade"))]
    titles = ("main top 1", "cascade top 1", "cascade calibration error")
    lines = [
        "under stress, strengths 1, 2, 3",
        f"{'':<16}" + "".join(f"{title:<26}" for title in titles).rstrip(),
    ]
    for kind, strengths in [*stress["kinds"].items(), ("mean", stress["mean"])]:
        cells = ("  ".join(f"{figures[stage][name]:.4f}" for figures in strengths.values()) for stage, name in columns)
        lines.append(f"{kind.replace('_', ' '):<16}" + "".join(f"{cell:<26}" for cell in cells).rstrip())
    worst = stress["worst"]
    return [
        *lines,
        f"worst: {worst['kind'].replace('_', ' ')} at strength {worst['strength']}, cascade top 1 "
        + _share(worst["cascade"]["top1"], worst["cascade"]["top1_interval"]),
    ]


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"

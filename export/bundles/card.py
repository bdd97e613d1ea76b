"""The model card of a bundle, in Markdown."""

from cascade.bundle.manifest import Accuracy, Manifest, Quantised
from cascade.rules.decision import LogLinear


def model_card(manifest: Manifest) -> str:
    """Return the card: what the bundle is, how it was made, every figure with its source and interval."""
    measured, rules = manifest.measured, manifest.rules
    stages = (
        ("main model alone", measured.main),
        ("submodels alone (highest wins)", measured.submodels),
        ("cascade", measured.cascade),
    )
    rows = "\n".join(f"| {name} | {_figures(accuracy)} |" for name, accuracy in stages)
    reads = ", which read the main model's features, too" if manifest.head_features == "both" else ""
    trunk = (
        f"binary heads on one shared trunk, {manifest.trunk.backbone} at {manifest.trunk.preprocess.size} pixels{reads}"
        if manifest.trunk
        else f"a whole network each, {manifest.submodels[0].backbone}"
    )
    weights = (
        f" (main weight {rules.decision.main_weight}, submodel weight {rules.decision.submodel_weight})"
        if isinstance(rules.decision, LogLinear)
        else ""
    )
    seen = (
        f" ({measured.seen_in_training} of them are byte-identical to a training picture)"
        if measured.seen_in_training
        else ""
    )
    binary = "\n".join(
        f"| {part.label} | {part.average_precision:.4f} | {part.precision:.4f} | {part.recall:.4f} |"
        for part in manifest.submodels
    )
    sets = ", ".join(
        f"for {float(coverage):.0%} coverage, every class from probability {1 - limit:.4f} on"
        for coverage, limit in manifest.prediction_sets.items()
    )
    size = sum(entry.size for entry in manifest.files) / 1e6
    precision = _precision(manifest.quantised) if manifest.quantised else ""
    return f"""# {manifest.name}

A two-stage picture classifier for {len(manifest.classes)} classes: {", ".join(manifest.classes)}.

## How it works

- **Main model**: {manifest.main.backbone} at {manifest.main.preprocess.size} pixels
  ({manifest.main.preprocess.colour} pictures, {manifest.main.preprocess.resize}), temperature
  {manifest.calibration.temperature:.3f}.
- **Submodels**: one a class, {trunk}, each calibrated by Platt scaling.
- **Routing**: `{rules.routing.name}`{rules.routing.description} sends a picture to the submodels of its
  {rules.candidates} most likely classes; that costs {manifest.second_stage_cost:.2f} passes of the main model more.
- **Decision**: `{rules.decision.name}`{weights}.
- **Unsure**: the picture is farther than {rules.unsure.distance_above:.3f} from every class, or it was routed and every
  submodel asked answers below {rules.unsure.submodels_below:.3f}; fitted to mark {rules.unsure.false_alarm_rate:.1%} of
  pictures of a known class.
- **Answer sets**: {sets}.
- **Size**: {size:.1f} MB of ONNX, no other file needed.{precision}

## Figures

Measured on the {measured.pictures} pictures of the {measured.split} split{seen}.
{measured.method} 95% Wilson intervals in brackets.

| stage | top 1 | top 2 | calibration error (15 bins of equal width) |
| --- | --- | --- | --- |
{rows}

The cascade routes {measured.routed:.1%} of the pictures, at a mean cost of {measured.cost:.2f} passes of the main
model, and marks {measured.unsure:.1%} as unsure.
`canonistia evaluate` on the same split gives slightly better figures than these: there, the final calibration, rules
and answer sets were fitted on the very pictures that are scored.

| submodel | average precision | precision at one half | recall |
| --- | --- | --- | --- |
{binary}

## Data and training

Data fingerprint `{manifest.provenance.data_fingerprint}`, canonistia {manifest.provenance.code_version},
exported {manifest.provenance.created}. Made with:

```
{chr(10).join(manifest.provenance.commands)}
```

## Intended use and limits

For sorting photographs into the classes above. A picture of anything else still gets two of these classes; the
`unsure` mark catches many of them, not all. The figures hold for pictures like those of the data set; measure on
your own with `canonistia evaluate` before you rely on them. Not for decisions about people.
"""


def _precision(quantised: Quantised) -> str:
    ways = ", ".join(f"{file} by {method}" for file, method in quantised.calibration.items())
    return (
        f"\n- **Precision**: networks in 8-bit integers, ranges of activations calibrated on training pictures"
        f"\n  ({ways}); a pass of the main network was {quantised.speed_up:.2f} times as fast as in floating point"
        f"\n  ({quantised.processor}), and top 1 changed by {100 * quantised.top1_change:+.2f} points."
    )


def _figures(accuracy: Accuracy) -> str:
    return (
        f"{_share(accuracy.top1, accuracy.top1_interval)} | {_share(accuracy.top2, accuracy.top2_interval)} | "
        f"{accuracy.ece:.4f}"
    )


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"

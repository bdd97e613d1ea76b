"""The model card of a bundle, in Markdown."""

from cascade.bundle.manifest import Accuracy, Manifest, Measured, Quantised
from cascade.evaluation.metrics import is_wide
from cascade.rules.accept import Accept
from cascade.rules.both import Both
from cascade.rules.decision import Decision, LogLinear
from cascade.rules.distance_calibration import DistanceCalibration
from cascade.rules.distance_correction import DistanceCorrection


def model_card(manifest: Manifest) -> str:
    """Return the card: what the bundle is, how it was made, every figure with its source and interval."""
    return f"""# {manifest.name}

A two-stage picture classifier for {len(manifest.classes)} classes: {", ".join(manifest.classes)}.

## How it works

{_how_it_works(manifest)}

## Figures

{_figures(manifest)}

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
{f"{chr(10)}{manifest.notes.strip()}{chr(10)}" if manifest.notes else ""}"""


def _how_it_works(manifest: Manifest) -> str:
    rules = manifest.rules
    size = sum(entry.size for entry in manifest.files) / 1e6
    precision = _precision(manifest.quantised) if manifest.quantised else ""
    return f"""- **Main model**: {manifest.main.backbone} at {manifest.main.preprocess.size} pixels
  ({manifest.main.preprocess.colour} pictures, {manifest.main.preprocess.resize}), temperature
  {manifest.calibration.temperature:.3f}.
- **Submodels**: one per class, {_networks(manifest)}, each calibrated by Platt scaling.
- **Routing**: `{rules.routing.name}`{rules.routing.description} sends a picture to the submodels of its
  {rules.candidates} most likely classes; that costs {manifest.second_stage_cost:.2f} more passes of the main model.
- **Decision**: `{rules.decision.name}`{_weights(rules.decision)}.
- **Distance** of a picture from the classes: {_distance(manifest.calibration.distance)}.
- **Unsure**: a picture is marked if its distance from every class is above {rules.unsure.distance_above:.3f}, or if it
  was routed and every submodel that was asked answers below {rules.unsure.submodels_below:.3f}; fitted to mark
  {rules.unsure.false_alarm_rate:.1%} of pictures of a known class. The first probability of a marked
  answer is at most {rules.unsure.highest_probability:.2f}.
- **Both**: {_both(rules.both)}.
- **Accepted**: {_accepted(rules.accept)}.
- **Calibration by distance**: {_by_distance(rules.distance_calibration)}.
- **Prediction sets**: {_prediction_sets(manifest)}.
- **Size**: {size:.1f} MB of ONNX, no other file needed.{precision}"""


def _figures(manifest: Manifest) -> str:
    measured = manifest.measured
    seen = (
        f" ({measured.seen_in_training} of them are byte-identical to a training picture)"
        if measured.seen_in_training
        else ""
    )
    return f"""Measured on the {measured.pictures} pictures of the {measured.split} split{seen}.
{measured.method} 95% Wilson intervals in brackets.{_wide(measured)}

| stage | top 1 | top 2 | calibration error (15 bins of equal width) |
| --- | --- | --- | --- |
| main model alone | {_accuracy(measured.main)} |
| submodels alone (highest wins) | {_accuracy(measured.submodels)} |
| cascade | {_accuracy(measured.cascade)} |

The cascade routes {measured.routed:.1%} of the pictures, at a mean cost of {measured.cost:.2f} passes of the main
model, and marks {measured.unsure:.1%} as unsure and {measured.both:.1%} as showing both classes, which none does.
`canonistia evaluate` on the same split gives slightly better figures: the final calibration, rules and prediction
sets were fitted on the pictures that it scores.

| submodel | average precision | precision at one half | recall |
| --- | --- | --- | --- |
{_submodel_rows(manifest)}"""


def _wide(measured: Measured) -> str:
    if not is_wide(measured.cascade.top1_interval):
        return ""
    return f" They are wide: {measured.pictures} pictures tell no more; four times as many halve them."


def _networks(manifest: Manifest) -> str:
    if manifest.trunk is None:
        return f"a whole network each, {manifest.submodels[0].backbone}"
    reads = ", which read the main model's features, too" if manifest.head_features == "both" else ""
    size = manifest.trunk.preprocess.size
    return f"binary heads on one shared trunk, {manifest.trunk.backbone} at {size} pixels{reads}"


def _weights(decision: Decision) -> str:
    if not isinstance(decision, LogLinear):
        return ""
    return f" (main weight {decision.main_weight}, submodel weight {decision.submodel_weight})"


def _distance(correction: DistanceCorrection) -> str:
    if correction.weight == 0:
        return "the Mahalanobis distance of its features"
    return (
        "the Mahalanobis distance of its features, times\n"
        f"  exp({correction.weight:.3f} × ({correction.energy:.3f} − E)), where E is the energy of the main model's\n"
        "  logits, the logarithm of the sum of their exponentials"
    )


def _both(both: Both | None) -> str:
    if both is None:
        return "no answer is marked so"
    weights = ", ".join(f"{name} {weight}" for name, weight in both.weights.items())
    return (
        f"a routed picture is marked as showing both named classes if a weighted sum ({weights}) is at\n"
        f"  least {both.threshold:.4f}; fitted to mark {both.false_mark_rate:.1%} of pictures of one class"
    )


def _accepted(accept: Accept | None) -> str:
    if accept is None:
        return "nothing is said about which answers are accepted"
    return (
        f"an answer that is not unsure is accepted if its first probability is at least {accept.threshold:.4f}.\n"
        f"  Accepted answers are right in at least {accept.accuracy:.4g} of the cases with {accept.confidence:.0%} "
        f"confidence, about pictures like\n  those of the data set: {accept.accepted} of {accept.pictures} were "
        f"accepted, {accept.mistakes} of them wrong. For pictures from elsewhere nothing is promised"
    )


def _by_distance(calibration: DistanceCalibration) -> str:
    if calibration.slope == 0:
        return "none; the same temperature for every picture"
    return (
        f"from the distance {calibration.start:.3f} on, the final probabilities soften; at twice this distance their\n"
        f"  temperature is {1 + calibration.slope:.2f}"
    )


def _prediction_sets(manifest: Manifest) -> str:
    return ", ".join(
        f"for {float(coverage):.0%} coverage, every class with a probability of {1 - limit:.4f} or more"
        for coverage, limit in manifest.prediction_sets.items()
    )


def _precision(quantised: Quantised) -> str:
    methods = ", ".join(f"{file} by {method}" for file, method in quantised.calibration.items())
    return (
        f"\n- **Precision**: networks in 8-bit integers, ranges of activations calibrated on training pictures"
        f"\n  ({methods}); a pass of the main network was {quantised.speed_up:.2f} times as fast as in floating point"
        f"\n  ({quantised.processor}), and top 1 changed by {100 * quantised.top1_change:+.2f} points."
    )


def _submodel_rows(manifest: Manifest) -> str:
    return "\n".join(
        f"| {part.label} | {part.average_precision:.4f} | {part.precision:.4f} | {part.recall:.4f} |"
        for part in manifest.submodels
    )


def _accuracy(accuracy: Accuracy) -> str:
    return (
        f"{_share(accuracy.top1, accuracy.top1_interval)} | {_share(accuracy.top2, accuracy.top2_interval)} | "
        f"{accuracy.ece:.4f}"
    )


def _share(value: float, interval: tuple[float, float]) -> str:
    return f"{value:.4f} [{interval[0]:.4f}, {interval[1]:.4f}]"

"""What so many pictures cannot promise: said in the plan, before anything is trained."""

from collections.abc import Iterator

from cascade.evaluation.metrics import is_wide, wilson_interval
from export.fitting.accept import fewest_accepted, lower_bound
from export.plan import ExportPlan

_ASKED = 0.99  # accuracy of accepted answers that people ask for
_SHARE = 0.9  # of answers that are right, for the width of intervals
_TIMES = 2  # a rate that may be so many times what is asked for is not promised
_MOST = 100_000  # pictures


def limits(pictures: int, plan: ExportPlan) -> Iterator[str]:
    """Yield a sentence for each thing that cannot be promised when rules and figures come from so many pictures."""
    low, high = wilson_interval(round(_SHARE * pictures), pictures)
    if is_wide((low, high)):
        yield (
            f"intervals will be wide: figures come from {pictures:,} pictures, so that {_SHARE:.0%} right means "
            f"between {low:.0%} and {high:.0%}"
        )
    rates = {"--false-alarm-rate": plan.false_alarm_rate, "--both-rate": plan.both_rate}
    for rate in sorted(set(rates.values())):
        if 0 < rate * _TIMES < highest_rate(pictures, rate):
            options = " and ".join(name for name, value in rates.items() if value == rate)
            yield (
                f"a rate of {rate:.3g} of false marks ({options}) cannot be promised: {int(rate * pictures)} of "
                f"{pictures:,} pictures may be marked, and of new ones up to {highest_rate(pictures, rate):.1%}; it "
                f"takes {_enough(rate):,} pictures to stay below {_TIMES * rate:.3g}"
            )
    if pictures < (needed := fewest_accepted(0, _ASKED)):
        yield (
            f"accepted answers (--accept) cannot be promised to be right in {_ASKED:.0%}, which takes {needed} "
            f"pictures without a mistake; at most {lower_bound(pictures, pictures):.1%} can be, if all {pictures:,} "
            "are right"
        )


def highest_rate(pictures: int, rate: float) -> float:
    """Return how high a rate may be in truth, with 95% confidence, when it was fitted to so many pictures."""
    return 1 - lower_bound(pictures - int(rate * pictures), pictures)


def _enough(rate: float) -> int:
    """Return the fewest pictures, in steps of those that allow one more mark, with which the rate is promised."""
    step = max(1, round(1 / rate))
    return next((count for count in range(step, _MOST, step) if highest_rate(count, rate) <= _TIMES * rate), _MOST)

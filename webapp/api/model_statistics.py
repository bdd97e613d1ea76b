"""The statistics of models, in the form of Triton's extension of the protocol."""

import msgspec

from cascade.bundle.reading import Bundle
from webapp.serving.statistics import Total, Totals


class Duration(msgspec.Struct):
    """How often something happened, and the nanoseconds that it took altogether."""

    count: int
    ns: int


class InferenceStatistics(msgspec.Struct):
    """The steps of inference: success and fail count requests, the others pictures."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration  # decoding and resizing
    compute_infer: Duration  # a batch counts its time for each of its pictures
    compute_output: Duration
    cache_hit: Duration
    cache_miss: Duration


class BatchStatistics(msgspec.Struct):
    """The batches of one size."""

    batch_size: int
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(msgspec.Struct):
    """What a model did since it was loaded; zeros where it is not loaded."""

    name: str
    version: str
    last_inference: int  # milliseconds since 1970
    inference_count: int  # pictures
    execution_count: int  # batches
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class Statistics(msgspec.Struct):
    """The statistics of one or all models."""

    model_stats: list[ModelStatistics]


_NOTHING = Duration(0, 0)  # such as the cache, which there is not


def statistics_of(bundle: Bundle, totals: Totals) -> ModelStatistics:
    """Return the statistics of a model."""
    return ModelStatistics(
        name=bundle.manifest.name,
        version=bundle.sha256,
        last_inference=totals.last_answer,
        inference_count=totals.pictures,
        execution_count=sum(total.count for total in totals.batches.values()),
        inference_stats=InferenceStatistics(
            success=_duration(totals.answered),
            fail=_duration(totals.failed),
            queue=_duration(totals.waiting),
            compute_input=_duration(totals.decoding),
            compute_infer=_duration(totals.inference),
            compute_output=_NOTHING,
            cache_hit=_NOTHING,
            cache_miss=_NOTHING,
        ),
        batch_stats=[
            BatchStatistics(size, _NOTHING, _duration(total), _NOTHING)
            for size, total in sorted(totals.batches.items())
        ],
    )


def _duration(total: Total) -> Duration:
    return Duration(total.count, total.ns)

"""The inference response: the outputs as tensors, in JSON or as raw bytes after the JSON."""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from flask import Response

from webapp.api.inference_request import Inference
from webapp.api.v1 import json_response
from webapp.requests.answers import Answer
from webapp.requests.bodies import TENSOR_HEADER
from webapp.serving.service import Served


@dataclass(frozen=True)
class Output:
    """One output of the cascade: for N pictures, values of the shape (N,) or (N, ...)."""

    datatype: str  # in the protocol
    values: Callable[[Sequence[Answer]], np.ndarray]
    per_picture: int | str | None  # values per picture: None for one without a dimension, "K" for one per class

    def shape(self, pictures: int, classes: int) -> list[int]:
        """Return the shape for a number of pictures; -1: any."""
        if self.per_picture is None:
            return [pictures]
        return [pictures, classes if isinstance(self.per_picture, str) else self.per_picture]


OUTPUTS: Mapping[str, Output] = {
    "probabilities": Output("FP64", lambda answers: np.array([one.outcome.scores for one in answers], np.float64), "K"),
    "labels": Output(
        "BYTES",
        lambda answers: np.array([[one.prediction.label_1, one.prediction.label_2] for one in answers], dtype=object),
        2,
    ),
    "routed": Output("BOOL", lambda answers: np.array([one.prediction.stage == "submodels" for one in answers]), None),
    "unsure": Output("BOOL", lambda answers: np.array([one.prediction.unsure for one in answers]), None),
    "both": Output("BOOL", lambda answers: np.array([one.prediction.both for one in answers]), None),
    # Where the bundle has no threshold, nothing is accepted: a tensor has no third value.
    "accepted": Output("BOOL", lambda answers: np.array([bool(one.prediction.accepted) for one in answers]), None),
}


class OutputTensor(msgspec.Struct):
    """An output for all pictures, in row-major order: as flat data, or as raw bytes after the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | int | str | bool] | msgspec.UnsetType = msgspec.UNSET
    parameters: dict[str, int] | msgspec.UnsetType = msgspec.UNSET  # binary_data_size, in bytes


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The answers."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


@dataclass(frozen=True)
class Answered:
    """The answers to a request, by the bundle that gave them."""

    served: Served
    inference: Inference
    answers: Sequence[Answer]

    def message(self) -> InferResponse:
        """Return the response without the values of its outputs."""
        count, classes = len(self.answers), len(self.served.engine.classes)
        outputs = [(name, OUTPUTS[name]) for name in self.inference.binary_outputs]
        tensors = [OutputTensor(name, output.datatype, output.shape(count, classes)) for name, output in outputs]
        return InferResponse(self.served.name, self.served.sha256, tensors, self.inference.id)

    def values(self, name: str) -> np.ndarray:
        """Return the values of an output."""
        return OUTPUTS[name].values(self.answers)


def respond(answered: Answered) -> Response:
    """Return the response to an inference request: JSON, or JSON and raw bytes where an output is asked for as such."""
    message, raw = answered.message(), []
    for tensor in message.outputs:
        values = answered.values(tensor.name)
        if answered.inference.binary_outputs[tensor.name]:
            raw.append(raw_bytes(values))
            tensor.parameters = {"binary_data_size": len(raw[-1])}
        else:
            tensor.data = values.ravel().tolist()
    if not raw:
        return json_response(message)
    text = msgspec.json.encode(message)
    headers = {TENSOR_HEADER: str(len(text))}
    return Response(b"".join([text, *raw]), headers=headers, content_type="application/octet-stream")


def raw_bytes(values: np.ndarray) -> bytes:
    """Return values as the protocol's raw bytes: little-endian, a text with its length in four bytes before it."""
    if values.dtype == object:
        texts = [text.encode() for text in values.ravel()]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    return values.astype(values.dtype.newbyteorder("<")).tobytes()

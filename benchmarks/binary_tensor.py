"""A photo of 12 megapixels as a binary tensor, compared with the same photo as JPEG through the API.

    python -m benchmarks.binary_tensor [--model scene15] [--rounds 30]

One client sends both in turns to one real server with default settings, on one connection, and waits for each answer.
The JPEG goes to /api/v1/classify; its decoded pixels go to /v2/models/NAME/infer as a raw tensor, and the probabilities
come back raw. Decoding the JPEG and encoding the tensor are not counted for the client.
"""

import argparse
import http.client
import io
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from PIL import Image

from benchmarks.large_photos import draw_photo
from benchmarks.machine import processor_name
from benchmarks.serve.processes import running
from cascade.threads import processors

_QUALITY = 88  # of the JPEG
_WARM_UP = 3  # rounds that are not counted


@dataclass(frozen=True)
class Sent:
    """A request."""

    path: str
    body: bytes
    headers: Mapping[str, str]


def requests(model: str) -> dict[str, Sent]:
    """Return the same photo as both requests."""
    file = io.BytesIO()
    draw_photo().save(file, "JPEG", quality=_QUALITY)
    pixels = np.asarray(Image.open(file).convert("RGB"))[None]  # (1, H, W, 3)
    tensor = {"name": "pixels", "shape": list(pixels.shape), "datatype": "UINT8"}
    tensor["parameters"] = {"binary_data_size": pixels.nbytes}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    length = {"Inference-Header-Content-Length": str(len(text))}
    return {
        "JPEG": Sent("/api/v1/classify", file.getvalue(), {"Content-Type": "image/jpeg"}),
        "binary tensor": Sent(f"/v2/models/{model}/infer", text + pixels.tobytes(), length),
    }


def seconds(connection: http.client.HTTPConnection, sent: Sent) -> float:
    """Return how long a request took, from its first byte to the last of its answer."""
    started = time.perf_counter()
    connection.request("POST", sent.path, sent.body, dict(sent.headers))
    answer = connection.getresponse()
    content = answer.read()
    assert answer.status == 200, content
    return time.perf_counter() - started


def main() -> None:
    """Measure in interleaved rounds, and print the medians and the median of the rounds' ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scene15")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    ways = requests(options.model)
    took: dict[str, list[float]] = {name: [] for name in ways}
    with running("canonistia", "serve", "--model", options.model, "--port") as (_, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for number in range(_WARM_UP + options.rounds):
            for name, sent in ways.items():
                spent = 1000 * seconds(connection, sent)
                if number >= _WARM_UP:
                    took[name].append(spent)
        connection.close()
    print(f"{processor_name()}, {processors()} cores, {options.rounds} rounds, 12 megapixels")
    for name, values in took.items():
        size = len(ways[name].body) / 1e6
        print(f"  {name:<14}{size:5.1f} MB{median(values):9.1f} ms  [{min(values):.1f}, {max(values):.1f}]")
    ratios = [tensor / jpeg for jpeg, tensor in zip(took["JPEG"], took["binary tensor"], strict=True)]
    print(f"  binary tensor / JPEG: {median(ratios):.2f}  [{min(ratios):.2f}, {max(ratios):.2f}]")


if __name__ == "__main__":
    main()

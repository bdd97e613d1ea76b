"""LitServe with the same engine and its own batching."""

import sys
from pathlib import Path
from typing import Any

import litserve
from fastapi import Request

from cascade.bundle.lookup import find_bundle


class _Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        from cascade.inference.engine import Engine

        self.engine = Engine.load(Path(find_bundle(sys.argv[1])))
        self.engine.open_all()

    def decode_request(self, request: Request) -> bytes:
        # LitServe reads forms and JSON, but no other body.
        return request["file"].file.read()

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, inputs: list[bytes]) -> list[Any]:
        return self.engine.classify(inputs)

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> dict[str, Any]:
        return {"label_1": output.label_1, "probability_1": output.probability_1}


if __name__ == "__main__":
    api = _Api(max_batch_size=8, batch_timeout=0.004, api_path="/api/v1/classify")
    litserve.LitServer(api, accelerator="cpu", healthcheck_path="/v2/health/live").run(
        host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", generate_client_file=False
    )

"""A Gradio interface with the same engine: a picture in, a label out, asked through its API."""

import sys
from pathlib import Path
from typing import Any

import gradio
import uvicorn
from fastapi import FastAPI
from PIL import Image

from cascade.bundle.lookup import find_bundle


def main() -> None:
    """Serve the interface below ``/``, with a route that says when it answers."""
    from cascade.inference.engine import Engine

    engine = Engine.load(Path(find_bundle(sys.argv[1])))
    engine.open_all()

    def classify(picture: Image.Image) -> dict[str, Any]:
        prediction = engine.classify([picture])[0]
        return {prediction.label_1: prediction.probability_1, prediction.label_2: prediction.probability_2}

    app = FastAPI()
    app.get("/v2/health/live")(lambda: "live")
    interface = gradio.Interface(classify, gradio.Image(type="pil"), gradio.Label(), api_name="classify")
    gradio.mount_gradio_app(app, interface.queue(api_open=True), path="/")
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()

"""A plain Flask view with the same engine and no batching: the usual first version of a service."""

import sys
from pathlib import Path

from flask import Flask, Response, jsonify, request
from gunicorn.app.base import BaseApplication

from cascade.bundle.lookup import find_bundle


class _Server(BaseApplication):
    def load_config(self) -> None:
        settings = {"bind": f"127.0.0.1:{sys.argv[2]}", "worker_class": "gthread", "threads": 8, "loglevel": "warning"}
        for name, value in (settings | {"control_socket_disable": True}).items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        from cascade.inference.engine import Engine

        engine = Engine.load(
            Path(find_bundle(sys.argv[1])), threads=1
        )  # faster than two threads when there are many clients
        engine.open_all()
        app = Flask(__name__)

        @app.post("/api/v1/classify")
        def classify() -> Response:
            prediction = engine.classify([request.get_data()])[0]
            return jsonify({"label_1": prediction.label_1, "probability_1": prediction.probability_1})

        @app.get("/v2/health/live")
        def live() -> str:
            return "live"

        return app


if __name__ == "__main__":
    _Server().run()

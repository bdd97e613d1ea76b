"""Privacy: the libraries used here report nothing to their makers, unless the user asks them to.

They read their settings when they are imported, so these are made before any of them is: by ``cascade/__init__.py``,
which every other package comes past.
"""

import os
from collections.abc import MutableMapping

# What a library is told, by the name of its setting. A user's own value is left alone.
SETTINGS = {
    # ONNX Runtime's wheels keep a device id and a store of events below the user's cache, and send the latter: with
    # processor, memory, run counts and the names of model files, which hold the names of classes.
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "WANDB_ERROR_REPORTING": "false",
    "DO_NOT_TRACK": "1",
}


def report_nothing(environment: MutableMapping[str, str] = os.environ) -> None:
    """Turn the reports of all libraries off, where the user has not set them."""
    for name, value in SETTINGS.items():
        environment.setdefault(name, value)

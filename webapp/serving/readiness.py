"""Readiness: systemd learns that the service is ready once its models are loaded."""

import os
import select
from logging import Logger

from gunicorn.systemd import sd_notify

_VARIABLE = "NOTIFY_SOCKET"


class Readiness:
    """Tells from the worker to the master, and from the master to systemd, that the models are loaded.

    systemd hears the main process alone; gunicorn would report it as soon as it listens.
    """

    def __init__(self) -> None:
        self._notified = os.environ.pop(_VARIABLE, None)
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)  # what later workers write is read by nobody

    def loaded(self) -> None:
        """Note in a worker that its models are loaded."""
        if self._notified:
            os.write(self._writing, b".")

    def report(self, logger: Logger) -> None:
        """Tell systemd, from the master, once a worker has loaded its models; do nothing where systemd did not ask."""
        if self._notified and select.select([self._reading], [], [], 0)[0]:
            os.environ[_VARIABLE], self._notified = self._notified, None
            sd_notify("READY=1\nSTATUS=The models are loaded.", logger, unset_environment=True)

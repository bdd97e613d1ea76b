"""Settings of a service, and the options of ``canonistia serve`` from which they are made."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from webapp.keys import Keyring

if TYPE_CHECKING:
    from cascade.bundle.precision import Precision

MB = 2**20
LogStyle = Literal["off", "text", "json"]


@dataclass(frozen=True)
class Settings:
    """Limits and security; every number has the unit of its name."""

    max_upload_bytes: int = 32 * MB
    max_pictures: int = 50  # per request
    max_pixels: int = 50_000_000  # per picture
    queue: int = 256  # pictures in progress, over all requests of a worker
    workers: int = 1  # processes that answer
    deadline_seconds: float = 30.0  # from the end of the upload to the answer
    upload_seconds: float = 60.0  # for a request to arrive
    # POST requests per address, and wrong keys per address, in the notation of Flask-Limiter: "60/minute"
    rate: str | None = None
    keyring: Keyring = field(default_factory=Keyring)
    trusted_hosts: tuple[str, ...] = ()  # empty: any
    behind_proxy: bool = False
    allowed_origins: tuple[str, ...] = ()  # of pages elsewhere, as parse_origin returns them
    prefix: str = ""  # of every path, as parse_prefix returns it
    grpc: bool = False  # whether calls over gRPC come, too

    @property
    def max_bytes_in_progress(self) -> int:
        """Return how many bytes of uploads are kept in memory, over all requests."""
        return 8 * self.max_upload_bytes


@dataclass(frozen=True)
class ServeOptions:
    """The options of ``canonistia serve``, by name and in the units of the command line."""

    models: tuple[str, ...]
    precision: "Precision"
    threads: int | None
    workers: int
    memory: int | None  # MB
    host: str
    port: int
    grpc_port: int | None
    max_upload: int  # MB
    max_pictures: int
    max_megapixels: int
    queue: int
    deadline: float  # seconds
    upload_time: float  # seconds
    rate: str | None
    rate_storage: str | None  # the address of a Redis
    trusted_hosts: tuple[str, ...]
    behind_proxy: bool
    allowed_origins: tuple[str, ...]
    prefix: str
    bind: Path | None  # of a Unix socket
    api_key_file: Path | None
    collect: Path | None
    max_collect: int  # MB
    log: LogStyle
    debug: bool

    @property
    def memory_bytes(self) -> int | None:
        """Return the limit for the loaded bundles of all workers in bytes; None: no limit."""
        return self.memory * MB if self.memory else None

    def settings(self, keyring: Keyring, own_names: tuple[str, ...]) -> Settings:
        """Return the settings of the service.

        ``keyring`` holds the keys of ``api_key_file``; ``own_names`` are trusted if no name is given.
        """
        return Settings(
            max_upload_bytes=self.max_upload * MB,
            max_pictures=min(self.max_pictures, self.queue),
            max_pixels=self.max_megapixels * 1_000_000,
            queue=self.queue,
            workers=self.workers,
            deadline_seconds=self.deadline,
            upload_seconds=self.upload_time,
            rate=self.rate,
            keyring=keyring,
            trusted_hosts=self.trusted_hosts or (own_names and (*own_names, self.host)),
            behind_proxy=self.behind_proxy,
            allowed_origins=self.allowed_origins,
            prefix=self.prefix,
            grpc=self.grpc_port is not None,
        )

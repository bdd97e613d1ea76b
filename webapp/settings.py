"""Settings of a service, as the serve command was given them."""

from dataclasses import dataclass

MB = 2**20


@dataclass(frozen=True)
class Settings:
    """Limits and locks; every number has the unit of its name."""

    max_upload_bytes: int = 32 * MB
    max_pictures: int = 50  # of one request
    max_pixels: int = 50_000_000  # of one picture
    queue: int = 256  # pictures in hand at once, over all requests
    deadline_seconds: float = 30.0  # from the upload's end to the answer
    upload_seconds: float = 60.0  # for a request to arrive
    rate: str | None = None  # of requests that classify, from one address, as Flask-Limiter writes it: "60/minute"
    api_keys: tuple[str, ...] = ()
    trusted_hosts: tuple[str, ...] = ()  # empty: any
    behind_proxy: bool = False

    @property
    def max_bytes_in_hand(self) -> int:
        """Return how many bytes of uploads are held at once, over all requests."""
        return 8 * self.max_upload_bytes

"""Load: clients on the loopback interface that post pictures without a pause, one connection per client."""

import base64
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Measured:
    """What the clients measured; latencies are in seconds, of answers with status 200."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Return answered pictures per second."""
        return self.statuses[200] / self.seconds


def post(path: str, picture: bytes) -> bytes:
    """Return a whole request that posts a picture as its body."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
    )
    return head.encode() + picture


def post_form(path: str, picture: bytes) -> bytes:
    """Return a whole request that posts a picture as a file of a form."""
    part = b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
    body = part + b"Content-Type: image/jpeg\r\n\r\n" + picture + b"\r\n--edge--\r\n"
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: multipart/form-data; boundary=edge\r\n\r\n" + body


def post_json(path: str, picture: bytes) -> bytes:
    """Return a whole request that posts a picture as a data URL in JSON, as Gradio's API reads it."""
    address = "data:image/jpeg;base64," + base64.b64encode(picture).decode()
    body = json.dumps({"data": [{"url": address}]}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Content-Type: application/json\r\n\r\n" + body


def run_load(port: int, requests: Sequence[bytes], clients: int, seconds: float, limit: int | None = None) -> Measured:
    """Send requests from many clients for some seconds, or until ``limit`` answers; wait one second after a 503."""
    measured = Measured()
    until = time.monotonic() + seconds
    gate = threading.Barrier(clients + 1)

    def client(number: int) -> None:
        gate.wait()
        position = number * 97
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while time.monotonic() < until and (limit is None or measured.statuses[200] < limit):
                    started = time.perf_counter()
                    connection.sendall(requests[position % len(requests)])
                    status = _read_response(connection)
                    if status == 200:
                        measured.latencies.append(time.perf_counter() - started)
                    measured.statuses[status] += 1
                    if status == 503:
                        time.sleep(1)
                    position += 1
        except (OSError, ValueError) as error:
            measured.failures.append(repr(error))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    gate.wait()
    started = time.monotonic()
    for thread in threads:
        thread.join()
    measured.seconds = time.monotonic() - started
    return measured


def _read_response(connection: socket.socket) -> int:
    """Read one response with a known length; return its status."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            raise ValueError("the server closed the connection")
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
    left = length - len(body)
    while left > 0:
        left -= len(connection.recv(65536))
    return int(lines[0].split()[1])

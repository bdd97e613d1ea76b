"""The server for gRPC: hands each call to the application, as a request whose body has not arrived yet."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import unquote
from wsgiref.types import WSGIApplication, WSGIEnvironment

import grpc
import msgspec
from grpc import StatusCode
from werkzeug.wrappers import Response

from webapp.api.grpc_calls import CALLS, PATH
from webapp.api.grpc_messages import SERVICE
from webapp.problems import Problem
from webapp.requests.bodies import RECEIVE, most_tensor_bytes
from webapp.requests.connection import HAS_LEFT, ClientLeftError
from webapp.settings import Settings

# A message has no length before it has arrived, and may be as large as the largest tensor.
_RECEIVED_AT_ONCE = 8
_MESSAGE_TEXT = 64 * 1024  # bytes of a message besides its tensor
_SPARE_CALLS = 128  # in addition to the pictures in progress
_GRACE = 55  # seconds for the calls in progress when the server stops; the master waits a little longer
_MOMENT = 1  # second: the messages of a call that is cancelled end a moment before the call
_IDLE_SECONDS = 300  # that a connection without calls stays open
_HEADERS = ("authorization", "x-api-key", "x-request-id", "x-forwarded-for", "user-agent")
_TRAILERS = ("x-request-id", "retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
_CODES = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    408: StatusCode.DEADLINE_EXCEEDED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    422: StatusCode.INVALID_ARGUMENT,
    429: StatusCode.RESOURCE_EXHAUSTED,
    499: StatusCode.CANCELLED,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


class GrpcServer:
    """Serves the calls of an application in threads of its own; made in a worker, after the fork."""

    def __init__(self, app: WSGIApplication, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._calls = settings.queue + _SPARE_CALLS  # at the same time; more are refused at once
        self._pool = ThreadPoolExecutor(self._calls, "grpc call")
        self._started: Future[None] = Future()
        self._thread: threading.Thread | None = None

    def start(self, address: str) -> None:
        """Listen at an address; RuntimeError if that fails."""
        self._thread = threading.Thread(target=self._run, args=(address,), name="grpc", daemon=True)
        self._thread.start()
        self._started.result()

    def finish(self) -> None:
        """Take no further call; those in progress are answered. Returns at once, and may be called twice."""
        with suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._finishing.set)

    def stop(self) -> None:
        """Finish, and wait for the calls in progress."""
        self.finish()
        if self._thread is not None:
            self._thread.join()
        self._pool.shutdown()

    def _run(self, address: str) -> None:
        try:
            asyncio.run(self._serve(address))
        finally:
            if not self._started.done():
                self._started.set_exception(RuntimeError(f"gRPC cannot listen at {address}"))

    async def _serve(self, address: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._finishing = asyncio.Event()
        self._receiving = asyncio.Semaphore(_RECEIVED_AT_ONCE)
        server = grpc.aio.server(options=self._options(), maximum_concurrent_rpcs=self._calls)
        handlers = {name: grpc.stream_unary_rpc_method_handler(partial(self._call, name)) for name in CALLS}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_insecure_port(address)
        await server.start()
        self._started.set_result(None)
        await self._finishing.wait()
        await server.stop(_GRACE)

    def _options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.so_reuseport", 1),  # the workers listen at one port
            ("grpc.max_receive_message_length", most_tensor_bytes(self._settings) + _MESSAGE_TEXT),
            ("grpc.max_send_message_length", -1),
            # gRPC inflates a message without looking at how large it becomes; pixels hardly compress anyway.
            ("grpc.compression_enabled_algorithms_bitset", 1),
            ("grpc.max_connection_idle_ms", 1000 * _IDLE_SECONDS),
            ("grpc.http2.bdp_probe", 0),  # before a message is asked for, 64 KB of it are held and no more
        ]

    async def _call(self, name: str, messages: AsyncIterator[bytes], context: Any) -> bytes:
        """Answer a call. The message of a unary call comes as a stream of one, so that it is read when it is wanted."""
        left = threading.Event()

        def receive() -> bytes:
            try:
                return asyncio.run_coroutine_threadsafe(self._received(messages), self._loop).result()
            except (CancelledError, EOFError) as error:
                if left.wait(_MOMENT):
                    raise ClientLeftError from error
                raise Problem("malformed", "The call has no message; expected one; send it.") from error

        environ = _environ(name, context)
        environ |= {RECEIVE: receive, HAS_LEFT: left.is_set}
        try:
            respond = partial(Response.from_app, self._app, environ, buffered=True)
            response = await self._loop.run_in_executor(self._pool, respond)
        except asyncio.CancelledError:
            left.set()
            raise
        trailers = tuple((key, response.headers[key]) for key in _TRAILERS if key in response.headers)
        context.set_trailing_metadata(trailers)
        if response.status_code != 200:
            await context.abort(_CODES.get(response.status_code, StatusCode.INTERNAL), _detail(response), trailers)
        return response.get_data()

    async def _received(self, messages: AsyncIterator[bytes]) -> bytes:
        """Return the message of a call, EOFError without one; of all calls, a few messages are received at once."""
        try:
            async with asyncio.timeout(self._settings.upload_seconds), self._receiving:
                return await anext(messages)
        except TimeoutError as error:
            raise Problem("slow_upload", "The message took too long to arrive; send fewer pictures.") from error
        except StopAsyncIteration as error:
            raise EOFError from error


def _environ(name: str, context: Any) -> WSGIEnvironment:
    """Return a call as a WSGI request without a body."""
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": CALLS[name].method,
        "PATH_INFO": f"{PATH}/{name}",
        "SCRIPT_NAME": "",
        "QUERY_STRING": "",
        "CONTENT_LENGTH": "0",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/2",
        "REMOTE_ADDR": _address(context.peer()),
        "HTTP_HOST": "localhost",
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
    }
    for key, value in context.invocation_metadata() or ():
        if key in _HEADERS and isinstance(value, str):
            environ[f"HTTP_{key.upper().replace('-', '_')}"] = value
    return environ


def _address(peer: str) -> str:
    """Return the address in gRPC's name of a client, such as ``ipv6:%5B::1%5D:50000``."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")


def _detail(response: Response) -> str:
    try:
        return str(msgspec.json.decode(response.get_data())["detail"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return response.status

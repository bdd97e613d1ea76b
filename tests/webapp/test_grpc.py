"""The Open Inference Protocol over gRPC, at a real server: with plain grpcio, and with Triton's client."""

import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import canonistia
from cascade.errors import CanonistiaError
from tests.conftest import CLASSES, draw
from tests.serving import Running, free_port, running
from tests.waiting import wait_until
from webapp.serving import grpc_port
from webapp.serving.grpc_port import GrpcPort

grpc = pytest.importorskip("grpc", reason="grpcio is not installed (extra grpc)")
messages = pytest.importorskip("webapp.api.grpc_messages", reason="protobuf is not installed (extra grpc)")
SHIPPED = Path(__file__).resolve().parents[2] / "models" / "scene15"
PIXELS = np.stack([np.asarray(draw(label, 81)) for label in CLASSES])  # (3, H, W, 3)
Code = grpc.StatusCode


@contextmanager
def served(bundle: Path, *options: object) -> Iterator[tuple[Running, str]]:
    """Yield a server and its address for gRPC."""
    port = free_port()
    with running("--model", bundle, "--grpc-port", port, *options) as server:
        yield server, f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def address(tiny_bundle: Path) -> Iterator[str]:
    with served(tiny_bundle, "--max-megapixels", 1, "--max-upload", 1) as (server, address):
        yield address
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
        assert server.said() == []


@pytest.fixture
def channel(address: str) -> Iterator[Any]:
    with grpc.insecure_channel(address) as opened:
        yield opened


def call(channel: Any, name: str, fields: dict[str, Any] | None = None, **options: Any) -> Any:
    """Return the reply to a call of plain grpcio."""
    answer = channel.unary_unary(f"/{messages.SERVICE}/{name}")
    message = messages.made(f"{name}Request", fields or {})
    raw = options.pop("raw", None)
    if raw is not None:
        message.raw_input_contents.append(raw)
    options = {"timeout": 60, "wait_for_ready": True} | options
    return messages.parsed(f"{name}Response", answer(message.SerializeToString(), **options))


def infer(channel: Any, pixels: np.ndarray = PIXELS, **options: Any) -> Any:
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape)}
    fields = {"model_name": options.pop("model", "tiny"), "inputs": [tensor | options.pop("input", {})]}
    return call(channel, "ModelInfer", fields, **{"raw": pixels.tobytes()} | options)


def refusal(run: Any) -> tuple[Any, str]:
    with pytest.raises(grpc.RpcError) as caught:
        run()
    return caught.value.code(), caught.value.details()


def probabilities(reply: Any) -> list[list[float]]:
    found = {output.name: raw for output, raw in zip(reply.outputs, reply.raw_output_contents, strict=True)}
    return np.frombuffer(found["probabilities"], "<f8").reshape(-1, len(CLASSES)).tolist()


def test_plain_grpcio_gets_the_answers_of_the_python_face(channel: Any, tiny_bundle: Path) -> None:
    reply = infer(channel)
    expected = canonistia.load(str(tiny_bundle)).classify(list(PIXELS))
    assert [max(row) for row in probabilities(reply)] == [one.probability_1 for one in expected]
    (version,) = call(channel, "ModelMetadata", {"name": "tiny"}).versions
    assert (reply.model_name, reply.model_version) == ("tiny", version)
    single = PIXELS[:1, :20, :20]  # as single values
    contents = messages.made("InferTensorContents", {"uint_contents": single.ravel().tolist()}).SerializeToString()
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(single.shape)}
    message = messages.made("ModelInferRequest", {"model_name": "tiny", "inputs": [tensor]})
    message.inputs[0].contents = contents
    sent = channel.unary_unary(f"/{messages.SERVICE}/ModelInfer")(message.SerializeToString())
    assert probabilities(messages.parsed("ModelInferResponse", sent)) == probabilities(infer(channel, single))


def test_refusals_have_the_codes_of_grpc(channel: Any) -> None:
    assert refusal(lambda: infer(channel, model="none"))[0] is Code.NOT_FOUND
    assert refusal(lambda: call(channel, "ModelMetadata", {"name": "tiny", "version": "7"}))[0] is Code.NOT_FOUND
    code, said = refusal(lambda: infer(channel, raw=PIXELS.tobytes()[:-1]))
    assert (code, "its shape needs 38880" in said) == (Code.INVALID_ARGUMENT, True)
    assert refusal(lambda: infer(channel, input={"name": "other"}))[0] is Code.INVALID_ARGUMENT
    code, said = refusal(lambda: infer(channel, raw=None))
    assert (code, "no contents" in said) == (Code.INVALID_ARGUMENT, True)
    too_many = np.zeros((51, 8, 8, 3), np.uint8)
    assert refusal(lambda: infer(channel, too_many))[0] is Code.RESOURCE_EXHAUSTED
    damaged = channel.unary_unary(f"/{messages.SERVICE}/ModelInfer")
    assert refusal(lambda: damaged(b"\xff"))[0] is Code.INVALID_ARGUMENT
    empty = channel.stream_unary(f"/{messages.SERVICE}/ModelInfer")
    assert refusal(lambda: empty(iter(())))[0] is Code.INVALID_ARGUMENT
    unknown = channel.unary_unary(f"/{messages.SERVICE}/ModelStreamInfer")
    assert refusal(lambda: unknown(b""))[0] is Code.UNIMPLEMENTED


def test_a_message_may_have_the_bytes_of_the_largest_picture_and_no_more(channel: Any) -> None:
    largest = np.zeros((1, 1000, 1000, 3), np.uint8)  # --max-upload is 1 MB, and --max-megapixels 1
    assert len(probabilities(infer(channel, largest))) == 1
    code, said = refusal(lambda: infer(channel, np.zeros((2, 1000, 1000, 3), np.uint8)))
    assert (code, "larger than max" in said) == (Code.RESOURCE_EXHAUSTED, True)
    # A compressed message is refused before it is inflated.
    bomb = np.zeros((3, 1000, 1000, 3), np.uint8)
    assert refusal(lambda: infer(channel, bomb, compression=grpc.Compression.Gzip))[0] is Code.UNIMPLEMENTED


@pytest.fixture
def triton(address: str) -> Iterator[Any]:
    client = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    with client.InferenceServerClient(address) as opened:
        yield opened


def test_tritonclient_infers_at_its_defaults(triton: Any, tiny_bundle: Path) -> None:
    from tritonclient.grpc import InferInput, InferRequestedOutput

    tensor = InferInput("pixels", list(PIXELS.shape), "UINT8")
    tensor.set_data_from_numpy(PIXELS)
    answer = triton.infer("tiny", [tensor], request_id="mine", priority=1, parameters={"mine": "a"})
    expected = canonistia.load(str(tiny_bundle)).classify(list(PIXELS))
    assert answer.get_response().id == "mine"
    labels = [[text.decode() for text in pair] for pair in answer.as_numpy("labels")]
    assert labels == [[one.label_1, one.label_2] for one in expected]
    assert [max(row) for row in answer.as_numpy("probabilities").tolist()] == [one.probability_1 for one in expected]
    assert answer.as_numpy("unsure").tolist() == [one.unsure for one in expected]
    answer = triton.infer("tiny", [tensor], outputs=[InferRequestedOutput("routed")])
    assert [output.name for output in answer.get_response().outputs] == ["routed"]


def test_tritonclient_reads_health_metadata_index_and_statistics(triton: Any) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.get_server_metadata().name == "canonistia"
    metadata = triton.get_model_metadata("tiny")
    (version,) = metadata.versions
    assert list(metadata.inputs[0].shape) == [-1, -1, -1, 3]
    assert triton.is_model_ready("tiny", version)
    assert not triton.is_model_ready("tiny", "1")
    assert not triton.is_model_ready("none")
    index = triton.get_model_repository_index(as_json=True)
    assert index["models"] == [{"name": "tiny", "version": version, "state": "READY"}]
    (statistics,) = triton.get_inference_statistics("tiny").model_stats
    assert statistics.version == version


def test_messages_have_the_numbers_and_types_of_the_protocol() -> None:
    published = pytest.importorskip("tritonclient.grpc.service_pb2", reason="tritonclient is not installed").DESCRIPTOR
    nested = {
        nested.name: nested for message in published.message_types_by_name.values() for nested in message.nested_types
    }
    for name in messages.MESSAGES:
        theirs = {**nested, **published.message_types_by_name}[name]
        for field in messages.made(name, {}).DESCRIPTOR.fields:
            found = theirs.fields_by_name[field.name]
            assert (found.number, found.is_repeated) == (field.number, field.is_repeated), f"{name}.{field.name}"
            if field.name != "contents":  # read in two steps
                assert found.type == field.type, f"{name}.{field.name}"


def test_keys_and_rates_are_those_of_http(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    (tmp_path / "keys").chmod(0o600)
    options = ("--api-key-file", tmp_path / "keys", "--rate", "3/minute", "--trusted-host", "photos.example")
    with served(tiny_bundle, *options) as (server, address), grpc.insecure_channel(address) as channel:
        assert call(channel, "ServerLive").live
        assert refusal(lambda: call(channel, "ModelMetadata", {"name": "tiny"}))[0] is Code.UNAUTHENTICATED
        wrong = [("authorization", "Bearer other")]
        assert refusal(lambda: infer(channel, metadata=wrong))[0] is Code.UNAUTHENTICATED
        for key in (("authorization", "Bearer secret"), ("x-api-key", "secret")):
            assert len(infer(channel, metadata=[key]).outputs) == 6
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel, metadata=[key])
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert int(dict(caught.value.trailing_metadata())["retry-after"]) > 0
        # One count for both, and calls are not answered over HTTP.
        for path, status in (("api/v1/classify", 429), ("v2/grpc/ServerLive", 404)):
            asked = urllib.request.Request(f"{server.address}{path}", headers={"X-API-Key": "secret"})
            asked.add_header("Host", "photos.example")
            asked.method = "POST" if status == 429 else "GET"
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(asked)
            assert refused.value.code == status
            refused.value.close()


class Holding:
    """A call whose message is sent when that is wanted."""

    def __init__(self, channel: Any) -> None:
        self._wanted = threading.Event()
        tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(PIXELS.shape)}
        message = messages.made("ModelInferRequest", {"model_name": "tiny", "inputs": [tensor]})
        message.raw_input_contents.append(PIXELS.tobytes())
        self._message = message.SerializeToString()
        start = channel.stream_unary(f"/{messages.SERVICE}/ModelInfer")
        self.answer = start.future(self._messages(), timeout=60, wait_for_ready=True)

    def _messages(self) -> Iterator[bytes]:
        if self._wanted.wait(60):
            yield self._message

    def send(self) -> None:
        self._wanted.set()


def metrics(server: Running) -> str:
    with urllib.request.urlopen(f"{server.address}metrics") as answer:
        return str(answer.read().decode())


def wait_for_pictures(server: Running, number: int) -> None:
    wait_until(lambda: f"canonistia_queue_pictures {number}.0" in metrics(server))


def test_slow_full_and_gone_are_told_apart(tiny_bundle: Path) -> None:
    options = ("--queue", 4, "--upload-time", 4)
    with served(tiny_bundle, *options) as (server, address), grpc.insecure_channel(address) as channel:
        slow = [Holding(channel) for _ in range(4)]
        wait_for_pictures(server, 4)
        with pytest.raises(grpc.RpcError) as caught:
            infer(channel)
        assert caught.value.code() is Code.UNAVAILABLE
        assert dict(caught.value.trailing_metadata())["retry-after"] == "1"
        slow[0].answer.cancel()
        for held in slow[1:]:
            assert refusal(held.answer.result) == (
                Code.DEADLINE_EXCEEDED,
                "The message took too long to arrive; send fewer pictures.",
            )
        for held in slow:
            held.send()  # lets the client's threads end
        wait_for_pictures(server, 0)
        assert 'canonistia_errors_total{kind="client_left"} 1.0' in metrics(server)
        assert server.said() == []


def test_a_late_answer_has_its_code() -> None:
    # Fifty pictures through the shipped networks on one thread: no processor has them within a tenth of a second.
    many = np.random.default_rng(3).integers(0, 256, (50, 250, 300, 3), np.uint8)
    with (
        served(SHIPPED, "--deadline", 0.1, "--threads", 1) as (server, address),
        grpc.insecure_channel(address) as channel,
    ):
        code, said = refusal(lambda: infer(channel, many, model=SHIPPED.name))
        assert (code, "The answer took too long" in said) == (Code.DEADLINE_EXCEEDED, True)
        wait_for_pictures(server, 0)
        assert server.said() == []


def test_two_workers_answer_and_calls_in_progress_are_answered_at_the_end(tiny_bundle: Path) -> None:
    with served(tiny_bundle, "--workers", 2) as (server, address):
        expected = None
        for _ in range(8):  # a connection stays with a worker
            with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                found = probabilities(infer(channel))
                assert found == (expected := expected or found)
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            held = Holding(channel)
            wait_for_pictures(server, 1)
            server.process.send_signal(signal.SIGTERM)

            def is_closed() -> bool:
                with socket.socket() as probe, suppress(ConnectionError):
                    return probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) != 0
                return False

            wait_until(is_closed)
            held.send()
            reply = messages.parsed("ModelInferResponse", held.answer.result())
            assert probabilities(reply) == expected
        assert server.process.wait(timeout=60) == 0
        assert server.said() == []


def test_a_port_in_use_and_a_missing_library_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CanonistiaError, match="choose another --grpc-port"):
            GrpcPort("127.0.0.1", taken.getsockname()[1])
    port = free_port()
    with closing(GrpcPort("127.0.0.1", port)) as free:
        assert free.address == f"127.0.0.1:{port}"
        with pytest.raises(CanonistiaError, match="is in use"):  # by this service, which is not listening yet
            GrpcPort("127.0.0.1", port)
    monkeypatch.setattr(grpc_port, "_LIBRARIES", {"grpcio": "grpc_is_not_here", "protobuf": "not_here.protobuf"})
    with pytest.raises(CanonistiaError, match=r"needs grpcio and protobuf.* pip install 'canonistia\[grpc\]'"):
        GrpcPort("127.0.0.1", port)

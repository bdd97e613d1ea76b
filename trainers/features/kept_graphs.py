"""The graphs of frozen backbones, kept from one command to the next: writing one takes as long as many features."""

import hashlib
import inspect
from contextlib import suppress
from pathlib import Path

import click
import torch
from torch import nn

from cascade.files import cache_folder, write_once
from trainers.data.fingerprints import file_sha256
from trainers.features import graph
from trainers.features.graph import RuntimeFeatures, temporary_graph, write_features
from trainers.networks.classifier import Classifier


def runtime_features(network: Classifier, size: int) -> RuntimeFeatures:
    """Return a frozen backbone in ONNX Runtime; errors are those of :func:`trainers.features.graph.temporary_graph`."""
    return temporary_graph(network, size, write_kept_features)


def write_kept_features(network: Classifier, size: int, path: Path) -> None:
    """Write a frozen backbone as a graph from pixels to ``features``; what an earlier command wrote is written again.

    Graphs are kept in ``$CANONISTIA_CACHE`` by the backbone's weights, its code and the image size, with the sha256 of
    their bytes in the name: one that was damaged is not used.
    """
    for known in _folder().glob(f"{_name(network, size)}.*.onnx"):
        with suppress(OSError):  # another process removed it, or it may not be read: it is written anew
            content = known.read_bytes()
            if hashlib.sha256(content).hexdigest() == known.suffixes[0][1:]:
                path.write_bytes(content)
                return
            known.unlink()
    write_and_keep_features(network, size, path)


def write_and_keep_features(network: Classifier, size: int, path: Path) -> None:
    """Write a frozen backbone as a graph anew, and keep it; where nothing can be kept, that is said."""
    write_features(network, size, path)
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_once(folder / f"{_name(network, size)}.{file_sha256(path)}.onnx", path.read_bytes())
    except OSError as error:
        click.echo(f"the graph is not kept for the next time: {folder} cannot be written ({error})", err=True)


def weights_sha256(network: nn.Module) -> str:
    """Return one sha256 for the names and weights of a network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _folder() -> Path:
    return cache_folder() / "graphs"


def _name(network: Classifier, size: int) -> str:
    """Return one sha256 for all that the graph depends on."""
    digest = hashlib.sha256(weights_sha256(network.backbone).encode())
    for scaling in (network.mean, network.std):
        digest.update(scaling.cpu().numpy().tobytes())
    digest.update(f"{network.backbone} {network.flip} {size} {torch.__version__}".encode())
    code = {inspect.getfile(type(module)) for module in network.modules()} | {inspect.getfile(graph)}
    for file in sorted(code):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()

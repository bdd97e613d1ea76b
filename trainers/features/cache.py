"""Features: a frozen network's pooled output for many pictures, computed once and cached."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from cascade.errors import CanonistiaError
from cascade.files import cache_folder
from cascade.images.preprocess import PreprocessSpec, least_size
from cascade.progress import track
from cascade.threads import BATCH_SIZE, in_order, processors
from trainers.data.fingerprints import file_sha256
from trainers.data.loader import PictureDataset, pictures_in_order
from trainers.distributed.device import keep_freed_memory
from trainers.features.graph import RuntimeFeatures, runtime_features
from trainers.networks.classifier import Classifier
from trainers.runs.folder import save_tensors

_BATCH = 32
FEWEST_BY_RUNTIME = 200  # pictures; fewer take PyTorch less time than the export


@dataclass(frozen=True)
class SplitFeatures:
    """The features of the training pictures (N, D) and of the validation pictures (M, D)."""

    training: torch.Tensor
    validation: torch.Tensor


def cached_features(
    network: Classifier,
    paths: Sequence[Path],
    spec: PreprocessSpec,
    device: str,
    workers: int = 0,
    by_pytorch: bool = False,
    graph: RuntimeFeatures | None = None,
) -> torch.Tensor:
    """Return the pooled features of each picture, float32 (N, features), from the cache where they are known.

    ``by_pytorch`` asks for those of PyTorch itself (see :func:`compute_features`); they judge an exported graph.
    ``graph`` is the network's, where it is written already.
    The key depends on the backbone's weights, the preprocessing, the kind of device, the library that computes and the
    bytes of every file, so cached features are never stale. The cache is ``$CANONISTIA_CACHE``, else
    ``~/.cache/canonistia``; deleting it is safe, and where it cannot be written the features are computed each time.
    """
    cache = cache_folder()
    library = "pytorch" if by_pytorch else _library(paths, device, graph)
    path = cache / f"features-{_key(network, paths, spec, device, library)}.safetensors"
    try:
        return load_file(path)["features"]
    except FileNotFoundError:
        pass
    except (OSError, SafetensorError, KeyError) as error:
        click.echo(f"the cached features {path} cannot be read ({error}): computing them again", err=True)
    features = compute_features(network, paths, spec, device, workers, by_pytorch, graph)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        save_tensors(path, {"features": features})
    except (OSError, CanonistiaError, SafetensorError) as error:
        click.echo(f"features are not kept for the next time: {cache} cannot be written ({error})", err=True)
    return features


def features_sha256(network: Classifier, spec: PreprocessSpec) -> str:
    """Return one sha256 for all that a picture's features depend on: backbone weights, preprocessing, flip."""
    return hashlib.sha256(_settings(network, spec)).hexdigest()


def weights_sha256(network: nn.Module) -> str:
    """Return one sha256 for the names and weights of a network."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def compute_features(
    network: Classifier,
    paths: Sequence[Path],
    spec: PreprocessSpec,
    device: str,
    workers: int = 0,
    by_pytorch: bool = False,
    graph: RuntimeFeatures | None = None,
) -> torch.Tensor:
    """Return the pooled features of each picture, float32 (N, features).

    On a CPU ONNX Runtime computes them on all processors, with ``graph`` where it is given. PyTorch does where
    ``by_pytorch`` is set, where a network cannot be exported, and for a few pictures, which take less time than the
    export. The features agree to about 1e-5.
    """
    if not by_pytorch and _library(paths, device, graph) == "onnxruntime":
        try:
            backbone = graph or runtime_features(network, spec.size)
        except (torch.onnx.OnnxExporterError, OSError) as error:
            click.echo(f"{network.backbone_name} cannot be exported ({error}): PyTorch computes its features", err=True)
        else:
            return features_by_runtime(backbone, network.backbone_name, paths, spec)
    keep_freed_memory()
    batches = pictures_in_order(paths, np.zeros(len(paths), dtype=np.int64), spec, _BATCH, workers)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    shown = track(batches.epoch(0), network.backbone_name, len(batches))
    with torch.inference_mode():
        parts = [network.features(pixels.to(device)).cpu() for pixels, _, _ in shown]  # each (batch, features)
    return torch.cat(parts)


def _library(paths: Sequence[Path], device: str, graph: RuntimeFeatures | None) -> str:
    by_runtime = device == "cpu" and (graph or len(paths) >= FEWEST_BY_RUNTIME)
    return "onnxruntime" if by_runtime else "pytorch"


def features_by_runtime(
    backbone: RuntimeFeatures, name: str, paths: Sequence[Path], spec: PreprocessSpec
) -> torch.Tensor:
    """Return the pooled features of each picture, float32 (N, features), by ONNX Runtime on all processors."""
    pictures = PictureDataset(paths, np.zeros(len(paths), dtype=np.int64), spec)
    parts = [range(start, min(start + BATCH_SIZE, len(paths))) for start in range(0, len(paths), BATCH_SIZE)]

    def run(indices: range) -> torch.Tensor:
        return backbone(np.stack([pictures[index, 1.0, 0][0].numpy() for index in indices]))  # (batch, features)

    return torch.cat(list(track(in_order(run, parts, processors()), name, len(parts))))


def _key(network: Classifier, paths: Sequence[Path], spec: PreprocessSpec, device: str, library: str) -> str:
    digest = hashlib.sha256(_settings(network, spec))
    digest.update(device.partition(":")[0].encode())  # another kind of processor rounds differently
    if library != "pytorch":  # and so does another library
        digest.update(library.encode())
    digest.update(str(least_size(spec)).encode())  # large pictures are decoded at this size or above
    for path in paths:
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def _settings(network: Classifier, spec: PreprocessSpec) -> bytes:
    return msgspec.json.encode(spec) + (b"flip" if network.flip else b"") + weights_sha256(network.backbone).encode()

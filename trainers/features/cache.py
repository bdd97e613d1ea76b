"""Features: a frozen network's pooled output for many pictures, computed once and cached."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec
import numpy as np
import torch

from cascade.files import cache_folder
from cascade.images.preprocess import PreprocessSpec, least_size
from cascade.progress import track
from cascade.threads import BATCH_SIZE, in_order, processors
from trainers.data.fingerprints import file_sha256
from trainers.data.loader import PictureDataset, pictures_in_order
from trainers.distributed.device import keep_freed_memory
from trainers.features.graph import RuntimeFeatures, temporary_graph
from trainers.features.kept import KeptFeatures
from trainers.features.kept_graphs import runtime_features, weights_sha256
from trainers.networks.classifier import Classifier, FeatureNetwork

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
    They are kept for each picture by the backbone's weights, the preprocessing, the kind of device, the library that
    computes and the bytes of the file, so they are never stale, and of a data set that grew the new pictures alone are
    computed. The cache is ``$CANONISTIA_CACHE``, else ``~/.cache/canonistia``; deleting it is safe, and where it cannot
    be written the features are computed each time.
    """
    library = "pytorch" if by_pytorch else _library(paths, device, graph)
    kept = KeptFeatures(cache_folder() / f"features-{_key(network, spec, device, library)}")
    names = [file_sha256(path) for path in paths]
    known = kept.find(names)
    missing = {name: path for name, path in zip(names, paths, strict=True) if name not in known}
    if missing:
        features = compute_features(network, list(missing.values()), spec, device, workers, library, graph)
        kept.add(list(missing), features)
        known |= dict(zip(missing, features, strict=True))
    return torch.stack([known[name] for name in names])


def features_sha256(network: Classifier, spec: PreprocessSpec) -> str:
    """Return one sha256 for all that a picture's features depend on: backbone weights, preprocessing, flip."""
    return hashlib.sha256(_settings(network, spec)).hexdigest()


def compute_features(
    network: FeatureNetwork,
    paths: Sequence[Path],
    spec: PreprocessSpec,
    device: str,
    workers: int = 0,
    library: str | None = None,
    graph: RuntimeFeatures | None = None,
) -> torch.Tensor:
    """Return the pooled features of each picture, float32 (N, features).

    ``library`` is ``onnxruntime``, on all processors, or ``pytorch``. The default on a CPU is ONNX Runtime, but without
    a ``graph`` that is written already not for a few pictures, which take PyTorch less time than the export; where a
    network cannot be exported, PyTorch computes them all the same. The features agree to about 1e-5.
    """
    if (library or _library(paths, device, graph)) == "onnxruntime":
        try:
            backbone = graph or _graph(network, spec.size)
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


def _graph(network: FeatureNetwork, size: int) -> RuntimeFeatures:
    return runtime_features(network, size) if isinstance(network, Classifier) else temporary_graph(network, size)


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


def _key(network: Classifier, spec: PreprocessSpec, device: str, library: str) -> str:
    digest = hashlib.sha256(_settings(network, spec))
    digest.update(device.partition(":")[0].encode())  # another kind of processor rounds differently
    digest.update(library.encode())  # and so does another library
    digest.update(str(least_size(spec)).encode())  # large pictures are decoded at this size or above
    return digest.hexdigest()


def _settings(network: Classifier, spec: PreprocessSpec) -> bytes:
    return msgspec.json.encode(spec) + (b"flip" if network.flip else b"") + weights_sha256(network.backbone).encode()

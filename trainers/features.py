"""Features: a frozen network's pooled output for many pictures, computed once and kept."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch
from safetensors.torch import load_file, save_file

from cascade.preprocess import PreprocessSpec
from trainers.fingerprints import file_sha256
from trainers.network import Classifier
from trainers.pictures import PictureDataset, loader
from trainers.progress import track

_BATCH = 32


def cached_features(network: Classifier, paths: Sequence[Path], spec: PreprocessSpec, device: str) -> torch.Tensor:
    """Return the pooled features of each picture, float32 (N, features), from the cache where they are known.

    The key is made of the backbone's weights, the preprocessing and the bytes of every file, so a stale answer
    cannot come back. The cache is ``$CANONISTIA_CACHE``, else ``~/.cache/canonistia``; deleting it is safe.
    """
    cache = Path(os.environ.get("CANONISTIA_CACHE", Path.home() / ".cache" / "canonistia"))
    path = cache / f"features-{_key(network, paths, spec)}.safetensors"
    if path.exists():
        return load_file(path)["features"]
    features = compute_features(network, paths, spec, device)
    cache.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    save_file({"features": features}, partial)
    os.replace(partial, path)
    return features


def compute_features(network: Classifier, paths: Sequence[Path], spec: PreprocessSpec, device: str) -> torch.Tensor:
    """Return the pooled features of each picture, float32 (N, features)."""
    targets = torch.zeros(len(paths), dtype=torch.int64).numpy()
    batches = loader(PictureDataset(paths, targets, spec), _BATCH, shuffle=False, seed=0, workers=0)
    network = network.to(device).to(memory_format=torch.channels_last).eval()
    with torch.inference_mode():
        rows = [
            network.features(pixels.to(device)).cpu() for pixels, _, _ in track(batches, network.backbone_name)
        ]  # each (batch, features)
    return torch.cat(rows)


def _key(network: Classifier, paths: Sequence[Path], spec: PreprocessSpec) -> str:
    digest = hashlib.sha256(msgspec.json.encode(spec))
    for name, tensor in network.backbone.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    for path in paths:
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()

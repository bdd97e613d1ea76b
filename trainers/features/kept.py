"""Features kept from one command to the next: a row for each picture, found again by the bytes of its file."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from cascade.errors import CanonistiaError
from trainers.runs.folder import save_tensors


@dataclass(frozen=True)
class KeptFeatures:
    """A folder of features that were all made in one way; files are only added to it, so that many may write at once.

    A picture's name is the sha256 of its file, 64 hexadecimal digits.
    """

    folder: Path

    def find(self, names: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the features (D,) of those pictures that are known; a file that cannot be read is passed over."""
        wanted = set(names)
        found: dict[str, torch.Tensor] = {}
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                with safe_open(path, "pt") as file:
                    rows = {bytes(row).hex(): number for number, row in enumerate(file.get_tensor("names").numpy())}
                    new = (wanted & rows.keys()) - found.keys()
                    features = file.get_tensor("features") if new else None
            except (OSError, SafetensorError) as error:
                click.echo(f"the kept features {path} cannot be read ({error}): computing them again", err=True)
                continue
            if features is not None:
                found |= {name: features[rows[name]] for name in new}
        return found

    def add(self, names: Sequence[str], features: torch.Tensor) -> None:
        """Keep the features (N, D) of pictures; where nothing can be written, say so and go on."""
        path = self.folder / f"{hashlib.sha256(''.join(names).encode()).hexdigest()}.safetensors"
        digests = np.frombuffer(bytes.fromhex("".join(names)), dtype=np.uint8).reshape(len(names), -1)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save_tensors(path, {"names": torch.from_numpy(digests.copy()), "features": features})
        except (OSError, CanonistiaError, SafetensorError) as error:
            click.echo(f"features are not kept for the next time: {path} cannot be written ({error})", err=True)

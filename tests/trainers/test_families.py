"""One network of every family is fine-tuned, exported, held to PyTorch and classifies; none is skipped for its head."""

import inspect
import operator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models import get_model

from cascade.bundle.reading import BundleError
from cascade.images.decoding import decode
from cascade.inference.engine import Engine
from export.bundles import model_files
from export.commands.export_bundle import export_bundle
from export.graphs.modules import MainGraph, SubmodelGraph, write_like
from export.plan import ExportPlan
from tests.conftest import CLASSES, draw
from trainers.commands.train_main import train_main
from trainers.networks.config import NetworkConfig
from trainers.recipe import MAIN_DEFAULTS

# The smallest image size that the network takes.
FAMILIES = {
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "convnext_tiny": 64,
    "efficientnet_b0": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "swin_t": 64,
    "vit_b_32": 32,
    "densenet121": 64,
    "vgg11": 32,
    "squeezenet1_1": 64,
    "shufflenet_v2_x0_5": 64,
    "googlenet": 64,
    "inception_v3": 80,
    "maxvit_t": 64,
    "mnasnet0_5": 64,
    "alexnet": 64,
    "timm/test_vit": 64,
    "timm/test_convnext": 64,
    "timm/test_nfnet": 64,
    "timm/test_mambaout": 64,
    "timm/test_coatnet": 64,
}
WITHOUT_MAPS = {
    "convnext_tiny", "mobilenet_v3_small", "vit_b_32", "vgg11", "inception_v3", "maxvit_t", "alexnet",
    "timm/test_vit", "timm/test_convnext", "timm/test_mambaout",
}  # fmt: skip
# Random weights without batch-norm statistics give every picture the same features but for rounding.
FLAT_AT_FIRST = {"efficientnet_b0", "googlenet", "inception_v3"}

# Networks whose many blocks are all of the same kinds have a few of them here: torchvision's builders take the numbers.
FEWER_BLOCKS: dict[str, tuple[str, dict[str, object]]] = {
    "maxvit_t": ("maxvit._maxvit", {"block_layers": [1, 1, 1, 1], "partition_size": 2}),
    "swin_t": ("swin_transformer._swin_transformer", {"depths": [2, 2, 2, 2]}),
    "vit_b_32": ("vision_transformer._vision_transformer", {"num_layers": 3}),
}


@pytest.fixture
def fewer_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torchvision build a network with fewer blocks of the same kinds."""
    if name not in FEWER_BLOCKS:
        return
    builder, wanted = FEWER_BLOCKS[name]
    build = operator.attrgetter(builder)(models)

    def build_fewer(*arguments: object, **options: object) -> nn.Module:
        given = inspect.signature(build).bind(*arguments, **options)
        given.arguments |= wanted
        return build(*given.args, **given.kwargs)

    monkeypatch.setattr(f"torchvision.models.{builder}", build_fewer)


@pytest.fixture
def known_submodels(light_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write the graphs of the submodels, which are the same with every family, as they were written once."""
    wanted = model_files.write_onnx

    def write(graph: nn.Module, example: torch.Tensor, name: str, outputs: Sequence[str], path: Path) -> None:
        if isinstance(graph, MainGraph):
            wanted(graph, example, name, outputs, path)
        else:
            scalars = graph.state_dict() if isinstance(graph, SubmodelGraph) else {}
            known = light_bundle / path.relative_to(path.parents[isinstance(graph, SubmodelGraph)])
            write_like(known, path, {name: value.numpy() for name, value in scalars.items()})

    monkeypatch.setattr(model_files, "write_onnx", write)


def with_statistics(name: str, size: int, path: Path) -> Path:
    """Write a random start that has seen a few pictures."""
    torch.manual_seed(0)
    wished = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    network = get_model(name, weights=None, **wished)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over all batches
    pixels = np.stack([np.asarray(draw(label, seed, (size, size))) for label in CLASSES for seed in range(2)])
    auxiliary, network.AuxLogits = getattr(network, "AuxLogits", None), None  # it pools small pictures to nothing
    with torch.no_grad():
        network.train()((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - 0.45) / 0.225)
    if auxiliary:
        network.AuxLogits = auxiliary
    save_file(network.state_dict(), path)
    return path


@pytest.mark.usefixtures("fewer_blocks", "known_submodels")
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_exports_agrees_with_pytorch_and_classifies(
    name: str, few_data: Path, light_subs: Path, tmp_path: Path
) -> None:
    recipe = replace(MAIN_DEFAULTS, unfreeze="last-1", epochs=1, batch_size=6, augment="none", tracker="none", ema=0.0)
    network_config = NetworkConfig(name, size=FAMILIES[name], pretrained=False)
    if name in FLAT_AT_FIRST:
        network_config = replace(
            network_config, weights=with_statistics(name, FAMILIES[name], tmp_path / "start.safetensors")
        )
    run = train_main(few_data, tmp_path / "main", network_config, recipe, report=False)
    assert run.network.backbone.spatial == (name not in WITHOUT_MAPS)
    plan = ExportPlan(tmp_path / "main", light_subs, few_data, tmp_path / "models" / "small")
    bundle, _ = export_bundle(plan)  # refuses a bundle that disagrees with PyTorch
    engine = Engine(bundle, threads=1)
    pictures = [draw("sky", 900), draw("rows", 901)]
    assert {answer.label_1 for answer in engine.classify(pictures)} <= set(CLASSES)
    decoded = [decode(picture) for picture in pictures]
    if name in WITHOUT_MAPS:
        with pytest.raises(BundleError, match=r"no activation maps: its backbone .* has no spatial feature map"):
            engine.main_outputs(decoded, "activation_maps")
    else:
        maps, logits = engine.main_outputs(decoded, "activation_maps", "logits")
        assert np.allclose(maps.mean(axis=(2, 3)), logits, rtol=1e-3, atol=1e-3)

"""Batch classification compared with other tools, on the same main network and runtime where they support it.

    python -m benchmarks.peers PICTURES [--model scene15] [--count 640] [--rounds 5] [--batches N ...] [--only NAME ...]

Each tool goes from files to classes in memory, on all cores, with models loaded and warm, in turns. The network is the
bundle's main model with floating-point pixels as its input, which Ultralytics and Hugging Face require. Rows of this
project measure the whole cascade, including the second stage on routed pictures; rows with the main model alone do the
same work as the other tools. Tools are measured if they can be imported; they need a separate environment (ultralytics;
transformers with optimum-onnx; fastai; timm). A second table gives this project's speed relative to each tool, turn by
turn.
"""

import argparse
import importlib.util
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from benchmarks.copies import copies
from cascade.batch.pipeline import answers
from cascade.bundle.lookup import find_bundle
from cascade.bundle.precision import INT8, processor_kind
from cascade.bundle.reading import Bundle, read_bundle, without_routing
from cascade.images.folders import pictures_below
from cascade.inference.engine import Engine, stack
from cascade.inputs.item import items_of
from cascade.threads import BATCH_SIZE, processors

OURS = "canonistia"
MAIN_ALONE = ", main alone"


def with_float_input(bundle: Bundle, path: Path, name: str, output: str) -> Path:
    """Write the main network with floating-point pixels (N, 3, S, S) from 0 to 1 as input, and a single output."""
    model = onnx.load_model_from_string(bundle.content(bundle.manifest.main.file))
    graph, size = model.graph, bundle.manifest.main.preprocess.size
    cast = next(node for node in graph.node if node.op_type == "Cast")
    transpose = next(node for node in graph.node if node.output[0] == cast.input[0])
    for node in (cast, transpose):
        graph.node.remove(node)
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(255), "white"))
    graph.node.insert(0, onnx.helper.make_node("Mul", [name, "white"], [cast.output[0]]))
    graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, size, size]))
    kept = next(value for value in graph.output if value.name == output)
    del graph.output[:]
    graph.output.append(kept)
    classes = dict(enumerate(bundle.manifest.classes))
    for key, value in {
        "task": "classify",
        "names": str(classes),
        "imgsz": f"[{size}, {size}]",
        "stride": "1",
        "batch": "1",
        "channels": "3",
        "args": "{'dynamic': True}",
    }.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


Run = Callable[[Sequence[Path]], object]


def bare(bundle: Bundle, paths: Sequence[Path]) -> Run:
    """Return a run of the main network alone on pixels in memory, one thread per core: the upper limit."""
    engine = Engine(bundle, threads=1)
    entry, spec = bundle.manifest.networks[0]
    session = engine.sessions.session(entry)
    pixels = stack([engine.see(path) for path in paths[:640]], spec)

    def run(some: Sequence[Path]) -> None:
        starts = (start % len(pixels) for start in range(0, len(some), BATCH_SIZE))
        batches = [pixels[start : start + BATCH_SIZE] for start in starts]
        with ThreadPoolExecutor(processors()) as pool:
            list(pool.map(lambda batch: session.run(["logits"], {"pixels": batch}), batches))

    return run


def ours(bundle: Bundle) -> Run:
    """Return a run of this project's pipeline."""
    engine = Engine(bundle, threads=1)
    engine.self_test(BATCH_SIZE)
    return lambda paths: list(answers(engine, items_of(paths), processors()))


def ultralytics(bundle: Bundle, folder: Path, batch: int) -> Run:
    """Return a run of Ultralytics' predictor."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_CONFIG_DIR", str(folder))
    from ultralytics import YOLO

    model = YOLO(with_float_input(bundle, folder / f"yolo-{batch}.onnx", "images", "logits"), task="classify")
    size = bundle.manifest.main.preprocess.size

    def run(paths: Sequence[Path]) -> list[int]:
        names = folder / "pictures.txt"  # given a list of paths, it opens all pictures at once, as one batch
        names.write_text("\n".join(map(str, paths)))
        results = model.predict(str(names), imgsz=size, batch=batch, stream=True, verbose=False)
        return [result.probs.top1 for result in results]

    return run


def hugging_face(bundle: Bundle, folder: Path, batch: int) -> Run:
    """Return a run of the Hugging Face pipeline with optimum's ONNX Runtime."""
    from optimum.onnxruntime import ORTModelForImageClassification
    from transformers import ViTImageProcessor, pipeline

    exported = folder / f"hugging-{batch}"
    exported.mkdir()
    with_float_input(bundle, exported / "model.onnx", "pixel_values", "logits")
    size, classes = bundle.manifest.main.preprocess.size, bundle.manifest.classes
    config = {"model_type": "resnet", "id2label": dict(enumerate(classes)), "label2id": {}}
    (exported / "config.json").write_text(json.dumps(config))
    processor = ViTImageProcessor(size={"height": size, "width": size}, do_normalize=False)
    model = ORTModelForImageClassification.from_pretrained(exported)
    classify = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
    return lambda paths: list(classify([str(path) for path in paths], batch_size=batch, top_k=2))


def timm_loop(bundle: Bundle, batch: int) -> Run:
    """Return a run of timm's loader and network in PyTorch; always lite0, whatever network the bundle has."""
    import timm
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=len(bundle.manifest.classes))
    network.eval().to(memory_format=torch.channels_last)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))

    class Files(Dataset):
        """The pictures of some files."""

        def __init__(self, paths: Sequence[Path]) -> None:
            self.paths = paths

        def __len__(self) -> int:
            return len(self.paths)

        def __getitem__(self, index: int) -> torch.Tensor:
            return transform(Image.open(self.paths[index]).convert("RGB"))

    def run(paths: Sequence[Path]) -> list[torch.Tensor]:
        with torch.inference_mode():
            loader = DataLoader(Files(paths), batch, num_workers=1)
            return [network(pixels.to(memory_format=torch.channels_last)).topk(2).indices for pixels in loader]

    return run


def fastai_loop(bundle: Bundle, paths: Sequence[Path], batch: int) -> Run:
    """Return a run of fastai's ``get_preds`` with the same timm network."""
    import timm
    from fastai.vision.all import CategoryBlock, DataBlock, ImageBlock, Learner, Resize, noop

    size, classes = bundle.manifest.main.preprocess.size, bundle.manifest.classes
    block = DataBlock((ImageBlock, CategoryBlock(vocab=classes)), get_y=lambda _: classes[0], item_tfms=Resize(size))
    loaders = block.dataloaders(list(paths[:64]), bs=batch, num_workers=1)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=len(classes))
    learner = Learner(loaders, network, loss_func=noop)

    def run(some: Sequence[Path]) -> object:
        with learner.no_bar(), learner.no_logging():
            return learner.get_preds(dl=loaders.test_dl(list(some), num_workers=1), act=lambda x: x.softmax(1))

    return run


def find_tools(folder: Path, paths: Sequence[Path], work: Path, sizes: Sequence[int]) -> dict[str, Callable[[], Run]]:
    """Return all tools that can be measured here, by name."""
    bundle = read_bundle(folder)
    ready: dict[str, Callable[[], Run]] = {"bare runtime": lambda: bare(bundle, paths)}
    forms = {OURS: bundle} | ({f"{OURS}, 8 bits": read_bundle(folder / INT8)} if (folder / INT8).exists() else {})
    for name, form in forms.items():
        ready[name] = partial(ours, form)
        ready[f"{name}{MAIN_ALONE}"] = partial(ours, without_routing(form))

    def here(*names: str) -> bool:
        return all(importlib.util.find_spec(name) for name in names)

    for batch in sizes:  # their speed depends on the batch size
        if here("ultralytics"):
            ready[f"Ultralytics, batch {batch}"] = partial(ultralytics, bundle, work, batch)
        if here("transformers", "optimum"):
            ready[f"Hugging Face pipeline, batch {batch}"] = partial(hugging_face, bundle, work, batch)
    if here("timm"):
        ready["timm in PyTorch, batch 32"] = lambda: timm_loop(bundle, 32)
    if here("fastai"):
        ready["fastai, batch 32"] = lambda: fastai_loop(bundle, paths, 32)
    return ready


def main() -> None:
    """Measure in turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model", default="scene15")
    parser.add_argument("--count", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="of Ultralytics and Hugging Face")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="those whose names begin so; everyone by default")
    options = parser.parse_args()
    folder = find_bundle(options.model).resolve()
    packages = ("onnxruntime", "ultralytics", "transformers", "optimum", "fastai", "timm", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in packages if importlib.util.find_spec(name))
    print(f"{processor_kind()}, {processors()} cores, Python {platform.python_version()}, {versions}")
    with tempfile.TemporaryDirectory() as work, tempfile.TemporaryDirectory() as pictures:
        paths = copies(pictures_below(options.pictures), options.count, Path(pictures))
        ready = find_tools(folder, paths, Path(work), options.batches)
        runs = {name: make() for name, make in ready.items() if name.startswith(tuple(options.only or ("",)))}
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(options.rounds + 1):
            for name, run in runs.items():
                some = paths if turn else paths[:64]  # the first turn warms up
                started = time.perf_counter()
                run(some)
                if turn:
                    rates[name].append(len(paths) / (time.perf_counter() - started))
    print(f"{options.count} pictures, {options.rounds} turns")
    for name, values in rates.items():
        print(f"  {name:<36}{median(values):8.1f} pictures/s  [{min(values):.1f}, {max(values):.1f}]")
    for own in (name for name in rates if name.startswith(OURS)):
        print(f"{own}, times as fast as")
        for name in (name for name in rates if not name.startswith(OURS)):
            times = [ahead / behind for ahead, behind in zip(rates[own], rates[name], strict=True)]
            print(f"  {name:<36}{median(times):8.2f}  [{min(times):.2f}, {max(times):.2f}]")


if __name__ == "__main__":
    main()

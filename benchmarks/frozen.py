"""Training time on frozen backbones (a main head and one submodel per class) relative to computing features once.

    python -m benchmarks.frozen DATA

DATA is a data set. Both are measured in one process, one after the other, each from an empty cache of its own.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cascade.images.preprocess import PreprocessSpec
from trainers.commands.train_main import train_main
from trainers.commands.train_sub import SubmodelPlan, train_sub
from trainers.data.dataset import load_data_set
from trainers.features.cache import compute_features
from trainers.loop.training import preprocessing
from trainers.networks.backbones import backbone_spec
from trainers.networks.classifier import Classifier, build_classifier
from trainers.networks.config import NetworkConfig
from trainers.recipe import MAIN_DEFAULTS, SUB_DEFAULTS

MAIN, TRUNK = NetworkConfig("efficientnet_lite0"), NetworkConfig("efficientnet_lite2")


def timed(what: str, work: Callable[[], object]) -> tuple[float, float]:
    """Do some work; return its wall-clock seconds and its processor seconds."""
    wall, used = time.perf_counter(), time.process_time()
    work()
    seconds = time.perf_counter() - wall, time.process_time() - used
    print(f"{what}: {seconds[0]:.1f} s, {seconds[1]:.1f} s of processor time", flush=True)
    return seconds


def features(paths: list[Path], networks: list[tuple[Classifier, PreprocessSpec]]) -> None:
    """Compute the features of every picture with both backbones, once."""
    for network, spec in networks:
        compute_features(network, paths, spec, "cpu")


def trainings(photos: Path, out: Path) -> None:
    """Train the main head and the submodels, as the commands do."""
    quiet = {"tracker": "none"}
    train_main(photos, out / "main", MAIN, type(MAIN_DEFAULTS)(**MAIN_DEFAULTS.as_dict() | quiet))
    recipe = type(SUB_DEFAULTS)(**SUB_DEFAULTS.as_dict() | quiet)
    train_sub(photos, out / "main", out / "subs", SubmodelPlan(TRUNK), recipe, overwrite=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    photos = parser.parse_args().data
    with tempfile.TemporaryDirectory() as folder:
        data = load_data_set(photos, 0)
        paths = [picture.path for picture in (*data.training, *data.validation)]
        networks = [
            (build_classifier(config, 1), preprocessing(config, backbone_spec(config.backbone), data))
            for config in (MAIN, TRUNK)
        ]
        os.environ["CANONISTIA_CACHE"] = f"{folder}/cache of the features"
        once = timed("features once", lambda: features(paths, networks))
        os.environ["CANONISTIA_CACHE"] = f"{folder}/cache of the trainings"
        whole = timed("main head and submodels", lambda: trainings(photos, Path(folder)))
    print(f"ratio {whole[0] / once[0]:.2f} in wall-clock time, {whole[1] / once[1]:.2f} in processor time")

"""A new class for a cascade: its submodel is trained, and the others are kept unchanged."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from cascade.errors import CanonistiaError
from cascade.images.manifest import labelled_pictures
from trainers.commands.train_sub import SubmodelPlan, train_sub
from trainers.data.dataset import has_validation, load_data_set
from trainers.networks.config import NetworkConfig
from trainers.recipe import Recipe
from trainers.runs.folder import check_same_data, load_run
from trainers.runs.submodels import copy_set, read_submodel_set


@dataclass(frozen=True)
class Growth:
    """The added classes, and those whose submodels were kept."""

    added: list[str]
    kept: list[str]


def new_class(folder: Path, main_run: Path, subs: Path, out: Path, negatives: str, recipe: Recipe) -> Growth:
    """Write a folder of submodels for a data set that has new classes; only the submodels of these are trained.

    The trunk and the other submodels are those of ``subs``, which is not changed. The main model must have been
    trained on the grown data set, which is cheap: only its head is trained.

    Raises
    ------
    CanonistiaError
        No class is new, one is gone, the main run is of other data, or the data set is not split: it would be split
        again, and pictures that the old submodels were trained on could become validation pictures.
    """
    if not has_validation(labelled_pictures(folder)):
        raise CanonistiaError(
            f"{folder} is not split, expected splits: a new split could put pictures that the kept submodels were "
            "trained on into validation; make folders training/ and validation/, or a manifest with splits"
        )
    main = load_run(main_run)
    data = load_data_set(folder, main.sidecar.seed)
    check_same_data(folder, data, main)
    old = read_submodel_set(subs)
    gone = [label for label in old.classes if label not in data.classes]
    added = [label for label in data.classes if label not in old.classes]
    if gone:
        raise CanonistiaError(f"{folder} lacks {', '.join(gone)}, which {subs} has; run train-sub for all classes")
    if not added:
        raise CanonistiaError(
            f"{folder} has no class that {subs} lacks, expected a new one; to train one of them again: canonistia "
            "train-sub --class NAME --overwrite"
        )
    if out.exists():
        raise CanonistiaError(f"{out} exists; choose another --out: {subs} is not changed")
    grown = msgspec.structs.replace(old, classes=list(data.classes), data_fingerprint=data.fingerprint)
    try:
        copy_set(subs, out, grown, old.classes)
        plan = SubmodelPlan(NetworkConfig(old.backbone), old.kind, None, tuple(added), negatives, kept=out)
        train_sub(folder, main_run, out, plan, recipe, overwrite=False)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return Growth(added, old.classes)

"""What a fit can train, from the fastest to the most accurate, and the trainings of each."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from export.planning.plan import Training
from trainers.commands.train_sub import SubmodelPlan
from trainers.networks.config import NetworkConfig
from trainers.recipe import MAIN_DEFAULTS, SUB_DEFAULTS, Recipe

FEWEST_EPOCHS, MOST_EPOCHS = 3, 8  # of a fine-tuning that starts from a trained head
FEWEST_TO_TUNE = 1000  # training pictures; a network that is fine-tuned on fewer learns them by heart

HEAD = replace(MAIN_DEFAULTS, tracker="none")
SUBMODELS = replace(SUB_DEFAULTS, tracker="none")


@dataclass(frozen=True)
class Rung:
    """One way to train a cascade; ``tune_main`` and ``tune_trunk`` name the stages to fine-tune, ``head`` none."""

    name: str
    main: NetworkConfig
    trunk: NetworkConfig
    tune_main: str = "head"
    tune_trunk: str = "head"

    @property
    def tunes(self) -> bool:
        """Return whether any network is fine-tuned."""
        return (self.tune_main, self.tune_trunk) != ("head", "head")


_MAIN = NetworkConfig("efficientnet_lite0", size=224)
_TRUNK = NetworkConfig("efficientnet_lite2", size=260)
_SMALL = NetworkConfig("efficientnet_lite0", size=128)

LADDER = (
    Rung("frozen networks at small image sizes", _SMALL, _MAIN),
    Rung("frozen networks", _MAIN, _TRUNK),
    Rung("the last stages of the main network fine-tuned", _MAIN, _TRUNK, "last-3"),
    Rung("the main network fine-tuned", _MAIN, _TRUNK, "all"),
    Rung("the last stages of both networks fine-tuned", _MAIN, _TRUNK, "last-3", "last-3"),
    Rung("both networks fine-tuned", _MAIN, _TRUNK, "all", "all"),
)


def tuned(unfreeze: str, epochs: int, precision: str = "auto") -> Recipe:
    """Return the recipe of a fine-tuning."""
    return replace(HEAD, unfreeze=unfreeze, epochs=epochs, precision=precision, label_smoothing=0.1)


def trainings(rung: Rung, runs: Path, main: Recipe | None, trunk: Recipe | None) -> Iterator[Training]:
    """Yield the trainings of a rung in order, the main model's last, without their seconds.

    A network that has a recipe is fine-tuned with it, from a head that is trained first. Without one the main model is
    a head on a frozen network, and the trunk needs no training.
    """
    if trunk:
        yield from _tuning("trunk", rung.trunk, runs, trunk, report=False)
    if main:
        yield from _tuning("main", rung.main, runs, main, report=True)
    else:
        yield Training("head of the main network", runs / "main", rung.main, HEAD, report=True, seconds=0.0)


def submodel_plan(rung: Rung, runs: Path) -> SubmodelPlan:
    """Return how the submodels are trained: on the fine-tuned trunk, or on a frozen network."""
    trunk = runs / "trunk" if rung.tune_trunk != "head" else None
    return SubmodelPlan(NetworkConfig(rung.trunk.backbone) if trunk else rung.trunk, trunk=trunk)


def _tuning(name: str, network: NetworkConfig, runs: Path, recipe: Recipe, report: bool) -> Iterator[Training]:
    head = runs / f"{name}-head"
    yield Training(f"head of the {name} network", head, network, HEAD, report=False, seconds=0.0)
    title = f"fine-tuning of the {name} network"
    yield Training(title, runs / name, replace(network, start=head), recipe, report, seconds=0.0)

"""A fit, from photos to a bundle: a plan that fits the time, then the functions behind the other commands."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import msgspec

from cascade.bundle.manifest import Manifest
from cascade.bundle.reading import read_bundle
from cascade.errors import CanonistiaError
from cascade.evaluation.evaluation import labelled_pictures
from cascade.files import restore, write_json, written_whole
from cascade.images.folders import LabelledPicture
from cascade.images.manifest import read_manifest
from cascade.locks import exclusive
from cascade.progress import Phase, PhaseDisplay
from export.commands.export_bundle import check_out, export_bundle
from export.commands.pipeline import scored
from export.plan import ExportPlan
from export.planning.choice import Choice, Counts, choose
from export.planning.ladder import LADDER, SUBMODELS, Rung, submodel_plan
from export.planning.limits import limits
from export.planning.pictures import check_pictures
from export.planning.plan import DATA, LOG, PLAN, Plan, Submodels, Training, read_plan, write_plan
from export.planning.speed import Machine
from export.planning.text import plan_lines
from trainers.commands.train_main import train_main
from trainers.commands.train_sub import train_sub
from trainers.data.cleaning import write_cleaned
from trainers.runs.folder import SUMMARY

MINUTES = 20.0
_TRAINED, _EXPORTED, _TESTED = "submodels.json", "exported.json", "test.json"  # each written when it is done
_SEED = 0


@dataclass(frozen=True)
class FitRequest:
    """What a fit is asked for; ``minutes`` None is 20, or, when an earlier fit is resumed, what that one promised."""

    photos: Path
    out: Path
    minutes: float | None = None
    test: Path | None = None
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Fitted:
    """A finished fit: the plan that it followed, the bundle's manifest, and its figures on the test pictures.

    ``test`` is what ``evaluate --json`` prints; None where there are no test pictures.
    """

    plan: Plan
    manifest: Manifest
    test: dict[str, Any] | None

    @property
    def bundle(self) -> Path:
        """Return the bundle's folder."""
        return self.plan.export.out


@dataclass(frozen=True)
class _Step:
    """A phase, the file that is there once it is done, and what does it."""

    phase: Phase
    made: Path
    do: Callable[[], object]


def fit(request: FitRequest, ladder: Sequence[Rung] = LADDER) -> Fitted:
    """Train, export and score a cascade within the promised time, and return what was made.

    The runs, the plan and the log are in a folder beside the bundle, named as it with ``.runs`` at the end. A fit that
    was stopped continues with ``resume``, by the plan that was written before its first training.

    Raises
    ------
    CanonistiaError
        The pictures are not usable, the time is too little for anything, the folder holds an earlier fit or is being
        written by another, a phase fails, or the fit is interrupted.
    """
    began = time.monotonic()
    out = request.out.absolute()
    runs = out.with_name(f"{out.name}.runs")
    with exclusive(runs):
        restore(runs)
        if request.resume and (runs / PLAN).exists():
            plan = _resumed(request, read_plan(runs))
        else:
            plan = _new_plan(request, runs, ladder, lambda: time.monotonic() - began)
        _work_through(plan)
    tested = plan.runs / _TESTED
    report = msgspec.json.decode(tested.read_bytes()) if tested.exists() else None
    return Fitted(plan, read_bundle(plan.export.out).manifest, report)


def _resumed(request: FitRequest, plan: Plan) -> Plan:
    """Return an earlier plan, if it is that of the same request."""
    asked: dict[str, object] = {
        "PHOTOS": request.photos.absolute(),
        "--test": request.test and request.test.absolute(),
    }
    begun: dict[str, object] = {"PHOTOS": plan.photos, "--test": plan.test}
    if request.minutes is not None:
        asked["--minutes"], begun["--minutes"] = request.minutes, plan.minutes
    changed = [f"{name} {begun[name]}, now {asked[name]}" for name in asked if asked[name] != begun[name]]
    if changed:
        raise CanonistiaError(
            f"the fit in {plan.runs} was begun with {'; '.join(changed)}; resume it with the same, or begin anew with "
            "--overwrite"
        )
    return plan


def _new_plan(request: FitRequest, runs: Path, ladder: Sequence[Rung], elapsed: Callable[[], float]) -> Plan:
    """Check the pictures, measure, choose, and write the plan; the runs' folder appears with it, whole."""
    if runs.exists() and not request.overwrite:
        raise CanonistiaError(
            f"{runs} holds an earlier fit; continue it with --resume, replace it with --overwrite, or choose another "
            "--out"
        )
    export = ExportPlan(runs / "main", runs / "subs", runs / DATA, request.out.absolute(), overwrite=request.overwrite)
    check_out(export)
    minutes = MINUTES if request.minutes is None else request.minutes
    checked = check_pictures(request.photos, request.test, _SEED)
    for remark in checked.remarks:
        click.echo(remark, err=True)
    data = checked.data
    counts = Counts(len(data.training), len(data.validation), len(checked.test), len(data.classes), checked.cross_fit)
    machine = Machine([picture.path for picture in data.training], counts.classes, runs.parent)
    choice = choose(ladder, counts, machine, minutes, elapsed)
    plan = _plan_of(request, minutes, replace(export, cross_fit=checked.cross_fit), choice)
    for line in plan_lines(plan, elapsed()):
        click.echo(line, err=True)
    with written_whole(runs) as folder:
        folder.mkdir()
        write_cleaned(checked.cleaned, folder / DATA)  # its paths are relative to a folder beside that of the runs
        write_plan(plan, folder)
    return plan


def _plan_of(request: FitRequest, minutes: float, export: ExportPlan, choice: Choice) -> Plan:
    costs, runs, rung = choice.costs, export.main_run.parent, choice.costs.rung
    epochs = f", {choice.epochs} epochs" if rung.tunes else ""
    networks = f"main {rung.main.backbone} at {rung.main.size}, submodels on {rung.trunk.backbone} at {rung.trunk.size}"
    return Plan(
        photos=request.photos.absolute(),
        test=request.test and request.test.absolute(),
        minutes=minutes,
        chosen=f"{rung.name}{epochs} ({networks})",
        more=choice.more,
        limits=tuple(limits(costs.counts.judged, export)),
        data=export.data,
        trainings=costs.trainings(runs, choice.epochs),
        submodels=Submodels(export.subs, submodel_plan(rung, runs), SUBMODELS, costs.submodels()),
        # What is there was looked at above; a later try of the same plan may find what an earlier one exported.
        export=replace(export, overwrite=True),
        export_seconds=costs.export(),
        test_seconds=costs.test(),
    )


def _steps(plan: Plan) -> Iterator[_Step]:
    """Yield the steps of a plan in their order."""
    for one in plan.trainings:
        yield _Step(Phase(one.title, one.seconds), one.out / SUMMARY, partial(_train, plan, one))
    subs = plan.submodels
    yield _Step(Phase("submodels", subs.seconds), plan.runs / _TRAINED, partial(_train_submodels, plan))
    yield _Step(Phase("export", plan.export_seconds), plan.runs / _EXPORTED, partial(_export, plan))
    if plan.test_seconds:
        yield _Step(Phase("test", plan.test_seconds), plan.runs / _TESTED, partial(_test, plan))


def _work_through(plan: Plan) -> None:
    """Do what is not done yet, and show which step is running; what the steps say is in the log."""
    steps = list(_steps(plan))
    display = PhaseDisplay("fit", [step.phase for step in steps])
    for number, step in enumerate(steps):
        if step.made.exists():
            continue
        try:
            with display.during(number), _said_into(plan.runs / LOG):
                step.do()
        except KeyboardInterrupt:
            raise CanonistiaError(
                f"interrupted in '{step.phase.name}'; everything before it is kept: continue with the same command and "
                "--resume"
            ) from None


def _train(plan: Plan, one: Training) -> None:
    train_main(plan.data, one.out, one.network, one.recipe, resume=True, report=one.report)


def _train_submodels(plan: Plan) -> None:
    subs = plan.submodels
    train_sub(plan.data, plan.export.main_run, subs.out, subs.plan, subs.recipe, overwrite=False, resume=True)
    write_json(plan.runs / _TRAINED, {"submodels": str(subs.out)})


def _export(plan: Plan) -> None:
    bundle, _ = export_bundle(plan.export)
    write_json(plan.runs / _EXPORTED, {"sha256": bundle.sha256})


def _test(plan: Plan) -> None:
    write_json(plan.runs / _TESTED, scored(plan.export.out, _test_pictures(plan), "test"))


def _test_pictures(plan: Plan) -> list[LabelledPicture]:
    if plan.test:
        return labelled_pictures(plan.test, tuple(read_bundle(plan.export.out).manifest.classes))
    return [picture for picture in read_manifest(plan.data) if picture.split == "test"]


@contextmanager
def _said_into(log: Path) -> Iterator[None]:
    """Append what is said in the block to a file."""
    with (
        log.open("a", encoding="utf-8", errors="backslashreplace") as file,
        redirect_stdout(file),
        redirect_stderr(file),
    ):
        yield

"""Recording an export at Weights & Biases: which runs and data a bundle was made from."""

import click

from cascade.bundle.reading import Bundle
from cascade.errors import CanonistiaError
from export.plan import ExportPlan
from trainers.runs.folder import read_config
from trainers.runs.submodels import class_run
from trainers.runs.tracking import bundle_artifact, checkpoint_artifact, data_artifact, start_tracker


def record_bundle(plan: ExportPlan, bundle: Bundle) -> None:
    """Record the bundle as an artifact made from the checkpoints of its runs, if the main run was recorded.

    Where W&B refuses, the user is told: the bundle is written already.
    """
    mode = read_config(plan.main_run)["tracker"]
    if mode == "none":
        return
    manifest, group = bundle.manifest, plan.main_run.name
    folder = plan.main_run / "exports" / bundle.folder.name
    folder.mkdir(parents=True, exist_ok=True)
    config = {"bundle": manifest.name, "sha256": bundle.sha256, "commands": manifest.provenance.commands}
    try:
        tracker = start_tracker(mode, folder, f"export-{manifest.name}", group=group, job="export", config=config)
    except CanonistiaError as error:
        click.echo(f"{bundle.folder} is written, and not recorded: {error}", err=True)
        return
    tracker.uses(data_artifact(manifest.provenance.data_fingerprint, manifest.classes))
    tracker.uses(checkpoint_artifact(plan.main_run, group))
    for label in manifest.classes:
        tracker.uses(checkpoint_artifact(class_run(plan.subs, label), group))
    tracker.makes(bundle_artifact(bundle.folder))
    measured = manifest.measured
    figures = {"top1": measured.cascade.top1, "top2": measured.cascade.top2, "cost": measured.cost}
    marks = {"unsure": measured.unsure, "both": measured.both}
    accept = manifest.rules.accept
    tracker.finish({**figures, **marks, **({"accepted": accept.accepted / accept.pictures} if accept else {})})

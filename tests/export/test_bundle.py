"""The export: one checked bundle, or nothing."""

import json
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import Result
from safetensors.torch import load_file, save_file
from torch import nn

from cascade.bundle.reading import read_bundle
from cascade.images.decoding import decode
from cascade.images.preprocess import preprocess
from cascade.inference.engine import Engine
from cascade.rules.another_class import another_class
from export.bundles import model_files, trained
from export.bundles.parity import ParityError, check_parity, reference
from export.fitting.shifted_pictures import shifted_pictures
from export.fitting.stage_logits import StageLogits
from export.graphs.modules import MainGraph
from tests.conftest import LIGHT, Run, draw
from trainers.features import cache, graph
from trainers.features.graph import FeatureGraph


def export(run: Run, data: Path, main: Path, subs: Path, out: Path, *more: object) -> Result:
    return run("export", "--main", main, "--subs", subs, "--data", data, "--out", out, *more)


def test_every_file_is_one_self_contained_model_with_a_dynamic_batch(tiny_bundle: Path) -> None:
    for path in tiny_bundle.rglob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert not re.search(rb"/[a-z_]+\.py|site-packages|stack_trace", path.read_bytes())
        session = onnxruntime.InferenceSession(path)
        (given,) = session.get_inputs()
        assert isinstance(given.shape[0], str)
        assert given.type == ("tensor(float)" if "submodels" in str(path) else "tensor(uint8)")


def test_the_graph_takes_pixels_and_scales_them_itself(tiny_bundle: Path, tiny_main: Path, tiny_data: Path) -> None:
    import torch

    from trainers.runs.folder import load_run

    trained = load_run(tiny_main)
    paths = sorted((tiny_data / "validation").rglob("*.png"))
    pixels = np.stack([preprocess(decode(path), trained.sidecar.preprocess) for path in paths])
    with torch.inference_mode():
        expected = trained.network(torch.from_numpy(pixels)).numpy()
    session = onnxruntime.InferenceSession(tiny_bundle / "main.onnx")
    assert np.allclose(session.run(["logits"], {"pixels": pixels})[0], expected, rtol=1e-3, atol=1e-4)


def test_the_card_states_data_commands_and_intervals(tiny_bundle: Path) -> None:
    card = (tiny_bundle / "MODEL_CARD.md").read_text()
    manifest = read_bundle(tiny_bundle).manifest
    assert manifest.provenance.data_fingerprint in card
    assert "canonistia train-main data --backbone efficientnet_lite0 --epochs 6 --lr 0.01" in card
    assert "canonistia train-sub data --backbone efficientnet_lite0" in card
    assert card.count("canonistia train-sub") == 1
    assert "canonistia export --main main --subs subs --data data --out tiny" in card
    assert f"{manifest.measured.cascade.top1:.4f} [" in card
    assert str(tiny_bundle.parent) not in card


def test_an_existing_bundle_is_replaced_only_when_asked(
    run: Run, few_data: Path, light_main: Path, light_subs: Path, light_bundle: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(light_bundle, tmp_path / "again"))
    refused = export(run, few_data, light_main, light_subs, out)
    assert refused.exit_code == 1
    assert "exists" in refused.output
    (out / "stale.txt").write_text("x")
    replaced = export(run, few_data, light_main, light_subs, out, "--overwrite")
    assert replaced.exit_code == 0, replaced.output
    assert not (out / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_submodels_may_be_whole_networks_of_their_own(
    run: Run, few_data: Path, light_main: Path, tmp_path: Path
) -> None:
    options = ("--main", light_main, "--out", tmp_path / "own", *LIGHT, "--own-networks", "--unfreeze", "last-1")
    assert run("train-sub", few_data, *options).exit_code == 0
    out = tmp_path / "models" / "own"
    result = export(run, few_data, light_main, tmp_path / "own", out)
    assert result.exit_code == 0, result.output
    manifest = read_bundle(out).manifest
    assert manifest.trunk is None
    assert all(submodel.preprocess for submodel in manifest.submodels)
    answered = run("evaluate", few_data / "validation", "--model", out, "--json")
    assert json.loads(answered.stdout)["pictures"] == 15


def test_heads_that_read_both_stages_are_exported_as_such(both_bundle: Path, both_subs: Path) -> None:
    import torch

    from trainers.runs.submodels import load_submodels

    manifest = read_bundle(both_bundle).manifest
    assert manifest.head_features == "both"
    submodels = load_submodels(both_subs)
    read = np.random.default_rng(0).normal(size=(4, submodels.head_inputs)).astype(np.float32)
    for submodel, head in zip(manifest.submodels, submodels.networks, strict=True):
        session = onnxruntime.InferenceSession(both_bundle / submodel.file.path)
        assert session.get_inputs()[0].shape[1] == 2560
        with torch.inference_mode():
            expected = head(torch.from_numpy(read)).numpy()[:, 0]
        assert np.allclose(session.run(["logit"], {"features": read})[0], expected, rtol=1e-3, atol=1e-4)
    card = (both_bundle / "MODEL_CARD.md").read_text()
    assert "efficientnet_lite0 at 96 pixels, which read the main model's features, too" in card
    assert "--features both" in card


def test_heads_are_not_exported_with_another_main_model_than_the_one_they_read(
    run: Run, tiny_data: Path, both_subs: Path, tmp_path: Path
) -> None:
    options = ("--backbone", "efficientnet_lite0", "--size", 72, "--tracker", "none", "--epochs", 1)
    assert run("train-main", tiny_data, "--out", tmp_path / "other", *options).exit_code == 0
    result = export(run, tiny_data, tmp_path / "other", both_subs, tmp_path / "models" / "b")
    assert result.exit_code == 1
    assert "read the features of another main model than the last checkpoint" in result.output
    assert not (tmp_path / "models").exists()


def test_disagreement_with_pytorch_is_refused_and_names_the_worst_picture(tiny_bundle: Path, tiny_data: Path) -> None:
    engine = Engine.load(tiny_bundle)
    paths = sorted((tiny_data / "validation").rglob("*.png"))
    pictures = [decode(path) for path in paths]
    main, distance, maps = engine.main_outputs(pictures, "logits", "distance", "activation_maps")
    submodels = engine.ask_submodels(pictures, np.ones(main.shape, dtype=bool), "logit")
    fitted = fitted_as(engine)
    honest = StageLogits(main, distance, submodels, np.zeros(len(paths), dtype=int), another_class(maps))
    check_parity(engine, paths, honest, fitted)
    assert np.array_equal(reference(honest, fitted).routed, engine.run(pictures).routed)
    for stage, name in (("main", "main model"), ("submodels", "submodels")):
        logits = {"main": main.copy(), "submodels": submodels.copy()}
        logits[stage][7, 1] += 0.01
        with pytest.raises(ParityError, match=rf"exported {name} and PyTorch differ .*{paths[7].name}"):
            check_parity(engine, paths, replace(honest, **logits), fitted)
    with pytest.raises(ParityError, match="main model and PyTorch differ by nan"):
        check_parity(engine, paths, replace(honest, main=main * np.nan), fitted)
    with pytest.raises(ParityError, match=r"distance and PyTorch differ by 0\.5"):
        check_parity(engine, paths, replace(honest, distance=distance + 0.5), fitted)
    assert honest.another is not None
    with pytest.raises(ParityError, match=r"evidence of another class and PyTorch differ by 0\.5"):
        check_parity(engine, paths, replace(honest, another=honest.another + 0.5), fitted)
    other = replace(fitted, calibrators=replace(fitted.calibrators, temperature=fitted.calibrators.temperature * 50))
    with pytest.raises(ParityError, match=r"another answer or stage, worst .*\.png"):
        check_parity(engine, paths, honest, other)


def fitted_as(engine: Engine):
    from export.fitting.calibration import Calibrators
    from export.fitting.selection import FittedCascade

    calibration = engine.bundle.manifest.calibration
    slopes, intercepts = np.array([calibration.submodels[label] for label in engine.classes]).T
    return FittedCascade(
        Calibrators(calibration.temperature, slopes, intercepts, calibration.distance), engine.bundle.manifest.rules, 1
    )


def test_when_parity_fails_no_bundle_is_left(
    run: Run, few_data: Path, light_main: Path, light_subs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = trained._submodel_logits
    monkeypatch.setattr(trained, "_submodel_logits", lambda *arguments: honest(*arguments) + 0.5)
    result = export(run, few_data, light_main, light_subs, tmp_path / "models" / "bad")
    assert result.exit_code == 1
    assert "no bundle was written" in result.output
    assert not list((tmp_path / "models").iterdir())


def test_the_graph_of_each_network_is_written_once(
    run: Run, few_data: Path, light_main: Path, light_subs: Path, tmp_path: Path, written_graphs: list[str]
) -> None:
    result = export(run, few_data, light_main, light_subs, tmp_path / "models" / "one")
    assert result.exit_code == 0, result.output
    assert written_graphs == ["MainGraph", "FeatureGraph", "SubmodelGraph"]


def test_an_exporter_that_writes_another_network_is_found_out_where_the_runtime_makes_the_features(
    run: Run, few_data: Path, light_main: Path, light_subs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = graph.write_onnx

    def write_another(module: nn.Module, *more: Any) -> None:
        other = deepcopy(module)
        if isinstance(other, MainGraph | FeatureGraph):
            next(other.network.backbone.parameters()).data.mul_(3)
        honest(other, *more)

    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "FEWEST_BY_RUNTIME", 1)
    monkeypatch.setattr(graph, "write_onnx", write_another)
    monkeypatch.setattr(model_files, "write_onnx", write_another)
    result = export(run, few_data, light_main, light_subs, tmp_path / "models" / "bad")
    assert result.exit_code == 1
    assert "the exported main model and PyTorch differ" in result.output


def test_without_room_for_temporary_files_export_says_what_to_set(
    run: Run, few_data: Path, light_main: Path, light_subs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    result = export(run, few_data, light_main, light_subs, tmp_path / "models" / "bad")
    assert result.exit_code == 1
    assert "cannot be written (No such file or directory)" in result.output
    assert "set TMPDIR" in result.output


def test_shifted_copies_are_the_same_each_time_and_no_larger_than_the_networks_need(tmp_path: Path) -> None:
    draw("rows", 3, (2400, 1200)).save(tmp_path / "large.png")
    draw("dots", 3).save(tmp_path / "small.png")
    paths = [tmp_path / "large.png", tmp_path / "small.png"]
    made = []
    for _ in range(2):
        with shifted_pictures(paths, 300) as copies:
            made.append([path.read_bytes() for path in copies])
            sizes = [decode(path).size for path in copies]
        assert not any(path.exists() for path in copies)
    assert made[0] == made[1]
    assert min(sizes[0]) <= 300
    assert min(sizes[1]) <= 60


def test_a_full_disk_leaves_nothing_behind(few_data: Path, light_main: Path, light_subs: Path, tmp_path: Path) -> None:
    # No file of this process may grow beyond 1 MB: the main model's file cannot be finished.
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)); import canonistia; canonistia.main()"
    arguments = [
        "export",
        "--main",
        light_main,
        "--subs",
        light_subs,
        "--data",
        few_data,
        "--out",
        tmp_path / "models/bad",
    ]
    command = [sys.executable, "-c", limited, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "models").iterdir())


def test_a_failed_replacement_leaves_the_old_bundle(
    run: Run, tiny_data: Path, tiny_main: Path, tiny_subs: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(tiny_bundle, tmp_path / "models" / "kept"))
    shutil.copytree(tiny_subs, tmp_path / "subs")
    (tmp_path / "subs" / "trunk.safetensors").write_bytes(b"damaged")
    result = export(run, tiny_data, tiny_main, tmp_path / "subs", out, "--overwrite")
    assert result.exit_code == 1
    assert "does not hold the expected network" in result.output
    assert read_bundle(out)


def test_a_folder_that_cannot_be_written_is_one_sentence(
    run: Run, tiny_data: Path, tiny_main: Path, tiny_subs: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    result = export(run, tiny_data, tiny_main, tiny_subs, tmp_path / "file" / "bundle")
    assert result.exit_code == 2
    assert "cannot be written" in result.output


def test_submodels_of_another_data_set_are_refused(
    run: Run, tiny_data: Path, tiny_main: Path, tiny_subs: Path, tmp_path: Path
) -> None:
    subs = Path(shutil.copytree(tiny_subs, tmp_path / "subs"))
    common = json.loads((subs / "submodels.json").read_text())
    (subs / "submodels.json").write_text(json.dumps(common | {"data_fingerprint": "0" * 64}))
    result = export(run, tiny_data, tiny_main, subs, tmp_path / "b")
    assert result.exit_code == 1
    assert "trained on another data set" in result.output


def test_submodels_of_more_classes_than_the_data_set_has_are_refused(
    run: Run, tiny_data: Path, tiny_main: Path, tiny_subs: Path, tmp_path: Path
) -> None:
    subs = Path(shutil.copytree(tiny_subs, tmp_path / "subs"))
    common = json.loads((subs / "submodels.json").read_text())
    (subs / "submodels.json").write_text(json.dumps(common | {"classes": [*common["classes"], "tree"]}))
    shutil.copytree(subs / "classes" / "sky", subs / "classes" / "tree")
    result = export(run, tiny_data, tiny_main, subs, tmp_path / "b")
    assert result.exit_code == 1
    assert "there must be one submodel per class" in result.output
    assert not (tmp_path / "b").exists()


def test_a_checkpoint_of_another_version_is_refused(
    run: Run, tiny_data: Path, tiny_main: Path, tiny_subs: Path, tmp_path: Path
) -> None:
    main = Path(shutil.copytree(tiny_main, tmp_path / "main"))
    save_file(load_file(main / "last.safetensors"), main / "last.safetensors")
    (main / "last.json").write_text("{}")
    result = export(run, tiny_data, main, tiny_subs, tmp_path / "b")
    assert result.exit_code == 1
    assert "not a checkpoint of this version" in result.output

"""train-main and train-sub, as a person calls them."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import CLASSES, SMALL, Run, write_data_set
from tests.waiting import started, wait_until
from trainers.runs.folder import load_run
from trainers.runs.submodels import class_run, load_submodels


def test_a_run_folder_holds_config_metrics_curves_and_checkpoints(tiny_main: Path) -> None:
    config = json.loads((tiny_main / "config.json").read_text())
    assert config["epochs"] == 6
    assert config["preprocess"]["size"] == 64
    assert config["preprocess"]["colour"] == "rgb"  # the pictures are tinted
    with (tiny_main / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4", "5", "6"]
    with Image.open(tiny_main / "curves.png") as curves:
        assert min(curves.size) > 300
    for checkpoint in ("best", "last"):
        assert load_run(tiny_main, checkpoint).sidecar.classes == list(CLASSES)
    assert not list(tiny_main.glob("*.partial"))


def test_grey_pictures_make_a_grey_model(run: Run, tmp_path: Path) -> None:
    folder = write_data_set(tmp_path / "data", training=2, validation=2)
    for path in folder.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert run("train-main", folder, "--out", tmp_path / "run", *SMALL, "--epochs", 1).exit_code == 0
    assert load_run(tmp_path / "run").sidecar.preprocess.colour == "grey"


def test_the_same_seed_gives_the_same_weights(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        run("train-main", tiny_data, "--out", tmp_path / name, *SMALL, "--epochs", 2, "--seed", seed)
    one, two, three = (load_run(tmp_path / name).network.head.weight for name in ("one", "two", "three"))
    assert torch.equal(one, two)
    assert not torch.equal(one, three)


@pytest.mark.parametrize("unfreeze", ["last-2", "all"])
@pytest.mark.parametrize("loss", ["cross_entropy", "top2"])
def test_fine_tuning_changes_the_unfrozen_stages_alone(
    run: Run, tiny_data: Path, tmp_path: Path, unfreeze: str, loss: str
) -> None:
    options = ("--unfreeze", unfreeze, "--epochs", 1, "--augment", "strong", "--loss", loss)
    result = run("train-main", tiny_data, "--out", tmp_path / "run", *SMALL, *options)
    assert result.exit_code == 0, result.output
    from trainers.networks.backbones import backbone_spec, build_backbone

    start = build_backbone(backbone_spec("efficientnet_lite0"), pretrained=True).state_dict()
    tuned = load_run(tmp_path / "run").network.backbone.state_dict()
    changed = {name for name, value in tuned.items() if not torch.equal(value, start[name])}
    first = any("conv_stem" in name for name in changed)
    last = any("conv_head" in name for name in changed)
    assert last
    assert first == (unfreeze == "all")


def test_a_config_file_gives_options_and_the_command_line_wins(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('epochs = 3\nsize = 64\ntracker = "none"\nlr = 0.5\n')
    arguments = ("--config", tmp_path / "c.toml", "--lr", 0.01, "--out", tmp_path / "run")
    assert run("train-main", tiny_data, *arguments).exit_code == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["epochs"], config["lr"], config["preprocess"]["size"]) == (3, 0.01, 64)


@pytest.mark.parametrize(
    ("text", "message"), [("epoch = 3", "unknown options epoch"), ("epochs = ", "is not TOML")], ids=["typo", "syntax"]
)
def test_a_wrong_config_file_is_wrong_usage(run: Run, tiny_data: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    result = run("train-main", tiny_data, "--config", tmp_path / "c.toml", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--backbone", "vgg99"), "unknown backbone 'vgg99'"),
        (("--unfreeze", "last-30"), "expected head, all, or last-1 to last-9"),
        (("--weights", "none.pth"), "does not exist"),
        (("--device", "cuda"), "PyTorch sees no GPU"),
        (("--device", "gpu"), "expected auto, cpu, cuda"),
    ],
    ids=["backbone", "unfreeze", "weights", "no GPU", "device"],
)
def test_a_wrong_setting_is_one_sentence_and_leaves_no_run(
    run: Run, tiny_data: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = run("train-main", tiny_data, "--out", tmp_path / "run", "--tracker", "none", *options)
    assert result.exit_code == 1
    assert message in result.output
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_ends_the_run_with_one_sentence(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    options = ("--unfreeze", "all", "--backbone-lr", "1e30", "--lr", "1e30", "--epochs", 4, "--precision", "fp32")
    result = run("train-main", tiny_data, "--out", tmp_path / "run", *SMALL, *options)
    assert result.exit_code == 1
    assert "lower --lr or --backbone-lr" in result.output


def test_a_run_is_replaced_only_when_asked(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    arguments = ("train-main", tiny_data, "--out", tmp_path / "run", *SMALL, "--epochs", 1)
    assert run(*arguments).exit_code == 0
    refused = run(*arguments)
    assert refused.exit_code == 1
    assert "is not empty" in refused.output
    before = (tmp_path / "run" / "last.safetensors").read_bytes()
    failed = run(*arguments, "--overwrite", "--lr", "1e30", "--unfreeze", "all", "--backbone-lr", "1e30")
    assert failed.exit_code == 1
    assert (tmp_path / "run" / "last.safetensors").read_bytes() == before
    assert run(*arguments, "--overwrite").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_overwrite_does_not_remove_a_folder_that_is_no_run(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    result = run("train-main", tiny_data, "--out", tmp_path / "mine", *SMALL, "--overwrite")
    assert result.exit_code == 1
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_ctrl_c_keeps_the_last_whole_epoch(tiny_data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "canonistia", "train-main", str(tiny_data), "--out", str(tmp_path / "run"), *SMALL]
    command += ["--unfreeze", "all", "--epochs", "1000"]
    with started(command, stderr=subprocess.DEVNULL) as process:
        wait_until((tmp_path / "run" / "last.json").exists, what="the first epoch")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) in (1, -signal.SIGINT)
    assert load_run(tmp_path / "run").sidecar.epoch >= 1


def test_submodels_share_one_trunk_and_have_a_head_each(tiny_subs: Path) -> None:
    submodels = load_submodels(tiny_subs)
    assert submodels.trunk is not None
    assert len(submodels.networks) == 3
    assert (class_run(tiny_subs, "sky") / "curves.png").exists()
    assert (class_run(tiny_subs, "sky") / "last.safetensors").stat().st_size < 10_000


def test_one_submodel_is_retrained_alone(run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path) -> None:
    subs = tmp_path / "subs"
    arguments = ("train-sub", tiny_data, "--main", tiny_main, "--out", subs, *SMALL, "--epochs", 1)
    assert run(*arguments, "--class", "sky", "--class", "rows").exit_code == 0
    missing = run("export", "--main", tiny_main, "--subs", subs, "--data", tiny_data, "--out", tmp_path / "b")
    assert "lacks a submodel for dots" in missing.output
    before = (class_run(subs, "rows") / "last.safetensors").read_bytes()
    assert run(*arguments, "--class", "sky", "--overwrite", "--lr", 0.1, "--negatives", "siblings").exit_code == 0
    assert (class_run(subs, "rows") / "last.safetensors").read_bytes() == before


def test_submodels_of_another_kind_are_not_mixed(run: Run, tiny_data: Path, tiny_main: Path, tiny_subs: Path) -> None:
    result = run(
        "train-sub",
        tiny_data,
        "--main",
        tiny_main,
        "--out",
        tiny_subs,
        "--backbone",
        "efficientnet_lite1",
        "--overwrite",
    )
    assert result.exit_code == 1
    assert "another backbone, preprocess" in result.output


def test_heads_may_read_the_main_models_features_too(
    run: Run, tiny_data: Path, tiny_main: Path, tiny_subs: Path, both_subs: Path
) -> None:
    trunk_alone, both = load_submodels(tiny_subs), load_submodels(both_subs)
    assert [head.weight.shape for head in trunk_alone.networks] == [(1, 1280)] * 3
    assert [head.weight.shape for head in both.networks] == [(1, 2560)] * 3
    arguments = ("--main", tiny_main, "--out", tiny_subs, *SMALL, "--features", "both", "--overwrite")
    mixed = run("train-sub", tiny_data, *arguments)
    assert mixed.exit_code == 1
    assert "submodels with another main_features; choose another --out" in mixed.output


def test_whole_networks_read_no_features(run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path) -> None:
    arguments = ("--main", tiny_main, "--out", tmp_path / "s", *SMALL, "--own-networks", "--features", "both")
    result = run("train-sub", tiny_data, *arguments)
    assert result.exit_code == 1
    assert "leave --features both out" in result.output
    assert not (tmp_path / "s").exists()


def test_heads_are_not_mixed_over_two_trunks(
    run: Run, tiny_data: Path, tiny_main: Path, tiny_subs: Path, tmp_path: Path
) -> None:
    tuned = tmp_path / "trunk"
    assert run("train-main", tiny_data, "--out", tuned, *SMALL, "--unfreeze", "last-1", "--epochs", 1).exit_code == 0
    arguments = ("train-sub", tiny_data, "--main", tiny_main, "--tracker", "none", "--epochs", 1, "--trunk", tuned)
    mixed = run(*arguments, "--out", tiny_subs, "--class", "sky", "--overwrite")
    assert mixed.exit_code == 1
    assert "another backbone_sha256" in mixed.output
    own = run(*arguments, "--out", tmp_path / "subs")
    assert own.exit_code == 0, own.output
    trunk = load_submodels(tmp_path / "subs").trunk
    assert trunk is not None
    expected = load_run(tuned).network.backbone.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in trunk.backbone.state_dict().items())


def test_a_trunk_has_its_own_network_options(run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path) -> None:
    arguments = ("--main", tiny_main, "--trunk", tiny_main, "--out", tmp_path / "s", "--size", 64)
    result = run("train-sub", tiny_data, *arguments)
    assert result.exit_code == 2
    assert "leave --size out" in result.output


def test_a_cache_that_cannot_be_written_is_no_obstacle(
    run: Run, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "file"))
    result = run("train-main", tiny_data, "--out", tmp_path / "run", *SMALL, "--epochs", 1)
    assert result.exit_code == 0, result.output
    assert "features are not kept for the next time" in result.output


def test_a_damaged_cache_is_computed_again(
    run: Run, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANONISTIA_CACHE", str(tmp_path / "cache"))
    arguments = ("train-main", tiny_data, *SMALL, "--epochs", 1)
    run(*arguments, "--out", tmp_path / "one")
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        path.write_bytes(b"damaged")
    result = run(*arguments, "--out", tmp_path / "two")
    assert "computing them again" in result.output
    assert torch.equal(load_run(tmp_path / "one").network.head.weight, load_run(tmp_path / "two").network.head.weight)


def test_an_unknown_class_is_refused(run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path) -> None:
    arguments = ("--main", tiny_main, "--out", tmp_path / "s", "--class", "beach")
    result = run("train-sub", tiny_data, *arguments)
    assert result.exit_code == 1
    assert "unknown class beach; the data set has dots, rows, sky" in result.output
    assert not (tmp_path / "s").exists()


def test_another_data_set_than_the_main_models_is_refused(run: Run, tiny_main: Path, tmp_path: Path) -> None:
    other = write_data_set(tmp_path / "other", training=3, validation=2)
    result = run("train-sub", other, "--main", tiny_main, "--out", tmp_path / "s")
    assert result.exit_code == 1
    assert "has changed since the run" in result.output


def test_a_folder_without_a_run_is_refused(run: Run, tiny_data: Path, tmp_path: Path) -> None:
    result = run("train-sub", tiny_data, "--main", tmp_path, "--out", tmp_path / "s")
    assert result.exit_code == 1
    assert "holds no finished training" in result.output

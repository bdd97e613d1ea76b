"""Knowledge distillation: networks that learn from finished ones."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from export.bundles.provenance import run_lines
from tests.conftest import SMALL, Run
from trainers.distributed.process_context import ProcessContext
from trainers.loop.losses import multiclass_loss
from trainers.loop.step import Stepper
from trainers.loop.teachers import Teacher, Teachers, resized
from trainers.recipe import Recipe
from trainers.runs.folder import read_config

WORDS = (*SMALL, "--epochs", 1, "--unfreeze", "last-1", "--no-report")


class Mean(nn.Module):
    """Logits of a picture's mean colour."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer = nn.Linear(3, 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, 3) of pixels (N, H, W, 3)."""
        return self.layer(pixels.float().mean(dim=(1, 2)) / 50)


def trained(weight: float, mix: str) -> float:
    """Return how far a student is from its teacher, whose answers say nothing of the labels, after 150 steps."""
    teacher, student = Mean(0).eval(), Mean(1)
    recipe = Recipe(mix=mix, ema=0.0, lr=0.05, weight_decay=0.0, warmup=0.0)
    teachers = Teachers([Teacher(teacher, 4)], weight)
    groups = [{"params": list(student.parameters()), "lr": recipe.lr}]
    loss = multiclass_loss("cross_entropy", 0.0, 3)
    stepper = Stepper(student, groups, recipe, loss, ProcessContext("cpu"), 150, teachers)
    pixels = torch.randint(0, 256, (64, 8, 8, 3), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)
    pixels = pixels // 4 + pixels[:, :1, :1] // 4 * 3  # of very different means
    for _ in range(150):
        stepper.step((pixels, torch.zeros(64, dtype=torch.int64), torch.ones(64)), epoch=1)
    apart = teacher(pixels).softmax(1) - student(pixels).softmax(1)
    return float(apart.detach().abs().max())


@pytest.mark.parametrize("mix", ["none", "both"])
def test_a_student_follows_its_teacher_as_far_as_the_weight_says(mix: str) -> None:
    assert trained(1.0, mix) < 0.05
    assert trained(0.0, mix) > 0.5


def test_several_teachers_answer_with_the_mean_of_their_probabilities() -> None:
    pixels = torch.randint(0, 256, (5, 6, 6, 3), dtype=torch.uint8)
    both = Teachers([Teacher(Mean(0).eval(), 6), Teacher(Mean(1).eval(), 6)], 0.5).probabilities(pixels)
    assert torch.allclose(both, (Mean(0)(pixels).softmax(1) + Mean(1)(pixels).softmax(1)) / 2)
    assert not both.requires_grad


def test_a_teacher_sees_the_picture_at_its_own_image_size() -> None:
    ramp = torch.arange(8.0)[None, None, :, None].expand(1, 8, 8, 3)
    assert resized(ramp, 8) is ramp
    assert resized(ramp, 4).shape == (1, 4, 4, 3)
    assert torch.allclose(resized(ramp, 4)[0, 1, 1:3, 0], torch.tensor([2.5, 4.5]))


def test_a_training_with_a_teacher_is_recorded_and_named_in_the_commands(
    run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    result = run("train-main", tiny_data, "--out", out, *WORDS, "--teacher", tiny_main, "--teacher-weight", 0.25)
    assert result.exit_code == 0, result.output
    config = read_config(out)
    assert config["teachers"] == [str(tiny_main)]
    before, mine = run_lines(config, "student")
    assert before == next(run_lines(read_config(tiny_main), "main"))
    assert "--teacher-weight 0.25" in mine
    assert mine.endswith("--teacher main --out student")
    (out / "summary.json").unlink()
    result = run("train-main", tiny_data, "--out", out, *WORDS, "--resume")
    assert result.exit_code == 1
    assert "teachers" in result.output


def test_a_teacher_that_cannot_teach_is_refused_before_a_folder_is_made(
    run: Run, tiny_data: Path, tiny_main: Path, tmp_path: Path
) -> None:
    out = tmp_path / "student"
    other = "rgb" if json.loads((tiny_main / "last.json").read_text())["preprocess"]["colour"] == "grey" else "grey"
    for words, said in (
        (("--unfreeze", "head"), "a frozen backbone sees each picture once"),
        (("--colour", other), "give both the same --colour and --resize"),
        (("--resize", "crop"), "give both the same --colour and --resize"),
    ):
        result = run("train-main", tiny_data, "--out", out, *WORDS, "--teacher", tiny_main, *words)
        assert result.exit_code == 1
        assert said in result.output
        assert not out.exists()
    result = run("train-main", tiny_data, "--out", out, *WORDS, "--teacher", tiny_data)
    assert "holds no finished training" in result.output

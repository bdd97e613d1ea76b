"""The stress test: what degradations do to pictures, and the figures of an evaluation under them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cascade.cli import DEGRADATION_KINDS
from cascade.images.degradations import DEGRADATIONS, STRENGTHS
from tests.conftest import Run, draw

TURNED_SHAPES = ("low_resolution", "wide", "tall", "rotation")  # not pixel by pixel those of the picture


def worse(kind: str, picture: Image.Image, strength: int) -> Image.Image:
    return DEGRADATIONS[kind](picture, strength, np.random.default_rng(5))


def test_the_commands_help_names_every_kind() -> None:
    assert tuple(DEGRADATIONS) == DEGRADATION_KINDS


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_a_degraded_picture_keeps_its_mode_and_is_the_same_every_time(kind: str, mode: str) -> None:
    for size in ((300, 250), (250, 400), (900, 700), (16, 16), (1, 90)):
        picture = draw("dots", 1, size).convert(mode)
        for strength in STRENGTHS:
            first, again = worse(kind, picture, strength), worse(kind, picture, strength)
            assert (first.mode, first.tobytes()) == (mode, again.tobytes())
            if kind not in TURNED_SHAPES:
                assert first.size == size


@pytest.mark.parametrize("kind", [kind for kind in DEGRADATIONS if kind not in TURNED_SHAPES])
def test_each_strength_changes_more_than_the_one_before(kind: str) -> None:
    picture = draw("sky", 2, (300, 250))
    pixels = np.asarray(picture, dtype=float)
    changes = [
        np.abs(np.asarray(worse(kind, picture, strength), dtype=float) - pixels).mean() for strength in STRENGTHS
    ]
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("kind", ["blur", "defocus", "motion", "noise"])
def test_a_photo_and_its_small_copy_are_made_equally_worse(kind: str) -> None:
    small = draw("dots", 3, (300, 250))
    large = small.resize((900, 750), Image.Resampling.BICUBIC)
    reduced = worse(kind, large, 2).resize(small.size, Image.Resampling.BOX)
    spread = [np.asarray(picture.convert("L"), dtype=float).std() for picture in (worse(kind, small, 2), reduced)]
    assert spread[0] == pytest.approx(spread[1], rel=0.1)


def test_shapes_and_sides_are_those_that_the_strengths_name() -> None:
    picture = draw("rows", 4, (300, 250))
    assert [min(worse("low_resolution", picture, strength).size) for strength in STRENGTHS] == [128, 96, 64]
    assert [worse("wide", picture, strength).size for strength in STRENGTHS] == [(300, 169), (300, 150), (300, 100)]
    assert [worse("tall", picture, strength).size for strength in STRENGTHS] == [(141, 250), (125, 250), (83, 250)]


def test_a_turned_picture_has_no_empty_corners() -> None:
    white = Image.new("L", (300, 250), 255)
    for strength in STRENGTHS:
        turned = worse("rotation", white, strength)
        assert turned.getextrema() == (255, 255)
        assert turned.width / turned.height == pytest.approx(1.2, rel=0.02)


def test_the_strongest_grey_has_no_colour() -> None:
    pixels = np.asarray(worse("grey", draw("dots", 5), 3)).astype(int)
    assert np.ptp(pixels, axis=2).max() == 0


def test_evaluate_reports_each_kind_the_means_and_the_worst(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    words = ("evaluate", tiny_data / "validation", "--model", tiny_bundle, "--stress-kind", "blur")
    result = run(*words, "--stress-kind", "grey", "--json", "--plots", tmp_path / "plots")
    report = json.loads(result.stdout)
    stress = report["stress"]
    assert list(stress["kinds"]) == ["blur", "grey"]
    for stage in ("main", "cascade"):
        for strength in ("1", "2", "3"):
            figures = [kind[strength][stage] for kind in stress["kinds"].values()]
            mean = stress["mean"][strength][stage]
            assert figures[0].keys() == mean.keys() == report[stage].keys()
            assert mean["ece"] == pytest.approx(np.mean([one["ece"] for one in figures]))
            assert mean["top1_interval"][0] <= mean["top1"] <= mean["top1_interval"][1]
    worst, kinds = stress["worst"], stress["kinds"]
    assert worst["cascade"] == kinds[worst["kind"]][str(worst["strength"])]["cascade"]
    assert worst["cascade"]["top1"] == min(
        figures["cascade"]["top1"] for kind in kinds.values() for figures in kind.values()
    )
    assert (tmp_path / "plots" / "stress.png").stat().st_size > 5000


def test_the_stress_test_is_the_same_whatever_the_order_and_the_threads(
    run: Run, tiny_bundle: Path, tiny_data: Path
) -> None:
    words = ("evaluate", tiny_data / "validation", "--model", tiny_bundle, "--stress-kind", "noise", "--json")
    reports = [json.loads(run(*words, "--threads", threads).stdout)["stress"] for threads in (1, 2)]
    assert reports[0] == reports[1]


def test_the_table_shows_every_kind_measured(run: Run, tiny_bundle: Path, tiny_data: Path) -> None:
    words = ("evaluate", tiny_data / "validation", "--model", tiny_bundle, "--stress-kind", "low_resolution")
    lines = run(*words).stdout.splitlines()
    table = lines[lines.index("under stress, strengths 1, 2, 3") :]
    assert [line.split("  ")[0] for line in table[2:4]] == ["low resolution", "mean"]
    assert table[-1].startswith("worst: low resolution at strength ")


def test_an_unknown_kind_is_refused_with_the_known_ones(run: Run, tiny_bundle: Path, tiny_data: Path) -> None:
    result = run("evaluate", tiny_data / "validation", "--model", tiny_bundle, "--stress-kind", "fog")
    assert result.exit_code == 2
    assert "'fog' is not one of 'blur', 'defocus'" in result.stderr


def test_evaluate_names_every_picture_that_cannot_be_read(
    run: Run, tiny_bundle: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_data / "validation", tmp_path / "photos")
    bad = [folder / "dots" / "000.png", folder / "sky" / "zzz.png"]
    for path in bad:
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))
    for command in ("evaluate", "tune"):
        first, second = (folder, "--model") if command == "evaluate" else (tiny_bundle, folder)
        words = (first, second, tiny_bundle) if command == "evaluate" else (first, second)
        result = run(command, *words)
        assert result.exit_code == 1
        assert "2 pictures cannot be read" in result.output
        assert all(str(path) in result.output for path in bad)

"""Which form of a bundle a machine runs."""

import platform
from pathlib import Path

import pytest

from cascade.bundle.precision import precise_folder, processor_kind
from cascade.bundle.reading import BundleError


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni sse4_2", " with byte dot products"),
        ("Features\t: fp asimd asimddp", " with byte dot products"),
        ("flags\t\t: fpu avx2 avx512_vnni_not", ""),
    ],
)
def test_a_processor_that_multiplies_bytes_is_told_by_its_flags(flags: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert processor_kind(tmp_path / "cpuinfo") == platform.machine().lower() + kind
    assert processor_kind(tmp_path / "nowhere") == platform.machine().lower()


def test_a_bundle_without_an_8_bit_form_is_taken_as_it_is_unless_that_is_asked_for(tiny_bundle: Path) -> None:
    assert precise_folder(tiny_bundle, "float") == tiny_bundle
    assert precise_folder(tiny_bundle, "auto") == tiny_bundle
    with pytest.raises(BundleError, match="has no 8-bit form; make one with: canonistia quantize"):
        precise_folder(tiny_bundle, "int8")

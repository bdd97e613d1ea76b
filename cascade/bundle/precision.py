"""Precision: which form of a bundle runs on this machine, floating point or 8-bit integers."""

import platform
import shlex
from pathlib import Path
from typing import Literal

from cascade.bundle.manifest import MANIFEST
from cascade.bundle.reading import BundleError, read_manifest

Precision = Literal["float", "int8", "auto"]
INT8 = "int8"  # the folder of the 8-bit form, inside the bundle's folder

_CPUINFO = Path("/proc/cpuinfo")
_DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "asimddp")


def has_byte_dot_products(cpuinfo: Path = _CPUINFO) -> bool:
    """Return whether the processor has an instruction for dot products of bytes; False where this is not known."""
    try:
        words = cpuinfo.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return not set(words).isdisjoint(_DOT_PRODUCTS)


def processor_kind(cpuinfo: Path = _CPUINFO) -> str:
    """Return the kind of processor, on which the speed of 8-bit networks depends: ``x86_64 with byte dot products``."""
    machine = platform.machine().lower()
    return f"{machine} with byte dot products" if has_byte_dot_products(cpuinfo) else machine


def precise_folder(folder: Path, precision: Precision) -> Path:
    """Return the folder of the requested form; ``auto`` takes 8 bits if they were faster on this kind of processor.

    Raises
    ------
    BundleError
        8 bits are requested, and the bundle has no such form.
    """
    inside = folder / INT8
    if precision == "float":
        return folder
    if not (inside / MANIFEST).is_file():
        if precision == "auto":
            return folder
        command = shlex.join(("canonistia", "quantize", str(folder), "DATA"))
        raise BundleError(f"{folder} has no 8-bit form; make one with: {command}")
    if precision == "int8":
        return inside
    quantised = read_manifest(inside)[0].quantised
    faster = quantised and quantised.speed_up > 1 and quantised.processor == processor_kind()
    return inside if faster else folder

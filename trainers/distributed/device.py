"""The device that a network is trained on, and the precision that it computes in."""

import ctypes
import sys

import torch

from cascade.errors import CanonistiaError

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda...``; ``auto`` takes a GPU when PyTorch sees one.

    Raises
    ------
    CanonistiaError
        The device is no CPU or GPU, or this machine has no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise CanonistiaError(f"unknown device '{device}'; expected auto, cpu, cuda or cuda:NUMBER")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise CanonistiaError(
            f"device '{device}' was asked for, and PyTorch sees {torch.cuda.device_count() or 'no'} GPU here; "
            "use --device cpu"
        )
    return device


def resolve_precision(precision: str, device: str) -> str:
    """Return ``fp32`` or ``bf16``; ``auto`` takes bf16 where the hardware multiplies it natively."""
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("avx512_bf16") else "fp32"


def keep_freed_memory() -> None:
    """Let glibc keep the memory that tensors free.

    By default glibc returns large blocks to the system, and every batch then waits for fresh, zeroed pages: half the
    time of a pass on a CPU (docs/decisions.md).
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)

"""The process that a training runs in, with its device: one of several when accelerate launched it."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from cascade.errors import CanonistiaError
from trainers.distributed.batch_norm import SharedStatistics
from trainers.distributed.device import resolve_device

T = TypeVar("T")


@dataclass(frozen=True)
class ProcessContext:
    """One process of a training: its device, its number, and how many processes there are."""

    device: str
    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Return whether this process keeps the run's record."""
        return self.index == 0

    @property
    def alone(self) -> "ProcessContext":
        """Return the same process, as if there were no other."""
        return ProcessContext(self.device)

    def shared(self, network: nn.Module) -> nn.Module:
        """Return the network with its gradients averaged over the processes."""
        if self.count == 1:
            return network
        devices = [torch.device(self.device)] if self.device.startswith("cuda") else None
        return nn.parallel.DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)

    def common_statistics(self) -> AbstractContextManager[object]:
        """Return a context in which batch norm takes its statistics over the pictures of all processes."""
        return SharedStatistics() if self.count > 1 else nullcontext()

    def gathered(self, value: T) -> list[T]:
        """Return the value of every process, in the order of their numbers."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            torch.distributed.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the main process run first and alone, then the others: they find what it fetched or computed."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()


def process_context(device: str) -> ProcessContext:
    """Return the context of this process.

    Raises
    ------
    CanonistiaError
        The device is no CPU or GPU, or this machine has no such device.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ProcessContext(resolve_device(device))
    from accelerate import PartialState

    kind = resolve_device(device)
    state = PartialState(cpu=kind == "cpu")
    return ProcessContext(str(state.device), state.process_index, state.num_processes)


def without_processes(arguments: Sequence[str]) -> list[str]:
    """Return a command's arguments without ``--processes N`` and ``--processes=N``."""
    left, skip = [], False
    for argument in arguments:
        if not skip and not argument.startswith("--processes"):
            left.append(argument)
        skip = argument == "--processes"
    return left


def launch(processes: int, device: str, arguments: Sequence[str]) -> int:
    """Run a canonistia command in several processes through ``accelerate launch``; return its exit status.

    The processes do not import modules from the current folder, which is the user's: one of its files may be named as
    a package of canonistia.

    Raises
    ------
    CanonistiaError
        There are fewer GPUs than processes.
    """
    kind = resolve_device(device)
    if kind.startswith("cuda") and torch.cuda.device_count() < processes:
        raise CanonistiaError(
            f"PyTorch sees {torch.cuda.device_count()} GPUs, expected one for each of {processes} processes; lower "
            "--processes or use --device cpu"
        )
    where = ["--multi_gpu"] if kind.startswith("cuda") else ["--cpu"]
    options = ["--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
    command = [sys.executable, "-m", "accelerate.commands.launch", *where, *options, "--dynamo_backend", "no"]
    environment = os.environ | {"PYTHONSAFEPATH": "1"}  # accelerate hands it on to the processes
    return subprocess.call([*command, "-m", "canonistia", *arguments], env=environment)

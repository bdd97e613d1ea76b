"""Peak memory of batch classification by number of pictures.

    python -m benchmarks.memory PICTURES [--model scene15] [--counts 5000 100000]

For each number of pictures a new ``canonistia classify`` process classifies a folder of copies into a CSV file. The
process's peak resident memory, as reported by the system, is printed.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnxruntime

from benchmarks.copies import copies
from benchmarks.machine import processor_name
from cascade.images.folders import pictures_below


def main() -> None:
    """Measure one number of pictures after the other, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model", default="scene15")
    parser.add_argument("--counts", type=int, nargs="+", default=[5_000, 100_000])
    options = parser.parse_args()
    found = pictures_below(options.pictures)
    versions = f"Python {platform.python_version()}, onnxruntime {onnxruntime.__version__}"
    print(f"{processor_name()}, {os.cpu_count()} cores, {versions}")
    first = 0.0
    for count in options.counts:
        with tempfile.TemporaryDirectory() as work:
            folder, rows = Path(work) / "pictures", Path(work) / "rows.csv"
            folder.mkdir()
            copies(found, count, folder)
            arguments = ["classify", str(folder), "--model", options.model, "--out", str(rows)]
            started = time.perf_counter()
            command = [
                sys.executable,
                "-P",
                "-m",
                "canonistia",
                *arguments,
            ]  # nothing is imported from the current folder
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            if status:
                raise SystemExit(f"classify ended with {os.waitstatus_to_exitcode(status)}")
            with rows.open() as lines:
                written = sum(1 for _ in lines) - 1
        peak = used.ru_maxrss / 1024  # Linux counts in KiB
        first = first or peak
        rate = count / seconds
        print(
            f"{count:9,} pictures, {written:9,} rows: {peak:7.1f} MB ({peak / first:.3f} of the first), "
            f"{seconds:6.0f} s, {rate:.1f} pictures/s",
            flush=True,
        )


if __name__ == "__main__":
    main()

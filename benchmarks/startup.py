"""Start-up: a whole ``canonistia classify ONE.jpg`` process compared with importing the runtime alone.

    python -m benchmarks.startup [BIN]

BIN is the folder of a serving install's commands, by default ``.venv/bin`` of ``make demo``. The processes run in
turns, so that a change in the machine's speed affects all of them. The figure to quote is the ratio of the medians. Its
limit is 3: most of the time of one answer should be the runtime's, not this project's.
"""

import argparse
import os
import platform
import subprocess
import time
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 15


def main(folder: Path) -> None:
    """Print each command's median seconds, its quartiles, and the ratio to the bare imports."""
    samples = ROOT / "data" / "samples"
    classify = [str(folder / "canonistia"), "classify", "--model", str(ROOT / "models" / "scene15")]
    commands = {
        "import onnxruntime, PIL": [str(folder / "python"), "-c", "import onnxruntime, PIL"],
        "classify, main model sure": [*classify, str(samples / "coast.jpg")],
        "classify, routed": [*classify, str(samples / "doubtful_kitchen_or_living_room.jpg")],
    }
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(ROUNDS + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            if turn:  # the first turn warms the file cache
                seconds[name].append(time.perf_counter() - started)
    base = median(seconds["import onnxruntime, PIL"])
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {ROUNDS} interleaved rounds")
    for name, values in seconds.items():
        low, _, high = quantiles(values, n=4)
        print(f"{name:<28}{median(values):7.3f} s  [{low:.3f}, {high:.3f}]  ratio {median(values) / base:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bin", type=Path, nargs="?", default=ROOT / ".venv" / "bin", metavar="BIN")
    main(parser.parse_args().bin)

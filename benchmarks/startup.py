"""Start-up: ``canonistia classify ONE.jpg`` as a whole process, against importing the runtime alone.

    python benchmarks/startup.py [BIN]

BIN is the folder of a serving install's commands, by default ``.venv/bin`` of ``make demo``. The processes take turns,
so that a machine whose speed drifts slows all of them; the ratio of the medians is the figure to quote. The bound is 3:
whoever waits for one answer should wait for the runtime, not for us.
"""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 15


def main(folder: Path) -> None:
    """Print the median seconds of each command, the spread, and the ratio to the bare imports."""
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
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / ".venv" / "bin")

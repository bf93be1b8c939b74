"""Do to real runs what happens to them in the world, and see that nothing is lost. By hand:

python tests/by_hand/faults.py kills 50      kill -9 at random moments; go on; compare bit for bit
python tests/by_hand/faults.py disk          no room for what is saved (not on Windows)
python tests/by_hand/faults.py folders       read-only (not as root), in use, shared caches
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from going_modular.model_builder import load_model
from going_modular.training.run_folder import MODEL, UNFINISHED

ROOT = Path(__file__).parent.parent.parent
TRAIN = [sys.executable, "-m", "going_modular.train"]
SMALL = ["--epochs", "3", "--size", "32", "--batch-size", "8", "--device", "cpu"]
# A child that is forked from here has everything imported and starts at once.
FORKED = """
import os, sys
import torch
torch.set_num_threads(1)
from going_modular import train
while line := sys.stdin.readline():
    arguments, log, limit = eval(line)
    child = os.fork()
    if not child:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1), os.dup2(file, 2)
        if limit is not None:
            import resource
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        os._exit(train.main(arguments))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Runs:
    """Starts runs of the command line, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log.txt"
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "GOING_MODULAR_PRECISION": "float32",
            "GOING_MODULAR_CACHE": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
        }
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.server = subprocess.Popen([sys.executable, "-c", FORKED], env=environment, **pipes)

    def start(self, arguments: list[str], limit: int | None = None) -> int:
        """Start a run, which may write `limit` bytes to a file; return its process id."""
        self.log.write_text("")
        print((arguments, str(self.log), limit), file=self.server.stdin, flush=True)
        return int(self.server.stdout.readline())

    def end(self) -> int:
        return int(self.server.stdout.readline())

    def run(self, arguments: list[str], limit: int | None = None) -> int:
        self.start(arguments, limit)
        return self.end()


def photos(folder: Path) -> list[str]:
    """Make two classes of 20 photos that differ in brightness; return options to train on them."""
    rng = np.random.default_rng(0)
    for name, base in (("dark", 40), ("light", 200)):
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.normal(base, 20, size=(48, 56, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "photos" / name / f"{number:02}.jpg")
    return ["--data", str(folder / "photos"), *SMALL]


def result(out: Path) -> tuple[list[str], dict[str, torch.Tensor]]:
    rows = (out / "history.csv").read_text().splitlines()
    weights = load_model(out / MODEL)[0].state_dict()
    return [row.rpartition(",")[0] for row in rows], weights


def difference(one: Path, other: Path) -> float:
    """Return the largest difference of any weight; infinite where a number of the history has."""
    (history, weights), (history_, weights_) = result(one), result(other)
    if history != history_:
        return float("inf")
    return max((value.double() - weights_[n].double()).abs().max() for n, value in weights.items())


def kills(folder: Path, count: int) -> None:
    """Kill runs at `count` random moments, several times each, until they are done."""
    runs, moments, small = Runs(folder), random.Random(0), photos(folder)
    strategies = ["feature_extraction", "partial", "full", "lp_ft"]
    options = {name: ["--strategy", name, *small] for name in strategies}
    options["full, augmented"] = [*options["full"], "--augment", "--keep-best"]
    print(f"{'strategy':<20}  {'kills':>5}  {'runs':>5}  {'before any state':>16}  difference")
    each = -(-count // len(options))
    for name, arguments in options.items():
        whole = folder / f"{name}-whole"
        began = time.monotonic()
        assert runs.run([*arguments, "--out", str(whole)]) == 0, runs.log.read_text()
        took, killed, number, early, worst = time.monotonic() - began, 0, 0, 0, 0.0
        while killed < each:
            number += 1
            out = folder / f"{name}-{number}"
            command = [*arguments, "--out", str(out)]
            while not (out / MODEL).exists() or (out / UNFINISHED).exists():
                process = runs.start(command)
                if killed < each:
                    time.sleep(moments.uniform(0, 0.7 * took))
                    try:
                        os.kill(process, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                code = runs.end()
                killed += code == -signal.SIGKILL
                assert code in (0, -signal.SIGKILL), runs.log.read_text()
                if (out / UNFINISHED).exists():
                    early += not list(out.glob("resume*.pt"))
                    command = ["--resume", "--out", str(out)]
            worst = max(worst, difference(whole, out))
            left = sorted(path.name for path in out.iterdir() if path.name != ".lock")
            assert left == sorted(["curves.png", "history.csv", MODEL]), left
        print(f"{name:<20}  {killed:>5}  {number:>5}  {early:>16}  {worst:g}", flush=True)


def disk(folder: Path) -> None:
    """Let files grow to a limit only, as a full disk does; then go on without it."""
    runs, arguments = Runs(folder), ["--strategy", "partial", *photos(folder)]
    assert runs.run([*arguments, "--out", str(folder / "whole")]) == 0, runs.log.read_text()
    print(f"{'a file may have':>15}  {'exit':>4}  {'left behind':<50}  then  difference")
    for limit in (10_000, 1_000_000, 10_000_000, 13_600_000, 25_000_000):
        out = folder / f"run-{limit}"
        code = runs.run([*arguments, "--out", str(out)], limit)
        message = runs.log.read_text().strip().splitlines()[-1]
        left = " ".join(sorted(path.name for path in out.iterdir())) if out.exists() else "nothing"
        again = ["--resume", "--out", str(out)] if out.exists() else [*arguments, "--out", str(out)]
        code_ = runs.run(again) if code else 0
        assert code_ == 0, runs.log.read_text()
        print(
            f"{limit:>15,}  {code:>4}  {left:<50}  {code_:>4}  "
            f"{difference(folder / 'whole', out):g}"
        )
        print(f"    {message}", flush=True)


def folders(folder: Path) -> None:
    """Try a folder that cannot be written, one that is in use, and two runs on one cache."""
    runs, arguments = Runs(folder), ["--strategy", "feature_extraction", *photos(folder)]
    (folder / "file").touch()
    (folder / "sealed").mkdir(mode=0o555)
    for place in ("file/run", "sealed/run"):
        code = runs.run([*arguments, "--out", str(folder / place)])
        print(f"{place:<12} exit {code}: {runs.log.read_text().strip().splitlines()[-1]}")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "GOING_MODULAR_CACHE": str(folder / "c")}
    both = [
        subprocess.Popen([*TRAIN, *arguments, "--out", str(folder / out)], env=environment, **PIPES)
        for out in ("same", "same", "a", "b")
    ]
    for process in both:
        output, error = process.communicate()
        print(f"{process.args[-1][-6:]:<12} exit {process.returncode}: {(error or output)[-150:]}")
    print("a and b differ by", difference(folder / "a", folder / "b"))


PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        if sys.argv[1] == "kills":
            kills(Path(name), int(sys.argv[2]))
        else:
            {"disk": disk, "folders": folders}[sys.argv[1]](Path(name))

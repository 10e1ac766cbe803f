"""Run as a program: starts a model as a user does, answers some questions, and says what that took of memory and time.

`python -m duologue.eval.probe '{"model": "mini", "threads": 2, "questions": ["a.wav"]}'` prints one JSON line when it
is ready and one at the end. Another process is needed, as the evaluating one holds judges and synthesisers in memory.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from duologue.errors import DataError

SECONDS = 900  # until a probe is ended


def resident() -> dict[str, float]:
    """Present and greatest resident memory of this process in GiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines() if ":" in line)
        return {name: int(lines[key].split()[0]) / 2**20 for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}
    scale = 2**30 if sys.platform == "darwin" else 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale
    return {"now": peak, "peak": peak}


def probe(model: str, questions: Sequence[Path], *, threads: int, command: Sequence[str] = ()) -> dict[str, Any]:
    """Starts the program and reads what it says.

    Returns:
        start_seconds (from the start of the process, imports and all, to the model being ready), and `now` and `peak`
        memory in GiB after the load (ready_*) and at the end of the answers (talking_*).
    Raises:
        DataError: it failed; its last line of error is told.
    """
    task = json.dumps({"model": model, "threads": threads, "questions": [str(path) for path in questions]})
    start = time.perf_counter()
    argv = [*(command or (sys.executable, "-m", "duologue.eval.probe")), task]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        alarm = threading.Timer(SECONDS, process.kill)
        alarm.start()
        assert process.stdout is not None  # it was asked for
        first = process.stdout.readline()
        seconds = time.perf_counter() - start
        rest = process.stdout.read()
        code = process.wait()
        alarm.cancel()
        errors.seek(0)
        reason = errors.read().strip().splitlines()[-1:] or [f"exit code {code}"]
    if code or not first.strip() or not rest.strip():
        raise DataError(f"the probe of {model} failed: {reason[0]}")
    ready, talking = json.loads(first), json.loads(rest.strip().splitlines()[-1])
    return {
        "start_seconds": round(seconds, 3),
        **{f"ready_{key}": value for key, value in ready.items()},
        **{f"talking_{key}": value for key, value in talking.items()},
    }


def main(argument: str) -> None:
    """What the started program does."""
    task = json.loads(argument)
    import torch

    from duologue.pipeline import Pipeline

    torch.set_num_threads(int(task["threads"]))
    pipe = Pipeline.from_pretrained(task["model"])
    print(json.dumps(resident()), flush=True)
    highest = 0.0
    for path in task["questions"]:
        for _ in pipe.stream(path):
            highest = max(highest, resident()["now"])
    print(json.dumps({**resident(), "answering": highest}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])

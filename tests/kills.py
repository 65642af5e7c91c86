"""Kills a run of the smoke profile again and again: `python tests/kills.py CLONE [N] [SEED]`.

Each time a random process of the run (the front, Snakemake, a stage, its kernel) is killed after a
random time, with warm or cold stages. Nothing of the run may be left after half a minute (where
Snakemake was killed, once the stages that ran have finished), no output may be half-written, and a
last, undisturbed start must finish, after which no temporary file is left. It is no part of
`make test`: thirty kills take a quarter of an hour.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

PATIENCE = 30  # seconds until everything of a killed run must be gone
LONGEST_STAGE = 600  # after Snakemake's death stages that run may finish, and the front waits


def ours(mark):
    "The processes that carry the mark in their environment, with what they are"
    found = {}
    for p in psutil.process_iter():
        try:
            if p.environ().get("KILLS_MARK") == mark and p.status() != psutil.STATUS_ZOMBIE:
                found[p.pid] = " ".join(p.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def kind(command):
    "What a process is, by its command line"
    for word, name in (
        ("ipykernel", "kernel"),
        ("run.py serve", "server"),
        ("run.py", "stage"),
        ("snakemake", "snakemake"),
        ("interlace", "front"),
    ):
        if word in command:
            return name
    return "other"


def half_written(clone):
    "Files and folders that a writer left behind"
    folders = [clone / "runs", clone / "figures" / "smoke", clone / "tables" / "smoke"]
    return [p for d in folders if d.is_dir() for p in d.rglob("*.part*")]


def temporary(clone):
    "The system's folder for temporary files, as far as the runs are concerned"
    folder = clone.with_name(f"{clone.name}.tmp")
    folder.mkdir(exist_ok=True)
    return folder


def start(clone, mark):
    env = os.environ | dict(KILLS_MARK=mark, PYTHONPATH=str(clone), HF_HUB_OFFLINE="1")
    env["TMPDIR"] = str(temporary(clone))
    command = [sys.executable, "-m", "interlace.cli", "reproduce", "--profile", "smoke"]
    return subprocess.Popen(
        command, cwd=clone, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def kill_one(clone, k, rng):
    "Start the run, kill one of its processes, and wait until all are gone"
    mark, warm = f"{os.getpid()}-{k}", rng.random() < 0.5
    front = start(clone, mark)
    if not warm:  # without the server, stages start from nothing
        time.sleep(4)
        for pid in [p for p, command in ours(mark).items() if kind(command) == "server"]:
            os.kill(pid, signal.SIGKILL)
    time.sleep(rng.uniform(1, 25))
    if front.poll() is not None:
        return dict(victim="none, it had ended", status=front.returncode)
    running = ours(mark)
    pid = rng.choice(sorted(running))
    victim = kind(running[pid])
    os.kill(pid, signal.SIGKILL)
    # without one of these the run may go on (without the server, stages start from nothing) or end
    if victim in ("server", "stage", "kernel", "other"):
        time.sleep(rng.uniform(0, 3))
        if front.poll() is None:
            front.send_signal(signal.SIGTERM)
    end = time.time() + (LONGEST_STAGE if victim == "snakemake" else PATIENCE)
    while (left := ours(mark)) and time.time() < end:
        time.sleep(0.5)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    return dict(victim=victim, warm=warm, left=sorted(map(kind, left.values())))


def main(clone, n=30, seed=42):
    clone, rng = Path(clone).resolve(), random.Random(int(seed))
    kills = []
    for k in range(int(n)):
        kills.append(kill_one(clone, k, rng))
        print(k, json.dumps(kills[-1]), flush=True)
    last = start(clone, "last")
    _, err = last.communicate()
    parts = half_written(clone) + sorted(temporary(clone).iterdir())
    again = subprocess.run(
        [sys.executable, "-m", "interlace.cli", "reproduce", "--profile", "smoke", "--dry-run"],
        cwd=clone,
        env=os.environ | dict(PYTHONPATH=str(clone)),
        capture_output=True,
        text=True,
    )
    print(f"last run: status {last.returncode}; left: {[str(p) for p in parts]}")
    print(again.stdout[-300:], err[-300:] if last.returncode else "")
    return int(bool(last.returncode or parts or any(k.get("left") for k in kills)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

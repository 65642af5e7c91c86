"""Runs one stage: a notebook through papermill, on GPUs of its own, from a process that has its imports done.

    run.py stage GPUS NOTEBOOK OUTPUT PARAMETERS    what the Snakefile calls; the parameters are YAML
    run.py serve SOCKET                             imports once what most notebooks import, then forks for whoever asks
    run.py kernel ARGUMENTS...                      a notebook's kernel, forked from that server

Importing torch, transformers and the evaluation harness takes seconds, a small stage less than that.
`interlace reproduce` starts the server for small profiles and names its socket in INTERLACE_WARM; without it,
or when it is gone, everything starts in the usual way. Only the standard library is imported here: a client must be quick.
"""

import contextlib
import fcntl
import gc
import json
import os
import random
import runpy
import select
import signal
import socket
import struct
import sys
import time

HEAVY = (
    "torch",
    "transformers",
    "transformers.trainer",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "transformers.models.qwen3_vl.processing_qwen3_vl",
    "transformers.models.qwen2_vl.image_processing_qwen2_vl",
    "datasets",
    "accelerate",
    "pandas",
    "matplotlib.pyplot",
    "seaborn",
    "PIL.Image",
    "sklearn",
    "lmms_eval.evaluator",
    "lmms_eval.api.task",
    "lmms_eval.api.model",
    "lmms_eval.tasks",
    "papermill.cli",
    "papermill.execute",
    "nbclient.client",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
)


def ask(where, argv):
    "The exit status of `argv`, run by a process forked from the server; None if there is no server"
    parent = os.getppid()
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect(where)
        except OSError:
            return None
        request = json.dumps([argv, os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(s, [struct.pack("!Q", len(request))], [0, 1, 2])
        s.sendall(request)
        for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(n, lambda n, _: s.send(bytes([n])))
        while not select.select([s], [], [], 1)[0]:
            if os.getppid() != parent:
                # whoever started this is gone; so goes the forked process when the connection
                # closes
                return 1
        status = s.recv(1)
    return status[0] if status else 1


def cold(module, argv):
    os.execv(sys.executable, [sys.executable, "-m", module, *argv])


def answer(connection):
    "What a client asks: (arguments, folder, environment, its standard streams)"
    head, fds, _, _ = socket.recv_fds(connection, 8, 3)
    size, text = struct.unpack("!Q", head)[0], b""
    while len(text) < size:
        part = connection.recv(size - len(text))
        if not part:
            raise OSError("the client went away")
        text += part
    return *json.loads(text), fds


def become(argv, folder, environment, fds):
    "In the forked child: take the client's place, and run"
    for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(n, signal.default_int_handler if n == signal.SIGINT else signal.SIG_DFL)
    for to, fd in enumerate(fds):
        os.dup2(fd, to)
        os.close(fd)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    random.seed()
    import torch

    if n := environment.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(n))  # read from the environment only when torch is loaded
    module, *sys.argv[1:] = argv
    sys.argv[0] = module
    status = 1
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def serve(where):
    "Import, then fork for every request until the process that started the server is gone"
    import importlib

    parent, running = os.getppid(), {}  # connection -> pid
    os.environ["JPY_PARENT_PID"] = str(
        os.getpid()
    )  # a kernel ends when its parent does; read when ipykernel is loaded
    os.environ.setdefault(
        "MPLBACKEND", "module://matplotlib_inline.backend_inline"
    )  # as a kernel has it; read when matplotlib is loaded
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(where)
        listener.listen(64)  # who asks meanwhile waits
        for name in HEAVY:
            with contextlib.suppress(ImportError):
                importlib.import_module(
                    name
                )  # what is missing is said by the notebook that needs it
        gc.collect()
        gc.freeze()  # no child looks through all of that again, or copies its pages by doing so
        while os.getppid() == parent:
            ready, _, _ = select.select([listener, wake, *running], [], [], 1)
            for r in ready:
                if r == wake:
                    os.read(wake, 4096)
                elif r is listener:
                    connection, _ = listener.accept()
                    try:
                        request = answer(connection)
                    except (OSError, ValueError, struct.error):
                        connection.close()
                        continue
                    if not (pid := os.fork()):
                        signal.set_wakeup_fd(-1)
                        for c in (listener, connection, *running):
                            c.close()
                        become(*request)
                    for fd in request[-1]:
                        os.close(fd)
                    running[connection] = pid
                else:
                    try:
                        told = r.recv(16)
                    except OSError:
                        told = b""
                    for n in told or [signal.SIGKILL]:  # a client that is gone was killed
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(running[r], n)
                    if not told:
                        os.waitpid(running.pop(r), 0)
                        r.close()
            for connection, pid in list(running.items()):
                done, status = os.waitpid(pid, os.WNOHANG)
                if not done:
                    continue
                code = os.waitstatus_to_exitcode(status)
                with contextlib.suppress(OSError):
                    connection.send(bytes([code if code >= 0 else 128 - code]))
                connection.close()
                del running[connection]
        for pid in running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
# none asked for, none there, or somebody else has chosen
def gpus_of_its_own(n):
    "Hold `n` of the machine's GPUs (INTERLACE_GPUS says how many there are) as long as the block runs"
    there = int(os.environ.get("INTERLACE_GPUS", 0))
    if not n or not there or "CUDA_VISIBLE_DEVICES" in os.environ:
        yield
        return
    os.makedirs("runs/gpus", exist_ok=True)
    held = []
    while len(held) < min(n, there):
        for k in {*range(there)} - {k for k, _ in held}:
            f = open(f"runs/gpus/{k}.lock", "w")
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append((k, f))
            except BlockingIOError:
                f.close()
            if len(held) == min(n, there):
                break
        else:
            for _, f in held:
                f.close()  # not enough of them: let others finish, rather than wait for each other
            held = []
            time.sleep(1)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(
        str(k) for k, _ in sorted(held, key=lambda h: h[0])
    )
    try:
        yield
    finally:
        for _, f in held:
            f.close()


def stage(gpus, notebook, output, parameters):
    "The exit status of papermill; the executed notebook stays `OUTPUT.part.ipynb` unless all went well"
    argv = [
        "papermill",
        notebook,
        f"{output}.part.ipynb",
        "--parameters_yaml",
        parameters,
        "--no-progress-bar",
        "--log-level",
        "WARNING",
        "--kernel",
        "python3",
    ]
    os.makedirs(os.path.dirname(output), exist_ok=True)
    with gpus_of_its_own(int(gpus)):
        status = ask(os.environ["INTERLACE_WARM"], argv) if "INTERLACE_WARM" in os.environ else None
        if status is None:
            import subprocess

            status = subprocess.call([sys.executable, "-m", *argv])
    if status == 0:
        os.replace(f"{output}.part.ipynb", f"{output}.ipynb")
    return status


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "serve":
        sys.path[0] = ""  # as for `python -m`
        serve(*rest)
    elif what == "stage":
        sys.exit(stage(*rest))
    elif what == "kernel":
        status = ask(os.environ.get("INTERLACE_WARM", ""), ["ipykernel_launcher", *rest])
        if status is None:
            cold("ipykernel_launcher", rest)
        sys.exit(status)
    else:
        sys.exit(__doc__)

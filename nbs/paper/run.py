"""Execute one stage (a papermill notebook) on reserved GPUs, forked from a pre-imported server.

    run.py stage GPUS NOTEBOOK OUTPUT PARAMETERS    the Snakefile's command; PARAMETERS is YAML
    run.py serve SOCKET                             import common packages, then fork per request
    run.py kernel ARGUMENTS...                      a notebook's kernel, forked from that server

Importing torch, transformers and the evaluation harness takes seconds, longer than a small stage.
`interlace reproduce` starts the server for small profiles and names its socket in INTERLACE_WARM.
Without the server, everything starts in the usual way. This file imports only the standard
library, because a client must start quickly.
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


def front_is_gone():
    "Whether `interlace reproduce`, which holds a lock while it lives, has ended"
    if "INTERLACE_LOCK" not in os.environ:
        return False
    with contextlib.suppress(OSError), open(os.environ["INTERLACE_LOCK"]) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True
    return False


def ask(where, argv):
    "Run `argv` in a process forked from the server; return its exit status, None without a server"
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
            if os.getppid() != parent or front_is_gone():
                return 1  # closing the connection ends the forked process, too
        status = s.recv(1)
    return status[0] if status else 1


def call(argv):
    "Run `python -m ARGV` in the usual way; return its exit status. It ends with the front"
    import subprocess

    with subprocess.Popen([sys.executable, "-m", *argv]) as process:
        while True:
            try:
                return process.wait(1)
            except subprocess.TimeoutExpired:
                if front_is_gone():
                    process.terminate()
            except BaseException:
                process.terminate()
                raise


def cold(module, argv):
    "Replace this process by one that runs `module` in the usual way"
    os.execv(sys.executable, [sys.executable, "-m", module, *argv])


def answer(connection):
    "Read a client's request: (arguments, folder, environment, its standard streams)"
    head, fds, _, _ = socket.recv_fds(connection, 8, 3)
    size, text = struct.unpack("!Q", head)[0], b""
    while len(text) < size:
        part = connection.recv(size - len(text))
        if not part:
            raise OSError("the client went away")
        text += part
    return *json.loads(text), fds


def become(argv, folder, environment, fds):
    "Take the client's place in the forked child, and run its command"
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
        torch.set_num_threads(int(n))  # torch reads the environment only while loading
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


class Server:
    "Forks a process for every request, until its own parent process is gone"

    # connection -> pid
    def __init__(self, where):
        self.parent, self.running = os.getppid(), {}
        # a kernel ends with its parent; ipykernel reads this while loading
        os.environ["JPY_PARENT_PID"] = str(os.getpid())
        # the backend of a kernel; matplotlib reads this while loading
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        self.wake, woken = os.pipe()  # a child that ends wakes the server
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(where)
        self.listener.listen(64)  # requests during the imports wait

    def load(self):
        "Import once what most notebooks import"
        import importlib

        for name in HEAVY:
            # the notebook that needs a missing package reports it
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        gc.collect()
        gc.freeze()  # children neither scan these objects nor copy their memory pages

    def serve(self):
        "Answer requests"
        while os.getppid() == self.parent:
            ready, _, _ = select.select([self.listener, self.wake, *self.running], [], [], 1)
            for source in ready:
                if source == self.wake:
                    os.read(self.wake, 4096)
                elif source is self.listener:
                    self.fork()
                else:
                    self.pass_on(source)
            for connection, pid in list(self.running.items()):
                self.report(connection, pid)
        for pid in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def fork(self):
        "Accept a request and start it"
        connection, _ = self.listener.accept()
        try:
            request = answer(connection)
        except (OSError, ValueError, struct.error):
            connection.close()
            return
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            for c in (self.listener, connection, *self.running):
                c.close()
            become(*request)
        for fd in request[-1]:
            os.close(fd)
        self.running[connection] = pid

    def pass_on(self, connection):
        "Pass a client's signals on to its process, and end the process of a client that is gone"
        try:
            told = connection.recv(16)
        except OSError:
            told = b""
        for n in told or [signal.SIGKILL]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.running[connection], n)
        if not told:
            os.waitpid(self.running.pop(connection), 0)
            connection.close()

    def report(self, connection, pid):
        "Send a client its process's exit status, once it has ended"
        done, status = os.waitpid(pid, os.WNOHANG)
        if not done:
            return
        code = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):
            connection.send(bytes([code if code >= 0 else 128 - code]))
        connection.close()
        del self.running[connection]


def serve(where):
    "Import common packages, then fork for every request"
    server = Server(where)
    server.load()
    server.serve()


@contextlib.contextmanager
# no GPU requested, none available, or already chosen by the caller
def gpus_of_its_own(n):
    "Reserve `n` of the machine's GPUs (INTERLACE_GPUS is their number) while the block runs"
    there = int(os.environ.get("INTERLACE_GPUS", 0))
    if not n or not there or "CUDA_VISIBLE_DEVICES" in os.environ:
        yield
        return
    os.makedirs("runs/gpus", exist_ok=True)
    held = []
    while len(held) < min(n, there):
        for k in {*range(there)} - {k for k, _ in held}:
            f = open(f"runs/gpus/{k}.lock", "w")  # noqa: SIM115, it is held as long as the GPU
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held.append((k, f))
            except BlockingIOError:
                f.close()
            if len(held) == min(n, there):
                break
        else:
            for _, f in held:
                f.close()  # too few are free: release them, so that stages do not block each other
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
    """Run a notebook through papermill and return the exit status

    The executed notebook is `OUTPUT.part.ipynb`, and `OUTPUT.ipynb` once it has succeeded.
    """
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
            status = call(argv)
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

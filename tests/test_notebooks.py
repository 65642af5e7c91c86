"""The notebooks as their readers use them.

They name the command that runs them, run from any working folder, and open trusted in JupyterLab,
which saves them unchanged.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request

import nbclient
import nbformat
import psutil
import pytest
from conftest import ROOT

from interlace.core.profiles import load_profile
from interlace.reproduction.pipeline import stages

PAPER = sorted((ROOT / "nbs" / "paper").glob("*/*.ipynb"))
MATRIX = {p: stages(load_profile(p)) for p in ("smoke", "smollm2")}


@pytest.mark.parametrize("path", PAPER, ids=lambda p: p.stem)
def test_the_top_says_which_command_runs_it_and_with_which_parameters(path):
    cells = json.loads(path.read_text())["cells"]
    top, parameters = (
        "".join(cells[0]["source"]),
        next(i for i, c in enumerate(cells) if "parameters" in c["metadata"].get("tags", [])),
    )
    assert cells[0]["cell_type"] == "markdown" and parameters == 1, (
        "the parameters stand right below"
    )
    said = re.findall(r"`(interlace reproduce[^`]*|make [^` \[]+)", top)
    assert said, top
    for command in said:
        if command.startswith("make"):
            assert re.search(
                rf"^{command.split()[1]}\b[^\n]*:[^\n]*\n(?:\t[^\n]*\n)*?\t[^\n]*papermill"
                rf" {path.relative_to(ROOT)}",
                (ROOT / "Makefile").read_text(),
                re.M,
            ), command
        elif "--only" in command:
            profile = re.search(r"--profile (\S+)", command)
            assert {s.name: s.notebook for s in MATRIX[profile[1] if profile else "smoke"]}[
                command.split("--only ")[1]
            ] == f"{path.parent.name}/{path.stem}"
    if f"{path.parent.name}/{path.stem}" in {s.notebook for s in MATRIX["smoke"]}:
        shown = "smoke" if path.parent.name == "stages" else "nano"
        assert "--only" in said[0] and f"profile `{shown}`" in top


@pytest.mark.parametrize("notebook", ["figures/figure4", "tables/table1"])
def test_without_a_run_the_published_records_give_the_committed_artefact(notebook, tmp_path):
    """Only the archive is there; a table is made again as it is committed, its record included

    The notebook ends with the caption, as running text. The bytes of an image are not compared:
    processors differ in the last digits of what is drawn.
    """
    kind, name = notebook.split("/")
    home = tmp_path / "clone"
    for folder in ("figures", "tables"):
        shutil.copytree(ROOT / folder / "nano", home / folder / "nano")
    (home / "nbs").mkdir()
    for file in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / file, home / file)
    source = ROOT / "nbs" / "paper" / f"{notebook}.ipynb"
    done = subprocess.run(
        [sys.executable, "-m", "papermill", source, tmp_path / "out.ipynb"],
        env=os.environ | dict(INTERLACE_ROOT=str(home)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    shown = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert "taken from tables/nano/records.tar.xz" in str(shown.cells)
    for committed in (ROOT / "tables" / "nano").glob(f"{name}.*"):
        made = (home / "tables" / "nano" / committed.name).read_bytes()
        assert made == committed.read_bytes(), committed.name
    made, committed = (
        json.loads((folder / kind / "nano" / f"{name}.json").read_text()) for folder in (home, ROOT)
    )
    assert made["caption"] == committed["caption"] and made["inputs"] == committed["inputs"]
    assert shown.cells[-1].outputs[-1]["data"]["text/markdown"] == made["caption"]


@pytest.mark.parametrize("name", ["core/02_files", "method/03_selection"])
def test_a_chapter_runs_from_any_working_folder(name, tmp_path, monkeypatch):
    monkeypatch.delenv("INTERLACE_ROOT", raising=False)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    nb = nbformat.read(ROOT / "nbs" / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        nb, kernel_name="python3", timeout=300, resources=dict(metadata=dict(path=str(tmp_path)))
    ).execute()
    assert not [*tmp_path.iterdir()], (
        "what it writes goes where it says, not where it happens to run"
    )


def test_no_notebook_keeps_a_progress_bar():
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        assert "it/s]" not in path.read_text(), path


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Start JupyterLab on a copy of the notebooks, configured as `make lab` does

    Yields a function that reads and writes files through the server.
    """
    folder, secret = tmp_path_factory.mktemp("lab"), "as-good-as-any"
    for name in ("nbs", "interlace", "figures"):
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns("__pycache__", "weights", ".ipynb_checkpoints"),
        )
    for name in ("settings.ini", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    env = os.environ | dict(
        JUPYTER_CONFIG_PATH=str(ROOT / "lab"),
        JUPYTER_CONFIG_DIR=str(folder / "mine"),
        JUPYTER_RUNTIME_DIR=str(folder / "runtime"),
        HOME=str(folder),
    )
    trusted = subprocess.run(
        [
            sys.executable,
            "-m",
            "jupyter",
            "trust",
            *map(str, sorted((folder / "nbs").rglob("*.ipynb"))),
        ],
        env=env,
        capture_output=True,
        text=True,
    )
    assert trusted.returncode == 0, trusted.stderr
    log = open(folder / "log", "w+")  # noqa: SIM115, closed when the server has ended
    extra = f"--no-browser --port=0 --IdentityProvider.token={secret}"
    extra += f" --LabApp.workspaces_dir={folder / 'workspaces'}"  # not what a reader has open
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^\t\$\(BIN\)/jupyter lab (.*?)(?: {2,}#.*)?$", makefile, re.M)[1]
    arguments = recipe.replace("$(CURDIR)", str(folder)).replace("$(LAB)", extra)
    arguments = arguments.replace("$(AS_ROOT)", "--allow-root")
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", *shlex.split(arguments)],
        cwd=folder,
        env=env,
        stdout=log,
        stderr=log,
    )
    try:
        for _ in range(600):
            at = re.search(
                r"http://(?:localhost|127\.0\.0\.1):(\d+)/", (folder / "log").read_text()
            )
            if at:
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)

        def ask(path, method="GET", body=None):
            request = urllib.request.Request(
                f"http://127.0.0.1:{at[1]}/{path}",
                json.dumps(body).encode() if body is not None else None,
                {"Authorization": f"token {secret}", "Content-Type": "application/json"},
                method=method,
            )
            with urllib.request.urlopen(request, timeout=60) as r:
                return json.loads(r.read())

        ask.folder, ask.address = (
            folder,
            f"http://127.0.0.1:{at[1]}/lab/tree/nbs/index.ipynb?token={secret}",
        )
        yield ask
    finally:
        kernels = psutil.Process(server.pid).children(
            recursive=True
        )  # asked to shut down, one that is still starting takes half a minute
        server.kill()
        server.wait()
        log.close()
        for kernel in kernels:
            with contextlib.suppress(psutil.NoSuchProcess):
                kernel.kill()


def test_lab_opens_trusted_and_saves_byte_for_byte(lab):
    paths = sorted(p.relative_to(lab.folder) for p in (lab.folder / "nbs").rglob("*.ipynb"))
    assert len(paths) > 40
    for path in paths:
        before, model = (
            (lab.folder / path).read_bytes(),
            lab(f"api/contents/{path}?type=notebook&content=1"),
        )
        cells = [c for c in model["content"]["cells"] if c["cell_type"] == "code"]
        assert all(c["metadata"].get("trusted") for c in cells), f"{path}: not trusted"
        for n, c in enumerate(cells):
            c["execution_count"] = n + 1  # as if it had been run
        model["content"]["metadata"]["language_info"] = {"name": "python", "version": "3.99"}
        lab(
            f"api/contents/{path}",
            "PUT",
            dict(type="notebook", format="json", content=model["content"]),
        )
        assert (lab.folder / path).read_bytes() == before, (
            f"{path}: opening and saving it changed the file"
        )


def test_lab_shows_a_notebook_and_asks_nothing_of_the_network(lab, browser):
    context = browser.new_context(viewport=dict(width=1280, height=900))
    page, asked = context.new_page(), []
    page.on("request", lambda r: asked.append(r.url))
    page.goto(lab.address)
    page.wait_for_selector(".jp-NotebookPanel .jp-RenderedMarkdown h1", timeout=120_000)
    page.wait_for_selector(".jp-OutputArea-output", timeout=60_000)
    assert "INTERLACE" in page.inner_text(".jp-NotebookPanel .jp-RenderedMarkdown h1")
    assert not [
        u
        for u in asked
        if not u.startswith((lab.address.split("/lab/")[0], "data:", "blob:", "ws://127.0.0.1"))
    ]
    laid_out = "output => getComputedStyle(output).wordBreak"  # lines break between words
    assert page.eval_on_selector(".jp-OutputArea-output pre", laid_out) == "normal"
    assert not page.locator(".jp-Dialog").count(), page.inner_text(".jp-Dialog")
    assert not page.locator(".Toastify__toast").count(), page.inner_text(".Toastify__toast")
    page.wait_for_selector(".jp-RenderedMarkdown img")
    lost = "images => images.filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
    assert page.eval_on_selector_all(".jp-RenderedMarkdown img", lost) == []
    context.close()

"""Exported code equals the notebooks, README the index; records, profiles and atomic writing."""

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

from interlace.core.errors import BadInput
from interlace.core.files import finished, read_json, read_kind, write_json
from interlace.core.profiles import load_profile, profiles
from interlace.core.provenance import fingerprint
from interlace.reproduction.pipeline import code_hash, code_of, stages

NOTEBOOKS = sorted(
    p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
CITATION = runpy.run_path(str(ROOT / "docs" / "citation.py"))
LIBRARY = [p for p in NOTEBOOKS if "paper" not in p.parts]
PACKAGES = (
    "core",
    "data",
    "method",
    "baselines",
    "models",
    "nano",
    "evaluation",
    "reproduction",
    "cli",
)  # each imports only from those before it


def test_exported_code_is_what_the_notebooks_say(tmp_path):
    "Export into an empty package, so that a module without a notebook would show up too"
    shutil.copytree(
        ROOT / "nbs", tmp_path / "nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    for n in ("pyproject.toml", "settings.ini"):
        shutil.copy(ROOT / n, tmp_path / n)
    (tmp_path / "interlace").mkdir()
    shutil.copy(ROOT / "interlace" / "__init__.py", tmp_path / "interlace")
    subprocess.run(
        ["nbdev-export"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        env=os.environ | {"PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"},
    )
    here, fresh = (
        {
            p.relative_to(d).as_posix(): p.read_text()
            for p in (d / "interlace").rglob("*.py")
            if p.parent.name != "testing"  # written by hand
        }
        for d in (ROOT, tmp_path)
    )
    assert sorted(here) == sorted(fresh)
    for name in here:
        assert here[name] == fresh[name], f"{name} differs from its notebook; run nbdev-export"


def _chapters():
    "Module -> (position of its package, name of its notebook)"
    found = {}
    for path in LIBRARY:
        if module := re.search(r"default_exp ([\w.]+)", path.read_text()):
            found[f"interlace.{module[1]}"] = (PACKAGES.index(module[1].split(".")[0]), path.name)
    return found


def _imported(module):
    "The modules of the library that a module's code imports, wherever the import is"
    tree = ast.parse((ROOT / Path(*module.split("."))).with_suffix(".py").read_text())
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)):
        above = module.split(".")[: -node.level] if node.level else []
        yield ".".join([*above, *filter(None, [node.module])])


def test_a_module_imports_only_what_lies_below_it():
    order, count = _chapters(), 0
    for module, place in order.items():
        for other in _imported(module):
            if other.startswith("interlace.") and not other.startswith("interlace.testing"):
                count += 1
                assert order[other] < place, f"{module} imports {other}"
    assert len(order) > 20 and count > 80


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_notebooks_are_clean(path):
    nb = json.loads(path.read_text())
    for c in nb["cells"]:
        assert set(c["metadata"]) <= {"tags"}
        if c["cell_type"] == "code":
            assert c["execution_count"] is None
            text = json.dumps(c["outputs"])
            assert (
                "/work" not in text
                and "/tmp/" not in text
                and "/root" not in text
                and '"ename"' not in text
            )


def test_library_notebooks_carry_outputs():
    for p in LIBRARY:
        assert any(c.get("outputs") for c in json.loads(p.read_text())["cells"]), p.name


def in_any_order(parameters):
    return {k: sorted(v) if isinstance(v, list) else v for k, v in parameters.items()}


def test_papermill_parameters_match_the_run_matrix():
    """Every stage passes exactly the parameters of its notebook's `parameters` cell

    The defaults are those of the smoke profile, and of the published run for figures and tables.
    """
    for s in [*stages(load_profile("smoke")), *stages(load_profile("nano"))]:
        nb = json.loads((ROOT / "nbs" / "paper" / f"{s.notebook}.ipynb").read_text())
        cell = next(c for c in nb["cells"] if "parameters" in c["metadata"].get("tags", []))
        defaults = {}
        exec("".join(cell["source"]), defaults)
        defaults = {k: v for k, v in defaults.items() if not k.startswith("__")}
        assert set(s.parameters) == set(defaults), s.name
        shows = "smoke" if s.notebook.startswith("stages/") else "nano"
        one_of_many = s.notebook in ("stages/train", "stages/evaluate")
        of_profile = any(f"{shows}/" in o for o in s.outputs)
        if of_profile and (not one_of_many or s.name.removeprefix("train-") == "interlace-25"):
            assert in_any_order(defaults) == in_any_order(s.parameters), s.name


def test_readme_is_the_index():
    done = subprocess.run(
        [sys.executable, ROOT / "nbs" / "readme.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_links_in_the_readme_lead_to_files():
    text = (ROOT / "README.md").read_text()
    files = re.findall(r"\]\(([^)#:]+)[)#]", text)
    assert len(files) > 5 and not [f for f in files if not (ROOT / f).exists()]


def test_a_stage_depends_on_the_code_it_imports():
    assert "interlace/method/selection.py" in code_of(
        "stages/plans"
    ) and "interlace/method/finetuning.py" not in code_of("stages/plans")
    assert "interlace/method/selection.py" in code_of("figures/figure4")  # through records
    assert (
        "interlace/method/finetuning.py" in code_of("stages/train")
        and "interlace/evaluation/harness.py" not in code_of("stages/train")
        and "interlace/reproduction/pipeline.py" not in code_of("stages/evaluate")
    )


def test_only_the_code_of_a_notebook_repeats_its_stage(tmp_path, monkeypatch):
    "What JupyterLab stores when a reader runs it, its prose and its defaults do not"
    monkeypatch.setenv("INTERLACE_ROOT", str(tmp_path))
    path = tmp_path / "nbs" / "paper" / "stages" / "one.ipynb"
    path.parent.mkdir(parents=True)

    def hash_of(prose="Why", default="n = 1", code="print(n)", outputs=()):
        v4 = nbformat.v4
        cells = [v4.new_markdown_cell(prose), v4.new_code_cell(default), v4.new_code_cell(code)]
        cells[1].metadata["tags"], cells[2].outputs = ["parameters"], list(outputs)
        nbformat.write(v4.new_notebook(cells=cells), path)
        return code_hash.__wrapped__("stages/one")

    first = hash_of()
    printed = nbformat.v4.new_output("stream", text="1")
    assert first == hash_of(prose="What") == hash_of(default="n = 2") == hash_of(outputs=[printed])
    assert first != hash_of(code="print(n + 1)")


def test_an_explanation_in_the_library_repeats_no_stage(tmp_path, monkeypatch):
    "Comments, docstrings and layout do not count; a default value and a comparison do"
    monkeypatch.setenv("INTERLACE_ROOT", str(tmp_path))
    notebook = tmp_path / "nbs" / "paper" / "stages" / "one.ipynb"
    library = tmp_path / "interlace" / "core" / "mine.py"
    for path in (notebook, library):
        path.parent.mkdir(parents=True)
    cell = nbformat.v4.new_code_cell("from interlace.core.mine import f")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), notebook)

    def hash_of(library_code):
        library.write_text(library_code)
        return code_hash.__wrapped__("stages/one")

    first = hash_of("def f(x=1):\n    return x < 2\n")
    for same in (
        'def f(x=1):\n    "Why"\n    return x < 2\n',
        '"""Of the file"""\n\n\ndef f(\n    x=1,  # a number\n):\n    return x < 2  # so\n',
    ):
        assert hash_of(same) == first
    for other in (
        "def f(x=2):\n    return x < 2\n",
        "def f(x=1):\n    return x <= 2\n",
        "def f(x=1):\n    'a'\n    'b'\n    return x < 2\n",
    ):
        assert hash_of(other) != first


@pytest.mark.parametrize("notebook", ["stages/train", "stages/evaluate", "tables/comparison"])
def test_the_code_of_a_stage_is_complete(notebook):
    "Every library module that a notebook's imports load is an input of its stage"
    cells = [
        c
        for c in nbformat.read(ROOT / "nbs" / "paper" / f"{notebook}.ipynb", 4).cells
        if c.cell_type == "code"
    ]
    top = [node for c in cells for node in ast.parse(c.source).body]
    lines = [ast.unparse(n) for n in top if isinstance(n, (ast.Import, ast.ImportFrom))]
    shown = "print(*(m for m in sys.modules if m.startswith('interlace.')))"
    code = "\n".join(["import sys", *lines, shown])
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    loaded = {m.replace(".", "/") + ".py" for m in out}
    assert {f for f in loaded if (ROOT / f).is_file()} <= set(code_of(notebook)) and loaded


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.relative_to(ROOT / "nbs").as_posix())
def test_the_comment_of_a_parameter_is_where_docments_reads_it(path):
    "On the parameter's only line or above it: of an annotation in several lines it is lost"
    for c in nbformat.read(path, 4).cells:
        if c.cell_type != "code" or not c.source.startswith("#| export"):
            continue
        lines = c.source.splitlines()
        for node in ast.walk(ast.parse(c.source)):
            for arg in (
                node.args.args + node.args.kwonlyargs
                if hasattr(node, "args") and isinstance(node.args, ast.arguments)
                else ()
            ):
                if arg.end_lineno > arg.lineno:
                    assert "#" not in lines[arg.end_lineno - 1], f"{path.name}: {arg.arg}"


def test_profiles(tmp_path):
    assert (
        profiles()[:2] == ["nano", "smoke"]
        and load_profile("smoke")["models"] == ["nano-l"]
        and isinstance(load_profile("nano")["learning_rate"], float)
    )
    ini = tmp_path / "settings.ini"
    for text, why in (
        ("[a; touch hacked]\n", "letters, digits"),
        ("[../a]\n", "letters, digits"),
        ("[a]\nextends = b\n[b]\nextends = a\n", "extends itself"),
        ("[a\n", "settings.ini"),
        ("[a]\nratios = 0.1 -3\n", "ratios -3"),
        ("[a]\nextends = z\n", "no profile 'z'"),
    ):
        ini.write_text(text)
        with pytest.raises(BadInput, match=why):
            load_profile("a", ini)


def test_a_settings_file_in_another_encoding_and_a_profile_without_a_name_are_refused(tmp_path):
    ini = tmp_path / "settings.ini"
    ini.write_bytes("[a]\nmodels = caf\u00e9\n".encode("latin-1"))
    with pytest.raises(BadInput, match="not a text in UTF-8.*save it as one"):
        load_profile("a", ini)
    with pytest.raises(BadInput, match="no profile ''; there are nano"):
        load_profile("")


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, "{"])
def test_json_that_cannot_be_decoded_is_named(text, tmp_path):
    "Nested too deeply, a number of too many digits, and a file cut off"
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadInput, match="a.json: not valid JSON.*make it again"):
        read_json(tmp_path / "a.json")
    with pytest.raises(BadInput, match="not valid JSON"):
        read_kind(tmp_path / "a.json", "plan", dict, "make a plan")


def test_all_or_nothing(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1})
    with pytest.raises(RuntimeError), finished(tmp_path / "a.json") as part:
        part.write_text("half")
        raise RuntimeError
    with pytest.raises(RuntimeError), finished(tmp_path / "folder") as part:
        part.mkdir()
        (part / "f").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and read_json(
        tmp_path / "a.json"
    ) == {"x": 1}
    with finished(tmp_path / "folder") as part:
        part.mkdir()
        (part / "new").write_text("")
    with finished(tmp_path / "folder") as part:
        part.mkdir()
        (part / "newer").write_text("")
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["newer"]


def test_fingerprints_follow_content(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    before = fingerprint(tmp_path)
    assert before == fingerprint(tmp_path)
    (tmp_path / "a").write_text("2")
    assert fingerprint(tmp_path) != before


def test_nothing_names_a_place_of_its_making():
    "No committed file contains an absolute path that tells where it was written"
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert len(files) > 40
    for f in files:
        p = ROOT / f
        if (
            p.suffix
            in (
                ".py",
                ".ipynb",
                ".md",
                ".toml",
                ".ini",
                ".json",
                ".cff",
                ".tex",
                ".csv",
                "",
            )
            and p.is_file()
            and f != "tests/test_project.py"
        ):
            assert not re.search(r"/(work|root|home|tmp)/[a-z]", p.read_text(errors="ignore")), f


@pytest.mark.parametrize(
    "line, why",
    [
        ("ratio = 0.25", "no setting 'ratio'; did you mean ratios?"),
        ("ratios = 1.5", "ratios 1.5 is not in [0, 0.5]"),
        ("ratios = 0.25 0.25", "give each value once"),
        ("ratios =", "at least one"),
        ("questions = 2.5", "questions 2.5: it must be a whole number"),
        ("questions = -1", "questions -1 is not at least 0"),
        ("bfloat16 = maybe", "bfloat16 maybe: it must be yes, no or auto"),
        ("dtype = float8", "dtype float8 is not one of"),
        (
            "data = finevision",
            (
                "data finevision is not nano, topics, wikitext-2, a folder, or on a hub:"
                " owner/name, owner/name@revision"
            ),
        ),
        ("models =", "at least one"),
        ("learning_rate = fast", "learning_rate fast: it must be a number"),
        ("learning_rate = inf", "learning_rate inf: it must be a finite number"),
        ("models = a/$(touch${IFS}x)", "is not a nano model, a folder or a hub id"),
        ("models = a/%(x)s", "is not a nano model, a folder or a hub id"),
    ],
)
def test_wrong_settings(line, why, tmp_path):
    file = tmp_path / "settings.ini"
    file.write_text((ROOT / "settings.ini").read_text() + f"\n[wrong]\nextends = smoke\n{line}\n")
    with pytest.raises(BadInput) as e:
        load_profile("wrong", file)
    assert "settings.ini, profile 'wrong': " in str(e.value) and why in str(e.value)


def test_a_profile_says_everything(tmp_path):
    (tmp_path / "settings.ini").write_text("[alone]\nmodels = nano-l\n")
    with pytest.raises(BadInput, match="'dtype' is not set"):
        load_profile("alone", tmp_path / "settings.ini")


@pytest.mark.parametrize("name", sorted(CITATION["FILES"]))
def test_metadata_for_archives_says_what_the_citation_says(name):
    "make citation writes them; authors and the paper are those of CITATION.cff"
    assert (ROOT / name).read_text() == CITATION["text"](name)
    for word in (CITATION["codemeta"]()["version"], "INTERLACE Companion", "2511.19676"):
        assert word in (ROOT / name).read_text()


def test_records_are_strict_json(tmp_path):
    "JSON has no NaN: other readers than Python's stop at it"
    write_json(tmp_path / "a.json", dict(a=float("nan"), b=[1.5, float("inf"), (2, None)]))
    assert json.loads((tmp_path / "a.json").read_text()) == dict(a=None, b=[1.5, None, [2, None]])


def _oldest_python():
    "The oldest version of Python that pyproject.toml allows, as (3, 11)"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return tuple(map(int, project["requires-python"].removeprefix(">=").split(".")))


def _copied(line):
    "The files that a COPY of a Dockerfile takes from the clone"
    return [word for word in line.split()[1:-1] if not word.startswith("--")]


def test_the_image_is_made_of_files_that_exist():
    "It has what `make setup` reads, in an environment that the Makefile knows"
    text = (ROOT / "Dockerfile").read_text()
    copied = [f for line in text.splitlines() if line.startswith("COPY") for f in _copied(line)]
    assert all((ROOT / f).exists() for f in copied)
    makefile = (ROOT / "Makefile").read_text()
    needed = re.search(r"^\$\(VENV\)/installed: (.*)", makefile, re.M)[1].split()
    assert set(needed) <= set(copied) and "RUN make setup" in text
    assert "INTERLACE_VENV=/opt/venv" in text and "$(INTERLACE_VENV)" in makefile
    # the CUDA base is of Ubuntu 24.04, whose Python is 3.12
    assert tuple(map(int, re.search(r"ARG PYTHON=(\S+)", text)[1].split("."))) >= _oldest_python()


@pytest.mark.parametrize("folder, device", [(".", "cpu"), ("cuda", "cuda")])
def test_development_containers_build_the_image(folder, device):
    file = ROOT / ".devcontainer" / folder / "devcontainer.json"
    container = json.loads(file.read_text())
    text, build = (ROOT / "Dockerfile").read_text(), container["build"]
    assert (file.parent / build["context"]).resolve() == ROOT
    assert (file.parent / build["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert build["args"] == dict(DEVICE=device) and f" AS base-{device}\n" in text
    assert f"USER {container['remoteUser']}\n" in text
    (python,) = (v for k, v in container["customizations"]["vscode"]["settings"].items())
    assert Path(python).parent.as_posix() in re.search(r"PATH=(\S+)", text)[1].split(":")


def test_binder_installs_the_lock():
    folder = ROOT / ".binder"
    (lock,) = re.findall(r"(?m)^-r (.*)$", (folder / "requirements.txt").read_text())
    assert (folder / lock).resolve() == ROOT / "requirements.lock"
    version = (folder / "runtime.txt").read_text().strip().removeprefix("python-")
    assert tuple(map(int, version.split("."))) >= _oldest_python()
    script = folder / "postBuild"
    assert os.access(script, os.X_OK)  # Binder runs it only then
    subprocess.run(["bash", "-n", script], check=True)
    for file in re.findall(r"\S+\.lock|lab/\S+", script.read_text()):
        assert (ROOT / file).is_file(), file

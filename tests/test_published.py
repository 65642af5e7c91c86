"""What others read of this project: crates, the list of packages, the CODECHECK manifest.

The reference programs check them, offline: `make validate` installs these and runs this file.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import zipfile
from datetime import date
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, command

from interlace.core.files import read_json, write_json
from interlace.core.provenance import fingerprint

pytest.importorskip("rocrate", reason="a crate needs the extra `docs`: pip install -e .[docs]")
from interlace.reproduction.crate import write_crate

SBOM = runpy.run_path(str(ROOT / "docs" / "sbom.py"))
CODECHECK = runpy.run_path(str(ROOT / "docs" / "codecheck.py"))
# what the profile recommends and no record knows
UNKNOWN = {
    "The Action SHOULD have an endTime in ISO 8601 format",
    "The Action SHOULD have an agent that is a Person or Organization",
    "The Application SHOULD have a url",
    "The SoftwareApplication id SHOULD be an absolute URI",
    "The Main Workflow SHOULD comply with Bioschemas ComputationalWorkflow profile version 1.0"
    " or later",
    "The `publisher` property of a `Root Data Entity` SHOULD be an `Organization`",
    "The organization SHOULD have a URL.",
}


@pytest.fixture(scope="session")
def check():
    "Run tests/checkers.py in its environment"
    places = (ROOT / ".venv" / "checkers", Path(os.environ.get("INTERLACE_CHECKERS", "-")))
    python = next((p / "bin" / "python" for p in places if (p / "bin" / "python").exists()), None)
    if not python:
        pytest.skip("not here: the programs that validate crates and the SBOM (make validate)")
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def run(kind, file):
        command = [python, ROOT / "tests" / "checkers.py", kind, file]
        return subprocess.run(command, capture_output=True, text=True, env=env)

    return run


@pytest.fixture(scope="module")
def crate(tmp_path_factory):
    return write_crate("nano", tmp_path_factory.mktemp("crate") / "nano.crate.zip")


def described(crate):
    "The entities of a crate by identifier"
    with zipfile.ZipFile(crate) as archive:
        graph = json.loads(archive.read("ro-crate-metadata.json"))["@graph"]
    return {entity["@id"]: entity for entity in graph}


def linked(entity, role):
    links = entity.get(role, [])
    return [link["@id"] for link in (links if isinstance(links, list) else [links])]


def test_the_validator_finds_no_broken_requirement(crate, check):
    "What it recommends in addition is what no record knows"
    done = check("crate", crate)
    assert done.returncode == 0 and "nano.crate.zip: valid" in done.stdout, done.stdout
    found = re.findall(r"^recommended \(\d+\): (.*)", done.stdout, re.M)
    assert found and set(found) <= UNKNOWN


@pytest.mark.parametrize("entity, missing", [("./", "license"), ("#action-table1", "instrument")])
def test_the_validator_refuses_a_broken_crate(crate, check, tmp_path, entity, missing):
    "So it does read the description, also without a network"
    with zipfile.ZipFile(crate) as archive:
        archive.extractall(tmp_path / "broken")
    path = tmp_path / "broken" / "ro-crate-metadata.json"
    content = json.loads(path.read_text())
    next(e for e in content["@graph"] if e["@id"] == entity).pop(missing)
    path.write_text(json.dumps(content))
    assert check("crate", tmp_path / "broken").returncode == 1


def test_a_crate_holds_what_it_describes(crate):
    "Each file, with its fingerprint; each link leads to an entity"
    entities = described(crate)
    with zipfile.ZipFile(crate) as archive:
        names = set(archive.namelist()) - {"ro-crate-metadata.json", "ro-crate-preview.html"}
        for name in names - {"nbs/paper/Snakefile"}:
            assert entities[name]["identifier"] == fingerprint(archive.read(name)), name
    files = {i for i, e in entities.items() if "File" in e["@type"]}
    assert files == names and len(names) > 100
    text = json.dumps(list(entities.values()))
    outside = {i for i in re.findall(r'"@id": "([^"]+)"', text) if i not in entities}
    assert all(i.startswith("https://") for i in outside), outside


def test_actions_say_what_the_records_say(crate):
    "Inputs by content, commit, versions and results, and nothing about when or who"
    entities = described(crate)
    records = sorted(p for k in ("figures", "tables") for p in (ROOT / k / "nano").glob("*.json"))
    for path in records:
        record, action = read_json(path), entities[f"#action-{path.stem}"]
        read = [entities[i] for i in linked(action, "object")]
        marks = {e["identifier"] for e in read if e["@type"] != "PropertyValue"}
        assert marks == set(record["inputs"].values()), path.name
        assert path.relative_to(ROOT).as_posix() in linked(action, "result")
        software = next(
            entities[i] for i in linked(action, "instrument") if i.startswith("#software")
        )
        assert record["provenance"]["commit"] in software["softwareVersion"]
        versions = {
            entities[i]["name"]: entities[i]["softwareVersion"]
            for i in linked(software, "softwareRequirements")
        }
        assert versions == {"Python": record["provenance"]["python"]} | {
            k: v for k, v in record["provenance"]["versions"].items() if v
        }
    trained = [e for i, e in entities.items() if i.startswith("#action-train-")]
    assert len({linked(e, "result")[0] for e in trained}) == len(trained) > 20
    for entity in entities.values():
        assert not {"startTime", "endTime", "agent"} & set(entity)


def test_the_same_results_give_the_same_bytes(crate, tmp_path):
    assert write_crate("nano", tmp_path / "again.zip").read_bytes() == crate.read_bytes()


@pytest.fixture
def project(tmp_path, monkeypatch):
    "A project that is no repository, with one table, whose record is not published"
    root = tmp_path / "project"
    for name in ("settings.ini", "requirements.lock", "CITATION.cff", "LICENSE"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    skipped = shutil.ignore_patterns(".ipynb_checkpoints")
    shutil.copytree(ROOT / "nbs" / "paper", root / "nbs" / "paper", ignore=skipped)
    (root / "interlace" / "reproduction").mkdir(parents=True)
    shutil.copy(ROOT / "interlace/reproduction/pipeline.py", root / "interlace/reproduction")
    (root / "tables" / "nano").mkdir(parents=True)
    for file in (ROOT / "tables" / "nano").glob("table5.*"):
        shutil.copy(file, root / "tables" / "nano")
    monkeypatch.setenv("INTERLACE_ROOT", str(root))
    return root


def test_content_that_the_crate_lacks_is_named_and_not_linked(project, tmp_path):
    "A record that was not published, and a file that has been made again since"
    record = read_json(project / "tables/nano/table5.json")
    record["inputs"]["settings.ini"] = "0123456789abcdef"
    write_json(project / "tables/nano/table5.json", record)
    entities = described(write_crate("nano", tmp_path / "one.zip"))
    read = [entities[i] for i in linked(entities["#action-table5"], "object")]
    lacking = {e["name"]: e for e in read if e.get("description") == "Not in this crate"}
    assert {n: e["identifier"] for n, e in lacking.items()} == record["inputs"]
    assert entities["./"]["datePublished"] == date.today().isoformat()


def test_a_crate_of_records_without_git_is_valid(project, tmp_path, check):
    record = read_json(project / "tables/nano/table5.json")
    record["provenance"] |= dict(commit=None, modified=None, extensions={"mine.py": "0123"})
    write_json(project / "tables/nano/table5.json", record)
    done = check("crate", write_crate("nano", tmp_path / "one.zip"))
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "profile, why",
    [("nanoo", "no profile 'nanoo'"), ("qwen3-vl-8b", "no results there; make them with")],
)
def test_a_crate_of_nothing_is_refused(profile, why, tmp_path):
    done = command("crate", "--profile", profile, "--out", tmp_path / "x.zip")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and why in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_text_profile_has_a_crate(tmp_path):
    "The manifest of its prose names the source by a word, where others describe their files"
    entities = described(write_crate("smollm2", tmp_path / "smollm2.zip"))
    assert {"tables/smollm2/methods.csv", "runs/smollm2/data/manifest.json"} <= set(entities)


def test_the_command_writes_the_crate(crate, tmp_path):
    done = command("crate", "--profile", "nano", "--out", tmp_path / "nano.zip")
    assert done.returncode == 0 and "nano.zip: " in done.stdout
    assert (tmp_path / "nano.zip").read_bytes() == crate.read_bytes()
    again = command("crate", "--profile", "nano", "--out", tmp_path / "nano.zip")
    assert again.returncode == 2 and "--overwrite" in again.stderr


@pytest.mark.parametrize("lock", sorted(ROOT.glob("requirements*.lock")), ids=lambda p: p.stem)
def test_every_locked_package_has_hashes(lock):
    "pip refuses a lock of which a line has none"
    entries = re.split(r"^(?=[A-Za-z0-9])", lock.read_text(), flags=re.M)[1:]
    for entry in entries or [lock.read_text()]:
        assert re.match(r"[\w.-]+==\S+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry


def test_the_sbom_is_that_of_the_locks(check):
    "make lock and make sbom write it"
    text = (ROOT / SBOM["FILE"]).read_text()
    assert text == SBOM["text"]()
    bill = json.loads(text)
    listed = {(c["name"], c["version"]) for c in bill["components"]}
    locked = "\n".join((ROOT / name).read_text() for name in SBOM["LOCKS"])
    assert listed == set(re.findall(r"^([\w.-]+)==([^\s;]+)", locked, re.M)) and len(listed) > 300
    needed_by_us = next(d for d in bill["dependencies"] if d["ref"].startswith("interlace"))
    assert any(ref.startswith("pkg:pypi/torch@") for ref in needed_by_us["dependsOn"])
    done = check("sbom", ROOT / SBOM["FILE"])
    assert done.returncode == 0, done.stdout


def test_the_codecheck_manifest_lists_files_that_are_there():
    "make citation writes it"
    text = (ROOT / CODECHECK["FILE"]).read_text()
    assert text == CODECHECK["text"]() and "\n---\n" in text
    manifest = yaml.safe_load(text)
    files = [entry["file"] for entry in manifest["manifest"]]
    assert len(files) > 10 and all((ROOT / f).is_file() for f in files)
    assert not {"codechecker", "report", "certificate", "check_time"} & set(manifest)

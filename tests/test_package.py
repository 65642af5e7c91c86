"""The package as a release has it, installed outside a clone: what works, and what is refused."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

BUILT_FROM = ("interlace", "pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "A folder with the installed wheel, built from the source distribution as for a release"
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("made")
    for name in (*BUILT_FROM, "settings.ini"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)

    def run(*command):
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run("build", "--no-isolation", "--outdir", str(made), str(source))
    (wheel,) = made.glob("*.whl")
    options = ("--no-deps", "--no-index", "--no-compile", "--quiet")
    run("pip", "install", *options, "--target", str(made / "site"), str(wheel))
    return made / "site"


@pytest.fixture
def installed(site, tmp_path):
    "The console command of the installed package, in an empty folder"

    def run(*args):
        env = {k: v for k, v in os.environ.items() if k != "INTERLACE_ROOT"}
        command = [sys.executable, site / "bin" / "interlace", *args]
        env["PYTHONPATH"] = str(site)  # before the clone that the environment has installed
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
        assert not any(tmp_path.iterdir())
        return done

    return run


def test_the_package_carries_the_profiles(site, installed):
    assert (site / "interlace" / "settings.ini").read_text() == (ROOT / "settings.ini").read_text()
    listed = installed("profiles")
    assert listed.returncode == 0, listed.stderr
    for name in ("nano", "smollm2", "qwen3-vl-8b", "qwen3-vl-8b-lite"):
        assert f"{name}: " in listed.stdout
    assert "reproduce" in installed("--help").stdout


def test_a_run_is_planned_outside_a_clone(installed):
    planned = installed("plan-run", "--profile", "qwen3-vl-8b")
    assert planned.returncode == 0, planned.stderr
    assert "| Qwen3-VL-8B-Instruct | 25% | 27 |" in planned.stdout


def test_a_run_outside_a_clone_says_what_is_missing(installed):
    refused = installed("reproduce")
    assert refused.returncode == 2 and refused.stdout == ""
    assert refused.stderr.count("\n") == 1 and "git clone" in refused.stderr
    assert "Traceback" not in refused.stderr

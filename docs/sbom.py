"""Writes sbom.cdx.json, the software bill of materials, from the lock files: `make sbom`.

It lists every package of the environment in CycloneDX's form, with the packages that need it. The
lock files hold the hashes. The same locks give the same bytes: no time, no random serial number.
"""

import json
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
FILE = "sbom.cdx.json"
LOCKS = ("requirements.lock", "requirements-smollm2.lock")
PROJECT = "interlace-companion"
PINNED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;\\]+)(?: ; ([^\\]+?))?(?: \\)?$")
REASON = re.compile(
    r"    #(?: via|  ) +([A-Za-z0-9][A-Za-z0-9._-]*)"
)  # a package that needs the one above


def packages(root=ROOT):
    "The locked packages: (name, version, marker or None, names of the packages that need it)"
    found = []
    for line in "\n".join((root / lock).read_text() for lock in LOCKS).splitlines():
        if pinned := PINNED.match(line):
            found.append((*pinned.groups(), []))
        elif reason := REASON.match(line):
            found[-1][-1].append(reason[1])
    return found


def component(name, version, marker):
    "A package as CycloneDX describes it; `marker` says where it is installed"
    purl = f"pkg:pypi/{name}@{version}"
    found = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    condition = {"name": "interlace:environment-marker", "value": marker}
    return found | ({"properties": [condition]} if marker else {})


def dependencies(found, root_ref):
    "Who needs whom, by reference; a package with several versions is needed in all of them"
    refs = {}
    for name, version, _, _ in found:
        refs.setdefault(name, []).append(f"pkg:pypi/{name}@{version}")
    needs = {root_ref: set()} | {ref: set() for mine in refs.values() for ref in mine}
    for name, version, _, needed_by in found:
        for other in needed_by or [PROJECT]:
            for ref in [root_ref] if other == PROJECT else refs[other]:
                needs[ref].add(f"pkg:pypi/{name}@{version}")
    return [
        {"ref": ref, **({"dependsOn": sorted(those)} if those else {})}
        for ref, those in sorted(needs.items())
    ]


def text(root=ROOT):
    "The text of the bill"
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    version = str(yaml.safe_load((root / "CITATION.cff").read_text())["version"])
    found, ref = packages(root), f"{PROJECT}@{version}"
    main = {
        "type": "application",
        "bom-ref": ref,
        "name": PROJECT,
        "version": version,
        "description": project["description"],
        "licenses": [{"license": {"id": project["license"]}}],
    }
    bill = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": main},
        "components": [component(*package[:3]) for package in found],
        "dependencies": dependencies(found, ref),
    }
    return json.dumps(bill, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    (ROOT / FILE).write_text(text())

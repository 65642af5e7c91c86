"""Writes codemeta.json and .zenodo.json from CITATION.cff and pyproject.toml: `make citation`.

Archives and software indexes read these two files; what they say is written in one place only.
"""

import json
import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def _cited(root):
    "(CITATION.cff, the project table of pyproject.toml), decoded"
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return yaml.safe_load((root / "CITATION.cff").read_text()), project


def _paper_id(cff):
    "The paper's arXiv identifier, without its scheme"
    (identifier,) = cff["preferred-citation"]["identifiers"]
    return identifier["value"].removeprefix("arXiv:")


def codemeta(root=ROOT):
    "The content of codemeta.json (CodeMeta 3.0)"
    cff, project = _cited(root)
    paper = cff["preferred-citation"]
    people = [
        {"@type": "Person", "givenName": a["given-names"], "familyName": a["family-names"]}
        for a in paper["authors"]
    ]
    return {
        "@context": "https://w3id.org/codemeta/3.0",
        "@type": "SoftwareSourceCode",
        "name": cff["title"],
        "description": project["description"],
        "version": str(cff["version"]),
        "license": f"https://spdx.org/licenses/{cff['license']}",
        "author": [{"@type": "Organization", "name": a["name"]} for a in cff["authors"]],
        "keywords": cff["keywords"],
        "programmingLanguage": "Python",
        "runtimePlatform": f"Python {project['requires-python'].lstrip('>=')} or newer",
        "softwareRequirements": [re.split(r"[<>=]", d)[0] for d in project["dependencies"]],
        "referencePublication": {
            "@type": "ScholarlyArticle",
            "name": paper["title"],
            "author": people,
            "datePublished": str(paper["year"]),
            "identifier": f"https://arxiv.org/abs/{_paper_id(cff)}",
            "isPartOf": {"@type": "PublicationVolume", "name": paper["collection-title"]},
            "pageStart": str(paper["start"]),
            "pageEnd": str(paper["end"]),
        },
    }


def zenodo(root=ROOT):
    "The content of .zenodo.json"
    cff, project = _cited(root)
    return {
        "upload_type": "software",
        "title": cff["title"],
        "description": project["description"],
        "version": str(cff["version"]),
        "license": cff["license"],
        "creators": [{"name": a["name"]} for a in cff["authors"]],
        "keywords": cff["keywords"],
        "related_identifiers": [
            {
                "identifier": f"arXiv:{_paper_id(cff)}",
                "relation": "isSupplementTo",
                "resource_type": "publication-conferencepaper",
            }
        ],
    }


FILES = {"codemeta.json": codemeta, ".zenodo.json": zenodo}


def text(name, root=ROOT):
    "The text of one of `FILES`"
    return json.dumps(FILES[name](root), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in FILES:
        (ROOT / name).write_text(text(name))

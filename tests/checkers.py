"""Checks published files with the reference programs, offline; runs in .venv/checkers.

    checkers.py crate FILE    a crate: the RO-Crate validator, profile Provenance Run Crate
    checkers.py sbom FILE     a list of packages: CycloneDX's schema

Prints one line for each kind of finding, with its number; the status is 1 if a requirement is
broken.
"""

import io
import sys
import tempfile
from collections import Counter
from pathlib import Path

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


def fill_cache(path):
    "Put the context of RO-Crate 1.1, which comes with rocrate, where the validator looks for it"
    import rocrate
    from requests.adapters import HTTPAdapter
    from requests_cache import CachedSession
    from urllib3 import HTTPResponse

    file = Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld"

    class FromFile(HTTPAdapter):
        def send(self, request, **_):
            headers = {"Content-Type": "application/ld+json"}
            body = io.BytesIO(file.read_bytes())
            answer = HTTPResponse(body, headers=headers, status=200, preload_content=False)
            return self.build_response(request, answer)

    session = CachedSession(path, backend="sqlite")
    session.mount(CONTEXT, FromFile())
    assert session.get(CONTEXT).json()["@id"] == CONTEXT


def check_crate(file):
    "What the validator finds: (severity, message)"
    from rocrate_validator import models, services

    with tempfile.TemporaryDirectory() as d:
        fill_cache(f"{d}/cache")
        settings = services.ValidationSettings(
            rocrate_uri=file,
            profile_identifier="provenance-run-crate",
            requirement_severity=models.Severity.RECOMMENDED,
            offline=True,
            cache_path=f"{d}/cache",
        )
        issues = services.validate(settings).get_issues()
    return [(i.severity.name, i.message) for i in issues]


def check_sbom(file):
    "What CycloneDX's strict schema finds"
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(Path(file).read_text())
    return [("REQUIRED", str(error))] if error else []


def main(kind, file):
    found = dict(crate=check_crate, sbom=check_sbom)[kind](file)
    for (severity, message), n in sorted(Counter(found).items()):
        print(f"{severity.lower()} ({n}): {message}")
    broken = any(severity == "REQUIRED" for severity, _ in found)
    print(f"{Path(file).name}: {'not valid' if broken else 'valid'}")
    return int(broken)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("crate", "sbom"):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))

"""Everything that the notebooks' text refers to exists: chapters, equations, papers and names."""

import ast
import re
import sys

import nbformat
import pytest
from conftest import ROOT

pytest.importorskip("pybtex", reason="the site needs the extra `docs`: pip install -e .[docs]")
from pybtex.database import parse_file

NOTEBOOKS = sorted(
    p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)
PAGES = sorted((ROOT / "docs").glob("*.md"))
BIB = {e.fields["url"]: k for k, e in parse_file(ROOT / "docs" / "references.bib").entries.items()}


def prose(path):
    "Return the text of a notebook or page, without code"
    text = (
        path.read_text()
        if path.suffix == ".md"
        else "\n\n".join(
            c.source for c in nbformat.read(path, 4).cells if c.cell_type == "markdown"
        )
    )
    return re.sub(r"```.*?```", "", text, flags=re.S)


TEXT = {p: prose(p) for p in (*NOTEBOOKS, *PAGES)}
LINKS = [(p, url) for p, t in TEXT.items() for url in re.findall(r"\]\(([^)\s]+)\)", t)]


def test_every_paper_that_is_linked_is_in_the_bibliography_and_the_other_way_round():
    linked = {url for _, url in LINKS}
    assert not {u for u in linked if re.search(r"arxiv\.org|doi\.org", u)} - set(BIB)
    assert not set(BIB) - linked, "in references.bib, and cited nowhere"


def test_entries_say_who_what_when():
    for key, e in parse_file(ROOT / "docs" / "references.bib").entries.items():
        assert e.persons.get("author") and {"title", "year", "url"} <= set(e.fields), key
        assert "eprint" not in e.fields, f"{key}: the references would link it twice"
        if (number := e.fields.get("howpublished", "")).startswith("arXiv:"):
            assert e.fields["url"] == f"https://arxiv.org/abs/{number.removeprefix('arXiv:')}", key
        assert int(e.fields["year"]) >= 2000 or "doi" in e.fields, key


def test_chapters_and_equations_that_are_linked_are_there():
    for path, url in LINKS:
        if re.match(r"[a-z]+:", url) or path.parent.name == "docs":
            continue
        page, _, fragment = url.partition("#")
        target = (path.parent / page).resolve() if page else path
        assert target.exists(), f"{path.name}: {url}"
        if fragment.startswith("eq-"):
            assert f'<a id="{fragment}"></a>' in TEXT[target], f"{path.name}: {url}"


def test_chapters_are_called_by_a_link():
    found = [
        f"{p.name}: {m[0]}"
        for p, t in TEXT.items()
        if p.suffix == ".ipynb"
        for m in re.finditer(r"[Cc]hapter \d+|`nbs/\w+/\d\d_", t)
    ]
    assert not found


def test_one_title_and_no_jump_of_headings():
    for path in NOTEBOOKS:
        levels = [len(h) for h in re.findall(r"(?m)^(#+) ", TEXT[path])]
        assert levels[0] == 1 and levels.count(1) == 1, path.name
        assert all(b <= a + 1 for a, b in zip(levels, levels[1:], strict=False)), path.name


def test_pictures_have_alternative_texts():
    for path, text in TEXT.items():
        assert not re.search(r"!\[\s*\]\(", text), path.name


def test_names_of_the_library_that_prose_mentions_exist():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from sources import exported
    finally:
        sys.path.pop(0)
    import interlace

    names = exported()
    for path, text in TEXT.items():
        for name in re.findall(r"`(?:il|interlace)\.(\w+)(?:\([^`]*\))?`", text):
            assert (
                name in names
                or hasattr(interlace, name)
                or (ROOT / "interlace" / name).is_dir()
                or name in ("json", "cli")
            ), f"{path.name}: {name}"


# words that a native reader would stumble over, and what the field calls otherwise
STILTED = re.compile(
    r"\b(anew|one's own|beside|whoever|nobody|is got|asks of|lies? in|fates?|pictures?)\b"
)


def written(path):
    "What a notebook or page says: its text, and the docstrings and comments of its code"
    if path.suffix == ".md":
        yield path.read_text()
        return
    for c in nbformat.read(path, 4).cells:
        if c.cell_type == "markdown":
            yield c.source
        elif c.cell_type == "code":
            code = "\n".join(line for line in c.source.splitlines() if line[:1] not in "%!")
            kinds = (ast.FunctionDef, ast.ClassDef)
            for node in (n for n in ast.walk(ast.parse(code)) if isinstance(n, kinds)):
                yield ast.get_docstring(node) or ""
            yield from re.findall(r"#\s(.*)", code)


@pytest.mark.parametrize("path", [*NOTEBOOKS, *PAGES], ids=lambda p: p.stem)
def test_plain_idiomatic_words(path):
    said = " ".join(re.sub(r"`[^`]*`", "", text) for text in written(path))
    assert not STILTED.findall(said)

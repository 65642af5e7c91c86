"""Gather the site's sources (notebooks, artefacts, cards and pages) as MyST files in _docs/source.

Notebooks keep their text, code and stored outputs. Each exported name gets its signature where it
is defined. Names are linked to their definitions, papers to the bibliography, and figures, tables
and equations to their places.
"""

import ast
import csv
import importlib
import inspect
import json
import re
import shutil
import sys
from pathlib import Path

import nbformat
import yaml
from fastcore.docments import docments
from pybtex.database import parse_file

ROOT = Path(__file__).resolve().parents[1]
OUT = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_docs" / "source").resolve()
ARTEFACT = re.compile(r"(Figure|Table) (\d)")
GIVEN = dict(figure="Figure", table="Table")
# the part of the index notebook that the site shows (its heading and the next one); the rest has
# pages of its own
PART = (
    "The method in ten minutes",
    "Your own model",
)
# the packages in reading order
HOUSES = dict(
    method="Method",
    baselines="Baselines",
    models="Models",
    data="Data",
    nano="Nano",
    evaluation="Evaluation",
    reproduction="Reproduction",
    core="Core",
)
MODULES = set(importlib.import_module("interlace._modidx").d["syms"])
EMPTY = inspect.Parameter.empty
QUOTES = "'\""


# Names
# --------------------------------------------------------------------------------------------------


def exported():
    "Return the full name of every public name of the library, by each form that prose uses for it"
    syms = importlib.import_module("interlace._modidx").d["syms"]
    names = {}
    for module, inside in syms.items():
        short, depth = module.removeprefix("interlace."), len(module.split("."))
        public = set(importlib.import_module(module).__all__)
        full = {f"{module}.{n}" for n in public} | {
            n
            for n in inside
            if n.split(".")[depth] in public
            and not any(p.startswith("_") for p in n.split(".")[depth:])
        }
        names[module] = names[f"{module.replace('.', '/')}.py"] = module
        for n in sorted(full):
            own = n.removeprefix(module + ".")
            names[n] = names[own] = names[f"il.{own}"] = names[f"{short}.{own}"] = n
    return names


def split(name):
    "Split a full name into its module and the name's parts in that module"
    parts = name.split(".")
    depth = next(k for k in (3, 2) if ".".join(parts[:k]) in MODULES)
    return ".".join(parts[:depth]), parts[depth:]


def paper_notebook(name):
    "Return the path of a notebook that papermill runs, or None"
    return next((ROOT / "nbs" / "paper").glob(f"*/{name}.ipynb"), None)


def cell(text):
    "Return text that fits into one table cell"
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|")


class Links:
    "Turn the references in a piece of Markdown into links"

    def __init__(self, names, citations, equations, artefacts):
        self.names, self.citations, self.equations, self.artefacts = (
            names,
            citations,
            equations,
            artefacts,
        )
        self.token = re.compile(
            r"(?P<fence>^(?P<tick>`{3,}|:{3,}).*?^(?P=tick)\s*$)"
            r"|(?P<math>\$\$.+?\$\$(?P<label>\s*\(eq-[\w-]+\))?)"
            r"|(?P<code>(?<!`)`(?P<inner>[^`\n]+)`(?!`))"
            r"|(?P<image>!\[[^\]]*\]\([^)]*\))"
            r"|(?P<link>\[(?P<text>(?:`[^`]*`|\[[^\]]*\]|[^\[\]`])*)\]\((?P<url>[^)\s]+)\))"
            r"|(?P<artefact>(?<![\w/])(?:Figure|Table) \d(?!\d|\.\d))",
            re.S | re.M,
        )

    def __call__(self, text, at):
        "Return `text` of the page `at` with links"
        return self.token.sub(lambda m: self._one(m, at), text)

    def _one(self, m, at):  # noqa: C901, one branch for each kind of text that becomes a link
        up = "../" * at.count("/")
        if m["math"] and m["label"]:
            name = m["label"].strip().strip("()")
            body = m["math"][2 : m["math"].rindex("$$")].strip()
            return (
                f"({name})=\n```{{math}}\n:no-wrap:\n\n\\begin{{equation}}\n"
                f"{body}\\tag{{{self.equations[name][1]}}}\n\\end{{equation}}\n```"
            )
        if m["code"]:
            full = self.names.get(re.sub(r"\(.*\)$", "", m["inner"].strip()))
            if not full:
                return m[0]
            if full in MODULES:
                return f"{{py:mod}}`{m['inner']} <{full}>`"
            return f"{{py:obj}}`{m['inner']} <{full}>`"
        if m["image"]:
            return m[0].replace("](../figures/", "](files/figures/")
        if m["link"]:
            url, text = m["url"], m["text"]
            page, _, fragment = url.partition("#")
            if fragment.startswith("eq-"):
                return (
                    f"[{text}"
                    f" ({self.equations[fragment][1]})]"
                    f"({up}{self.equations[fragment][0]}.ipynb#{fragment})"
                )
            if url in self.citations:
                return f"{text} {{cite:p}}`{self.citations[url]}`"
            if page.endswith("index.ipynb"):
                return (
                    f"[{text}]({page.removesuffix('index.ipynb')}overview.ipynb"
                    f"{'#' + fragment if fragment else ''})"
                )
            return m[0]
        if m["artefact"]:
            name = m[0].lower().replace(" ", "")
            if name in self.artefacts and at != self.artefacts[name]:
                return f"[{m[0]}]({up}{self.artefacts[name]}.md)"
        return m[0]


def signature(name, obj):  # noqa: C901
    """Return a definition for the Python domain of reStructuredText, written in MyST

    It consists of the signature, the docstring and a table of the arguments and the result.
    """
    module, own = split(name)[0], ".".join(split(name)[1])
    raw = (
        inspect.getattr_static(getattr(sys.modules[module], own.split(".")[0]), own.split(".")[1])
        if "." in own
        else obj
    )
    kind = (
        "class"
        if inspect.isclass(obj)
        else (
            "property"
            if isinstance(raw, property)
            else "method"
            if "." in own
            else "function"
            if callable(obj)
            else "data"
        )
    )
    if kind == "class" and issubclass(obj, Exception):
        kind = "exception"
    out, rows = [f":module: {module}"], []
    if isinstance(raw, classmethod):
        out.append(":classmethod:")
    if isinstance(raw, staticmethod):
        out.append(":staticmethod:")
    shown = own
    if kind == "data":
        doc = f"Constant, `{type(obj).__name__}`" + (
            f" with the keys {', '.join(f'`{k}`' for k in obj)}."
            if isinstance(obj, dict) and len(obj) < 20
            else f": `{obj!r}`."
            if len(repr(obj)) < 80
            else "."
        )
    else:
        doc = inspect.getdoc(raw.fget if isinstance(raw, property) else obj) or ""
        if doc.startswith(f"{own}("):
            doc = ""  # the default docstring of a dataclass
        if kind != "property":
            tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(obj))).body[0]
            define = (
                next(
                    (
                        f
                        for f in tree.body
                        if isinstance(f, ast.FunctionDef) and f.name == "__init__"
                    ),
                    None,
                )
                if isinstance(tree, ast.ClassDef)
                else tree
            )
            if define:
                shown += f"({_arguments(define, kind)})" + (
                    f" -> {ast.unparse(define.returns).strip(QUOTES)}" if define.returns else ""
                )
            for p, d in docments(obj, full=True, returns=True).items():
                if p in ("self", "cls") or (p == "return" and d.docment is None):
                    continue
                anno = ""
                if d.anno is not EMPTY and d.anno is not None:
                    anno = d.anno.__name__ if inspect.isclass(d.anno) else d.anno
                    anno = f"`{cell(anno)}`".replace("typing.", "").replace("pathlib.", "")
                default = (
                    ""
                    if p == "return"
                    or d.default is EMPTY
                    or str(d.default) == "<class 'inspect._empty'>"
                    else f"`{cell(getattr(d.default, '__name__', None) or repr(d.default))}`"
                )
                rows.append(
                    f"| {'*returns*' if p == 'return' else f'`{p}`'} | {anno} | {default} |"
                    f" {cell(d.docment or '')} |"
                )
    table = (
        "\n".join(["", "| argument | type | default | meaning |", "|---|---|---|---|", *rows])
        if any(r.split("|")[-2].strip() for r in rows)
        else ""
    )
    return f"{{py:{kind}}} {shown}", "\n".join(out), doc, table


def _arguments(define, kind):
    a = define.args
    if (
        kind in ("class", "exception", "method")
        and (a.posonlyargs + a.args)[:1]
        and (a.posonlyargs + a.args)[0].arg in ("self", "cls")
    ):
        a.args = a.args[1:]
    return ast.unparse(a)


def definition(name, links, at, methods=()):
    "Return the text of the cell that documents a name, with its methods"
    module, own = split(name)
    obj = importlib.import_module(module)
    for part in own:
        obj = getattr(obj, part)
    head, options, doc, table = signature(name, obj)
    inside = "\n\n".join(definition(m, links, at) for m in methods)
    fence = "`" * (5 if methods else 4)
    return (
        f"{fence}{head}\n{options}\n\n{links(doc, at)}\n{links(table, at)}\n\n{inside}\n{fence}\n"
    )


# Notebooks
# --------------------------------------------------------------------------------------------------


def defined(source):
    "Return the names that a cell's code defines, in order"
    out = []
    for node in ast.parse(source).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            out.append(node.name)
        elif isinstance(node, ast.Assign):
            out += [
                n.id
                for t in node.targets
                for n in ast.walk(t)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            ]
    return out


def alternative(before, data):
    "Return an image's alternative text: its own label, or the sentences before it"
    if label := re.search(r'aria-label="([^"]*)"', "".join(data.get("image/svg+xml", ""))):
        return label[1]
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|[*`#>$]", r"\1", before).strip()
    last = [s.strip() for s in re.split(r"(?<=[.:])\s+|\n+", text) if s.strip()]
    return (
        ("Picture made by the code above. " + " ".join(last[-2:]))
        .replace('"', "'")
        .replace("\n", " ")[:300]
    )


def _part(cells, first, after):
    """Return the cells from one heading up to another, with the first heading as the title

    The imports that these cells need are placed before them.
    """
    cells = [
        p
        for c in cells
        for p in (
            [
                nbformat.v4.new_markdown_cell(t, id=f"{c.id}-{k}")
                for k, t in enumerate(re.split(r"(?m)^(?=## )", c.source))
                if t.strip()
            ]
            if c.cell_type == "markdown"
            else [c]
        )
    ]
    head = [c.cell_type == "markdown" and c.source.splitlines()[0] for c in cells]
    for h in (first, after):
        if f"## {h}" not in head:
            sys.exit(
                f"nbs/index.ipynb: no heading '## {h}', where the site cuts it; name the new one in"
                " docs/sources.py"
            )
    a, b = head.index(f"## {first}"), head.index(f"## {after}")
    imports = [
        line
        for c in cells[:a]
        if c.cell_type == "code"
        for line in c.source.splitlines()
        if re.match(r"(import|from) \w", line)
    ]
    inside = cells[a:b]
    inside[0].source = inside[0].source.removeprefix("#")
    for c in inside:
        if c.cell_type == "markdown":
            c.source = re.sub(r"(?m)^### ", "## ", c.source)
    return (
        inside[:1]
        + (
            [nbformat.v4.new_code_cell("\n".join(dict.fromkeys(imports)), id="imports")]
            if imports
            else []
        )
        + inside[1:]
    )


def notebook(path, at, links, names, number=None, about="", part=()):  # noqa: C901
    "Write one notebook for MyST; return the full names that it documents"
    nb = nbformat.read(path, 4)
    if part:
        nb.cells = _part(nb.cells, *part)
    cells, before, module, seen = [], "", None, set()
    for c in nb.cells:
        if c.cell_type == "markdown":
            before = c.source
            text = links(c.source, at)
            if number is not None and not cells:
                text = re.sub(r"^# ", f"# {number}. ", text)
            if not cells and about:
                text = text.rstrip() + "\n\n" + links(about, at)
            cells.append(nbformat.v4.new_markdown_cell(text, id=c.id))
            continue
        if c.cell_type != "code":
            continue
        flags = [
            line.strip()[2:].strip() for line in c.source.splitlines() if line.startswith("#|")
        ]
        if m := next(
            (re.match(r"default_exp (\S+)", f) for f in flags if f.startswith("default_exp")), None
        ):
            module = f"interlace.{m[1]}"
        source = "\n".join(
            line for line in c.source.splitlines() if not line.startswith("#|")
        ).strip("\n")
        if not source or any(f.split(":")[0] == "hide" for f in flags):
            continue
        tags = [
            t
            for t, f in (
                ("remove-input", "echo: false"),
                ("remove-output", "output: false"),
                ("remove-cell", "include: false"),
            )
            if f in flags
        ] + (["hide-input"] if source.count("\n") > 60 else [])
        new = nbformat.v4.new_code_cell(source, id=c.id, metadata=dict(tags=tags), outputs=[])
        for o in c.outputs:
            data = o.get("data", {})
            if "image/png" in data or "image/svg+xml" in data:
                new.metadata["mystnb"] = dict(image=dict(alt=alternative(before, data)))
            if data:
                o = nbformat.from_dict(
                    dict(
                        o,
                        data={
                            k: v
                            for k, v in data.items()
                            if not (k == "text/plain" and len(data) > 1)
                        },
                    )
                )
            if "text/html" in data:
                # an empty header cell means nothing to a screen reader
                o["data"]["text/html"] = "".join(o["data"]["text/html"]).replace(
                    "<th></th>", "<td></td>"
                )
            new.outputs.append(o)
        cells.append(new)
        if module and any(f in ("export", "exports") for f in flags):
            docs = []
            for n in defined(source):
                full = f"{module}.{n}"
                if full in names.values() and full not in seen:
                    seen.add(full)
                    docs.append(
                        definition(
                            full,
                            links,
                            at,
                            [m for m in dict.fromkeys(names.values()) if m.startswith(full + ".")],
                        )
                    )
            if docs:
                cells.append(nbformat.v4.new_markdown_cell("\n".join(docs), id=f"{c.id}-api"))
    if module:
        cells[0].source = re.sub(
            r"^(# .*)$",
            rf"\1\n\n```{{py:module}} {module}\n```",
            cells[0].source,
            count=1,
            flags=re.M,
        )
    nb.cells = cells
    (OUT / f"{at}.ipynb").parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nb, OUT / f"{at}.ipynb")
    return set(seen)


def title(path):
    "Return a notebook's title"
    return re.sub(r"^# ", "", nbformat.read(path, 4).cells[0].source.splitlines()[0])


def equations(chapters):
    "Return the page and the number (the chapter's and its own) of each labelled equation"
    found = {}
    for at, number, path in chapters:
        n = 0
        for c in nbformat.read(path, 4).cells:
            for m in re.finditer(
                r"\$\$\s*\((eq-[\w-]+)\)", c.source if c.cell_type == "markdown" else ""
            ):
                n += 1
                if m[1] in found:
                    sys.exit(
                        f"{path.name}: equation {m[1]} stands in {found[m[1]][0]} too; give it"
                        " another name"
                    )
                found[m[1]] = (at, f"{number}.{n}" if number else str(n))
    return found


# Artefacts
# --------------------------------------------------------------------------------------------------


def artefacts():
    "Return the stored records of figures and tables, by profile and in the paper's order"
    found = []
    for kind in ("figures", "tables"):
        for path in sorted((ROOT / kind).glob("*/*.json")):
            record = json.loads(path.read_text())
            if record.get("kind") in GIVEN:
                found.append((path, record))
    profiles = {p: k for k, p in enumerate(["nano"])}
    return sorted(
        found,
        key=lambda f: (
            profiles.get(f[0].parent.name, 9),
            f[0].parent.name,
            f[0].parts[-3],
            not ARTEFACT.match(_heading(f[0])),
            f[0].stem,
        ),
    )


def _heading(path):
    return title(paper_notebook(path.stem) or paper_notebook(path.parent.name))


def page_of(path):
    return (
        f"results/{path.stem}"
        if path.parent.name == "nano"
        else f"results/{path.parent.name}-{path.stem}"
    )


def command(path, record):
    "Return the command that regenerates one artefact alone"
    profile = record["provenance"]["parameters"].get("profile")
    if profile:
        return f"interlace reproduce --profile {profile} --only {path.stem}"
    if path.parent.name == "shapes":
        return f"make shapes SHAPE={record['provenance']['parameters']['shape']}"
    return f"make {path.stem}"


def said_as(value, unit=""):
    "Format a value of the comparison: percentages and points to a tenth, ratios to a hundredth"
    try:
        v = float(value)
    except ValueError:
        return value
    return f"{v:.2f}" if unit == "x" else f"{v:.1f}{'%' if unit == '%' else ''}"


def artefact(path, record, links, claims):
    "Write the page of a figure or a table; return its path and title"
    at, name, folder = page_of(path), path.stem, path.parent
    notebook = (
        (paper_notebook(name) or paper_notebook(folder.name))
        .relative_to(ROOT / "nbs")
        .with_suffix("")
        .as_posix()
    )
    heading, said = _heading(path), record["provenance"]
    numbered = ARTEFACT.match(heading)
    label = numbered[0] if numbered else GIVEN[record["kind"]]
    title_ = (
        heading
        if folder.name == "nano"
        else f"{heading} ({folder.name if paper_notebook(name) else name})"
    )
    files = [
        (s, folder / f"{name}.{s}")
        for s in ("png", "pdf", "csv", "tex", "md")
        if (folder / f"{name}.{s}").exists()
    ]
    for _, f in files + [("json", path)]:
        (OUT / "files" / f.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f, OUT / "files" / f.relative_to(ROOT))
    names = dict(png="PNG", pdf="PDF", csv="CSV", tex="LaTeX", md="Markdown", json="record (JSON)")

    def link(s, f):
        return f'<a href="../{f.relative_to(ROOT)}" download>{names[s]}</a>'

    caption = f"**{label}.** {record['caption']}"
    if record["kind"] == "figure":
        body = (
            f"```{{figure}} ../files/{folder.relative_to(ROOT)}/{name}.png\n:alt: {heading}:"
            f" {record['caption'].splitlines()[0]}\n:class: paper\n\n{links(caption, at)}\n```\n"
        )
    else:
        rows = [
            line
            for line in (folder / f"{name}.md").read_text().split("\n\n")[0].splitlines()
            if line.startswith("|")
        ]
        body = "\n".join(rows) + "\n\n" + links(caption, at) + "\n"
    opening = orders(folder, links, at) if name == "comparison" else []
    out = [
        f"# {title_}",
        "",
        *opening,
        body,
        "**Download:** " + " · ".join(link(s, f) for s, f in files),
        "",
    ]
    mine = (
        [c for c in claims if label in c["where"]]
        if numbered and folder.name == "nano" and name != "comparison"
        else []
    )
    if mine:
        out += [
            "## What the paper says, and what came out",
            "",
            "| statement of the paper | paper | here | 95% interval | verdict |",
            "|---|---|---|---|---|",
        ]
        out += [
            "| "
            + " | ".join(
                [
                    cell(c["claim"]),
                    said_as(c["paper"], c["unit"]),
                    said_as(c["ours"], c["unit"]),
                    f"[{said_as(c['low'])}, {said_as(c['high'])}]" if c["low"] else "",
                    c["verdict"],
                ]
            )
            + " |"
            for c in mine
        ]
        out += ["", "All of them, with what was run: [the comparison](comparison.md).", ""]
    if (folder.name, name) == ("nano", "comparison"):
        out += pretrained(links, at)
    out += [
        "## How it was made",
        "",
        (
            f"[`nbs/{notebook}.ipynb`](../{notebook}.ipynb) made it; this regenerates it alone, and"
            " what it needs where that is not there yet:"
        ),
        "",
        "```sh",
        command(path, record),
        "```",
        "",
        f"The {link('json', path).replace('record (JSON)', 'record')} says what went into it:",
        "",
        "| what | value |",
        "|---|---|",
        (
            "| made at commit |"
            f" `{said['commit'][:12]}`"
            f"{', with changes that were not committed' if said.get('modified') else ''} |"
        ),
        f"| device | {cell(said['device'])} |",
        f"| versions | Python {said['python']}, "
        + ", ".join(f"{k} {v}" for k, v in said["versions"].items())
        + " |",
    ]
    out += [
        f"| parameters | {', '.join(f'`{k} = {cell(v)}`' for k, v in said['parameters'].items())} |"
    ]
    out += (
        [
            f"| made from | {len(record['inputs'])} files: "
            + ", ".join(f"`{f}` ({h[:8]})" for f, h in record["inputs"].items())
            + " |"
        ]
        if record["inputs"]
        else []
    )
    (OUT / f"{at}.md").parent.mkdir(parents=True, exist_ok=True)
    (OUT / f"{at}.md").write_text("\n".join(out) + "\n")
    return at, title_


def orders(folder, links, at):
    "Return the comparison page's opening figure: which of the paper's orderings hold"
    record = ROOT / "figures" / folder.name / "orders.json"
    if not record.exists():
        return []
    caption = json.loads(record.read_text())["caption"]
    return [
        (
            f"```{{figure}} ../files/figures/{folder.name}/orders.png\n:alt:"
            f" {_heading(record)}\n:class: paper\n\n{links(caption, at)}\n```"
        ),
        "",
        f"[The figure's page]({page_of(record).split('/')[1]}.md)",
        "",
    ]


def pretrained(links, at):
    "Return the comparison page's section on the pretrained decoder: orderings and similarities"
    table, picture = (
        ROOT / "tables" / "smollm2" / "pretrained.json",
        ROOT / "figures" / "smollm2" / "profiles.json",
    )
    if not table.exists() or not picture.exists():
        return []
    rows = [
        line
        for line in table.with_suffix(".md").read_text().split("\n\n")[0].splitlines()
        if line.startswith("|")
    ]
    said = [json.loads(f.read_text())["caption"] for f in (table, picture)]
    return [
        "## On a pretrained decoder",
        "",
        (
            "The models above were trained by this project. The same methods, by the same library,"
            " on a language model that others trained on trillions of tokens: does it put them in"
            " the paper's order, and do its layers resemble those of the nano models? It sees no"
            " pictures, so this is a second opinion on the decoder alone."
        ),
        "",
        *rows,
        "",
        links(said[0], at),
        "",
        (
            "All methods, with their scores:"
            f" [{_heading(table.with_name('methods.json'))}](smollm2-methods.md); [this table's"
            " page](smollm2-pretrained.md)."
        ),
        "",
        (
            "```{figure} ../files/figures/smollm2/profiles.png\n:alt:"
            f" {_heading(picture)}\n:class: paper\n\n{links(said[1], at)}\n```"
        ),
        "",
        "[The figure's page](smollm2-profiles.md)",
        "",
    ]


# Pages
# --------------------------------------------------------------------------------------------------


def toctree(caption, pages, depth=1):
    return (
        f"```{{toctree}}\n:maxdepth: {depth}\n:caption: {caption}\n:hidden:\n\n"
        + "\n".join(pages)
        + "\n```\n"
    )


def cite_page():
    "Return the page on how to cite, made from CITATION.cff"
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper = cff["preferred-citation"]

    def people(authors):
        return [
            (a.get("family-names") or "{" + a["name"] + "}", a.get("given-names")) for a in authors
        ]

    def bib(authors):
        return " and ".join(f"{f}, {g}" if g else f for f, g in people(authors))

    def plain(authors):
        return ", ".join(f"{f}, {g[0]}." if g else f.strip("{}") for f, g in people(authors))

    arxiv = next(
        i["value"].removeprefix("arXiv:")
        for i in paper["identifiers"]
        if i["value"].startswith("arXiv:")
    )
    year = str(cff.get("date-released", paper["year"]))[:4]
    software = [
        f"  author = {{{bib(cff['authors'])}}},",
        f"  title = {{{cff['title']}}},",
        f"  version = {{{cff['version']}}},",
        f"  year = {{{year}}},",
        f"  license = {{{cff['license']}}}",
    ]
    article = [
        f"  author = {{{bib(paper['authors'])}}},",
        f"  title = {{{paper['title']}}},",
        f"  booktitle = {{{paper['collection-title']}}},",
        f"  year = {{{paper['year']}}},",
        f"  pages = {{{paper['start']}--{paper['end']}}},",
        f"  eprint = {{{arxiv}}},",
        "  archiveprefix = {arXiv}",
    ]

    def block(lang, text):
        return f"```{{code-block}} {lang}\n{text}\n```\n"

    return "\n".join(
        [
            "# Cite",
            "",
            cff["message"],
            "",
            "## The paper",
            "",
            "BibTeX:",
            "",
            block("bibtex", "@inproceedings{interlace2026,\n" + "\n".join(article) + "\n}"),
            "Plain text:",
            "",
            block(
                "text",
                f"{plain(paper['authors'])} ({paper['year']}). {paper['title']}. In"
                f" {paper['collection-title']}, pp. {paper['start']}-{paper['end']}."
                f" arXiv:{arxiv}.",
            ),
            "## This companion",
            "",
            "BibTeX:",
            "",
            block("bibtex", "@software{interlace_companion,\n" + "\n".join(software) + "\n}"),
            "Plain text:",
            "",
            block(
                "text",
                f"{plain(cff['authors'])} ({year}). {cff['title']} (version {cff['version']})"
                f" [Computer software]. {cff['license']}.",
            ),
            "Both blocks are made from `CITATION.cff`, which reference managers read as it is.",
            "",
        ]
    )


def card(path, at, links):
    "Write the page of a model card, without the header for the model hub"
    text = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(), flags=re.S)
    (OUT / f"{at}.md").parent.mkdir(parents=True, exist_ok=True)
    (OUT / f"{at}.md").write_text(links(text, at))


def explorer_data():
    """Return the explorer's data, the stored scores of each profile, as a script

    A page that is opened from disk may not fetch data, but it may load a script.
    """
    found = {
        p.parent.name: json.loads(p.read_text())
        for p in sorted((ROOT / "figures").glob("*/explorer.json"))
    }
    return "window.INTERLACE_EXPLORER = " + json.dumps(found) + ";\n"


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    names = exported()

    def page(p):
        return p.relative_to(ROOT / "nbs").with_suffix("").as_posix()

    houses = {house: sorted((ROOT / "nbs" / house).glob("*.ipynb")) for house in HOUSES}
    houses["reproduction"].append(ROOT / "nbs" / "cli.ipynb")
    guides, stages = (
        sorted((ROOT / "nbs" / "guides").glob("*.ipynb")),
        sorted((ROOT / "nbs" / "paper").glob("*/*.ipynb")),
    )
    numbered = [p for paths in houses.values() for p in paths]
    chapters = (
        [(page(p), k, p) for k, p in enumerate(numbered, 1)]
        + [(page(p), None, p) for p in guides]
        + [("overview", None, ROOT / "nbs" / "index.ipynb")]
    )
    kept = artefacts()
    links = Links(
        names,
        {
            e.fields["url"]: k
            for k, e in parse_file(ROOT / "docs" / "references.bib").entries.items()
        },
        equations(chapters),
        {
            _heading(p).split(":")[0].lower().replace(" ", ""): page_of(p)
            for p, _ in kept
            if p.parent.name == "nano" and ARTEFACT.match(_heading(p))
        },
    )
    shutil.copytree(ROOT / "docs" / "_static", OUT / "_static")
    shutil.copy(ROOT / "docs" / "references.bib", OUT / "references.bib")
    (OUT / "_static" / "explorer-data.js").write_text(explorer_data())
    documented = set()
    for at, number, path in chapters:
        documented |= notebook(
            path, at, links, names, number, part=PART if at == "overview" else ()
        )
    if (
        missing := {n for n in names.values() if n not in MODULES and len(split(n)[1]) == 1}
        - documented
    ):
        sys.exit(f"not documented by any chapter: {', '.join(sorted(missing))}")
    for p in stages:
        notebook(
            p,
            page(p),
            links,
            names,
            about=(
                "It is shown here as it is kept, without outputs: a run keeps its own executed"
                " copy, in `runs/<profile>/notebooks`."
            ),
        )
    with open(ROOT / "tables" / "nano" / "comparison.csv") as f:
        claims = list(csv.DictReader(f))
    for c in claims:
        c["where"] = places(c["id"])
    made = [(p.parent.name, p.stem, *artefact(p, r, links, claims)) for p, r in kept]
    cards = []
    for path in sorted((ROOT / "interlace" / "weights").glob("*/README.md")):
        card(path, f"cards/{path.parent.name}", links)
        cards.append(f"cards/{path.parent.name}")
    (OUT / "changelog.md").write_text(links((ROOT / "CHANGELOG.md").read_text(), "changelog"))
    (OUT / "cite.md").write_text(cite_page())
    reported = json.loads((ROOT / "interlace" / "reported.json").read_text())
    fill = dict(
        picture=dict(kept)[ROOT / "figures" / "nano" / "figure1.json"]["caption"],
        claims="\n".join(f"- {c['text']}" for c in reported["abstract_claims"]),
        results="\n".join(f"- [{t}]({at}.md)" for _, _, at, t in made),
        toc="\n".join(
            [
                toctree("Start", ["overview", "explorer", "glossary"]),
                toctree("Guides", [page(p) for p in guides]),
                toctree("Results", ["results/index"]),
                *(
                    toctree(HOUSES[house], [*map(page, paths), *(cards if house == "nano" else [])])
                    for house, paths in houses.items()
                ),
                toctree("Experiments", ["paper/index"]),
                toctree("About", ["cite", "references", "changelog"]),
            ]
        ),
    )
    (OUT / "results").mkdir(exist_ok=True)
    (OUT / "results" / "index.md").write_text(
        "# Figures and tables\n\nEach with its caption, what came out, the notebook and the command"
        " that made it, and its record.\n\n"
        + "\n".join(
            f"## Profile {profile}\n\n"
            + "\n".join(f"- [{t}]({at.split('/')[1]}.md)" for q, _, at, t in made if q == profile)
            + "\n"
            for profile in dict.fromkeys(m[0] for m in made)
        )
        + toctree("", [at.split("/")[1] for _, _, at, _ in made]).replace(":caption: \n", "")
    )
    (OUT / "paper" / "index.md").write_text(
        "# The notebooks that papermill runs\n\n`interlace reproduce` runs them, each with the"
        " parameters of a profile; every arrow of the way from a model to a table is one of"
        " them.\n\n"
        + "\n".join(f"- [{title(p)}]({p.parent.name}/{p.stem}.ipynb)" for p in stages)
        + "\n\n"
        + toctree("", [f"{p.parent.name}/{p.stem}" for p in stages]).replace(":caption: \n", "")
    )
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        for k, v in fill.items():
            text = text.replace("{{ " + k + " }}", v)
        (OUT / page.name).write_text(links(text, page.stem))


def places(claim):
    "Return the figures and tables that a statement is about, by its id in the comparison"
    if "ttft" in claim:
        return ("Table 1", "Table 5")
    return dict(comparison=("Table 1", "Figure 1"), ratios=("Table 2",), ablation=("Table 3",)).get(
        claim.removeprefix("order/").split("/")[0], ()
    )


if __name__ == "__main__":
    main()

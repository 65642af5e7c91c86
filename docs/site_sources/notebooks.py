"""Notebooks as pages: text with links, code, stored outputs, and an API entry for each name."""

import ast
import re
import sys

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell

from .names import split

# the part of the index notebook that the site shows: from the first heading up to the second;
# the rest has pages of its own
OVERVIEW_PART = ("The method in ten minutes", "Your own model")
TAGS = {
    "echo: false": "remove-input",
    "output: false": "remove-output",
    "include: false": "remove-cell",
}
LONG_CELL = 60  # lines; a longer cell is folded
EXCEPTION_BASES = {"Exception", "ValueError", "BadInput"}


def translate(chapter, links, about=""):
    "Return the notebook of a page, with a paragraph `about` it, and the names that it documents"
    nb = nbformat.read(chapter.path, 4)
    if chapter.page == "overview":
        nb.cells = overview_part(nb.cells)
    module = exported_module(nb)
    cells, text_before, documented = [], "", []
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            text_before = cell.source
            cells.append(new_markdown_cell(links(cell.source, chapter.page), id=cell.id))
        elif cell.cell_type == "code" and is_shown(cell):
            cells.append(code_cell(cell, text_before))
            entries = api_entries(cell, module, links.names, documented)
            documented += entries
            if entries:
                cells.append(new_markdown_cell(api_block(entries), id=f"{cell.id}-api"))
    cells[0].source = opening(cells[0].source, chapter.number, module, about)
    nb.cells = cells
    return nb, documented


def opening(text, number, module, about):
    "Return a page's first cell with the chapter's number, the module and a paragraph about it"
    heading, _, rest = text.partition("\n")
    if number:
        heading = heading.replace("# ", f"# {number}. ", 1)
    if module:
        heading += f"\n\n```{{py:module}} {module}\n```"
    return f"{heading}\n{rest}".rstrip() + f"\n\n{about}"


# Cells
# --------------------------------------------------------------------------------------------------


def directives(source):
    "Return nbdev's directives in a cell, for example 'export' or 'echo: false'"
    lines = source.splitlines()
    return [line.removeprefix("#|").strip() for line in lines if line.startswith("#|")]


def code_of(source):
    "Return a cell's code without directives"
    lines = source.splitlines()
    return "\n".join(line for line in lines if not line.startswith("#|")).strip("\n")


def exported_module(nb):
    "Return the full name of the module that a notebook is exported to, or None"
    code = [c.source for c in nb.cells if c.cell_type == "code"]
    for directive in [d for source in code for d in directives(source)]:
        if directive.startswith("default_exp "):
            return "interlace." + directive.split()[1]
    return None


def is_shown(cell):
    hidden = any(d.split(":")[0] == "hide" for d in directives(cell.source))
    return bool(code_of(cell.source)) and not hidden


def code_cell(cell, text_before):
    "Return a code cell with the tags and outputs that MyST-NB reads"
    source = code_of(cell.source)
    given = directives(cell.source)
    tags = [tag for directive, tag in TAGS.items() if directive in given]
    if source.count("\n") > LONG_CELL:
        tags.append("hide-input")
    metadata = dict(tags=tags)
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data or "image/svg+xml" in data:
            alt = alternative_text(data, text_before)
            metadata["mystnb"] = dict(image=dict(alt=alt))
    outputs = [richest(output) for output in cell.outputs]
    return new_code_cell(source, id=cell.id, metadata=metadata, outputs=outputs)


def richest(output):
    "Return an output without the plain text that stands in for a richer form"
    if "data" not in output:
        return output
    data = dict(output["data"])
    if len(data) > 1:
        data.pop("text/plain", None)
    if "text/html" in data:
        # an empty header cell means nothing to a screen reader
        html = "".join(data["text/html"])
        data["text/html"] = html.replace("<th></th>", "<td></td>")
    return nbformat.from_dict(dict(output, data=data))


def alternative_text(data, text_before):
    "Return an image's alternative text: its own label, or the last two sentences before it"
    label = re.search(r'aria-label="([^"]*)"', "".join(data.get("image/svg+xml", "")))
    if label:
        return label[1]
    plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)|[*`#>$]", r"\1", text_before)
    sentences = [s.strip() for s in re.split(r"(?<=[.:])\s+|\n+", plain) if s.strip()]
    text = "Image made by the code above. " + " ".join(sentences[-2:])
    return text.replace('"', "'")[:300]


# API entries
# --------------------------------------------------------------------------------------------------


def api_entries(cell, module, names, documented):
    """Return the public names that a cell defines

    The result is a dictionary: full name -> (autodoc directive, its options).
    """
    given = directives(cell.source)
    if not module or not ("export" in given or "exports" in given):
        return {}
    public = dict.fromkeys(names.values())
    entries = {}
    for name, directive in definitions(code_of(cell.source)).items():
        full = f"{module}.{name}"
        if full in public and full not in documented:
            methods = [split(n)[1][1] for n in public if n.startswith(f"{full}.")]
            entries[full] = (directive, options(directive, methods))
    return entries


def definitions(source):
    "Return the names that code defines at its top level, each with the autodoc directive for it"
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = "autofunction"
        elif isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base) for base in node.bases}
            found[node.name] = "autoexception" if bases & EXCEPTION_BASES else "autoclass"
        elif isinstance(node, ast.Assign):
            found |= dict.fromkeys(assigned_names(node), "autodata")
    return found


def assigned_names(node):
    inside = [n for target in node.targets for n in ast.walk(target)]
    return [n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]


def options(directive, methods):
    "Return the options of an autodoc directive"
    if directive == "autodata":
        return ["no-value:"]
    if methods:
        return [f"members: {', '.join(methods)}", "undoc-members:"]
    return []


def api_block(entries):
    "Return the Markdown that lets autodoc document names"
    blocks = [
        "\n".join([f".. {directive}:: {full}", *(f"   :{option}" for option in options)])
        for full, (directive, options) in entries.items()
    ]
    return "```{restructuredtext}\n" + "\n\n".join(blocks) + "\n```"


# The index notebook
# --------------------------------------------------------------------------------------------------


def overview_part(cells):
    """Return the cells of the part of the index notebook that the site shows

    The part's heading becomes the title, and the imports that its cells need come after it.
    """
    cells = split_at_headings(cells)
    start, end = (heading_index(cells, heading) for heading in OVERVIEW_PART)
    part = cells[start:end]
    part[0].source = part[0].source.removeprefix("#")
    for cell in part:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"(?m)^### ", "## ", cell.source)
    imports = "\n".join(import_lines(cells[:start]))
    if imports:
        part.insert(1, new_code_cell(imports, id="imports"))
    return part


def split_at_headings(cells):
    "Return cells in which each second-level heading starts a cell"
    parts = []
    for cell in cells:
        if cell.cell_type != "markdown":
            parts.append(cell)
            continue
        texts = [t for t in re.split(r"(?m)^(?=## )", cell.source) if t.strip()]
        parts += [new_markdown_cell(t, id=f"{cell.id}-{k}") for k, t in enumerate(texts)]
    return parts


def heading_index(cells, heading):
    "Return the index of the cell that starts with a heading"
    for k, cell in enumerate(cells):
        if cell.cell_type == "markdown" and cell.source.splitlines()[0] == f"## {heading}":
            return k
    sys.exit(
        f"nbs/index.ipynb: no heading '## {heading}', where the site cuts it; name the new one in"
        " docs/site_sources/notebooks.py"
    )


def import_lines(cells):
    "Return the import statements of code cells, each once"
    lines = [line for c in cells if c.cell_type == "code" for line in c.source.splitlines()]
    return list(dict.fromkeys(line for line in lines if re.match(r"(import|from) \w", line)))

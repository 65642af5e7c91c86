"""A Sphinx extension: autodoc for a library whose docstrings and comments are Markdown.

A docstring gets a table of the arguments, read from the comments beside them, and its names
become links.
"""

import inspect
import re
from importlib import import_module

from docutils.parsers.rst import Parser as RstParser
from fastcore.docments import docments
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.ext.autodoc.preserve_defaults import DefaultValue
from sphinx.util.docutils import SphinxDirective, new_document

from .links import project_links, table_cell
from .names import MODULES

# docments' annotation of an argument without one: nothing, or the type of the default, which
# autodoc has replaced by the default's source
NOT_ANNOTATED = (inspect.Parameter.empty, None, DefaultValue)
HEADER = ["| argument | type | default | meaning |", "|---|---|---|---|"]


class Parsed(SphinxDirective):
    "Parse the content as a document, as docutils' include directive does with `:parser:`"

    has_content = True
    parser = None

    def run(self):
        surrounding = self.state.document
        document = new_document(self.get_source_info()[0], surrounding.settings)
        document.reporter = surrounding.reporter
        self.parser().parse("\n".join(self.content), document)
        return document.children


class Markdown(Parsed):
    "A docstring inside autodoc's reStructuredText"

    parser = MystParser


class ReStructuredText(Parsed):
    """Autodoc's directives inside Markdown

    MyST's `eval-rst` would pad its content with one empty line for each line number, and MyST-NB
    counts 10,000 for each cell.
    """

    parser = RstParser


def setup(app):
    app.add_directive("markdown", Markdown)
    app.add_directive("restructuredtext", ReStructuredText)
    app.connect("builder-inited", prepare)
    app.connect("autodoc-process-docstring", write_docstring)
    return dict(parallel_read_safe=True, parallel_write_safe=True)


def prepare(app):
    "Import the library before Sphinx starts its processes, which then need not import it"
    for module in MODULES:
        import_module(module)
    project_links()


def write_docstring(app, what, name, obj, options, lines):
    "Replace a docstring's lines by Markdown with links and a table of the arguments"
    if what == "data":
        text = describe_constant(obj)
    else:
        own_name = name.split(".")[-1]
        has_default_docstring = lines and lines[0].startswith(f"{own_name}(")
        text = "" if has_default_docstring else "\n".join(lines)
    if what in ("class", "exception", "function", "method"):
        text += "\n\n" + arguments_table(obj)
    text = project_links()(text, app.env.docname)
    lines[:] = [".. markdown::", "", *(f"   {line}" for line in text.splitlines()), ""]


def describe_constant(value):
    "Return a sentence on a constant: its type, and its keys or its value if they are short"
    text = f"Constant, `{type(value).__name__}`"
    if isinstance(value, dict) and len(value) < 20:
        return f"{text} with the keys {', '.join(f'`{key}`' for key in value)}."
    if len(repr(value)) < 80:
        return f"{text}: `{value!r}`."
    return f"{text}."


def arguments_table(function):
    "Return a Markdown table of a function's arguments and result; empty if none has a comment"
    arguments = docments(function, full=True, returns=True)
    documented = {
        name: argument
        for name, argument in arguments.items()
        if name not in ("self", "cls") and (name != "return" or argument.docment)
    }
    if not any(argument.docment for argument in documented.values()):
        return ""
    return "\n".join(HEADER + [row(name, a) for name, a in documented.items()])


def row(name, argument):
    "Return an argument's row of the table"
    if name == "return":
        cells = ["*returns*", code(type_name(argument.anno)), ""]
    else:
        cells = [code(name), code(type_name(argument.anno)), code(default(argument.default))]
    return f"| {' | '.join(cells)} | {table_cell(argument.docment or '')} |"


def type_name(annotation):
    "Return an annotation as one would write it; empty if there is none"
    if annotation in NOT_ANNOTATED:
        return ""
    name = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    return re.sub(r"\b(typing|pathlib)\.", "", name)


def default(value):
    "Return a default as one would write it; empty if there is none"
    if value is inspect.Parameter.empty:
        return ""
    return getattr(value, "__name__", None) or repr(value)


def code(text):
    return f"`{table_cell(text)}`" if text else ""

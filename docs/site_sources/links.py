"""References in Markdown become links: names, papers, equations, figures and tables."""

import re
from dataclasses import dataclass
from functools import cache

from pybtex.database import parse_file

from .artifacts import paper_pages, stored_artifacts
from .chapters import ROOT, equations, executed_chapters
from .names import MODULES, exported

# what is looked for in Markdown, in this order; a name ends with the method of `Links` for it
PATTERNS = dict(
    fence=r"^(?P<tick>`{3,}|:{3,}).*?^(?P=tick)\s*$",
    equation=r'(?:<a id="(?P<label>eq-[\w-]+)"></a>\s*)?\$\$(?P<formula>.+?)\$\$',
    code=r"(?<!`)`(?P<inner>[^`\n]+)`(?!`)",
    image=r"!\[[^\]]*\]\([^)]*\)",
    link=r"\[(?P<text>(?:`[^`]*`|\[[^\]]*\]|[^\[\]`])*)\]\((?P<url>[^)\s]+)\)",
    artifact=r"(?<![\w/])(?:Figure|Table) \d(?!\d|\.\d)",
)
REFERENCE = re.compile(
    "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in PATTERNS.items()), re.S | re.M
)
EQUATION = """\
({label})=
```{{math}}
:no-wrap:

\\begin{{equation}}
{formula}\\tag{{{number}}}
\\end{{equation}}
```"""


@dataclass(frozen=True)
class Links:
    "Turn the references in Markdown into links"

    names: dict  # spelling of a name -> full name
    citations: dict  # URL of a paper -> key in the bibliography
    equations: dict  # label -> (page, number)
    artifacts: dict  # 'Figure 1' -> page

    def __call__(
        self,
        text,  # Markdown
        page,  # the page that the text is on
    ):
        "Return the text with links"

        def linked(match):
            return getattr(self, f"_{match.lastgroup}")(match, page)

        return REFERENCE.sub(linked, text)

    def _fence(self, match, page):
        return match[0]

    def _equation(self, match, page):
        label = match["label"]
        if not label:
            return match[0]
        number = self.equations[label][1]
        return EQUATION.format(label=label, formula=match["formula"].strip(), number=number)

    def _code(self, match, page):
        code = match["inner"]
        full = self.names.get(re.sub(r"\(.*\)$", "", code.strip()))
        if not full:
            return match[0]
        role = "py:mod" if full in MODULES else "py:obj"
        return f"{{{role}}}`{code} <{full}>`"

    def _image(self, match, page):
        return match[0].replace("](../figures/", "](files/figures/")

    def _link(self, match, page):
        text, url = match["text"], match["url"]
        target, _, fragment = url.partition("#")
        if fragment.startswith("eq-"):
            equation_page, number = self.equations[fragment]
            return f"[{text} ({number})]({up(page)}{equation_page}.ipynb#{fragment})"
        if url in self.citations:
            return f"{text} {{cite:p}}`{self.citations[url]}`"
        if target.endswith("index.ipynb"):
            return f"[{text}]({url.replace('index.ipynb', 'overview.ipynb')})"
        return match[0]

    def _artifact(self, match, page):
        target = self.artifacts.get(match[0])
        if target in (None, page):
            return match[0]
        return f"[{match[0]}]({up(page)}{target}.md)"


def up(page):
    "Return the relative path from a page to the site's root"
    return "../" * page.count("/")


def citations():
    "Return the bibliography's key of each paper, by the paper's URL"
    entries = parse_file(ROOT / "docs" / "references.bib").entries
    return {entry.fields["url"]: key for key, entry in entries.items()}


@cache
def project_links():
    "Return the links of this project's texts"
    return Links(
        names=exported(),
        citations=citations(),
        equations=equations(executed_chapters()),
        artifacts=paper_pages(stored_artifacts()),
    )


def table_cell(text):
    "Return text that fits into one cell of a Markdown table"
    return re.sub(r"\s+", " ", str(text)).replace("|", "\\|")

"""Build the pages that sources.py gathers with Sphinx.

Neither building nor reading the site fetches anything from a network.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
SOURCE = Path(os.environ.get("SITE_SOURCE", HERE.parent / "_docs" / "source"))
# the package contains MathJax; its Sphinx extension does not build in parallel
MATHJAX = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static"
CFF = yaml.safe_load((HERE.parent / "CITATION.cff").read_text())
sys.path.insert(0, str(HERE))  # for site_sources

project, author, version = "INTERLACE Companion", CFF["authors"][0]["name"], CFF["version"]
copyright = f"{author}, {CFF['license']}"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "site_sources.api",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["files"]
autodoc_preserve_defaults = True  # as in the source: `SPANS`, not its value
autodoc_member_order = "bysource"
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "gfm"  # tables that come from a result's own Markdown representation
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"
mathjax_path = "mathjax/tex-chtml.js"
# only the menu would request files from a server
mathjax3_config = dict(options=dict(enableMenu=False))
html_theme = "furo"
html_title = "INTERLACE Companion"
html_static_path = [str(SOURCE / "_static"), str(MATHJAX)]
html_extra_path = [str(SOURCE / "files")]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_favicon = str(HERE / "_static" / "icon.svg")
html_show_search_summary = False  # summaries are fetched, which a page opened from disk may not do
html_copy_source = html_show_sourcelink = False
html_show_sphinx = False
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
copybutton_exclude = ".linenos, .gp, .go"
add_module_names = False
python_display_short_literal_types = True
toc_object_entries = False
suppress_warnings = ["mystnb.unknown_mime_type"]

# what the theme writes and what a screen reader needs
ACCESSIBLE = {
    '<p class="caption" role="heading">': '<p class="caption">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="All pages">',
    '<aside class="toc-drawer': '<aside aria-label="On this page" class="toc-drawer',
    '<summary aria-label="Toggle hidden content">': "<summary>",
    'role="doc-biblioentry"': 'role="listitem"',
}
SEARCH = {'id="furo-main-content">': 'id="furo-main-content"><h1>Search</h1>'}


def make_accessible(app, failed):
    """Fix the theme's pages for screen readers

    The two sidebars get names, and elements with a wrong role get the right one.
    """
    if failed or app.builder.name != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        before = text = path.read_text()
        for wrong, right in (ACCESSIBLE | (SEARCH if path.name == "search.html" else {})).items():
            text = text.replace(wrong, right)
        if text != before:
            path.write_text(text)


def setup(app):
    app.connect("build-finished", make_accessible)

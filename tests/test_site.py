"""The site in a real browser.

It builds without a warning, is complete, needs no network, and is accessible.
"""

import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="the site needs the extra `docs`: pip install -e .[docs]")
from bs4 import BeautifulSoup
from conftest import ROOT, needed
from fastcore.docments import docments

from interlace.core.profiles import load_profile
from interlace.method.selection import make_plan
from interlace.reproduction.pipeline import stages


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "Build the site as `make docs` does, with warnings as errors, and return its folder"
    out = tmp_path_factory.mktemp("site")
    env = os.environ | dict(
        SITE_SOURCE=str(out / "source"), OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT)
    )
    for command in (
        [sys.executable, "docs/sources.py", out / "source"],
        [
            sys.executable,
            "-m",
            "sphinx",
            "-W",
            "--keep-going",
            "-q",
            "-E",
            "-c",
            "docs",
            out / "source",
            out / "html",
        ],
    ):
        done = subprocess.run(
            [str(c) for c in command], cwd=ROOT, env=env, capture_output=True, text=True
        )
        assert not done.returncode, done.stderr[-3000:]
    return out / "html"


@pytest.fixture(scope="module")
def soups(site):
    return {
        p.relative_to(site).as_posix(): BeautifulSoup(p.read_text(), "html.parser")
        for p in sorted(site.rglob("*.html"))
        if "_static" not in p.parts
    }


@pytest.fixture(scope="module")
def axe():
    "Return the script of axe-core, from npm"
    path = next(
        (
            p
            for p in (
                ROOT / ".venv" / "axe" / "node_modules" / "axe-core" / "axe.min.js",
                Path(os.environ.get("AXE", "-")),
            )
            if p.exists()
        ),
        None,
    )
    return needed(
        path, "axe-core, for the accessibility check: npm install --prefix .venv/axe axe-core"
    ).read_text()


def opened(browser, url, scheme="light"):
    "Open a page in a tab; return the tab and the errors while it loaded"
    tab, wrong = watched(browser, url, scheme)
    shown(tab, url)
    return tab, wrong


def shown(tab, url):
    tab.goto(url)
    tab.wait_for_load_state("load")
    tab.evaluate("() => window.MathJax?.startup?.promise")


def watched(browser, url, scheme="light"):
    "Return a tab and the list of its errors"
    page, wrong = browser.new_page(viewport=dict(width=1280, height=900), color_scheme=scheme), []
    page.on(
        "console",
        lambda m: wrong.append(f"console: {m.text}") if m.type in ("error", "warning") else None,
    )
    page.on("pageerror", lambda e: wrong.append(f"error: {e}"))
    page.on("requestfailed", lambda r: wrong.append(f"failed: {r.url}"))
    page.on(
        "request",
        lambda r: (
            None
            if r.url.startswith(
                (url.split("/sub/")[0] if "/sub/" in url else "file:", "data:", "blob:")
            )
            else wrong.append(f"from elsewhere: {r.url}")
        ),
    )
    return page, wrong


def test_links_and_pictures_lead_somewhere(site, soups):
    wrong, ids = (
        [],
        {
            p: (
                {e["id"] for e in s.find_all(id=True)}
                | {e["name"] for e in s.find_all("a", attrs=dict(name=True))}
            )
            for p, s in soups.items()
        },
    )
    count = 0
    for page, soup in soups.items():
        for e in soup.find_all(["a", "img", "script", "link"]):
            url = e.get("href") or e.get("src")
            if not url or re.match(r"[a-z]+:", url):
                continue
            count += 1
            target, _, fragment = url.partition("#")
            path = (site / page).parent / target.partition("?")[0] if target else site / page
            if not path.exists():
                wrong.append(f"{page}: {url}")
            elif (
                fragment
                and path.suffix == ".html"
                and fragment not in ids[path.resolve().relative_to(site.resolve()).as_posix()]
            ):
                wrong.append(f"{page}: {url} (no such place)")
    assert count > 3000 and not wrong, "\n".join(sorted(set(wrong))[:40])


def test_public_names_are_links(soups):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from sources import exported
    finally:
        sys.path.pop(0)
    names = {n for n, full in exported().items() if full.count(".") >= 2}
    plain = []
    for page, soup in soups.items():
        if page.startswith(("_modules", "genindex", "py-modindex")):
            continue
        for code in soup.find_all("code"):
            if (
                not code.find_parent(["a", "pre", "dt", "h1", "h2", "h3"])
                and not code.find("a")
                and code.get_text() in names
            ):
                plain.append(f"{page}: {code.get_text()}")
    assert not plain, "\n".join(plain[:40])


def test_each_definition_has_a_source_link(soups):
    defined = {dt["id"]: dt for s in soups.values() for dt in s.select("dl.py > dt[id]")}
    without = [
        n
        for n, dt in defined.items()
        if not dt.find(class_="viewcode-link")
        and not {"data", "property"} & set(dt.parent["class"])
        and not dt["id"].startswith("module-")
    ]
    assert len(defined) > 150 and not without, without[:20]


def test_definitions_show_their_arguments(soups):
    "A definition has a signature and a table of the comments beside its parameters"
    soup = soups["method/03_selection.html"]
    name = soup.find(id="interlace.method.selection.make_plan")
    arguments = docments(make_plan)
    parameters = [e.get_text().partition(":")[0] for e in name.select("em.sig-param")]
    assert parameters == [n for n in arguments if n != "return"]
    meanings = [row.find_all("td")[-1].get_text() for row in name.parent.select("tbody tr")]
    comments = [comment for comment in arguments.values() if comment]
    # the site has typographic quotes and no backticks
    assert [re.findall(r"\w+", m) for m in meanings] == [re.findall(r"\w+", c) for c in comments]


def test_figures_and_tables_have_their_pages(site, soups):
    "Each artefact's page has its image or table, record, files, notebook and an existing command"
    for folder in ("figures", "tables"):
        for record in sorted((ROOT / folder).glob("*/*.json")):
            profile, name = record.parent.name, record.stem
            if name == "explorer":
                continue
            soup = soups[f"results/{name if profile == 'nano' else f'{profile}-{name}'}.html"]
            links = {a["href"] for a in soup.find_all("a", href=True)}
            files = [f for f in record.parent.glob(f"{name}.*") if f.suffix != ".part"]
            assert {f"../{f.relative_to(ROOT).as_posix()}" for f in files} <= links, name
            assert any(re.fullmatch(r"\.\./paper/\w+/\w+\.html", link) for link in links), name
            assert (
                soup.find("img", class_="paper") if folder == "figures" else soup.find("table")
            ), name
            command = soup.find("div", class_="highlight-sh").get_text().strip()
            if command.startswith("make"):
                assert re.search(rf"^{command.split()[1]}:", (ROOT / "Makefile").read_text(), re.M)
            else:
                assert name in {
                    s.name for s in stages(load_profile(command.split()[3], ROOT / "settings.ini"))
                }, command


def test_equations_are_numbered_and_citations_resolved(soups):
    text = " ".join(s.get_text() for s in soups.values())
    assert "\\tag{3.1}" in soups["method/02_similarity.html"].get_text()
    assert not re.search(r"\(eq-[\w-]+\)", text), re.search(r".{40}\(eq-[\w-]+\)", text)
    assert len(soups["references.html"].select("div.citation")) >= 20


# one tab for all: a new one takes as long as a page
def test_every_page_in_a_browser(site, soups, browser, axe):
    """Every page works in a browser

    It has no console error, fetches nothing from elsewhere, renders its equations, fits the screen
    of a phone, and passes axe's checks.
    """
    wrong, formulas, colours = [], 0, set()
    tab, said = watched(browser, "file:")
    for page, soup in soups.items():
        if page.startswith("_modules/"):
            continue
        # what highlights code is the same everywhere: a page is checked with its code if a colour
        # of it was on no page before
        here = {c for e in soup.select(".highlight pre span[class]") for c in e["class"]}
        left_out = [] if here - colours else [[".highlight pre"]]
        colours |= here
        tab.set_viewport_size(dict(width=1280, height=900))
        shown(tab, (site / page).as_uri())
        wrong += [f"{page}: {s}" for s in said]
        said.clear()
        formulas += tab.locator("mjx-container").count()
        if tab.locator("mjx-merror, [data-mjx-error]").count():
            wrong.append(f"{page}: an equation is not rendered")
        if bad := tab.evaluate(
            "() => [...document.images].filter(i => !i.naturalWidth && i.loading !== 'lazy').map(i"
            " => i.src)"
        ):
            wrong.append(f"{page}: images missing: {bad}")
        tab.evaluate(axe)
        for v in tab.evaluate(
            "exclude => axe.run({ exclude }, { preload: false, resultTypes: ['violations'],"
            " runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']"
            " }).then(r => r.violations)",
            left_out,
        ):
            wrong.append(
                f"{page}: {v['id']}: {v['help']}: {v['nodes'][0]['html'][:150]} ({len(v['nodes'])})"
            )
        tab.set_viewport_size(dict(width=390, height=844))
        if (wide := tab.evaluate("() => document.documentElement.scrollWidth")) > 390:
            wrong.append(f"{page}: {wide} px wide on a screen of 390")
    tab.close()
    assert formulas > 50 and not wrong, f"{len(wrong)} findings\n" + "\n".join(wrong[:60])


@pytest.mark.parametrize(
    "page",
    [
        "index.html",
        "overview.html",
        "method/03_selection.html",
        "results/table1.html",
        "explorer.html",
        "cite.html",
    ],
)
def test_contrast_in_the_dark(site, browser, axe, page):
    tab, said = opened(browser, (site / page).as_uri(), scheme="dark")
    tab.evaluate(axe)
    found = tab.evaluate(
        "() => axe.run({ preload: false, runOnly: { type: 'rule', values: ['color-contrast'] }"
        " }).then(r => r.violations.flatMap(v => v.nodes.map(n => n.html)))"
    )
    tab.close()
    assert not said and not found, found[:5]


def test_search_finds_the_anchor(site, browser):
    tab, said = opened(browser, (site / "search.html").as_uri() + "?q=anchor")
    tab.wait_for_selector("#search-results li", timeout=15_000)
    hits = tab.locator("#search-results li").all_inner_texts()
    tab.close()
    assert not said and any("Selection" in h for h in hits), hits[:5]


def test_served_under_a_sub_path(site, browser):
    "The site works below a server's root, as project pages are served; copying works there too"

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *a):
            pass

        def translate_path(self, path):
            return (
                str(site / path.split("?")[0].removeprefix("/sub/path/"))
                if path.startswith("/sub/path/")
                else str(site / "nowhere")
            )

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_port}/sub/path/"
    try:
        for page in (
            "index.html",
            "method/02_similarity.html",
            "results/figure2.html",
            "search.html?q=anchor",
        ):
            tab, said = opened(browser, base + page)
            if "search" in page:
                tab.wait_for_selector("#search-results li", timeout=15_000)
            tab.close()
            assert not said, said
        context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        tab = context.new_page()
        tab.goto(base + "cite.html")
        tab.locator("div.highlight-bibtex button.copybtn").first.click(force=True)
        copied = tab.evaluate("() => navigator.clipboard.readText()")
        context.close()
        assert copied.startswith("@inproceedings{interlace") and copied.rstrip().endswith("}"), (
            copied
        )
    finally:
        server.shutdown()

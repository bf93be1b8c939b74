"""Build the HTML edition of the series: `python -m going_modular.classroom.site FOLDER`.

It knows the repository's texts and how they link. The pages lie as their sources do, so that links
between them stay short; nothing on them is loaded from the network. No notebook is executed.
"""

import argparse
import base64
import hashlib
import io
import json
import posixpath
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import nbformat
from bs4 import BeautifulSoup, Tag
from matplotlib.mathtext import math_to_image
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from pygments.formatters import HtmlFormatter

from going_modular.classroom import PARTS, ROOT, TEXTS

TEMPLATES = Path(__file__).parent / "templates"
SERIES = "Transfer learning with PyTorch"
CODE_STYLES = {"light": "xcode", "dark": "github-dark"}
FORMULA = re.compile(r"\$\$?(\S[^$]*?)\$\$?")
MANIFEST = ".made-by-going-modular.json"


def build(root: Path = ROOT) -> dict[str, bytes]:
    """Return the files of the site, by their path in it.

    Raises ValueError where there is no lesson, and for a link that leads nowhere.
    """
    pages = read_pages(root)
    files = {"style.css": style().encode()}
    for page in pages.values():
        html = render(page, pages)
        for path in linked_files(html, page, pages, root):
            files[path] = (root / path).read_bytes()
        files[page.target] = str(html).encode()
        if page.source.endswith(".ipynb"):
            files[page.source] = (root / page.source).read_bytes()
    check_anchors({path: text.decode() for path, text in files.items() if path.endswith(".html")})
    return files


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files into a folder that is new, empty, or made here before.

    What an earlier call wrote there is replaced or, where it is no longer needed, removed. Raises
    ValueError, and changes nothing, where this would touch a file that no call wrote.
    """
    manifest = folder / MANIFEST
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file. Give the name of a new folder.")
    if not manifest.exists() and folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty, and was not made here. Give a new folder.")
    old = json.loads(manifest.read_text()) if manifest.exists() else {}
    for path in sorted(old.keys() | files.keys()):
        there = folder / path
        if there.exists() and (there.is_dir() or _hash(there.read_bytes()) != old.get(path)):
            raise ValueError(
                f"{there} was not made here, or was changed since. Move it, or give a new folder."
            )
    for path in old.keys() - files.keys():
        (folder / path).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    manifest.write_text(json.dumps({path: _hash(data) for path, data in sorted(files.items())}))


# --- Pages ----------------------------------------------------------------------------------------


class Page(NamedTuple):
    """A text of the repository, as a notebook; `source` and `target` are paths with slashes."""

    source: str
    notebook: NotebookNode

    @property
    def target(self) -> str:
        if self.source == TEXTS[0]:
            return "index.html"
        return posixpath.splitext(self.source.lstrip("."))[0] + ".html"  # hosts hide dotted folders

    @property
    def name(self) -> str:
        return posixpath.splitext(posixpath.basename(self.source))[0]

    @property
    def part(self) -> str | None:
        """The folder of PARTS that it belongs to."""
        folder = posixpath.dirname(self.source)
        return folder if folder in PARTS and self.source.endswith(".ipynb") else None

    @property
    def title(self) -> str:
        text = "\n".join(c.source for c in self.notebook.cells if c.cell_type == "markdown")
        heading = re.search(r"^# (.+)$", text, re.M)
        if not heading:
            raise ValueError(f"{self.source} has no title, such as `# 01 · Concepts`.")
        return plain(heading[1])

    def to(self, target: str) -> str:
        """Return the address of another file of the site, seen from this page."""
        return posixpath.relpath(target, posixpath.dirname(self.target) or ".")


def read_pages(root: Path) -> dict[str, Page]:
    """Read all texts, by their source, in reading order."""
    pages = {}
    for folder in PARTS:
        for path in sorted((root / folder).glob("[0-9][0-9]_*.ipynb")):
            source = path.relative_to(root).as_posix()
            try:
                pages[source] = Page(source, nbformat.read(path, as_version=4))
            except ValueError as error:
                raise ValueError(f"{path} cannot be read as a notebook: {error}") from error
    if not pages:
        raise ValueError(f"No lessons, such as 01_concepts.ipynb, in {root / 'notebooks'}.")
    for source in TEXTS:
        if (root / source).exists():
            cell = nbformat.v4.new_markdown_cell((root / source).read_text(encoding="utf-8"))
            pages[source] = Page(source, nbformat.v4.new_notebook(cells=[cell]))
    return pages


def render(page: Page, pages: dict[str, Page]) -> BeautifulSoup:
    """Return a page's HTML, with links that hold in the site."""
    html = BeautifulSoup(export(page.notebook, "page", page=_frame(page, pages)), "html.parser")
    describe_pictures(html, page.notebook)
    draw_formulas(html)
    set_anchors(html)
    main = html.find("main")
    for link in main.find_all("a", href=True):
        link["href"] = _address(link["href"], page, pages)
    for table in main.find_all("table"):
        table.wrap(html.new_tag("div", attrs={"class": "scroll"}))
    return html


def export(notebook: NotebookNode, template: str, **resources: object) -> str:
    """Convert a notebook with one of this package's templates."""
    return _exporter(template).from_notebook_node(notebook, resources=resources)[0]


@cache
def _exporter(template: str) -> HTMLExporter:
    exporter = HTMLExporter(template_name=template, extra_template_basedirs=[str(TEMPLATES)])
    exporter.exclude_input_prompt = exporter.exclude_output_prompt = True
    exporter.exclude_anchor_links = True
    exporter.register_preprocessor("nbconvert.preprocessors.CoalesceStreamsPreprocessor", True)
    exporter.log.setLevel("ERROR")  # missing alternative texts are added here
    return exporter


def _frame(page: Page, pages: dict[str, Page]) -> dict[str, object]:
    """Collect what stands around a page's own text."""
    siblings = [p for p in pages.values() if p.part == page.part and p.part]
    place = siblings.index(page) if page in siblings else -1
    start = page.source == TEXTS[0]
    contents = {
        (posixpath.basename(part), title): [p for p in pages.values() if p.part == part]
        for part, title in PARTS.items()
    }
    return {
        "title": page.title if start else f"{page.title} · {SERIES}",
        "series": SERIES,
        "home": page.to("index.html"),
        "style": page.to("style.css"),
        "download": posixpath.basename(page.source) if page.source.endswith(".ipynb") else None,
        "previous": siblings[place - 1] if place > 0 else None,
        "next": siblings[place + 1] if -1 < place < len(siblings) - 1 else None,
        "to": page.to,
        "contents": contents if start else None,
        "texts": [p for p in pages.values() if not p.part and p is not page],
    }


def style() -> str:
    """Return the style sheet, with the colours of code for light and dark screens."""
    colours = {
        name: HtmlFormatter(style=code_style).get_style_defs(".highlight")
        for name, code_style in CODE_STYLES.items()
    }
    text = (TEMPLATES / "page" / "style.css").read_text(encoding="utf-8")
    dark = f"@media screen and (prefers-color-scheme: dark) {{\n{colours['dark']}\n}}\n"
    return f"{text}\n{colours['light']}\n{dark}"


# --- Links and anchors ----------------------------------------------------------------------------


def set_anchors(html: BeautifulSoup) -> None:
    """Give each heading an id as GitHub does; a second one of the same words gets a number."""
    seen: dict[str, int] = {}
    for heading in html.find("main").find_all(re.compile("^h[1-6]$")):
        slug = anchor(heading.get_text())
        seen[slug] = seen.get(slug, -1) + 1
        heading["id"] = f"{slug}-{seen[slug]}" if seen[slug] else slug


def anchor(words: str) -> str:
    """Return a heading's anchor; JupyterLab's own form of it leads to the same."""
    return re.sub(r"[^\w\- ]", "", unquote(words).lower()).replace(" ", "-")


def _address(href: str, page: Page, pages: dict[str, Page]) -> str:
    """Turn a link between sources into one between pages; others stay as they are."""
    if urlsplit(href).scheme or href.startswith("//"):
        return href
    path, _, fragment = href.partition("#")
    fragment = f"#{anchor(fragment)}" if fragment else ""
    source = posixpath.normpath(posixpath.join(posixpath.dirname(page.source), unquote(path)))
    if not path:
        return fragment
    if source in PARTS:
        return page.to("index.html") + f"#{posixpath.basename(source)}"
    if source in pages:
        return page.to(pages[source].target) + fragment
    return href


def linked_files(
    html: BeautifulSoup, page: Page, pages: dict[str, Page], root: Path
) -> Iterator[str]:
    """List the repository's files that a page links to and that are no pages themselves."""
    made = {p.target for p in pages.values()} | {p.source for p in pages.values()}
    for tag in html.find("main").find_all(["a", "img"]):
        href = tag.get("href") or tag.get("src") or ""
        path = urlsplit(href).path
        if urlsplit(href).scheme or href.startswith("//") or not path:
            continue
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.target), unquote(path)))
        if target in made:
            continue
        if target.startswith("..") or not (root / target).is_file():
            raise ValueError(f"{page.source} links to {href}, and no such file is there.")
        yield target


def check_anchors(pages: dict[str, str]) -> None:
    """Raise ValueError where a link leads to a place that its page does not have."""
    ids = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()}
    for path, text in pages.items():
        for target, fragment in re.findall(r'\bhref="([^"#:]*)#([^"]+)"', text):
            full = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            if fragment not in ids.get(full if target else path, {fragment}):
                raise ValueError(f"{path} links to {target}#{fragment}: there is no such place.")


# --- Pictures -------------------------------------------------------------------------------------


def describe_pictures(html: BeautifulSoup, notebook: NotebookNode) -> None:
    """Give each figure its alternative text; pictures from the network become words."""
    texts = zip(notebook.cells, alternative_texts(notebook), strict=True)
    texts = [text for cell, text in texts for _ in range(pictures(cell))]
    for image, text in zip(html.select(".jp-RenderedImage img"), texts, strict=True):
        image["alt"] = text
    for image in html.find_all("img", src=re.compile("^https?:|^//")):
        image.replace_with(image.get("alt", ""))


def draw_formulas(html: BeautifulSoup) -> None:
    """Draw formulas between dollar signs: what else could do it comes from the network."""
    for text in html.find("main").find_all(string=FORMULA):
        if text.find_parent(["code", "pre"]):
            continue
        parts = FORMULA.split(text)
        for place, part in enumerate(parts):
            text.insert_before(_formula(html, part) if place % 2 else part)
        text.extract()


def _formula(html: BeautifulSoup, formula: str) -> Tag:
    svg = io.BytesIO()
    math_to_image(f"${' '.join(formula.split())}$", svg, format="svg")
    source = "data:image/svg+xml;base64," + base64.b64encode(svg.getvalue()).decode()
    return html.new_tag("img", attrs={"class": "formula", "src": source, "alt": formula})


def alternative_texts(notebook: NotebookNode) -> list[str]:
    """Say of each cell what its figures show: its metadata `alt`, or the first words behind it."""
    texts, behind = [], ""
    for cell in reversed(notebook.cells):
        if cell.cell_type == "markdown":
            behind = first_words(cell.source)
        texts.append(cell.metadata.get("alt") or behind)
    return texts[::-1]


def pictures(cell: NotebookNode) -> int:
    """Count the figures that a cell gives out."""
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def first_words(markdown: str) -> str:
    """Return the first words of a text: a sentence, or two where the first is short."""
    paragraph = next((p for p in markdown.split("\n\n") if p.strip()), "")
    sentences = re.split(r"(?<=[.?!])\s+(?=[A-Z])", plain(paragraph))
    return " ".join(sentences[: 1 if len(sentences[0].split()) >= 12 else 2])


def plain(markdown: str) -> str:
    """Strip links, emphasis and line breaks."""
    text = re.sub(r"\[([^]]*)\](\([^)]*\)|\[[^]]*\])", r"\1", markdown)
    return re.sub(r"\s+", " ", re.sub(r"[*`#]", "", text)).strip()


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.classroom.site",
        description="Build the series as web pages that need no network and no Python.",
    )
    parser.add_argument("folder", type=Path, help="a new folder, or one that this command made")
    folder = parser.parse_args(arguments).folder
    try:
        files = build()
        write(folder, files)
    except (ValueError, OSError) as error:
        print(f"site: error: {error}", file=sys.stderr)
        return 1
    pages = sum(path.endswith(".html") for path in files)
    megabytes = sum(len(data) for data in files.values()) / 1e6
    print(f"{pages} pages, {megabytes:.1f} MB. Open {folder / 'index.html'} in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

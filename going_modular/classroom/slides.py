"""Make slides from the lessons: `python -m going_modular.classroom.slides FOLDER`.

The cells' slide types, which JupyterLab shows and edits, say where slides begin; cells without one
are not shown. A slide shows what can be read from the last row: headings, lists, tables,
definitions, questions, short code and what it gives out. All of the prose is in the speaker's
notes. No notebook is executed.
"""

import argparse
import math
import re
import sys
from itertools import pairwise
from pathlib import Path

from bs4 import BeautifulSoup, Tag
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from pygments.formatters import HtmlFormatter

from going_modular.classroom import site

REVEAL = Path(__file__).parent / "reveal"  # reveal.js 5.2.1 as published: no network is needed
WIDTH, HEIGHT, LARGEST = 1170, 580, 27  # pixels for code and output, and of its letters
COLUMNS = 105  # longer lines are broken
PICTURE = 420  # pixels, the height of a picture below text
LEAD_WORDS = 70  # at most, in a paragraph that leads to a prediction
CODE_LINES = 8  # a longer cell is seen only by what it gives out
SHOWN = re.compile(r"[-|]|\d+\. |<details|\*\*(You will|Predict:)\*\*")
LONE_LINK = re.compile(r"\[[^]]*\]\([^)]*\)")
LINK_TARGET = re.compile(r"^\[[^]]+\]: .*$", re.M)
HEADING = re.compile(r"^#{1,3} (.+)$", re.M)
UNSEEN = {"Setup"}  # sections that stand in the same cell as others


def build(root: Path = site.ROOT) -> dict[str, bytes]:
    """Return the files of the slides, by their path: one page for each lesson that has slides."""
    lessons = [page for page in site.read_pages(root).values() if page.part == "notebooks"]
    lessons = [page for page in lessons if "slide" in map(slide_type, page.notebook.cells)]
    if not lessons:
        raise ValueError(f"No cell in {root / 'notebooks'} has the slide type Slide.")
    files = {f"reveal/{path.name}": path.read_bytes() for path in sorted(REVEAL.iterdir())}
    files["style.css"] = style().encode()
    for page in lessons:
        files[f"{page.name}.html"] = str(render(page)).encode()
    files["index.html"] = site.export(
        new_notebook(), "contents", title=f"{site.SERIES}: slides", lessons=lessons
    ).encode()
    return files


def slide_type(cell: NotebookNode) -> str:
    """Return "slide", "subslide" (below the one before it), "skip" or, without a type, "notes"."""
    kind = cell.metadata.get("slideshow", {}).get("slide_type", "notes")
    return {"fragment": "subslide", "-": "notes"}.get(kind, kind)


# --- From a notebook to its slides ----------------------------------------------------------------


def outline(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook of slides: short cells to show, and the prose as notes."""
    cells, title = [], ""
    for cell, alt in zip(notebook.cells, site.alternative_texts(notebook), strict=True):
        kind = slide_type(cell)
        if cell.cell_type == "code":
            if kind in ("slide", "subslide"):
                cells += _code_slide(cell, kind, title, alt)
            continue
        for section in sections(cell.source):
            heading = HEADING.match(section)
            title = heading[1] if heading else title
            if kind == "skip" or title in UNSEEN:
                continue
            shown = [] if kind == "notes" else visible(section)
            links = "\n".join(LINK_TARGET.findall(cell.source))
            for number, text in enumerate(shown):
                first = heading and not number
                text = f"{heading[0] if first else f'## {title}'}\n\n{text}\n\n{links}"
                cells.append(_slide(text, kind if first else "subslide"))
            cells.append(_slide(section, "notes"))
    return new_notebook(cells=cells, metadata=notebook.metadata)


def sections(markdown: str) -> list[str]:
    """Split a text before each of its headings."""
    parts = re.split(r"^(?=#{1,3} )", markdown, flags=re.M)
    return [part.strip() for part in parts if part.strip()]


def visible(section: str) -> list[str]:
    """Return what slides show of a section below its heading: one text a slide.

    That is lists, tables, definitions, and predictions with the paragraph that leads to them; of a
    title the first words and the outcomes; where there is none of these, the first sentence. Each
    question of a quiz has a slide of its own, with the folded answer.
    """
    heading = HEADING.match(section)
    blocks = [block.strip() for block in _blocks(section[heading.end() :] if heading else section)]
    blocks = [block for block in blocks if not LONE_LINK.fullmatch(block)]
    shown = [_visible(*pair) for pair in pairwise([*blocks, ""])]
    if section.startswith("# "):
        outcomes = [block for block in blocks if block.startswith("**You will**")]
        shown = [" ".join(_sentences(text)[:2]) for text in blocks[:1]] + outcomes
    elif heading and not any(shown):
        shown = [_sentences(blocks[0])[0] if blocks else ""]
    text = "\n\n".join(filter(None, shown))
    questions = [part for part in re.split(r"(?<=</details>)\s*", text) if part]
    return questions or ([""] if heading else [])


def _visible(block: str, behind: str) -> str:
    leads = behind.startswith("**Predict:**") and len(block.split()) <= LEAD_WORDS
    if SHOWN.match(block) or leads:
        return block
    return " ".join(sentence for sentence in _sentences(block) if "**" in sentence)


def _blocks(section: str) -> list[str]:
    """Split a text at its empty lines; a folded answer stays whole."""
    return re.findall(r"<details>.*?</details>|(?:[^\n]+\n?)+", section, re.S)


def _sentences(paragraph: str) -> list[str]:
    return re.split(r"(?<=[.?!])\s+(?=[A-Z`*\[])", paragraph)


def _code_slide(cell: NotebookNode, kind: str, title: str, alt: str) -> list[NotebookNode]:
    """Return a slide of a code cell: what it gives out, below its code where that is short."""
    shown = new_code_cell(cell.source, outputs=cell.outputs, metadata={"alt": alt})
    if site.pictures(cell) or len(cell.source.splitlines()) > CODE_LINES:
        shown.metadata["transient"] = {"remove_source": True}
    return [_slide(f"## {title}", kind), shown]


def _slide(markdown: str, kind: str) -> NotebookNode:
    return new_markdown_cell(markdown, metadata={"slideshow": {"slide_type": kind}})


# --- From slides to HTML --------------------------------------------------------------------------


def render(page: site.Page) -> BeautifulSoup:
    """Return a lesson's slides, with pictures described and everything sized to fit."""
    notebook = outline(page.notebook)
    html = BeautifulSoup(site.export(notebook, "slides", title=page.title), "html.parser")
    site.describe_pictures(html, notebook)
    site.draw_formulas(html)
    for link in html.find_all("a", href=re.compile(r"^(?!https?:)")):
        link.unwrap()  # other notebooks are not beside the slides
    for strong in html.find_all("strong", string="Predict:"):
        strong.parent["class"] = "predict"
    for slide in html.select("section > section"):
        fit(slide)
    return html


def fit(slide: Tag) -> None:
    """Choose the size of a slide's code and output so that their lines fit."""
    blocks = [pre for pre in slide.find_all("pre") if not pre.find_parent("aside")]
    lines = [line for block in blocks for line in block.get_text().rstrip("\n").split("\n")]
    if not lines:
        return
    image = slide.find("img")
    columns = min(max(map(len, lines)), COLUMNS)
    rows = sum(max(1, math.ceil(len(line) / columns)) for line in lines)
    room = HEIGHT - 45 * len(blocks) - (PICTURE if image else 0)
    pixels = min(LARGEST, room / (1.35 * rows), WIDTH / (0.605 * columns))
    for block in blocks:
        block["style"] = f"font-size: {pixels:.1f}px"
    if image:
        image["style"] = f"height: {PICTURE}px"


def style() -> str:
    """Return the style sheet of all slides."""
    colours = HtmlFormatter(style=site.CODE_STYLES["light"]).get_style_defs(".highlight")
    text = (site.TEMPLATES / "slides" / "style.css").read_text(encoding="utf-8")
    return f"{text}\n{colours}\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.classroom.slides",
        description="Make slides from the lessons, to show in a browser; no network is needed.",
    )
    parser.add_argument("folder", type=Path, help="a new folder, or one that this command made")
    folder = parser.parse_args(arguments).folder
    try:
        files = build()
        site.write(folder, files)
    except (ValueError, OSError) as error:
        print(f"slides: error: {error}", file=sys.stderr)
        return 1
    for path, data in files.items():
        if path.endswith(".html") and path != "index.html":
            print(f"{path}: {data.count(b'<section') - data.count(b'</section></section>')} slides")
    print(f"Open {folder / 'index.html'} in a browser.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

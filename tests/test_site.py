"""The HTML edition, the slides and the handout: complete, linked, described, and without a network.

How they look and whether they can be read by everyone, tests/browser.py asks a real browser.
"""

import csv
import html.parser
import posixpath
import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from going_modular.classroom import handout, site, slides

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(ROOT.glob("notebooks/**/[0-9][0-9]_*.ipynb"))
LESSONS = sorted(ROOT.glob("notebooks/[0-9][0-9]_*.ipynb"))


class Reader(html.parser.HTMLParser):
    """Collects what a browser would follow or fetch from a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.fetched, self.images, self.headings = [], [], [], [], []
        self.root = {}
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "html":
            self.root = values
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "link" or "src" in values:
            self.fetched.append(values.get("href") or values["src"])
        if tag == "img":
            self.images.append(values)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))


@pytest.fixture(scope="module")
def built():
    return site.build()


@pytest.fixture(scope="module")
def pages(built):
    return {path: Reader(data.decode()) for path, data in built.items() if path.endswith(".html")}


@pytest.fixture
def small_root(tmp_path):
    """Make a repository of two lessons and a start page."""
    root = tmp_path / "root"
    (root / "notebooks").mkdir(parents=True)
    (root / "README.md").write_text("# Start\n\n[One](notebooks/01_one.ipynb#two-words)\n")
    for name in ("01_one", "02_two"):
        cell = nbformat.v4.new_markdown_cell(f"# {name}\n\n## Two words\n")
        notebook = nbformat.v4.new_notebook(cells=[cell])
        nbformat.write(notebook, root / "notebooks" / f"{name}.ipynb")
    return root


def resolve(page, href):
    """Return the path in the site that a link leads to, and the place in it."""
    parts = urlsplit(href)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
    return (path if parts.path else page), unquote(parts.fragment)


def test_every_notebook_has_a_page_and_can_be_downloaded(built, pages):
    assert len(NOTEBOOKS) >= 20
    for notebook in NOTEBOOKS:
        source = notebook.relative_to(ROOT).as_posix()
        assert built[source] == notebook.read_bytes()
        page = source.replace(".ipynb", ".html")
        assert notebook.name in pages[page].links
        assert page in {resolve("index.html", href)[0] for href in pages["index.html"].links}


def test_every_link_and_anchor_leads_somewhere(built, pages):
    followed = 0
    for page, reader in pages.items():
        for href in [*reader.links, *reader.fetched]:
            if urlsplit(href).scheme:
                assert urlsplit(href).scheme in ("https", "data"), (page, href)
                continue
            target, place = resolve(page, href)
            assert target in built, (page, href)
            assert not place or place in pages[target].ids, (page, href)
            followed += 1
    assert followed > 200


def test_nothing_is_loaded_from_the_network(built, pages):
    for page, reader in pages.items():
        assert not [f for f in reader.fetched if not f.startswith("data:") and urlsplit(f).scheme]
        assert "@import" not in built[page].decode()
    style = built["style.css"].decode()
    assert "url(" not in style and "@import" not in style


def test_formulas_are_drawn(small_root):
    text = "# Start\n\nWith $n$ pictures:\n\n$$\\frac{1}{\\sqrt{n}}$$\n\n`$HOME`\n"
    (small_root / "README.md").write_text(text)
    page = site.build(small_root)["index.html"].decode()
    assert [image["alt"] for image in Reader(page).images] == ["n", r"\frac{1}{\sqrt{n}}"]
    assert re.sub("<[^>]+>", "", page).count("$") == 1


def test_lessons_lead_to_each_other_in_order(pages):
    names = [f"notebooks/{path.stem}.html" for path in LESSONS]
    for before, after in pairwise(names):
        assert posixpath.basename(after) in pages[before].links
        assert posixpath.basename(before) in pages[after].links


def test_pages_have_a_language_one_title_and_headings_in_order(pages):
    for page, reader in pages.items():
        assert reader.root == {"lang": "en"}
        assert reader.headings[0] == 1 and reader.headings.count(1) == 1, page
        steps = pairwise(reader.headings)
        assert all(deeper <= level + 1 for level, deeper in steps), page
        assert len(set(reader.ids)) == len(reader.ids), page


def test_every_figure_says_what_it_shows(pages):
    images = [image for reader in pages.values() for image in reader.images]
    texts = [image["alt"] for image in images if image["src"].startswith("data:image/png")]
    assert len(texts) >= 30
    assert not [text for text in texts if len(text.split()) < 4]


def test_links_between_sources_become_links_between_pages(small_root):
    files = site.build(small_root)
    assert b'href="notebooks/01_one.html#two-words"' in files["index.html"]


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("notebooks/03_three.ipynb", "README.md links to notebooks/03_three.ipynb"),
        ("../secret.txt", "no such file"),
        ("notebooks/01_one.ipynb#three-words", "no such place"),
    ],
)
def test_a_link_to_nowhere_is_refused(small_root, link, words):
    (small_root / "README.md").write_text(f"# Start\n\n[Broken]({link})\n")
    with pytest.raises(ValueError, match=re.escape(words)):
        site.build(small_root)


def test_a_picture_from_the_network_becomes_its_words(small_root):
    badge = "[![Open it](https://example.com/badge.svg)](https://example.com)"
    (small_root / "README.md").write_text(f"# Start\n\n{badge}\n")
    page = site.build(small_root)["index.html"].decode()
    assert '<a href="https://example.com">Open it</a>' in page and "badge.svg" not in page


def test_no_notebooks_a_broken_one_and_one_without_a_title_are_said_in_words(small_root, tmp_path):
    with pytest.raises(ValueError, match="No lessons"):
        site.build(tmp_path)
    lesson = small_root / "notebooks" / "02_two.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), lesson)
    with pytest.raises(ValueError, match=r"02_two\.ipynb has no title"):
        site.build(small_root)
    lesson.write_text("half a noteb")
    with pytest.raises(ValueError, match=r"02_two\.ipynb cannot be read as a notebook"):
        site.build(small_root)


def test_a_folder_is_made_again_but_nothing_else_is_touched(tmp_path):
    folder = tmp_path / "site"
    site.write(folder, {"a.html": b"1", "b/c.html": b"2"})
    site.write(folder, {"a.html": b"3"})
    assert (folder / "a.html").read_bytes() == b"3" and not (folder / "b/c.html").exists()

    (folder / "a.html").write_bytes(b"a teacher's change")
    with pytest.raises(ValueError, match=r"a\.html was not made here, or was changed"):
        site.write(folder, {"a.html": b"4", "d.html": b"5"})
    assert (folder / "a.html").read_bytes() == b"a teacher's change"
    assert not (folder / "d.html").exists()


def test_a_foreign_folder_or_file_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        site.write(tmp_path, {"index.html": b""})
    with pytest.raises(ValueError, match="is a file"):
        site.write(tmp_path / "thesis.txt", {"index.html": b""})
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


# --- Slides ---------------------------------------------------------------------------------------


def test_lessons_01_to_05_have_slides_with_notes_that_load_what_lies_beside_them():
    files = slides.build()
    for lesson in LESSONS[:5]:
        page = files[f"{lesson.stem}.html"].decode()
        reader = Reader(page)
        beside = [name for name in reader.fetched if not name.startswith("data:")]
        assert len(beside) == 4 and set(beside) <= set(files)
        assert page.count("<section") > 25 and page.count('<aside class="notes"') > 15
        assert all(urlsplit(href).scheme == "https" for href in reader.links)
        assert all(image["alt"] for image in reader.images)
        assert f'href="{lesson.stem}.html"' in files["index.html"].decode()


def test_a_slide_shows_what_matters_and_the_notes_hold_all():
    text = (
        "Before it.\n\n## Heads\n\nSome prose. A **head** is the last layer. More prose.\n\n"
        "Look at it.\n\n**Predict:** how many?\n\n| a | b |\n|---|---|\n| 1 | 2 |"
    )
    cell = nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": "slide"}})
    skip = {"slideshow": {"slide_type": "skip"}}
    hidden = [nbformat.v4.new_code_cell("a"), nbformat.v4.new_code_cell("b", metadata=skip)]
    hidden += [nbformat.v4.new_markdown_cell("c", metadata=skip)]
    notebook = nbformat.v4.new_notebook(cells=[cell, *hidden])
    before, slide, notes = slides.outline(notebook).cells
    assert before.source == "Before it." and slides.slide_type(before) == "notes"
    assert slide.source.split("\n\n") == [
        "## Heads",
        "A **head** is the last layer.",
        "Look at it.",
        "**Predict:** how many?",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "",
    ]
    assert slides.slide_type(slide) == "slide" and "More prose." in notes.source


def test_each_question_has_a_slide_with_its_folded_answer():
    quiz = "1. Why?\n\n<details><summary>Answer</summary>\n\nSo.\n</details>\n\n2. Who?\n"
    assert slides.visible(f"## Check yourself\n\n{quiz}") == [
        quiz.split("\n\n2.")[0],
        "2. Who?",
    ]


def test_no_slide_types_is_said_in_words(small_root):
    with pytest.raises(ValueError, match="slide type"):
        slides.build(small_root)


# --- Handout --------------------------------------------------------------------------------------


def test_handout_says_what_the_lessons_and_the_tables_of_runs_say():
    page = handout.build()
    words = re.sub(r"<[^>]+>", " ", page.split("<body>")[1])
    for phrase in ("probe, then partial", "everything before the head", "a new head on a frozen"):
        assert phrase in words
    for name, split in (("charts", "test"), ("hymenoptera", "val")):
        with open(ROOT / "notebooks" / f"ladder_{name}.csv", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["strategy"] == "partial"]
        accuracy = sum(int(row[f"{split}_correct"]) / int(row[f"{split}_total"]) for row in rows)
        seconds = sum(float(row["cpu_seconds"]) for row in rows)
        assert f"{accuracy / len(rows):.3f} (" in words and f" {seconds / len(rows):.0f} " in words
    assert not Reader(page).fetched


def test_a_missing_table_is_named(tmp_path):
    (tmp_path / "README.md").write_text("# Nothing\n")
    with pytest.raises(ValueError, match=r"README\.md has no table that begins with"):
        handout.find_table(tmp_path, "README.md", "Word")


# --- Command lines --------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [site, slides])
def test_command_line_refuses_in_words(tmp_path, capsys, monkeypatch, module):
    monkeypatch.setattr(module, "build", lambda: {"index.html": b""})
    (tmp_path / "mine").touch()
    assert module.main([str(tmp_path)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert module.main([str(tmp_path / "new")]) == 0
    assert "index.html" in capsys.readouterr().out


def test_handout_is_never_overwritten(tmp_path, capsys):
    file = tmp_path / "handout.html"
    assert handout.main([str(file)]) == 0
    file.write_text("mine")
    assert handout.main([str(file)]) == 1
    assert "exists" in capsys.readouterr().err and file.read_text() == "mine"


# --- Formats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_notebook_opens_everywhere_without_a_warning(path, recwarn):
    """As VS Code and Notebook 7 ask for: format 4.5, an id in each cell, a kernel to choose."""
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert notebook.metadata.kernelspec == {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    assert not recwarn.list

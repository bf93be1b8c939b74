"""Make the notebooks from their sources in this folder. Run by hand, in a checkout:

    python notebooks/source/build.py lessons [NAME ...]       run them, and keep the outputs
    python notebooks/source/build.py exercises [NAME ...]     copies for students; run solutions
    python notebooks/source/build.py fork ADDRESS [--version v0.2.0]

`fork` points all notebooks to another repository or version, without running them. A source holds
neither the link to Colab nor the setup cell: they are added here, and what they point to stands
once, in pyproject.toml (the address) and going_modular/__init__.py (the version).

A code cell that begins with `# @title ...` is folded: one sees its title and what it prints. It
holds what a learner need not read: the checks of a section, or the code of a drawing.

In the source of an exercise, the cell of an answer holds both forms, the student's as comments:

    # solution
    total = first + second
    # student
    # total = ...
    # end of solution

The student reads "Write your code here." there, or what follows `# student:`.
"""

import argparse
import base64
import io
import os
import re
import textwrap
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

SOURCES = Path(__file__).resolve().parent
NOTEBOOKS, ROOT = SOURCES.parent, SOURCES.parent.parent
LESSONS = sorted(path.stem for path in SOURCES.glob("[0-9]*.py"))
EXERCISES = sorted(path.stem for path in (SOURCES / "exercises").glob("*.py"))

SETUP_TEXT = """\
## Setup

Every notebook opens with this cell. It uses the package `going_modular` from this repository or
from your Python environment. If neither has it, as on Colab, the cell installs it and keeps the
PyTorch that is already there. (If your environment has no pip, as with uv, run
`uv pip install "{package}"` in a terminal.)"""
SETUP = """\
import sys
from importlib.util import find_spec
from pathlib import Path

sys.path[:0] = [str(p) for p in Path.cwd().parents[:2] if (p / "going_modular/engine.py").exists()]
if not getattr(find_spec("going_modular"), "origin", None):  # neither here nor installed
    %pip install -q "{package}\""""
INTRODUCTIONS = {
    "exercises": """\
These exercises belong to [notebook {number}](../{name}.ipynb). Write each answer where a comment
asks for it, `# Write your code here.`, and run the cell. Then run the check below it: it tells you
in words what is not right yet. It tests what your code does, so more than one answer can be right.
Exercises do not need each other: you may leave one out. No cell takes more than some seconds.

When you are done, compare with [one solution of each](../solutions/{name}.ipynb).""",
    "solutions": """\
**One solution of each exercise.** The checks accept others, too. Try the
[exercises](../exercises/{name}.ipynb) yourself first: reading a solution teaches less than finding
one. They belong to [notebook {number}](../{name}.ipynb).""",
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}
ANSWER = re.compile(
    r"^(?P<indent> *)# solution\n"
    r"(?P<solution>.*?)"
    r"^ *# student(?:: (?P<task>.+?))?\n"
    r"(?P<student>.*?)"
    r"^ *# end of solution$",
    re.M | re.S,
)

# --- Where a notebook that lies alone finds the package -------------------------------------------


class Address(NamedTuple):
    """A repository and one of its tags."""

    url: str
    version: str

    @property
    def package(self) -> str:
        """What pip installs; lesson 06 exports a model."""
        return f"going-modular[export] @ git+{self.url}@{self.version}"

    def link(self, place: str) -> str:
        """Return a link that opens the notebook `place` on Colab, which knows GitHub only."""
        # Words and no badge: that picture would come from Colab's site, and be broken offline.
        if not self.url.startswith("https://github.com/"):
            return ""
        repository = self.url.removeprefix("https://github.com/")
        site = "https://colab.research.google.com/github"
        return f"[Open in Colab]({site}/{repository}/blob/{self.version}/{place})"


LINES = {  # where the address and the version stand
    ROOT / "pyproject.toml": re.compile(r'(?<=^Repository = ")[^"]+', re.M),
    ROOT / "going_modular" / "__init__.py": re.compile(r'(?<=^__version__ = ")[^"]+', re.M),
}


def read_address() -> Address:
    url, version = (line.search(path.read_text("utf-8"))[0] for path, line in LINES.items())
    return Address(url, f"v{version}")


def parse_address(url: str, version: str) -> Address:
    """Return the address as it is written everywhere; ValueError where no laptop could fetch it."""
    url = url.strip().removesuffix("/").removesuffix(".git")
    if not re.fullmatch(r"https://[\w.-]+(:\d+)?(/[\w.~+-]+){2,}", url):
        raise ValueError(
            f"{url!r} is no address to install from: write https://github.com/OWNER/REPOSITORY, as "
            "the browser shows it. Others have no ssh key for it."
        )
    if url.startswith("https://github.com/") and url.count("/") != 4:
        raise ValueError(f"{url!r} should end after https://github.com/OWNER/REPOSITORY.")
    if not re.fullmatch(r"v\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)?", version):
        raise ValueError(
            f"{version!r} is no version: give a tag such as v0.2.0. A branch would change under "
            "the learners' hands."
        )
    return Address(url, version)


def fork(url: str, version: str | None) -> None:
    """Write another address into all notebooks, and the few files that name it."""
    old = read_address()
    new = parse_address(url, version or old.version)
    for (path, line), value in zip(LINES.items(), (new.url, new.version[1:]), strict=True):
        path.write_text(line.sub(value, path.read_text("utf-8")), "utf-8", newline="\n")
    readme = ROOT / "README.md"
    readme.write_text(readme.read_text("utf-8").replace(old.url, new.url), "utf-8", newline="\n")
    for name in LESSONS:
        write(lesson(name), NOTEBOOKS / f"{name}.ipynb")
    for kind in INTRODUCTIONS:
        for name in EXERCISES:
            write(exercise(name, kind), NOTEBOOKS / kind / f"{name}.ipynb")
    print(f"All notebooks now point to {new.url} at {new.version}. Publish it:")
    print(f"git commit -am 'Change the address' && git tag {new.version}")
    print(f"git push {new.url} HEAD {new.version}")


# --- From a source to a notebook ------------------------------------------------------------------


def lesson(name: str) -> NotebookNode:
    """Return a lesson as its source has it, with the outputs that are stored."""
    return assemble(NOTEBOOKS / f"{name}.ipynb", jupytext.read(SOURCES / f"{name}.py").cells)


def exercise(name: str, kind: str) -> NotebookNode:
    """Return the exercises to a lesson; `kind` is "exercises" or "solutions"."""
    title, *cells = read_exercises(name)
    part = {"exercises": student_part_of, "solutions": solution_of}[kind]
    for cell in cells:
        if has_answer(cell.source):
            cell.source = fill(cell.source, part(cell.source))
    introduction = new_markdown_cell(INTRODUCTIONS[kind].format(number=name[:2], name=name))
    return assemble(NOTEBOOKS / kind / f"{name}.ipynb", [title, introduction, *cells], opening=2)


def assemble(path: Path, cells: list[NotebookNode], opening: int = 1) -> NotebookNode:
    """Add the link and, after `opening` cells, the setup; keep the ids and outputs of `path`."""
    address = read_address()
    heading, *rest = cells[0].source.split("\n\n")
    link = address.link(path.relative_to(ROOT).as_posix())
    cells[0].source = "\n\n".join(filter(None, [heading, link, *rest]))
    for cell in cells:
        if cell.source.startswith("# @title "):
            cell.metadata.update(FOLDED | {"tags": [*cell.metadata.get("tags", []), "hide-input"]})
    skip = {"slideshow": {"slide_type": "skip"}}
    cells[opening:opening] = [
        new_markdown_cell(SETUP_TEXT.format(package=address.package), metadata=skip),
        new_code_cell(SETUP.format(package=address.package), metadata=skip),
    ]
    fixed = {0: "title", opening: "setup-text", opening + 1: "setup"}  # whatever their text is
    stored = nbformat.read(path, as_version=4).cells if path.exists() else []
    by_id, by_source = {cell.id: cell for cell in stored}, {cell.source: cell for cell in stored}
    for number, cell in enumerate(cells):
        cell.metadata.pop("lines_to_next_cell", None)
        old = by_id.get(fixed.get(number)) or by_source.pop(cell.source, None)
        # Else made from the text, so that making a notebook again gives the same bytes.
        new_id = f"cell-{number:02}-{zlib.crc32(cell.source.encode()):08x}"
        cell.id = fixed.get(number) or (old.id if old else new_id)
        if old and cell.cell_type == "code":
            cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return new_notebook(cells=cells, metadata=METADATA)


def read_exercises(name: str) -> list[NotebookNode]:
    """Return the cells of an exercises' source, with both forms of each answer."""
    return jupytext.read(SOURCES / "exercises" / f"{name}.py").cells


def has_answer(source: str) -> bool:
    return bool(ANSWER.search(source))


def fill(source: str, code: str) -> str:
    """Put `code` in the place of a cell's answer, as far to the right as the answer is."""

    def place(match: re.Match) -> str:
        return textwrap.indent(textwrap.dedent(code), match["indent"]).rstrip()

    return ANSWER.sub(place, source)


def solution_of(source: str) -> str:
    return ANSWER.search(source)["solution"]


def student_part_of(source: str) -> str:
    match = ANSWER.search(source)
    code = re.sub(r"^ *# ?", "", match["student"], flags=re.M)
    return f"# {match['task'] or 'Write your code here.'}\n{code}"


# --- Running and writing --------------------------------------------------------------------------


def run(notebook: NotebookNode, path: Path) -> None:
    """Run a notebook from top to bottom; write it where all cells have passed."""
    start = time.perf_counter()
    # Bars are for those who watch; in a stored notebook they would only be noise.
    os.environ["TQDM_DISABLE"] = "1"
    resources = {"metadata": {"path": path.parent}}
    NotebookClient(notebook, timeout=600, coalesce_streams=True, resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            shrink(output)
    write(notebook, path)
    seconds, kilobytes = time.perf_counter() - start, path.stat().st_size / 1000
    print(f"{path.relative_to(ROOT)}: {seconds:.0f} s, {kilobytes:.0f} kB")


def write(notebook: NotebookNode, path: Path) -> None:
    notebook.metadata = METADATA  # without the version of the Python that ran it
    nbformat.write(notebook, path)


def shrink(output: NotebookNode) -> None:
    """Reduce an image to 256 colours, which halves its bytes and is not seen."""
    png = output.get("data", {}).get("image/png")
    if png:
        small = io.BytesIO()
        with Image.open(io.BytesIO(base64.b64decode(png))) as image:
            image.convert("RGB").quantize(256).save(small, "PNG", optimize=True)
        output.data["image/png"] = base64.b64encode(small.getvalue()).decode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lessons").add_argument("names", nargs="*", metavar="NAME")
    commands.add_parser("exercises").add_argument("names", nargs="*", metavar="NAME")
    forking = commands.add_parser("fork")
    forking.add_argument("address", help="of your fork: https://github.com/OWNER/REPOSITORY")
    forking.add_argument("--version", help="the tag to install; as it is, if not given")
    chosen = parser.parse_args()
    if chosen.command == "fork":
        try:
            fork(chosen.address, chosen.version)
        except ValueError as error:
            parser.error(str(error))
    elif chosen.command == "lessons":
        for name in chosen.names or LESSONS:
            run(lesson(name), NOTEBOOKS / f"{name}.ipynb")
    else:
        for name in chosen.names or EXERCISES:
            write(exercise(name, "exercises"), NOTEBOOKS / "exercises" / f"{name}.ipynb")
            run(exercise(name, "solutions"), NOTEBOOKS / "solutions" / f"{name}.ipynb")


if __name__ == "__main__":
    main()

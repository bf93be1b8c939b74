"""Make the exercises' notebooks from their one source in notebooks/source/exercises/.

Run by hand: `python tests/make_exercises.py [NAME ...]`, all of them without a name. The student's
copy goes to notebooks/exercises/; the solutions are executed and go to notebooks/solutions/.

In the source, the cell of an answer holds both, the student's part as comments:

    # solution
    total = first + second
    # student
    # total = ...
    # end of solution

The student reads "Write your code here." there, or what follows `# student:`.
"""

import os
import re
import sys
import textwrap
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

sys.path.insert(0, str(Path(__file__).parent.parent))

from going_modular.classroom import address

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
SOURCES = NOTEBOOKS / "source" / "exercises"
NAMES = sorted(path.stem for path in SOURCES.glob("*.py"))
SETUP_LESSON = NOTEBOOKS / "source" / "02_feature_extraction.py"

BLOCK = re.compile(
    r"^(?P<indent> *)# solution\n"
    r"(?P<solution>.*?)"
    r"^ *# student(?:: (?P<task>.+?))?\n"
    r"(?P<student>.*?)"
    r"^ *# end of solution$",
    re.M | re.S,
)
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


def read(name: str) -> list[nbformat.NotebookNode]:
    """Return the cells of a source, with both forms of each answer."""
    return jupytext.read(SOURCES / f"{name}.py").cells


def has_answer(source: str) -> bool:
    return bool(BLOCK.search(source))


def fill(source: str, code: str) -> str:
    """Put `code` in the place of a cell's answer, as far to the right as the answer is."""

    def place(match: re.Match) -> str:
        return textwrap.indent(textwrap.dedent(code), match["indent"]).rstrip()

    return BLOCK.sub(place, source)


def solution_of(source: str) -> str:
    return BLOCK.search(source)["solution"]


def student_part_of(source: str) -> str:
    match = BLOCK.search(source)
    code = re.sub(r"^ *# ?", "", match["student"], flags=re.M)
    return f"# {match['task'] or 'Write your code here.'}\n{code}"


def setup_cells() -> list[nbformat.NotebookNode]:
    """Return the lessons' setup, its heading and its code, letter for letter."""
    text, code = jupytext.read(SETUP_LESSON).cells[:2]
    heading = text.source[text.source.index("## Setup") :]
    return [nbformat.v4.new_markdown_cell(heading), nbformat.v4.new_code_cell(code.source)]


def build(name: str, kind: str) -> nbformat.NotebookNode:
    """Return the notebook, not yet executed; `kind` is "exercises" or "solutions"."""
    part = {"exercises": student_part_of, "solutions": solution_of}[kind]
    title, *cells = read(name)
    here = address.read(NOTEBOOKS.parent)
    title.source = address.with_badge(title.source, here.badge(f"notebooks/{kind}/{name}.ipynb"))
    introduction = INTRODUCTIONS[kind].format(number=name[:2], name=name)
    cells = [title, nbformat.v4.new_markdown_cell(introduction), *setup_cells(), *cells]
    for number, cell in enumerate(cells):
        if has_answer(cell.source):
            cell.source = fill(cell.source, part(cell.source))
        cell.id = address.cell_id(number, cell.source)
        cell.metadata = {}
    # Without formats of their own, JupyterLab's jupytext would pair them with notebooks/source/
    # and write a student's answers over the source.
    metadata = {
        "jupytext": {"formats": "ipynb"},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    }
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata)


def make(name: str) -> None:
    """Write both notebooks, the solutions after all of their cells have passed."""
    student, solutions = build(name, "exercises"), build(name, "solutions")
    start = time.perf_counter()
    os.environ["TQDM_DISABLE"] = "1"  # in a stored notebook, bars would only be noise
    folder = NOTEBOOKS / "solutions"
    resources = {"metadata": {"path": folder}}
    NotebookClient(solutions, timeout=600, coalesce_streams=True, resources=resources).execute()
    for cell in solutions.cells:
        cell.metadata.pop("execution", None)
    nbformat.write(student, NOTEBOOKS / "exercises" / f"{name}.ipynb")
    nbformat.write(solutions, folder / f"{name}.ipynb")
    kilobytes = (folder / f"{name}.ipynb").stat().st_size / 1000
    print(f"{name}: {time.perf_counter() - start:.0f} s, {kilobytes:.0f} kB")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NAMES:
        make(chosen)

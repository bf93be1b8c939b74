"""The frame that all notebooks share. That they run, and print what they should, nbval checks."""

import ast
import re
import statistics
from pathlib import Path

import jupytext
import nbformat
import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
FRAME = [
    "**You will**",
    "**You need**",
    "**Time**",
    "## Recap",
    "## Check yourself",
    "## Exercises",
]


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return request.param, nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook):
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def test_every_twin_has_its_notebook():
    twins = sorted(path.stem for path in (NOTEBOOKS / "source").glob("*.py"))
    assert twins == [path.stem for path in LESSONS]


def test_twin_and_notebook_say_the_same(lesson):
    path, notebook = lesson
    twin = jupytext.read(path.parent / "source" / f"{path.stem}.py")
    assert [(c.cell_type, c.source) for c in twin.cells] == [
        (c.cell_type, c.source) for c in notebook.cells
    ]


def test_notebook_is_valid_executed_in_order_and_small(lesson):
    path, notebook = lesson
    nbformat.validate(notebook)
    assert [c.execution_count for c in code_cells(notebook)] == list(
        range(1, len(code_cells(notebook)) + 1)
    )
    assert path.stat().st_size < 500_000
    for cell in code_cells(notebook):
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", output


def test_setup_cell_is_the_same_in_all():
    setups = {code_cells(nbformat.read(path, as_version=4))[0].source for path in LESSONS}
    assert len(setups) == 1


def test_frame(lesson):
    path, notebook = lesson
    words = text(notebook)
    assert words.startswith(f"# {path.stem[:2]} · ")
    places = [words.find(part) for part in FRAME]
    assert -1 not in places and places == sorted(places), dict(zip(FRAME, places, strict=True))
    assert words.count("**Predict:**") >= 2
    assert 3 <= words.split("## Check yourself")[1].count("<details>") <= 5
    outcomes = words.split("**You will**")[1].split("**You need**")[0]
    assert 1 <= len(re.findall(r"^- ", outcomes, re.M)) <= 3


def test_cells_are_short_and_explained(lesson):
    _, notebook = lesson
    lengths = [len(cell.source.splitlines()) for cell in code_cells(notebook)]
    assert max(lengths) <= 20 and statistics.median(lengths) <= 10
    assert 20 <= len(notebook.cells) <= 45
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells)
    assert "ccc" not in kinds
    # Prose, without link targets and folded answers' markup.
    words = len(re.sub(r"\(http\S+\)|<[^>]+>", "", text(notebook)).split())
    assert 700 <= words <= 1800


def test_every_code_cell_shows_something_or_defines(lesson):
    _, notebook = lesson
    for cell in code_cells(notebook)[1:]:
        nodes = ast.parse(cell.source).body
        only_defines = all(
            isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)
            for n in nodes
        )
        assert cell.outputs or only_defines, cell.source

"""The frame that all notebooks share. That they run, and print what they should, nbval checks."""

import ast
import re
import statistics
import warnings
from pathlib import Path

import build
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
QUIZ = r"(?ms)## Check yourself.*?(?=^## |\Z)"


@pytest.fixture(params=LESSONS, ids=lambda path: path.stem)
def lesson(request):
    return request.param, nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook):
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def test_every_twin_has_its_notebook():
    assert build.LESSONS == [path.stem for path in LESSONS]


def test_twin_and_notebook_say_the_same(lesson):
    path, notebook = lesson
    made = build.lesson(path.stem)  # link and setup cell, too
    assert made.cells == notebook.cells, "out of step: run notebooks/source/build.py lessons"


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


def test_frame(lesson):
    path, notebook = lesson
    words = text(notebook)
    assert words.startswith(f"# {path.stem[:2]} · ")
    places = [words.find(part) for part in FRAME]
    assert -1 not in places and places == sorted(places), dict(zip(FRAME, places, strict=True))
    assert words.count("**Predict:**") >= 2
    quiz = re.search(QUIZ, words)[0]
    questions = re.findall(r"^\d\. .*?</details>", quiz, re.M | re.S)
    assert 3 <= len(questions) == quiz.count("<details>") <= 5
    for question in questions:  # three choices, and a word on each
        asked, answer = question.split("<details>")
        assert re.findall(r"^   - \*\*(\w)\*\* · ", asked, re.M) == ["a", "b", "c"], asked
        explained = re.findall(r"\*\*(\w)\.\*\*", answer), re.findall(r"[ \n]\*(\w):\*", answer)
        assert len(explained[0]) == 1, answer
        assert sorted(explained[0] + explained[1]) == ["a", "b", "c"], answer
    outcomes = words.split("**You will**")[1].split("**You need**")[0]
    assert 1 <= len(re.findall(r"^- ", outcomes, re.M)) <= 3


def test_cells_are_short_and_explained(lesson):
    path, notebook = lesson
    read = [cell for cell in code_cells(notebook) if not cell.source.startswith("# @title ")]
    lengths = [len(cell.source.splitlines()) for cell in read]
    # Prose, without link targets and the quiz with its choices.
    words = len(re.sub(f"{QUIZ}|" + r"\(http\S+\)", "", text(notebook)).split())
    kinds = "".join(cell.cell_type[0] for cell in notebook.cells)
    advice = {
        f"a code cell of {max(lengths)} lines": max(lengths) <= 20,
        f"half of the code cells have over {statistics.median(lengths)} lines": (
            statistics.median(lengths) <= 10
        ),
        f"{len(notebook.cells)} cells": 20 <= len(notebook.cells) <= 45,
        f"{words} words": 700 <= words <= 1800,
        "three code cells in a row": "ccc" not in kinds,
    }
    for found, is_fine in advice.items():
        if not is_fine:  # a matter of style, so no failure
            warnings.warn(f"{path.stem}: {found}", stacklevel=1)


@pytest.mark.parametrize("number", ["01", "02", "03", "04", "08"])
def test_charts_of_the_test_split_wait_for_05(number):
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    code = "\n".join(c.source for c in code_cells(nbformat.read(path, as_version=4)))
    assert "splits.test" not in code and "charts/test" not in code


NUMBER = r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"
NO_RESULT = [  # parts of the prose whose numbers no cell has to show
    r"## (Check yourself|Exercises).*?(?=^## |\Z)",  # questions suppose cases of their own
    r"^\*\*Time\*\*.*?$|95% interval",
    r"^\[[^]\n]*\]: [^\n]*$|\[[^]]*\](\([^)]*\)|\[[^]]*\])",  # links, with their text
    r"^#+ .*?$|^\| \d\d [^|]*\||[Nn]otebooks? \d\d",  # headings, names of notebooks
]


def shown_numbers(notebook):
    """Collect all numbers in the code and in what it prints; shares as percentages, too."""
    texts = [cell.source for cell in code_cells(notebook)]
    for cell in code_cells(notebook):
        for output in cell.outputs:
            texts += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
    numbers = {float(n.replace(",", "")) for n in re.findall(NUMBER, "\n".join(texts))}
    percentages = {round(100 * n, 1) for n in numbers if n <= 1}
    millions = {round(n / 1e6, 1) for n in numbers if n > 1e5}
    return numbers, percentages, millions


def unexplained_numbers(notebook):
    numbers, percentages, millions = shown_numbers(notebook)
    prose = text(notebook)
    for pattern in NO_RESULT:
        prose = re.sub(pattern, "", prose, flags=re.M | re.S)
    missing = []
    for match in re.finditer(rf"(?<![\w.-]){NUMBER}(?! ?:)", prose):
        number, unit = float(match[0].replace(",", "")), prose[match.end() :].lstrip()
        known = numbers | (percentages if unit.startswith("%") else set())
        known |= millions if unit.startswith("million") else set()
        if number not in known:
            missing.append(prose[max(0, match.start() - 30) : match.end() + 20])
    return missing


def test_every_number_in_prose_is_shown_or_asserted_by_a_cell(lesson):
    _, notebook = lesson
    assert unexplained_numbers(notebook) == []


def teachers_answers():
    """Return TEACHING.md's answers to the predictions, as {number of the notebook: [answer]}."""
    page = (NOTEBOOKS / "TEACHING.md").read_text(encoding="utf-8")
    page = page.split("## The answers to each Predict")[1].split("\n## ")[0]
    parts = re.split(r"^\*\*(\d\d)\*\*$", page, flags=re.M)
    return {
        number: re.findall(r"^\d+\. (.*?)(?=^\d+\. |\Z)", answers, re.M | re.S)
        for number, answers in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_teacher_has_an_answer_to_each_prediction(lesson):
    path, notebook = lesson
    answers = teachers_answers()[path.stem[:2]]
    assert len(answers) == text(notebook).count("**Predict:**")
    answer_cell = nbformat.v4.new_markdown_cell("\n\n".join(answers))
    page = nbformat.v4.new_notebook(cells=[answer_cell, *code_cells(notebook)])
    assert unexplained_numbers(page) == []


@pytest.mark.parametrize(
    "prose",
    ["It got 93 % right.", "1,281 features", "3.9 million", "[A](http://b) has\n1,281\n\n[c]: <d>"],
)
def test_a_number_that_no_cell_shows_is_found(prose):
    code = nbformat.v4.new_code_cell("print(x)")
    code.outputs = [nbformat.v4.new_output("stream", text="0.92 of 1,280; 3,400,000")]
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(prose), code])
    assert len(unexplained_numbers(page)) == 1
    right = prose.replace("93", "92").replace("1,281", "1,280").replace("3.9", "3.4")
    page.cells[0].source = right
    assert unexplained_numbers(page) == []


def test_every_code_cell_shows_something_or_defines(lesson):
    _, notebook = lesson
    for cell in code_cells(notebook)[1:]:
        only_defines = all(
            isinstance(n, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom)
            for n in ast.parse(cell.source).body
        )
        # A folded cell may hold the checks of a section.
        assert cell.outputs or only_defines or cell.source.startswith("# @title "), cell.source


def test_checks_stand_in_folded_cells(lesson):
    _, notebook = lesson
    for cell in code_cells(notebook):
        is_folded = cell.source.startswith("# @title ")
        assert is_folded == bool(cell.metadata.get("jupyter", {}).get("source_hidden"))
        if not is_folded:
            assert not re.search("^ *assert ", cell.source, re.M), cell.source

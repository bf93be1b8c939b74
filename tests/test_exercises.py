"""The exercises: in step with their source; unsolved copies run; checks accept and explain.

An exercise's cells are replayed in this process after the shared ones, without a kernel for each.
"""

import contextlib
import functools
import io
import re
import runpy
from pathlib import Path

import build
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch

from going_modular.classroom import marks

NOTEBOOKS, NAMES = build.NOTEBOOKS, build.EXERCISES
ANSWERS = {
    name: runpy.run_path(str(Path(__file__).parent / "exercise_answers" / f"{name}.py"))
    for name in NAMES
}
HEADING = re.compile(r"^## Exercise (\d+) · ", re.M)


class Sheet:
    """The exercises of one notebook: shared code, and the code cells of each exercise."""

    def __init__(self, name):
        self.name, self.shared, self.exercises = name, [], {}
        current = self.shared
        for cell in build.read_exercises(name):
            if cell.cell_type == "code":
                current.append(cell.source)
            elif heading := HEADING.match(cell.source):
                current = self.exercises.setdefault(int(heading[1]), [])

    @functools.cached_property
    def namespace(self):
        """What the shared cells define; they run once."""
        names = {"__name__": "__main__"}
        run(self.shared, names)
        return names

    def play(self, number, code):
        """Answer one exercise with `code`, and return what its cells print."""
        torch.manual_seed(0)
        cells = [build.fill(cell, code) for cell in self.exercises[number]]
        return run(cells, dict(self.namespace))


def run(cells, namespace):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in cells:
            exec(compile(cell, "<cell>", "exec"), namespace)
    plt.close("all")
    return printed.getvalue()


SHEETS = {name: Sheet(name) for name in NAMES}


@pytest.fixture
def sheet(request, monkeypatch):
    """Give the exercises of a notebook, to be played where the student's copy lies."""
    monkeypatch.chdir(NOTEBOOKS / "exercises")
    return SHEETS[request.param]


def read_notebook(kind, name):
    return nbformat.read(NOTEBOOKS / kind / f"{name}.ipynb", as_version=4)


def code_of(notebook):  # the first cell is the setup
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def results(printed):
    """Return what the checks say, as {exercise: (verdict, hint)}."""
    pattern = r"^Exercise (\d+): (right|not right yet|not solved yet)[.:] ?(.*)$"
    found = re.findall(pattern, printed, flags=re.M)
    return {int(number): (verdict, hint) for number, verdict, hint in found}


# --- the files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exercises", "solutions"])
def test_every_source_has_its_notebooks_and_answers(kind):
    assert sorted(path.stem for path in (NOTEBOOKS / kind).glob("*.ipynb")) == NAMES
    assert all((NOTEBOOKS / f"{name}.ipynb").exists() for name in NAMES), "no lesson of that name"


@pytest.mark.parametrize("name", NAMES)
def test_student_copy_is_what_the_generator_makes(name):
    path = NOTEBOOKS / "exercises" / f"{name}.ipynb"
    made = nbformat.writes(build.exercise(name, "exercises"))
    assert path.read_text(encoding="utf-8").rstrip("\n") == made.rstrip("\n"), (
        "out of step: run notebooks/source/build.py exercises"
    )
    assert "# solution" not in made and "# student" not in made


@pytest.mark.parametrize("name", NAMES)
def test_solutions_are_what_the_generator_makes_and_were_run(name):
    stored = read_notebook("solutions", name)
    nbformat.validate(stored)
    assert stored.cells == build.exercise(name, "solutions").cells, (
        "out of step: run notebooks/source/build.py exercises"
    )
    outputs = [output for cell in stored.cells for output in cell.get("outputs", [])]
    assert {output.output_type for output in outputs} <= {"stream", "display_data"}
    assert all(output.get("name", "stdout") == "stdout" for output in outputs)
    printed = "".join(output.get("text", "") for output in outputs)
    verdicts = [verdict for verdict, _ in results(printed).values()]
    assert verdicts == ["right"] * len(SHEETS[name].exercises)
    assert (NOTEBOOKS / "solutions" / f"{name}.ipynb").stat().st_size < 100_000


@pytest.mark.parametrize("name", NAMES)
def test_exercises_have_their_parts(name):
    sheet = SHEETS[name]
    assert list(sheet.exercises) == list(range(1, len(sheet.exercises) + 1))
    assert 3 <= len(sheet.exercises) <= 5
    for number, cells in sheet.exercises.items():
        assert sum(map(build.has_answer, cells)) == 1
        assert [f"marks.exercise({number}, " in cell for cell in cells].count(True) == 1
        assert f"marks.exercise({number}, " in cells[-1]
        assert len(ANSWERS[name]["WRONG"].get(number, [])) >= 3, f"wrong answers to {number}"
        assert ANSWERS[name]["RIGHT"].get(number), f"another right answer to {number}"
    texts = [cell.source for cell in build.read_exercises(name) if cell.cell_type == "markdown"]
    for text in texts:
        assert text.count("<details><summary>Hint</summary>") == len(HEADING.findall(text))


# --- the checks ----------------------------------------------------------------------------------


def each_answer(kind):
    return [
        pytest.param(
            name, number, *([answer] if kind == "RIGHT" else answer), id=f"{name[:2]}-{number}-{i}"
        )
        for name in NAMES
        for number, answers in ANSWERS[name][kind].items()
        for i, answer in enumerate(answers)
    ]


@pytest.mark.parametrize("sheet", NAMES, indirect=True)
def test_unsolved_copy_runs_and_says_what_is_left_to_do(sheet):
    cells = code_of(read_notebook("exercises", sheet.name))
    found = results(run(cells[1 + len(sheet.shared) :], dict(sheet.namespace)))
    assert list(found) == list(sheet.exercises)
    for number, (verdict, hint) in found.items():
        (answer,) = filter(build.has_answer, sheet.exercises[number])
        is_empty = "There is a bug here." not in answer
        assert verdict == ("not solved yet" if is_empty else "not right yet")
        assert len(hint.split()) >= 5


@pytest.mark.parametrize("sheet", NAMES, indirect=True)
def test_solutions_pass(sheet):
    cells = code_of(read_notebook("solutions", sheet.name))
    found = results(run(cells[1 + len(sheet.shared) :], dict(sheet.namespace)))
    assert found == {number: ("right", "") for number in sheet.exercises}


@pytest.mark.parametrize(
    ("sheet", "number", "code", "words"), each_answer("WRONG"), indirect=["sheet"]
)
def test_wrong_answer_gets_the_right_hint(sheet, number, code, words):
    verdict, hint = results(sheet.play(number, code))[number]
    assert verdict == "not right yet" and words in hint


@pytest.mark.parametrize(("sheet", "number", "code"), each_answer("RIGHT"), indirect=["sheet"])
def test_another_right_answer_passes(sheet, number, code):
    assert results(sheet.play(number, code))[number] == ("right", "")


# --- the module behind them ----------------------------------------------------------------------


def verdict_of(check, capsys, **answers):
    with marks.exercise(7, **answers):
        check(**answers)
    return capsys.readouterr().out


def test_check_prints_the_message_of_the_first_failing_assertion(capsys):
    def check(value):
        if value < 2:
            raise AssertionError(f"{value} is too small")  # pytest rewrites a bare assert

    assert verdict_of(check, capsys, value=1) == "Exercise 7: not right yet: 1 is too small.\n"
    assert verdict_of(check, capsys, value=2) == "Exercise 7: right.\n"


def test_check_names_what_is_missing_even_where_nothing_fails(capsys):
    said = verdict_of(lambda a, b, c: None, capsys, a=..., b=2, c=...)
    assert said == "Exercise 7: not solved yet: `a`, `c` are still missing in the cell above.\n"


def test_check_tells_a_placeholder_from_what_pytorch_cannot_do(capsys):
    def placeholder():
        raise NotImplementedError

    def unable():
        raise NotImplementedError("no kernel for this device")

    said = verdict_of(lambda placeholder: placeholder(), capsys, placeholder=placeholder)
    assert said == "Exercise 7: not solved yet: `placeholder` is still missing in the cell above.\n"
    said = verdict_of(lambda unable: unable(), capsys, unable=unable)
    assert said.startswith("Exercise 7: not right yet: `unable` stops in the line `raise")
    assert said.endswith("with NotImplementedError: no kernel for this device.\n")


def test_check_explains_a_function_that_returns_nothing(capsys):
    said = verdict_of(lambda nothing: nothing() + 1, capsys, nothing=lambda: None)
    assert "the check stops with TypeError" in said and said.endswith("without `return`?\n")


def test_check_can_be_interrupted():
    with pytest.raises(KeyboardInterrupt), marks.exercise(7):
        raise KeyboardInterrupt


def test_fingerprint_sees_one_bit_of_a_buffer():
    norm = torch.nn.BatchNorm2d(3)
    before = marks.fingerprint(norm)
    assert marks.fingerprint(norm) == before
    norm.running_var[1] = torch.nextafter(norm.running_var[1], torch.tensor(2.0))
    assert marks.fingerprint(norm) != before

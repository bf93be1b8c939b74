"""Imports go down the house: commands, lesson modules, wings, utils."""

import ast
from pathlib import Path

import going_modular

PACKAGE = Path(going_modular.__file__).parent
FLOORS = ["utils", "wings", "lesson modules", "commands"]
LESSON_MODULES = {"data_setup", "model_builder", "engine", "evaluation"}
# `going_modular` has the names of a course: like a command, it is used from outside only.
COMMANDS = {"train", "predict", "evaluate", "audit", "export", "demo", "preflight", "going_modular"}


def floor(room):
    return 3 if room in COMMANDS else 2 if room in LESSON_MODULES else 0 if room == "utils" else 1


def imports():
    """Yield each module's path in the package, and the parts of a name that it imports from it."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else []:
                package, *parts = f"{module}{alias.name}".split(".")
                if package == "going_modular" and parts:
                    yield path.relative_to(PACKAGE), parts


def test_imports_go_down_the_house():
    rooms = [(path, path.with_suffix("").parts[0], parts) for path, parts in imports()]
    assert len(rooms) > 30
    wrong = [
        f"{path.as_posix()} imports {'.'.join(parts)}"
        for path, room, parts in rooms
        if room != "__init__" and floor(parts[0]) > floor(room)
    ]
    assert wrong == []

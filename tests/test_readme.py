"""What the README shows: its example runs, and its links lead somewhere."""

import re
from functools import partial
from pathlib import Path

from going_modular import data_setup

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_trains_and_prints_an_accuracy(monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.S)
    small = partial(data_setup.create_transform, size=64)  # the same, in seconds
    monkeypatch.setattr(data_setup, "create_transform", small)
    exec(example, {})
    *_, last = capsys.readouterr().out.splitlines()
    accuracy = float(re.match(r"(0\.\d+) \[", last)[1])
    assert accuracy > 0.6  # guessing: 0.083


def test_links_to_files_lead_somewhere():
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []

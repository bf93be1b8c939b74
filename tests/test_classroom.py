"""A notebook that lies alone, as on Colab; forks; what the preflight says. No network is needed."""

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import build
import nbformat
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager

from going_modular import preflight

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("**/*.ipynb"))

# --- One address, and forks -----------------------------------------------------------------------


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}-{p.stem[:2]}")
def test_notebook_has_the_address_of_the_one_place(path):
    here, cells = build.read_address(), nbformat.read(path, as_version=4).cells
    title, link, *_ = cells[0].source.split("\n\n")
    assert title.startswith(f"# {path.stem[:2]} · "), "the first cell has no title"
    assert link == here.link(path.relative_to(ROOT).as_posix())
    (setup,) = [cell for cell in cells if cell.id == "setup"]
    assert setup.source == build.SETUP.format(package=here.package)
    assert setup is next(cell for cell in cells if cell.cell_type == "code")
    lines = [line for line in setup.source.splitlines() if line]
    assert len(lines) <= 6


def test_link_opens_this_notebook_of_this_version():
    link = build.Address("https://github.com/ada/lessons", "v1.2").link("notebooks/01_a.ipynb")
    site = "https://colab.research.google.com/github"
    assert link == f"[Open in Colab]({site}/ada/lessons/blob/v1.2/notebooks/01_a.ipynb)"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("url", ["https://github.com/ada/lessons", "https://git.school.org/a/b"])
def test_fork_reaches_everything_and_back_gives_the_same_bytes(url, tmp_path):
    shutil.copytree(
        ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "going_modular").mkdir()
    for file in ("pyproject.toml", "README.md", "going_modular/__init__.py"):
        shutil.copy(ROOT / file, tmp_path / file)
    before, old = contents(tmp_path), build.read_address()

    def fork(url, version):
        script = tmp_path / "notebooks/source/build.py"
        command = [sys.executable, "-B", script, "fork", url, "--version", version]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"git push {url} HEAD v2.0.1" in fork(f"{url}/", "v2.0.1")
    after = contents(tmp_path)
    assert not [path for path, data in after.items() if old.url.encode() in data]
    for path in (tmp_path / "notebooks").glob("**/*.ipynb"):
        assert f"@ git+{url}@v2.0.1".encode() in after[path]
        linked = f"/ada/lessons/blob/v2.0.1/{path.relative_to(tmp_path).as_posix()})"
        assert (linked.encode() in after[path]) == url.startswith("https://github.com/")
    fork(old.url, old.version)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("url", "version", "words"),
    [
        ("git@github.com:ada/lessons.git", "v1", "as the browser shows it"),
        ("http://github.com/ada/lessons", "v1", "no address"),
        ("https://github.com/ada", "v1", "OWNER/REPOSITORY"),
        ("https://github.com/ada/lessons/tree/main", "v1", "should end after"),
        ('https://github.com/ada/les"sons', "v1", "no address"),
        ("https://github.com/ada/lessons; rm -r x", "v1", "no address"),
        ("https://github.com/ada/lessons", "main", "A branch would change"),
        ("https://github.com/ada/lessons", "v1 --upload-pack=x", "no version"),
    ],
)
def test_bad_addresses_are_refused_in_words(url, version, words):
    with pytest.raises(ValueError, match=words):
        build.parse_address(url, version)


@pytest.mark.parametrize("ending", ["", "/", ".git"])
def test_address_may_be_copied_from_the_browser(ending):
    found = build.parse_address(f"https://github.com/ada/lessons{ending}", "v1.0")
    assert found == ("https://github.com/ada/lessons", "v1.0")


# --- The setup cell -------------------------------------------------------------------------------


@pytest.fixture
def run_setup(tmp_path, monkeypatch):
    """Run the cell in a folder, with `others` to import from; return the new path, and magics."""

    def run(folder, *others):
        asked = []

        class Shell:
            def run_line_magic(self, *line):
                asked.append(line)

        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(folder)
        elsewhere = [entry for entry in sys.path if not Path(entry, "going_modular").is_dir()]
        monkeypatch.setattr(sys, "path", ["", *map(str, others), *elsewhere])
        monkeypatch.delitem(sys.modules, "going_modular")
        cell = TransformerManager().transform_cell(
            build.SETUP.format(package="going-modular @ git+https://a/b/c@v1")
        )
        exec(cell, {"get_ipython": Shell})
        return sys.path, asked

    return run


def make_package(folder):
    (folder / "going_modular").mkdir(parents=True)
    for name in ("__init__.py", "engine.py"):
        (folder / "going_modular" / name).touch()
    return folder


@pytest.mark.parametrize("place", ["notebooks", "notebooks/exercises"])
def test_in_a_checkout_the_setup_cell_finds_it_and_prefers_it(place, run_setup, tmp_path):
    checkout, installed = make_package(tmp_path / "checkout"), make_package(tmp_path / "installed")
    path, asked = run_setup(checkout / place, installed)
    assert path[:2] == [str(checkout), ""] and asked == []


def test_where_it_is_installed_the_setup_cell_does_nothing(run_setup, tmp_path):
    installed = make_package(tmp_path / "installed")
    path, asked = run_setup(tmp_path / "alone", installed)
    assert path[:2] == ["", str(installed)] and asked == []


@pytest.mark.parametrize("other", [".", "going_modular/going_modular"])
def test_alone_the_setup_cell_installs_it_whatever_folder_of_its_name_is_there(
    other, run_setup, tmp_path
):
    (tmp_path / "alone" / other).mkdir(parents=True)  # as some course's notebooks make one
    path, asked = run_setup(tmp_path / "alone")
    assert path[0] == ""
    assert asked == [("pip", 'install -q "going-modular @ git+https://a/b/c@v1"')]


# --- Preflight ------------------------------------------------------------------------------------

GOOD = preflight.Machine(
    python=(3, 11, 7),
    versions={"torch": "2.8.0"},
    missing=[],
    cores=4,
    memory=8e9,
    disk=50e9,
    device="cpu",
    precision="float32",
    speed=preflight.REFERENCE_SPEED,
)


@pytest.mark.parametrize(("slower", "time"), [(0.5, "20 s"), (1, "40 s"), (3, "2 min")])
def test_estimate_is_the_reference_scaled_by_the_speed(slower, time, monkeypatch):
    monkeypatch.setitem(preflight.NOTEBOOK_SECONDS, "04", 40)
    machine = GOOD._replace(speed=preflight.REFERENCE_SPEED / slower)
    assert f"04: {time}" in preflight.report(machine)


def test_estimates_are_for_the_notebooks_that_exist():
    assert list(preflight.NOTEBOOK_SECONDS) == [name[:2] for name in build.LESSONS]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"python": (3, 9, 1)}, "Python 3.9.1 is too old: install 3.10"),
        ({"missing": ["torchinfo>=1.8"]}, "Missing or too old: torchinfo>=1.8. Install with"),
        ({"disk": 0.3e9}, "Only 0.3 GB of disk space is free"),
        ({"memory": 2.1e9}, "Only 2.1 GB of memory"),
        ({"cores": 1}, "only one core"),
    ],
)
def test_preflight_says_what_is_missing_or_too_small(fault, words):
    assert not list(preflight.problems(GOOD)) and "Nothing is missing." in preflight.report(GOOD)
    assert words in preflight.report(GOOD._replace(**fault))


def test_missing_and_old_packages_are_found():
    torch_version = metadata.version("torch")
    lines = ["no_such_package>=1", "torch>=99", f"torch>={torch_version}", "pytest"]
    assert preflight.missing(lines) == ["no_such_package>=1", "torch>=99"]


def test_outside_a_checkout_the_installed_package_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(preflight, "LIST", tmp_path / "requirements.txt")
    needed = ["torch>=2.6", "onnx>=1.17; extra == 'export'"]
    monkeypatch.setattr(metadata, "requires", {"going-modular": needed}.get)
    assert preflight.requirements() == ["torch>=2.6"]


def test_preflight_looks_at_this_machine_and_leaves_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    found = preflight.look(seconds=0.01)
    assert torch.equal(torch.rand(1), expected)
    assert found.versions["torch"] == metadata.version("torch") and found.missing == []
    assert found.cores >= 1 and found.disk > 0 and found.memory > 1e8 and found.speed > 0


def test_preflight_speaks_without_any_package():
    done = subprocess.run(
        [sys.executable, "-S", ROOT / "going_modular/preflight.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0 and "Missing or too old: torch>=2" in done.stdout, done.stderr

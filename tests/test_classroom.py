"""A notebook that lies alone, as on Colab; forks; the teacher's folder for laptops without Wi-Fi.

Nothing here needs the network: pip gets its wheels from a folder, and git from a local repository.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import make_exercises
import nbformat
import pytest
import torch
from nbclient import NotebookClient

from going_modular import preflight
from going_modular.classroom import address, install, kit

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(
    path for folder in address.NOTEBOOK_FOLDERS for path in (ROOT / folder).glob("*.ipynb")
)


def make_wheel(folder, name, version, requires=()):
    """Write a wheel of a package that knows only its version."""
    information = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    files = {
        f"{name}/__init__.py": f'__version__ = "{version}"\n',
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + needs,
        f"{information}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{information}/RECORD"])
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{information}/RECORD": record}.items():
            wheel.writestr(path, text)


def copy_repository(target, *folders):
    for folder in folders:
        shutil.copytree(
            ROOT / folder, target / folder, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    for file in ("pyproject.toml", "requirements.txt", "README.md"):
        shutil.copy(ROOT / file, target)
    return target


def code_of(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


# --- One address, and forks -----------------------------------------------------------------------


@pytest.fixture
def fork(tmp_path):
    return copy_repository(tmp_path, "notebooks")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}-{p.stem[:2]}")
def test_notebook_has_the_address_of_the_one_place(path):
    here, place = address.read(), path.relative_to(ROOT).as_posix()
    assert code_of(path)[0] == here.setup_cell()
    title, link, *_ = (nbformat.read(path, as_version=4).cells[0].source + "\n\n").split("\n\n")
    assert title.startswith(f"# {path.stem[:2]} · "), "the first cell has no title"
    assert link == here.badge(place)


def test_link_opens_this_notebook_of_this_version():
    link = address.Address("https://github.com/ada/lessons", "v1.2").badge("notebooks/01_a.ipynb")
    site = "https://colab.research.google.com/github"
    assert link == f"[Open in Colab]({site}/ada/lessons/blob/v1.2/notebooks/01_a.ipynb)"


def test_checkout_is_in_step_with_the_one_place(fork):
    assert address.rewrite(address.read(fork), fork) == []


@pytest.mark.parametrize("url", ["https://github.com/ada/lessons", "https://git.school.org/a/b"])
def test_rewrite_reaches_everything_and_back_gives_the_same_bytes(fork, url, monkeypatch):
    before, old = contents(fork), address.read(fork)
    new = address.parse(url, "v2.0.1")
    assert len(address.rewrite(new, fork)) > len(NOTEBOOKS)
    assert address.rewrite(new, fork) == []
    after = contents(fork)
    assert not [path for path, data in after.items() if old.url.encode() in data]
    assert not [path for path, data in after.items() if old.folder.encode() in data]
    assert any(b"colab.research" in d for d in after.values()) == new.is_on_github
    monkeypatch.setattr(make_exercises, "NOTEBOOKS", fork / "notebooks")
    monkeypatch.setattr(
        make_exercises, "SETUP_LESSON", fork / "notebooks/source/02_feature_extraction.py"
    )
    for path in (fork / "notebooks/exercises").glob("*.ipynb"):
        made = nbformat.writes(make_exercises.build(path.stem, "exercises"))
        assert path.read_text(encoding="utf-8").rstrip("\n") == made.rstrip("\n")
    address.rewrite(old, fork)
    assert contents(fork) == before


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
        address.parse(url, version)


@pytest.mark.parametrize("ending", ["", "/", ".git"])
def test_address_may_be_copied_from_the_browser(ending):
    found = address.parse(f"https://github.com/ada/lessons{ending}", "v1.0")
    assert found == ("https://github.com/ada/lessons", "v1.0")


# --- A notebook alone -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Make a Python that sees what is installed here, and installs into a folder of its own."""
    folder = tmp_path_factory.mktemp("machine")
    venv.create(folder / "venv", with_pip=False)
    scripts = "Scripts" if os.name == "nt" else "bin"
    here = sysconfig.get_paths(vars={"base": folder / "venv", "platbase": folder / "venv"})
    Path(here["purelib"], "there.pth").write_text(sysconfig.get_path("purelib"))
    for name, version in (("torch", "99.0"), ("lesson_extra", "1.0")):
        make_wheel(folder / "wheels", name, version)
    make_wheel(folder / "wheels", "lesson_tools", "2.0", ["torch", "lesson-extra"])
    make_wheel(folder / "wheels", "greedy", "1.0", ["torch>=99"])
    return folder / "venv" / scripts / "python", Path(here["purelib"]), folder / "wheels"


@pytest.fixture
def offline(machine, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(machine[2]))
    monkeypatch.setenv("PYTHONPATH", "")


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Commit this checkout, with a missing package and a newer torch among its requirements."""
    folder = tmp_path_factory.mktemp("published")
    source = copy_repository(folder / "lessons-1.0", "going_modular")
    with (source / "requirements.txt").open("a") as file:
        file.write("lesson-tools>=2\ntorch>=99\n")
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@school.org", "-C", source]
    for command in (["init"], ["add", "."], ["commit", "-m", "Publish"], ["tag", "v1.0"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    bare = folder / "lessons"
    subprocess.run(["git", "clone", "--bare", source, bare], check=True, capture_output=True)
    (bare / "archive").mkdir()  # where GitHub makes one
    archive = ["archive", "--prefix=lessons-1.0/", "-o", bare / "archive/v1.0.zip", "v1.0"]
    subprocess.run([*git, *archive], check=True)
    return bare.as_uri()


def torch_files():
    record = Path(metadata.distribution("torch").locate_file(""))
    record /= f"torch-{metadata.version('torch')}.dist-info/RECORD"
    return record.stat().st_mtime_ns, record.read_bytes()


def run_alone(cells, machine, folder, monkeypatch):
    """Run cells as a notebook that lies alone in `folder`, in a kernel; return what it prints."""
    kernel = folder.parent / "jupyter/kernels/alone"
    kernel.mkdir(parents=True, exist_ok=True)
    argv = [str(machine[0]), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    specification = {"argv": argv, "display_name": "Alone", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(specification))
    monkeypatch.setenv("JUPYTER_PATH", str(folder.parent / "jupyter"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    resources = {"metadata": {"path": folder}}
    NotebookClient(notebook, kernel_name="alone", resources=resources).execute()
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.outputs)


def test_notebook_alone_gets_its_version_and_only_what_is_missing(
    machine, repository, offline, tmp_path, monkeypatch
):
    folder, before = tmp_path / "alone", torch_files()
    folder.mkdir()
    _, imports, *_ = code_of(ROOT / "notebooks/02_feature_extraction.ipynb")
    show = "import lesson_tools, going_modular\nprint(torch.__version__, going_modular.__file__)"
    setup = address.Address(repository, "v1.0").setup_cell()
    said = run_alone([setup, imports, show], machine, folder, monkeypatch)
    assert "Installing lesson-tools\n" in said and "detached" not in said
    assert f"torch {metadata.version('torch')} is older than torch>=99.\nIt stays" in said
    assert str(folder / "lessons-1.0" / "going_modular") in said
    new = {path.name.partition("-")[0] for path in machine[1].iterdir()} - {"there.pth"}
    assert new == {"lesson_tools", "lesson_extra"}
    assert torch_files() == before


def test_without_git_it_gets_the_archive_and_the_second_time_nothing(
    machine, repository, offline, tmp_path, monkeypatch
):
    for path in machine[1].glob("lesson_*"):
        shutil.rmtree(path)
    monkeypatch.setenv("PATH", "")
    file = tmp_path / "alone.py"
    file.write_text(address.Address(repository, "v1.0").setup_cell())
    first, again = (
        subprocess.run([machine[0], file], cwd=tmp_path, capture_output=True, text=True)
        for _ in range(2)
    )
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "Installing lesson-tools\n" in first.stdout and "Installing" not in again.stdout
    assert (tmp_path / "lessons-1.0/going_modular").is_dir()
    assert not (tmp_path / "lessons-1.0/.git").exists()


@pytest.mark.parametrize("place", ["notebooks", "notebooks/exercises"])
def test_in_the_repository_the_setup_cell_does_nothing_but_find_it(
    place, tmp_path, monkeypatch, capfd
):
    fork = copy_repository(tmp_path, "going_modular", "notebooks")
    files = contents(fork)
    monkeypatch.chdir(fork / place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    exec(address.Address("https://127.0.0.1:9/a/b", "v1").setup_cell(), {})
    assert sys.path[0] == str(fork)
    assert contents(fork) == files and capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("url", "version"), [(None, "v9.9"), ("https://127.0.0.1:9/ada/lessons", "v1.0")]
)
def test_no_such_version_or_no_internet_is_said_in_words(
    url, version, repository, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cell = address.Address(url or repository, version).setup_cell()
    with pytest.raises(AssertionError, match=f"No {version} of {url or repository}: no internet"):
        exec(cell, {})
    assert list(tmp_path.iterdir()) == []


# --- What is missing ------------------------------------------------------------------------------


def test_only_missing_and_old_packages_of_the_notebooks_are_found(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text(
        "# a comment\nnew_one>=1  # why\nold.one>=2\nthere\nnbval\nother; python_version < '3'\n"
    )
    installed = {"old-one": "1.9", "there": "0.1rc1"}
    found = install.missing(install.read_requirements(file), installed)
    assert [requirement.name for requirement in found] == ["new_one", "old.one"]


def test_tools_that_no_notebook_needs_are_requirements():
    names = {install.canonicalize_name(r.name) for r in install.read_requirements()}
    assert names >= install.TOOLS | install.KEPT
    imported = "\n".join(source for path in NOTEBOOKS for source in code_of(path)[1:])
    assert not [name for name in install.TOOLS if f"import {name.replace('-', '_')}" in imported]


@pytest.mark.parametrize("wanted", ["greedy", "nowhere"])
def test_what_cannot_be_installed_leaves_all_as_it_is(wanted, machine, offline, tmp_path):
    file, before = tmp_path / "requirements.txt", {*machine[1].iterdir()}
    file.write_text(f"{wanted}\n")
    code = f"install['install'](__import__('pathlib').Path({str(file)!r}))"
    run = f"import runpy; install = runpy.run_path({install.__file__!r}); {code}"
    done = subprocess.run([machine[0], "-c", run], capture_output=True, text=True)
    assert done.returncode == 1 and f"Could not install {wanted}." in done.stderr
    assert "Traceback" not in done.stderr and {*machine[1].iterdir()} == before


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


def test_estimate_is_the_reference_scaled_by_the_speed(monkeypatch):
    assert preflight.estimate(preflight.REFERENCE_SPEED) == preflight.NOTEBOOK_SECONDS
    half = preflight.estimate(preflight.REFERENCE_SPEED / 2)
    assert half == {name: 2 * seconds for name, seconds in preflight.NOTEBOOK_SECONDS.items()}
    monkeypatch.setitem(preflight.NOTEBOOK_SECONDS, "04", 101)
    assert "04: 5 min" in preflight.report(GOOD._replace(speed=preflight.REFERENCE_SPEED / 3))


def test_estimates_are_for_notebooks_that_exist():
    assert set(preflight.NOTEBOOK_SECONDS) <= {path.stem[:2] for path in NOTEBOOKS}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"python": (3, 9, 1)}, "Python 3.9.1 is too old: install 3.10"),
        ({"missing": ["torchinfo>=1.8"]}, "Missing or too old: torchinfo>=1.8. Install with"),
        ({"missing": [f"{preflight.WEIGHTS}>=0.1"]}, "no notebook runs, and offline"),
        ({"disk": 0.3e9}, "Only 0.3 GB of disk are free"),
        ({"memory": 2.1e9}, "2.1 GB of memory are few"),
        ({"cores": 1}, "one core only"),
    ],
)
def test_preflight_says_what_is_missing_or_too_small(fault, words):
    assert preflight.problems(GOOD) == [] and "Nothing is missing." in preflight.report(GOOD)
    assert words in preflight.report(GOOD._replace(**fault))


def test_preflight_looks_at_this_machine_and_leaves_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    found = preflight.look(seconds=0.01)
    assert torch.equal(torch.rand(1), expected)
    assert found.versions["torch"] == metadata.version("torch") and found.missing == []
    assert found.cores >= 1 and found.disk > 0 and found.memory > 1e8 and found.speed > 0


def test_preflight_speaks_without_pytorch(tmp_path):
    import packaging

    shutil.copytree(Path(packaging.__file__).parent, tmp_path / "packaging")
    done = subprocess.run(  # -S: without any package but this one
        [sys.executable, "-S", ROOT / "going_modular/preflight.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 0 and "Missing or too old: torch>=2.4" in done.stdout, done.stderr


# --- The teacher's folder -------------------------------------------------------------------------


@pytest.fixture
def small_kit(offline, tmp_path):
    """Build a kit whose only requirement for learners is a local wheel."""
    root = tmp_path / "repository"
    (root / "going_modular").mkdir(parents=True)
    (root / "notebooks").mkdir()
    (root / "requirements.txt").write_text("lesson-extra\npytest>=8\n")
    (root / "notebooks/01.ipynb").write_text("empty")
    (root / "going_modular/preflight.py").write_text("import lesson_extra; print('ready')")
    kit.build(tmp_path / "kit", root=root)
    return tmp_path / "kit"


def run_install(folder, target, **environment):
    return subprocess.run(
        [sys.executable, folder / "install.py", target],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def test_kit_installs_offline_and_keeps_what_a_learner_wrote(small_kit, tmp_path):
    assert [path.name for path in (small_kit / "wheels").iterdir()] == [
        "lesson_extra-1.0-py3-none-any.whl"
    ]
    assert len((small_kit / "INSTALL.txt").read_text().splitlines()) == 5
    target = tmp_path / "laptop"
    nowhere = {"PIP_FIND_LINKS": "", "PIP_INDEX_URL": "https://127.0.0.1:9"}
    done = run_install(small_kit, target, **nowhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ready" in done.stdout and "-m jupyterlab notebooks" in done.stdout
    (target / "notebooks/01.ipynb").write_text("my answers")
    assert run_install(small_kit, target, **nowhere).returncode == 0
    assert (target / "notebooks/01.ipynb").read_text() == "my answers"


@pytest.mark.parametrize("fault", ["changed", "gone", "python", "inside"])
def test_kit_says_what_is_wrong_before_it_installs(fault, small_kit, tmp_path):
    target = tmp_path / "laptop"
    if fault == "changed":
        (small_kit / "lessons/notebooks/01.ipynb").write_text("half")
    elif fault == "gone":
        next((small_kit / "wheels").iterdir()).unlink()
    elif fault == "python":
        about = small_kit / "kit.json"
        about.write_text(about.read_text().replace('"python": "3', '"python": "2'))
    else:
        target = small_kit / "laptop"
    done = run_install(small_kit, target)
    words = {"changed": "Broken or missing", "gone": "wheels/lesson_extra", "inside": "another"}
    assert done.returncode == 1 and words.get(fault, "is for Python 2") in done.stderr
    assert not target.exists()


def test_kit_for_another_system_takes_what_that_system_needs(offline, tmp_path, monkeypatch):
    wheels = tmp_path / "wheels"
    needs = ['on_windows; sys_platform == "win32"', 'on_linux; platform_system == "Linux"']
    make_wheel(wheels, "app", "1.0", needs)
    make_wheel(wheels, "on_windows", "1.0")
    make_wheel(wheels, "on_linux", "1.0")
    root = tmp_path / "repository"
    root.mkdir()
    (root / "requirements.txt").write_text("app\n")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    found = {}
    for platform in ("win_amd64", "manylinux_2_28_x86_64"):
        folder = tmp_path / platform
        kit.build(folder, [platform], "3.12", root=root)
        found[platform] = {path.name.partition("-")[0] for path in (folder / "wheels").iterdir()}
    assert found["win_amd64"] == {"app", "on_windows"}
    assert found["manylinux_2_28_x86_64"] == {"app", "on_linux"}


def test_kit_is_not_built_into_what_it_copies(tmp_path):
    with pytest.raises(ValueError, match="Choose another folder"):
        kit.build(tmp_path / "runs/kit", root=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("platform", ["windows", "win_amd65", "linux_x86_64", "macosx_11_0"])
def test_unknown_platforms_are_refused(platform):
    with pytest.raises(ValueError, match="no platform known here"):
        kit.system(platform)

"""Install what the notebooks lack: the setup cell runs this file where it fetched the repository.

It imports nothing of the package, which cannot be imported before. What is there stays as it is,
above all PyTorch: each version that is installed is a constraint for pip. Only a package that is
too old for the notebooks is replaced, and PyTorch not even then.
"""

import importlib
import site
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REQUIREMENTS = Path(__file__).resolve().parent.parent.parent / "requirements.txt"
KEPT = {"torch", "torchvision"}  # a machine's own fit its GPU
# No notebook imports these.
TOOLS = {"gradio", "jupyterlab", "jupytext", "nbval", "pytest", "pytest-xdist", "ruff"}
TOOLS |= {"efficientnet-lite-pytorch"}


def read_requirements(path: Path = REQUIREMENTS) -> list[Requirement]:
    lines = [line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines()]
    return [Requirement(line) for line in lines if line]


def missing(requirements: list[Requirement], installed: dict[str, str]) -> list[Requirement]:
    """Return what is not installed or too old, of what the notebooks import on this machine."""
    found = []
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if name in TOOLS or (requirement.marker and not requirement.marker.evaluate()):
            continue
        version = installed.get(name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            found.append(requirement)
    return found


def installed_versions() -> dict[str, str]:
    """Return the version of each package that Python finds here, by its normalized name."""
    found = {}
    for package in metadata.distributions():
        name = package.metadata["Name"]
        if name and package.version:  # what an interrupted installation left has neither
            found.setdefault(canonicalize_name(name), package.version)
    return found


def install(requirements: Path = REQUIREMENTS) -> None:
    """Install what is missing, and say what it is. Raises SystemExit, in words, where pip fails."""
    installed = installed_versions()
    wanted = missing(read_requirements(requirements), installed)
    for requirement in [r for r in wanted if canonicalize_name(r.name) in KEPT & set(installed)]:
        print(f"{requirement.name} {installed[requirement.name]} is older than {requirement}.")
        print("It stays as it is; something may not work with it.")
        wanted.remove(requirement)
    if not wanted:
        return
    names = [canonicalize_name(requirement.name) for requirement in wanted]
    print("Installing", ", ".join(names), flush=True)
    kept = [f"{name}=={version}" for name, version in installed.items() if name not in names]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(kept), "utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command = [*pip, "--constraint", str(constraints), *map(str, wanted)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(
            f"{done.stderr}\nCould not install {', '.join(names)}. Is the internet on? "
            "If a version above is in conflict with one here, install into an environment of its "
            f"own: python -m pip install -r {requirements}"
        )
    # Make the running Python look again, also in the user's own folder, which may be new.
    if site.ENABLE_USER_SITE:
        site.addsitedir(site.getusersitepackages())
    importlib.invalidate_caches()


if __name__ == "__main__":
    install()

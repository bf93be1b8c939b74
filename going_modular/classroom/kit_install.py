"""Install the lessons from this folder, without the internet: `python install.py [TARGET]`.

It checks the files, makes an environment of its own in TARGET (by default `transfer-learning` in
your home folder) and copies the notebooks there. Run again, it goes on; what you changed stays.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

KIT = Path(__file__).resolve().parent


def main(arguments: "list[str]") -> None:
    kit = json.loads((KIT / "kit.json").read_text(encoding="utf-8"))
    here = "{}.{}".format(*sys.version_info)
    if here != kit["python"]:
        sys.exit(f"This folder is for Python {kit['python']}, and this is {here}. See INSTALL.txt.")
    target = Path(arguments[0] if arguments else Path.home() / "transfer-learning").resolve()
    if target == KIT or KIT in target.parents:
        sys.exit(f"Choose another place than {target}: on the laptop, not in this folder.")
    print("1 of 3: checking the files", flush=True)
    check(kit["sha256"])
    print(f"2 of 3: installing into {target}", flush=True)
    copy_lessons(target)
    python = install(target)
    print("3 of 3: looking at this machine", flush=True)
    subprocess.run([python, target / "going_modular" / "preflight.py"])
    print(f'\nDone. To open the notebooks:\n\n  cd "{target}"')
    call = "& " if os.name == "nt" else ""  # PowerShell wants it before a quoted command
    print(f'  {call}"{python}" -m jupyterlab notebooks\n')


def check(sums: "dict[str, str]") -> None:
    """Compare all files with their checksums. Raises SystemExit that names the bad ones."""
    bad = [name for name, wanted in sums.items() if not is_whole(KIT / name, wanted)]
    if bad:
        sys.exit("Broken or missing, copy this folder again: " + ", ".join(bad))


def is_whole(path: Path, wanted: str) -> bool:
    try:
        return checksum(path) == wanted
    except OSError:
        return False


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, of which few bytes are in memory at a time."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(2**20), b""):
            digest.update(piece)
    return digest.hexdigest()


def copy_lessons(target: Path) -> None:
    """Copy what is not there yet: a notebook that is may hold somebody's answers."""
    for path in (KIT / "lessons").rglob("*"):
        copy = target / path.relative_to(KIT / "lessons")
        if path.is_file() and not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            part = copy.with_name(copy.name + ".part")  # no half file stays if this is interrupted
            shutil.copyfile(path, part)
            part.replace(copy)


def install(target: Path) -> Path:
    """Make the environment, and install into it from this folder only; return its Python."""
    python = target / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    try:
        if not has_pip(python):
            venv.create(target / ".venv", with_pip=True)
    except subprocess.CalledProcessError:
        sys.exit("Python cannot make an environment here. On Debian: apt install python3-venv.")
    pip = [python, "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--quiet"]
    source = ["--no-index", "--find-links", KIT / "wheels", "-r", KIT / "requirements.txt"]
    if subprocess.run([*pip, *source]).returncode:
        sys.exit("pip failed, see above. Is this folder for another kind of computer?")
    return python


def has_pip(python: Path) -> bool:
    return python.exists() and not subprocess.run([python, "-c", "import pip"]).returncode


if __name__ == "__main__":
    main(sys.argv[1:])

"""Point all notebooks to a fork: `python -m going_modular.classroom.address ADDRESS`.

The repository's address and version stand in pyproject.toml, and nowhere else for an author: this
module writes the setup cell and the link to Colab, which need them, into every notebook, its twin
and the exercises. No notebook is executed.
"""

import argparse
import re
import sys
import zlib
from pathlib import Path
from typing import NamedTuple

import nbformat

from going_modular.classroom import PARTS, ROOT, TEXTS

NOTEBOOK_FOLDERS = tuple(PARTS)
ADDRESS_LINE = re.compile(r'(?<=^Repository = ")[^"]+(?="$)', re.M)
VERSION_LINE = re.compile(r'(?<=^version = ")[^"]+(?="$)', re.M)
# Words and no picture: the usual badge is loaded from Colab's site, and broken without a network.
BADGE = re.compile(r"\n\n\[Open in Colab\]\(\S+\)")

SETUP = """\
import os
import sys
from contextlib import suppress
from pathlib import Path
from runpy import run_path
from shutil import unpack_archive
from urllib.request import urlretrieve

REPOSITORY, VERSION = "{url}", "{version}"
fetched = Path("{folder}").absolute()
root = next((p for p in fetched.parents if (p / "going_modular/classroom").is_dir()), fetched)
if root == fetched:  # the notebook lies alone, as on Colab: fetch what it needs
    git = f"git clone -q --depth=1 -b {{VERSION}} -c advice.detachedHead=false {{REPOSITORY}}"
    if not fetched.exists() and os.system(f"{{git}} {{fetched.name}}") != 0:  # or without git
        with suppress(OSError):
            unpack_archive(urlretrieve(f"{{REPOSITORY}}/archive/{{VERSION}}.zip")[0], format="zip")
    assert fetched.exists(), f"No {{VERSION}} of {{REPOSITORY}}: no internet, or no such version?"
    run_path(str(fetched / "going_modular/classroom/install.py"), run_name="__main__")
sys.path.insert(0, str(root))"""


class Address(NamedTuple):
    """Where a notebook that lies alone finds the rest: a repository and one of its tags."""

    url: str
    version: str

    @property
    def is_on_github(self) -> bool:
        return self.url.startswith("https://github.com/")

    @property
    def folder(self) -> str:
        """The folder to fetch it to, named as GitHub names the one in its archives."""
        return (
            f"{self.url.rpartition('/')[2].removesuffix('.git')}-{self.version.removeprefix('v')}"
        )

    def setup_cell(self) -> str:
        return SETUP.format(url=self.url, version=self.version, folder=self.folder)

    def badge(self, path: str) -> str:
        """Return a link that opens the notebook `path` on Colab, which fetches only from GitHub."""
        if not self.is_on_github:
            return ""
        place = self.url.removeprefix("https://")
        site = "https://colab.research.google.com"
        return f"[Open in Colab]({site}/{place.replace('.com', '', 1)}/blob/{self.version}/{path})"


def read(root: Path = ROOT) -> Address:
    """Return the address that stands in pyproject.toml."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    return Address(ADDRESS_LINE.search(text)[0], f"v{VERSION_LINE.search(text)[0]}")


def parse(url: str, version: str) -> Address:
    """Return the address as it is written everywhere.

    Raises ValueError for one that a learner's machine could not fetch from.
    """
    url = url.strip().removesuffix("/")
    if not re.fullmatch(r"(https://[\w.-]+(:\d+)?|file://)(/[\w.~+%:-]+)+", url):
        raise ValueError(
            f"{url!r} is no address to fetch from: write https://github.com/OWNER/REPOSITORY, as "
            "the browser shows it. Others have no ssh key for it."
        )
    if url.startswith("https://github.com/"):
        url = url.removesuffix(".git")
        if url.count("/") != 4:
            raise ValueError(f"{url!r} should end after https://github.com/OWNER/REPOSITORY.")
    if not re.fullmatch(r"v\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)?", version):
        raise ValueError(
            f"{version!r} is no version: give a tag such as v0.2.0. A branch would change under "
            "the learners' hands."
        )
    return Address(url, version)


def rewrite(new: Address, root: Path = ROOT) -> list[Path]:
    """Write `new` to all files that name the address; return those that changed.

    Nothing is written unless all files can be.
    """
    old, files = read(root), {}
    path = root / "pyproject.toml"
    text = ADDRESS_LINE.sub(new.url, path.read_text(encoding="utf-8"))
    files[path] = VERSION_LINE.sub(new.version.removeprefix("v"), text)
    for folder in NOTEBOOK_FOLDERS:
        for path in sorted((root / folder).glob("*.ipynb")):
            files[path] = _notebook(path, new, f"{folder}/{path.name}")
    for path in sorted((root / "notebooks/source").glob("*.py")):
        files[path] = _twin(path.read_text(encoding="utf-8"), new, f"notebooks/{path.stem}.ipynb")
    for path in (root / name for name in TEXTS):
        if path.exists():
            files[path] = re.sub(
                re.escape(old.url) + r"(?![\w.-])", new.url, path.read_text(encoding="utf-8")
            )
    changed = [path for path in files if path.read_bytes() != files[path].encode()]
    for path in changed:
        path.write_bytes(files[path].encode())
    return changed


# --- One file -------------------------------------------------------------------------------------


def with_badge(title: str, badge: str) -> str:
    """Return a notebook's first cell with the link below its title, in place of one there."""
    heading, *rest = BADGE.sub("", title).split("\n\n")
    return "\n\n".join([heading, *filter(None, [badge]), *rest])


def _notebook(path: Path, address: Address, place: str) -> str:
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    setup = next(n for n, cell in enumerate(notebook.cells) if cell.cell_type == "code")
    title = with_badge(notebook.cells[0].source, address.badge(place))
    for number, source in ((0, title), (setup, address.setup_cell())):
        cell = notebook.cells[number]
        if cell.id == cell_id(number, cell.source):  # made from the text: stays so
            cell.id = cell_id(number, source)
        cell.source = source
    return nbformat.writes(notebook) + ("\n" if text.endswith("\n") else "")


def cell_id(number: int, source: str) -> str:
    """Return an id made from the text, so that making a notebook again gives the same bytes."""
    return f"cell-{number:02}-{zlib.crc32(source.encode()):08x}"


def _twin(text: str, address: Address, place: str) -> str:
    head, *cells = re.split(r"^(?=# %%)", text, flags=re.M)
    code = next(n for n, cell in enumerate(cells) if not cell.startswith("# %% [markdown]"))
    marker, _, _ = cells[code].partition("\n")  # it may hold metadata
    cells[code] = f"{marker}\n{address.setup_cell()}\n\n"
    marker, _, title = cells[0].rstrip("\n").partition("\n")
    title = with_badge(re.sub("^# ?", "", title, flags=re.M), address.badge(place))
    title = "\n".join(f"# {line}".rstrip() for line in title.split("\n"))
    cells[0] = f"{marker}\n{title}\n\n"
    return "".join([head, *cells])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="going_modular.classroom.address", description=__doc__)
    parser.add_argument("address", nargs="?", help="of your fork: https://github.com/OWNER/NAME")
    parser.add_argument(
        "--version", help="the tag to fetch, such as v0.2.0; as it is, if not given"
    )
    chosen = parser.parse_args(arguments)
    old = read()
    try:
        new = parse(chosen.address or old.url, chosen.version or old.version)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    changed = rewrite(new)
    print(f"{new.url} at {new.version}: {len(changed)} files changed")
    for path in changed:
        print(f"  {path.relative_to(ROOT).as_posix()}")
    if not new.is_on_github:
        print("Colab opens notebooks from GitHub only, so they have no link to it.")
    if changed:
        print(f"Publish it: git commit -am 'Change the address', git tag {new.version}, then")
        print(f"git push {new.url} HEAD {new.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

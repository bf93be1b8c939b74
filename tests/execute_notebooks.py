"""Make notebooks from their twins in notebooks/source/ and run them, outputs kept.

Run by hand: `python tests/execute_notebooks.py [NAME ...]`, all of them without a name.
"""

import base64
import io
import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))

from going_modular.classroom import address

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def build(name: str) -> nbformat.NotebookNode:
    """Return the notebook of a twin, with the cell ids of the one that is there."""
    notebook = jupytext.read(NOTEBOOKS / "source" / f"{name}.py")
    path = NOTEBOOKS / f"{name}.ipynb"
    old = nbformat.read(path, as_version=4).cells if path.exists() else []
    ids = {cell.source: cell.id for cell in old}
    for number, cell in enumerate(notebook.cells):
        cell.id = ids.get(cell.source) or address.cell_id(number, cell.source)
    notebook.metadata.pop("jupytext", None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    return notebook


def shrink(output: nbformat.NotebookNode) -> None:
    """Reduce a picture to 256 colours, which halves its bytes and is not seen."""
    png = output.get("data", {}).get("image/png")
    if png:
        small = io.BytesIO()
        with Image.open(io.BytesIO(base64.b64decode(png))) as image:
            image.convert("RGB").quantize(256).save(small, "PNG", optimize=True)
        output.data["image/png"] = base64.b64encode(small.getvalue()).decode()


def execute(name: str) -> None:
    """Run a notebook from top to bottom and write it where all cells have passed."""
    notebook = build(name)
    start = time.perf_counter()
    # Bars are for those who watch; in a stored notebook they would only be noise.
    os.environ["TQDM_DISABLE"] = "1"
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": NOTEBOOKS}})
    client.execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            shrink(output)
    path = NOTEBOOKS / f"{name}.ipynb"
    nbformat.write(notebook, path)
    seconds, kilobytes = time.perf_counter() - start, path.stat().st_size / 1000
    print(f"{name}: {seconds:.0f} s, {kilobytes:.0f} kB")


if __name__ == "__main__":
    twins = sorted(path.stem for path in (NOTEBOOKS / "source").glob("*.py"))
    for chosen in sys.argv[1:] or twins:
        execute(chosen)

"""What a class needs around the notebooks."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = {  # folders of notebooks, in the order in which they are read
    "notebooks": "Lessons",
    "notebooks/exercises": "Exercises",
    "notebooks/solutions": "Solutions",
}
# Texts beside them; the first one is where a reader starts.
TEXTS = ["README.md", "notebooks/TEACHING.md", "data/README.md", ".github/SECURITY.md"]

"""Draw the house by its imports, with its lines: `python tests/by_hand/house.py`.

Floors stand from the top down, so arrows point to the same floor or below, or say that they do not.
"""

import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the package

from test_house import FLOORS, PACKAGE, floor, imports


def main() -> None:
    lines, arrows = Counter(), defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        lines[path.relative_to(PACKAGE).with_suffix("").parts[0]] += len(path.open().readlines())
    for path, parts in imports():
        room = path.with_suffix("").parts[0]
        if parts[0] in lines.keys() - {room}:
            arrows[room].add(parts[0])
    del lines["__init__"]
    for number, title in reversed(list(enumerate(FLOORS))):
        rooms = sorted(room for room in lines if floor(room) == number)
        print(f"\n{title}: {sum(lines[room] for room in rooms):,} lines")
        for room in rooms:
            below = sorted(arrows[room], key=lambda other: (-floor(other), other))
            marked = [f"{o} (UPWARDS)" if floor(o) > number else o for o in below]
            print(f"  {room:<14}{lines[room]:>6,}  {'-> ' * bool(below)}{', '.join(marked)}")
    print(f"\n{lines.total():,} lines in all")


if __name__ == "__main__":
    main()

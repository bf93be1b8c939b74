"""The package's dependencies, read from requirements.txt as it is built (hatchling calls this)."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface


class Requirements(MetadataHookInterface):
    """What stands before the first `# [name]` is needed; after it, an extra of that name."""

    def update(self, metadata: dict) -> None:
        text = Path(self.root, "requirements.txt").read_text(encoding="utf-8")
        needed, *extras = re.split(r"^# \[(\w+)\].*$", text, flags=re.M)
        metadata["dependencies"] = self.lines(needed)
        metadata["optional-dependencies"] = {
            name: self.lines(part) for name, part in zip(extras[::2], extras[1::2], strict=True)
        }

    @staticmethod
    def lines(text: str) -> list[str]:
        return [line for line in text.splitlines() if line and not line.startswith("#")]

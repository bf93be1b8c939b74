"""What the check cells of the exercises share: say in words what is right, wrong or left to do.

It knows answers, errors and modules; what an exercise asks for stands in its check cell.
"""

import hashlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def exercise(number: int, **answers: Any) -> Iterator[None]:
    """Run the assertions of a check cell and print what they find; a message is a hint.

    `answers` are the learner's names and their values. An answer is missing while it is `...`, or
    a function that raises NotImplementedError without a message. No error leaves the check.
    """
    missing = [name for name, value in answers.items() if value is ...]
    hint = ""
    try:
        yield
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)  # the innermost last
        called = [frame for frame in frames if frame.name in answers]
        # PyTorch raises it too, for what it cannot do, and says what.
        if isinstance(error, NotImplementedError) and not error.args:
            missing += [frame.name for frame in called[-1:]]
        hint = _describe(error, called)
    if missing:
        names = ", ".join(f"`{name}`" for name in missing)
        verb = "is" if len(missing) == 1 else "are"
        print(f"Exercise {number}: not solved yet: {names} {verb} still missing in the cell above.")
    elif hint:
        print(f"Exercise {number}: not right yet: {hint}{'' if hint.endswith('?') else '.'}")
    else:
        print(f"Exercise {number}: right.")


def fingerprint(module: nn.Module) -> str:
    """Hash every parameter and every buffer of a module, bit for bit."""
    tensors = module.state_dict().values()
    return hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in tensors)).hexdigest()[:12]


def _describe(error: Exception, called: list[traceback.FrameSummary]) -> str:
    if isinstance(error, AssertionError) and error.args:
        return str(error)
    where = f"`{called[-1].name}`" if called else "the check"
    line = f" in the line `{called[-1].line}`" if called and called[-1].line else ""
    message = (str(error).splitlines() or [""])[0].rstrip(".")
    text = f"{where} stops{line} with {type(error).__name__}: {message}"
    if "NoneType" in message:
        text += ". Does a function end without `return`?"
    return text

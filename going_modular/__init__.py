"""Transfer learning for image classification: data, models, training and honest evaluation."""

import os
import sys

# While `python -m` starts a module, the current folder comes before all others: in a folder of
# somebody's photos, a torch.py there would be run. The project's own folder stays.
_PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if sys.argv[:1] == ["-m"] and sys.path[0] in ("", os.getcwd()) and os.getcwd() != _PROJECT:
    del sys.path[0]

# Registers the embedded backbone with torchvision.
from going_modular import efficientnet_lite as efficientnet_lite  # noqa: E402

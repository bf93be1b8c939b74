"""A model as an ONNX graph: traced, written, and run by ONNX Runtime on the CPU.

ONNX Runtime answers EfficientNet-Lite0's images in three fifths of PyTorch's time in float32. For a
few images the translation takes longer than it saves.
"""

import copy
import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest import mock

import torch
from torch import Tensor, nn

from going_modular.utils import one_line

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
WORTH = 2000  # images; translating takes as long as it saves on up to a thousand
TOLERANCE = 1e-4  # in probability; float32 sums in another order differ by about 1e-6


def missing_packages() -> list[str]:
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def trace(model: nn.Module, size: int) -> torch.export.ExportedProgram:
    """Trace a copy of the model on the CPU, in eval mode, with a free batch size."""
    model = copy.deepcopy(model).to("cpu", torch.float32, memory_format=torch.contiguous_format)
    # Of frozen attention, PyTorch before 2.8 makes one fused operation, which ONNX does not know.
    model.eval().requires_grad_(True)
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # an activation in place takes ONNX's translation twice as long
    images = torch.zeros(2, 3, size, size)  # a batch of one would be taken for a constant
    batch = torch.export.Dim("batch", min=1)
    with torch.enable_grad():
        program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names folders of this machine
    return program


def write(program: torch.export.ExportedProgram, path: Path) -> None:
    """Translate a traced model to ONNX: images (N, 3, H, W) to logits (N, classes)."""
    torch.onnx.export(
        program,
        (),
        path,
        dynamo=True,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: "batch"},),  # only the name, which PyTorch before 2.7 does not take
        external_data=False,
        verbose=False,
    )


def runner(path: Path, threads: int | None = None) -> Callable[[Tensor], Tensor]:
    """Return a function from images to logits; by default with as many threads as PyTorch has."""
    onnxruntime = import_onnxruntime()
    onnxruntime.set_default_logger_severity(3)  # it warns of each device that it does not find
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime without its telemetry, on which it decides while it is imported."""
    with mock.patch.dict(os.environ, ORT_DISABLE_TELEMETRY="1"):
        import onnxruntime
    return onnxruntime


class InOnnxRuntime(nn.Module):
    """Answers as `model` does, on the CPU in float32, through ONNX Runtime.

    Raises RuntimeError where it would not answer the same, and whatever the translation raises.
    """

    def __init__(self, model: nn.Module, size: int, threads: int | None = None) -> None:
        super().__init__()
        self.model = model.eval()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            write(trace(model, size), path)
            self.run = runner(path, threads)
        images = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            ours, theirs = (run(images).softmax(dim=1) for run in (self.model, self.run))
        if not torch.allclose(ours, theirs, rtol=0, atol=TOLERANCE):
            raise RuntimeError("ONNX Runtime does not answer as the model does")

    def forward(self, images: Tensor) -> Tensor:
        if not isinstance(images, Tensor):  # a proxy of torch.fx would crash ONNX Runtime
            raise TypeError("an ONNX graph cannot be traced again")
        return self.run(images)


def faster(
    model: nn.Module, size: int, images: int, threads: int | None = None
) -> tuple[nn.Module, str]:
    """Return a module that answers `images` images sooner, where there is one, and say which.

    The model itself comes back for few images, on a GPU, without the packages, and where the model
    cannot be translated or would not answer the same.
    """
    on_cpu = next(model.parameters()).device.type == "cpu"
    if not on_cpu or images < WORTH or missing_packages():
        return model, ""
    try:
        return InOnnxRuntime(model, size, threads), "ONNX Runtime answers (--no-onnx: PyTorch)"
    except Exception as error:  # whatever a translation raises: the model itself answers
        return model, f"PyTorch answers, ONNX Runtime cannot: {one_line(error)}"

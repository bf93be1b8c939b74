"""Name what is on images: `python -m going_modular.predict MODEL IMAGE...`."""

import argparse
import sys
from pathlib import Path

import torch

from going_modular import data_setup, model_builder, utils


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code: 0, or 1 where anything could not be read."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.predict",
        description="Print the most probable classes of each image, prepared as in training.",
    )
    parser.add_argument("model", type=Path, help="a file that going_modular.train wrote")
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files")
    parser.add_argument("--top", type=_positive, default=1, help="classes to print for each image")
    options = parser.parse_args(arguments)
    try:
        model, checkpoint = model_builder.load_model(options.model, utils.pick_device())
    except (ValueError, OSError, ImportError) as error:
        print(f"predict: error: {utils.printable(error)}", file=sys.stderr)
        return 1

    class_names, transform = checkpoint["class_names"], checkpoint["transform"]
    failed = 0
    for path in options.images:
        try:
            image = data_setup.load_image(path)
        except (ValueError, OSError) as error:
            print(f"predict: {utils.printable(error)}", file=sys.stderr)
            failed += 1
            continue
        probabilities, classes = classify(model, transform(image)).topk(
            min(options.top, len(class_names))
        )
        answers = (
            f"{utils.printable(class_names[index])}\t{probability:.3f}"
            for probability, index in zip(probabilities, classes, strict=True)
        )
        print(f"{utils.printable(path)}\t" + "\t".join(answers), flush=True)
    if failed:
        print(f"predict: {failed} of {len(options.images)} images not read", file=sys.stderr)
    return 1 if failed else 0


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def classify(model: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Return the probabilities (classes,) of one prepared image (3, H, W), in eval mode."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return model.eval()(image[None].to(device))[0].softmax(dim=0).cpu()


if __name__ == "__main__":
    sys.exit(main())

"""Name what is on photos: `python -m going_modular.predict MODEL PHOTO...`."""

import argparse
import sys
from pathlib import Path

import torch

from going_modular import data_setup, model_builder, utils


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code: 0, or 1 where anything could not be read."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.predict",
        description="Print the most probable classes of each photo, prepared as in training.",
    )
    parser.add_argument("model", type=Path, help="a file that going_modular.train wrote")
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO", help="image files")
    parser.add_argument("--top", type=int, default=1, help="classes to print for each photo")
    options = parser.parse_args(arguments)
    try:
        model, checkpoint = model_builder.load_model(options.model, utils.pick_device())
    except (ValueError, OSError, ImportError) as error:
        print(f"predict: error: {utils.printable(error)}", file=sys.stderr)
        return 1

    class_names, transform = checkpoint["class_names"], checkpoint["transform"]
    failed = 0
    for photo in options.photos:
        try:
            image = data_setup.load_image(photo)
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
        print(f"{utils.printable(photo)}\t" + "\t".join(answers), flush=True)
    if failed:
        print(f"predict: {failed} of {len(options.photos)} photos not read", file=sys.stderr)
    return 1 if failed else 0


def classify(model: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Return the probabilities (classes,) of one prepared image (3, H, W)."""
    device = next(model.parameters()).device
    with torch.inference_mode():
        return model(image[None].to(device))[0].softmax(dim=0).cpu()


if __name__ == "__main__":
    sys.exit(main())

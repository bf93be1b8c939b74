"""Try a model in the browser: `python -m going_modular.demo runs/NAME/model.safetensors`.

The page is served to this machine alone, needs no internet, and keeps no image.
"""

import argparse
import os
import re
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from matplotlib.colors import to_rgb
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import functional as F
from torchvision.transforms._presets import ImageClassification

from going_modular import data_setup, evaluation, model_builder, predict, utils

HOST = "127.0.0.1"
SIDE = 512  # pixels of the Grad-CAM image; models see fewer
GRAD_CAM = "Grad-CAM: the part that the model sees; orange marks what speaks for the answer."
NO_GRAD_CAM = "No Grad-CAM: this model keeps no map of the image."
UNREADABLE = "This cannot be read as an image, or has too many pixels. Save it as JPEG or PNG."


def build(model: nn.Module, checkpoint: dict[str, Any], title: str) -> Any:
    """Build the page, a gradio.Blocks, for what `model_builder.load_model` returned."""
    try:
        import gradio as gr
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("The page needs gradio: run `pip install gradio`.") from error

    transform, class_names = checkpoint["transform"], _shown_names(checkpoint["class_names"])
    layer = grad_cam_layer(model, transform.crop_size[0])

    def classify(file: dict[str, Any] | None) -> tuple[Any, dict[str, float] | None, Any]:
        as_it_is = gr.update()
        if file is None:
            return as_it_is, None, None
        try:
            picture = data_setup.load_image(_uploaded(file["path"], upload.GRADIO_CACHE))
        except (ValueError, OSError):
            gr.Warning(UNREADABLE, duration=20)
            return None, None, None
        image = transform(picture)
        answer = dict(
            zip(class_names, predict.classify(model, image[None])[0].tolist(), strict=True)
        )
        if layer is None:
            return as_it_is, answer, None
        heat = evaluation.grad_cam(model, layer, image)
        return as_it_is, answer, draw_grad_cam(picture, heat, transform)

    title = utils.printable(title)
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60, 600)) as page:
        gr.Markdown(
            f"# {_plain(title)}\nIt knows {len(class_names)} classes: "
            f"{', '.join(map(_plain, class_names))}. It always answers with one of them, even "
            "for an image of something else."
        )
        with gr.Row():
            sources = ["upload", "webcam", "clipboard"]
            upload = gr.Image(sources=sources, label="Your image", height=400)
            with gr.Column():
                answer = gr.Label(num_top_classes=5, label="Probability of each class")
                gr.Markdown(NO_GRAD_CAM if layer is None else GRAD_CAM)
                heat = gr.Image(
                    alt_text=GRAD_CAM,
                    show_label=False,
                    buttons=["fullscreen"],
                    height=400,
                    visible=layer is not None,
                )
        # load_image reads the file: Gradio's own reading fails with technical messages.
        outputs = [upload, answer, heat]
        upload.change(classify, upload, outputs, preprocess=False, api_name="classify")
    return page


def _uploaded(path: str, folder: str) -> Path:
    """Return the path of an upload; raise PermissionError for other files of this machine.

    Gradio looks only at files that a request marks as such (`meta`), and passes others on.
    """
    if not Path(path).resolve().is_relative_to(Path(folder).resolve()):
        raise PermissionError(f"{path} was not uploaded")
    return Path(path)


def _shown_names(class_names: list[str]) -> list[str]:
    """Return names that a browser can show, each once."""
    names = [utils.printable(name) for name in class_names]
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)]


def _plain(text: str) -> str:
    """Write a name so that Markdown shows it as it is."""
    return re.sub(r"([^\w\s]|_)", r"\\\1", " ".join(text.split()))


def same_origin(app: Any) -> Any:
    """Refuse what another page in the same browser sends to an ASGI application.

    Gradio's own rule keeps the answer from that page, after it has kept the upload.
    """
    from starlette.datastructures import Headers
    from starlette.responses import PlainTextResponse

    async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        answering = app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            own = f"{scope['scheme']}://{headers.get('host')}"
            if headers.get("origin", own) != own:
                answering = PlainTextResponse("Open the page by its address.", 403)
        await answering(scope, receive, send)

    return answer


def grad_cam_layer(model: nn.Module, size: int) -> nn.Module | None:
    """Return the last layer of the trunk whose output (1, C, h, w) is a map of the image.

    None where the last block gives something else: Grad-CAM does not apply to a ViT or a Swin.
    """
    blocks = [block.modules for block in model_builder.blocks(model)]
    while isinstance(blocks[-1][0], nn.Linear):  # VGG's and MobileNet v3's, after the trunk
        blocks.pop()
    maps = []

    def keep(layer: nn.Module, _: Any, output: Tensor) -> None:
        if output.ndim == 4 and output.shape[2] == output.shape[3] > 1:  # Swin's is (1, h, w, C)
            maps.append(layer)

    hooks = [layer.register_forward_hook(keep) for layer in blocks[-1]]
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return maps[-1] if maps else None


def draw_grad_cam(
    picture: Image.Image, heat: Tensor, transform: ImageClassification
) -> Image.Image:
    """Draw the square that the model sees in grey and, over it in orange, the map (H, W)."""
    if isinstance(transform, utils.Padded):
        picture = transform.pad(picture)
    resize = [round(SIDE / transform.crop_size[0] * size) for size in transform.resize_size]
    square = F.center_crop(F.resize(picture, resize, transform.interpolation), [SIDE])
    orange = Image.new("RGB", square.size, tuple(round(255 * c) for c in to_rgb(utils.ORANGE)))
    mask = F.to_pil_image(0.8 * heat).resize(square.size)
    return Image.composite(orange, square.convert("L").convert("RGB"), mask)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line: serve the page until Ctrl+C; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m going_modular.demo",
        description="Serve a page on which to try a model in this machine's browser.",
    )
    parser.add_argument("model", type=Path, help="a file that going_modular.train wrote")
    parser.add_argument("--port", type=int, default=7860, help="of the page's address")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as with Ctrl+C
    try:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as uploads:
            os.environ["GRADIO_TEMP_DIR"] = uploads
            serve(options.model, options.port)
    except KeyboardInterrupt:
        print("\nstopped")
    except (ValueError, OSError, ImportError) as error:
        print(f"demo: error: {utils.printable(error)}", file=sys.stderr)
        return 1
    return 0


def serve(path: Path, port: int) -> None:
    """Serve the page for a saved model until the process is interrupted."""
    model, checkpoint = model_builder.load_model(path, utils.pick_device())
    page = build(model, checkpoint, f"{checkpoint['architecture']}, {path.resolve().parent.name}")
    import gradio as gr
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    # A site may let its own name point here, and its page would be the same origin as ours.
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    for name in ("no_proxy", "NO_PROXY"):  # Gradio asks its own server whether it is there
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST]))
    try:
        page.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
            max_file_size="20mb",
            app_kwargs={"middleware": [hosts, Middleware(same_origin)]},
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono="monospace"),
        )
    except OSError as error:
        raise OSError(f"port {port} cannot be used: give another with --port ({error})") from error
    print(f"open  http://{HOST}:{port}  in a browser on this machine; stop with Ctrl+C", flush=True)
    page.block_thread()


if __name__ == "__main__":
    sys.exit(main())

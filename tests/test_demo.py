"""The page: what its function answers, and the command as a browser meets it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights

from going_modular import data_setup, demo, model_builder, predict, utils

gradio = pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")

ROOT = Path(__file__).parent.parent
CHART = data_setup.DATA_SETS["charts"] / "val" / "pie" / "03.png"
CLASS_NAMES = ["_area_", "bar & line", "pie"]


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Let what the page sets in the environment end with the test."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)


def make_checkpoint(name, folder):
    torch.manual_seed(0)
    model = model_builder.create_model(name, len(CLASS_NAMES), weights=None)
    size = {} if name == "vit_tiny" else {"crop_size": 96, "resize_size": 110}
    transform = get_model_weights(name).DEFAULT.transforms(**size)
    return utils.save_model(
        model, folder, "model.safetensors", class_names=CLASS_NAMES, transform=transform
    )


@pytest.fixture
def lite0(tmp_path):
    return model_builder.load_model(make_checkpoint("efficientnet_lite0", tmp_path / "run"))


@pytest.fixture
def upload(tmp_path):
    """Return a function that puts a file where the page's uploads are, as Gradio describes it."""

    def upload(path):
        (tmp_path / "uploads").mkdir(exist_ok=True)
        return {"path": shutil.copy(path, tmp_path / "uploads")}

    return upload


def function_of(page):
    (function,) = page.fns.values()
    return function.fn


def texts_of(page):
    return [b.value for b in page.blocks.values() if isinstance(b, gradio.Markdown)]


def test_the_page_answers_as_predict_does(lite0, upload):
    model, checkpoint = lite0
    _, answer, heat = function_of(demo.build(model, checkpoint, "my run"))(upload(CHART))
    image = checkpoint["transform"](data_setup.load_image(CHART))
    assert list(answer) == CLASS_NAMES
    assert list(answer.values()) == predict.classify(model, image).tolist()
    assert heat.size == (demo.SIDE, demo.SIDE)
    assert heat.convert("HSV").getchannel("S").getextrema()[1] > 50  # some orange


def test_no_picture_clears_the_page(lite0):
    assert function_of(demo.build(*lite0, "my run"))(None)[1:] == (None, None)


def test_the_page_says_what_the_model_knows(lite0):
    title, caption = texts_of(demo.build(*lite0, "my_run"))
    assert "3 classes" in title and "always answers with one of them" in title
    assert r"\_area\_, bar \& line, pie" in title  # no italics
    assert caption == demo.GRAD_CAM


def test_what_is_no_picture_is_explained_and_cleared(lite0, upload, tmp_path, monkeypatch):
    classify = function_of(demo.build(*lite0, "my run"))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.warns(UserWarning, match="cannot be read as a picture"):
        assert classify(upload(tmp_path / "text.png")) == (None, None, None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.warns(UserWarning, match="too many pixels"):
        assert classify(upload(CHART)) == (None, None, None)


def test_a_picture_that_nobody_uploaded_is_not_shown(lite0):
    classify = function_of(demo.build(*lite0, "my run"))
    with pytest.warns(UserWarning, match="cannot be read"):
        assert classify({"path": str(CHART)}) == (None, None, None)


def test_a_vit_works_without_grad_cam(vit_tiny, upload, tmp_path):
    page = demo.build(*model_builder.load_model(make_checkpoint(vit_tiny, tmp_path)), "vit")
    _, answer, heat = function_of(page)(upload(CHART))
    assert sum(answer.values()) == pytest.approx(1) and heat is None
    assert texts_of(page)[1] == demo.NO_GRAD_CAM


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet18", "layer4"),
        ("efficientnet_lite0", "features.8"),
        ("mobilenet_v3_small", "features.12"),
        ("vgg11", "features.18"),
        ("densenet121", "features.norm5"),
        ("convnext_tiny", "features.7"),
        ("squeezenet1_1", "features.12"),
        ("swin_t", None),
        ("vit_tiny", None),
    ],
)
def test_grad_cam_looks_at_the_end_of_the_trunk(name, layer, vit_tiny):
    with torch.device("meta"):  # shapes are enough
        model = model_builder.create_model(name, 3, weights=None)
    found = demo.grad_cam_layer(model, 32 if name == "vit_tiny" else 96)
    names = {module: name for name, module in model.named_modules()}
    assert names.get(found) == layer


def test_the_map_lies_where_it_belongs():
    transform = get_model_weights("resnet18").DEFAULT.transforms(crop_size=32, resize_size=32)
    heat = torch.zeros(32, 32)
    heat[:16, 16:] = 1.0  # the right upper quarter
    # Twice as wide as high: what is left and right of the square in the middle is not seen.
    picture = Image.new("RGB", (80, 40), (90, 90, 90))
    picture.paste((200, 0, 0), (0, 0, 20, 40))
    drawn = demo.draw_grad_cam(picture, heat, transform)
    for x, y in [(100, 100), (100, 400), (400, 400)]:
        assert drawn.getpixel((x, y)) == (90, 90, 90)
    red, green, blue = drawn.getpixel((400, 100))
    assert red > green > blue


# The command


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def served(tmp_path):
    """Start the command behind a dead proxy; yield its address and its folder for uploads."""
    path, port = make_checkpoint("efficientnet_lite0", tmp_path / "my_run"), free_port()
    (tmp_path / "tmp").mkdir()
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HTTP_PROXY": "http://127.0.0.1:9",
        "TMPDIR": str(tmp_path / "tmp"),
        "TEMP": str(tmp_path / "tmp"),
    }
    command = [sys.executable, "-m", "going_modular.demo", str(path), "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    )
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}" in line and "Ctrl+C" in line
    yield f"http://127.0.0.1:{port}", port, process, tmp_path / "tmp"
    process.kill()
    process.wait()


def test_the_command_serves_this_machine_alone_and_keeps_nothing(served, capsys):
    address, port, process, uploads = served
    client = gradio_client.Client(address, verbose=False, analytics_enabled=False)
    _, label, heat = client.predict(gradio_client.handle_file(CHART), api_name="/classify")
    assert label["label"] in CLASS_NAMES
    assert sum(row["confidence"] for row in label["confidences"]) == pytest.approx(1, abs=1e-5)
    with Image.open(heat) as image:
        assert image.size == (demo.SIDE, demo.SIDE)
    assert any(path.name == CHART.name for path in uploads.rglob("*"))

    with httpx.Client(base_url=address, trust_env=False) as http:
        page = http.get("/").text
        assert "efficientnet_lite0, my_run" in page
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="([^"]*)"', page)
        assert loaded and not [
            url for url in loaded if url.startswith("http") and str(port) not in url
        ]
        for path in (str(ROOT / "README.md"), str(uploads.parent / "my_run" / "model.safetensors")):
            assert http.get(f"/gradio_api/file={path}").status_code == 403
        large = {"files": ("large.png", b"0" * 21_000_000)}
        assert http.post("/gradio_api/upload", files=large).status_code == 413
    with socket.socket() as other, pytest.raises(OSError):
        other.settimeout(1)
        other.connect(("127.0.0.2", port))
    # A second picture, and one of this machine that nobody uploaded.
    for file, answered in [(gradio_client.handle_file(CHART), True), ({"path": str(CHART)}, False)]:
        _, label, _ = client.predict(file, api_name="/classify")
        assert ("label" in label) == answered

    if os.name != "nt":
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        assert not list(uploads.iterdir())


def test_a_taken_port_is_named(tmp_path, capsys):
    path = make_checkpoint("efficientnet_lite0", tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert demo.main([str(path), "--port", str(port)]) == 1
    message = capsys.readouterr().err
    assert f"demo: error: port {port} cannot be used" in message and "--port" in message


def test_a_missing_model_and_a_missing_package_are_named(tmp_path, monkeypatch, capsys):
    assert demo.main([str(tmp_path / "absent.pt")]) == 1
    assert "demo: error: " in (message := capsys.readouterr().err) and "absent.pt" in message
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert demo.main([str(make_checkpoint("efficientnet_lite0", tmp_path))]) == 1
    assert "pip install gradio" in capsys.readouterr().err

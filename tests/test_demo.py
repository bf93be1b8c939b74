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
RUN = "run" if os.name == "nt" else "<script>alert(1)"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """Let what the page sets in the environment end with the test."""
    for name in ("no_proxy", "NO_PROXY"):
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
    assert list(answer.values()) == predict.classify(model, image[None])[0].tolist()
    assert heat.size == (demo.SIDE, demo.SIDE)
    assert heat.convert("HSV").getchannel("S").getextrema()[1] > 50  # some orange


def test_no_picture_clears_the_page(lite0):
    assert function_of(demo.build(*lite0, "my run"))(None)[1:] == (None, None)


def test_the_page_says_what_the_model_knows(lite0):
    title, caption = texts_of(demo.build(*lite0, "my_run"))
    assert "3 classes" in title and "always answers with one of them" in title
    assert r"\_area\_, bar \& line, pie" in title  # no italics
    assert caption == demo.GRAD_CAM


def test_names_on_the_page_are_text(lite0):
    model, checkpoint = lite0
    names = ["<script>alert(1)</script>", "b\u202ea", "pie"]
    text, _ = texts_of(demo.build(model, checkpoint | {"class_names": names}, "<b>run</b>"))
    assert "\u202e" not in text and "u202e" in text
    assert not re.search(r"(?<!\\)<", text)  # what Markdown takes for HTML


def test_what_is_no_picture_is_explained_and_cleared(lite0, upload, tmp_path, monkeypatch):
    classify = function_of(demo.build(*lite0, "my run"))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.warns(UserWarning, match="cannot be read as an image"):
        assert classify(upload(tmp_path / "text.png")) == (None, None, None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.warns(UserWarning, match="too many pixels"):
        assert classify(upload(CHART)) == (None, None, None)


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


# The page as browsers, and others, meet it


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def page(vit_tiny, tmp_path, monkeypatch):
    """Serve a model's page in this process; yield a client of it."""
    started = []
    monkeypatch.setattr(gradio.Blocks, "block_thread", lambda page: started.append(page))
    port = free_port()
    demo.serve(make_checkpoint(vit_tiny, tmp_path / RUN), port)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield client
    started[0].close(verbose=False)


def send(page, name="a.png", content=None, **headers):
    files = {"files": (name, content or CHART.read_bytes())}
    return page.post("/gradio_api/upload", files=files, headers=headers)


def test_only_this_page_in_this_machines_browser_is_answered(page):
    own = f"http://127.0.0.1:{page.base_url.port}"
    before = set(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*"))
    for headers, code in [
        ({"Host": "evil.example"}, 400),  # a name of its own that leads here
        ({"Host": f"evil.example:{page.base_url.port}"}, 400),
        ({"Host": "["}, 400),
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 400),
        ({"Origin": "http://evil.example"}, 403),  # a page elsewhere in the same browser
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "null"}, 403),
    ]:
        assert page.get("/", headers=headers).status_code == code, headers
        assert send(page, **headers).status_code == code, headers
    assert set(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*")) == before
    assert send(page, Origin=own).status_code == 200
    localhost = f"localhost:{page.base_url.port}"
    headers = {"Host": localhost, "Origin": f"http://{localhost}"}
    reply = page.get("/", headers=headers)
    assert reply.status_code == 200 and "<script>alert" not in reply.text


def test_no_other_file_is_shown_or_served(page, tmp_path):
    (mine,) = send(page).json()
    assert page.get(f"/gradio_api/file={mine}").content == CHART.read_bytes()
    secret = tmp_path / RUN / "model.safetensors"
    assert secret.exists()
    for path in (
        secret,
        f"{Path(mine).parent}/../../../{RUN}/model.safetensors",
        f"{Path(mine).parent}/..%2f..%2f..%2f{RUN}/model.safetensors",
        f"file://{secret}",
        ROOT / "README.md",
        "http://127.0.0.1:1/",
    ):
        assert page.get(f"/gradio_api/file={path}").status_code in (403, 404), path
    # With Gradio's mark it refuses the path itself; without, it leaves that to us.
    mark = {"meta": {"_type": "gradio.FileData"}}
    assert answer(page, {"path": mine} | mark) in CLASS_NAMES
    assert answer(page, {"path": str(CHART)} | mark) is None
    with pytest.warns(UserWarning, match="cannot be read"):
        assert answer(page, {"path": str(CHART)}) is None


def answer(page, file):
    """Return the class that the page's function gives for a file, or None."""
    reply = page.post("/gradio_api/run/classify", json={"data": [file]})
    return reply.json()["data"][1].get("label") if reply.status_code == 200 else None


@pytest.mark.parametrize("name", ["page.html", "drawing.svg", "page.png", "../../up.py"])
def test_uploads_stay_in_their_folder_and_no_browser_runs_them(page, name):
    (path,) = send(page, name, b"<html><script>alert(1)</script>").json()
    assert Path(path).resolve().is_relative_to(Path(os.environ["GRADIO_TEMP_DIR"]).resolve())
    reply = page.get(f"/gradio_api/file={path}")
    is_download = reply.headers["content-disposition"].startswith("attachment")
    assert is_download or reply.headers["content-type"] == "image/png"
    assert send(page, name, bytes(21_000_000)).status_code == 413


# The command


@pytest.fixture
def served(tmp_path):
    """Start the command behind a dead proxy; yield its address, port, process and temporaries."""
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


def test_the_command_serves_this_machine_alone_and_keeps_nothing(served):
    address, port, process, uploads = served
    client = gradio_client.Client(address, verbose=False, analytics_enabled=False)
    _, label, heat = client.predict(gradio_client.handle_file(CHART), api_name="/classify")
    assert label["label"] in CLASS_NAMES
    assert sum(row["confidence"] for row in label["confidences"]) == pytest.approx(1, abs=1e-5)
    with Image.open(heat) as image:
        assert image.size == (demo.SIDE, demo.SIDE)
    assert any(path.name == CHART.name for path in uploads.rglob("*"))

    page = httpx.get(address, trust_env=False).text
    assert "efficientnet_lite0, my_run" in page
    loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="([^"]*)"', page)
    assert loaded and not [url for url in loaded if url.startswith("http") and str(port) not in url]
    config = httpx.get(f"{address}/config", trust_env=False).json()
    assert not config["analytics_enabled"] and not config["run_history"]
    with socket.socket() as other, pytest.raises(OSError):
        other.settimeout(1)
        other.connect(("127.0.0.2", port))

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

"""The course's names: its calls, with its arguments, and what they give."""

import functools
import importlib
import runpy
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from going_modular.going_modular import data_setup, engine, model_builder, predictions, utils
from going_modular.going_modular.helper_functions import download_data, plot_loss_curves, set_seeds

ROOM = Path(data_setup.__file__).parent


@pytest.fixture
def loaders(photo_folder, tmp_path):
    for name in ("dark", "light"):
        (tmp_path / "test" / name).mkdir(parents=True)
    for image in sorted(photo_folder.rglob("*1?.jpg")):  # half of each class
        image.rename(tmp_path / "test" / image.relative_to(photo_folder))
    transform = transforms.Compose(
        [
            transforms.Resize((64, 64)),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.2] * 3),
        ]
    )
    return data_setup.create_dataloaders(
        train_dir=photo_folder,
        test_dir=tmp_path / "test",
        transform=transform,
        batch_size=8,
        num_workers=0,
    )


def tiny_vgg():
    set_seeds(42)
    return model_builder.TinyVGG(input_shape=3, hidden_units=8, output_shape=2)


def plain_loop(model, train_dataloader, test_dataloader, epochs):
    """Train as the course's notebooks do, except that a mean is one over examples."""
    results = {"train_loss": [], "train_acc": [], "test_loss": [], "test_acc": []}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    for _ in range(epochs):
        for part, dataloader in (("train", train_dataloader), ("test", test_dataloader)):
            model.train(part == "train")
            loss_sum = correct = examples = 0
            for images, labels in dataloader:
                logits = model(images)
                loss = nn.functional.cross_entropy(logits, labels)
                if part == "train":
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                loss_sum += loss.item() * len(labels)
                correct += (logits.argmax(dim=1) == labels).sum().item()
                examples += len(labels)
            results[f"{part}_loss"].append(loss_sum / examples)
            results[f"{part}_acc"].append(correct / examples)
    return results


def test_tiny_vgg_trains_as_in_a_plain_loop(loaders, tmp_path):
    train_dataloader, test_dataloader, class_names = loaders
    assert class_names == ["dark", "light"]
    expected_model, model = tiny_vgg(), tiny_vgg()
    set_seeds(1)
    expected = plain_loop(expected_model, train_dataloader, test_dataloader, epochs=5)
    set_seeds(1)
    results = engine.train(
        model=model,
        train_dataloader=train_dataloader,
        test_dataloader=test_dataloader,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.003),
        loss_fn=nn.CrossEntropyLoss(),
        epochs=5,
        device="cpu",
    )
    assert list(results) == ["train_loss", "train_acc", "test_loss", "test_acc"]
    for name, values in expected.items():
        assert results[name] == pytest.approx(values, rel=1e-4), name
    assert results["test_acc"][-1] == 1  # it has learned
    utils.save_model(model=model, target_dir=str(tmp_path / "models"), model_name="tinyvgg.pth")
    again = tiny_vgg()
    again.load_state_dict(torch.load(tmp_path / "models" / "tinyvgg.pth", weights_only=True))
    images, _ = next(iter(test_dataloader))
    assert torch.equal(again.eval()(images), model.eval()(images))


def test_train_step_and_test_step_take_the_course_s_arguments(loaders):
    model, loss_fn = tiny_vgg(), nn.CrossEntropyLoss()
    expected = plain_loop(tiny_vgg(), loaders[1], loaders[1], epochs=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    trained = engine.train_step(
        model=model, dataloader=loaders[1], loss_fn=loss_fn, optimizer=optimizer, device="cpu"
    )
    tested = engine.test_step(model=model, dataloader=loaders[1], loss_fn=loss_fn, device="cpu")
    assert trained == pytest.approx((expected["train_loss"][0], expected["train_acc"][0]), rel=1e-4)
    assert tested == pytest.approx((expected["test_loss"][0], expected["test_acc"][0]), rel=1e-4)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_one_image_is_named_and_drawn(mode, tmp_path):
    Image.new(mode, (80, 50), {"RGB": (9, 9, 9), "L": 9, "RGBA": (9, 9, 9, 255)}[mode]).save(
        tmp_path / "dark.png"
    )
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    nn.init.constant_(model[2].weight, 1.0)
    model[2].bias.data = torch.tensor([0.0, 1.0])
    predictions.pred_and_plot_image(
        model=model,
        image_path=tmp_path / "dark.png",
        class_names=["cost $1", "cost $2"],
        image_size=(32, 32),
    )
    (axis,) = plt.gcf().axes
    # Both logits have the same sum of the pixels, so the biases alone decide.
    assert axis.get_title() == f"Pred: cost $2 | Prob: {1 / (1 + torch.e**-1):.3f}"
    assert axis.images[0].get_array().shape == (50, 80, 3)
    plt.close("all")


def test_default_preparation_is_that_of_imagenet_weights(tmp_path):
    Image.new("RGB", (40, 40), (255, 0, 128)).save(tmp_path / "a.png")
    seen = []

    class Spy(nn.Module):
        def forward(self, images):
            seen.append(images)
            return torch.zeros(1, 2)

    predictions.pred_and_plot_image(Spy(), ["a", "b"], str(tmp_path / "a.png"), (24, 20))
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (128 / 255 - 0.406) / 0.225]
    assert seen[0].shape == (1, 3, 24, 20)
    assert seen[0].mean(dim=(0, 2, 3)).tolist() == pytest.approx(expected, rel=1e-5)
    plt.close("all")


def test_data_is_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("pizza.zip", "w") as archive:
        archive.writestr("train/pizza/1.jpg", b"a")
    serve = functools.partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever).start()
        source = f"http://127.0.0.1:{server.server_port}/pizza.zip"
        folder = download_data(source=source, destination="pizza_steak")
        server.shutdown()
    assert folder == Path("data/pizza_steak")
    assert (folder / "train/pizza/1.jpg").read_bytes() == b"a"
    assert [path.name for path in Path("data").iterdir()] == ["pizza_steak"]
    assert download_data(source=source, destination="pizza_steak") == folder


def test_curves_are_those_of_the_results():
    results = {"train_loss": [3, 2], "train_acc": [0, 1], "test_loss": [4, 3], "test_acc": [0, 0.5]}
    plot_loss_curves(results)
    drawn = {
        f"{line.get_label()}_{name}": list(line.get_ydata())
        for axis, name in zip(plt.gcf().axes, ("loss", "acc"), strict=True)
        for line in axis.lines
    }
    assert drawn == results
    plt.close("all")


def test_a_file_started_by_its_path_is_told_how(monkeypatch):
    # Python puts the file's folder first on the path, where `going_modular` is this room.
    with pytest.raises(ImportError, match="python -m going_modular"):
        runpy.run_path(str(ROOM / "__init__.py"), run_name="going_modular")
    assert importlib.import_module("going_modular").__version__

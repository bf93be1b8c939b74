"""Data sets by name: from archives on a local server, put in place by hand, or not to be had."""

import hashlib
import io
import json
import pickle
import socket
import tarfile
import threading
import time
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from going_modular import data_setup, train
from going_modular.pictures import downloads


@pytest.fixture(autouse=True)
def data(monkeypatch, tmp_path):
    """Keep data sets in a folder of the test's own, and return it."""
    monkeypatch.setenv("GOING_MODULAR_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("GOING_MODULAR_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between attempts
    return tmp_path / "data"


class Handler(SimpleHTTPRequestHandler):
    """Serve files; answer as many requests as `server.failures` says with an error instead."""

    def do_GET(self):
        self.server.seen.append(self.path)
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """Serve the folder `server.folder`; `server.seen` lists what was asked for."""
    (tmp_path / "served").mkdir()
    handler = partial(Handler, directory=tmp_path / "served")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.folder, server.seen, server.failures = tmp_path / "served", [], 0
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def offer(server, monkeypatch):
    """Return a function that lets a data set's files come from the server."""

    def offer(name: str, files: dict[str, bytes]) -> None:
        known = downloads.DATA_SETS[name]
        assert files.keys() == known.registry.keys()
        for file, content in files.items():
            (server.folder / file).write_bytes(content)
        registry = {file: known.registry[file] and f"md5:{md5(files[file])}" for file in files}
        url = f"http://127.0.0.1:{server.server_port}/"
        small = known._replace(base_url=url, registry=registry)
        monkeypatch.setitem(downloads.DATA_SETS, name, small)

    return offer


def image(number: int, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def make_zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def split_files(top: str = "", **counts: int) -> dict[str, bytes]:
    """Return ants and bees for each split, a number of each class, as an archive's files."""
    names = [
        f"{top}{split}/{insect}/{i}.jpg"
        for split, count in counts.items()
        for insect in ("ants", "bees")
        for i in range(count)
    ]
    return {name: image(i) for i, name in enumerate(names)}


HYMENOPTERA = make_zip(
    split_files("hymenoptera_data/", train=6, val=2)
    | {
        "hymenoptera_data/train/ants/imageNotFound.gif": image(100, "GIF"),
        "__MACOSX/hymenoptera_data/train/ants/._0.jpg": b"clutter",
    }
)


@pytest.fixture
def ants_and_bees(offer):
    offer("hymenoptera", {"hymenoptera_data.zip": HYMENOPTERA})


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


# --- Each data set ------------------------------------------------------------------------------


def test_ants_and_bees_have_no_placeholder_and_are_downloaded_once(server, ants_and_bees, data):
    splits = data_setup.load("hymenoptera")
    assert splits.folder == data / "hymenoptera"
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [10, 4, 2]
    assert visible(data) == ["hymenoptera"] and not (data / ".hymenoptera").exists()
    assert data_setup.load("hymenoptera").train.samples == splits.train.samples
    assert server.seen == ["/hymenoptera_data.zip"]


def test_pizza_steak_sushi_has_train_and_test(offer):
    offer("pizza_steak_sushi", {"pizza_steak_sushi.zip": make_zip(split_files(train=10, test=3))})
    splits = data_setup.load("pizza_steak_sushi")
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [16, 4, 6]


def found(name: str) -> dict[bytes, str]:
    """Prepare a data set; return its files as {content: split/class}."""
    folder = downloads.prepare(name)
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.read_bytes(): path.parent.relative_to(folder).as_posix() for path in paths}


def test_cifar10_becomes_files_of_the_same_pixels(offer, monkeypatch):
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    rng, files, expected = np.random.default_rng(0), {}, {}
    for batch in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = rng.integers(0, 256, (10, 3072), np.uint8)
        files[batch] = pickle.dumps({"data": rows, "labels": list(range(10))})
        split = "test" if batch == "test_batch" else "train"
        for row, name in zip(rows, names, strict=True):
            # As the authors describe it: 1,024 red, then green, then blue values, row by row.
            pixels = np.dstack([row[i * 1024 : (i + 1) * 1024].reshape(32, 32) for i in range(3)])
            expected[pixels.tobytes()] = f"{split}/{name}"
    files["batches.meta"] = pickle.dumps({"label_names": names})
    sums = [[name, md5(content)] for name, content in files.items()]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", sums[5:6])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": sums[6][1]})
    folder = datasets.CIFAR10.base_folder
    archive = make_tar({f"{folder}/{name}": content for name, content in files.items()})
    offer("cifar10", {"cifar-10-python.tar.gz": archive})
    pixels = {
        np.asarray(Image.open(io.BytesIO(png))).tobytes(): place
        for png, place in found("cifar10").items()
    }
    assert pixels == expected


def test_oxford_pets_keep_their_official_splits(offer):
    images, lists, expected = {}, {"trainval": "", "test": ""}, {}
    breeds = {"Abyssinian": "Abyssinian", "american_pit_bull": "American Pit Bull"}
    for label, (name, class_name) in enumerate(breeds.items(), 1):
        for i in range(4):
            images[f"images/{name}_{i}.jpg"] = content = image(10 * label + i)
            lists["trainval" if i < 3 else "test"] += f"{name}_{i} {label} {label} 1\n"
            expected[content] = f"{'train' if i < 3 else 'test'}/{class_name}"
    images["images/Abyssinian_100.mat"] = b"a stray file, as in the archive"
    annotations = {f"annotations/{name}.txt": text.encode() for name, text in lists.items()}
    files = {"images.tar.gz": make_tar(images), "annotations.tar.gz": make_tar(annotations)}
    offer("oxford_pets", files)
    assert found("oxford_pets") == expected


def test_flowers102_keep_their_three_splits(offer, monkeypatch):
    names = {59: "pink-yellow dahlia", 12: "king protea"}  # the first has a ? in torchvision
    files, labels, ids, expected = {}, [], {"trnid": [], "valid": [], "tstid": []}, {}
    for i in range(1, 13):
        label = (59, 12)[i % 2]
        key, split = [("trnid", "train"), ("valid", "val"), ("tstid", "test")][i % 3]
        files[f"jpg/image_{i:05}.jpg"] = image(i)
        labels.append(label + 1)
        ids[key].append(i)
        expected[image(i)] = f"{split}/{names[label]}"
    files = {"102flowers.tgz": make_tar(files)}
    for name, content in {"imagelabels.mat": {"labels": [labels]}, "setid.mat": ids}.items():
        savemat(buffer := io.BytesIO(), content)
        files[name] = buffer.getvalue()
    sums = {
        kind: (name, md5(files[name]))
        for kind, name in zip(("image", "label", "setid"), files, strict=True)
    }
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", sums)
    offer("flowers102", files)
    assert found("flowers102") == expected


def test_food101_keeps_its_official_split(offer):
    files, lists, expected = {}, {"train": {}, "test": {}}, {}
    for dish, name in enumerate(("apple_pie", "waffles")):
        for i in range(4):
            split = "train" if i < 3 else "test"
            files[f"food-101/images/{name}/{i}.jpg"] = image(10 * dish + i)
            lists[split].setdefault(name, []).append(f"{name}/{i}")
            expected[image(10 * dish + i)] = f"{split}/{name}"
    files |= {f"food-101/meta/{k}.json": json.dumps(v).encode() for k, v in lists.items()}
    offer("food101", {"food-101.tar.gz": make_tar(files)})
    assert found("food101") == expected


def test_addresses_and_checksums_are_torchvisions():
    pets, flowers, food = datasets.OxfordIIITPet, datasets.Flowers102, datasets.Food101
    published = {
        "cifar10": {datasets.CIFAR10.url: datasets.CIFAR10.tgz_md5},
        "oxford_pets": dict(pets._RESOURCES),
        "flowers102": {
            flowers._download_url_prefix + file: md5 for file, md5 in flowers._file_dict.values()
        },
        "food101": {food._URL: food._MD5},
    }
    for name, files in published.items():
        known = downloads.DATA_SETS[name]
        ours = {known.base_url + file: value[4:] for file, value in known.registry.items()}
        assert ours == files


# --- Trouble ------------------------------------------------------------------------------------


def test_a_server_in_trouble_is_asked_again(server, ants_and_bees):
    server.failures = 2
    assert len(data_setup.load("hymenoptera").train) == 10
    assert len(server.seen) == 3


def test_two_at_once_download_once(server, ants_and_bees):
    threads = [threading.Thread(target=downloads.prepare, args=["hymenoptera"]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.seen == ["/hymenoptera_data.zip"]


@pytest.mark.parametrize("name", list(downloads.DATA_SETS))
def test_without_a_network_one_message_says_what_to_do_by_hand(name, monkeypatch, data):
    asked = []

    def fail(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(ConnectionError) as error:
        data_setup.load(name)
    assert len(asked) == 1  # nothing is tried again
    message, known = str(error.value), downloads.DATA_SETS[name]
    assert message.startswith(f"{name}: cannot get {known.base_url}")
    for file in known.registry:
        assert f"{known.base_url}{file}\n  as {data / known.folder / file}\n" in message
    assert str(data / name / "train") in message and "charts" in message
    assert visible(data) == []


def test_offline_mode_asks_nobody(server, ants_and_bees, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("GOING_MODULAR_OFFLINE", "1")
    assert train.main(["--data", "hymenoptera", "--out", str(tmp_path / "run")]) == 1
    printed = capsys.readouterr().err
    assert "train: error: hymenoptera: hymenoptera_data.zip is not there yet, and" in printed
    assert "GOING_MODULAR_OFFLINE is set" in printed and "Traceback" not in printed
    assert not server.seen


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: good[:-200],
        lambda good: good[:3000] + bytes(100) + good[3100:],
        lambda good: b"<html>Sign in to the WiFi</html>",
        lambda good: make_zip({"readme.txt": b""}),
    ],
    ids=["short", "damaged", "a page", "empty"],
)
def test_half_a_set_is_never_trusted(spoil, server, ants_and_bees, data):
    (server.folder / "hymenoptera_data.zip").write_bytes(spoil(HYMENOPTERA))
    with pytest.raises(ValueError, match=r"hymenoptera: http.*\.zip arrived broken \("):
        data_setup.load("hymenoptera")
    assert visible(data) == []
    (server.folder / "hymenoptera_data.zip").write_bytes(HYMENOPTERA)
    assert len(data_setup.load("hymenoptera").train) == 10


def test_another_checksum_than_the_published_one_is_an_error(offer, server, data):
    offer("food101", {"food-101.tar.gz": make_tar({"a": b"1"})})
    (server.folder / "food-101.tar.gz").write_bytes(make_tar({"../evil": b"2"}))
    with pytest.raises(ValueError, match="does not match the known hash"):
        data_setup.load("food101")
    assert visible(data) == []


@pytest.mark.parametrize("name", ["../../evil.jpg", "/tmp/evil.jpg", "a/../../../evil.jpg"])
def test_nothing_is_unpacked_elsewhere(name, offer, ants_and_bees, tmp_path):
    files = split_files(train=6, val=2) | {name: image(100)}
    offer("hymenoptera", {"hymenoptera_data.zip": make_zip(files)})
    folder = downloads.prepare("hymenoptera")
    assert not Path("/tmp/evil.jpg").exists()
    assert all(path.is_relative_to(folder) for path in tmp_path.rglob("evil.jpg"))


def test_an_interrupted_run_leaves_no_set_and_its_archive_is_used(
    server, ants_and_bees, monkeypatch, data
):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        extract = zipfile.ZipFile._extract_member

        def stop(archive, member, *arguments):
            if "val" in member:
                raise KeyboardInterrupt
            return extract(archive, member, *arguments)

        patch.setattr(zipfile.ZipFile, "_extract_member", stop)
        data_setup.load("hymenoptera")
    assert visible(data) == []
    assert [path.name for path in (data / ".hymenoptera").iterdir()] == ["hymenoptera_data.zip"]
    assert len(data_setup.load("hymenoptera").train) == 10
    assert server.seen == ["/hymenoptera_data.zip"]


# --- By hand, and where -------------------------------------------------------------------------


def test_an_archive_put_in_place_by_hand_is_used_offline_and_kept(ants_and_bees, monkeypatch, data):
    monkeypatch.setenv("GOING_MODULAR_OFFLINE", "1")
    data.mkdir()
    (data / "hymenoptera_data.zip").write_bytes(HYMENOPTERA)
    assert len(data_setup.load("hymenoptera").train) == 10
    assert (data / "hymenoptera_data.zip").read_bytes() == HYMENOPTERA


# With ids: the archive carries the time of day, and every process must collect the same tests.
@pytest.mark.parametrize("checksum", [None, "md5:" + md5(HYMENOPTERA)], ids=["unknown", "known"])
def test_a_broken_one_is_named_and_kept(checksum, server, ants_and_bees, monkeypatch, data):
    known = downloads.DATA_SETS["hymenoptera"]
    known = known._replace(registry={"hymenoptera_data.zip": checksum})
    monkeypatch.setitem(downloads.DATA_SETS, "hymenoptera", known)
    data.mkdir()
    path = data / "hymenoptera_data.zip"
    path.write_bytes(HYMENOPTERA[:-30])
    with pytest.raises(ValueError, match="is broken") as error:
        data_setup.load("hymenoptera")
    assert f"{path} is broken" in str(error.value)
    assert path.read_bytes() == HYMENOPTERA[:-30] and not server.seen


def test_a_folder_that_is_there_is_used_as_it_is(server, ants_and_bees, data):
    for name, content in split_files(train=5, val=2).items():
        path = data / "hymenoptera" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert len(data_setup.load("hymenoptera").val) == 4
    assert not server.seen


def test_sets_lie_in_the_checkout_or_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("GOING_MODULAR_DATA")
    assert downloads.download_folder() == Path(__file__).resolve().parent.parent / "data"
    installed = tmp_path / "site-packages" / "going_modular" / "pictures" / "downloads.py"
    monkeypatch.setattr(downloads, "__file__", str(installed))
    assert downloads.download_folder() == Path(pooch.os_cache("going_modular"))

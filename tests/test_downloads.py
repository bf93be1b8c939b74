"""Data sets by name: a server that misbehaves, hostile archives, interruptions, no network."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from going_modular import data_setup, train
from going_modular.pictures import downloads

SIZE = 300_000  # several pieces
CONTENT = b"PK" + np.random.default_rng(0).bytes(SIZE - 2)
NEWER = b"PK" + np.random.default_rng(1).bytes(SIZE + 1000)


# --- A server that misbehaves -------------------------------------------------------------------


class Server(ThreadingHTTPServer):
    """Serve `files`, in the way that `script` says of each request, and then as it should be."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.script, self.seen = {"/a.zip": CONTENT}, [], []
        self.closing = threading.Event()

    def url(self, name: str = "a.zip") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append(self.headers)
        answer = self.server.script.pop(0) if self.server.script else send
        self.close_connection = True
        answer(self, self.server.files[self.path])

    def log_message(self, *_):
        pass


def send(
    request, content, *, tag='"1"', cut=None, length=None, ranges=True, stall=False, **headers
):
    """Answer well, or send `cut` bytes only, announce another `length`, ignore ranges, stall."""
    start, asked = 0, request.headers["Range"]
    if ranges and asked and request.headers["If-Range"] == tag:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
    body = content[start:]
    request.send_response(416 if start and not body else 206 if start else 200)
    if start:
        span = f"{start}-{len(content) - 1}" if body else "*"
        request.send_header("Content-Range", f"bytes {span}/{len(content)}")
    headers |= {"Content-Length": len(body) if length is None else length - start, "ETag": tag}
    for name, value in headers.items():
        if value is not None:
            request.send_header(name.replace("_", "-"), str(value))
    request.end_headers()
    request.wfile.write(body[:cut])
    if stall:
        request.server.closing.wait(30)


def status(code, **headers):
    return lambda request, content: send_status(request, code, headers)


def send_status(request, code, headers):
    request.send_response(code, "No\t\x1b[31m")
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.send_header("Content-Length", "0")
    request.end_headers()


def hang_up(request, content):
    request.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.closing.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Wait for milliseconds where users wait for seconds; keep data sets in the test's folder."""
    monkeypatch.setattr(downloads, "WAITS", (0.001, 0.002, 0.003))
    monkeypatch.setattr(downloads, "TIMEOUT", (2, 0.3))
    monkeypatch.setenv("GOING_MODULAR_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("GOING_MODULAR_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")


def fetch(server, folder: Path) -> bytes:
    downloads.fetch(server.url(), folder / "work" / "a.zip")
    assert [path.name for path in (folder / "work").iterdir()] == ["a.zip"]
    return (folder / "work" / "a.zip").read_bytes()


def ranges(server) -> list[str | None]:
    return [headers["Range"] for headers in server.seen]


def test_a_file_arrives_whole(server, tmp_path):
    assert fetch(server, tmp_path) == CONTENT
    assert ranges(server) == [None]


def test_a_download_that_is_cut_off_goes_on_where_it_stopped(server, tmp_path, capsys):
    server.script = [partial(send, cut=100_000), partial(send, cut=50_000)]
    assert fetch(server, tmp_path) == CONTENT
    assert ranges(server) == [None, "bytes=100000-", "bytes=150000-"]
    assert [headers["If-Range"] for headers in server.seen] == [None, '"1"', '"1"']
    assert (
        "a.zip: the connection ended after 100,000 of 300,000 bytes; trying"
        in capsys.readouterr().err
    )


def test_a_server_that_falls_silent_is_asked_again(server, tmp_path, capsys):
    server.script = [partial(send, cut=200_000, stall=True)]
    started = time.monotonic()
    assert fetch(server, tmp_path) == CONTENT
    assert time.monotonic() - started < 2
    _, resumed = ranges(server)
    assert 100_000 < int(resumed[6:-1]) <= 200_000
    assert "timed out" in capsys.readouterr().err


@pytest.mark.parametrize("code", [500, 502, 503, 429, 408])
def test_a_server_in_trouble_is_asked_again(server, tmp_path, capsys, code):
    server.script = [status(code), status(code, Retry_After="0")]
    assert fetch(server, tmp_path) == CONTENT
    assert capsys.readouterr().err.count(f"the server answers {code}") == 2


def test_the_wait_grows_and_heeds_the_server(server, tmp_path, monkeypatch):
    waits = []
    monkeypatch.setattr(downloads.time, "sleep", waits.append)
    monkeypatch.setattr(downloads, "WAITS", (1, 2, 4))
    server.script = [status(500), status(503, Retry_After="7"), status(500)]
    assert fetch(server, tmp_path) == CONTENT
    assert waits == [1, 7, 4]


def test_connections_that_break_before_an_answer_are_tried_again(server, tmp_path):
    server.script = [hang_up, hang_up]
    assert fetch(server, tmp_path) == CONTENT


def test_attempts_that_bring_something_new_do_not_count(server, tmp_path):
    server.script = [partial(send, cut=20_000) for _ in range(10)]
    assert fetch(server, tmp_path) == CONTENT


def test_a_server_without_ranges_sends_it_all_again(server, tmp_path):
    server.script = [partial(send, cut=100_000, ranges=False), partial(send, ranges=False)]
    assert fetch(server, tmp_path) == CONTENT
    assert len(server.seen) == 2


def test_a_file_that_changes_on_the_server_starts_again(server, tmp_path):
    server.script = [partial(send, cut=100_000), partial(send, tag='"2"')]
    original = server.script[1]
    server.script[1] = lambda request, content: original(request, NEWER)
    assert fetch(server, tmp_path) == NEWER


def test_a_part_of_another_version_is_refused(server, tmp_path, capsys):
    def ignore_if_range(request, content):
        del request.headers["If-Range"]
        request.headers["If-Range"] = '"2"'
        send(request, NEWER, tag='"2"')

    newer = lambda request, content: send(request, NEWER, tag='"2"')  # noqa: E731
    server.script = [partial(send, cut=100_000), ignore_if_range, newer]
    assert fetch(server, tmp_path) == NEWER
    assert "the file on the server has changed" in capsys.readouterr().err


@pytest.mark.parametrize("tag", ['W/"1"', None])
def test_without_a_strong_tag_nothing_is_pieced_together(server, tmp_path, tag):
    server.script = [partial(send, tag=tag, cut=100_000)]
    assert fetch(server, tmp_path) == CONTENT
    assert ranges(server) == [None, None]


def test_a_version_that_is_gone_is_forgotten(server, tmp_path):
    server.script = [partial(send, cut=100_000), partial(send, tag='W/"2"', cut=50_000)]
    assert fetch(server, tmp_path) == CONTENT
    assert ranges(server) == [None, "bytes=100000-", None]


def test_an_end_that_was_not_announced_is_not_taken_for_the_end(server, tmp_path):
    def in_chunks(request, content):
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        request.wfile.write(b"%x\r\n" % len(content) + content[:100_000])

    server.script = [in_chunks]
    assert fetch(server, tmp_path) == CONTENT
    assert len(server.seen) == 2


def test_a_date_does_instead_of_a_tag(server, tmp_path):
    date = "Sun, 01 Nov 2026 12:00:00 GMT"
    server.script = [partial(send, tag=None, cut=100_000, Last_Modified=date)]
    assert fetch(server, tmp_path) == CONTENT
    assert (server.seen[1]["Range"], server.seen[1]["If-Range"]) == ("bytes=100000-", date)


def test_a_part_that_is_complete_already_is_used(server, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.zip.part").write_bytes(CONTENT)
    (tmp_path / "work" / "a.zip.part.version").write_text('"1"')
    assert fetch(server, tmp_path) == CONTENT
    assert ranges(server) == [f"bytes={SIZE}-"]


def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a.zip.part").write_bytes(CONTENT + b"more")
    (tmp_path / "work" / "a.zip.part.version").write_text('"1"')
    assert fetch(server, tmp_path) == CONTENT
    assert len(server.seen) == 2


def test_a_length_that_is_never_met_is_given_up(server, tmp_path):
    server.script = [partial(send, length=SIZE + 500, ranges=False)] * 20
    match = r"gave up http.*/a\.zip after 4 attempts: the connection ended after 300,000 of 300,500"
    with pytest.raises(ConnectionError, match=match):
        fetch(server, tmp_path)
    assert len(server.seen) == 4


def test_a_length_that_was_announced_wrongly_is_put_right(server, tmp_path):
    server.script = [partial(send, length=SIZE + 500)]
    assert fetch(server, tmp_path) == CONTENT
    assert ranges(server) == [None, f"bytes={SIZE}-"]


def test_a_tar_that_is_called_an_encoding_stays_packed(server, tmp_path):
    packed = gzip.compress(b"a tar")
    server.files["/a.tar.gz"] = packed
    server.script = [partial(send, Content_Encoding="x-gzip")]
    downloads.fetch(server.url("a.tar.gz"), tmp_path / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == packed


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_reported_at_once(server, tmp_path, code):
    server.script = [status(code)]
    with pytest.raises(ConnectionError, match=rf"/a\.zip answers {code} No \[31m$"):
        fetch(server, tmp_path)
    assert len(server.seen) == 1


PAGE = b"<!doctype html><html><head><title>\n Sign in\x1b[31m to\n WiFi </title></head></html>"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        (PAGE, r"web page titled 'Sign in \[31m to WiFi'"),
        (b"Rate limit", "starts with 'Rate limit'"),
    ],
)
def test_a_page_instead_of_the_file_is_reported_at_once(server, tmp_path, sent, shown):
    server.files["/a.zip"] = sent
    with pytest.raises(ConnectionError, match=shown):
        fetch(server, tmp_path)
    assert len(server.seen) == 1


# --- No network ---------------------------------------------------------------------------------


@pytest.fixture
def no_names(monkeypatch):
    """Let no name be found, as on a machine without a network; count who asks."""
    asked = []

    def fail(host, *_, **__):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    return asked


@pytest.mark.parametrize("name", list(downloads.DATA_SETS))
def test_offline_one_message_says_what_to_do_by_hand(name, no_names, monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "WAITS", (60,))
    with pytest.raises(ConnectionError) as error:
        data_setup.load(name)
    assert len(no_names) == 1
    message = str(error.value)
    assert message.startswith(f"{name}: cannot reach {no_names[0]}: Name or service not known")
    for archive in downloads.DATA_SETS[name].archives():
        by_hand = tmp_path / "data" / archive.folder / archive.name
        assert f"{archive.url}\n  as {by_hand}\n" in message
    assert str(tmp_path / "data" / name / "train") in message and "charts" in message
    assert [path.name for path in (tmp_path / "data").iterdir()] == [f".{name}.lock"]


@pytest.mark.parametrize("code", ["ENETUNREACH", "EHOSTUNREACH"])
def test_no_route_is_not_tried_again(code, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise OSError(getattr(downloads.errno, code), "no route")

    monkeypatch.setattr(socket.socket, "connect", fail)
    monkeypatch.setattr(downloads, "WAITS", (60,))
    with pytest.raises(ConnectionError, match=r"cannot reach 127\.0\.0\.1: no route"):
        downloads.fetch("http://127.0.0.1:9/a.zip", tmp_path / "a.zip")


def test_a_network_that_goes_away_half_way_is_waited_for(server, tmp_path, monkeypatch, capsys):
    find, asked = socket.getaddrinfo, []

    def fail_second(*arguments, **options):
        asked.append(1)
        if len(asked) == 2:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return find(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fail_second)
    server.script = [partial(send, cut=100_000)]
    assert fetch(server, tmp_path) == CONTENT
    assert "Temporary failure in name resolution; trying again" in capsys.readouterr().err


def test_offline_mode_asks_nobody(no_names, monkeypatch):
    monkeypatch.setenv("GOING_MODULAR_OFFLINE", "1")
    with pytest.raises(ConnectionError, match=r"not in .*data yet, and GOING_MODULAR_OFFLINE"):
        data_setup.load("cifar10")
    assert not no_names


def test_the_command_line_prints_the_message_and_no_traceback(no_names, tmp_path, capsys):
    assert train.main(["--data", "hymenoptera", "--out", str(tmp_path / "run")]) == 1
    printed = capsys.readouterr().err
    assert "train: error: hymenoptera: cannot reach download.pytorch.org" in printed
    assert "Traceback" not in printed and not (tmp_path / "run").exists()


def test_torchvision_says_where_its_archives_are():
    for name in ("cifar10", "oxford_pets", "flowers102", "food101"):
        for archive in downloads.DATA_SETS[name].archives():
            assert archive.url.startswith("http") and archive.name
            assert len(bytes.fromhex(archive.md5)) == 16


# --- Archives -----------------------------------------------------------------------------------


def make_zip(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_tar(files: dict[str, bytes], **kinds: bytes) -> bytes:
    """Pack `files`; a name in `kinds` is of that type and leads to its content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if name in kinds:
                member.type, member.linkname = kinds[name], content.decode()
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


PACKERS = {"a.zip": make_zip, "a.tar.gz": make_tar}


def unpack(content: bytes, name: str, folder: Path, limit: int = 10**6, most: int = 100) -> None:
    """Unpack in a folder two levels down; fail the test if anything appears above it."""
    target = folder / "outer" / "target"
    target.parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    try:
        downloads.unpack(folder / name, target, limit, most)
    finally:
        assert {path.name for path in folder.iterdir()} <= {name, "outer"}
        assert {path.name for path in target.parent.iterdir()} <= {"target"}


@pytest.mark.parametrize("name", PACKERS)
def test_files_and_folders_are_unpacked_as_they_are(name, tmp_path):
    files = {"train/ants/Ångström 1.jpg": b"ant" * 50_000, "train/bees/b.jpg": b"", "./c": b"c"}
    unpack(PACKERS[name](files), name, tmp_path)
    for file, content in files.items():
        assert (tmp_path / "outer" / "target" / file).read_bytes() == content


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize(
    "member",
    [
        "../evil",
        "a/../../evil",
        "/evil",
        "C:/evil",
        "C:evil",
        "..\\evil",
        "\\evil",
        "a\nb",
        "\x1b[2Jb",
    ],
)
def test_names_that_lead_elsewhere_are_refused(name, member, tmp_path):
    with pytest.raises(ValueError, match=rf"{name} holds .*(evil|b).* refused") as error:
        unpack(PACKERS[name]({"good": b"1", member: b"2"}), name, tmp_path)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE"])
def test_a_tar_may_hold_files_and_folders_only(kind, tmp_path):
    content = make_tar({"good": b"1", "link": b"good"}, link=getattr(tarfile, kind))
    with pytest.raises(ValueError, match=r"a\.tar\.gz holds 'link', which is no file or folder"):
        unpack(content, "a.tar.gz", tmp_path)


def test_a_zip_may_hold_no_link(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc")
    with pytest.raises(ValueError, match=r"a\.zip holds 'link', which is no file or folder"):
        unpack(buffer.getvalue(), "a.zip", tmp_path)


def unpacked_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "outer").rglob("*") if path.is_file())


@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_that_tells_its_size_is_not_unpacked(name, tmp_path):
    content = PACKERS[name]({"bomb": bytes(5 * 10**6)})
    assert len(content) < 10_000
    with pytest.raises(ValueError, match=f"{name} holds more than it should"):
        unpack(content, name, tmp_path)
    assert unpacked_size(tmp_path) == 0


@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_of_many_small_files_stops_at_the_limit(name, tmp_path):
    content = PACKERS[name]({f"{i}": bytes(10**5) for i in range(50)})
    with pytest.raises(ValueError, match=f"{name} holds more than it should"):
        unpack(content, name, tmp_path)
    assert unpacked_size(tmp_path) <= 10**6
    with pytest.raises(ValueError, match=f"{name} holds more than it should"):
        unpack(PACKERS[name]({f"{i}": b"" for i in range(101)}), name, tmp_path)


def test_a_bomb_that_hides_its_size_stops_too(tmp_path):
    content = bytearray(make_zip({"bomb": bytes(5 * 10**6)}))
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        place = content.index(signature) + offset
        assert struct.unpack_from("<I", content, place) == (5 * 10**6,)
        struct.pack_into("<I", content, place, 1000)
    with pytest.raises(ValueError, match=r"a\.zip"):
        unpack(bytes(content), "a.zip", tmp_path)
    assert unpacked_size(tmp_path) <= 1000


def test_a_size_that_grows_while_it_is_read_stops_too(tmp_path, monkeypatch):
    def members(path, target):
        yield "bomb", False, 10, lambda: io.BytesIO(bytes(5 * 10**6))

    monkeypatch.setattr(downloads, "_members", members)
    with pytest.raises(ValueError, match="holds more than it should"):
        unpack(b"", "a.zip", tmp_path)
    assert unpacked_size(tmp_path) <= 10**6


def test_a_zip_with_a_password_or_an_odd_method_is_refused(tmp_path):
    locked = bytearray(make_zip({"a": b"1"}))
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        locked[locked.index(signature) + offset] |= 1
    for content in (bytes(locked), make_zip({"a": b"1"}, zipfile.ZIP_LZMA)):
        with pytest.raises(ValueError, match="in a form that is not read"):
            unpack(content, "a.zip", tmp_path)


@pytest.mark.parametrize("name", PACKERS)
def test_a_broken_archive_is_an_error_whatever_is_broken(name, tmp_path):
    rng = np.random.default_rng(0)
    whole = PACKERS[name]({f"{i}": rng.bytes(300) for i in range(5)})
    refused = 0
    for i in range(200):
        content = bytearray(whole)
        if i % 2:
            del content[int(rng.integers(1, len(content))) :]
        else:
            for place in rng.integers(0, len(content), 3):
                content[place] ^= int(rng.integers(1, 256))
        try:
            unpack(bytes(content), name, tmp_path)
        except ValueError as error:
            assert str(error).startswith(name)
            refused += 1
        shutil.rmtree(tmp_path / "outer", ignore_errors=True)
    assert refused > 150


# --- From a name to splits ----------------------------------------------------------------------


def picture(number: int, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 9, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def split_files(counts: dict[str, int], top: str = "") -> dict[str, bytes]:
    """Return ants and bees for each split, a number of each class, as an archive's files."""
    names = [
        f"{top}{split}/{insect}/{i}.jpg"
        for split, count in counts.items()
        for insect in ("ants", "bees")
        for i in range(count)
    ]
    return {name: picture(i) for i, name in enumerate(names)}


@pytest.fixture
def offer(server, monkeypatch):
    """Let a data set's archives come from the server, with so many pictures in each split."""

    def make(name: str, content: bytes, **counts: int) -> None:
        (archive,) = downloads.DATA_SETS[name].archives()
        server.files[f"/{archive.name}"] = content
        archives = [archive._replace(url=server.url(archive.name))]
        small = downloads.DATA_SETS[name]._replace(archives=lambda: archives, counts=counts)
        monkeypatch.setitem(downloads.DATA_SETS, name, small._replace(megabytes=5))

    return make


@pytest.fixture
def ants_and_bees(offer):
    files = split_files({"train": 6, "val": 2}, "hymenoptera_data/")
    files["hymenoptera_data/train/ants/imageNotFound.gif"] = picture(100, "GIF")
    files["hymenoptera_data/train/ants/.DS_Store"] = b"clutter"
    files["hymenoptera_data/large.bin"] = CONTENT
    files["__MACOSX/hymenoptera_data/train/ants/._0.jpg"] = b"clutter"
    content = make_zip(files)
    offer("hymenoptera", content, train=12, val=4)
    return content


def in_data(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "data").iterdir())


def test_ants_and_bees_have_train_and_val_and_get_a_test_split(server, ants_and_bees, tmp_path):
    splits = data_setup.load("hymenoptera")
    assert splits.folder == tmp_path / "data" / "hymenoptera"
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [10, 4, 2]
    assert splits.how.startswith("train, val as given; test is 20% of each class of train")
    assert in_data(tmp_path) == [".hymenoptera.lock", "hymenoptera"]
    assert data_setup.load("hymenoptera").train.samples == splits.train.samples
    assert len(server.seen) == 1


def test_pizza_steak_sushi_has_train_and_test(offer):
    offer("pizza_steak_sushi", make_zip(split_files({"train": 10, "test": 3})), train=20, test=6)
    splits = data_setup.load("pizza_steak_sushi")
    assert [len(split) for split in (splits.train, splits.val, splits.test)] == [16, 4, 6]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture
def load(server, monkeypatch, tmp_path):
    """Load a small data set by its name; return its folder's pictures as {bytes: split/class}."""

    def make(name: str, counts: dict[str, int]) -> dict[bytes, str]:
        small = downloads.DATA_SETS[name]._replace(counts=counts)
        monkeypatch.setitem(downloads.DATA_SETS, name, small)
        splits = data_setup.load(name)
        assert in_data(tmp_path) == [f".{name}.lock", name]
        assert len(splits.test) == counts["test"]
        paths = [path for path in splits.folder.rglob("*") if path.is_file()]
        assert len(paths) == sum(counts.values())
        return {
            path.read_bytes(): path.parent.relative_to(splits.folder).as_posix() for path in paths
        }

    return make


def test_cifar10_becomes_files_of_the_same_pixels(server, load, monkeypatch, tmp_path):
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    rng, files, expected = np.random.default_rng(0), {}, {}
    folder = datasets.CIFAR10.base_folder
    for batch in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        rows = rng.integers(0, 256, (10, 3072), np.uint8)
        files[batch] = pickle.dumps({"data": rows, "labels": list(range(10))})
        split = "test" if batch == "test_batch" else "train"
        for row, name in zip(rows, names, strict=True):
            # As the authors describe it: 1,024 red, then green, then blue values, row by row.
            pixels = np.dstack([row[i * 1024 : (i + 1) * 1024].reshape(32, 32) for i in range(3)])
            expected[pixels.tobytes()] = f"{split}/{name}"
    files["batches.meta"] = pickle.dumps({"label_names": names})
    archive = make_tar({f"{folder}/{name}": content for name, content in files.items()})
    server.files["/cifar-10-python.tar.gz"] = archive
    sums = [[name, md5(content)] for name, content in files.items()]
    monkeypatch.setattr(datasets.CIFAR10, "url", server.url("cifar-10-python.tar.gz"))
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", md5(archive))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", sums[5:6])
    monkeypatch.setattr(datasets.CIFAR10, "meta", datasets.CIFAR10.meta | {"md5": sums[6][1]})
    found = load("cifar10", {"train": 50, "test": 10})
    assert {
        np.asarray(Image.open(io.BytesIO(content))).tobytes(): place
        for content, place in found.items()
    } == expected
    assert {path.suffix for path in (tmp_path / "data" / "cifar10").rglob("*.*")} == {".png"}


def test_oxford_pets_keep_their_official_splits(server, load, monkeypatch):
    images, lists, expected = {}, {"trainval": [], "test": []}, {}
    for label, (name, class_name) in enumerate(
        [("Abyssinian", "Abyssinian"), ("american_pit_bull_terrier", "American Pit Bull Terrier")],
        1,
    ):
        for i in range(8):
            content = picture(10 * label + i)
            images[f"images/{name}_{i}.jpg"] = content
            lists["trainval" if i < 5 else "test"].append(f"{name}_{i} {label} {label} 1\n")
            expected[content] = f"{'train' if i < 5 else 'test'}/{class_name}"
    images["images/Abyssinian_100.mat"] = b"a stray file, as in the archive"
    annotations = {f"annotations/{name}.txt": "".join(lines) for name, lines in lists.items()}
    annotations |= {"annotations/trimaps/._Abyssinian_1.png": "", "annotations/README": ""}
    archives = {
        "images.tar.gz": make_tar(images),
        "annotations.tar.gz": make_tar({k: v.encode() for k, v in annotations.items()}),
    }
    server.files |= {f"/{name}": content for name, content in archives.items()}
    resources = [(server.url(name), md5(content)) for name, content in archives.items()]
    monkeypatch.setattr(datasets.OxfordIIITPet, "_RESOURCES", resources)
    assert load("oxford_pets", {"train": 10, "test": 6}) == expected


@pytest.mark.parametrize("named", [True, False], ids=["names", "torchvision 0.20"])
def test_flowers102_keep_their_three_splits(server, load, monkeypatch, named):
    names = {59: "pink-yellow dahlia", 12: "king protea"}  # the first has a ? in torchvision
    if not named:
        monkeypatch.delattr(datasets.Flowers102, "classes", raising=False)
        names = {59: "flower 060", 12: "flower 013"}
    elif not hasattr(datasets.Flowers102, "classes"):
        pytest.skip("this torchvision has no names of flowers")
    files, labels, ids, expected = {}, [], {"trnid": [], "valid": [], "tstid": []}, {}
    for i in range(1, 25):
        label = (59, 12)[i % 2]
        key, split = [("trnid", "train"), ("valid", "val"), ("tstid", "test")][i % 3]
        files[f"jpg/image_{i:05}.jpg"] = picture(i)
        labels.append(label + 1)
        ids[key].append(i)
        expected[picture(i)] = f"{split}/{names[label]}"
    sources = {"image": ("102flowers.tgz", make_tar(files))}
    for kind, name, content in (
        ("label", "imagelabels.mat", {"labels": [labels]}),
        ("setid", "setid.mat", ids),
    ):
        buffer = io.BytesIO()
        savemat(buffer, content)
        sources[kind] = (name, buffer.getvalue())
    server.files |= {f"/{name}": content for name, content in sources.values()}
    table = {kind: (name, md5(content)) for kind, (name, content) in sources.items()}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", table)
    monkeypatch.setattr(datasets.Flowers102, "_download_url_prefix", server.url(""))
    assert load("flowers102", {"train": 8, "val": 8, "test": 8}) == expected


def test_food101_keeps_its_official_split(server, load, monkeypatch):
    files, lists, expected = {}, {"train": {}, "test": {}}, {}
    for dish, name in enumerate(("apple_pie", "waffles")):
        for i in range(8):
            split = "train" if i < 5 else "test"
            files[f"food-101/images/{name}/{i}.jpg"] = picture(10 * dish + i)
            lists[split].setdefault(name, []).append(f"{name}/{i}")
            expected[picture(10 * dish + i)] = f"{split}/{name}"
    files |= {f"food-101/meta/{k}.json": json.dumps(v).encode() for k, v in lists.items()}
    server.files["/food-101.tar.gz"] = make_tar(files)
    monkeypatch.setattr(datasets.Food101, "_URL", server.url("food-101.tar.gz"))
    monkeypatch.setattr(datasets.Food101, "_MD5", md5(server.files["/food-101.tar.gz"]))
    assert load("food101", {"train": 10, "test": 6}) == expected


# --- By hand ------------------------------------------------------------------------------------


def test_an_archive_put_in_place_by_hand_is_used_and_kept(server, ants_and_bees, tmp_path, capsys):
    by_hand = tmp_path / "data" / "hymenoptera_data.zip"
    by_hand.parent.mkdir()
    by_hand.write_bytes(ants_and_bees)
    assert len(data_setup.load("hymenoptera").train) == 10
    assert not server.seen and by_hand.read_bytes() == ants_and_bees
    assert f"hymenoptera: using {by_hand}" in capsys.readouterr().err


def test_a_broken_archive_put_there_by_hand_is_named_and_kept(server, ants_and_bees, tmp_path):
    by_hand = tmp_path / "data" / "hymenoptera_data.zip"
    by_hand.parent.mkdir()
    by_hand.write_bytes(ants_and_bees[:-30])
    with pytest.raises(ValueError, match="is no whole archive") as error:
        data_setup.load("hymenoptera")
    assert f"Replace or delete {by_hand}." in str(error.value)
    assert by_hand.exists() and not server.seen


def test_a_folder_put_there_by_hand_is_used_as_it_is(no_names, tmp_path):
    for name, content in split_files({"train": 5, "val": 2}).items():
        path = tmp_path / "data" / "hymenoptera" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert len(data_setup.load("hymenoptera").val) == 4
    assert not no_names and in_data(tmp_path) == ["hymenoptera"]


# --- What is not as it should be ----------------------------------------------------------------


def load_twice(server, good: bytes, match: str, tmp_path: Path) -> None:
    """Fail with that message and leave no trace; then load what the server has by now."""
    with pytest.raises(ValueError, match=match) as error:
        data_setup.load("hymenoptera")
    assert str(error.value).startswith("hymenoptera: ")
    assert "The download is deleted; try again." in str(error.value)
    assert in_data(tmp_path) == [".hymenoptera.lock"]
    server.files["/hymenoptera_data.zip"] = good
    assert len(data_setup.load("hymenoptera").train) == 10


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda good: good[:-200], "is no whole archive"),
        (lambda good: good[:5000] + bytes(100) + good[5100:], "is no whole archive"),
        (lambda good: make_zip({"../evil.jpg": b""}), r"holds a file named '\.\./evil\.jpg'"),
        (lambda good: make_zip({"bomb": bytes(20 * 10**6)}), "holds more than it should"),
        (
            lambda good: make_zip(split_files({"train": 5, "val": 2})),
            "it has 10 train pictures instead of 12",
        ),
        (lambda good: make_zip({"readme.txt": b""}), "it has 0 train pictures instead of 12"),
        (
            lambda good: make_zip(
                split_files({"train": 6, "val": 2}) | {"val/bees/1.jpg": picture(1)[:-100]}
            ),
            r"1\.jpg in it is no readable picture",
        ),
    ],
    ids=["short", "damaged", "outside", "bomb", "few", "none", "unreadable"],
)
def test_half_a_set_is_never_trusted(server, ants_and_bees, tmp_path, spoil, match):
    server.files["/hymenoptera_data.zip"] = spoil(ants_and_bees)
    load_twice(server, ants_and_bees, match, tmp_path)


def test_a_length_announced_too_small_is_found_out(server, ants_and_bees, tmp_path):
    server.script = [partial(send, length=len(ants_and_bees) - 300)]
    load_twice(server, ants_and_bees, "is no whole archive", tmp_path)


def test_another_checksum_than_the_published_one_is_an_error(
    server, ants_and_bees, monkeypatch, tmp_path
):
    (archive,) = downloads.DATA_SETS["hymenoptera"].archives()
    small = downloads.DATA_SETS["hymenoptera"]
    published = archive._replace(md5=md5(ants_and_bees))
    monkeypatch.setitem(
        downloads.DATA_SETS, "hymenoptera", small._replace(archives=lambda: [published])
    )
    other = make_zip(split_files({"train": 6, "val": 2}))
    server.files["/hymenoptera_data.zip"] = other
    match = f"has the MD5 sum {md5(other)}, and {md5(ants_and_bees)} is published"
    load_twice(server, ants_and_bees, match, tmp_path)


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_full_disk_is_noticed_before_it_is_written(
    server, ants_and_bees, monkeypatch, tmp_path, by_hand
):
    if by_hand:
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "hymenoptera_data.zip").write_bytes(ants_and_bees)
    usage = shutil.disk_usage(tmp_path)._replace(free=4_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"has 4 MB free and \d MB are needed: make room, or set"):
        data_setup.load("hymenoptera")
    assert not list((tmp_path / "data" / ".hymenoptera").rglob("*.*"))
    assert len(server.seen) == (not by_hand)


# --- Interrupted, and two at once ---------------------------------------------------------------

PROCESS = """
import sys, time
from unittest.mock import MagicMock
# What these need of torch and torchvision is nothing, and their import takes seconds.
package = sys.modules["going_modular"] = sys.modules["torchvision"] = MagicMock()
package.utils.is_offline.return_value = False
package.utils.is_watched = sys.stderr.isatty
folder, url, train, stop_in, after = sys.argv[1:]
sys.path.insert(0, folder)
import downloads

def stopping(function):
    calls = []
    def stop(*arguments, **options):
        calls.append(1)
        if len(calls) > int(after):
            print("stopped", flush=True)
            time.sleep(60)
        return function(*arguments, **options)
    return stop

if stop_in:
    setattr(downloads, stop_in, stopping(getattr(downloads, stop_in)))
archives = [downloads.Archive(url)]
counts = {"train": int(train), "val": 4}
downloads.DATA_SETS["hymenoptera"] = downloads.DataSet(lambda: archives, None, counts, 5)
print(downloads.prepare("hymenoptera"), flush=True)
"""


@pytest.fixture
def start(server):
    """Start a process that prepares the ants and bees, perhaps stopping in a function."""
    processes = []

    def make(stop_in: str = "", after: int = 0, stderr=subprocess.PIPE) -> subprocess.Popen:
        counts = downloads.DATA_SETS["hymenoptera"].counts
        folder = str(Path(downloads.__file__).parent)
        url = server.url("hymenoptera_data.zip")
        arguments = [folder, url, str(counts["train"]), stop_in, str(after)]
        environment = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        processes.append(process)
        return process

    yield make
    for process in processes:
        process.kill()
        process.communicate()


def kill_when_stopped(process: subprocess.Popen) -> None:
    assert process.stdout.readline() == "stopped\n"
    process.kill()  # SIGKILL, on Windows TerminateProcess
    process.wait()


def test_killed_in_mid_download_the_next_run_goes_on(server, ants_and_bees, start, tmp_path):
    server.script = [partial(send, cut=200_000, stall=True)]
    process, part = start(), tmp_path / "data" / ".hymenoptera" / "hymenoptera_data.zip.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 100_000) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    arrived = part.stat().st_size
    assert 100_000 < arrived <= 200_000 and in_data(tmp_path) == [
        ".hymenoptera",
        ".hymenoptera.lock",
    ]
    assert len(data_setup.load("hymenoptera").train) == 10
    assert ranges(server) == [None, f"bytes={arrived}-"]
    assert in_data(tmp_path) == [".hymenoptera.lock", "hymenoptera"]


@pytest.mark.parametrize(
    ("stop_in", "after", "left"), [("_safe", 7, "unpacked"), ("_check_pictures", 0, "ready")]
)
def test_killed_while_it_unpacks_or_moves_the_next_run_starts_clean(
    server, ants_and_bees, start, tmp_path, stop_in, after, left
):
    kill_when_stopped(start(stop_in, after))
    work = tmp_path / "data" / ".hymenoptera"
    assert any(path.is_file() for path in (work / left).rglob("*"))
    assert not (tmp_path / "data" / "hymenoptera").exists()
    (work / left / "train" / "ants").mkdir(parents=True, exist_ok=True)
    (work / left / "train" / "ants" / "stale.jpg").write_bytes(picture(99))
    assert len(data_setup.load("hymenoptera").train) == 10
    assert not list((tmp_path / "data").rglob("stale.jpg"))
    assert in_data(tmp_path) == [".hymenoptera.lock", "hymenoptera"]
    assert len(server.seen) == 1  # the archive had arrived whole


def test_a_finished_set_is_moved_into_place_whole(ants_and_bees, monkeypatch):
    check, made = downloads._check_pictures, []

    def note(folder, *arguments, **options):
        check(folder, *arguments, **options)
        made.append(folder.stat().st_ino)

    monkeypatch.setattr(downloads, "_check_pictures", note)
    assert [data_setup.load("hymenoptera").folder.stat().st_ino] == made


def test_what_was_left_beside_a_finished_set_is_removed(server, ants_and_bees, tmp_path):
    data_setup.load("hymenoptera")
    (tmp_path / "data" / ".hymenoptera" / "unpacked").mkdir(parents=True)
    data_setup.load("hymenoptera")
    assert in_data(tmp_path) == [".hymenoptera.lock", "hymenoptera"] and len(server.seen) == 1


def test_two_processes_at_once_download_once(server, ants_and_bees, start, tmp_path):
    going_on = threading.Event()

    def slowly(request, content):
        going_on.wait(20)
        send(request, content)

    server.script = [slowly]
    first = start()
    deadline = time.monotonic() + 20
    while not server.seen and time.monotonic() < deadline:
        time.sleep(0.01)
    second = start()
    waiting = "hymenoptera: waiting for another process that prepares it\n"
    assert second.stderr.readline() == waiting
    going_on.set()
    folder = f"{tmp_path / 'data' / 'hymenoptera'}\n"
    printed, log = first.communicate(timeout=20)
    assert (printed, second.communicate(timeout=20)[0]) == (folder, folder)
    assert len(server.seen) == 1 and len(data_setup.load("hymenoptera").train) == 10
    # Where nobody watches there is one line, and no bar.
    assert log == f"hymenoptera: downloading {server.url('hymenoptera_data.zip')}\n"


def test_who_watches_a_terminal_sees_a_bar(server, ants_and_bees, start):
    fcntl, termios = (pytest.importorskip(name) for name in ("fcntl", "termios"))
    terminal, side = os.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    process = start(stderr=side)
    os.close(side)
    shown = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side has closed
        while piece := os.read(terminal, 10_000):
            shown += piece
    os.close(terminal)
    assert process.wait() == 0
    assert b"\rhymenoptera_data.zip:   0%|" in shown

"""Feed mutated images to the reader: `python tests/by_hand/fuzz_images.py --files 12000`.

Each file must become an RGB image or the documented error. Not part of the tests that pytest
runs: it takes minutes. A process of its own reads the files of one format, with limits on memory
and on the time for one file; where it dies, the file is kept and named.
"""

import argparse
import contextlib
import io
import json
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, features

ROOT = Path(__file__).parent.parent.parent
SECONDS = 20  # for one file
MEMORY = 2 * 2**30  # bytes beyond what the process has before it reads the first file
SIZE = (61, 47)


# --- Seeds: a few small pictures of each format -------------------------------------------------


def picture(mode: str = "RGB") -> Image.Image:
    """Return noise on a gradient, in that mode."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, SIZE[0])[None, :, None]
    pixels = (ramp + rng.integers(0, 56, (SIZE[1], SIZE[0], 4))).astype(np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(mode)


def save(kind: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def seeds() -> dict[str, list[bytes]]:
    """Return files by format: those that are read first, then those that must be refused."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 50
    frames = {"save_all": True, "append_images": [picture().rotate(90), picture().rotate(180)]}
    read = {
        "JPEG": [("RGB", {"exif": exif}), ("RGB", {"progressive": True}), ("CMYK", {}), ("L", {})],
        "MPO": [("RGB", frames)],
        "PNG": [("RGB", {"exif": exif}), ("RGBA", {}), ("P", {"transparency": 0}), ("I;16", {})],
        "APNG": [("RGB", frames), ("RGBA", frames)],
        "GIF": [("P", {}), ("RGB", frames), ("L", {"transparency": 0})],
        "BMP": [("RGB", {}), ("P", {}), ("RGBA", {}), ("1", {})],
        "TIFF": [
            ("RGB", {}),
            ("RGB", {"compression": "jpeg"}),
            ("RGBA", {"compression": "tiff_lzw"}),
            ("CMYK", {"compression": "tiff_adobe_deflate"}),
            ("1", {"compression": "group4"}),
            ("I;16", {"compression": "packbits"}),
            ("RGB", {"exif": exif, "big_tiff": True}),
        ],
        "WEBP": [("RGB", {"exif": exif}), ("RGBA", {"lossless": True}), ("RGB", frames)],
        "AVIF": [("RGB", {"exif": exif}), ("RGBA", {}), ("RGB", frames)],
        "PPM": [("RGB", {}), ("L", {}), ("1", {}), ("I;16", {})],
        "PFM": [("F", {})],
    }
    refused = "ICO ICNS TGA PCX SGI DDS JPEG2000 EPS PDF IM MSP SPIDER XBM BLP QOI DIB PALM".split()
    others = {
        kind: [("RGB", {}), ("RGBA", {}), ("P", {}), ("L", {}), ("1", {})] for kind in refused
    }
    found = {}
    for kind, variants in (read | others).items():
        for mode, options in variants:
            try:
                content = save({"APNG": "PNG", "PFM": "PPM"}.get(kind, kind), mode, **options)
            except (OSError, ValueError, KeyError):  # a mode or format that Pillow cannot write
                continue
            found.setdefault(kind, []).append(content)
    absent = (read | others).keys() - found.keys()
    if absent:
        print(f"not written by this Pillow: {', '.join(sorted(absent))}")
    return found


# --- Mutations ----------------------------------------------------------------------------------


def flip(rng: random.Random, file: bytearray, _: bytes) -> None:
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        file[rng.randrange(len(file))] ^= 1 << rng.randrange(8)


def cut_off(rng: random.Random, file: bytearray, _: bytes) -> None:
    del file[rng.randrange(len(file)) :]


def cut_out(rng: random.Random, file: bytearray, _: bytes) -> None:
    start = rng.randrange(len(file))
    del file[start : start + rng.choice([1, 4, 16, 256])]


def duplicate(rng: random.Random, file: bytearray, _: bytes) -> None:
    start, length = rng.randrange(len(file)), rng.choice([4, 16, 256, 1024])
    file[start:start] = file[start : start + length] * rng.choice([1, 2, 50])


def extreme(rng: random.Random, file: bytearray, _: bytes) -> None:
    """Overwrite a number, mostly near the beginning, where sizes and offsets are."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        form = rng.choice(["<B", "<H", ">H", "<I", ">I", "<Q", ">Q"])
        most = 2 ** (8 * struct.calcsize(form))
        value = rng.choice(
            [0, 1, most - 1, most // 2, most // 2 - 1, 9_000, 60_000, rng.randrange(most)]
        )
        place = rng.randrange(max(1, min(len(file), rng.choice([32, 128, len(file)]))))
        file[place : place + struct.calcsize(form)] = struct.pack(form, value % most)


def swap_header(rng: random.Random, file: bytearray, other: bytes) -> None:
    length = rng.choice([4, 8, 16, 32, 64, 128])
    file[:length] = other[:length]


def swap_body(rng: random.Random, file: bytearray, other: bytes) -> None:
    start = rng.randrange(len(file))
    file[start:] = other[start:]


def empty(rng: random.Random, file: bytearray, _: bytes) -> None:
    start, length = rng.randrange(len(file)), rng.choice([4, 16, 256])
    file[start : start + length] = bytes(min(length, len(file) - start))


MUTATIONS = [flip, flip, extreme, extreme, extreme, cut_off, cut_out, duplicate, swap_header]
MUTATIONS += [swap_body, empty]


def mutated(rng: random.Random, file: bytes, other: bytes) -> bytes:
    spoilt = bytearray(file)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if spoilt:
            rng.choice(MUTATIONS)(rng, spoilt, other)
    return bytes(spoilt)


# --- Reading them, in a process of its own ------------------------------------------------------


def read_all(folder: Path, first: int) -> None:
    """Read the files from `first` on; write a line before and after each."""
    sys.path.insert(0, str(ROOT))
    from going_modular import audit, data_setup

    paths = sorted(folder.rglob("*.jpg"))
    limit_memory()
    before, kind = peak_megabytes(), ""
    for number, path in enumerate(paths[first:], start=first):
        if path.parent.name != kind:
            kind = path.parent.name
            forget_peak()
        print(json.dumps({"begin": number}), flush=True)
        if hasattr(signal, "alarm"):  # not on Windows, where the parent's patience is the limit
            signal.alarm(SECONDS)
        start, fault = time.perf_counter(), ""
        try:
            image = data_setup.load_image(path)
            was_read = True
            if image.mode != "RGB" or not image.tobytes():
                fault = f"mode {image.mode}"
        except ValueError as error:
            was_read = False
            if not str(error).isprintable() or path.name not in str(error):
                fault = f"message {str(error)!r}"
        except BaseException as error:
            was_read, fault = False, f"load_image raised {error!r}"
        try:
            looked = audit.look(("", "class", path))
            if was_read == isinstance(looked, str):
                fault = "audit and load_image disagree"
            if isinstance(looked, str) and not looked.isprintable():
                fault = f"audit says {looked!r}"
        except BaseException as error:
            fault = f"audit raised {error!r}"
        seconds = time.perf_counter() - start
        print(
            json.dumps(
                {
                    "end": number,
                    "read": was_read,
                    "seconds": seconds,
                    "megabytes": peak_megabytes() - before,
                    "fault": fault,
                }
            ),
            flush=True,
        )


def limit_memory() -> None:
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError):
        print("no limit on memory on this system", file=sys.stderr)


def peak_megabytes() -> float:
    """Return the most memory since `forget_peak`, or since the start where that does nothing."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 2**10
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# --- The whole run ------------------------------------------------------------------------------


def run(folder: Path, count: int) -> list[dict]:
    """Have all files read; start again behind a file at which the process ended."""
    results, first = [], 0
    while first < count:
        command = [sys.executable, __file__, "--read", str(folder), str(first)]
        with tempfile.TemporaryFile() as noise:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=noise, text=True)
            ended = None
            for line in process.stdout:
                entry = json.loads(line)
                ended = entry.get("end")
                if ended is not None:
                    results.append(entry)
                first = entry.get("begin", first)
            code = process.wait()
            noise.seek(0)
            if text := noise.read(2000).decode("utf-8", "replace"):
                print(f"on stderr: {text}")
        if code:
            why = "took too long" if code == -getattr(signal, "SIGALRM", 0) else f"code {code}"
            fault = f"the process ended: {why}"
            results.append(
                {"end": first, "read": False, "seconds": 0, "megabytes": 0} | {"fault": fault}
            )
        first += 1
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=12_000, help="in all formats together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz_faults"), help="for what fails")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read_all(Path(options.read[0]), int(options.read[1]))
        return 0
    kinds = seeds()
    each, rng = -(-options.files // len(kinds)), random.Random(options.seed)
    print(f"Pillow {Image.__version__}, libtiff {features.version('libtiff')}, seed {options.seed}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for kind in sorted(kinds):
            others = [file for name, group in kinds.items() for file in group if name != kind]
            (folder / kind).mkdir()
            for number in range(each):
                content = mutated(rng, rng.choice(kinds[kind]), rng.choice(others))
                (folder / kind / f"{number:06}.jpg").write_bytes(content)
        paths = sorted(folder.rglob("*.jpg"))
        results = run(folder, len(paths))
        for result in results:
            result["path"] = paths[result["end"]]
            if result["fault"]:
                path = result["path"]
                options.keep.mkdir(parents=True, exist_ok=True)
                kept = options.keep / f"{path.parent.name}-{options.seed}-{path.name}"
                kept.write_bytes(path.read_bytes())
                print(f"FAULT {kept}: {result['fault']}")
    faults = sum(bool(result["fault"]) for result in results)
    print(f"{'format':<9} {'files':>6} {'read':>6} {'refused':>8} {'slowest s':>10} {'peak MB':>8}")
    for kind in [*kinds, "all"]:
        of_kind = [r for r in results if kind in (r["path"].parent.name, "all")]
        read = sum(result["read"] for result in of_kind)
        slowest = max(result["seconds"] for result in of_kind)
        peak = max(result["megabytes"] for result in of_kind)
        refused = len(of_kind) - read
        print(f"{kind:<9} {len(of_kind):>6} {read:>6} {refused:>8} {slowest:>10.2f} {peak:>8.0f}")
    print(f"faults: {faults}")
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

"""One file of weights from the network: an error that says what to do, within seconds.

The downloading itself is torch.hub's and huggingface_hub's. Knows no model.
"""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from going_modular import utils

CONNECT_SECONDS = 3  # for each address of a host
STALL_SECONDS = 30  # between two pieces of a running download, however long it takes in all


class WeightsError(RuntimeError):
    """Pretrained weights cannot be downloaded, or their file is damaged."""


@contextlib.contextmanager
def fetching(what: str, url: str, place: Path) -> Iterator[None]:
    """Raise WeightsError where the block cannot download `url` to `place`; wait for no dead server.

    torch.hub sets no time limit of its own.
    """
    before = socket.getdefaulttimeout()
    try:
        _knock(url)
        socket.setdefaulttimeout(STALL_SECONDS)
        yield
    except Exception as error:  # the libraries raise OSError, RuntimeError and their own
        raise WeightsError(
            f"The weights {what} cannot be downloaded: {utils.one_line(error)}\n"
            f"  from  {url}\n"
            f"  to    {place}\n"
            f"Load this model once on a computer with internet and copy {place.name} from there to "
            "here, or use the model efficientnet_lite0, whose weights need no download."
        ) from error
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def reading(path: Path | None) -> Iterator[None]:
    """Raise WeightsError, which names the file, where the block cannot use the weights in it."""
    try:
        yield
    except Exception as error:  # what a damaged file leads its reader to
        if path is None or isinstance(error, OSError | MemoryError):
            raise
        raise WeightsError(
            f"{path} is damaged, or holds other weights than its name says "
            f"({utils.one_line(error)}): move it away, and it will be downloaded again"
        ) from error


def _knock(url: str) -> None:
    """Raise OSError where a URL's host takes no connection, or where nobody wants one."""
    if utils.is_offline():
        raise ConnectionError("GOING_MODULAR_OFFLINE is set")
    parts = urlsplit(url)
    if not getproxies():  # else the proxy is asked, and may know the host
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname, port), CONNECT_SECONDS).close()

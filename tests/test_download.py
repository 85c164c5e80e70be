"""Downloads, against servers on this machine that behave well, badly and worse."""

import gzip
import hashlib
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest

from evsnn.datasets import download as download_module
from evsnn.datasets import download_mnist, mnist
from evsnn.datasets.download import default_cache, fetch_files
from evsnn.errors import DataError

CONTENT = {"a.gz": gzip.compress(bytes(range(256)) * 40, mtime=0), "b.gz": gzip.compress(b"b" * 999, mtime=0)}
REGISTRY = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
NAME, BODY = "a.gz", CONTENT["a.gz"]


class Server(ThreadingHTTPServer):
    """A mirror whose behaviour is set by the test; it keeps the requests it had."""

    daemon_threads = True

    def __init__(self, behaviour):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour
        self.asked = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, *_):
        pass


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.lstrip("/")
        asked = self.headers.get("Range")
        self.server.asked.append((name, asked))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        self.server.behaviour(self, CONTENT.get(name, b""), start)

    def answer(self, status, body, length=None, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def well(handler, body, start):
    if start >= len(body):
        handler.answer(416, b"")
    elif start:
        handler.answer(206, body[start:], Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
    else:
        handler.answer(200, body)


def without_ranges(handler, body, _):
    handler.answer(200, body)


def breaks_off(handler, body, start):
    rest = body[start:]
    half = rest[: len(rest) // 2]
    if start:
        end = len(body) - 1
        handler.answer(206, half, length=len(rest), Content_Range=f"bytes {start}-{end}/{len(body)}")
    else:
        handler.answer(200, half, length=len(rest))


def other_part(handler, body, start):
    handler.answer(206, body[start:], Content_Range=f"bytes 0-{len(body) - 1}/{len(body)}")


def labelled_as_packed(handler, body, _):
    handler.answer(200, body, Content_Encoding="gzip")


def not_found(handler, *_):
    handler.answer(404, b"<html>no</html>")


def down(handler, *_):
    handler.answer(503, b"")


def login_page(handler, *_):
    handler.answer(200, b"<html>log in first</html>")


def silent(handler, *_):
    handler.server.wake.wait(10)


def endless(handler, *_):
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.wake.is_set():
        handler.wfile.write(bytes(1 << 16))


@contextmanager
def serving(behaviour):
    server = Server(behaviour)
    server.wake = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.wake.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def fetch(folder, *servers, registry=None, **options):
    mirrors = [server if isinstance(server, str) else server.url for server in servers]
    registry = {NAME: REGISTRY[NAME]} if registry is None else registry
    return fetch_files(registry, mirrors, folder, remedy="do it by hand", **{"timeout_s": 5, **options})


def refusal(folder, *servers, **options):
    with pytest.raises(DataError) as caught:
        fetch(folder, *servers, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_downloaded_once(tmp_path, capfd, caplog, monkeypatch):
    monkeypatch.setattr(pooch.get_logger(), "handlers", [caplog.handler])
    folder = tmp_path / "deep" / "cache"
    with serving(well) as server:
        assert fetch(folder, server, registry=REGISTRY) == folder
        assert files(folder) == CONTENT
        assert server.asked == [("a.gz", None), ("b.gz", None)]
        fetch(folder, server, registry=REGISTRY)
        assert len(server.asked) == 2
    # And without any network at all.
    fetch(folder, "http://127.0.0.1:9/", registry=REGISTRY)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_progress_goes_to_stderr(tmp_path, capfd):
    with serving(well) as server:
        fetch(tmp_path, server, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert NAME in err
    assert "100%" in err


def test_a_damaged_file_in_the_cache_is_replaced(tmp_path):
    (tmp_path / NAME).write_bytes(BODY[:-1])
    with serving(well) as server:
        fetch(tmp_path, server)
    assert files(tmp_path) == {NAME: BODY}


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (not_found, "404 Not Found"),
        (down, "503 Service Unavailable"),
        (login_page, "wrong checksum"),
        (breaks_off, f"broke off after {len(BODY) // 2} bytes"),
    ],
)
def test_the_next_mirror_is_tried(tmp_path, behaviour, reason):
    with serving(behaviour) as bad, serving(well) as good:
        fetch(tmp_path / "cache", bad, good)
        assert files(tmp_path / "cache") == {NAME: BODY}
        assert len(bad.asked) == len(good.asked) == 1
        text = refusal(tmp_path / "other", bad, bad)
    assert text.startswith(f"cannot download {NAME}: {bad.url} ({reason}")
    assert text.count(bad.url) == 2
    assert text.endswith("; do it by hand")
    assert NAME not in files(tmp_path / "other")


def test_nobody_listens(tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        assert refusal(tmp_path, url) == f"cannot download {NAME}: {url} (Connection refused); do it by hand"
        with serving(well) as server:
            fetch(tmp_path, url, server)
    assert files(tmp_path) == {NAME: BODY}


def test_addresses_that_are_none(tmp_path):
    assert "(Invalid URL" in refusal(tmp_path, "nonsense/")
    assert "no mirror is named; do it by hand" in refusal(tmp_path)


def test_a_silent_mirror_is_given_up(tmp_path):
    with serving(silent) as bad, serving(well) as good:
        fetch(tmp_path, bad, good, timeout_s=0.2)
        assert "(no answer for 0.2 s)" in refusal(tmp_path / "other", bad, timeout_s=0.2)
    assert (tmp_path / NAME).read_bytes() == BODY


def test_an_endless_answer_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "MAX_BYTES", 1 << 20)
    with serving(endless) as server:
        assert "(sends more than 1 MiB)" in refusal(tmp_path, server)
        assert files(tmp_path) == {}


def test_a_packed_file_is_kept_as_it_is(tmp_path):
    with serving(labelled_as_packed) as server:
        fetch(tmp_path, server)
    assert files(tmp_path) == {NAME: BODY}


# --- downloads that break off


def test_continued_where_it_broke_off(tmp_path):
    with serving(breaks_off) as server:
        for _ in range(2):
            assert "broke off after" in refusal(tmp_path, server)
        assert list(files(tmp_path)) == [f"{NAME}.part"]
        first, second = len(BODY) // 2, len(BODY) // 2 + (len(BODY) - len(BODY) // 2) // 2
        assert files(tmp_path)[f"{NAME}.part"] == BODY[:second]
        assert server.asked == [(NAME, None), (NAME, f"bytes={first}-")]
    with serving(well) as server:
        fetch(tmp_path, server)
        assert server.asked == [(NAME, f"bytes={second}-")]
    assert files(tmp_path) == {NAME: BODY}


def test_the_next_mirror_continues(tmp_path):
    with serving(breaks_off) as bad, serving(well) as good:
        fetch(tmp_path, bad, good)
        assert good.asked == [(NAME, f"bytes={len(BODY) // 2}-")]
    assert files(tmp_path) == {NAME: BODY}


def test_a_server_without_ranges_starts_over(tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:20])
    with serving(without_ranges) as server:
        fetch(tmp_path, server)
        assert server.asked == [(NAME, "bytes=20-")]
    assert files(tmp_path) == {NAME: BODY}


@pytest.mark.parametrize(
    "part",
    [b"x" * 20, b"x" * len(BODY), BODY + b"x", b"x" + BODY[1:-1]],
    ids=["start", "all", "more", "most"],
)
def test_a_corrupt_part_is_fetched_anew(tmp_path, part):
    (tmp_path / f"{NAME}.part").write_bytes(part)
    with serving(well) as server:
        fetch(tmp_path, server)
        assert server.asked == [(NAME, f"bytes={len(part)}-"), (NAME, None)]
    assert files(tmp_path) == {NAME: BODY}


def test_a_complete_part_needs_no_network(tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY)
    fetch(tmp_path, "http://127.0.0.1:9/")
    assert files(tmp_path) == {NAME: BODY}


def test_an_empty_part_is_no_part(tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(b"")
    with serving(well) as server:
        fetch(tmp_path, server)
        assert server.asked == [(NAME, None)]


def test_the_wrong_part_is_not_taken(tmp_path):
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:20])
    with serving(other_part) as bad, serving(well) as good:
        fetch(tmp_path, bad, good)
        assert good.asked == [(NAME, "bytes=20-")]
    assert files(tmp_path) == {NAME: BODY}


def test_a_wrong_file_leaves_nothing(tmp_path):
    with serving(login_page) as server:
        assert "wrong checksum" in refusal(tmp_path, server)
    assert files(tmp_path) == {}


# --- the folder


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    with serving(well) as server:
        text = refusal(tmp_path / "file" / "cache", server)
        assert text.startswith(f"cannot write to the download folder {tmp_path / 'file' / 'cache'}: ")
        assert "set EVSNN_CACHE" in text

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(download_module, "_pieces", full)
        assert "No space left on device" in refusal(tmp_path / "cache", server)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("EVSNN_CACHE", str(tmp_path))
    assert default_cache() == tmp_path
    monkeypatch.setenv("EVSNN_CACHE", "")
    assert default_cache().name == "evsnn"
    monkeypatch.delenv("EVSNN_CACHE")
    assert default_cache().name == "evsnn"


def test_download_mnist(tmp_path, monkeypatch):
    monkeypatch.setenv("EVSNN_CACHE", str(tmp_path))
    with serving(well) as server:
        folder = download_mnist(mirrors=[server.url], registry=REGISTRY, timeout_s=5)
        assert folder == tmp_path / "mnist"
        assert files(folder) == CONTENT
        named = download_mnist(tmp_path / "here", [server.url], registry=REGISTRY, timeout_s=5)
        assert named == tmp_path / "here"
    with (
        serving(not_found) as server,
        pytest.raises(DataError, match="download the four files by hand and name"),
    ):
        download_mnist(tmp_path / "there", [server.url], timeout_s=5)


def test_the_registry_is_that_of_mnist():
    assert len(mnist.REGISTRY) == 4
    assert all(len(digest) == 64 and name.endswith("-ubyte.gz") for name, digest in mnist.REGISTRY.items())
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in mnist.MIRRORS)
    assert isinstance(default_cache(), Path)

"""A hub that refuses or keeps silent: told within seconds, from what is kept where that is enough."""

import http.server
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from harness.data import hub
from harness.data.backbones import build_backbone

constants = pytest.importorskip("huggingface_hub.constants")


@contextmanager
def silent():
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def refusing():
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def answering():
    class Lost(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(404)
            self.end_headers()

        def log_message(self, *given):
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lost) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("place", "reason"), [(silent, "ReadTimeout"), (refusing, "ConnectionError"), (answering, None)]
)
def test_why_a_hub_is_out_of_reach(place, reason, monkeypatch):
    monkeypatch.setattr(hub, "SECONDS", (0.3, 0.3))
    with place() as address:
        monkeypatch.setenv("HF_ENDPOINT", f"{address}/")
        assert hub.fault() == reason
        with hub.offline_unless_reached():
            assert (reason is not None) == constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE


def test_what_is_promised_is_below_20_seconds():
    assert sum(hub.SECONDS) < 20


def backbone():
    build_backbone("resnet10t", "hub", {})


def sentences():
    encoder = pytest.importorskip("ranksim.sentence_encoder")
    pytest.importorskip("sentence_transformers")
    encoder._sentence_transformer("nobody/nothing")


@pytest.mark.parametrize("asks", [backbone, sentences])
@pytest.mark.parametrize("place", [silent, refusing])
def test_weights_from_a_hub_that_is_out_of_reach_are_one_sentence_soon(asks, place, monkeypatch, tmp_path):
    pytest.importorskip("timm")
    monkeypatch.setattr(hub, "SECONDS", (0.3, 0.3))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with place() as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        began = time.monotonic()
        with pytest.raises(
            OSError, match=r"could not be downloaded from the hub|give a folder that holds one"
        ) as error:
            asks()  # a ConnectionError is an OSError
        assert time.monotonic() - began < 15  # the library's own retries take minutes
    assert "\n" not in str(error.value)
    assert not constants.HF_HUB_OFFLINE

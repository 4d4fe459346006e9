import hashlib
import shutil
import threading
from collections import Counter
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.data.download import DownloadError, RemoteFile, faults, fetch, obtain

CONTENT = bytes(range(256)) * 12_000  # 3,072,000 bytes: forty-seven pieces
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/good answers ranges; /plain does not; /cut breaks off after a million bytes; /wrong is another file."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.asked.append((kind, self.headers.get("Range")))
        if kind == "missing":
            return self.send_error(404)
        if kind == "busy":
            return self.send_error(503)
        content = CONTENT[::-1] if kind == "wrong" else CONTENT
        begin = 0
        if (wanted := self.headers.get("Range")) and kind != "plain":
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            shifted = begin + 1 if kind == "shifted" else begin
            self.send_header("Content-Range", f"bytes {shifted}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if kind != "unsized":
            self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        end = begin + 1_000_000 if kind == "cut" or (kind == "cut_once" and begin == 0) else len(content)
        self.wfile.write(content[begin:end])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.asked = []
    thread = threading.Thread(target=partial(running.serve_forever, poll_interval=0.01), daemon=True)
    thread.start()
    running.home = f"http://127.0.0.1:{running.server_port}"
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def remote(server, *kinds, **facts):
    return RemoteFile("thing.bin", urls=tuple(f"{server.home}/{kind}/thing.bin" for kind in kinds), **facts)


def test_a_file_arrives_and_is_verified(server, tmp_path):
    path = fetch(remote(server, "good", size=len(CONTENT), sha256=SHA256), tmp_path)
    assert path.read_bytes() == CONTENT
    assert [item.name for item in tmp_path.iterdir()] == ["thing.bin"]


def test_a_good_copy_is_not_downloaded_again(server, tmp_path):
    file = remote(server, "good", sha256=SHA256)
    fetch(file, tmp_path)
    fetch(file, tmp_path)
    assert len(server.asked) == 1


def test_a_damaged_copy_is_downloaded_again(server, tmp_path, capsys):
    (tmp_path / "thing.bin").write_bytes(b"half of it")
    assert fetch(remote(server, "good", size=len(CONTENT)), tmp_path).read_bytes() == CONTENT
    assert "has 10 bytes, expected 3,072,000" in capsys.readouterr().err


def test_a_broken_download_goes_on_where_it_stopped(server, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.data.download._ATTEMPTS", 1)
    with pytest.raises(DownloadError, match=r"983,040 of 3,072,000 bytes.*983,040 bytes are kept"):
        fetch(remote(server, "cut", sha256=SHA256), tmp_path)
    assert not (tmp_path / "thing.bin").exists()
    assert fetch(remote(server, "good", sha256=SHA256), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("cut", None), ("good", "bytes=983040-")]


def test_a_connection_that_ends_early_is_taken_up_again_by_itself(server, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.data.download._ATTEMPTS", 4)
    assert fetch(remote(server, "cut", sha256=SHA256), tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=983040-", "bytes=1966080-", "bytes=2949120-"]


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    (tmp_path / "thing.bin.part").write_bytes(CONTENT[:777])
    assert fetch(remote(server, "plain", sha256=SHA256), tmp_path).read_bytes() == CONTENT


def test_a_server_that_goes_on_elsewhere_is_not_trusted(server, tmp_path):
    (tmp_path / "thing.bin.part").write_bytes(CONTENT[:777])
    with pytest.raises(DownloadError, match="go on at byte 777 and answered 'bytes 778-"):
        fetch(remote(server, "shifted", sha256=SHA256), tmp_path)


def test_the_wrong_beginning_of_an_old_attempt_costs_one_more_download(server, tmp_path):
    (tmp_path / "thing.bin.part").write_bytes(b"x" * 777)
    assert fetch(remote(server, "good", sha256=SHA256), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("good", "bytes=777-"), ("good", None)]


@pytest.mark.parametrize("known", [len(CONTENT), None])
def test_a_part_that_is_whole_only_needs_its_name(server, tmp_path, known):
    (tmp_path / "thing.bin.part").write_bytes(CONTENT)
    assert fetch(remote(server, "good", size=known, sha256=SHA256), tmp_path).read_bytes() == CONTENT
    assert server.asked == ([] if known else [("good", f"bytes={len(CONTENT)}-")])


@pytest.mark.parametrize("known", [len(CONTENT), None])
def test_a_part_that_is_too_long_is_thrown_away(server, tmp_path, known):
    (tmp_path / "thing.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(remote(server, "good", size=known, sha256=SHA256), tmp_path).read_bytes() == CONTENT


def test_corrupt_content_is_told_and_nothing_kept(server, tmp_path):
    found = hashlib.sha256(CONTENT[::-1]).hexdigest()
    with pytest.raises(DownloadError, match=f"has sha256 {found}, expected {SHA256}: damaged .* nothing was kept"):
        fetch(remote(server, "wrong", sha256=SHA256), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_md5_counts_where_nothing_better_is_known(server, tmp_path):
    with pytest.raises(DownloadError, match=f"has md5 {hashlib.md5(CONTENT[::-1]).hexdigest()}"):
        fetch(remote(server, "wrong", md5=hashlib.md5(CONTENT).hexdigest()), tmp_path)


def test_another_size_is_refused_before_the_transfer(server, tmp_path):
    with pytest.raises(DownloadError, match="the server offers 3,072,000 bytes, expected 5,000,000"):
        fetch(remote(server, "good", size=5_000_000), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_mirrors_are_tried_in_order(server, tmp_path):
    file = remote(server, "missing", "busy", "wrong", "good", "never", sha256=SHA256)
    assert fetch(file, tmp_path).read_bytes() == CONTENT
    assert Counter(kind for kind, _ in server.asked) == {"missing": 1, "busy": 3, "wrong": 1, "good": 1}


def test_all_mirrors_failing_says_why_for_each(server, tmp_path):
    dead = RemoteFile("thing.bin", urls=("http://127.0.0.1:9/x", f"{server.home}/missing/x", "file:///etc/hostname"))
    with pytest.raises(DownloadError, match=r"127.0.0.1:9/x: .*refused.*/missing/x: .*404.*should begin with http"):
        fetch(dead, tmp_path)


def test_a_file_of_unknown_length_is_judged_by_its_hash(server, tmp_path):
    assert fetch(remote(server, "unsized", sha256=SHA256), tmp_path).read_bytes() == CONTENT


def test_a_full_disk_is_said_before_the_download(server, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=4_000_000)
    monkeypatch.setattr("harness.data.download.shutil.disk_usage", lambda _: usage)
    with pytest.raises(DownloadError, match=r"thing.bin needs about 6,144,000 bytes .* and 4,000,000 are free"):
        fetch(remote(server, "good", size=len(CONTENT), unpack=True), tmp_path)
    assert server.asked == []
    fetch(remote(server, "good", size=len(CONTENT)), tmp_path)  # 3,072,000 bytes fit if nothing is unpacked


def test_the_progress_line_shows_share_and_speed_on_a_terminal(server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    fetch(remote(server, "good"), tmp_path)
    assert "3.1/3.1 MB" in capsys.readouterr().err


def test_data_behind_a_form_say_what_to_do(tmp_path):
    by_hand = RemoteFile("img.zip", sha256=SHA256)
    with pytest.raises(DownloadError, match="ask the authors"):
        fetch(by_hand, tmp_path, by_hand="ask the authors")
    (tmp_path / "img.zip").write_bytes(b"a login page")
    with pytest.raises(DownloadError, match=r"img.zip has sha256 .*; replace it. ask the authors"):
        fetch(by_hand, tmp_path, by_hand="ask the authors")
    assert (tmp_path / "img.zip").read_bytes() == b"a login page"
    (tmp_path / "img.zip").write_bytes(CONTENT)
    assert fetch(by_hand, tmp_path) == tmp_path / "img.zip"


def zipped(tmp_path: Path) -> bytes:
    source = tmp_path / "source"
    (source / "birds").mkdir(parents=True)
    (source / "birds" / "wren.txt").write_text("wren")
    return Path(shutil.make_archive(str(tmp_path / "birds"), "zip", source)).read_bytes()


def test_obtain_downloads_unpacks_checks_and_is_idempotent(server, tmp_path, monkeypatch):
    content = zipped(tmp_path)
    monkeypatch.setitem(globals(), "CONTENT", content)
    folder = tmp_path / "data"
    file = remote(server, "good", sha256=hashlib.sha256(content).hexdigest(), unpack=True)
    checks = []

    def check():
        checks.append(1)
        return f"{(folder / 'birds' / 'wren.txt').read_text()} is here"

    assert obtain([file], folder, check) == "wren is here"
    assert not (folder / "thing.bin").exists()
    assert faults([file], folder) == []
    assert obtain([file], folder, check) == "wren is here"
    assert len(server.asked) == 1
    assert len(checks) == 3

    (folder / "birds" / "wren.txt").unlink()  # incomplete: it comes back
    assert obtain([file], folder, check, keep_archives=True) == "wren is here"
    assert (folder / "thing.bin").read_bytes() == content


def test_obtain_is_not_content_with_data_that_fail_their_check(server, tmp_path):
    def check():
        raise ValueError("3,043 images, expected 5,924")

    with pytest.raises(ValueError, match="3,043 images"):
        obtain([remote(server, "good")], tmp_path, check)


def test_a_file_to_be_brought_by_hand_may_lie_elsewhere(tmp_path):
    assert faults([RemoteFile("Eval/list.txt", urls=())], tmp_path) == []


def test_faults_names_missing_and_damaged_files(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    files = [
        RemoteFile("a", size=3),
        RemoteFile("a", size=4),
        RemoteFile("b", urls=("http:",)),
        RemoteFile("c.zip", unpack=True),
    ]
    assert faults(files, tmp_path) == [f"{tmp_path / 'a'} has 3 bytes, expected 4", f"{tmp_path / 'b'} is missing"]

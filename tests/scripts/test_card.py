"""The model card, and its way to the Hugging Face hub."""

import json
import threading
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml
from hydra.utils import instantiate
from loaded_script import loaded
from made_runs import made

from harness.data import hub as reaching
from harness.record.standalone import Trained
from harness.show.card import card, selection
from harness.study import results

script = loaded("export")
ENCODER = {"_target_": "ranksim.model.NumbersEncoder", "columns": 1}
READER = {"_target_": "ranksim.datasets.reading.Numbers", "features": {"a|b*": {"mean": 0.0, "deviation": 1.0}}}
FACTS = {
    "format": 1, "task": "regression", "model": {"_target_": "ranksim.model.Regressor", "encoder": ENCODER},
    "reader": READER, "checkpoint": "last", "epoch": 2, "metrics": {"test/recall@1": 0.5, "test/mae": None},
    "measures": {"recall@1": {"kind": "share", "higher_is_better": True}}, "target": "<price> [1]",
    "run": {"experiment": "cub_rambo", "seed": 0, "data": {"name": "CUB", "fixture": True, "test": {"images": 7}}},
}  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Trained(instantiate(FACTS["model"]).eval(), instantiate(READER), FACTS)


@pytest.fixture
def run(tmp_path, model):
    """A finished run of three, with its model."""
    overrides = ["loss.margin=0.1", "model.weights=/home/me/w.pth", "data.root=/home/me/cub"]
    for seed in range(3):
        made(
            tmp_path / f"seed{seed}", seed, 0.5 + seed / 10, {"loss.margin": 0.1, "loss.file": "/home/me/x"}, overrides
        )
    model.save(tmp_path / "seed0" / "model")
    return tmp_path / "seed0"


def test_a_card_says_what_a_model_is(run, capsys):
    script.main([str(run / "model"), "--card", "--out", str(run / "alone" / "x")])
    text = (run / "alone" / "README.md").read_text()
    assert "what else the command line changed is not known here" in text
    assert "One seed: how far another would be from it is not known." in text
    runs = [results.read(run.parent / f"seed{seed}") for seed in range(3)]
    model = script.load(run / "model")
    text = card(model, runs[0], runs, licence="cc-by-4.0", name="me/birds", file="model.onnx")
    _, header, body = text.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "license": "cc-by-4.0", "library_name": "blackbox-ranking", "tags": ["regression", "ranking", "cub_rambo"],
        "metrics": ["recall@1", "mae"],
    }  # fmt: skip
    assert "| recall@1 on test, % | 50.0 | 60.0 ± 24.8 |" in body  # 4.303 * 10 / sqrt(3)
    assert "| mae on test | nan |" in body
    assert "python train.py experiment=cub_rambo loss.margin=0.1 model.weights=... seed=0\n" in body
    assert "| loss.margin | 0.1 |" in body
    assert "/home/me" not in text
    assert "It predicts \\<price\\> \\[1\\]." in body
    assert "The features a\\|b\\*, in this order" in body
    assert "**Stand-in data: these numbers mean nothing.**" in body
    assert "* test: 7 images" in body
    assert 'snapshot_download("me/birds")' in body
    assert 'InferenceSession("model.onnx")' in body
    assert "mean over seeds 0, 1, 2" in body


def test_a_card_says_what_chose_the_weights():
    assert selection({**FACTS, "checkpoint": "best_on_test_average"}) == (
        "The weights are those of epoch 2, the best on test. Its numbers on test are therefore too good. The weights "
        "are the moving average."
    )
    assert "epoch 2, chosen by nothing (last)." in selection(FACTS)
    assert "epoch that is not on record, the best on validation." in selection({"checkpoint": "best_on_validation"})


@pytest.fixture
def server(monkeypatch):
    """A hub that takes everything, or says `status`; what it was told is in `.calls`."""

    class Hub(BaseHTTPRequestHandler):
        calls, status = [], 200

        def answer(self):
            said = self.rfile.read(int(self.headers.get("content-length") or 0))
            self.calls.append((self.path, self.headers.get("authorization"), said))
            place = f"http://{self.headers['host']}/me/birds"
            files = json.loads(said)["files"] if "preupload" in self.path else []
            out = json.dumps({
                "url": place, "commitUrl": f"{place}/commit/abc", "commitOid": "abc", "success": True,
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files],
                "error": f"no, {self.headers.get('authorization')}",
            }).encode()  # fmt: skip
            self.send_response(200 if self.command == "HEAD" else self.status)
            self.send_header("content-length", str(len(out)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(out)

        do_GET = do_POST = do_HEAD = answer  # noqa: N815

        def log_message(self, *_):
            pass

    pytest.importorskip("huggingface_hub")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield Hub
        server.shutdown()


def test_model_and_card_are_uploaded_as_a_private_repository(server, run, capsys):
    script.main([str(run), "--push", "birds"])
    out = capsys.readouterr().out
    assert out.endswith("/me/birds: uploaded\n")
    told = {path.rpartition("/")[2] if "repos" in path else path.split("/")[-2]: said for path, _, said in server.calls}
    assert json.loads(told["create"])["visibility"] == "private"
    lines = [json.loads(line)["value"] for line in told["commit"].decode().splitlines()[1:]]
    files = {line["path"]: b64decode(line["content"]) for line in lines}
    assert sorted(files) == ["README.md", "model.json", "model.safetensors"]
    assert files["model.safetensors"] == (run / "model" / "model.safetensors").read_bytes()
    assert b'snapshot_download("birds")' in files["README.md"]
    assert "hf_secret" not in out


def test_a_hub_that_refuses_or_is_out_of_reach_costs_a_sentence(server, run, monkeypatch):
    server.status = 403
    with pytest.raises(SystemExit, match="did not take birds: ") as refused:
        script.main([str(run), "--push", "birds"])
    assert "hf_secret" not in str(refused.value)
    monkeypatch.setattr(reaching, "SECONDS", (0.5, 0.5))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SystemExit, match=r"127.0.0.1:9 cannot be reached \(ConnectionError\); nothing was uploaded"):
        script.main([str(run), "--push", "birds"])
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SystemExit, match="nobody is logged in to the Hugging Face hub: run `hf auth login`"):
        script.main([str(run), "--push", "birds"])

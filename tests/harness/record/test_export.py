"""An exported file answers as the network does, alone and with any number of samples, or there is none."""

import json
import sys

import pytest
import torch
from hydra.utils import instantiate
from loaded_script import loaded
from PIL import Image
from torch import nn

from harness.record import export, load
from harness.record.standalone import Trained

script = loaded("export")

IMAGES = {"_target_": "harness.data.reading.Images", "size": [32, 32], "upright": True}
NUMBERS = {"_target_": "ranksim.datasets.reading.Numbers", "features": {"a": {"mean": 2.0, "deviation": 4.0}}}
CONVNET = {"_target_": "harness.data.backbones.SmallConvNet", "width": 2}
RETRIEVAL = {"_target_": "rambo.model.RetrievalModel", "backbone": CONVNET, "weights": "none", "embedding_size": 4}
REGRESSION = {
    "_target_": "ranksim.model.Regressor", "encoder": {"_target_": "ranksim.model.NumbersEncoder", "columns": 1},
}  # fmt: skip


def trained(task, model, reader, network=None):
    facts = {"format": 1, "task": task, "model": model, "reader": reader, "checkpoint": "last", "classes": ["b", "ü"]}
    torch.manual_seed(0)
    network = (instantiate(model, _convert_="all") if network is None else network).eval()
    return Trained(network, reader and instantiate(reader, _convert_="all"), facts)


@pytest.fixture
def pictures(tmp_path):
    for k in range(3):
        Image.effect_noise((40 + k, 30), 50).convert("RGB").save(tmp_path / f"{k}.png")
    return [str(tmp_path / f"{k}.png") for k in range(3)]


@pytest.mark.slow
def test_an_onnx_file_embeds_any_number_of_pictures_and_tells_how(tmp_path, pictures, capsys):
    for name in export.NEEDED["onnx"]:
        runtime = pytest.importorskip(name)
    model = trained("retrieval", RETRIEVAL, IMAGES)
    folder = model.save(tmp_path / "saved")
    script.main([str(folder), "--to", "onnx", "--out", str(tmp_path / "new" / "birds.onnx"), "--inputs", *pictures])
    assert "birds.onnx: last; largest difference from the network by samples: " in capsys.readouterr().out
    session = runtime.InferenceSession(tmp_path / "new" / "birds.onnx", providers=["CPUExecutionProvider"])
    for chosen in (pictures, pictures[:1], pictures * 3):
        batch = model.reader.collate([model.reader.read(one) for one in chosen])
        (embeddings,) = session.run(["embedding"], {"image": batch["image"].numpy()})
        torch.testing.assert_close(torch.from_numpy(embeddings), model.embed(chosen), atol=1e-6, rtol=1e-6)
    (blank,) = session.run(None, {"image": torch.zeros(1, 3, 32, 32, dtype=torch.uint8).numpy()})
    assert abs((blank**2).sum() - 1) < 1e-5
    said = session.get_modelmeta().custom_metadata_map
    assert json.loads(said["inputs"]) == {"image": {"type": "uint8", "shape": ["any", 3, 32, 32]}}
    assert "RGB, whole numbers 0 to 255" in said["preprocessing"]
    assert (
        "turned as their EXIF orientation says; where they have another size, resized to 32 x 32"
        in said["preprocessing"]
    )
    assert json.loads(said["model.json"])["classes"] == ["b", "ü"]


def test_a_file_of_torch_predicts_and_one_of_safetensors_is_the_model(tmp_path):
    model = trained("regression", REGRESSION, NUMBERS)
    rows = [[1.0], [2.0], [-7.0]]
    batches = export.batches(model, tmp_path, rows)
    assert [len(batch["numbers"]) for batch in batches] == list(export.SIZES)
    found = export.export(model, "torch", tmp_path / "model.pt2", batches)
    assert sorted(found) == [1, 2, 5]
    assert max(found.values()) < 1e-6
    files = {"preprocessing": "", "inputs": "", "output": "", "model.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=files)
    standardised = torch.tensor([[-0.25], [0.0], [-2.25]])
    torch.testing.assert_close(program.module()(standardised), model.predict(rows))
    assert files["preprocessing"].startswith("The features a, in this order, each less its mean")
    assert json.loads(files["model.json"])["reader"]["features"]["a"] == {"mean": 2.0, "deviation": 4.0}
    assert export.export(model, "safetensors", tmp_path / "saved", batches) == {1: 0.0, 2: 0.0, 5: 0.0}
    assert torch.equal(load(tmp_path / "saved").predict(rows), model.predict(rows))


class Other(nn.Module):
    """Whatever a network can do that has no form in a file."""

    def __init__(self, way):
        super().__init__()
        self.way, self.calls = way, 0

    def forward(self, batch):
        numbers = batch["names"] if self.way == "list" else batch["numbers"]
        if self.way == "values" and bool((numbers > 0).all()):
            return numbers
        self.calls += 1
        return {"dict": {}, "list": numbers}.get(self.way, numbers * self.calls)


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (
            "list",
            r"Other cannot be exported, as it reads a list \(names\) and no tensor; load its model/ folder instead",
        ),
        ("dict", "Other cannot be exported, as it gives dict and no tensor"),
        ("values", r"Other cannot be exported, as torch.export cannot follow it \(Could not guard"),
        ("counts", "model.pt2 was not written, as it would answer otherwise than the network: in a batch of 1 by"),
    ],
)
def test_what_cannot_be_exported_is_refused_and_leaves_nothing(way, said, tmp_path, capfd):
    model = trained("other", {}, None, Other(way))
    given = [{"numbers": torch.ones(size, 1), "names": ["a"] * size} for size in export.SIZES]
    with pytest.raises(ValueError, match=said):
        export.export(model, "torch", tmp_path / "model.pt2", given)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_before_anything_is_exported_it_is_said_what_is_missing(tmp_path, monkeypatch):
    folder = trained("retrieval", RETRIEVAL, IMAGES).save(tmp_path / "saved")
    with pytest.raises(SystemExit, match="is a model without its data; give real inputs to check with: --inputs"):
        script.main([str(folder), "--to", "torch"])
    with pytest.raises(SystemExit, match="there is no image nowhere"):
        script.main([str(folder), "--to", "torch", "--inputs", "nowhere.png"])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(export.NEEDED, "onnx", ("onnxscript",))
    with pytest.raises(SystemExit, match=r'--to onnx needs onnxscript; run: pip install "blackbox-ranking\[export\]"'):
        script.main(["nowhere", "--to", "onnx"])

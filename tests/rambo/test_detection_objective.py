import io
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn
from torchvision.ops import box_iou

from rambo.detection.model import FasterRCNN
from rambo.detection.objective import DetectionObjective
from rambo.detection.settings import AnchorSettings, ProposalSettings, RegionSettings
from rambo.ranking import Blackbox, rank

CONFIGS = Path(__file__).parents[2] / "configs"
AP = "rambo.losses.MeanAveragePrecisionLoss"


class Recorder(nn.Module):
    """The mean score, and what it was given."""

    settings = {"preset": "corrected"}  # noqa: RUF012
    health = {"tie_rate": 0.25, "loss": -1.0}  # noqa: RUF012

    def forward(self, scores, relevance):
        self.scores, self.relevance = scores, relevance
        return scores.mean()


def average_precision(**settings):
    return DetectionObjective(AP, **{"interpolation": 0.5, "margin": 0.15, "memory_batches": 7, **settings})


def detected(logits, labels, **losses):
    """What a detector would return, with logits that can be trained."""
    logits = torch.as_tensor(logits, dtype=torch.float32).clone().requires_grad_()
    labels = torch.tensor(labels)
    first = {"rpn_objectness": 1.0, "rpn_box": 2.0, "roi_box": 4.0} | losses
    named = {name: torch.tensor(value) for name, value in first.items()}
    named["cross_entropy"] = nn.functional.cross_entropy(logits, labels)
    return SimpleNamespace(class_logits=logits, labels=labels, losses=named)


def random_regions(labels, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return detected(torch.randn(len(labels), classes + 1, generator=generator), labels)


def gradient(objective, output):
    (found,) = torch.autograd.grad(objective(output, {})["loss"], output.class_logits)
    return found


def tiny():
    torch.manual_seed(0)
    return FasterRCNN(
        "test_resnet",
        weights="none",
        levels=(2, 3),
        pyramid_channels=16,
        extra_level=False,
        frozen_stages=None,
        freeze_batch_norm=False,
        classes=3,
        anchors=AnchorSettings(scales=(3,)),
        proposals=ProposalSettings(
            samples=32, train_before_nms=60, train_after_nms=60, test_before_nms=30, test_after_nms=30
        ),
        regions=RegionSettings(samples=16, hidden=32, score_threshold=0.01),
    )


def scenes(objects=True):
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[4.0, 6.0, 30.0, 28.0], [20.0, 24.0, 50.0, 60.0]])[: 2 * objects]
    target = {"boxes": boxes, "labels": torch.tensor([1, 3])[: 2 * objects]}
    return {
        "images": [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=generator) for _ in range(2)],
        "targets": [target, target],
    }


def test_the_loss_is_the_sum_of_classification_and_the_detectors_own():
    output = detected([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], [0, 2])
    terms = DetectionObjective(Recorder(), classification_weight=3.0)(output, {})
    assert terms["loss"] == 3 * (1 + 2 + 4 + 5) / 4 + 1 + 2 + 4
    assert terms["classification"] == (1 + 2 + 4 + 5) / 4
    assert terms["cross_entropy"] == output.losses["cross_entropy"]
    assert (terms["rpn_objectness"], terms["rpn_box"], terms["roi_box"]) == (1, 2, 4)
    assert terms["positive_regions"] == 1
    assert terms["tie_rate"] == 0.25  # the classification loss's health, which never takes the place of the loss


def test_cross_entropy_is_the_baseline_and_a_diagnostic_of_every_other_loss():
    output = random_regions([0, 0, 1, 2, 3])
    terms = DetectionObjective("cross_entropy")(output, {})
    assert terms["loss"] == output.losses["cross_entropy"] + 1 + 2 + 4
    assert terms["classification"] == terms["cross_entropy"]
    assert average_precision()(output, {})["cross_entropy"] == terms["cross_entropy"]
    named = terms | average_precision()(output, {})
    assert {name for name, value in named.items() if torch.as_tensor(value).requires_grad} == {"loss"}


LOGITS = [[0.0, 1.0, -1.0], [2.0, 0.5, 3.0]]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ("logits", [[1.0, -1.0], [0.5, 3.0]]),
        ("softmax", [[math.exp(c) / sum(map(math.exp, row)) for c in row[1:]] for row in LOGITS]),
        ("sigmoid", [[1 / (1 + math.exp(-c)) for c in row[1:]] for row in LOGITS]),
    ],
)
def test_what_is_ranked_has_no_column_for_background(scores, expected):
    loss = Recorder()
    objective = DetectionObjective(loss, scores=scores, scored_by="sigmoid" if scores == "sigmoid" else "softmax")
    objective(detected(LOGITS, [0, 2]), {})
    assert torch.allclose(loss.scores, torch.tensor(expected))
    assert loss.relevance.tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize("scores", ["logits", "softmax", "sigmoid"])
def test_the_output_for_background_learns_only_through_softmax(scores):
    scored_by = "sigmoid" if scores == "sigmoid" else "softmax"
    objective = average_precision(scores=scores, scored_by=scored_by, interpolation=5.0)
    found = gradient(objective, random_regions([0, 0, 1, 2, 3, 0, 1, 0]))
    assert found[:, 1:].abs().sum() > 0
    assert (found[:, 0].abs().sum() > 0) == (scores == "softmax")


def test_box_losses_and_their_gradients_are_those_of_the_baseline_to_the_last_bit():
    found = []
    for objective in (DetectionObjective("cross_entropy"), average_precision()):
        model = tiny()
        torch.manual_seed(1)
        terms = objective(model(scenes()), {})
        terms["loss"].backward()
        found.append((model, terms))
    (baseline, expected), (model, terms) = found
    for name in ("rpn_objectness", "rpn_box", "roi_box", "cross_entropy", "positive_regions"):
        assert terms[name].item() == expected[name].item(), name
    assert terms["classification"] != expected["classification"]
    untouched = ("proposals.head.cls_logits", "proposals.head.bbox_pred", "regions.box_predictor.bbox_pred")
    touched = "regions.box_predictor.cls_score.weight"
    theirs = {name: parameter.grad for name, parameter in baseline.named_parameters()}
    for name, parameter in model.named_parameters():
        if name.startswith(untouched):
            assert torch.equal(parameter.grad, theirs[name]), name
            assert parameter.grad.abs().sum() > 0
        assert name != touched or not torch.equal(parameter.grad, theirs[name])


@pytest.mark.parametrize("preset", ["corrected", "official"])
def test_without_anything_relevant_the_loss_is_zero_connected_and_still_remembered(preset):
    objective = average_precision(preset=preset, on_empty="zero")
    output = random_regions([0, 0, 0, 0])
    terms = objective(output, {})
    assert terms["classification"] == 0
    assert terms["loss"] == 1 + 2 + 4
    terms["loss"].backward()
    assert torch.equal(output.class_logits.grad, torch.zeros(4, 4))
    assert len(objective.classification.memory) == 1


def test_a_whole_step_on_images_without_objects():
    model, objective = tiny(), average_precision()
    terms = objective(model(scenes(objects=False)), {})
    terms["loss"].backward()
    assert terms["classification"] == terms["rpn_box"] == terms["roi_box"] == 0
    assert terms["rpn_objectness"] > 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_class_relevant_in_memory_alone_still_pushes_the_negatives_of_now_down():
    objective = average_precision(interpolation=50.0)
    objective(detected([[0.0, 0.0, 0.5], [0.0, 0.0, 0.4]], [0, 2]), {})
    output = detected([[0.0, 3.0, 1.0], [0.0, 2.0, 0.3]], [0, 0])
    found = gradient(objective, output)
    assert found[0, 2] > 0  # ranked before the remembered object, so that it must fall
    assert torch.equal(found[:, :2], torch.zeros(2, 2))  # class 1 was never there: it has no average precision


def test_classes_without_objects_are_left_out_of_the_mean():
    objective = average_precision(margin=0.0, memory_batches=0, interclass_weight=0.0)
    output = detected([[0, 4.0, 1.0, 9.0], [0, 3.0, 5.0, 9.0], [0, 2.0, 4.0, 9.0]], [0, 1, 2])
    # class 1: its object is second; class 2: second too; class 3 has none
    assert objective(output, {})["classification"].item() == pytest.approx(1 - (1 / 2 + 1 / 2) / 2)


def test_both_terms_two_to_one():
    objective = average_precision(margin=0.0, memory_batches=0)
    output = detected([[0, 4.0, 1.0], [0, 3.0, 2.0], [0, 0.0, 0.5]], [0, 1, 2])
    by_class = 1 - (1 / 2 + 1 / 3) / 2
    in_one_sequence = 1 - (1 / 2 + 2 / 5) / 2  # 4, [3], 2, 1, [0.5], 0
    assert objective(output, {})["classification"].item() == pytest.approx(2 / 3 * by_class + 1 / 3 * in_one_sequence)


def test_memory_is_bounded_detached_and_filled_in_training_alone():
    objective = average_precision()
    for seed in range(9):
        objective(random_regions([0, 1, 2, 3], seed=seed), {})
    memory = objective.classification.memory
    assert len(memory) == 7
    assert torch.equal(memory.batches[-1]["scores"], random_regions([0, 1, 2, 3], seed=8).class_logits[:, 1:])
    assert not any(tensor.requires_grad for batch in memory.batches for tensor in batch.values())
    with torch.no_grad():
        objective(random_regions([1, 1, 1, 1]), {})
    evaluated = objective.eval()(random_regions([1, 1, 1, 1]), {})["loss"]
    assert torch.equal(memory.batches[-1]["scores"], random_regions([0, 1, 2, 3], seed=8).class_logits[:, 1:])
    assert torch.equal(evaluated, average_precision()(random_regions([1, 1, 1, 1]), {})["loss"])


def test_memory_survives_a_checkpoint():
    uninterrupted = average_precision()
    for seed in range(3):
        uninterrupted(random_regions([0, 1, 2, 3], seed=seed), {})
    file = io.BytesIO()
    torch.save(uninterrupted.state_dict(), file)
    file.seek(0)
    resumed = average_precision()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    found = [objective(random_regions([0, 0, 2, 1], seed=9), {})["loss"] for objective in (uninterrupted, resumed)]
    assert found[0].item() == found[1].item()
    fresh = average_precision()(random_regions([0, 0, 2, 1], seed=9), {})["loss"]
    assert fresh.item() != found[0].item()


def test_the_weight_multiplies_the_gradient_and_nothing_else():
    output = random_regions([0] * 20 + [1, 2, 3] * 3)
    once = gradient(average_precision(), output)
    assert torch.allclose(gradient(average_precision(classification_weight=10.0), output), 10 * once)


def test_the_official_weight_is_a_weight_and_a_lambda():
    """In the official code the ranks' gradient sees the weight: as described in the docstring, by the paper's rule."""
    output, weight = random_regions([0] * 20 + [1] * 5, classes=1), 8.0
    scores = output.class_logits.detach()[:, 1].clone().requires_grad_()
    relevant = output.labels == 1
    among = rank(scores.detach()[relevant], Blackbox(0.5))
    loss = 1 - (among / rank(scores, Blackbox(0.5))[relevant]).mean()
    (weight * loss).backward()
    plain = {"margin": 0.0, "memory_batches": 0, "interclass_weight": 0.0, "classification_weight": weight}
    ours = gradient(average_precision(interpolation=0.5 * weight, **plain), output)[:, 1]
    assert torch.allclose(ours, scores.grad, atol=1e-6)
    assert not torch.allclose(gradient(average_precision(interpolation=0.5, **plain), output)[:, 1], ours, atol=1e-6)


def test_half_precision_logits_are_ranked_in_single_precision():
    logits = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.tensor([0, 0, 1, 2, 3] * 12)
    regions, loss = detected([[0.0]], [0]), Recorder()
    regions.class_logits, regions.labels = logits.requires_grad_(), labels
    with torch.autocast("cpu", dtype=torch.bfloat16):
        DetectionObjective(loss, scores="softmax")(regions, {})
        half = average_precision()(regions, {})["loss"]
    assert loss.scores.dtype == torch.float32
    assert torch.equal(loss.scores, logits.detach().float().softmax(dim=1)[:, 1:])
    regions.class_logits = logits.float()
    assert half.item() == average_precision()(regions, {})["loss"].item()
    half.backward()
    assert logits.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("place", [1, 300_001])
def test_a_sequence_of_320_000_scores(place):
    """One object among 16,000 regions of 20 classes, at a known rank; in half precision the ranks would be equal."""
    order = torch.randperm(320_000, generator=torch.Generator().manual_seed(0))
    order[[0, int((order == place - 1).nonzero())]] = order[[int((order == place - 1).nonzero()), 0]]
    scores = torch.linspace(1, -1, 320_000)[order].view(16_000, 20)
    output = detected(torch.cat([torch.zeros(16_000, 1), scores], dim=1), [1] + [0] * 15_999)
    terms = average_precision(interpolation=50.0, margin=0.0, memory_batches=0)(output, {})
    among_its_class = int((scores[:, 0] > scores[0, 0]).sum()) + 1
    expected = 1 - 2 / 3 / among_its_class - 1 / 3 / place
    assert terms["classification"].item() == pytest.approx(expected, abs=1e-6)
    terms["loss"].backward()
    assert torch.isfinite(output.class_logits.grad).all()
    assert (output.class_logits.grad.count_nonzero() > 0) == (place > 1)


def test_ties_go_by_position_and_give_the_same_every_time():
    objective = average_precision(margin=0.0, memory_batches=0, interclass_weight=0.0)
    output = detected(torch.zeros(6, 3), [0, 0, 1, 0, 2, 1])
    terms = objective(output, {})
    assert terms["classification"].item() == pytest.approx(1 - ((1 / 3 + 2 / 6) / 2 + 1 / 5) / 2)
    assert terms["tie_rate"] == 1
    assert torch.equal(gradient(objective, output), gradient(objective, output))


def test_health_and_settings_are_there_for_the_log():
    objective = average_precision(interpolation=5.0)
    terms = objective(random_regions([0, 0, 1, 2, 3]), {})
    assert {"gradient_share", "negatives_before", "tie_rate"} < set(terms)
    assert 0 < terms["gradient_share"] <= 1
    settings = objective.settings
    assert settings["loss"].endswith("MeanAveragePrecisionLoss")
    assert settings["scores"] == "logits"
    assert (settings["margin"], settings["memory_batches"], settings["preset"]) == (0.15, 7, "corrected")
    assert DetectionObjective("cross_entropy").settings == {
        "loss": "cross_entropy",
        "scored_by": "softmax",
        "classification_weight": 1.0,
    }


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((AP,), {"lamda": 1}, "takes no lamda; it takes interpolation"),
        ((3,), {}, "must be cross_entropy, a torch module, or the name of a class"),
        (("cross_entropy",), {"margin": 0.1}, "got 'cross_entropy' with {'margin': 0.1}"),
        ((AP, "probabilities"), {"interpolation": 1}, "scores must be one of logits, softmax, sigmoid"),
        ((AP, "logits", "none"), {"interpolation": 1}, "scored_by must be one of softmax, sigmoid"),
        ((AP, "sigmoid"), {"interpolation": 1}, r"needs detections scored by sigmoid, got .*; set loss\.scored_by"),
        ((AP, "softmax", "sigmoid"), {"interpolation": 1}, "needs detections scored by softmax"),
        (("cross_entropy", "logits", "sigmoid"), {}, "training on softmax scores needs"),
        (("cross_entropy", "logits", "softmax", 0.0), {}, "classification_weight must be > 0 and finite, got 0"),
        ((AP,), {"interpolation": -1}, "must be > 0 and finite, got -1"),
    ],
)
def test_what_cannot_be_is_refused(arguments, settings, message):
    with pytest.raises((TypeError, ValueError), match=message):
        DetectionObjective(*arguments, **settings)


def composed(*overrides):
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", ["model=faster_rcnn_small", *overrides])


def test_the_config_holds_the_papers_values_and_every_one_can_be_overridden():
    config = composed("loss=detection_average_precision")
    settings = instantiate(config.loss, _convert_="all").settings
    assert (settings["margin"], settings["memory_batches"]) == (0.15, 7)
    assert settings["interclass_weight"] == pytest.approx(1 / 3)  # two parts by class, one over all
    assert "interpolation=0.5" in settings["rule"]
    changed = composed("loss=detection_average_precision", "loss.margin=0", "+detection_ap.interpolation=2.5")
    settings = instantiate(changed.loss, _convert_="all").settings
    assert settings["margin"] == 0
    assert "interpolation=2.5" in settings["rule"]


def test_the_model_scores_by_what_the_loss_trains():
    assert composed("loss=detection_cross_entropy").model.regions.scored_by == "softmax"
    sigmoid = composed("loss=detection_average_precision", "loss.scores=sigmoid", "loss.scored_by=sigmoid")
    assert sigmoid.model.regions.scored_by == "sigmoid"
    assert instantiate(sigmoid.loss, _convert_="all").scored_by == "sigmoid"
    assert instantiate(composed("loss=detection_cross_entropy").loss, _convert_="all").settings["loss"] == (
        "cross_entropy"
    )


def drawn_scenes(count=8):
    """Bright squares (class 1) and dark ones (class 3) on grey, one of each in a scene."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for _ in range(count):
        image = torch.full((3, 64, 64), 128, dtype=torch.uint8)
        corners = torch.randint(0, 12, (2, 2), generator=generator) + torch.tensor([[2, 2], [34, 34]])
        boxes = torch.cat([corners, corners + 18], dim=1)
        for (left, top, right, bottom), brightness in zip(boxes.tolist(), (255, 0), strict=True):
            image[:, top:bottom, left:right] = brightness
        images.append(image)
        targets.append({"boxes": boxes.float(), "labels": torch.tensor([1, 3])})
    return {"images": images, "targets": targets}


@pytest.mark.slow
@pytest.mark.parametrize(
    "objective",
    [
        DetectionObjective("cross_entropy"),
        average_precision(),
        average_precision(preset="official", on_empty="zero"),
        average_precision(scores="sigmoid", scored_by="sigmoid", classification_weight=10.0),
    ],
    ids=["cross_entropy", "logits", "official", "sigmoid"],
)
def test_a_detector_learns_with_every_loss(objective):
    model, batch = tiny(), drawn_scenes()
    model.regions.settings = RegionSettings(samples=16, hidden=32, scored_by=objective.scored_by)
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        terms = objective(model(batch), batch)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        found = model.eval()(batch)
    right = 0
    for image, target in zip(found, batch["targets"], strict=True):
        for box, label in zip(target["boxes"], target["labels"], strict=True):
            own = image["boxes"][image["labels"] == label][:1]
            right += int(len(own) > 0 and box_iou(own, box[None]).item() > 0.5)
    assert right >= 14  # of 16 objects, the best detection of their class

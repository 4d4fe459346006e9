from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rambo.detection import metrics as module
from rambo.detection.average_precision import (
    NOT_COUNTED,
    RIGHT,
    WRONG,
    average_precisions,
    coco_outcomes,
    precision_recall,
    voc_outcomes,
)
from rambo.detection.metrics import DetectionMetrics, bootstrap, collect, detection_metrics
from rambo.detection.pictures import judged

BOX = [0.0, 0.0, 10.0, 10.0]
FAR = [50.0, 50.0, 60.0, 60.0]
TENTHS = [Fraction(k, 10) for k in range(11)]
HUNDREDTHS = np.linspace(0, 1, 101).tolist()  # as in pycocotools, where 0.35 is a little more


def found(*entries):
    """Detections of an image from (box, score) or (box, score, label)."""
    return {
        "boxes": torch.tensor([entry[0] for entry in entries], dtype=torch.float32).reshape(-1, 4),
        "scores": torch.tensor([entry[1] for entry in entries], dtype=torch.float32),
        "labels": torch.tensor([entry[2] if len(entry) > 2 else 1 for entry in entries], dtype=torch.int64),
    }


def truth(*entries):
    """Objects of an image from (box,), (box, label) or (box, label, difficult)."""
    return {
        "boxes": torch.tensor([entry[0] for entry in entries], dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor([entry[1] if len(entry) > 1 else 1 for entry in entries], dtype=torch.int64),
        "difficult": torch.tensor([len(entry) > 2 and bool(entry[2]) for entry in entries], dtype=torch.bool),
    }


def voc(detections, objects, rule, threshold=0.5):
    return average_precisions(voc_outcomes(detections, objects, [threshold]), rule)[0].tolist()


def coco(detections, objects, threshold=0.5):
    return average_precisions(coco_outcomes(detections, objects, [threshold]), "101_point")[0].tolist()


def verdicts(outcomes):
    """In the order given."""
    back = torch.empty_like(outcomes.verdicts[0])
    back[outcomes.order] = outcomes.verdicts[0]
    return back.tolist()


# ---- values ----


def test_the_three_interpolations_by_hand():
    """Four objects, of which the 1st, 3rd and 6th of six detections find one: precision 1, 2/3 and 3/6 there."""
    objects = [truth((BOX,)) for _ in range(4)]
    hits = [0, None, 1, None, None, 2]
    detections = [
        found(*((BOX, 0.9 - 0.1 * rank) for rank, hit in enumerate(hits) if hit == image)) for image in range(4)
    ]
    detections[3] = found(*((FAR, 0.9 - 0.1 * rank) for rank, hit in enumerate(hits) if hit is None))
    assert voc(detections, objects, "all_point") == pytest.approx([(1 + 2 / 3 + 3 / 6) / 4])
    # recalls 0, .1, .2 | .3, .4, .5 | .6, .7 | .8, .9, 1
    assert voc(detections, objects, "11_point") == pytest.approx([(3 * 1 + 3 * 2 / 3 + 2 * 3 / 6 + 3 * 0) / 11])
    # recalls 0 to .25 | to .50 | to .75 | beyond
    assert coco(detections, objects) == pytest.approx([(26 * 1 + 25 * 2 / 3 + 25 * 3 / 6 + 25 * 0) / 101])


def test_precision_counts_at_the_highest_that_a_later_detection_reaches():
    """Wrong, right, right: precision 1/2 and then 2/3, so P is 2/3 all along."""
    objects = [truth((BOX,), (FAR,))]
    detections = [found(([20.0, 0, 30, 10], 0.9), (BOX, 0.8), (FAR, 0.7))]
    for rule in ("11_point", "all_point", "101_point"):
        assert voc(detections, objects, rule) == pytest.approx([2 / 3])


@pytest.mark.parametrize("objects", [10, 20, 30, 70, 110])
def test_a_recall_of_exactly_three_tenths_is_reached(objects):
    """In floating point 3 * 0.1 is more than 0.3, and 0.7 would be missed as well if steps were added up."""
    for tenths in range(11):
        right = objects * tenths // 10
        entries = [truth((BOX,)) for _ in range(objects)]
        detections = [found((BOX, 1.0)) if image < right else found() for image in range(objects)]
        assert voc(detections, entries, "11_point") == pytest.approx([(tenths + 1) / 11 if right else 0])


def test_later_detections_of_an_object_are_wrong():
    """Five detections of one object are one right and four wrong (Everingham et al. 2010, section 4.2)."""
    detections, objects = [found(*((BOX, 0.1 * k) for k in range(1, 6)))], [truth((BOX,))]
    for outcomes in (voc_outcomes(detections, objects), coco_outcomes(detections, objects)):
        assert verdicts(outcomes) == [WRONG, WRONG, WRONG, WRONG, RIGHT]
        assert precision_recall(outcomes, 1).tolist() == [
            [1, 1, 1, 1, 1],
            [1, 1 / 2, pytest.approx(1 / 3), 1 / 4, 1 / 5],
        ]


def test_detections_on_a_difficult_object_are_neither_right_nor_wrong():
    detections = [found((FAR, 0.9), (FAR, 0.8), (BOX, 0.7))]
    objects = [truth((BOX,), (FAR, 1, True))]
    for outcomes in (voc_outcomes(detections, objects), coco_outcomes(detections, objects)):
        assert verdicts(outcomes) == [NOT_COUNTED, NOT_COUNTED, RIGHT]
        assert average_precisions(outcomes, "all_point").tolist() == [[1]]
        assert precision_recall(outcomes, 1).tolist() == [[1], [1]]
    counted = [truth((BOX,), (FAR,))]
    assert voc(detections, counted, "all_point") == pytest.approx([(1 + 2 / 3) / 2])


def test_voc_compares_with_the_nearest_object_alone_and_coco_with_what_is_left():
    """Of two objects the second detection lies nearer to the first, which is taken, but overlaps both by a half."""
    objects = [truth(([0.0, 0, 10, 10],), ([4.0, 0, 14, 10],))]
    detections = [found(([0.0, 0, 10, 10], 0.9), ([1.0, 0, 11, 10], 0.8))]  # overlaps 9/11 and 7/13
    assert verdicts(voc_outcomes(detections, objects)) == [RIGHT, WRONG]
    assert verdicts(coco_outcomes(detections, objects)) == [RIGHT, RIGHT]
    assert coco_outcomes(detections, objects).found.tolist() == [[0, 1]]
    assert verdicts(coco_outcomes(detections, objects, [7 / 13 + 1e-9])) == [RIGHT, WRONG]


def test_a_difficult_object_nearer_than_another_shields_it_from_voc_alone():
    objects = [truth(([0.0, 0, 10, 10], 1, True), ([4.0, 0, 14, 10],))]
    detections = [found(([1.0, 0, 11, 10], 0.8))]
    assert verdicts(voc_outcomes(detections, objects)) == [NOT_COUNTED]
    assert verdicts(coco_outcomes(detections, objects)) == [RIGHT]


def test_coco_measures_a_difficult_object_by_the_detections_own_area():
    """A small detection within a large difficult object: overlap 100/2500 for VOC, all of itself for COCO."""
    objects = [truth(([0.0, 0, 50, 50], 1, True), (FAR,))]
    detections = [found(([5.0, 5, 15, 15], 0.9), ([45.0, 0, 55, 10], 0.8), ([46.0, 0, 56, 10], 0.7))]
    assert verdicts(voc_outcomes(detections, objects)) == [WRONG, WRONG, WRONG]
    assert verdicts(coco_outcomes(detections, objects)) == [NOT_COUNTED, NOT_COUNTED, WRONG]  # shares 1, 5/10, 4/10


def test_coco_looks_at_a_hundred_detections_of_a_class_in_an_image():
    boxes = [[20.0 * k, 0.0, 20.0 * k + 10, 10.0] for k in range(120)]
    objects = [truth(*((box,) for box in boxes))]
    detections = [found(*((box, 1 - 0.001 * k) for k, box in enumerate(boxes)))]
    assert voc(detections, objects, "all_point") == [1]
    assert verdicts(coco_outcomes(detections, objects)) == [RIGHT] * 100 + [NOT_COUNTED] * 20
    assert coco(detections, objects) == pytest.approx([84 / 101])  # recall 100/120 reaches 0, 0.01, ... 0.83


def test_an_overlap_equal_to_the_threshold_is_enough():
    half = [truth(([0.0, 0, 10, 20],))]
    assert verdicts(voc_outcomes([found((BOX, 0.5))], half)) == [RIGHT]  # 100 / 200
    assert verdicts(coco_outcomes([found((BOX, 0.5))], half)) == [RIGHT]
    three_quarters = [truth(([0.0, 0, 10, 10],))]
    for threshold, verdict in [(0.75, RIGHT), (0.7500001, WRONG)]:
        detections = [found(([0.0, 0, 10, 7.5], 0.5))]
        assert verdicts(voc_outcomes(detections, three_quarters, [threshold])) == [verdict]
        assert verdicts(coco_outcomes(detections, three_quarters, [threshold])) == [verdict]


def test_overlaps_are_the_development_kits_for_annotated_corners():
    """Corners count pixels from 1 and belong to the box: 3..6 are four pixels wide, as 2..6 is on a line."""
    kit = Fraction(4 * 4, 4 * 4 + 6 * 4 - 4 * 4)  # columns 3..6 and 1..6, rows 1..4 both
    annotated, given_box = (1, 1, 6, 4), (3, 1, 6, 4)
    boxes = [[left - 1, top - 1, right, bottom] for left, top, right, bottom in (annotated, given_box)]
    objects, detections = [truth((boxes[0],))], [found((boxes[1], 0.5))]
    assert verdicts(voc_outcomes(detections, objects, [float(kit)])) == [RIGHT]
    assert verdicts(voc_outcomes(detections, objects, [float(kit) + 1e-9])) == [WRONG]
    one_pixel = [[4.0, 4, 5, 5]]  # xmin = xmax = 5: a box of one pixel, not an empty one
    assert verdicts(voc_outcomes([found((one_pixel[0], 0.5))], [truth((one_pixel[0],))], [1.0])) == [RIGHT]


def test_equal_scores_keep_the_order_given():
    objects, near = [truth((BOX,))], [1.0, 0, 11, 10]
    for first, second, expected in [(BOX, FAR, 1), (FAR, BOX, 1 / 2)]:
        assert voc([found((first, 0.5), (second, 0.5))], objects, "all_point") == pytest.approx([expected])
    assert verdicts(voc_outcomes([found((near, 0.5), (BOX, 0.5))], objects)) == [RIGHT, WRONG]


def test_of_two_equally_near_objects_each_rule_takes_its_own():
    objects, detections = [truth((BOX,), (BOX,))], [found((BOX, 0.9), (BOX, 0.8))]
    assert voc_outcomes(detections, objects).found.tolist() == [[0, -1]]  # the first, as the development kit
    assert coco_outcomes(detections, objects).found.tolist() == [[1, 0]]  # the last, as pycocotools


def test_images_and_classes_are_apart():
    objects = [truth((BOX, 1)), truth((FAR, 1), (BOX, 2))]
    detections = [found((FAR, 0.9, 1), (BOX, 0.8, 2)), found((BOX, 0.7, 1), (FAR, 0.6, 2))]
    for outcomes in (voc_outcomes(detections, objects), coco_outcomes(detections, objects)):
        assert verdicts(outcomes) == [WRONG] * 4
        assert outcomes.objects.tolist() == [[0, 1, 0], [0, 1, 1]]


def test_nothing_found_scores_zero_and_a_class_without_objects_has_no_number():
    objects = [truth((BOX, 1)), truth((BOX, 3), (FAR, 4, True))]
    numbers = detection_metrics([found(), found((FAR, 0.9, 2), (FAR, 0.8, 4))], objects, ["a", "b", "c", "d", "e"])
    assert {name for name in numbers if name.startswith("ap50_11_point_")} == {"ap50_11_point_a", "ap50_11_point_c"}
    assert set(numbers.values()) == {0.0}
    numbers = detection_metrics([found((BOX, 0.1)), found((FAR, 0.9, 2))], objects, ["a", "b", "c", "d", "e"])
    assert (numbers["ap50_11_point_a"], numbers["ap50_11_point_c"]) == (1, 0)
    assert (numbers["ap50_11_point"], numbers["coco_ap"]) == (1 / 2, 1 / 2)


def test_images_without_objects_count_against_the_detector():
    detections, objects = [found((BOX, 0.9)), found((BOX, 0.8))], [truth(), truth((BOX,))]
    assert voc(detections, objects, "all_point") == [1 / 2]


def test_the_numbers_say_their_rule():
    """One object of two is found with an overlap of 0.64, and nothing else: right at 0.5, 0.55 and 0.6 of ten."""
    objects, detections = [truth((BOX,), (FAR,))], [found(([0.0, 0, 8, 8], 0.9))]
    expected = {
        "ap50_11_point": 6 / 11, "ap75_11_point": 0, "ap_11_point": 0.3 * 6 / 11,
        "ap50_all_point": 1 / 2, "ap75_all_point": 0, "ap_all_point": 0.3 * 1 / 2,
        "coco_ap50": 51 / 101, "coco_ap75": 0, "coco_ap": 0.3 * 51 / 101,
    }  # fmt: skip
    by_default = {**expected, "ap50_11_point_thing": 6 / 11}
    assert detection_metrics(detections, objects, ["thing"]) == pytest.approx(by_default)
    chosen = detection_metrics(detections, objects, ["thing"], rule="all_point")
    assert chosen == pytest.approx({**expected, "ap50_all_point_thing": 1 / 2})


# ---- slow definitions ----


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0, width) * max(0, height)
    area_a, area_b = ((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return Fraction(shared, area_a + area_b - shared), Fraction(shared, area_a)


def judge_voc(detections, objects, threshold):
    """Of one image and class, best first: VOCevaldet.m, told again."""
    taken, verdicts = set(), []
    for box, _ in detections:
        best, nearest = Fraction(-1), None
        for place, (other, _) in enumerate(objects):
            if overlap(box, other)[0] > best:
                best, nearest = overlap(box, other)[0], place
        if best < threshold:
            verdicts.append(WRONG)
        elif objects[nearest][1]:
            verdicts.append(NOT_COUNTED)
        else:
            verdicts.append(WRONG if nearest in taken else RIGHT)
            taken.add(nearest)
    return verdicts


def judge_coco(detections, objects, threshold):
    """Of one image and class, best first."""
    taken, verdicts = set(), []
    for box, _ in detections[:100]:
        options = [
            (overlap(box, other)[0], place)
            for place, (other, difficult) in enumerate(objects)
            if not difficult and place not in taken and overlap(box, other)[0] >= threshold
        ]
        if options:
            taken.add(max(options)[1])
            verdicts.append(RIGHT)
        else:
            crowded = any(difficult and overlap(box, other)[1] >= threshold for other, difficult in objects)
            verdicts.append(NOT_COUNTED if crowded else WRONG)
    return verdicts


def slow_precision(detections, objects, judge, threshold, points):
    """Average precision of one class: for each image a list of (box, score) and one of (box, difficult)."""
    rows = []
    for ours, theirs in zip(detections, objects, strict=True):
        ordered = sorted(ours, key=lambda pair: -pair[1])  # stable
        judged_ones = judge(ordered, theirs, threshold)
        rows += [(score, verdict) for (_, score), verdict in zip(ordered, judged_ones, strict=False)]
    rows = [verdict for _, verdict in sorted(rows, key=lambda row: -row[0]) if verdict != NOT_COUNTED]
    total = sum(not difficult for theirs in objects for _, difficult in theirs)
    if not total:
        return None
    right = [sum(verdict == RIGHT for verdict in rows[: n + 1]) for n in range(len(rows))]
    curve = [(Fraction(r, total), Fraction(r, n + 1)) for n, r in enumerate(right)]
    if points is None:
        steps = [Fraction(k, total) for k in range(1, total + 1)]
        return sum((highest_from(curve, step) for step in steps), Fraction(0)) / total
    return sum((highest_from(curve, point) for point in points), Fraction(0)) / len(points)


def highest_from(curve, least):
    return max((precision for recall, precision in curve if float(recall) >= float(least)), default=Fraction(0))


SIDE = st.integers(1, 6)
CORNER = st.integers(0, 5)
WHOLE_BOX = st.tuples(CORNER, CORNER, SIDE, SIDE).map(lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3]))
IMAGE = st.tuples(
    st.lists(st.tuples(WHOLE_BOX, st.integers(0, 4), st.integers(1, 2)), max_size=7),
    st.lists(st.tuples(WHOLE_BOX, st.booleans(), st.integers(1, 2)), max_size=5),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(IMAGE, min_size=1, max_size=4), st.sampled_from([1 / 4, 1 / 2, 3 / 4, 1.0]))
def test_equals_the_slow_definitions(images, threshold):
    """On a grid so coarse that scores and overlaps tie."""
    detections = [found(*((box, score / 4, label) for box, score, label in ours)) for ours, _ in images]
    objects = [truth(*((box, label, difficult) for box, difficult, label in theirs)) for _, theirs in images]
    tables = {
        "11_point": (voc(detections, objects, "11_point", threshold), judge_voc, TENTHS),
        "all_point": (voc(detections, objects, "all_point", threshold), judge_voc, None),
        "coco": (coco(detections, objects, threshold), judge_coco, HUNDREDTHS),
    }
    for name, (got, judge, points) in tables.items():
        for label in (1, 2):
            ours = [[(box, score) for box, score, other in entries if other == label] for entries, _ in images]
            theirs = [[(box, hard) for box, hard, other in entries if other == label] for _, entries in images]
            expected = slow_precision(ours, theirs, judge, Fraction(threshold), points)
            value = got[label - 1] if label <= len(got) else float("nan")
            assert (value != value) if expected is None else value == pytest.approx(float(expected)), name


def crowded_scenes(images, classes, seed, difficult=0.2):
    """Objects in whole pixels, and detections that lie around them, repeat them and confuse their classes."""
    generator = torch.Generator().manual_seed(seed)

    def whole(low, high, *shape):
        return torch.randint(low, high, shape, generator=generator).float()

    detections, objects = [], []
    for _ in range(images):
        count, many = int(whole(0, 7, 1)), int(whole(0, 30, 1))
        corners = whole(0, 60, count, 2)
        boxes = torch.cat([corners, corners + whole(8, 40, count, 2)], 1)
        labels = whole(1, classes + 1, count).long()
        flags = torch.rand(count, generator=generator) < difficult
        objects.append({"boxes": boxes, "labels": labels, "difficult": flags})
        if not count:
            many = min(many, 3)
            boxes, labels = torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([1])
        source = torch.randint(len(boxes), (many,), generator=generator)
        moved = boxes[source] + whole(-4, 5, many, 4)
        moved[:, 2:] = torch.maximum(moved[:, 2:], moved[:, :2] + 1)
        kept = torch.rand(many, generator=generator) < 0.7
        guess = labels[source].where(kept, whole(1, classes + 1, many).long())
        close = -(moved - boxes[source]).abs().sum(1) / 20
        scores = (close + torch.randn(many, generator=generator)).sigmoid()
        detections.append({"boxes": moved, "scores": scores, "labels": guess})
    return detections, objects


@pytest.mark.parametrize("difficult", [0.0, 0.3])
def test_the_coco_rule_equals_pycocotools(difficult):
    peer = pytest.importorskip("torchmetrics.detection", reason="optional extra: peers")
    pytest.importorskip("pycocotools", reason="optional extra: peers")
    detections, objects = crowded_scenes(120, 5, seed=1, difficult=difficult)
    theirs = peer.MeanAveragePrecision(
        iou_thresholds=list(module.THRESHOLDS), rec_thresholds=HUNDREDTHS, class_metrics=True, backend="pycocotools"
    )
    theirs.update(
        detections, [{"boxes": o["boxes"], "labels": o["labels"], "iscrowd": o["difficult"].long()} for o in objects]
    )
    expected = theirs.compute()
    ours = detection_metrics(detections, objects, "abcde")
    assert [ours["coco_ap"], ours["coco_ap50"], ours["coco_ap75"]] == pytest.approx(
        [float(expected[name]) for name in ("map", "map_50", "map_75")], abs=1e-6
    )
    precisions = average_precisions(coco_outcomes(detections, objects, module.THRESHOLDS), "101_point")
    assert precisions.mean(0).tolist() == pytest.approx(expected["map_per_class"].tolist(), abs=1e-6)
    assert 0.1 < ours["coco_ap"] < ours["coco_ap50"] < 0.9  # neither chance nor perfection


def test_scores_of_scenes_equal_the_slow_definition():
    """Dozens of images and detections, where the grid above has a few."""
    detections, objects = crowded_scenes(40, 3, seed=2)
    got = {rule: voc(detections, objects, rule, 0.6) for rule in ("11_point", "all_point")}
    for label in (1, 2, 3):
        ours, theirs = [], []
        for entry, other in zip(detections, objects, strict=True):
            pairs = zip(entry["boxes"].int().tolist(), entry["scores"].tolist(), entry["labels"].tolist(), strict=True)
            ours.append([(box, score) for box, score, own in pairs if own == label])
            pairs = zip(
                other["boxes"].int().tolist(), other["difficult"].tolist(), other["labels"].tolist(), strict=True
            )
            theirs.append([(box, hard) for box, hard, own in pairs if own == label])
        for rule, points in (("11_point", TENTHS), ("all_point", None)):
            expected = slow_precision(ours, theirs, judge_voc, Fraction(0.6), points)
            assert got[rule][label - 1] == pytest.approx(float(expected))


# ---- questions ----


def test_neither_the_order_of_images_nor_of_boxes_matters():
    detections, objects = crowded_scenes(60, 4, seed=3)
    expected = detection_metrics(detections, objects, "abcd")
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).tolist()

    def shuffled(entry):
        mixed = torch.randperm(len(entry["labels"]), generator=torch.Generator().manual_seed(1))
        return {key: value[mixed] for key, value in entry.items()}

    got = detection_metrics([shuffled(detections[i]) for i in order], [shuffled(objects[i]) for i in order], "abcd")
    assert got == pytest.approx(expected, abs=1e-12)


def test_perfect_detections_score_one_by_every_rule():
    _, objects = crowded_scenes(30, 4, seed=4, difficult=0)
    apart = [
        {**entry, "boxes": entry["boxes"] + 1000 * torch.arange(len(entry["boxes"]))[:, None]} for entry in objects
    ]
    detections = [{**entry, "scores": torch.rand(len(entry["labels"]))} for entry in apart]
    assert set(detection_metrics(detections, apart, "abcd").values()) == {1.0}


def test_a_monotone_map_of_the_scores_changes_nothing_and_types_do_not_matter():
    detections, objects = crowded_scenes(30, 4, seed=5)
    expected = detection_metrics(detections, objects, "abcd")
    mapped = [{**entry, "scores": 3 * entry["scores"].double().logit() - 7} for entry in detections]
    assert detection_metrics(mapped, objects, "abcd") == expected
    other = [{**entry, "boxes": entry["boxes"].double(), "labels": entry["labels"].int()} for entry in objects]
    assert detection_metrics(detections, other, "abcd") == expected


@pytest.mark.parametrize("box", [[5, 0, 1, 4], [0, 4, 4, 0], [9, 9, 5, 5]])
@pytest.mark.parametrize("judge", [voc_outcomes, coco_outcomes])
def test_swapped_corners_are_refused_on_either_side(judge, box):
    """Their area is negative, or, if both are swapped, positive: they would match, or not, without a word."""
    good, bad = [[0, 0, 4, 4]], [[0, 0, 4, 4], box]

    def boxes(them, **more):
        return {"boxes": torch.tensor(them).float(), "labels": torch.ones(len(them), dtype=torch.int64), **more}

    def pair(found, wanted):
        nothing = boxes(good, scores=torch.ones(1)), boxes(good, difficult=torch.zeros(1, dtype=torch.bool))
        detections = [nothing[0], boxes(found, scores=torch.ones(len(found)))]
        return detections, [nothing[1], boxes(wanted, difficult=torch.zeros(len(wanted), dtype=torch.bool))]

    judge(*pair(good, good))
    with pytest.raises(ValueError, match=r"detections of image 1 have a box .* that ends before it begins"):
        judge(*pair(bad, good))
    with pytest.raises(ValueError, match=r"objects of image 1 have a box .* boxes are \[left, top, right, bottom\]"):
        judge(*pair(good, bad))


def test_refusals():
    good, objects = [found((BOX, 0.5))], [truth((BOX,))]
    with pytest.raises(ValueError, match="of 1 images came with the objects of 2"):
        voc_outcomes(good, [*objects, truth()])
    with pytest.raises(ValueError, match=r"detections of image 0 need boxes \(n, 4\)"):
        voc_outcomes([{**good[0], "scores": torch.zeros(2)}], objects)
    with pytest.raises(ValueError, match=r"objects of image 0 need boxes .* got boxes \(2,\)"):
        coco_outcomes(good, [{**objects[0], "boxes": torch.zeros(2)}])
    with pytest.raises(ValueError, match="nan or infinity"):
        voc_outcomes([found((BOX, float("nan")))], objects)
    with pytest.raises(ValueError, match="nan or infinity"):
        voc_outcomes([found(([0.0, 0, 1, float("inf")], 0.5))], objects)
    with pytest.raises(ValueError, match="objects have label 0: classes count from 1"):
        voc_outcomes(good, [truth((BOX, 0))])
    with pytest.raises(ValueError, match="0 < t <= 1"):
        voc_outcomes(good, objects, [0.5, 0.0])
    with pytest.raises(ValueError, match="rule must be one of"):
        average_precisions(voc_outcomes(good, objects), "12_point")
    with pytest.raises(ValueError, match="rule must be 11_point"):
        DetectionMetrics(rule="101_point")
    with pytest.raises(ValueError, match="draws must be >= 0"):
        DetectionMetrics(draws=-1)
    with pytest.raises(ValueError, match="label 3 but names of only 2 classes: cat, dog"):
        detection_metrics([found((BOX, 0.5, 3))], objects, ["cat", "dog"])
    for nothing in ([truth()], [truth((BOX, 1, True))]):
        with pytest.raises(ValueError, match="1 images hold no object that is not difficult"):
            detection_metrics(good, nothing, ["cat"])
        with pytest.raises(ValueError, match="no object that is not difficult"):
            bootstrap(good, nothing)
    with pytest.raises(ValueError, match="at least one draw"):
        bootstrap(good, objects, draws=0)


# ---- the bootstrap ----


@pytest.mark.parametrize("rule", ["11_point", "all_point"])
def test_a_draw_is_the_metric_of_the_drawn_images(rule):
    """Also where an image is drawn twice or more, and where a class drops out."""
    detections, objects = crowded_scenes(9, 4, seed=6)
    interval = bootstrap(detections, objects, rule=rule, draws=25, seed=7)
    drawn = torch.randint(9, (25, 9), generator=torch.Generator().manual_seed(7))
    for value, images in zip(interval.draws.tolist(), drawn.tolist(), strict=True):
        numbers = detection_metrics([detections[i] for i in images], [objects[i] for i in images], "abcd", rule)
        assert value == pytest.approx(numbers[f"ap50_{rule}"], abs=1e-12)
    assert interval.value == pytest.approx(detection_metrics(detections, objects, "abcd", rule)[f"ap50_{rule}"])
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    assert [interval.low, interval.high] == pytest.approx(interval.draws.quantile(ends).tolist())


def test_chunks_of_draws_change_nothing(monkeypatch):
    detections, objects = crowded_scenes(20, 3, seed=8)
    whole = bootstrap(detections, objects, draws=50)
    monkeypatch.setattr(module, "_DRAW_ENTRIES", 7 * sum(len(entry["labels"]) for entry in detections))
    chunks = bootstrap(detections, objects, draws=50)
    assert torch.equal(whole.draws, chunks.draws)
    assert whole.low < whole.value < whole.high


def test_equal_images_have_no_spread_and_a_level_is_a_share():
    interval = bootstrap([found((BOX, 0.5), (FAR, 0.6))] * 8, [truth((BOX,))] * 8, rule="all_point", draws=20)
    assert (interval.value, interval.low, interval.high) == (1 / 2, 1 / 2, 1 / 2)
    detections, objects = crowded_scenes(30, 3, seed=9)
    wide, narrow = (bootstrap(detections, objects, level=level, draws=400) for level in (0.95, 0.5))
    inside = (wide.draws >= wide.low) & (wide.draws <= wide.high)
    assert inside.double().mean() == pytest.approx(0.95, abs=0.01)
    assert wide.low < narrow.low < narrow.high < wide.high


# ---- with a model and a loader ----


class Scenes(torch.utils.data.Dataset):
    classes = ("cat", "dog", "cow")

    def __init__(self, images=7):
        self.detections, self.ground_truth = crowded_scenes(images, 3, seed=10)

    def __len__(self):
        return len(self.ground_truth)

    def __getitem__(self, index):
        return index


class Oracle(nn.Module):
    """Says what the data set remembers; a different thing in training mode."""

    def __init__(self, data, drop=0):
        super().__init__()
        self.data, self.drop = data, drop
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, batch):
        assert not self.training
        assert not torch.is_grad_enabled()
        assert batch["images"][0].device == self.weight.device  # nested tensors were moved
        answers = [dict(self.data.detections[index]) for index in batch["index"].tolist()]
        for answer in answers:
            answer["scores"] = answer["scores"].half() if len(answer["scores"]) % 2 else answer["scores"]
        return answers[self.drop :]


def collated(indices):
    return {"images": [torch.zeros(3, 4, 4, dtype=torch.uint8) for _ in indices], "index": torch.tensor(indices)}


def loader_of(data, **options):
    return torch.utils.data.DataLoader(data, batch_size=3, collate_fn=collated, **options)


@pytest.mark.parametrize("training", [True, False])
def test_collect_puts_images_in_order_and_restores_the_mode(training):
    data = Scenes()
    model = Oracle(data).train(training)
    mixed = loader_of(data, sampler=[6, 2, 0, 1, 5, 3, 4])
    got = collect(model, mixed)
    assert model.training == training
    assert len(got) == 7
    for entry, expected in zip(got, data.detections, strict=True):
        assert torch.equal(entry["boxes"], expected["boxes"])
    assert DetectionMetrics()(model, mixed) == DetectionMetrics()(model, loader_of(data))
    numbers = detection_metrics(got, data.ground_truth, data.classes)
    assert DetectionMetrics()(model, mixed) == numbers
    for rule in ("11_point", "all_point"):
        interval = bootstrap(got, data.ground_truth, rule, draws=20)
        numbers |= {f"ap50_{rule}_low": interval.low, f"ap50_{rule}_high": interval.high}
    assert DetectionMetrics(draws=20)(model, mixed) == numbers


def test_the_names_are_those_of_what_is_given():
    data = Scenes()
    given = DetectionMetrics()(Oracle(data), loader_of(data))
    of_classes = {name for name in given if name.removeprefix("ap50_11_point_") in data.classes}
    assert of_classes
    assert set(DetectionMetrics().names()) == {"ap50_11_point_*", *(given.keys() - of_classes)}


def test_collect_refuses_what_would_give_a_wrong_number():
    data = Scenes()
    with pytest.raises(ValueError, match="gave 2 of the 7 images"):
        collect(Oracle(data), loader_of(data, sampler=[3, 4]))
    with pytest.raises(ValueError, match="detections of 2 images for 3"):
        collect(Oracle(data, drop=1), loader_of(data))
    with pytest.raises(ValueError, match="its data set is empty"):
        collect(Oracle(data), loader_of(Scenes(images=0)))


# ---- what is shown ----


def test_judged_shows_as_many_detections_as_objects_and_what_was_missed():
    """Class 1 has two objects that count, so its two best detections are shown; a difficult one is not counted."""
    left, right_one, hard = [0.0, 0, 10, 10], [20.0, 0, 30, 10], [40.0, 0, 50, 10]
    objects = [truth((left, 1), (hard, 1, True)), truth((right_one, 1), (FAR, 2))]
    detections = [
        found((hard, 0.99, 1), (FAR, 0.9, 1), (left, 0.8, 1), (left, 0.1, 1)),
        found((right_one, 0.7, 1), (FAR, 0.6, 3)),
    ]
    first, second = judged(detections, objects)
    assert first["right"]["boxes"].tolist() == [left]
    assert first["right"]["scores"].tolist() == pytest.approx([0.8])
    assert first["wrong"]["boxes"].tolist() == [FAR]
    assert first["missed"]["boxes"].tolist() == []
    assert second["right"]["boxes"].tolist() == second["wrong"]["boxes"].tolist() == []
    assert second["missed"]["boxes"].tolist() == [right_one, FAR]
    assert second["missed"]["labels"].tolist() == [1, 2]

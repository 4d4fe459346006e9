"""Which images meet in a batch: m of every class, or pairs of super-labels. A pure function of (seed, epoch)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from torch import Tensor

from rambo.labels import memberships, several


def _by_label(labels: Tensor, indices: Sequence[int] | None = None) -> dict[int, list[int]]:
    """Sample indices of every label, in order of label; `indices`: of these alone."""
    samples, values = (column.tolist() for column in memberships(labels))
    groups: dict[int, list[int]] = {label: [] for label in sorted(set(values))}
    wanted = range(len(labels)) if indices is None else set(indices)
    for index, label in zip(samples, values, strict=True):
        if index in wanted:
            groups[label].append(index)
    return groups


def _random(seed: int, epoch: int) -> random.Random:
    """Draws of one epoch; through text, so that (1, 12) and (11, 2) share nothing."""
    return random.Random(f"batches of seed {seed}, epoch {epoch}")


def _check(labels: Tensor, batch_size: int, samples_per_class: int, parts: int = 1) -> None:
    """Refuses what can never give a batch with a positive pair.

    Raises:
        ValueError: In one sentence, with the way out.
    """
    if not (labels.ndim == 1 or (several(labels) and parts == 1)) or len(labels) == 0:
        others = ", or bool (images, classes)" if parts == 1 else "; with several labels use class_balanced batches"
        raise ValueError(
            f"labels must be a non-empty vector, one class per image{others}, got shape {tuple(labels.shape)}"
        )
    if samples_per_class < 2:
        raise ValueError(
            f"samples_per_class is {samples_per_class}, so no batch can hold two images of a class: use 2 or more"
        )
    if batch_size < 1 or batch_size % (parts * samples_per_class):
        halves = "its two halves must each" if parts == 2 else "it must"
        raise ValueError(
            f"batch_size is {batch_size}, but {halves} divide into classes of {samples_per_class} images: "
            f"use a multiple of {parts * samples_per_class}"
        )
    if all(len(images) < 2 for images in _by_label(labels).values()):
        raise ValueError(
            f"each of the {len(labels)} training images is alone in its class, so no batch can hold a positive pair: "
            "check the labels, or use data with two or more images per class"
        )


class _Deck:
    """Deals cards evenly and for ever; none twice in one deal, unless it asks for more than there are."""

    def __init__(self, cards: Sequence[int], draws: random.Random) -> None:
        self.cards, self.draws = list(cards), draws
        self.rest: list[int] = []

    def deal(self, count: int) -> list[int]:
        hand: list[int] = []
        while len(hand) < count:
            hand += self._different(min(count - len(hand), len(self.cards)))
        return hand

    def deal_others(self, count: int, held: Collection[int]) -> list[int]:
        """At most `count` cards that are not among those held."""
        return self._different(min(count, sum(card not in held for card in self.cards)), held)

    def _different(self, count: int, held: Collection[int] = ()) -> list[int]:
        hand: list[int] = []
        passed: list[int] = []
        while len(hand) < count:
            if not self.rest:
                self.rest, passed = self.draws.sample(self.cards, len(self.cards)), []
                taken = {*hand, *held}
                self.rest.sort(key=lambda card: card not in taken)  # cards in hand go to the bottom
            card = self.rest.pop()
            (passed if card in held else hand).append(card)
        self.rest += reversed(passed)  # they come next
        return hand


class ClassBalancedBatches:
    """Batches of `batch_size // samples_per_class` classes with `samples_per_class` images of each.

    Classes are dealt like cards: every class is visited once before any is visited again, and never twice in a batch.
    The images of a class are dealt in the same way over an epoch.

    An image with several labels is in each of its classes, and never twice in a batch: a class then gives images that
    the batch does not have yet, or as many as it has, whatever `small_classes` says of repeating.

    Args:
        labels: Class of every image, int64 (images,), or several labels, bool (images, classes).
        super_labels: Not used; every sampler is offered them.
        seed: With the epoch, determines every draw.
        batch_size: Images in a batch.
        samples_per_class: Images of one class in a batch (m), >= 2.
        batches_per_epoch: `images // batch_size` if None.
        small_classes: What becomes of a class with fewer than `samples_per_class` images. `"repeat"` shows an image
            more than once in the batch (in one epoch its augmentation is the same each time, so such a pair has cosine
            1 and teaches nothing, but the batch keeps its size); `"fewer"` shows what there is, so batches may be
            smaller, and an image alone in its class serves as a negative only; `"leave_out"` never shows the class.

    Raises:
        ValueError: If the sizes do not divide, there are fewer classes than a batch needs, or no batch could ever hold
            two different images of a class.
    """

    def __init__(
        self,
        labels: Tensor,
        super_labels: Tensor | None = None,
        seed: int = 0,
        batch_size: int = 128,
        samples_per_class: int = 4,
        batches_per_epoch: int | None = None,
        small_classes: Literal["repeat", "fewer", "leave_out"] = "repeat",
    ) -> None:
        _check(labels, batch_size, samples_per_class)
        if small_classes not in ("repeat", "fewer", "leave_out"):
            raise ValueError(f"small_classes must be repeat, fewer or leave_out, got {small_classes!r}")
        if batches_per_epoch is not None and batches_per_epoch < 1:
            raise ValueError(
                f"batches_per_epoch must be at least 1, or null for images // batch_size, got {batches_per_epoch}"
            )
        self.classes = list(_by_label(labels).values())
        if small_classes == "leave_out":
            self.classes = [images for images in self.classes if len(images) >= samples_per_class]
        self.classes_per_batch = batch_size // samples_per_class
        if len(self.classes) < self.classes_per_batch:
            raise ValueError(
                f"a batch of {batch_size} with {samples_per_class} images per class needs {self.classes_per_batch} "
                f"classes, but there are {len(self.classes)}: use a smaller batch_size or more samples_per_class"
            )
        images = len({image for members in self.classes for image in members})
        self.batches_per_epoch = max(1, images // batch_size) if batches_per_epoch is None else batches_per_epoch
        self.samples_per_class, self.seed = samples_per_class, seed
        self.repeat = small_classes == "repeat" and not several(labels)

    def __len__(self) -> int:
        return self.batches_per_epoch

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """The batches of `epoch`, each a list of sample indices, class by class."""
        draws = _random(self.seed, epoch)
        classes = _Deck(range(len(self.classes)), draws)
        images = [_Deck(members, draws) for members in self.classes]
        for _ in range(self.batches_per_epoch):
            batch: list[int] = []
            for chosen in classes.deal(self.classes_per_batch):
                if self.repeat:
                    batch += images[chosen].deal(self.samples_per_class)
                else:
                    batch += images[chosen].deal_others(self.samples_per_class, set(batch))
            yield batch


class SuperLabelPairBatches:
    """Batches drawn half from one super-label and half from another, so that negatives are alike in kind.

    In each epoch the images of every class are shuffled and cut into chunks of `samples_per_class`; the last chunk is
    filled up from the start of the class. The chunks of a super-label are shuffled and laid end to end, in a circle.
    Then every pair of super-labels, in fixed order, gives `batches_per_pair` batches that take up each circle where it
    was left.

    A filled-up chunk may hold an image twice, and a super-label with few images may give a chunk twice in one batch:
    then two rows of the batch are equal and their cosine is 1, as in the original.

    Args:
        labels: Class of every image, int64 (images,).
        super_labels: Super-label of every image, int64 (images,).
        seed: With the epoch, determines every draw. All draws are made here and none in a loader's worker, where the
            original reshuffled the copy of one worker only.
        batch_size: Images in a batch, half from each super-label.
        samples_per_class: Images in a chunk (m), >= 2.
        batches_per_pair: Batches in a row from one pair; 10 for Stanford Online Products and 4 for In-Shop in the
            original.
        shuffle_pairs: Whether the pairs come in a new order each epoch.
        shuffle_batches: Whether all batches of the epoch are shuffled, so that consecutive ones come from different
            pairs.

    Raises:
        ValueError: If there are no super-labels, or fewer than two, if the sizes do not divide, or no batch could ever
            hold two different images of a class.

    Source: Rolinek et al. 2020, section 5.1, after Cakir et al. 2019 ("Deep Metric Learning to Rank").
    """

    def __init__(
        self,
        labels: Tensor,
        super_labels: Tensor | None,
        seed: int = 0,
        batch_size: int = 128,
        samples_per_class: int = 4,
        batches_per_pair: int = 10,
        shuffle_pairs: bool = False,
        shuffle_batches: bool = False,
    ) -> None:
        _check(labels, batch_size, samples_per_class, parts=2)
        if batches_per_pair < 1:
            raise ValueError(f"batches_per_pair must be at least 1, got {batches_per_pair}")
        if super_labels is None:
            raise ValueError(
                "this data set has no super-labels, which the sampler pairs up: use class_balanced batches instead"
            )
        if super_labels.shape != labels.shape:
            raise ValueError(f"got {len(super_labels)} super-labels for {len(labels)} labels: give one per image")
        self.circles = [list(_by_label(labels, members).values()) for members in _by_label(super_labels).values()]
        self.circles = [[images for images in circle if images] for circle in self.circles]
        if len(self.circles) < 2:
            raise ValueError(
                "all images share one super-label, but batches pair up two: use class_balanced batches instead"
            )
        self.pairs = list(itertools.combinations(range(len(self.circles)), 2))
        self.half, self.samples_per_class, self.seed = batch_size // 2, samples_per_class, seed
        self.batches_per_pair = batches_per_pair
        self.shuffle_pairs, self.shuffle_batches = shuffle_pairs, shuffle_batches

    def __len__(self) -> int:
        return len(self.pairs) * self.batches_per_pair

    def _circle(self, classes: list[list[int]], draws: random.Random) -> Iterator[int]:
        """The images of one super-label, chunk after chunk, for ever."""
        chunks: list[list[int]] = []
        for members in classes:
            shuffled = draws.sample(members, len(members))
            endless = itertools.cycle(shuffled)
            for _ in range(0, len(shuffled), self.samples_per_class):
                chunks.append(list(itertools.islice(endless, self.samples_per_class)))
        draws.shuffle(chunks)
        return itertools.cycle(itertools.chain.from_iterable(chunks))

    def batches(self, epoch: int) -> Iterator[list[int]]:
        """The batches of `epoch`, each a list of sample indices, first one super-label and then the other."""
        draws = _random(self.seed, epoch)
        circles = [self._circle(classes, draws) for classes in self.circles]
        pairs = draws.sample(self.pairs, len(self.pairs)) if self.shuffle_pairs else self.pairs
        batches = (
            [*itertools.islice(circles[first], self.half), *itertools.islice(circles[second], self.half)]
            for first, second in pairs
            for _ in range(self.batches_per_pair)
        )
        if not self.shuffle_batches:
            return batches
        every = list(batches)
        draws.shuffle(every)
        return iter(every)

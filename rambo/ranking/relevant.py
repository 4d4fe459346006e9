"""Ranks of the relevant items alone, what a step of those items does to everybody's rank, and the gradient from it.

A ranking loss looks at relevant items only, so its gradient with respect to the ranks is zero everywhere else. Then the
blackbox gradient needs no general ranker: it is enough to know which irrelevant items each relevant one stands behind,
before and after its step. Few relevant items are compared with every item; for many, whole rows are sorted. Both give
the same numbers to the last bit for every tie rule, and hold a fixed number of (rows, items) arrays.

Source: algorithm 1 of Rolinek et al. 2020; the counting is ours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rambo.ranking.exact import Ties, descending_order, plain, rankable, sent, waits, widest_float
from rambo.ranking.gradient_rules import Blackbox, GradientRule

COUNTED_AT_MOST = 2
"""Up to so many relevant items for each halving of a row, comparing is faster than sorting (benchmarks/ranking.py)."""


def rankable_where(scores: Tensor, counted: Tensor | None) -> Tensor:
    """The scores as `rankable` gives them, with items that do not count behind all that do; None: all count.

    On a device they are not searched for NaN, as that would have to be waited for; see `spoiled`.
    """
    scores, look = plain(scores), not waits(scores)
    if counted is None or not scores.is_floating_point():
        return rankable(scores, look).contiguous()
    lowest = torch.finfo(scores.dtype).min
    behind = ~sent(counted, scores.device)
    return rankable(scores.clamp(min=lowest).masked_fill(behind, -math.inf), look).contiguous()


class RelevantPlaces:
    """Where the relevant items of a batch of rows stand.

    They are looked for where the relevance is, and used where the scores are: with a relevance on the CPU, nobody has
    to wait for a device.

    Args:
        relevance: Non-zero where an item is relevant; bool, integer or floating point (rows, items).
        counted: False where an item is ignored, neither relevant nor irrelevant; bool (rows, items). None: all count.
        items: How many items normalised ranks refer to; None: those of the row that count.
        classes: The class of each row, int64 (rows,), for a mean that is balanced over classes.
        device: Where the scores are; None: where the relevance is.

    Attributes:
        mask: Which items count and are relevant, bool (rows, items).
        rows: The row of each relevant item, ascending, int64 (relevant,).
        columns: Its place in the row, ascending within each, int64 (relevant,).
        places: Its place in the flattened (rows, items), int64 (relevant,).
        counts: How many relevant items each row has, int64 (rows,).
        most: How many the row with the most of them has.
        even: Whether all rows have as many, and any.
    """

    def __init__(
        self,
        relevance: Tensor,
        counted: Tensor | None = None,
        items: int | None = None,
        classes: Tensor | None = None,
        device: torch.device | None = None,
    ) -> None:
        mask, self.items = plain(relevance), items
        mask = mask if mask.dtype == torch.bool else mask != 0
        mask = (mask if counted is None else mask & plain(counted)).contiguous()
        places = mask.flatten().nonzero().squeeze(1)  # of one dimension, which is much faster than of two
        rows = places.div(max(1, mask.shape[1]), rounding_mode="floor")
        counts = rows.new_zeros(len(mask)).index_add_(0, rows, torch.ones_like(rows))
        self.most = int(counts.max()) if len(rows) else 0
        self.even = 0 < len(rows) == self.most * len(mask)
        device = mask.device if device is None else device
        self.mask, self.places, self.rows, self.counts = (sent(each, device) for each in (mask, places, rows, counts))
        self.columns = self.places - self.rows * mask.shape[1]
        self.counted = None if counted is None else sent(plain(counted), device)
        self.classes = None if classes is None else sent(plain(classes), device)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def irrelevant(self) -> Tensor:
        """Which items count and are not relevant, bool (rows, items)."""
        return ~self.mask if self.counted is None else ~self.mask & self.counted

    @property
    def length(self) -> int | Tensor:
        """Items that normalised ranks refer to: one number, or, where rows differ, float64 (rows,)."""
        if self.items is not None:
            return max(1, self.items)
        if self.counted is None:
            return max(1, self.mask.shape[1])
        return self.counted.sum(dim=1).clamp(min=1).to(widest_float(self.counted.device))

    def padded(self, values: Tensor, padding: float) -> Tensor:
        """Lays (relevant,) values out as (most, rows), rows with fewer filled up."""
        if self.even:
            return values.view(-1, self.most).T
        table = values.new_full((self.most, len(self.mask)), padding)
        table[self._place_in_row, self.rows] = values
        return table

    def unpadded(self, table: Tensor) -> Tensor:
        """The inverse of `padded`."""
        return table.T.reshape(-1) if self.even else table[self._place_in_row, self.rows]

    @property
    def _place_in_row(self) -> Tensor:
        """How many relevant items of its row stand left of each, int64 (relevant,)."""
        first_of_row = self.counts.cumsum(0) - self.counts
        return torch.arange(len(self), device=self.rows.device) - first_of_row[self.rows]


def relevant_ranks(scores: Tensor, relevant: RelevantPlaces, ties: Ties, margin: float = 0.0) -> RelevantRanks:
    """Ranks of the relevant items.

    Args:
        scores: float32 or float64 without NaN, (rows, items).
        relevant: Which of them are relevant.
        ties: The tie rule.
        margin: By how much relevant scores are lowered before ranking; ranks as if alpha/2 were taken from them and
            added to the others, as in eq. 14.
    """
    found = CountedRanks if 0 < relevant.most <= COUNTED_AT_MOST * scores.shape[1].bit_length() else SortedRanks
    return found(scores, relevant, ties, margin)


class RelevantRanks:
    """Ranks of the relevant items. Arguments as for `relevant_ranks`.

    Attributes:
        scores: What is ranked: the scores, those of relevant items lowered by the margin, (rows, items).
        own: Those of the relevant items alone, (relevant,).
        before: Irrelevant items of the row that stand before each; floating point (relevant,).
        among: Rank of each among the relevant items of the row, from 1; floating point (relevant,).
    """

    before: Tensor
    among: Tensor

    def __init__(self, scores: Tensor, relevant: RelevantPlaces, ties: Ties, margin: float) -> None:
        self.relevant, self.ties = relevant, ties
        self.own = scores.flatten().index_select(0, relevant.places) - margin
        self.scores = self._with_own(scores, self.own)

    def rank_changes(self, steps: Tensor) -> Tensor:
        """New minus old rank of every item, (rows, items), once the relevant scores have moved by (relevant,) steps."""
        raise NotImplementedError

    def _with_own(self, scores: Tensor, own: Tensor) -> Tensor:
        return scores.flatten().index_copy(0, self.relevant.places, own).view(scores.shape)


class SortedRanks(RelevantRanks):
    """Sorts every row before and after the step."""

    def __init__(self, scores: Tensor, relevant: RelevantPlaces, ties: Ties, margin: float = 0.0) -> None:
        super().__init__(scores, relevant, ties, margin)
        order = self._order(self.scores)
        self.ranks = _places(order, torch.ones_like(relevant.mask))
        among = _places(order, relevant.mask)[relevant.places]
        self.among = among.to(scores.dtype)
        self.before = (self.ranks[relevant.places] - among).to(scores.dtype)

    def rank_changes(self, steps: Tensor) -> Tensor:
        """Sorts once more; see `RelevantRanks`."""
        order = self._order(self._with_own(self.scores, self.own + steps))
        changes = _places(order, torch.ones_like(self.relevant.mask)) - self.ranks
        return changes.to(self.scores.dtype).view(self.scores.shape)

    def _order(self, scores: Tensor) -> Tensor:
        return descending_order(scores, self.ties, self.relevant.mask)


def _places(order: Tensor, counted: Tensor) -> Tensor:
    """How many of the `counted` items stand up to and including each item, (rows x items,)."""
    return torch.empty_like(order).scatter_(1, order, counted.gather(1, order).cumsum(dim=1)).view(-1)


class CountedRanks(RelevantRanks):
    """Compares every item with each relevant one of its row.

    Comparisons give 1 or 0 in floating point, in which processors compare and add fastest; counts below 2^24 are exact.
    """

    def __init__(self, scores: Tensor, relevant: RelevantPlaces, ties: Ties, margin: float = 0.0) -> None:
        super().__init__(scores, relevant, ties, margin)
        # of two equal scores, the one of the smaller turn comes first
        own_turns = relevant.columns.to(scores.dtype)
        turns = torch.arange(scores.shape[1], dtype=scores.dtype, device=scores.device).expand_as(scores)
        if ties == "last_index_first":
            own_turns, turns = -own_turns, -turns
        elif ties == "pessimistic":
            turns = self._with_own(torch.full_like(scores, -1), own_turns)
        self.turns, self.own_turns = turns, relevant.padded(own_turns, 0)[:, :, None]
        self.ahead, self.behind = self._count(self.scores, self.own)
        # of its fellows, a relevant item stands before those behind it and after the rest
        fellows = relevant.counts[relevant.rows] - 1
        self.before = self.ahead + self.behind.view(-1)[relevant.places] - fellows
        self.among = self.ahead - self.before + 1

    def rank_changes(self, steps: Tensor) -> Tensor:
        """Compares once more; see `RelevantRanks`."""
        moved = self.own + steps
        ahead, behind = self._count(self._with_own(self.scores, moved), moved)
        changes = torch.sub(self.behind, behind, out=behind)
        changes.view(-1).index_copy_(0, self.relevant.places, ahead - self.ahead)
        return changes

    def _count(self, scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """Items ahead of each relevant one (relevant,), and relevant ones behind each item (rows, items)."""
        own = self.relevant.padded(own, torch.nan)[:, :, None]  # nan stands before nothing and behind nothing
        ahead_of, behind = torch.empty_like(own), torch.empty_like(scores)
        most, items = len(own), scores.shape[1]
        height = min(len(scores), max(1, _comparisons_at_once(scores.device) // (most * items)))
        # fresh memory for the results of every comparison would cost more than the comparing
        space = scores.new_empty((3, most, height, items))
        for top in range(0, len(scores), height):
            rows = slice(top, top + height)
            ahead, tied, goes_first = space[:, :, : len(scores[rows])].unbind()
            torch.gt(scores[rows], own[:, rows], out=ahead)
            torch.eq(scores[rows], own[:, rows], out=tied)
            torch.lt(self.turns[rows], self.own_turns[:, rows], out=goes_first)
            ahead.addcmul_(tied, goes_first)
            torch.sum(ahead, 2, keepdim=True, out=ahead_of[:, rows])
            torch.sum(ahead, 0, out=behind[rows])
        return self.relevant.unpadded(ahead_of.squeeze(2)), behind


def _comparisons_at_once(device: torch.device) -> int:
    return 2**17 * torch.get_num_threads() if device.type == "cpu" else 2**24  # what stays in the cache of each thread


def score_gradient(rule: GradientRule, ranked: RelevantRanks, upstream: Tensor) -> Tensor:
    """Gradient with respect to the scores from one with respect to the ranks of the relevant items.

    Args:
        rule: The gradient rule; `Blackbox` goes the short way, through `RelevantRanks.rank_changes`.
        ranked: The ranks of these scores.
        upstream: Gradient with respect to the ranks among all items, (relevant,).

    Returns:
        (rows, items).
    """
    scores, relevant, ties = ranked.scores, ranked.relevant, ranked.ties
    if isinstance(rule, Blackbox) and rule.projection == "none":
        length = relevant.length
        strength = rule.strength(length) if isinstance(length, int) else rule.strength(length.to(scores.dtype))
        # the product is rounded before it is added, as in Blackbox.score_gradient
        if isinstance(strength, Tensor):
            return ranked.rank_changes(upstream * strength[relevant.rows]).mul_(1.0 / strength[:, None])
        return ranked.rank_changes(upstream * strength).mul_(1.0 / strength)
    dense = scores.new_zeros(scores.numel()).index_copy(0, relevant.places, upstream).view(scores.shape)
    other_length = {} if relevant.items in (None, scores.shape[1]) else {"items": relevant.items}
    if relevant.counted is None:
        return rule.score_gradient(scores, dense, ties, relevant.mask, **other_length)
    gradient, counts = torch.zeros_like(scores), relevant.counted.sum(dim=1)
    for count in sorted(set(counts.tolist())):  # rows of equal length at once, without what is ignored in them
        rows = (counts == count).nonzero().squeeze(1)
        columns = relevant.counted[rows].nonzero()[:, 1].view(len(rows), count)
        there = (rows[:, None], columns)
        gradient[there] = rule.score_gradient(scores[there], dense[there], ties, relevant.mask[there], **other_length)
    return gradient

"""Ranks of the relevant items alone, and what a step of those items does to everybody's rank.

A ranking loss looks at relevant items only, so its gradient with respect to the ranks is zero everywhere else. Then the
blackbox gradient needs no sort of whole rows: it is enough to know which irrelevant items each relevant one stands
behind, before and after its step. Three ways to find out, which agree to the last bit for every tie rule:

    SortedRanks    sorts every row before and after: the readable reference, n log n.
    CountedRanks   compares every item with each relevant one: n p, and by far the fastest for few relevant items.
    MergedRanks    sorts every row once and finds the new places by bisection: n log n + p log n, for many of them.

All hold a fixed number of (rows, items) arrays; the comparisons go block by block.

Source: algorithm 1 of Rolinek et al. 2020; the counting is ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rambo.ranking.exact import Ties, descending_order
from rambo.ranking.relevant import Relevant


class SortedRanks:
    """The readable reference.

    Args:
        scores: float32 or float64 (rows, items).
        relevant: Which of them are relevant.
        ties: The tie rule.
        margin: By how much relevant scores are lowered before ranking.
    """

    def __init__(self, scores: Tensor, relevant: Relevant, ties: Ties, margin: float = 0.0) -> None:
        self.relevant, self.ties = relevant, ties
        self.scores = scores.flatten().index_add(0, relevant.flat, scores.new_full((len(relevant),), -margin))
        order = self._order(self.scores)
        self.ranks = _places(order, torch.ones_like(relevant.mask))
        among = _places(order, relevant.mask)[relevant.flat]
        self.among = among.to(scores.dtype)
        self.before = (self.ranks[relevant.flat] - among).to(scores.dtype)

    def rank_changes(self, steps: Tensor) -> Tensor:
        """Sorts once more; see `RelevantRanks`."""
        moved = self.scores.index_add(0, self.relevant.flat, steps)
        changes = _places(self._order(moved), torch.ones_like(self.relevant.mask)) - self.ranks
        return changes.to(self.scores.dtype).view(self.relevant.mask.shape)

    def _order(self, scores: Tensor) -> Tensor:
        return descending_order(scores.view(self.relevant.mask.shape), self.ties, self.relevant.mask)


def _places(order: Tensor, counted: Tensor) -> Tensor:
    """How many of the `counted` items stand up to and including each item, (rows x items,)."""
    return torch.empty_like(order).scatter_(1, order, counted.gather(1, order).cumsum(dim=1)).view(-1)


class CountedRanks:
    """Compares every item with each relevant one of its row. Arguments as for `SortedRanks`.

    Comparisons give 1 or 0 in floating point, in which processors compare and add fastest; counts below 2^24 are exact.
    Tables of relevant items are (most, rows), so that the innermost loop is always a long one. One small block of
    comparisons is held at a time.
    """

    def __init__(self, scores: Tensor, relevant: Relevant, ties: Ties, margin: float = 0.0) -> None:
        self.relevant = relevant
        flat, columns = scores.reshape(-1), relevant.columns.to(scores.dtype)
        self.own = flat.index_select(0, relevant.flat).sub_(margin)
        self.scores = flat.index_copy(0, relevant.flat, self.own).view(scores.shape)
        # of two equal scores, the one of the smaller turn comes first
        turns = torch.arange(scores.shape[1], dtype=scores.dtype, device=scores.device)
        if ties == "last_index_first":
            columns, turns = -columns, -turns
        elif ties == "pessimistic":
            turns = torch.full_like(flat, -1).index_copy_(0, relevant.flat, columns).view(scores.shape)
        self.blocks = list(self._blocks(relevant.padded(columns, 0)[:, :, None], turns))
        self.ahead, self.behind = self._count(self.own)
        # of its fellows, a relevant item stands before those behind it and after the rest
        behind = self.behind.view(-1).index_select(0, relevant.flat)
        fellows: Tensor | int = relevant.most - 1 if relevant.even else relevant.counts[relevant.rows] - 1
        self.before = (self.ahead + behind).sub_(fellows)

    @property
    def among(self) -> Tensor:
        """See `RelevantRanks`."""
        return self.ahead - self.before + 1

    def rank_changes(self, steps: Tensor) -> Tensor:
        """Compares once more; see `RelevantRanks`."""
        moved = self.own + steps
        self.scores.view(-1).index_copy_(0, self.relevant.flat, moved)
        ahead, behind = self._count(moved)
        changes = torch.sub(self.behind, behind, out=behind)
        changes.view(-1).index_copy_(0, self.relevant.flat, ahead.sub_(self.ahead))
        return changes

    def _blocks(self, own_turns: Tensor, turns: Tensor) -> Iterator[_Block]:
        """Cuts the comparisons (most, rows, items) into blocks that share their memory."""
        most, (rows, items) = self.relevant.most, self.scores.shape
        size = _block_size(self.scores.device)
        width = max(1, min(most, size // items))
        height = min(rows, max(1, size // (items * width)))
        # fresh memory for every block would cost more than the comparing
        space = self.scores.new_empty((3, width, height, items))
        if (width, height) == (most, rows):
            ahead, tied, goes_first = space.unbind()
            torch.lt(turns, own_turns, out=goes_first)
            yield _Block(None, self.scores, turns, own_turns, ahead, tied, goes_first)
            return
        for top in range(0, rows, height):
            row_slice = slice(top, top + height)
            scores = self.scores[row_slice]
            others_turns = turns if turns.dim() == 1 else turns[row_slice]
            for left in range(0, most, width):
                piece = (slice(left, left + width), row_slice)
                shape = (min(width, most - left), *scores.shape)
                ahead, tied, goes_first = space.view(3, -1)[:, : math.prod(shape)].view(3, *shape).unbind()
                yield _Block(piece, scores, others_turns, own_turns[piece], ahead, tied, goes_first)

    def _count(self, own: Tensor) -> tuple[Tensor, Tensor]:
        """Items ahead of each relevant one (relevant,), and relevant ones behind each item (rows, items)."""
        table = self.relevant.padded(own, torch.nan)[:, :, None]  # nan stands before nothing and behind nothing
        if self.blocks[0].piece is None:
            ahead = self.blocks[0].compare(table)
            return self.relevant.unpadded(ahead.sum(2)), ahead.sum(0)
        ahead_of, behind = torch.empty_like(table), torch.empty_like(self.scores)
        for block in self.blocks:
            assert block.piece is not None
            ahead, (own_slice, rows) = block.compare(table[block.piece]), block.piece
            torch.sum(ahead, 2, keepdim=True, out=ahead_of[block.piece])
            if own_slice.start:
                behind[rows] += ahead.sum(0)
            else:
                torch.sum(ahead, 0, out=behind[rows])
        return self.relevant.unpadded(ahead_of.squeeze(2)), behind


class _Block(NamedTuple):
    """Some of the comparisons (most, rows, items), or all of them if `piece` is None."""

    piece: tuple[slice, slice] | None
    scores: Tensor
    turns: Tensor
    own_turns: Tensor
    ahead: Tensor
    tied: Tensor
    goes_first: Tensor

    def compare(self, own: Tensor) -> Tensor:
        """1 where an item stands before a relevant one of the given score, else 0; overwritten by the next call."""
        torch.gt(self.scores, own, out=self.ahead)
        torch.eq(self.scores, own, out=self.tied)
        if self.piece is not None:  # blocks share this memory; a single one filled it at the start
            torch.lt(self.turns, self.own_turns, out=self.goes_first)
        return self.ahead.addcmul_(self.tied, self.goes_first)


class MergedRanks:
    """Sorts every row once; the new places are found by bisection. Arguments as for `SortedRanks`."""

    def __init__(self, scores: Tensor, relevant: Relevant, ties: Ties, margin: float = 0.0) -> None:
        self.relevant, self.ties = relevant, ties
        rows, items = self.shape = relevant.mask.shape
        lowered = scores.flatten().index_add(0, relevant.flat, scores.new_full((len(relevant),), -margin))
        self.own = lowered[relevant.flat]
        self.order = descending_order(lowered.view(self.shape), ties, relevant.mask)
        self.descending = lowered.view(self.shape).gather(1, self.order).view(-1)
        # relevant items within the first k places of each row, k = 0..items
        self.relevant_within = self.order.new_zeros((rows, items + 1), dtype=torch.int32)
        torch.cumsum(relevant.mask.gather(1, self.order), 1, dtype=torch.int32, out=self.relevant_within[:, 1:])
        self.row_starts = relevant.rows * (items + 1)
        self.ahead = self._ahead(self.own)
        self._before, self._among = self._split(self.ahead), self._rank_among(self.own)
        self.before, self.among = self._before.to(scores.dtype), self._among.to(scores.dtype)

    def rank_changes(self, steps: Tensor) -> Tensor:
        """Bisects for the new places; see `RelevantRanks`."""
        rows, items = self.shape
        moved = self.own + steps
        ahead = self._ahead(moved)
        own = (self._split(ahead) - self._before) + (self._rank_among(moved) - self._among)
        # an irrelevant item loses a place to each relevant one that enters above it, and gains one for each that left
        crossings = torch.zeros(rows * (items + 1), dtype=torch.int32, device=steps.device)
        one = torch.ones_like(ahead, dtype=torch.int32)
        crossings.index_add_(0, self.row_starts + ahead, one).index_add_(0, self.row_starts + self.ahead, -one)
        lost = crossings.view(rows, items + 1)[:, :-1].cumsum(1, dtype=torch.int32).to(steps.dtype)
        changes = torch.empty_like(lost).scatter_(1, self.order, lost)
        changes.view(-1)[self.relevant.flat] = own.to(steps.dtype)
        return changes

    def _split(self, ahead: Tensor) -> Tensor:
        """Of the items ahead, how many are irrelevant."""
        return ahead - self.relevant_within.view(-1)[self.row_starts + ahead]

    def _ahead(self, scores: Tensor) -> Tensor:
        """Items of the sorted row that stand before a relevant item of this score, by bisection."""
        items = self.shape[1]
        start, columns = self.relevant.rows * items, self.relevant.columns
        low, high = torch.zeros_like(start), torch.full_like(start, items)
        for _ in range(items.bit_length()):
            middle = (low + high) // 2
            place = start + middle.clamp(max=items - 1)
            other, column = self.descending[place], self.order.view(-1)[place]
            tie_goes_first = column > columns if self.ties == "last_index_first" else column < columns
            if self.ties == "pessimistic":
                tie_goes_first |= ~self.relevant.mask.view(-1)[start + column]
            ahead = ((other > scores) | ((other == scores) & tie_goes_first)) & (middle < high)
            low, high = torch.where(ahead, middle + 1, low), torch.where(ahead, high, middle)
        return low

    def _rank_among(self, scores: Tensor) -> Tensor:
        """Rank of each relevant score among those of its row, from 1."""
        by_column = torch.arange(len(scores), device=scores.device)
        if self.ties == "last_index_first":
            by_column = by_column.flip(0)
        by_score = by_column[scores[by_column].argsort(descending=True, stable=True)]
        order = by_score[self.relevant.rows[by_score].argsort(stable=True)]
        first_of_row = (self.relevant.counts.cumsum(0) - self.relevant.counts)[self.relevant.rows]
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return place - first_of_row + 1


def _block_size(device: torch.device) -> int:
    """How many comparisons to make at once."""
    if device.type != "cpu":
        return 2**24
    return 2**17 * torch.get_num_threads()  # what stays in the cache of each

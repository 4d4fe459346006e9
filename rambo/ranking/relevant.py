"""The relevant items of a batch of rows, and what is asked about their ranks."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from rambo.ranking.exact import plain, rankable


def rankable_where(scores: Tensor, counted: Tensor | None) -> Tensor:
    """The scores as `rankable` gives them, with items that do not count behind all that do; None: all count."""
    if counted is None or not scores.is_floating_point():
        return rankable(scores).contiguous()
    lowest = torch.finfo(scores.dtype).min
    return rankable(plain(scores).clamp(min=lowest).masked_fill(~counted, -math.inf)).contiguous()


class Relevant:
    """Where the relevant items of a batch of rows stand.

    Args:
        relevance: Non-zero where an item is relevant; bool, integer or floating point (rows, items).
        counted: False where an item is ignored, neither relevant nor irrelevant; bool (rows, items). None: all count.
        items: How many items normalised ranks refer to; None: those of the row that count.
        classes: The class of each row, int64 (rows,), for a mean that is balanced over classes.

    Attributes:
        mask: Which items count and are relevant, bool.
        flat: Their places in the flattened (rows, items), ascending, int64 (relevant,).
        most: How many the row with the most of them has.
        even: Whether all rows have as many.
    """

    def __init__(
        self,
        relevance: Tensor,
        counted: Tensor | None = None,
        items: int | None = None,
        classes: Tensor | None = None,
    ) -> None:
        relevance, counted = plain(relevance), None if counted is None else plain(counted)
        classes = None if classes is None else plain(classes)
        mask = relevance if relevance.dtype == torch.bool else relevance != 0
        self.mask = mask = (mask if counted is None else mask & counted).contiguous()
        self.counted, self.items, self.classes = counted, items, classes
        self.flat = mask.flatten().nonzero().squeeze(1)
        self._counts: Tensor | None = None
        self._columns: Tensor | None = None
        self._rows: Tensor | None = None
        self._slots: Tensor | None = None
        (rows, items), total = mask.shape, len(self)
        self.most, self.even = total // max(1, rows), False
        if total and total % rows == 0:
            # if all rows have as many, the places within their rows come out in range, and only then
            starts = torch.arange(0, rows * items, items, device=mask.device)
            columns = self.flat.view(rows, -1) - starts[:, None]
            low, high = torch.stack(columns.aminmax()).tolist()
            if low >= 0 and high < items:
                self.even, self._columns = True, columns.view(-1)
        if total and not self.even:
            self.most = int(self.counts.max())

    def __len__(self) -> int:
        return self.flat.numel()

    @property
    def length(self) -> int | Tensor:
        """Items that normalised ranks refer to: one number, or, where rows differ, float64 (rows,)."""
        if self.items is not None:
            return max(1, self.items)
        if self.counted is None:
            return max(1, self.mask.shape[1])
        return self.counted.sum(dim=1).clamp(min=1).double()

    @property
    def counts(self) -> Tensor:
        """How many relevant items each row has, int64 (rows,)."""
        if self._counts is None:
            self._counts = self.mask.sum(dim=1)
        return self._counts

    def padded(self, values: Tensor, padding: float) -> Tensor:
        """Lays (relevant,) values out as (most, rows), rows with fewer filled up; a view where possible."""
        if self.even:
            return values.view(-1, self.most).T
        table = values.new_full((self.most * len(self.counts),), padding)
        table[self.slots] = values
        return table.view(self.most, -1)

    def unpadded(self, table: Tensor) -> Tensor:
        """The inverse of `padded`."""
        return table.T.reshape(-1) if self.even else table.view(-1)[self.slots]

    @property
    def rows(self) -> Tensor:
        """The row of each relevant item, int64 (relevant,)."""
        if self._rows is None:
            rows = torch.arange(len(self.counts), device=self.flat.device)
            self._rows = rows.repeat_interleave(self.counts, output_size=len(self))
        return self._rows

    @property
    def columns(self) -> Tensor:
        """The place of each relevant item in its row, int64 (relevant,)."""
        if self._columns is None:
            self._columns = self.flat - self.rows * self.mask.shape[1]
        return self._columns

    @property
    def slots(self) -> Tensor:
        """The place of each relevant item in the flattened (most, rows)."""
        if self._slots is None:
            first_of_row = self.counts.cumsum(0) - self.counts
            in_row = torch.arange(len(self), device=self.flat.device) - first_of_row[self.rows]
            self._slots = in_row * len(self.counts) + self.rows
        return self._slots


class RelevantRanks(Protocol):
    """Ranks of the relevant items, however they were found; all of one number per relevant item, as in `Relevant`."""

    before: Tensor
    """Irrelevant items of the row that stand before it; floating point (relevant,)."""

    @property
    def among(self) -> Tensor:
        """Rank among the relevant items of the row, from 1; floating point (relevant,)."""
        ...

    def rank_changes(self, steps: Tensor) -> Tensor:
        """New minus old rank of every item, (rows, items), once the relevant scores have moved by (relevant,) steps."""
        ...

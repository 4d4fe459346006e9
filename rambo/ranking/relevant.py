"""The relevant items of a batch of rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rambo.ranking.exact import plain, rankable


def rankable_where(scores: Tensor, counted: Tensor | None) -> Tensor:
    """The scores as `rankable` gives them, with items that do not count behind all that do; None: all count."""
    if counted is None or not scores.is_floating_point():
        return rankable(scores).contiguous()
    lowest = torch.finfo(scores.dtype).min
    return rankable(plain(scores).clamp(min=lowest).masked_fill(~counted, -math.inf)).contiguous()


class RelevantPlaces:
    """Where the relevant items of a batch of rows stand.

    Args:
        relevance: Non-zero where an item is relevant; bool, integer or floating point (rows, items).
        counted: False where an item is ignored, neither relevant nor irrelevant; bool (rows, items). None: all count.
        items: How many items normalised ranks refer to; None: those of the row that count.
        classes: The class of each row, int64 (rows,), for a mean that is balanced over classes.

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
    ) -> None:
        self.counted, self.items = None if counted is None else plain(counted), items
        self.classes = None if classes is None else plain(classes)
        mask = plain(relevance)
        mask = mask if mask.dtype == torch.bool else mask != 0
        self.mask = (mask if self.counted is None else mask & self.counted).contiguous()
        self.places = self.mask.flatten().nonzero().squeeze(1)  # of one dimension, which is much faster than of two
        self.rows = self.places.div(max(1, self.mask.shape[1]), rounding_mode="floor")
        self.columns = self.places - self.rows * self.mask.shape[1]
        self.counts = self.rows.new_zeros(len(self.mask)).index_add_(0, self.rows, torch.ones_like(self.rows))
        self.most = int(self.counts.max()) if len(self) else 0
        self.even = 0 < len(self) == self.most * len(self.mask)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def length(self) -> int | Tensor:
        """Items that normalised ranks refer to: one number, or, where rows differ, float64 (rows,)."""
        if self.items is not None:
            return max(1, self.items)
        if self.counted is None:
            return max(1, self.mask.shape[1])
        return self.counted.sum(dim=1).clamp(min=1).double()

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

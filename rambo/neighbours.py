"""How many irrelevant items of a gallery stand before each relevant one, counted block by block."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rambo.blocks import Highest, Scores, ascending, places_between
from rambo.labels import alike_at, check_alike, memberships, several
from rambo.search import by_faiss, checked_engine, nearest

__all__ = ["RelevantItems", "irrelevant_before", "nearest"]

STATE_BYTES = 512 * 2**20  # what may be kept of all queries at once, so that a product serves two of them
FEW = 64  # highest scores that are cheaper to keep than to count
FEWER = 32  # highest scores that are cheap to find in the columns of a block
PAIRS = 2**22  # of a query and an item of its classes, looked at in one go
BYTES_OF_A_PLACE = 64  # that are held for each such pair while scores come by


class RelevantItems:
    """For each query, the gallery items of its classes: where they are, and which of them is the query itself.

    Args:
        query_labels: int64 (queries,), or bool (queries, classes) where items may have several; see `rambo.labels`.
        gallery_labels: The same of the gallery.
        own_positions: Where each query stands in the gallery, or -1 if it does not, int64 (queries,).
        query_cameras, gallery_cameras: Where given, int64 (queries,) and (gallery,), an item of the query's class and
            camera is neither relevant nor irrelevant.

    Attributes:
        in_class: How many items of the gallery are of the query's class, itself included, int64 (queries,).
        counts: How many of them are relevant, int64 (queries,).
        at_once: How many queries may be handled at a time.

    Raises:
        ValueError: If the labels cannot be compared.
    """

    def __init__(
        self,
        query_labels: Tensor,
        gallery_labels: Tensor,
        own_positions: Tensor | None,
        query_cameras: Tensor | None = None,
        gallery_cameras: Tensor | None = None,
    ) -> None:
        check_alike(query_labels, gallery_labels)
        self.query_labels, self.gallery_labels = query_labels, gallery_labels
        items, labels = memberships(gallery_labels)
        ordered = labels.sort(stable=True)
        self.by_class = items[ordered.indices]
        queries, asked = memberships(query_labels)
        self.start = torch.searchsorted(ordered.values, asked)
        self.size = torch.searchsorted(ordered.values, asked, right=True) - self.start
        self.own = asked.new_full((len(query_labels),), -1) if own_positions is None else own_positions
        self.cameras = None
        if query_cameras is not None and gallery_cameras is not None:
            self.cameras = query_cameras, gallery_cameras
        self.several = several(query_labels)
        self.at_once, first_class = max(1, len(query_labels)), self.start
        if self.several:
            self.labels_of = torch.bincount(queries, minlength=len(query_labels))
            self.first = self.labels_of.cumsum(0) - self.labels_of
            self.in_class, passed_over = self._count_shared(queries)
            self.at_once = max(1, STATE_BYTES // (BYTES_OF_A_PLACE * _most(self.in_class)))
            first_class = torch.cat([self.start, self.start.new_zeros(1)])[self.first]
        else:
            self.in_class, passed_over = self.size, self._count_passed_over()
        self.counts = self.in_class - passed_over
        by_class = first_class.sort(stable=True).indices
        # Queries with alike numbers of relevant items share a chunk, so that few of its places are empty, and so do
        # those of one class.
        order = self.counts[by_class].sort(stable=True)
        self.queries_with_match = by_class[order.indices[order.values > 0]]

    def places(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Gallery positions of the items of each query's class, itself included, and which of them are relevant.

        Both have the shape (queries, widest class); where a class is narrower, its last position is repeated, and where
        it has nobody, the query's own.
        """
        sizes = self.in_class[queries, None]
        if self.several:
            found = torch.cat([self._shared(queries)[1], queries.new_zeros(1)])
            number = torch.arange(max(1, int(sizes.max())), device=queries.device)
            columns = found[sizes.cumsum(0) - sizes + torch.minimum(number, sizes - 1).clamp(min=0)]
            columns = torch.where(sizes > 0, columns, self.own[queries, None].clamp(min=0))
        else:
            number = torch.arange(int(sizes.max()), device=queries.device)
            columns = self.by_class[self.start[queries, None] + torch.minimum(number, sizes - 1)]
        return columns, (number < sizes) & ~self._passed_over(queries[:, None], columns)

    def _passed_over(self, queries: Tensor, columns: Tensor) -> Tensor:
        """Which items of its classes do not count for a query: itself, and those by its camera."""
        itself = columns == self.own[queries]
        return itself if self.cameras is None else itself | (self.cameras[1][columns] == self.cameras[0][queries])

    def _shared(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Of several labels, the pairs that share one: places among `queries`, ascending, and in the gallery."""
        row, entry = runs(self.first[queries], self.labels_of[queries])
        pair, place = runs(self.start[entry], self.size[entry])
        items = len(self.gallery_labels)
        keys = row[pair] * items + self.by_class[place]
        if 8 * len(keys) < len(queries) * items:
            keys = torch.unique(keys)
        else:
            keys = torch.zeros(len(queries) * items, dtype=torch.bool, device=keys.device).index_fill_(0, keys, True)
            keys = keys.nonzero()[:, 0]
        return keys.div(max(1, items), rounding_mode="floor"), keys % max(1, items)

    def _count_passed_over(self) -> Tensor:
        """Of one label each, how many items of its class do not count for a query."""
        at = self.own.clamp(min=0)
        itself = (self.own >= 0) & (self.gallery_labels[at] == self.query_labels)  # it may be there under another label
        if self.cameras is None:
            return itself.long()
        asking, found = self.cameras
        itself &= found[at] != asking  # or it is counted already
        return items_alike((self.query_labels, asking), (self.gallery_labels, found)) + itself

    def _count_shared(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Of several labels, the items of each query's classes, and how many do not count; `queries` of memberships."""
        in_class, passed_over = torch.zeros_like(self.own), torch.zeros_like(self.own)
        pairs = torch.zeros_like(self.own).index_add_(0, queries, self.size)
        everyone = torch.arange(len(self.own), device=self.own.device)
        for some in torch.split(everyone, max(1, PAIRS // _most(pairs))):
            row, place = self._shared(some)
            in_class[some] = torch.bincount(row, minlength=len(some))
            passed_over[some] = torch.bincount(row[self._passed_over(some[row], place)], minlength=len(some))
        return in_class, passed_over


def _most(numbers: Tensor) -> int:
    """The largest of them, at least 1."""
    return max(1, int(numbers.max())) if len(numbers) else 1


def runs(starts: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers from each of `starts` on, `sizes` of them, one run after the other: of which run, and the number."""
    run = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    number = torch.arange(len(run), device=sizes.device)
    return run, number + (starts - (sizes.cumsum(0) - sizes))[run]


def items_alike(queries: Sequence[Tensor], gallery: Sequence[Tensor]) -> Tensor:
    """How many gallery items equal each query in all of these columns, such as class and camera, int64 (queries,)."""
    rows = torch.cat([torch.stack(list(queries), dim=1), torch.stack(list(gallery), dim=1)])
    kinds = torch.unique(rows, dim=0, return_inverse=True)[1]
    asking, found = kinds.split([len(queries[0]), len(gallery[0])])
    there: Tensor = found.bincount(minlength=len(rows))[asking]
    return there


def irrelevant_before(
    scores: Scores, relevant: RelevantItems, first_depth: int, whole: bool = False, engine: str = "exact"
) -> Iterator[tuple[Tensor, Tensor]]:
    """Some of the queries, and how many irrelevant items stand before each relevant one, best first.

    An irrelevant item stands before a relevant one of equal score. Counting is cheaper when it may stop: numbers below
    the largest number of relevant items are exact and others are at least that; likewise for the best relevant item
    and `first_depth`. Places at the end without a relevant item have no meaning.

    Args:
        scores: Of the queries with the gallery.
        relevant: Its items.
        first_depth: How far to count before the best relevant item.
        whole: Whether to count to the end.
        engine: See `rambo.search`.

    Yields:
        Numbers of queries, int64 (queries,), and the counts, int64 (queries, widest class).
    """
    left = relevant.queries_with_match
    depth = int(relevant.counts.max())
    keep = depth if first_depth > FEW else max(depth, first_depth)
    whole = whole or 8 * keep > len(scores.gallery)
    if checked_engine(engine) == "faiss":
        if whole:
            raise ValueError("faiss finds the first of a list, and most of it is asked for: use engine=exact")
        again = []
        for rows, counts, close in _by_faiss(scores, relevant, left, max(depth, first_depth)):
            yield rows[~close], counts[~close]
            again.append(rows[close])
        left = torch.cat(again)
    everyone = torch.arange(len(relevant.own), device=relevant.own.device)
    one_set = scores.queries is scores.gallery and torch.equal(relevant.own, everyone)
    bytes_of_a_query = scores.kind.itemsize * (2 * keep + int(relevant.in_class.max())) + 64
    few_bytes = bytes_of_a_query * len(everyone) <= STATE_BYTES
    if one_set and few_bytes and keep <= FEWER and not whole and 2 * len(left) > len(everyone):
        before = _Before(scores, relevant, everyone, keep, first_depth, whole)
        for rows in scores.chunks(everyone):
            begin, end = int(rows[0]), int(rows[-1]) + 1
            for start, block in before.hiding(rows, begin):
                before.update(block, start, slice(begin, end))
                others = block[:, max(0, end - start) :].T  # a score serves both of its items
                if len(others):
                    before.update(others, begin, slice(max(start, end), max(start, end) + len(others)))
            yield from before.result(rows, slice(begin, end))
        return
    for rows in (some for chunk in scores.chunks(left) for some in torch.split(chunk, relevant.at_once)):
        before = _Before(scores, relevant, rows, keep, first_depth, whole)
        for start, block in before.hiding(rows):
            before.update(block, start, slice(None))
        yield from before.result(rows, slice(None))


class _Before:
    """Counts for some queries, while blocks of their scores come by; arguments as of `irrelevant_before`."""

    def __init__(
        self, scores: Scores, relevant: RelevantItems, which: Tensor, keep: int, first_depth: int, whole: bool
    ) -> None:
        self.scores, self.relevant = scores, relevant
        self.deep = not whole and first_depth > keep
        parts = []
        widest = int(relevant.in_class[which].max())
        for rows in torch.split(which, 1024):
            columns, is_relevant = relevant.places(rows)
            part = scores.of(rows, columns).masked_fill_(~is_relevant, -torch.inf).sort(dim=1, descending=True).values
            parts.append(torch.nn.functional.pad(part, (0, widest - part.shape[1]), value=-torch.inf))
        self.best = torch.cat(parts)  # scores of the relevant items, best first
        self.highest = None if whole else Highest(len(which), keep, scores.kind, scores.device, places=False)
        self.counts = torch.zeros(len(which), widest if whole else 1, dtype=torch.int64, device=scores.device)

    def hiding(self, rows: Tensor, begin: int = 0) -> Iterator[tuple[int, Tensor]]:
        """As `Scores.blocks` of the queries `rows`, with -inf for the items of their class and for themselves."""
        own = self.relevant.own[rows, None]
        columns, _ = self.relevant.places(rows)
        columns = torch.cat([columns, torch.where(own < 0, columns[:, :1], own)], dim=1)
        ordered, order = columns.flatten().sort()
        row = order // columns.shape[1]
        for start, block in self.scores.blocks(self.scores.asking(rows), begin):
            first, last = places_between(ordered, start, start + block.shape[1])
            block[row[first:last], ordered[first:last] - start] = -torch.inf
            yield start, block

    def update(self, scores: Tensor, start: int, rows: slice) -> None:
        """Takes in scores of the queries `rows` with irrelevant items; may overwrite them."""
        if self.highest is not None:
            self.highest.update(scores, start, rows)
        if self.deep:
            self.counts[rows, 0] += _count_at_least(scores, self.best[rows, :1])
        if self.highest is None:
            self.counts[rows] += scores.shape[1] - torch.searchsorted(ascending(scores), self.best[rows])

    def result(self, rows: Tensor, places: slice) -> Iterator[tuple[Tensor, Tensor]]:
        """The counts of the queries `rows`, which stand at `places` among all, if they have a relevant item."""
        before = self.counts[places]
        if self.highest is not None:
            before = _at_least(self.highest.result(places)[0], self.best[places])
        if self.deep:
            before[:, 0] = self.counts[places, 0]
        asked = self.relevant.counts[rows] > 0
        yield rows[asked], before[asked]


def _by_faiss(
    scores: Scores, relevant: RelevantItems, which: Tensor, depth: int
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Some of the queries, the counts up to `depth`, and which of them rounding might change."""
    before_all = depth + int(relevant.in_class.max()) + 1
    asked = (
        by_faiss(scores, some, min(before_all, len(scores.gallery))) for some in torch.split(which, relevant.at_once)
    )
    for rows, found, places in itertools.chain.from_iterable(asked):
        columns, is_relevant = relevant.places(rows)
        best = scores.of(rows, columns).masked_fill_(~is_relevant, -torch.inf).sort(dim=1, descending=True).values
        same_class = alike_at(relevant.query_labels[rows], relevant.gallery_labels, places)
        hidden = same_class | (places == relevant.own[rows, None])
        found = found.masked_fill_(hidden, -torch.inf).sort(dim=1, descending=True).values[:, :depth].contiguous()
        error = scores.rounding(rows)
        before = _at_least(found, best)
        sure = (_at_least(found, best - error) == before) & (_at_least(found, best + error) == before)
        yield rows, before, ~(sure | (best == -torch.inf)).all(dim=1)


def _at_least(highest: Tensor, scores: Tensor) -> Tensor:
    """How many of the highest scores, best first, reach each of `scores`; both (queries, some)."""
    return torch.searchsorted(-highest, -scores, right=True)


def _count_at_least(scores: Tensor, threshold: Tensor) -> Tensor:
    """Scores of each row that reach its threshold, (queries, 1), as int64 (queries,)."""
    if scores.stride(0) == 1:  # a transposed block
        return torch.stack([(some >= threshold).sum(1) for some in torch.split(scores, 16, dim=1)]).sum(0)
    pairs = zip(
        torch.split(scores, 16), torch.split(threshold, 16), strict=True
    )  # so few rows at a time stay in the cache
    return torch.cat([(some >= least).sum(1, dtype=torch.int32) for some, least in pairs]).long()

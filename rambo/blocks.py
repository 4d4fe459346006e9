"""Scores of queries and gallery items, block by block, and the highest of them; all pairs are never held at once.

A score is a dot product, which is the cosine for vectors of unit length. Vectors may be mapped from a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

BLOCK_BYTES = {"cpu": 16 * 2**20, "other": 512 * 2**20}  # of scores held at a time; on a CPU they stay in its cache
COLUMNS = {"cpu": 4096, "other": 16384}  # gallery items of a block
READ_BYTES = 2 * 2**20  # of vectors looked at in one go
GROUP = 32  # scores of which only the highest is looked at, unless it may count; half as many in a transposed block


class Scores:
    """Dot products of queries with a gallery, block by block.

    They are float32, or float64 for float64 queries, each times both `factors`, which keep them within the range of the
    type. Equal gallery items have equal scores with a query, although a matrix product may round one
    dot product differently in different columns: what is there more than once is multiplied once.

    Args:
        queries: (queries, dimensions).
        gallery: (gallery, dimensions).
        device: Where to multiply; None is where the queries are.

    Raises:
        ValueError: If shapes disagree or a vector is not finite.
    """

    def __init__(self, queries: Tensor, gallery: Tensor, device: torch.device | str | None = None) -> None:
        self.queries, self.gallery = queries, gallery
        self.device = torch.device(queries.device if device is None else device)
        self.kind = torch.float64 if queries.dtype == torch.float64 else torch.float32
        if queries.ndim != 2 or gallery.ndim != 2:
            shapes = f"{tuple(queries.shape)} and {tuple(gallery.shape)}"
            raise ValueError(f"queries and gallery must be (items, dimensions), got {shapes}")
        if queries.shape[1] != gallery.shape[1]:
            raise ValueError(
                f"queries of {queries.shape[1]} dimensions cannot be compared with a gallery of "
                f"{gallery.shape[1]}: embed both with one model"
            )
        largest, hashes = _survey("query" if queries is gallery else "gallery", gallery, self.kind)
        self._gallery_power = _power(largest, self.kind)
        largest = largest if queries is gallery else _survey("query", queries, self.kind)[0]
        self._query_power = _power(largest, self.kind)
        copies, original, originals = _copies(gallery, hashes)
        self._copies, self._original = copies.to(self.device), original.to(self.device)
        self._originals = self.items(originals)
        longest = (
            float(torch.linalg.vector_norm(self.items(part), dim=1).max()) for part in _parts(gallery, self.kind)
        )
        self._longest = max(longest, default=0.0)

    @property
    def factors(self) -> tuple[float, float]:
        """Powers of two by which queries and gallery are multiplied."""
        return 2.0**self._query_power, 2.0**self._gallery_power

    def rounding(self, rows: Tensor) -> Tensor:
        """How far two ways to sum up one score of each of the queries `rows` may lie apart, (rows, 1), generously."""
        error = 2 * torch.finfo(self.kind).eps * math.sqrt(self.queries.shape[1]) * self._longest
        lengths: Tensor = torch.linalg.vector_norm(self.asking(rows), dim=1, keepdim=True)
        return lengths * error

    def asking(self, rows: Tensor) -> Tensor:
        """Some of the queries, as they are multiplied."""
        return self._moderate(self.queries[rows.to(self.queries.device)], self._query_power)

    def items(self, which: Tensor | slice) -> Tensor:
        """Some of the gallery, as it is multiplied."""
        which = which if isinstance(which, slice) else which.to(self.gallery.device)
        return self._moderate(self.gallery[which], self._gallery_power)

    def _moderate(self, vectors: Tensor, power: int) -> Tensor:
        vectors = vectors.to(self.device, self.kind)
        if not power:
            return vectors
        half = power // 2  # in two steps, as one factor may itself be out of range
        return vectors * 2.0**half * 2.0 ** (power - half)

    def chunks(self, which: Tensor) -> Iterator[Tensor]:
        """The queries `which`, int64, in parts that may be scored at a time."""
        place = "cpu" if self.device.type == "cpu" else "other"
        self.columns = min(COLUMNS[place], len(self.gallery))
        bytes_of_a_row = (self.columns + len(self._originals)) * self._originals.element_size()
        rows = max(1, BLOCK_BYTES[place] // bytes_of_a_row)
        rows -= rows % GROUP if rows > GROUP else 0
        self._buffer = self._originals.new_empty(min(rows, len(which)) * self.columns)
        yield from torch.split(which, rows) if len(which) else ()

    def blocks(self, asking: Tensor, begin: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Where a block of the gallery begins, and its scores with what `asking` gave for a part of `chunks`.

        Each (queries, columns), from the item `begin` on; the caller may overwrite them, as the next block does.
        """
        with torch.autocast(self.device.type, enabled=False):  # half precision would invent ties
            of_originals = asking @ self._originals.T
            for start in range(begin, len(self.gallery), self.columns):
                items = self.items(slice(start, start + self.columns))
                out = self._buffer[: len(asking) * len(items)].view(len(asking), len(items))
                scores = torch.mm(asking, items.T, out=out)
                if len(self._copies):
                    first, last = places_between(self._copies, start, start + len(items))
                    scores[:, self._copies[first:last] - start] = of_originals[:, self._original[first:last]]
                yield start, scores

    def of(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Scores of each of the queries `rows` with items of its own, (queries, items), by their positions `columns`.

        Equal to those of `blocks` to rounding, and of equal items to the last bit.
        """
        found = []
        with torch.autocast(self.device.type, enabled=False):
            for some, wanted in zip(torch.split(rows, 128), torch.split(columns, 128), strict=True):
                distinct, where = torch.unique(wanted, return_inverse=True)
                asking = self.asking(some)
                scores = asking @ self.items(distinct).T
                if len(self._copies):
                    place = torch.searchsorted(self._copies, distinct).clamp(max=len(self._copies) - 1)
                    copied = self._copies[place] == distinct
                    scores[:, copied] = (asking @ self._originals.T)[:, self._original[place[copied]]]
                found.append(scores.gather(1, where))
        return torch.cat(found)


def places_between(ordered: Tensor, start: int, end: int) -> tuple[int, int]:
    """Where the numbers from `start` on, and those from `end` on, begin among ascending ones."""
    first, last = torch.searchsorted(ordered, torch.tensor([start, end], device=ordered.device)).tolist()
    return first, last


def _survey(name: str, vectors: Tensor, kind: torch.dtype) -> tuple[float, Tensor]:
    """The largest magnitude, and a number for each vector, int64, that is the same for equal ones."""
    factors = torch.randint(-(2**62), 2**62, vectors.shape[1:], generator=torch.Generator().manual_seed(0))
    factors = factors.to(vectors.device)
    largest, broken, hashes = 0.0, 0, factors.new_empty(len(vectors))
    bits = torch.int64 if kind == torch.float64 else torch.int32
    for some in _parts(vectors, kind):
        part = vectors[some].to(kind) + 0.0  # which makes one of 0.0 and -0.0
        highest = float(part.abs().max()) if part.numel() else 0.0
        if math.isfinite(highest):
            largest = max(largest, highest)
        else:
            broken += int((~part.isfinite()).any(dim=1).sum())
        hashes[some] = (part.view(bits) * factors).sum(dim=1)
    if broken:
        raise ValueError(
            f"{broken} of {len(vectors)} {name} embeddings hold nan or infinity, so nothing can be ranked: the model "
            "has diverged; lower the learning rate or go back to an earlier checkpoint"
        )
    return largest, hashes


def _parts(vectors: Tensor, kind: torch.dtype) -> Iterator[slice]:
    rows = max(1, READ_BYTES // max(1, vectors.shape[1] * kind.itemsize))
    yield from (slice(start, start + rows) for start in range(0, len(vectors), rows))


def _power(largest: float, kind: torch.dtype) -> int:
    """The power of two by which vectors are multiplied, if their products might leave the range of the type."""
    power = math.frexp(largest)[1]
    widest = math.frexp(torch.finfo(kind).max)[1] // 4
    return 0 if not largest or abs(power) < widest else -power


def _copies(vectors: Tensor, hashes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of all items that are there more than once, the number of each one's original, and the originals."""
    ordered = hashes.sort(stable=True)
    again = torch.cat([ordered.values.new_zeros(1, dtype=torch.bool), ordered.values[1:] == ordered.values[:-1]])
    places = (again | again.roll(-1)).nonzero()[:, 0]
    first = torch.where(again[places], 0, places).cummax(0).values if len(places) else places
    copies, originals = ordered.indices[places], ordered.indices[first]
    equal = torch.ones_like(copies, dtype=torch.bool)  # to their original; hashes may collide
    for some in _parts(vectors[: len(copies)], vectors.dtype):
        equal[some] = (vectors[copies[some]] == vectors[originals[some]]).all(dim=1)
    copies, by_position = copies[equal].sort()
    distinct, number = torch.unique(originals[equal][by_position], return_inverse=True)
    return copies, number, distinct


class Highest:
    """The highest scores of each query among blocks that come one after the other, and where they stand.

    Args:
        queries: How many there are.
        count: How many scores to keep of each.
        kind: The type of scores.
        device: Where they are.
        places: Whether to keep where they stand.
    """

    def __init__(self, queries: int, count: int, kind: torch.dtype, device: torch.device, places: bool = True) -> None:
        self.count = count
        self._room = 2 * count + 16
        self._enough = count + count // 4 + 8  # to sort, and to raise what a score has to exceed
        self._scores = torch.full((queries, self._room), -torch.inf, dtype=kind, device=device)
        self._with_places = places
        self._places = torch.zeros(queries, self._room if places else 0, dtype=torch.int64, device=device)
        self._filled = torch.zeros(queries, dtype=torch.int64, device=device)
        self._least = self._scores.new_full((queries, 1), -torch.inf)  # what a score has to exceed

    def update(self, scores: Tensor, start: int, rows: slice = slice(None)) -> None:
        """Takes in the scores, (queries, items), of the queries `rows` with the items from `start` on.

        Items come in their order, so that of equal scores the first stays.
        """
        missing = -scores.shape[1] % GROUP
        scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf) if missing else scores
        size = GROUP // 2 if scores.stride(0) == 1 else GROUP
        best, least = _best_of_groups(scores, size), self._least[rows]
        if bool((least == -torch.inf).any()) and scores.shape[1] - missing >= self.count:
            finer = size
            while finer > 1 and scores.shape[1] < 2 * finer * self.count:
                finer //= 2
            bound = _best_of_groups(scores, finer).topk(self.count, dim=1).values[:, -1:]  # so many reach it
            least.copy_(torch.maximum(least, torch.nextafter(bound, torch.full_like(bound, -torch.inf))))
        row, group = (best > least).nonzero(as_tuple=True)
        if scores.is_contiguous():
            some = scores.view(-1, size).index_select(0, row * best.shape[1] + group)
        else:
            some = _in_groups(scores, size)[row, group]
        which, within = (some > least[row]).nonzero(as_tuple=True)
        if len(which):
            self._add(rows, row[which], some[which, within], start + group[which] * size + within)

    def _add(self, rows: slice, row: Tensor, scores: Tensor, places: Tensor) -> None:
        """Adds scores of some of the queries `rows`, in ascending order of row and place."""
        filled = self._filled[rows]
        new = torch.bincount(row, minlength=len(filled))
        column = filled[row] + torch.arange(len(row), device=row.device) - (new.cumsum(0) - new)[row]
        needed = int((filled + new).max())
        kept, where = self._scores[rows], self._places[rows]
        if needed > self._room:
            kept = torch.nn.functional.pad(kept, (0, needed - self._room), value=-torch.inf)
            where = torch.nn.functional.pad(where, (0, needed - self._room))
        kept[row, column] = scores
        if self._with_places:
            where[row, column] = places
        filled += new
        if needed > self._enough:
            self._keep(rows, kept, where)

    def _keep(self, rows: slice, scores: Tensor, places: Tensor) -> None:
        """Keeps of the queries `rows` the highest scores alone, in order; of equal ones the first stands first."""
        if self._with_places:
            values, order = scores.sort(dim=1, descending=True, stable=True)
            self._places[rows, : self.count] = places.gather(1, order[:, : self.count])
        else:
            values = ascending(scores).flip(1)
        self._scores[rows, : self.count] = values[:, : self.count]
        self._scores[rows, self.count :] = -torch.inf
        self._filled[rows] = (self._scores[rows, : self.count] > -torch.inf).sum(dim=1)
        self._least[rows] = self._scores[rows, self.count - 1 : self.count]

    def result(self, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """The highest scores and their places, best first, each (queries, count); -inf where there were too few."""
        self._keep(rows, self._scores[rows], self._places[rows])
        return self._scores[rows, : self.count], self._places[rows, : self.count]


def _in_groups(scores: Tensor, size: int) -> Tensor:
    """Each `size` items after each other as one, (queries, groups, size), without a copy."""
    groups, (of_query, of_item) = scores.shape[1] // size, scores.stride()
    return scores.as_strided((len(scores), groups, size), (of_query, size * of_item, of_item))


def _best_of_groups(scores: Tensor, size: int) -> Tensor:
    """The highest of each `size` items after each other, (queries, groups)."""
    grouped = _in_groups(scores, size)
    if scores.stride(0) == 1:  # a transposed block, whose rows are far slower to go through than its columns
        return grouped.permute(1, 2, 0).amax(dim=1).T
    return grouped.amax(dim=2)


def ascending(scores: Tensor) -> Tensor:
    """Each row in ascending order; may overwrite `scores`."""
    if scores.device.type == "cpu":  # NumPy sorts plain numbers several times as fast as torch
        with suppress(RuntimeError):  # if there is no NumPy
            scores.numpy().sort(axis=1)
            return scores
    return scores.sort(dim=1).values

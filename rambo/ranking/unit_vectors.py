"""Vectors divided by their length: the one way to do it in the whole project. Import it from `rambo.ranking`."""

from __future__ import annotations

import torch
from torch import Tensor

from rambo.ranking.exact import plain

_FIELDS = {torch.float32: (torch.int32, 23, 0xFF), torch.float64: (torch.int64, 52, 0x7FF)}
"""How a number is stored: as which integer, where its exponent begins, and the largest exponent."""


def unit_vectors(vectors: Tensor, dim: int = -1) -> Tensor:
    """Vectors divided by their length, differentiable as often as wanted. See `directions_and_lengths`."""
    return directions_and_lengths(vectors, dim)[0]


def directions_and_lengths(vectors: Tensor, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Vectors divided by their length, and the lengths.

    Every vector whose largest entry is a normal number of its type (1e-38 and more in float32) has a direction,
    however short or long it is, and `vectors` times a number has the same ones. Others, the zero vector above all,
    have none: their direction is the zero vector, and no gradient of any order reaches them. NaN and infinity give NaN.

    Args:
        vectors: Floating point, at least one entry along `dim`; half precision is turned into float32.
        dim: The dimension of the entries.

    Returns:
        Directions, of the shape of the vectors; lengths without a graph, of size 1 along `dim`, infinite for vectors
        without a direction.

    Raises:
        ValueError: If the vectors have no entries.
        RuntimeError: If they are mapped over by vmap.
    """
    if not vectors.shape[dim]:
        raise ValueError(f"vectors need at least one entry each to have a direction, got shape {tuple(vectors.shape)}")
    if vectors.dtype not in _FIELDS:
        vectors = vectors.float()
    kind, place, highest = _FIELDS[vectors.dtype]
    largest = plain(vectors).abs().amax(dim, keepdim=True)
    # Powers of two of about 1 / largest. Multiplied by them the entries keep their bits, and can be squared.
    if torch.compiler.is_exporting():  # into formats that cannot look at bits: 1 / largest, and other last bits
        none = largest < torch.finfo(vectors.dtype).tiny
        powers = largest.reciprocal().clamp(min=torch.finfo(vectors.dtype).tiny).masked_fill(none, 0)
    else:
        exponents = largest.view(kind) >> place
        none = exponents == 0
        powers = ((highest - 1 - exponents).clamp(min=1) << place).view(vectors.dtype).masked_fill(none, 0)
    moderate = vectors * powers
    lengths = torch.linalg.vector_norm(moderate + none, 2, dim, keepdim=True)  # of 1, 1, 1, ... where there is none
    return moderate / lengths, lengths.detach() / powers

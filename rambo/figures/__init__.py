"""Pictures of what ranking losses do: landscapes, retrievals, gradients, scores, embeddings."""

from rambo.figures.gradients import gradient_shares, gradient_sparsity, tie_rates, tied_share
from rambo.figures.projection import Projection, embedding_projection, principal_components
from rambo.figures.retrievals import loss_landscape, neighbours_of_some, retrieval_grid, retrievals_of
from rambo.figures.scores import BatchMap, Scores, batch_map, expected_batch_map, score_distributions, score_histogram

__all__ = [
    "BatchMap",
    "Projection",
    "Scores",
    "batch_map",
    "embedding_projection",
    "expected_batch_map",
    "gradient_shares",
    "gradient_sparsity",
    "loss_landscape",
    "neighbours_of_some",
    "principal_components",
    "retrieval_grid",
    "retrievals_of",
    "score_distributions",
    "score_histogram",
    "tie_rates",
    "tied_share",
]

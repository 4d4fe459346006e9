"""Pictures of imbalanced regression: densities, errors, predictions, similarities."""

from ranksim.figures.similarity import Similarity, similarity_matrices
from ranksim.figures.targets import axis_label, error_by_target, interval_means, predicted_against_true, target_density

__all__ = [
    "Similarity",
    "axis_label",
    "error_by_target",
    "interval_means",
    "predicted_against_true",
    "similarity_matrices",
    "target_density",
]

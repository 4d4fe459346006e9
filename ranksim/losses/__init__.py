"""What the methods of imbalanced regression minimise, needing torch alone.

Of a prediction and its target, with optional sample weights, `loss(prediction, target, weight=None)`:
`L1`, `MSE`, `FocalL1`, `FocalMSE`, `Huber`; without weights, because they correct the imbalance themselves:
`BatchBalancedMSE`, `MixtureBalancedMSE`, `HistogramBalancedMSE`.

Of the features and the targets of a batch, added to one of those, `term(features, targets)`: `RankSimilarity`,
`RankNContrast`, and `ConR`, which also takes the predictions.

    loss = L1()(prediction, target) + RankSimilarity(weight=100.0, interpolation=2.0)(features, target)
"""

from ranksim.losses.balanced_mse import BalancedMSE, BatchBalancedMSE, HistogramBalancedMSE, MixtureBalancedMSE
from ranksim.losses.contrastive import ConR, RankNContrast
from ranksim.losses.rank_similarity import RankSimilarity
from ranksim.losses.regression import L1, MSE, FocalL1, FocalMSE, Huber, RegressionLoss

__all__ = [
    "L1",
    "MSE",
    "BalancedMSE",
    "BatchBalancedMSE",
    "ConR",
    "FocalL1",
    "FocalMSE",
    "HistogramBalancedMSE",
    "Huber",
    "MixtureBalancedMSE",
    "RankNContrast",
    "RankSimilarity",
    "RegressionLoss",
]

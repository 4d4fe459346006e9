"""Losses on rankings: drop-ins where a loss of (embeddings, labels) stands, needing torch alone.

    loss = RecallLoss(interpolation=4.0, margin=0.02, weight="loglog")
    loss(embeddings, labels).backward()

`from_scores(scores, relevance)` is the raw entry point, one row per query. The ranks are exact; the gradient is that of
blackbox differentiation (Rolinek et al. 2020), worked out in the forward pass, so that it is linear in whatever
multiplies the loss later.
"""

from rambo.losses.average_precision import AveragePrecisionLoss, MeanAveragePrecisionLoss
from rambo.losses.gallery_memory import GalleryMemory
from rambo.losses.pnp import PNPLoss
from rambo.losses.ranking import BlackboxLoss, RankingLoss
from rambo.losses.recall import RecallLoss
from rambo.losses.retrieval import RetrievalLoss
from rambo.losses.smooth_ap import SmoothAPLoss
from rambo.losses.smooth_recall import SiMix, SmoothRecallLoss
from rambo.losses.sup_rank import CalibrationLoss, RoadmapLoss, SupAPLoss, SupRecallLoss

__all__ = [
    "AveragePrecisionLoss",
    "BlackboxLoss",
    "CalibrationLoss",
    "GalleryMemory",
    "MeanAveragePrecisionLoss",
    "PNPLoss",
    "RankingLoss",
    "RecallLoss",
    "RetrievalLoss",
    "RoadmapLoss",
    "SiMix",
    "SmoothAPLoss",
    "SmoothRecallLoss",
    "SupAPLoss",
    "SupRecallLoss",
]

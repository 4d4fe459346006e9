"""The losses of regression work on a device without the CPU waiting for it, and give the numbers of the CPU there."""

import pytest
import torch
from pretend_gpu import DEVICE, OnDevice, PretendGPU

from harness.device import to_device
from ranksim.losses import (
    L1,
    MSE,
    BatchBalancedMSE,
    ConR,
    FocalL1,
    HistogramBalancedMSE,
    Huber,
    RankNContrast,
    RankSimilarity,
)

TERMS = {
    "RankSim": lambda: RankSimilarity(2.0, 100.0, seed=0),
    "RankSim, all samples": lambda: RankSimilarity(2.0, 100.0, "none"),
    "RankSim, backward": lambda: RankSimilarity(2.0, 100.0, seed=0, legacy_backward=True),
    "Rank-N-Contrast": RankNContrast,
    "Rank-N-Contrast, cosine": lambda: RankNContrast(similarity="cosine"),
    "ConR": ConR,
}
LOSSES = {"L1": L1, "MSE": MSE, "focal": FocalL1, "Huber": Huber, "official Huber": lambda: Huber(1.0, True)}
LOSSES |= {"BMC": BatchBalancedMSE, "BNI": HistogramBalancedMSE}


def batch():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(24, 6, generator=generator)
    return features, {"target": torch.arange(24.0) // 2, "prediction": torch.arange(24.0).flip(0) / 2}


def gradient(term, features, given):
    leaf = features.clone() if not isinstance(features, OnDevice) else OnDevice(features.numbers.clone())
    leaf.requires_grad_()
    if isinstance(term, ConR):
        value = term(leaf, given["target"], given["prediction"], weights=given["target"] + 1)
    elif type(term) in (L1, MSE, FocalL1, Huber):
        value = term(leaf[:, 0], given["target"], given["prediction"] + 1)
    elif isinstance(term, (BatchBalancedMSE, HistogramBalancedMSE)):
        value = term(leaf[:, 0], given["target"])
    else:
        value = term(leaf, given["target"])
    value.backward()
    return value.detach(), leaf.grad


def made(kind):
    term = {**TERMS, **LOSSES}[kind]()
    if isinstance(term, HistogramBalancedMSE):
        term.set_density([1, 2], [0.0, 5.0], [1.0, 1.0])
    return term


def moved(term):
    """Its parameters and buffers on the device, as `term.to("cuda")` would have them."""
    for name, tensor in [*term.named_parameters(recurse=False), *term.named_buffers(recurse=False)]:
        there = OnDevice(tensor.detach().clone())
        if name in term._parameters:
            term._parameters[name] = torch.nn.Parameter(there)
        else:
            term._buffers[name] = there
    return term


@pytest.mark.parametrize("kind", [*TERMS, *LOSSES])
def test_nobody_waits(kind):
    features, given = batch()
    expected = gradient(made(kind), features, given)
    with PretendGPU():
        found = gradient(moved(made(kind)), OnDevice(features), to_device(given, DEVICE))
    for got, wanted in zip(found, expected, strict=True):
        assert torch.equal(got.numbers, wanted)


@pytest.mark.parametrize(
    ("kind", "where"),
    [(kind, where) for kind in [*TERMS, *LOSSES] for where in ("features", "target")]
    + [(kind, "prediction") for kind in ("ConR", "L1", "MSE", "focal", "official Huber")],
)
def test_nan_becomes_a_loss_of_nan_and_no_finite_number(kind, where):
    features, given = batch()
    {"features": features[:, 0], **given}[where][3] = torch.nan
    with PretendGPU():
        if kind.startswith("RankSim") and where == "target":  # which it looks at on the CPU
            with pytest.raises(ValueError, match="targets hold NaN"):
                gradient(made(kind), OnDevice(features), to_device(given, DEVICE))
            return
        value, _ = gradient(moved(made(kind)), OnDevice(features), to_device(given, DEVICE))
    assert value.numbers.isnan()

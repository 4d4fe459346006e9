import pytest
import torch

from tests.harness.host_reads import HostReads

X = torch.tensor([3.0, 0.0, 3.0])
ASKS = {
    "item": lambda: X[0].item(),
    "float": lambda: float(X[0]),
    "if": lambda: bool(X.isfinite().all()),
    "tolist": lambda: X.tolist(),
    "numpy": lambda: X.numpy(),
    "cpu": lambda: X.cpu(),
    "nonzero": lambda: X.nonzero(),
    "mask": lambda: X[X > 0],
    "masked_fill by index": lambda: X.clone().__setitem__(X > 0, X[:2]),
    "unique": lambda: X.unique(),
    "equal": lambda: torch.equal(X, X),
    "a number for the GPU": lambda: torch.tensor([2.0], device=X.device),
    "allclose": lambda: torch.allclose(X, X),
    "repeats": lambda: X.repeat_interleave(torch.tensor([1, 2, 0])),
}


@pytest.mark.parametrize("asks", ASKS)
def test_what_hands_the_cpu_a_number_is_found_with_its_line(asks):
    with HostReads() as reads:
        ASKS[asks]()
    assert len(reads.found) >= 1
    assert reads.found[0].startswith("tests/harness/test_host_reads.py:")


def test_what_stays_on_the_device_is_not():
    weight = torch.nn.Parameter(X.clone())
    optimizer = torch.optim.Adam([weight])
    with HostReads() as reads:
        (weight * X[torch.tensor([0, 2, 1])]).where(X > 0, 0).sum().backward()
        torch.nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        X.repeat_interleave(torch.tensor([1, 2, 0]), output_size=3)
    assert reads.found == []

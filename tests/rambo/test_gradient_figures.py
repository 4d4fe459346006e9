import pytest
import torch

from rambo.figures.gradients import gradient_shares, gradient_sparsity, tie_rates, tied_share
from rambo.losses import AveragePrecisionLoss, RecallLoss
from rambo.ranking.gradient_rules import Identity

PNG = b"\x89PNG"


def batch(seed=0, items=12):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(items, 5, generator=generator), torch.arange(items) % 3


def share_by_autograd(kind, interpolation, embeddings, labels, **settings):
    """The same from what arrives at the scores, with a loss of that lambda."""
    rows = torch.nn.functional.normalize(embeddings, dim=1)
    others = ~torch.eye(len(rows), dtype=torch.bool)
    scores = (rows @ rows.T)[others].view(len(rows), -1).requires_grad_()
    relevance = (labels[:, None] == labels)[others].view(len(rows), -1)
    kind(interpolation=interpolation, **settings).from_scores(scores, relevance).backward()
    return float((scores.grad != 0).double().mean())


@pytest.mark.parametrize("kind", [RecallLoss, AveragePrecisionLoss])
def test_shares_are_those_of_a_loss_with_that_lambda(kind):
    batches, interpolations = [batch(0), batch(1)], (0.01, 0.3, 4.0, 100.0)
    found = gradient_shares(kind(interpolation=7.0, margin=0.1), batches, interpolations)
    slow = [sum(share_by_autograd(kind, value, *one, margin=0.1) for one in batches) / 2 for value in interpolations]
    assert found.tolist() == pytest.approx(slow)
    assert 0 < found[1] < found[3]


def test_without_a_step_nothing_is_overtaken():
    found = gradient_shares(RecallLoss(interpolation=1.0), [batch()], (1e-9, 1e9))
    assert found[0] == 0
    assert found[1] > 0.3  # every relevant item goes to the front of its row, past all that stood before it


def test_a_solved_batch_has_no_gradient_at_any_lambda():
    labels = torch.tensor([0, 0, 1, 1])
    embeddings = torch.nn.functional.one_hot(labels).float()
    assert gradient_shares(RecallLoss(interpolation=1.0), [(embeddings, labels)]).sum() == 0


def test_the_loss_stays_as_it_was():
    loss = RecallLoss(interpolation=2.0, memory="gallery", memory_batches=2)
    embeddings, labels = batch()
    loss(embeddings.requires_grad_(), labels)
    before = len(loss.memory), loss.rule.interpolation, loss.training
    gradient_shares(loss, [batch(1)], (0.1, 1.0))
    assert (len(loss.memory), loss.rule.interpolation, loss.training) == before == (1, 2.0, True)


def test_only_what_has_a_lambda_can_be_measured():
    with pytest.raises(ValueError, match="only the blackbox gradient has a lambda"):
        gradient_shares(RecallLoss(interpolation=1.0, rule=Identity()), [batch()])
    with pytest.raises(ValueError, match="one batch at least"):
        gradient_shares(RecallLoss(interpolation=1.0), [])


def test_the_picture_has_measured_and_recorded_shares(tmp_path):
    loss = RecallLoss(interpolation=0.5)
    recorded = {"a": {3: 0.1, 6: 0.2}, "b": {3: 0.3}}
    drawn = gradient_sparsity(tmp_path / "a.png", {"now": (loss, [batch()])}, recorded, (0.1, 1.0))
    assert drawn["now"].tolist() == gradient_shares(loss, [batch()], (0.1, 1.0)).tolist()
    both = (tmp_path / "a.png").read_bytes()
    assert both.startswith(PNG)
    assert gradient_sparsity(tmp_path / "b.svg", {}, recorded) == {}
    assert (tmp_path / "b.svg").read_bytes().startswith(b"<?xml")
    gradient_sparsity(tmp_path / "c.png", {"now": (loss, [batch()])}, {})
    assert width(both) > 1.8 * width((tmp_path / "c.png").read_bytes())  # two panels, and one


def width(content):
    """As the PNG's first chunk has it."""
    return int.from_bytes(content[16:20], "big")


def test_tied_scores_are_counted():
    assert tied_share(torch.tensor([[1.0, 1.0, 2.0], [1.0, 2.0, 3.0]])) == 2 / 6
    assert tied_share(torch.tensor([[3.0, 1.0, 3.0, 1.0]])) == 1
    assert tied_share(torch.tensor([[0.0, -0.0, 3.0]])) == pytest.approx(2 / 3)


def test_half_precision_ties_more_and_in_longer_rows_more_often(tmp_path):
    embeddings = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    rates = tie_rates(tmp_path / "ties.png", embeddings, {"a": {1: 0.0}}, sizes=(8, 128))
    assert (tmp_path / "ties.png").read_bytes().startswith(PNG)
    assert rates["float32"][1] < 0.01
    assert rates["float16"][0] < rates["float16"][1] < rates["bfloat16"][1]
    assert rates["bfloat16"][0] < rates["bfloat16"][1]


def test_a_collapse_ties_everything_in_every_precision(tmp_path):
    rates = tie_rates(tmp_path / "ties.png", torch.ones(30, 4), {})
    assert rates == {name: [1.0] for name in ("float32", "float16", "bfloat16")}


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw the share of scores"):
        gradient_sparsity(tmp_path / "a.png", {}, {})
    with pytest.raises(ValueError, match="nothing to draw the rate of ties"):
        tie_rates(tmp_path / "a.png", None, {})
    with pytest.raises(ValueError, match="three images"):
        tie_rates(tmp_path / "a.png", torch.ones(2, 4), {})
    with pytest.raises(ValueError, match="2 to 7 items"):
        tie_rates(tmp_path / "a.png", torch.ones(10, 4), {}, sizes=(4, 8))
    assert not list(tmp_path.iterdir())

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from rambo.objective import RetrievalObjective

CONFIGS = Path(__file__).parents[2] / "configs" / "loss"
PEERS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if "pytorch_metric_learning" in path.read_text())


class Spread(nn.Module):
    """The mean of all embeddings, and how it is."""

    settings = {"preset": "corrected"}  # noqa: RUF012

    def forward(self, embeddings, labels, chosen=None):
        self.health = {"batch": torch.tensor(float(len(labels)))}
        self.chosen = chosen
        return embeddings.mean()


class Proxies(nn.Module):
    def __init__(self, num_classes, embedding_size):
        super().__init__()
        self.proxies = nn.Parameter(torch.zeros(num_classes, embedding_size))

    def forward(self, embeddings, labels):
        return ((embeddings - self.proxies[labels]) ** 2).sum()


def batch_of(labels, dimensions=16, seed=0):
    torch.manual_seed(seed)
    embeddings = nn.functional.normalize(torch.randn(len(labels), dimensions), dim=1).requires_grad_()
    return embeddings, {"label": torch.tensor(labels)}


def load(name, dimensions=16, **top):
    config = OmegaConf.create(
        {"model": {"embedding_size": dimensions}, **top, "loss": OmegaConf.load(CONFIGS / f"{name}.yaml")}
    )
    return instantiate(config.loss, _convert_="all")


def test_reports_the_loss_and_its_health():
    embeddings, batch = batch_of([0, 0, 1])
    terms = RetrievalObjective(Spread())(embeddings, batch)
    assert terms["loss"] == embeddings.mean()
    assert terms["batch"] == 3
    terms["loss"].backward()
    assert torch.allclose(embeddings.grad, torch.full((3, 16), 1 / 48))


def test_a_network_in_half_precision_leaves_the_proxies_as_they_are():
    objective = RetrievalObjective("pytorch_metric_learning.losses.ProxyAnchorLoss", embedding_size=16)
    objective.prepare(SimpleNamespace(classes=2))
    embeddings, batch = batch_of([0, 0, 1])
    loss = objective(embeddings.to(torch.bfloat16), batch)["loss"]
    assert loss.dtype == objective.loss.proxies.dtype == torch.float32
    loss.backward()
    assert embeddings.grad.isfinite().all()


def test_health_never_takes_the_place_of_the_loss():
    loss = Spread()
    embeddings, batch = batch_of([0, 0])
    objective = RetrievalObjective(loss)
    loss.forward = lambda embeddings, labels: setattr(loss, "health", {"loss": -1.0}) or embeddings.sum()
    assert objective(embeddings, batch)["loss"] == embeddings.sum()


def test_what_the_miner_chose_reaches_the_loss_without_a_graph():
    loss, saw_gradients = Spread(), []

    def miner(embeddings, labels):
        saw_gradients.append(torch.is_grad_enabled())
        return ("pairs", labels.tolist())

    embeddings, batch = batch_of([0, 0, 1])
    RetrievalObjective(loss, miner=miner)(embeddings, batch)
    assert loss.chosen == ("pairs", [0, 0, 1])
    assert saw_gradients == [False]


def test_a_loss_with_proxies_is_completed_with_the_number_of_classes():
    objective = RetrievalObjective(f"{__name__}.Proxies", learning_rate_factor=100.0, embedding_size=16)
    embeddings, batch = batch_of([0, 0, 4])
    with pytest.raises(RuntimeError, match=r"Proxies needs the number of training classes: call prepare\(data\)"):
        objective(embeddings, batch)
    objective.prepare(SimpleNamespace(classes=5))
    (group,) = objective.parameter_groups()
    assert [tuple(parameter.shape) for parameter in group["params"]] == [(5, 16)]
    assert group["learning_rate_factor"] == 100
    assert [id(parameter) for parameter in objective.parameters()] == [id(group["params"][0])]
    kept = group["params"][0]
    objective.prepare(SimpleNamespace(classes=5))  # a second call must not forget what was learned
    assert objective.parameter_groups()[0]["params"][0] is kept
    assert objective(embeddings, batch)["loss"].item() == pytest.approx(3, abs=1e-5)  # zero proxies, three unit vectors


def test_a_loss_without_parameters_has_no_group():
    assert RetrievalObjective(Spread()).parameter_groups() == []


def test_settings_name_the_loss_and_its_choices():
    assert RetrievalObjective(Spread()).settings == {"loss": f"{__name__}.Spread", "preset": "corrected"}
    incomplete = RetrievalObjective(f"{__name__}.Proxies", embedding_size=2)
    assert incomplete.settings == {"loss": f"{__name__}.Proxies"}


def test_refusals():
    with pytest.raises(TypeError, match="loss must be a torch module"):
        RetrievalObjective(3)
    with pytest.raises(ImportError, match="must be named with its module"):
        RetrievalObjective("recall")
    with pytest.raises(ImportError, match=r"no RecalLoss in rambo\.losses"):
        RetrievalObjective("rambo.losses.RecalLoss")
    with pytest.raises(TypeError, match=r"RecallLoss takes no lamda; it takes interpolation, margin"):
        RetrievalObjective("rambo.losses.RecallLoss", lamda=3)
    with pytest.raises(ValueError, match="must be > 0, got -1"):
        RetrievalObjective(Spread(), learning_rate_factor=-1)


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_loss_learns_on_ragged_classes(name):
    pytest.importorskip("pytorch_metric_learning", reason="optional extra: peers")
    objective = load(name)
    objective.prepare(SimpleNamespace(classes=6))
    torch.manual_seed(0)
    points = torch.randn(24, 16, requires_grad=True)
    labels = torch.tensor([0] * 9 + [1] * 4 + [2] * 2 + [3] * 1 + [4] * 4 + [5] * 4)
    optimizer = torch.optim.Adam([points, *objective.parameters()], lr=0.1)
    history = []
    for _ in range(150):
        terms = objective(nn.functional.normalize(points, dim=1), {"label": labels})
        optimizer.zero_grad()
        terms["loss"].backward()
        assert torch.isfinite(points.grad).all()
        optimizer.step()
        history.append(terms["loss"].item())
    similarity = nn.functional.normalize(points.detach(), dim=1) @ nn.functional.normalize(points.detach(), dim=1).T
    same = labels[:, None] == labels
    gap = similarity[same & ~torch.eye(24, dtype=torch.bool)].mean() - similarity[~same].mean()
    assert gap > 0.5  # at random it is about 0
    assert history[0] > 0


@pytest.mark.parametrize("name", ["proxy_nca", "proxy_anchor", "margin"])
def test_loss_parameters_of_peers_reach_the_optimizer(name):
    pytest.importorskip("pytorch_metric_learning", reason="optional extra: peers")
    objective = load(name, dimensions=24)
    objective.prepare(SimpleNamespace(classes=7))
    (group,) = objective.parameter_groups()
    (parameter,) = group["params"]
    assert tuple(parameter.shape) == ((7,) if name == "margin" else (7, 24))
    assert group["learning_rate_factor"] == (50 if name == "margin" else 100)
    assert group["name"] == "loss"


def test_peers_are_all_there():
    assert PEERS == [
        "contrastive",
        "fast_ap",
        "margin",
        "multi_similarity",
        "proxy_anchor",
        "proxy_nca",
        "triplet",
    ]


@pytest.mark.parametrize(
    ("name", "section"), [("recall", "recall"), ("average_precision", "average_precision"), ("smooth_ap", "smooth_ap")]
)
def test_our_losses_take_their_values_from_the_experiment(name, section):
    key = "temperature" if name == "smooth_ap" else "interpolation"
    embeddings, batch = batch_of([0, 0, 1, 1, 1, 2])
    default = load(name)(embeddings, batch)["loss"]
    assert torch.isfinite(default)
    assert "0.37" in repr(load(name, **{section: {key: 0.37}}).settings)


def test_lambda_goes_from_its_start_to_its_end_by_equal_factors():
    ours = {"interpolation": 0.25, "interpolation_end": 4.0}
    objective = RetrievalObjective("rambo.losses.RecallLoss", **ours)
    output, batch = batch_of([0, 0, 1, 1, 2, 2])
    seen = []
    for share, lambda_ in ((0.0, 0.25), (0.5, 1.0), (1.0, 4.0)):
        assert objective.start_of_epoch(share) == {"interpolation": pytest.approx(lambda_)}
        seen.append(torch.autograd.grad(objective(output, batch)["loss"], output)[0])
        alone = RetrievalObjective("rambo.losses.RecallLoss", interpolation=lambda_)
        assert torch.equal(seen[-1], torch.autograd.grad(alone(output, batch)["loss"], output)[0])
    assert not torch.equal(seen[0], seen[2])
    assert objective.settings["interpolation_end"] == 4.0
    assert "interpolation_end" not in RetrievalObjective("rambo.losses.RecallLoss", interpolation=1.0).settings


def test_without_an_end_lambda_stays():
    objective = RetrievalObjective("rambo.losses.RecallLoss", interpolation=0.25)
    assert objective.start_of_epoch(1.0) == {}
    assert objective.loss.rule.interpolation == 0.25


@pytest.mark.parametrize(
    ("loss", "end", "settings", "says"),
    [
        ("rambo.losses.RecallLoss", 0.0, {"interpolation": 1.0}, "interpolation_end must be"),
        ("rambo.losses.RecallLoss", float("nan"), {"interpolation": 1.0}, "interpolation_end must be"),
        ("rambo.losses.SmoothAPLoss", 4.0, {}, "interpolation_end needs a loss with a lambda"),
    ],
)
def test_an_end_of_lambda_that_cannot_be_is_refused(loss, end, settings, says):
    with pytest.raises(ValueError, match=says):
        RetrievalObjective(loss, interpolation_end=end, **settings)

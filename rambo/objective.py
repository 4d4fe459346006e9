"""What training minimises: any loss of (embeddings, labels), ours or a peer's, with the miner that goes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from harness.named_class import class_named
from rambo.ranking.exact import positive
from rambo.ranking.gradient_rules import Blackbox


class _HasClasses(Protocol):  # and, where images may have several labels, `several_labels`
    @property
    def classes(self) -> int: ...


class RetrievalObjective(nn.Module):
    """Hands the embeddings and labels of a batch to a loss, and its state of health to the log.

    Args:
        loss: Called as `loss(embeddings, labels)`: a module, or the dotted name of a class, as in a config. A class
            that wants `num_classes` (one proxy for each) is built by `prepare`, which knows their number. One whose
            attribute `several_labels` is true takes bool (batch, classes) for labels, too, as those of `rambo.losses`.
        miner: Chooses pairs or triplets; called as `miner(embeddings, labels)`, its result becomes the third argument
            of the loss.
        learning_rate_factor: How much faster than the network the loss's own parameters (proxies) learn.
        interpolation_end: The lambda of the last epoch, > 0, for a loss that has one: from epoch to epoch it is
            multiplied by the same factor, beginning with `interpolation`. None: it stays. Not in the paper.
        settings: What the named class is built with.

    Raises:
        TypeError: If `loss` is neither a module nor a name, or the class does not take one of the settings.
        ValueError: If `learning_rate_factor` or `interpolation_end` is not positive, or the loss has no lambda to end
            there.
        ImportError: If there is no class of that name.
    """

    def __init__(
        self,
        loss: nn.Module | str,
        miner: Callable[[Tensor, Tensor], Any] | None = None,
        learning_rate_factor: float = 1.0,
        interpolation_end: float | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if not learning_rate_factor > 0:  # also refuses nan
            raise ValueError(f"learning_rate_factor must be > 0, got {learning_rate_factor}")
        self._kind: Callable[..., nn.Module] | None = None
        self.loss: nn.Module | None = None
        if isinstance(loss, str):
            self._kind, wanted = class_named(loss, settings)
            self._settings = settings
            if "num_classes" not in wanted:
                self.loss = self._kind(**settings)
        elif isinstance(loss, nn.Module) and not settings:
            self.loss = loss
        else:
            raise TypeError(f"loss must be a torch module, or the name of a class and its settings, got {loss!r}")
        self.miner = miner
        self.learning_rate_factor = learning_rate_factor
        self._lambdas: tuple[float, float] | None = None
        if interpolation_end is not None:
            rule = getattr(self.loss, "rule", None)
            if not isinstance(rule, Blackbox):
                raise ValueError(f"interpolation_end needs a loss with a lambda, such as RecallLoss, got {loss!r}")
            self._lambdas = rule.interpolation, positive("interpolation_end", interpolation_end)

    def start_of_epoch(self, share: float) -> dict[str, float]:
        """Sets the lambda of the epoch that begins, and returns it as `"interpolation"`; {} where it stays.

        Args:
            share: How much of training lies behind: 0 in the first epoch, 1 in the last.
        """
        if self._lambdas is None:
            return {}
        first, last = self._lambdas
        rule = cast(Blackbox, self._ready().rule)
        rule.interpolation = first * (last / first) ** share
        return {"interpolation": rule.interpolation}

    def prepare(self, data: _HasClasses) -> None:
        """Builds a loss with one proxy for each of `data.classes`; to be called before the optimizer is built.

        Raises:
            ValueError: If images have several labels, and loss or miner need one class of each.
        """
        kind: Any = self._kind if self.loss is None else self.loss
        taken = self.miner is None and getattr(kind, "several_labels", False)
        if getattr(data, "several_labels", False) and not taken:
            what = getattr(kind, "__name__", type(kind).__name__) if self.miner is None else "a miner"
            raise ValueError(
                f"{what} needs one class of each image, and these have several labels: use a loss that takes them, such"
                " as RecallLoss or AveragePrecisionLoss, without a miner, or set data.label_separator=null"
            )
        if self.loss is None and self._kind is not None:
            self.loss = self._kind(num_classes=data.classes, **self._settings)

    def _ready(self) -> nn.Module:
        if self.loss is None:
            name = getattr(self._kind, "__name__", "this loss")
            raise RuntimeError(f"{name} needs the number of training classes: call prepare(data) before training")
        return self.loss

    def forward(self, output: Tensor, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Returns `"loss"`, a scalar to minimise, and the loss's `health`, if it keeps one.

        Args:
            output: Embeddings, (batch, dimensions).
            batch: Its `"label"`, int64 (batch,) or bool (batch, classes), says which images belong together; its
                `"index"`, int64 (batch,), which image each is, for a loss that remembers images and must know those
                seen again (`wants_ids`).
        """
        loss, labels = self._ready(), batch["label"].to(output.device)
        own = next((part.dtype for part in loss.parameters() if part.is_floating_point()), output.dtype)
        output = output.to(torch.promote_types(output.dtype, own))  # else a peer's proxies become half precision, too
        arguments, known = [output, labels], {}
        if self.miner is not None:
            with torch.no_grad():  # choosing pairs is not part of the function that is differentiated
                arguments.append(self.miner(output, labels))
        if getattr(loss, "wants_ids", False) and "index" in batch:
            known["ids"] = batch["index"].to(output.device)
        value = loss(*arguments, **known)
        return {**(getattr(loss, "health", None) or {}), "loss": value}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The loss's own parameters, for the optimizer; empty for most losses."""
        parameters = list(self._ready().parameters())
        if not parameters:
            return []
        return [{"params": parameters, "name": "loss", "learning_rate_factor": self.learning_rate_factor}]

    @property
    def settings(self) -> dict[str, Any]:
        """Which loss this is, and the choices it wants to see in the run record."""
        kind: Any = self._kind if self.loss is None else type(self.loss)
        settings = dict(getattr(self.loss, "settings", None) or {})
        if self._lambdas is not None:
            settings["interpolation_end"] = self._lambdas[1]
        return {"loss": f"{kind.__module__}.{kind.__qualname__}", **settings}

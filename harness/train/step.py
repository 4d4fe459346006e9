"""The gradient of one batch, whether it lies in one piece, in chunks, or over several processes.

A ranking loss is a function of the whole batch. So the outputs of all parts are brought together, the loss and its
gradient with respect to them are found, and each part back-propagates its share. One process and one chunk is the short
case, and pays nothing for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness import distributed
from harness.data.loading import PADDING, Batch
from harness.device import all_finite, float32_products, map_tensors, tensors_in
from harness.seeds import seed_everything
from harness.train.profiling import part_of_step


class NotFiniteError(ValueError):
    """The model's output holds NaN or infinity, and the loss refused it."""


class Step:
    """Adds the gradient of a batch's loss to the parameters of model and loss.

    Args:
        forward: The model, perhaps compiled; called with a batch, or with a part of one.
        loss: Called with the outputs and the batch, both whole.
        autocast: Makes the context in which both are called.
        scaler: Scales the loss before it is differentiated.
        chunk: Samples that go through the model at once, or None for all. Each chunk goes through twice: without a
            graph for its outputs, and again, with the same random draws, for its gradient.
        products: Precision of float32 products, as `harness.device.float32_products` takes it. The loss is computed
            in float32 where any is given, as less would invent ties.

    Source: Gao et al. 2021, arXiv:2101.06983 (gradient cache), for chunks.
    """

    def __init__(
        self,
        forward: Callable[[Batch], Any],
        loss: nn.Module,
        autocast: Callable[[], AbstractContextManager[Any]],
        scaler: torch.amp.GradScaler,
        chunk: int | None = None,
        products: str | None = None,
    ) -> None:
        self.forward, self.loss, self.autocast, self.scaler, self.chunk = forward, loss, autocast, scaler, chunk
        self.products = products
        self.of_loss: Draws | None = None  # where several processes draw for the loss, and all the same

    def seed(self, device: torch.device, *parts: int | str) -> None:
        """Seeds what is drawn from here on, as `seed_everything`, but the model of each process draws its own.

        The loss, which all processes find, draws what it would in one process; so does a model that `draws_for_all`.
        """
        seed_everything(*parts)
        if distributed.world() == 1 or getattr(self.forward, "draws_for_all", False):
            return
        self.of_loss = Draws(torch.empty(0, device=device))
        if distributed.rank():
            seed_everything(*parts, distributed.rank())

    def __call__(self, batch: Batch, divisor: int = 1) -> dict[str, Any]:
        """Back-propagates the loss of a batch, divided by `divisor`, and returns what the loss named.

        With several processes `batch` is this process's part. The gradients of the model are then this part's share,
        which `harness.distributed.add_up_gradients` completes; those of the loss's own parameters are whole in all.
        """
        with float32_products(self.products):
            return self._gradient(batch, divisor)

    def _gradient(self, batch: Batch, divisor: int) -> dict[str, Any]:
        parts = chunks(batch, self.chunk)
        if len(parts) == 1 and distributed.world() == 1:
            named = self._named(self._embed(batch), batch)
            self._back_propagate(named["loss"], divisor)
            return named

        again = len(parts) > 1
        draws, outputs = [], []
        for part in parts:
            draws.append(Draws(part))
            with torch.set_grad_enabled(not again):
                outputs.append(self._embed(part))
        whole = _Whole(outputs, padding=PADDING in batch, differentiable=again)
        with self.of_loss.gone_on_with() if self.of_loss else nullcontext():
            named = self._named(whole.output, Everyone(batch) if distributed.world() > 1 else batch)
        self._back_propagate(named["loss"], divisor)
        for number, part in enumerate(parts):
            if again:
                with draws[number].repeated():
                    outputs[number] = self._embed(part)
            whole.back_propagate(number, outputs[number])
        return named

    @part_of_step("forward")
    def _embed(self, part: Batch) -> Any:
        with self.autocast():
            return self.forward(part)

    @part_of_step("loss")
    def _named(self, output: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        try:
            with self.autocast(), float32_products("highest" if self.products else None):
                return self.loss(output, batch)  # type: ignore[no-any-return]
        except ValueError as error:
            if all_finite(output):
                raise
            raise NotFiniteError(str(error)) from error

    @part_of_step("backward")
    def _back_propagate(self, loss: Tensor, divisor: int) -> None:
        if loss.requires_grad:  # a batch without anything to learn from has no graph
            self.scaler.scale(loss if divisor == 1 else loss / divisor).backward()  # type: ignore[no-untyped-call]


class _Whole:
    """The outputs of all parts and processes as one output, whose gradient is handed back to the parts.

    Attributes:
        output: Like the output of one part, with the rows of all.
    """

    def __init__(self, outputs: list[Any], padding: bool, differentiable: bool) -> None:
        pieces = [list(tensors_in(output)) for output in outputs]
        if any(tensor.ndim == 0 for tensor in pieces[0]):
            raise ValueError("a model's output that is a single number, and not one for each sample, has no parts")
        self.leaves: list[Tensor] = []
        self.places: list[list[slice]] = []
        for column in zip(*pieces, strict=True):
            joined = torch.cat([tensor.detach() for tensor in column])
            gathered = distributed.gather(joined, padding)
            needs = joined.is_floating_point() and (differentiable or column[0].requires_grad)
            self.leaves.append(gathered.rows.requires_grad_(needs))
            start, places = gathered.own.start, []
            for tensor in column:
                stop = start if padding else start + len(tensor)
                places.append(slice(start, stop))
                start = stop
            self.places.append(places)
        self.padding = padding
        rest = iter(self.leaves)
        self.output = map_tensors(outputs[0], lambda _: next(rest))

    @part_of_step("backward")
    def back_propagate(self, part: int, output: Any) -> None:
        """Goes on from the outputs of a part, which has a graph, with its rows of the gradient."""
        tensors, slopes = [], []
        for tensor, leaf, places in zip(tensors_in(output), self.leaves, self.places, strict=True):
            if tensor.requires_grad and leaf.grad is not None and not self.padding:
                tensors.append(tensor)
                slopes.append(leaf.grad[places[part]])
        if tensors:
            torch.autograd.backward(tensors, slopes)


class Everyone(Mapping[str, Any]):
    """A batch of which every process has a part. What is asked for is gathered, the first time, in all processes."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.padding = batch, PADDING in batch
        self.gathered: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self.gathered:
            self.gathered[key] = map_tensors(self.batch[key], lambda part: distributed.gather(part, self.padding).rows)
        return self.gathered[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.batch)

    def __len__(self) -> int:
        return len(self.batch)


def chunks(batch: Batch, size: int | None) -> list[Batch]:
    """The batch in parts of `size` samples, the last perhaps smaller; all of it in one where `size` is None.

    Raises:
        ValueError: If an entry of the batch does not have one thing for each sample.
    """
    if size is None:
        return [batch]
    lengths = {key: _length(value) for key, value in batch.items() if key != PADDING}
    count = max(lengths.values())
    if wrong := [key for key, length in lengths.items() if length != count]:
        raise ValueError(
            f"a batch of {count} samples has {lengths[wrong[0]]} {wrong[0]!r}, so it cannot be cut into chunks; "
            "set trainer.chunk=null"
        )
    return [
        {key: value if key == PADDING else _cut(value, slice(start, start + size)) for key, value in batch.items()}
        for start in range(0, count, size)
    ]


def _length(value: Any) -> int:
    if isinstance(value, Tensor | list):
        return len(value)
    return len(next(tensors_in(value), ()))


def _cut(value: Any, samples: slice) -> Any:
    return value[samples] if isinstance(value, list) else map_tensors(value, lambda tensor: tensor[samples])


class Draws:
    """The random generators of Python, the CPU and the device of a batch, as they are now, to be gone on from."""

    def __init__(self, batch: Any) -> None:
        found = {tensor.device for tensor in tensors_in(batch)}
        self.generators = [(torch.get_device_module(d), d) for d in found if d.type in ("cuda", "mps")]
        self.states = self._now()

    def _now(self) -> tuple[Any, list[Tensor]]:
        devices = [module.get_rng_state(device) for module, device in self.generators]
        return random.getstate(), [torch.get_rng_state(), *devices]

    def _set(self, states: tuple[Any, list[Tensor]]) -> None:
        random.setstate(states[0])
        torch.set_rng_state(states[1][0])
        for (module, device), state in zip(self.generators, states[1][1:], strict=True):
            module.set_rng_state(state, device)

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """The same draws again inside; outside, the generators are left as they were."""
        before = self._now()
        self._set(self.states)
        try:
            yield
        finally:
            self._set(before)

    @contextmanager
    def gone_on_with(self) -> Iterator[None]:
        """The draws that follow those of the last time inside; outside, the generators are left as they were."""
        with self.repeated():
            yield
            self.states = self._now()


def divisible(model: nn.Module, chunk: int | None, device: torch.device) -> nn.Module:
    """The model, with batch norm synchronised between the GPUs of several processes; errors of `check_divisible`."""
    check_divisible(model, chunk, device)
    if _synchronises(device):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return model


def _synchronises(device: torch.device) -> bool:
    return device.type == "cuda" and distributed.world() > 1


def check_divisible(model: nn.Module, chunk: int | None, device: torch.device) -> None:
    """Refuses a model that cannot be given a batch in parts, where chunks or several processes would do so.

    Raises:
        ValueError: If its output for a sample depends on the samples beside it, where those are not all there.
    """
    if chunk is None and distributed.world() == 1:
        return
    way = "set trainer.chunk=null" if chunk is not None else "start one process"
    reason: str | None = getattr(model, "needs_whole_batch", None)
    if chunk is not None:
        reason = reason or getattr(model, "takes_no_chunks", None)
    if reason is not None:
        raise ValueError(f"{reason}; {way}")
    model.train()
    for name, module in model.named_modules():
        synchronised = (_synchronises(device) or isinstance(module, nn.SyncBatchNorm)) and chunk is None
        if isinstance(module, _BatchNorm) and module.training and not synchronised:
            raise ValueError(
                f"batch norm that trains ({name}) would see a part of the batch at a time; freeze it "
                f"(model.freeze_batch_norm=true), or {way}"
            )

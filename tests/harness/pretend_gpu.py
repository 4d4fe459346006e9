"""A device that computes on the CPU and refuses to be waited for, to find out on a CPU what a GPU would wait for.

Its tensors say that they are on `DEVICE` ("meta", of which autograd asks no driver) and hold their numbers behind it.
Inside `PretendGPU` every operation is carried out on those, unless it would hand the CPU a number, copy without
`non_blocking`, or mix devices, which fails as it would on a GPU or makes the CPU wait there.
"""

import contextlib
from unittest import mock

import torch
from host_reads import READS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")


class WaitedForError(AssertionError):
    """The CPU would have waited."""


class OnDevice(torch.Tensor):
    @staticmethod
    def __new__(cls, numbers):
        layout = {"strides": numbers.stride(), "storage_offset": numbers.storage_offset(), "dtype": numbers.dtype}
        return torch.Tensor._make_wrapper_subclass(cls, numbers.shape, device=DEVICE, **layout)

    def __init__(self, numbers):
        self.numbers = numbers

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise AssertionError(f"{func} outside of PretendGPU")


class PretendGPU(TorchDispatchMode):
    """Inside, tensors on `DEVICE` have numbers and must not be waited for."""

    def __enter__(self):
        autocast = torch.autocast  # knows no such device, and is only ever switched off here
        without = lambda kind, **options: contextlib.nullcontext() if kind == DEVICE.type else autocast(kind, **options)  # noqa: E731
        self.patch = mock.patch("torch.autocast", without)
        self.patch.start()
        return super().__enter__()

    def __exit__(self, *error):
        self.patch.stop()
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), func.overloadpacket.__name__
        given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
        away = [each for each in given if isinstance(each, OnDevice)]
        wanted = kwargs.get("device")
        if name == "_to_copy" and wanted is not None and (wanted == DEVICE) != bool(away):
            if wanted != DEVICE:
                raise WaitedForError("numbers were copied to the CPU")
            if not kwargs.get("non_blocking"):
                raise WaitedForError("numbers were copied to the device with non_blocking=False")
            away = given
        elif away:
            _refuse(name, args, kwargs, given, away)
        if wanted == DEVICE:
            kwargs["device"] = torch.device("cpu")
        there = bool(away) if wanted is None else wanted == DEVICE
        found = func(*tree_map(_numbers, args), **tree_map(_numbers, kwargs))
        if not there:
            return found
        known = {id(each.numbers): each for each in away if isinstance(each, OnDevice)}
        return tree_map(lambda x: known[id(x)] if id(x) in known else _device(x), found)


def _device(value):
    return OnDevice(value) if isinstance(value, torch.Tensor) else value


def _numbers(value):
    return value.numbers if isinstance(value, OnDevice) else value


def _refuse(name, args, kwargs, given, away):
    if name in (*READS, "is_nonzero") and not (name == "repeat_interleave" and kwargs.get("output_size") is not None):
        raise WaitedForError(f"{name} asks a device for a number")
    if "index" in name and isinstance(args[1], (list, tuple)):
        if any(place is not None and place.dtype in (torch.bool, torch.uint8) for place in args[1]):
            raise WaitedForError(f"{name} by a mask asks a device how many there are")
    elif any(not isinstance(each, OnDevice) and each.dim() for each in given) and name != "copy_":
        raise AssertionError(f"{name} mixes tensors of the CPU and of a device")
    if name == "copy_" and len(away) == 1 and not (len(args) > 2 and args[2]):
        raise WaitedForError("numbers were copied to or from the device with non_blocking=False")


def on_device(tensor):
    """The tensor's numbers on the device."""
    return OnDevice(tensor)


def on_cpu(tensor):
    """The numbers of a tensor of the device, outside of `PretendGPU`."""
    return tensor.detach().numbers if isinstance(tensor, OnDevice) else tensor

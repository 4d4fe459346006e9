"""Which lines make the CPU wait for a GPU, found out on a CPU."""

import traceback
from pathlib import Path

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[2]
# Operations that hand the CPU a number, or need one for the shape of what they return.
READS = (
    "_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim",
    "unique_consecutive", "bincount", "repeat_interleave", "allclose", "_linalg_check_errors",
)  # fmt: skip
COPIES = ("tolist", "numpy", "cpu", "__array__")  # between the two, which on a CPU are no operation at all


class HostReads(TorchDispatchMode):
    """Inside, collects in `found` what would wait for a GPU: "harness/train/training.py:120 nonzero".

    An optimizer of torch that reads its own count of steps does not wait, as it keeps that on the CPU.
    """

    def __init__(self):
        super().__init__()
        self.found = []
        self.copies = _Copies(self)

    def __enter__(self):
        self.copies.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.copies.__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        known = name == "repeat_interleave" and kwargs.get("output_size") is not None
        masks = name in ("index", "index_put", "index_put_", "_index_put_impl_") and any(
            place is not None and place.dtype in (torch.bool, torch.uint8) for place in args[1]
        )
        if (name in READS and not known) or masks:
            self.note(name)
        return func(*args, **kwargs)

    def note(self, name):
        """Counts a read, unless it is an optimizer's."""
        frames = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
        if any("/torch/optim/" in frame.filename for frame in frames[-8:]):
            return
        own = [f for f in frames if Path(f.filename).is_relative_to(ROOT) and "site-packages" not in f.filename]
        place = own[-1] if own else frames[-1]
        path = Path(place.filename)
        self.found.append(f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{place.lineno} {name}")


class _Copies(TorchFunctionMode):
    """What `HostReads` cannot see below."""

    def __init__(self, reads):
        super().__init__()
        self.reads = reads

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in COPIES or (name in ("tensor", "as_tensor") and (kwargs or {}).get("device") is not None):
            self.reads.note(name)
        return func(*args, **(kwargs or {}))

"""What a run is: its folder, config and checkpoint, and how it is found, loaded, restored and repeated."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.record.standalone import load as load


def __getattr__(name: str) -> Any:
    if name == "load":  # when it is asked for: most who come here want something light
        from harness.record.standalone import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

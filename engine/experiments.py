"""The config that train.py makes of a command line, without running anything.

The command line may stand in a file that somebody else has written, such as a table or the record of a run, and it may
be run afterwards. So it says nothing of Hydra itself, and names no class but those of `engine.allowed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine import allowed
from engine.runs import flat

CONFIGS = Path(__file__).parent.parent / "configs"
STARTS_RUNS = ("defaults", "hydra", "reuse", "objective")  # of a sweep's file, what changes none of its runs


def composed(overrides: Sequence[str], configs: Path = CONFIGS, allow: Sequence[str] = ()) -> dict[str, Any]:
    """What train.py would run with these arguments, everything resolved: what it writes into config.yaml.

    Args:
        overrides: As on its command line: experiment=cub_rambo, seed=1, loss.margin=0.05.
        configs: The folder with train.yaml.
        allow: Packages of the user's own that the config may name; see `engine.allowed`.

    Raises:
        ValueError: If a choice does not exist, with those that do, a key or value is not taken, or the config names
            what it may not.
        ImportError: If it names what is not there.
    """
    return _resolved(_composed(overrides, configs), overrides, allow)


def composed_for_seeds(
    overrides: Sequence[str], seeds: Iterable[int], configs: Path = CONFIGS, allow: Sequence[str] = ()
) -> dict[int, dict[str, Any]]:
    """`composed` with seed=0, seed=1, ... added, at the price of composing once; errors as there."""
    config, found = _composed(overrides, configs), {}
    for seed in seeds:
        config.seed = seed
        found[seed] = _resolved(config, overrides, allow)
    return found


def without_sweep(overrides: Iterable[str], configs: Path = CONFIGS) -> list[str]:
    """The overrides of a run of a sweep as those of a single run: `+sweep=...` becomes what that file sets for all.

    What the file says of how runs are started is left out, and what the command line sets itself, too.
    """
    given = list(overrides)
    keys = {override.lstrip("+~").partition("=")[0] for override in given}
    found: list[str] = []
    for override in given:
        key, _, value = override.partition("=")
        if key.lstrip("+") != "sweep":
            found.append(override)
            continue
        for name in value.strip("[]").split(","):
            path = configs / "sweep" / f"{name.strip()}.yaml"
            content = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}
            assert isinstance(content, dict)
            own = flat({str(k): v for k, v in content.items() if k not in STARTS_RUNS})
            found += [f"{k}={_word(v)}" for k, v in own.items() if k not in keys]
    return found


def _word(value: Any) -> str:
    """For Hydra's command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _composed(overrides: Sequence[str], configs: Path) -> DictConfig:
    if not (configs / "train.yaml").is_file():
        raise ValueError(f"no configs in {configs} (train.yaml is missing)")
    for override in overrides:
        if "hydra" in re.split(r"\W+", override.partition("=")[0]):
            raise allowed.NotAllowedError(
                f"{override}: what belongs to Hydra is for the command line alone; take it out"
            )
    try:
        with initialize_config_dir(str(configs.absolute()), version_base="1.3"):
            return compose("train", list(overrides))
    except MissingConfigException as error:
        raise ValueError(f"{' '.join(overrides)}: {_missing(error, configs)}") from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(f"{' '.join(overrides)}: {_first_line(error)}") from error


def _resolved(config: DictConfig, overrides: Sequence[str], allow: Sequence[str]) -> dict[str, Any]:
    try:
        resolved = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    except OmegaConfBaseException as error:
        raise ValueError(f"{' '.join(overrides)}: {_first_line(error)}") from error
    allowed.check(resolved, " ".join(overrides), allow)
    return resolved


def _missing(error: MissingConfigException, configs: Path) -> str:
    """Which choice does not exist and what does."""
    group, _, name = str(error.missing_cfg_file or "").rpartition("/")
    there = sorted(path.stem for path in (configs / group).glob("*.yaml")) if group else []
    if not there:
        return _first_line(error)
    return f"there is no {group} {name}; choose from {', '.join(there)}"


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

"""The config that train.py makes of a command line, without running anything.

The command line may stand in a file that somebody else has written, such as a table or the record of a run, and it may
be run afterwards. So it says nothing of Hydra itself, and names no class but those of `harness.record.allowed`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import words
from harness.record import allowed, schema
from harness.record.config import STARTS_A_RUN, flat, is_under, nodes, resolved

CONFIGS = Path(__file__).parents[2] / "configs"


def place(name: str) -> Path:
    """Where `outputs` or `data` are when nobody says so: `paths` of configs/train.yaml."""
    return Path(OmegaConf.load(CONFIGS / "train.yaml").paths[name]).expanduser()


def composed(overrides: Sequence[str], configs: Path = CONFIGS, allow: Sequence[str] = ()) -> dict[str, Any]:
    """What train.py would run with these arguments, everything resolved: what it writes into config.yaml.

    Args:
        overrides: As on its command line: experiment=cub_rambo, seed=1, loss.margin=0.05.
        configs: The folder with train.yaml.
        allow: Packages of the user's own that the config may name; see `harness.record.allowed`.

    Raises:
        ValueError: If a choice does not exist, with those that do, a key or value is not taken, or the config names
            what it may not.
        ImportError: If it names what is not there.
    """
    return _checked(compose(overrides, configs), overrides, allow)


def composed_for_seeds(
    overrides: Sequence[str], seeds: Iterable[int], configs: Path = CONFIGS, allow: Sequence[str] = ()
) -> dict[int, dict[str, Any]]:
    """`composed` with seed=0, seed=1, ... added, at the price of composing once; errors as there."""
    config, found = compose(overrides, configs), {}
    for seed in seeds:
        config.seed = seed
        found[seed] = _checked(config, overrides, allow)
    return found


def compose(overrides: Sequence[str], configs: Path = CONFIGS) -> DictConfig:
    """`composed` before anything is resolved; errors as there."""
    if not (configs / "train.yaml").is_file():
        raise ValueError(f"no configs in {configs} (train.yaml is missing)")
    for override in overrides:
        if "hydra" in re.split(r"\W+", override.partition("=")[0]):
            raise allowed.NotAllowedError(
                f"{override}: what belongs to Hydra is for the command line alone; take it out"
            )
        if "${" in re.sub(r"\$\{[\w.-]*\}", "", override):  # beyond ${key}: resolvers, such as of the environment
            raise allowed.NotAllowedError(
                f"{override}: only ${{key}} may stand in it, for another value; what reads the environment"
                " or calls anything is for the command line alone: write the value itself"
            )
    try:
        return _by_hydra(overrides, configs)
    except MissingConfigException as error:
        raise ValueError(_missing(error, overrides, configs)) from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        if wrong := re.match(r"Could not override '(.+?)'", str(error)):
            raise ValueError(_misspelt(wrong[1], overrides, configs)) from error
        raise ValueError(f"{' '.join(overrides)}: {_first_line(error)}") from error


def changed(config: Mapping[str, Any], overrides: Sequence[str], configs: Path = CONFIGS) -> dict[str, Any]:
    """The resolved config of a run with other values, or with other choices of groups, such as data=cub.

    A group takes the place of its whole block, resolved beside the seed, the workers and the folder of the data of the
    run. Whether the keys are there, `schema.check` says.

    Raises:
        ValueError: If an override is none, is a sweep or takes something away, or a choice does not exist.
    """
    now = OmegaConf.create(dict(config))
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise ValueError(f"{' '.join(overrides)}: wanted KEY=VALUE ({_first_line(error)})") from error
    groups = [one for one in parsed if (configs / one.key_or_group).is_dir()]
    around = {"seed": config["seed"], "workers": config["data"].get("workers", 0), "paths": config.get("paths", {})}
    beside = [words.override(key, value) for key, value in flat(around).items()]
    for one in groups:
        block = compose([str(one.input_line), *beside], configs)[one.key_or_group]
        now[one.key_or_group] = resolved(block)
    for one in parsed:
        if one.is_sweep_override() or one.is_delete():
            raise ValueError(f"{one.input_line}: wanted one value, key=value")
        if one not in groups:
            OmegaConf.update(now, one.key_or_group, one.value(), force_add=True)
    return resolved(now)


def _by_hydra(overrides: Sequence[str], configs: Path) -> DictConfig:
    with hydra.initialize_config_dir(str(configs.absolute()), version_base="1.3"):
        return hydra.compose("train", list(overrides))


def key_of(override: str) -> str:
    """The key, or the group, that an override sets."""
    return override.lstrip("+~").partition("=")[0]


def without_sweep(overrides: Iterable[str], configs: Path = CONFIGS) -> list[str]:
    """The overrides of a run of a sweep as those of a single run: `+sweep=...` becomes what that file sets for all.

    What the file says of how runs are started is left out, and what the command line sets itself, too.
    """
    given, found = list(overrides), list[str]()
    keys = [key_of(override) for override in given]
    for override in given:
        if key_of(override) != "sweep":
            found.append(override)
            continue
        for name in override.partition("=")[2].strip("[]").split(","):
            path = configs / "sweep" / f"{name.strip()}.yaml"
            content = flat(OmegaConf.to_container(OmegaConf.load(path))) if path.is_file() else {}
            own = {k: v for k, v in content.items() if k not in keys and not is_under(k, ("defaults", *STARTS_A_RUN))}
            found += [words.override(key, value) for key, value in own.items()]
    return found


def _checked(config: DictConfig, overrides: Sequence[str], allow: Sequence[str]) -> dict[str, Any]:
    """The config resolved, and refused if it names what it must not."""
    try:
        plain = resolved(config)
    except OmegaConfBaseException as error:
        raise ValueError(f"{' '.join(overrides)}: {_first_line(error)}") from error
    allowed.check(plain, " ".join(overrides), allow)
    return plain


def _missing(error: MissingConfigException, overrides: Sequence[str], configs: Path) -> str:
    """Which choice does not exist and what does."""
    group, _, name = str(error.missing_cfg_file or "").rpartition("/")
    given = next((o for o in overrides if o.lstrip("+") == f"{group}={name}"), " ".join(overrides))
    there = sorted(path.stem for path in (configs / group).glob("*.yaml")) if group else []
    if not there:
        return f"{given}: {_first_line(error)}"
    choices = f"choose from {', '.join(there)}"
    return f"{given}: there is no {group} {name}; {words.nearest(name, there, choices)}"


def _misspelt(key: str, overrides: Sequence[str], configs: Path) -> str:
    """What is called almost like a key that the config does not have, or what stands beside it."""
    given = next((o for o in overrides if key_of(o) == key), key)
    try:
        config = _by_hydra([o for o in overrides if key_of(o) != key], configs)
    except (HydraException, OmegaConfBaseException, ValueError):  # something else is wrong, too
        config = OmegaConf.create()
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    beside = [str(name) for name in node if name not in schema.OF_HYDRA] if isinstance(node, DictConfig) else []
    if beside and last in _taken(node):
        return f"{given}: {key} is not set in this config yet; add it with a plus: {words.line([f'+{given}'])}"
    if not parent:
        beside += [path.name for path in configs.iterdir() if path.is_dir()]
    there = [".".join(path) for path, _ in nodes(OmegaConf.to_container(config)) if path]
    meant = [f"{parent}.{name}".lstrip(".") for name in words.alike(last, set(beside))]
    meant = meant or [name for name in there if name.rpartition(".")[2] == last][:3]
    meant = meant or ([] if beside else words.alike(key, there))
    said = f"{'in ' + parent if parent else 'at the top'} there are {', '.join(sorted(set(beside)))}"
    return f"{given}: there is no key {key}; " + (f"did you mean {' or '.join(meant)}?" if meant else said)


def _taken(node: DictConfig) -> Iterable[str]:
    """What the constructor of `node` takes; nothing where a file must not name it, as looking means importing."""
    try:
        plain = resolved(node)
        allowed.check(plain, "")
    except (OmegaConfBaseException, allowed.NotAllowedError, ImportError):
        return ()
    return schema.parameters(plain)[0] if "_target_" in plain else ()


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

"""What the files of configs/table and configs/fair share: how they are read, their faults in a sentence, columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from hydra.utils import instantiate
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from harness import words
from harness.record import measures
from harness.study.results import Run, values_of
from harness.yaml_text import from_yaml

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Whole = Annotated[int, Field(strict=True, ge=0)]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


def fault(key: str, says: str) -> PydanticCustomError:
    """The error of a validator that says something of `key`, which stands below the place of the validator."""
    return PydanticCustomError("fault", "{says}", {"key": key, "says": says})


def one_of(choices: Collection[str]) -> AfterValidator:
    """Refuses a string that is none of these."""

    def check(given: str) -> str:
        if given not in choices:
            raise fault("", f"must be one of {', '.join(choices)}, got {given!r}")
        return given

    return AfterValidator(check)


def outside(field: str, default: Any = ...) -> Any:
    """A field that stands in no file under its name: it says where its entry stands, or is set later."""
    return Field(default, alias=f"({field})")


def knowing(field: str) -> BeforeValidator:
    """Gives every entry of a mapping its key as the `field`, which is made by `outside`."""

    def give(entries: Any) -> Any:
        if not isinstance(entries, dict):
            return entries
        return {k: entry | {f"({field})": k} if isinstance(entry, dict) else entry for k, entry in entries.items()}

    return BeforeValidator(give)


class Part(BaseModel):
    """A mapping in a file. A key that is not known is refused with those that are almost called so."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        fields = cls.model_fields.items()
        written = [name for name, field in fields if field.alias is None]
        for key in given if isinstance(given, dict) else ():
            if key not in written and key not in [field.alias for _, field in fields]:
                raise fault(key, f"is not known here; {words.nearest(key, written)}")
        return given


class Column(Part):
    """A column: `metric` of a run times `scale` is in the unit of the file; `decimals` are shown of it."""

    name: str = outside("name")
    metric: str | None = None
    scale: Number = 1.0
    decimals: Whole = 1
    better: Literal["higher", "lower"] = "higher"

    def values(self, found: Mapping[int, Run], selection: str) -> dict[int, float]:
        """What runs by seed have in this column under `selection`, where it is finite."""
        values = values_of(found, selection, self.metric) if self.metric else {}
        return {seed: self.scale * value for seed, value in values.items()}


class Method(Part):
    """What is compared: the recipe with these `overrides`."""

    key: str = outside("key")
    name: str
    overrides: tuple[str, ...] = ()
    note: str | None = None


class Specification(Part):
    """A file, by whose name it is known."""

    kind: ClassVar[str]
    prefix: ClassVar[str] = ""  # of `label`

    name: str = outside("name")
    title: str
    data: str
    unit: str = ""
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """In the names of runs and files."""
        return f"{self.prefix}{self.name}"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads and checks a file by itself; `check_columns` asks whether a run can fill its columns.

        Raises:
            ValueError: If it is not YAML, or a key is missing, unknown or of the wrong kind; named with the file.
        """
        try:
            content = from_yaml(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ValueError(f"{path.name}: not a readable file ({error})") from error
        try:
            return cls.model_validate(content | {"(name)": path.stem} if isinstance(content, dict) else content)
        except ValidationError as error:
            raise ValueError(f"{path.name}: {_sentence(error)}") from error

    @classmethod
    def named(cls, name: str, folder: Path) -> Self:
        """The file of that name in `folder`, in which - and _ are the same.

        Raises:
            ValueError: If there is none, with those there are; or as `load`.
        """
        there = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
        for stem, path in there.items():
            if stem.replace("-", "_") == name.replace("-", "_"):
                return cls.load(path)
        raise ValueError(f"no {cls.kind} is called {name}; there are {', '.join(there) or f'none in {folder}'}")


def _sentence(error: ValidationError) -> str:
    """The first fault: its dotted key, and what is wrong with it."""
    first = error.errors()[0]
    below = first.get("ctx", {}).get("key", "")
    place = ".".join(str(part) for part in (*first["loc"], below) if part not in ("", "[key]"))
    says = {"fault": first["msg"], "missing": "is missing"}.get(first["type"])
    if says is None:
        says = f"should{first['msg'].partition('should')[2]}, got {first['input']!r}"
    return f"{place} {says}".lstrip()


def check_columns(name: str, columns: Collection[Column], who: str, config: Mapping[str, Any]) -> None:
    """Refuses columns that a run of a resolved config would not give, or whose arrow is not what its metrics declare.

    Metrics may say by a method `names()` what they give, with * for a part that the data decide; those without one are
    not checked. For the error, `name` is that of the file, and `who` says whose config it is.
    """
    metrics = instantiate(config["metrics"], _convert_="all")
    given = list(metrics.names()) if hasattr(metrics, "names") else ["*"]
    for column in columns:
        metric = (column.metric or "").partition("/")[2]
        if not metric:
            continue
        if not any(fnmatch(metric, pattern) for pattern in given):
            raise ValueError(
                f"{name}.yaml: columns.{column.name}.metric is {column.metric}, which {who} does not measure; it "
                f"measures {', '.join(given)}"
            )
        way = (measures.declared(metrics, metric) or measures.Measure()).better
        if way not in (None, column.better):
            raise ValueError(
                f"{name}.yaml: columns.{column.name}.better is {column.better}, but {column.metric} is better when "
                f"{way}"
            )

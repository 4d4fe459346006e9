"""Data sets of the library `datasets`, from the Hugging Face hub or from local files, copied to files once."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from PIL import Image, UnidentifiedImageError

from harness.data.dataset import PartedData
from harness.data.rows import Rows
from harness.data.spreadsheet import part_named, plain
from harness.files import read_json, replace, sync_everything, write_record

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Rows)
PATIENCE = 8.0  # seconds for the hub to answer
TABLE, RECORD = "table.csv", "source.json"


@dataclass(frozen=True)
class Source:
    """Which data set is meant, and how its splits are taken.

    Attributes:
        name: On the hub, such as `user/birds`; or a local folder of parquet or arrow files, or one such file.
        subset: What the hub calls a configuration or subset.
        revision: Branch, tag or commit on the hub.
        splits: Names of the splits that are used; None: all.
        parts: Whether several splits are the parts of the data; else they are pooled.
        bad_images: Whether images that cannot be read are copied, to be left out later; else they are refused.
    """

    name: str | None
    subset: str | None = None
    revision: str | None = None
    splits: Sequence[str] | None = None
    parts: bool = True
    bad_images: bool = False

    def exported(self, root: Path, image: str | None, columns: Mapping[str, str] | None = None) -> Path:
        """The table of a copy below `root`, which is made unless it is there; its images lie beside it.

        Args:
            root: Folder of all such copies.
            image: The column of images; the table has their paths. None: there are none.
            columns: The columns of the data set that the table has, with the names that they have there, that of the
                images included; None: the images, and all columns of text or numbers.

        Raises:
            ModuleNotFoundError, ConnectionError, ValueError: As `copied`, and if there is no such column, or it does
                not hold what it should.
        """
        write = partial(_write, image=image, columns=columns, source=self)
        return self.copied(root, {"image": image, "columns": columns}, write) / TABLE

    def copied(self, root: Path, how: Mapping[str, Any], write: Callable[[Mapping[str, Any], Path], int]) -> Path:
        """The folder of a copy below `root`, which is made unless it is there.

        Args:
            root: Folder of all such copies.
            how: What else decides what is written, in plain values.
            write: Given the splits by name, each a `datasets.Dataset`, and the folder, writes the copy and returns the
                number of its rows.

        Raises:
            ModuleNotFoundError: If the library is not installed.
            ConnectionError: If the hub cannot be reached, within 20 seconds.
            ValueError: If there is no such data set or split.
        """
        if not self.name:
            raise ValueError("data.name is not set; name a data set of the hub, or a folder of parquet or arrow files")
        local = Path(self.name).expanduser()
        asked = {**asdict(self), **how, "files": _marks(local)}
        if not self.bad_images:
            del asked["bad_images"]  # so that copies are called what they were before there was a choice
        key = hashlib.sha256(json.dumps(asked, sort_keys=True, default=list).encode()).hexdigest()[:12]
        folder = root / f"{plain(local.stem) or 'data'}_{key}"
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{key}.lock"):
            if not (folder / RECORD).is_file():
                log.info("copies %s to %s", self.name, folder)
                building = root / f".{key}.{uuid.uuid4().hex}"
                building.mkdir()
                try:
                    parts, found = self._loaded(local, building / "cache")
                    rows = write(parts, building)
                    shutil.rmtree(building / "cache", ignore_errors=True)
                    write_record(building / RECORD, {**asked, **found, "rows": rows})
                    sync_everything()
                    replace(building, folder)
                finally:
                    shutil.rmtree(building, ignore_errors=True)
        return folder

    def _loaded(self, local: Path, cache: Path) -> tuple[dict[str, Any], dict[str, str]]:
        """Split -> its `datasets.Dataset`, and the commit that was taken of the hub."""
        try:
            import datasets
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'this needs the library datasets; run: pip install "blackbox-ranking[huggingface]"'
            ) from error
        found = {} if local.exists() else {"commit": self._commit(str(self.name))}
        try:
            if (local / "state.json").is_file() or (local / "dataset_dict.json").is_file():
                loaded = datasets.load_from_disk(str(local))
            elif local.is_file():
                kind = "arrow" if local.suffix == ".arrow" else "parquet"
                loaded = datasets.load_dataset(kind, data_files=str(local), cache_dir=str(cache))
            else:
                loaded = datasets.load_dataset(
                    str(local) if local.exists() else self.name,
                    self.subset,
                    revision=found.get("commit"),
                    cache_dir=str(cache),
                )
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"the data set {self.name} cannot be read ({type(error).__name__}: {reason})") from error
        parts = loaded if isinstance(loaded, Mapping) else {"train": loaded}
        if lacking := sorted(set(self.splits or ()) - parts.keys()):
            raise ValueError(
                f"{self.name} has no split {lacking[0]!r}; its splits are {', '.join(parts)}; name some of these"
            )
        return {split: parts[split] for split in self.splits or parts}, found

    def _commit(self, name: str) -> str:
        """The commit of the hub that `revision` is now."""
        from huggingface_hub import HfApi, errors

        unknown = errors.GatedRepoError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError
        try:
            return str(HfApi().dataset_info(name, revision=self.revision, timeout=PATIENCE).sha)
        except (*unknown, errors.HFValidationError) as error:
            raise ValueError(
                f"there is no folder {name}, and on the Hugging Face hub no data set of that name"
                f" (revision {self.revision or 'main'}) that you may read; check data.name, or log in: hf auth login"
            ) from error
        except Exception as error:
            raise ConnectionError(
                f"there is no folder {name}, and the Hugging Face hub did not answer ({type(error).__name__});"
                " connect to the internet, or set data.name to a folder of parquet or arrow files"
            ) from error


class Copied(PartedData[R]):
    """A data set of the library `datasets`, copied once below `root`; the kind of data that is the next base reads it.

    Args:
        root: Folder of all such copies.
        name: On the hub, such as `user/birds`; or a local folder of parquet or arrow files, or one such file.
        subset: What the hub calls a subset or configuration.
        revision: Branch, tag or commit on the hub.
        splits: Names of the splits that are used; None: all.
        parts: Whether several splits are the parts of the data; else they are pooled, and parts are drawn.
        options: Of the kind of data, whose `table` is that of the copy.

    Raises:
        ModuleNotFoundError: If the library is not installed.
        ConnectionError: If the hub cannot be reached.
        ValueError: If there is no such data set, split or column, or a column does not hold what it should.
    """

    title = "data set of the library datasets"
    remedy = "check data.name and the names of its columns"

    image: str | None  # as `Source.exported` takes them
    columns: Mapping[str, str] | None = None

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        subset: str | None = None,
        revision: str | None = None,
        splits: Sequence[str] | None = None,
        parts: bool = True,
        **options: Any,
    ) -> None:
        self.source: dict[str, Any] = {}
        if not options.get("fixture"):
            source = Source(name, subset, revision, splits, parts, options.get("on_bad_image") == "skip")
            table = source.exported(Path(root), self.image, self.columns)
            self.source = where_from(table.parent)
            root, options["table"] = table.parent, table.name
        super().__init__(root, **options)

    def describe(self) -> dict[str, Any]:
        """What every data set tells, and where the data came from."""
        return {**super().describe(), "source": self.source}


def where_from(copy: Path) -> dict[str, Any]:
    """What the record of a copy says of its source: name, splits, commit."""
    record = read_json(copy / RECORD)
    kept = "name", "subset", "revision", "splits", "parts", "commit"
    return {key: record[key] for key in kept if record.get(key)}


def check_columns(dataset: Any, names: Iterable[str]) -> None:
    """Refuses a data set that lacks one of these columns."""
    if lacking := [name for name in names if name not in dataset.column_names]:
        raise ValueError(
            f"the data set has no column {lacking[0]!r}; its columns are {', '.join(dataset.column_names)}"
        )


def with_encoded(dataset: Any, image: str) -> Any:
    """The data set whose column of images holds them as they are encoded, for `save_encoded`."""
    import datasets

    try:
        return dataset.cast_column(image, datasets.Image(decode=False))
    except Exception as error:
        raise ValueError(f"the column {image!r} holds no images but {dataset.features[image]}") from error


def _marks(local: Path) -> list[tuple[str, int, int]] | None:
    """What tells local files from changed ones; None if there are none."""
    if not local.exists():
        return None
    files = [local] if local.is_file() else sorted(path for path in local.rglob("*") if path.is_file())
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _write(
    parts: Mapping[str, Any], folder: Path, image: str | None, columns: Mapping[str, str] | None, source: Source
) -> int:
    """Writes table and images, and returns how many rows there are."""
    told = source.parts and len(parts) > 1
    unknown = [split for split in parts if not part_named(split) and plain(split) not in ("query", "gallery")]
    if told and unknown:
        raise ValueError(
            f"the split {unknown[0]!r} is no part to train or be tested on; choose from {', '.join(parts)} by"
            " data.splits, or set data.parts=false to pool them"
        )
    first = next(iter(parts.values()))
    names = dict(columns) if columns is not None else {**({image: image} if image else {}), **_plain_columns(first)}
    if told:
        names.pop("split", None)
    check_columns(first, names)
    if odd := [name for name in names if name != image and name not in _plain_columns(first)]:
        raise ValueError(
            f"the column {odd[0]!r} holds neither texts nor numbers but {first.features[odd[0]]}; make a column of"
            " texts of it, several labels as 'dog;beach' with data.label_separator=';'"
        )
    rows = 0
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names.values(), *(["split"] if told else [])])
        for split, dataset in parts.items():
            for number, row in enumerate(_rows(dataset, list(names), image)):
                if image is not None:
                    row[image] = save_encoded(row[image], folder, split, number, source.bad_images)
                writer.writerow([*(row[name] for name in names), *([split] if told else [])])
                rows += 1
    return rows


def _plain_columns(dataset: Any) -> dict[str, str]:
    """The columns of text or numbers."""
    return {name: name for name, kind in dataset.features.items() if type(kind).__name__ in ("Value", "ClassLabel")}


def _rows(dataset: Any, names: list[str], image: str | None) -> Iterator[dict[str, Any]]:
    """Each row as texts and numbers, classes by name, nothing as ""; the image as it is encoded."""
    import datasets

    chosen = dataset.select_columns(names)
    if image is not None:
        chosen = with_encoded(chosen, image)
    classes = {name: kind.names for name, kind in chosen.features.items() if isinstance(kind, datasets.ClassLabel)}
    for row in chosen.with_format(None):
        for name in names:
            value = row[name]
            if name in classes:  # a test without labels has -1
                row[name] = "" if value is None or value < 0 else classes[name][value]
            elif name != image:
                row[name] = "" if value is None else int(value) if isinstance(value, bool) else value
        yield row


def save_encoded(encoded: Any, folder: Path, split: str, number: int, bad_images: bool) -> str:
    """Writes the bytes of the image in a row of a split as they are, and returns its path below `folder`.

    What is no image is refused by a ValueError, or, with `bad_images`, written too, for `BadImages` to find and list.
    """
    content, ending = b"", "bad"
    try:
        if encoded is None:
            raise ValueError("it is empty")
        content = encoded["bytes"] or Path(encoded["path"]).read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            ending = str(opened.format).lower()
    except (OSError, TypeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        if not bad_images:
            reason = "it is none, or damaged" if isinstance(error, UnidentifiedImageError) else error
            raise ValueError(
                f"row {number + 1} of {split} has no image that can be read ({reason}); leave it out of the data, or"
                " set data.on_bad_image=skip"
            ) from error
    path = f"images/{split}/{number:07d}.{ending}"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)
    return path

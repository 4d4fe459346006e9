"""What people's folders and tables list: the images, their classes, and which part each is in."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from harness.data.images import Crop, files_below
from harness.data.inputs import EXTENSIONS
from harness.data.spreadsheet import PARTS, Spreadsheet, part_named, plain, read_spreadsheet
from rambo.datasets.records import ROLES, some

log = logging.getLogger(__name__)
OTHER_NAMES = {
    **dict.fromkeys(("query", "queries", "probe"), "query"),
    **dict.fromkeys(("gallery", "boundingboxtest"), "gallery"),
    "boundingboxtrain": "train",
}


class Row(NamedTuple):
    """An image as listed; what nobody says of it is ""."""

    path: str
    label: str  # with a separator between several
    split: str = ""
    super_label: str = ""
    role: str = ""
    crop: Crop | None = None
    camera: str = ""


def from_table(table: Path, camera: str | None = None) -> list[Row]:
    """The rows of a table with the columns path and label, and split, super_label, role and crop, if it has them.

    `camera` names the column that tells what took each image.
    """
    if not table.is_file():
        raise FileNotFoundError(f"no table {table}; check data.table, a CSV file with columns path and label")
    sheet = read_spreadsheet(table)
    path, label = sheet.needed("path"), sheet.needed("label")
    split, super_label = sheet.column("split"), sheet.column("super_label")
    role, crops = _role_column(sheet), sheet.crops([label])
    camera = sheet.needed(camera) if camera else None
    alike = sheet.like_split([path, label, split, super_label, role, camera])
    if split is None and alike:
        raise ValueError(
            f"{table} has the column {alike[0]!r}, which may say who trains and who is tested; call it split if it"
            " does, or else take it out of the table"
        )
    rows = []
    for number, (place, row) in enumerate(zip(sheet.paths(path, crops), sheet.rows, strict=True), start=1):
        said = row[split] if split else ""
        part = _part_named(said) if said else ""
        if not row[label] or part is None:
            raise ValueError(
                f"{table}, row {number}: expected a path, a label and a split out of"
                f" {', '.join([*PARTS, *ROLES])}, got {row}"
            )
        asked = row[role] if role else ""
        use = _role_named(asked)
        if use is None or (use and part in ROLES):
            raise ValueError(
                f"{table}, row {number}: {role} should be query, gallery or both, and the split no such, got"
                f" {asked!r} and split {part or 'none'}; correct it, or leave the column {role!r} out"
            )
        if camera and not row[camera]:
            raise ValueError(f"{table}, row {number} has no {camera}; name what took each image: data.camera_column")
        kind, crop, took = super_label, crops[number - 1] if crops else None, row[camera] if camera else ""
        rows.append(Row(place, row[label], part, row[kind] if kind else "", use, crop, took))
    return rows


def labels_of(row: Row, separator: str | None) -> list[str]:
    """The labels of an image, in order and each once; without a separator its only one.

    Raises:
        ValueError: If there is none.
    """
    if separator is None:
        return [row.label]
    labels = sorted({label.strip() for label in row.label.split(separator)} - {""})
    if not labels:
        raise ValueError(f"{row.path!r} has the labels {row.label!r}, of which none is left; name one, or leave it out")
    return labels


def _role_column(sheet: Spreadsheet) -> str | None:
    """The column `role`, if it says what images are for, and not what people do."""
    role = sheet.column("role")
    return role if role and any(row[role] and _role_named(row[role]) is not None for row in sheet.rows) else None


def _role_named(text: str) -> str | None:
    """query, gallery, or "" for both and for nothing said; None: none of these."""
    name = OTHER_NAMES.get(plain(text), plain(text))
    return name if name in ROLES else "" if name in ("", "both") else None


def from_folders(root: Path, remedy: str) -> list[Row]:
    """The images below `root`, in the order of their names, in folders of their classes, or of parts that have such."""
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; {remedy}")
    paths = sorted(path.relative_to(root) for path in files_below(root) if path.suffix.lower() in EXTENSIONS)
    shown = [path for path in paths if not any(name.startswith(".") for name in path.parts)]
    loose = [path for path in shown if len(path.parts) == 1]
    if loose:
        raise ValueError(f"{loose[0]} lies in {root} itself, in no class; move it into the folder of its class")
    tops = sorted({path.parts[0] for path in shown})
    if len(tops) == 1 and all(len(path.parts) > 2 for path in shown):
        raise ValueError(
            f"all images of {root} lie below its one folder {tops[0]}, which would be their only class; set"
            f" data.root={root / tops[0]} if that holds the folders of the classes"
        )
    parts = {name: part for name in tops if (part := _part_named(name))}
    if len(parts) == 1:
        log.warning("the folder %s of %s is taken for a class, as the others are", *parts, root)
    if len(parts) < 2:
        return [Row(path.as_posix(), path.parts[0]) for path in shown]
    flat = [path for path in shown if len(path.parts) < 3]
    others = [name for name in tops if name not in parts]
    if flat or others:
        why = (
            f"{flat[0]} lies in no folder of a class" if flat else f"{others[0]} is no part to train or to be tested on"
        )
        raise ValueError(
            f"the folders {', '.join(parts)} of {root} look like parts of the data and not like classes, but {why};"
            " give each part a folder for each class, or list the images that are to be used in a table with the"
            " columns path, label and split: data.table"
        )
    log.info("%s says by its folders which part is which: %s", root, ", ".join(f"{n} is {parts[n]}" for n in tops))
    return [Row(path.as_posix(), path.parts[1], parts[path.parts[0]]) for path in shown]


def _part_named(name: str) -> str | None:
    return part_named(name) or OTHER_NAMES.get(plain(name))


def assigned(rows: Sequence[Row], closed: bool, separator: str | None = None) -> list[str]:
    """The part of each image, as a table or folders say it; `closed`: a class may be in several."""
    labels = [labels_of(row, separator) for row in rows]
    part_of: dict[str, str] = {}
    splits = {row.split for row in rows}
    if splits & ROLES.keys() and ("test" in splits or not splits >= ROLES.keys()):
        raise ValueError(
            "images for query and gallery make the test together, without other test images; got"
            f" {', '.join(sorted(splits))}"
        )
    parts = []
    for row, own in zip(rows, labels, strict=True):
        if not row.split:
            raise ValueError(
                f"the table gives no split for {row.path!r}; give one for every image, or leave the column out"
            )
        part = "test" if row.split in ROLES else row.split
        parts.append(part)
        both = [label for label in own if part_of.setdefault(label, part) != part]
        if both and not closed:
            drawn = " leave the parts out to have classes drawn," if separator is None else ""
            raise ValueError(
                f"class {both[0]!r} is in {part_of[both[0]]} and in {part}; the split is by class, so that"
                f" the test shows things never seen: leave it in one part,{drawn} or set data.split=closed if all"
                " classes are known when testing"
            )
    lacking = {"train", "test"} - set(parts)
    if lacking:
        raise ValueError(f"the split has no {' and no '.join(sorted(lacking))} images; it needs both")
    known = {label for own, part in zip(labels, parts, strict=True) if part == "train" for label in own}
    if closed and (unknown := sorted(part_of.keys() - known)):
        log.warning("%d classes of a closed split have no training image (%s)", len(unknown), some(unknown))
    return parts


def warn_of_capitals(root: Path, classes: Sequence[str]) -> None:
    """Says which classes may be one, written in two ways."""
    small: dict[str, str] = {}
    for name in classes:
        other = small.setdefault(name.casefold(), name)
        if other != name:
            log.warning(
                "the classes %s and %s of %s differ by capitals alone and are two; call them alike if they are one",
                other,
                name,
                root,
            )

"""Tables as people and spreadsheet programs write them: the one reader of CSV files, whoever's columns they hold."""

from __future__ import annotations

import csv
import io
import logging
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from harness.data.images import Crop

log = logging.getLogger(__name__)

PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What people call the parts of their data, in small letters -> what they are called here."""
LIKE_SPLIT = {"split", "splits", "datasplit", "subset", "partition", "fold", "set", "istrain", "istest", "holdout"}
MISSING = {"", "na", "n/a", "nan", "none", "null", "<na>", "?", "-"}
_WORKBOOKS = {".xlsx", ".xlsm", ".xls", ".ods", ".numbers", ".parquet"}
_COMMA = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE)
CROP = ("left", "top", "right", "bottom")
"""Columns that say together which part of an image a row is about; or one column `crop` with the four numbers."""
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


@dataclass(frozen=True)
class Spreadsheet:
    """A table: a header, and a row of texts for each line that is not empty."""

    path: Path
    header: list[str]  # names of the columns, all different; one without a name is "unnamed column <number>"
    rows: list[dict[str, str]]  # column -> value, without white space around it
    separator: str  # between values
    lines: list[int]  # of the file, at which each row ends

    def column(self, name: str) -> str | None:
        """The column of this name, else the one whose name differs by capitals, spaces and signs alone, else None."""
        if name in self.header:
            return name
        alike = [one for one in self.header if plain(one) == plain(name) != ""]
        if len(alike) > 1:
            raise ValueError(f"{self.path} has the columns {', '.join(alike)}; name one of them, not {name!r}")
        return alike[0] if alike else None

    def needed(self, name: str) -> str:
        """The same; a ValueError tells the columns where there is none."""
        found = self.column(name)
        if found is None:
            raise ValueError(f"{self.path} has no column {name!r}; its columns are {', '.join(self.header)}")
        return found

    def like_split(self, besides: Sequence[str | None] = ()) -> list[str]:
        """Columns that may say who trains and who is tested, by their name or by their values, except `besides`."""
        values = {name: {row[name] for row in self.rows} - {""} for name in self.header if name not in besides}
        return [n for n, said in values.items() if plain(n) in LIKE_SPLIT or (said and all(map(part_named, said)))]

    def numeric(self, name: str) -> bool:
        """Whether a column has a number in it."""
        return any(_is_number(row[name]) or _COMMA.fullmatch(row[name]) for row in self.rows)

    def numbers(self, name: str, gaps: bool = False) -> list[float]:
        """A column of numbers; nan and inf are numbers here, and with `gaps` what is missing (`is_missing`) is nan.

        A decimal comma is read where the whole column has no point and it cannot part thousands: not "1,250" among
        such alone, unless values are separated by semicolons, as programs that write decimal commas do. A ValueError
        names the row of what is no number.
        """
        texts = ["nan" if gaps and is_missing(row[name]) else row[name] for row in self.rows]
        commas = [text for text in texts if _COMMA.fullmatch(text)]
        parted = self.separator != ";" and all(map(_THOUSANDS.fullmatch, commas))
        if commas and not parted and not any("." in text for text in texts):
            texts = [text.replace(",", ".") for text in texts]
        for number, text in enumerate(texts, start=1):
            if not _is_number(text):
                way = "write decimals with a point and thousands without sign" if "," in text else "correct it"
                raise ValueError(
                    f"{self.path}, row {number}: {name} should be a number, got {text!r}; {way}, or leave the row out"
                )
        return [float(text) for text in texts]

    def crops(self, besides: Sequence[str] = ()) -> list[Crop | None] | None:
        """Left, top, right and bottom of each image, rounded; None: the whole one. None: no column says that.

        Raises:
            ValueError: If a row does not have four numbers that leave something of an image, or nothing.
        """
        one, *four = (self.column(name) for name in ("crop", *CROP))
        told = one is not None and any(len(_parted(row[one])) == len(CROP) for row in self.rows)  # and not wheat
        names = [name for name in ([one] if told else four) if name is not None and name not in besides]
        if len(names) != (1 if told else len(CROP)):
            return None
        crops = [self._crop(number, [row[name] for name in names]) for number, row in enumerate(self.rows, start=1)]
        if not any(crops):
            return None
        log.info("%s says in %s which part of each image is meant", self.path, ", ".join(names))
        return crops

    def _crop(self, number: int, said: Sequence[str]) -> Crop | None:
        if not any(said):
            return None
        try:
            left, top, right, bottom = (round(float(text)) for text in _parted(" ".join(said)))
        except (ValueError, OverflowError):
            left = top = right = bottom = 0
        if not (0 <= left < right and 0 <= top < bottom):
            raise ValueError(
                f"{self.path}, row {number}: a crop is left, top, right and bottom in pixels, with left < right and"
                f" top < bottom, got {' '.join(said)!r}; correct it, or leave it empty for the whole image"
            )
        return left, top, right, bottom

    def paths(self, name: str, crops: Sequence[Crop | None] | None = None) -> list[str]:
        """A column of paths, in one form for one file: a/b.png for .\\a\\b.png too.

        Raises:
            ValueError: If one is missing, or two rows name one file, and the same of `crops` where there are such.
        """
        first: dict[object, int] = {}
        paths = []
        for number, row in enumerate(self.rows, start=1):
            if not row[name]:
                raise ValueError(f"{self.path}, row {number} names no image; name one, or leave the row out")
            path = posixpath.normpath(row[name].replace("\\", "/"))
            key = (path, crops[number - 1]) if crops else path
            if key in first:
                raise ValueError(
                    f"{self.path} lists {path!r} in rows {first[key]} and {number}; leave one row for each image, so"
                    " that none is trained and tested on"
                )
            first[key] = number
            paths.append(path)
        return paths


def read_spreadsheet(path: Path) -> Spreadsheet:
    """Reads a table with a header: UTF-8, UTF-16 or Windows-1252; commas, semicolons, tabs or bars between values.

    Lines and columns at the end that are empty are left out.

    Raises:
        ValueError: If it is no such text, has no rows, a column twice, or a line of another length than the header.
    """
    text = read_text(path)
    told = re.match(r"sep=(.)\r?\n", text)  # how Excel is told; the rest of its line is an empty one
    text = text[told.end(1) :] if told else text
    separator = told[1] if told else _separator(text, path)
    try:
        records = list(_records(text, separator))
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as a table ({error}); is a quotation mark not closed?") from error
    (_, header), *body = records or [(0, [])]
    while header and not header[-1]:
        header.pop()
    header = [name or f"unnamed column {number}" for number, name in enumerate(header, start=1)]
    twice = {name for name in header if header.count(name) > 1}
    if twice:
        raise ValueError(f"{path} has the column {min(twice)!r} more than once; give each its own name")
    for line, values in body:
        if len(values) < len(header) or any(values[len(header) :]):
            raise ValueError(
                f"{path}, line {line} has {len(values)} values and the header {len(header)}, with"
                f" {separator!r} between them; quote values that contain it"
            )
    if not body:
        raise ValueError(f"{path} has no rows; it should have a header and a row for each sample")
    rows = [dict(zip(header, values, strict=False)) for _, values in body]
    return Spreadsheet(path, header, rows, separator, [line for line, _ in body])


def read_text(path: Path) -> str:
    """The text of a file in UTF-8 or UTF-16, with or without a mark, or else in Windows-1252, which is said."""
    if not path.is_file():
        wrong = "is a folder" if path.is_dir() else "is not there"
        raise FileNotFoundError(f"{path} {wrong}; name a file of text, such as a table (.csv, .tsv)")
    content = path.read_bytes()
    if path.suffix.lower() in _WORKBOOKS or content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b")):
        raise ValueError(f"{path} is no text but a workbook or an archive; save it as CSV in UTF-8")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif b"\0" in content[:2]:
        encodings = ["utf-16-be" if content[:1] == b"\0" else "utf-16-le"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding == "cp1252":
            log.warning("%s is not UTF-8 and is read as Windows-1252; if letters look wrong, save it as UTF-8", path)
        return text
    raise ValueError(f"{path} is not a text in UTF-8; save it as one")


def plain(name: str) -> str:
    """A name without capitals, spaces and signs, by which names are compared."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def part_named(text: str) -> str | None:
    """The part that people call so, whatever the capitals, or None."""
    return PARTS.get(plain(text))


def is_missing(value: object) -> bool:
    """Whether a value says that there is none: None, nan, or a text that people write for that."""
    return str(value).strip().casefold() in MISSING


def _parted(text: str) -> list[str]:
    """What stands between commas or spaces, brackets round all of it aside."""
    return re.split(r"[\s,;]+", text.strip("()[] "))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _records(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The line at which each record ends, and its values; empty ones left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != " ")
    for record in reader:
        values = [value.strip() for value in record]
        if any(values):
            yield reader.line_num, values


def _separator(text: str, path: Path) -> str:
    """What parts the header and gives most of the first lines as many values as it."""

    def fit(separator: str) -> tuple[float, int]:
        try:
            widths = [len(values) for _, values in islice(_records(text, separator), 50)]
        except csv.Error:
            return -1.0, 0
        if not widths or widths[0] < 2:
            return -1.0, 0
        return widths[1:].count(widths[0]) / max(1, len(widths) - 1), widths[0]

    usual = "\t,;|" if path.suffix.lower() in (".tsv", ".tab") else ",;\t|"
    return max(usual, key=fit)

"""Tables as spreadsheet programs write them are read to the same rows, or refused in one sentence."""

import logging

import pytest

from harness.data.spreadsheet import part_named, read_spreadsheet

HEADER = ["path", "Größe", "note"]
ROWS = [["a b.png", "1.5", 'said "no", twice'], ["ü.png", "-2", ""], ["c.png", "1e3", "two\nlines"]]


def text_of(separator=",", ends="\n", decimal=".", more=""):
    def cell(value):
        inner = value.replace(".", decimal, 1) if value in ("1.5",) else value
        return '"' + inner.replace('"', '""') + '"' if set(inner) & {separator, '"', "\n"} else inner

    lines = [separator.join(cell(value) for value in row) for row in [HEADER, *ROWS]]
    return "".join(line + more + ends for line in lines)


def read(tmp_path, content, name="table.csv"):
    (tmp_path / name).write_bytes(content)
    return read_spreadsheet(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (text_of().encode(), "table.csv"),
        (text_of().encode("utf-8-sig"), "table.csv"),
        (text_of("\t").encode("utf-16"), "table.txt"),  # Excel's "Unicode text"
        (text_of("\t").encode("utf-16-le"), "table.tsv"),
        (text_of("\t").encode("utf-16-be"), "table.tsv"),
        (text_of(";", decimal=",").encode("cp1252"), "table.csv"),
        (text_of(";", decimal=",", ends="\r\n").encode(), "table.csv"),
        (("sep=;\r\n" + text_of(";", decimal=",")).encode(), "table.csv"),
        (text_of("\t", decimal=",").encode(), "table.csv"),
        (text_of(decimal=",").encode(), "table.csv"),
        (text_of("|").encode(), "table.tsv"),
        (text_of(ends="\r").encode(), "table.csv"),
        (text_of(more=",,", ends="\r\n").encode() + b",,,,\r\n\r\n,,\r\n", "table.csv"),
        (text_of().replace(",", " , ").replace('" ,', '",').replace(' , "', ', "').encode(), "table.csv"),
    ],
)
def test_every_way_of_writing_a_table_gives_the_same_rows(tmp_path, content, name):
    sheet = read(tmp_path, content, name)
    assert sheet.header == HEADER
    assert [row["path"] for row in sheet.rows] == [path for path, _, _ in ROWS]
    assert sheet.numbers("Größe") == [1.5, -2, 1000]
    assert sheet.rows[1]["note"] == ""
    assert sheet.rows[2]["note"].split() == ["two", "lines"]


def test_another_encoding_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read(tmp_path, "größe\n1\n".encode("cp1252"))
    assert "table.csv is not UTF-8 and is read as Windows-1252; if letters look wrong, save it as UTF-8" in caplog.text


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"PK\x03\x04rest", "table.xlsx", "is no text but a workbook or an archive; save it as CSV in UTF-8"),
        (b"PK\x03\x04rest", "table.csv", "is no text but a workbook"),
        (b"a,b\n1,\x00\n", "table.csv", "is not a text in UTF-8; save it as one"),
        (b"a,b\n\x81,1\n", "table.csv", "is not a text in UTF-8; save it as one"),
        (b"", "table.csv", "has no rows"),
        (b'a,b\n"1,2\n3,4\n', "table.csv", "values and the header 2"),
        (
            b"a;b\n1;2\n1;2;3\n",
            "table.csv",
            "line 3 has 3 values and the header 2, with ';' between them; quote values",
        ),
    ],
)
def test_what_is_no_table_is_said_in_one_sentence(tmp_path, content, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, content, name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("separator", "values", "numbers"),
    [
        (";", ["1,234", "2,500"], [1.234, 2.5]),  # who writes semicolons writes decimal commas
        ("\t", ["0,234", "2,500"], [0.234, 2.5]),
        ("\t", ["1,25", "2,500"], [1.25, 2.5]),
        ("\t", ["1,234", "2,500"], "row 1: x should be a number, got '1,234'; write decimals with a point"),
        (";", ["1.234", "2,5"], "row 2: x should be a number, got '2,5'; write decimals with a point"),
        (";", ["1.234,5", "2,5"], "row 1: x should be a number, got '1.234,5'"),
    ],
)
def test_a_comma_is_a_decimal_sign_only_where_it_can_be_nothing_else(tmp_path, separator, values, numbers):
    content = "\n".join(f"{value}{separator}0" for value in ["x", *values])
    sheet = read(tmp_path, content.encode())
    if isinstance(numbers, list):
        assert sheet.numbers("x") == numbers
    else:
        with pytest.raises(ValueError, match=numbers):
            sheet.numbers("x")


def test_parts_are_known_by_the_names_people_give_them():
    assert {part_named(name) for name in ("train", "Train", "TRAINING", " train ")} == {"train"}
    assert {part_named(name) for name in ("val", "Valid", "validation", "dev")} == {"validation"}
    assert {part_named(name) for name in ("test", "TEST", "testing")} == {"test"}
    assert {part_named(name) for name in ("", "holdout", "0", "trained")} == {None}

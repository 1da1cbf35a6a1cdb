"""Files with other columns or separators: which there are, and how to name them; and lists of JSON records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dalr.data.dataset import read_pairs
from dalr.data.formats import read_pairs_file
from dalr.data.formats.collecting import Columns
from dalr.data.reading import reading_of_options
from dalr.errors import ConfigError, DataError, Problem


def problems_of(path: Path, text: str) -> list[str]:
    path.write_text(text, encoding="utf-8")
    problems: list[Problem] = []
    read_pairs_file(path, problems)
    return str(DataError(problems)).splitlines()


NAMING = "data.columns names them in a recipe, --columns image={},caption={} on the command line"
OTHERS = {
    "p.csv": "file_name,text,id\na,x,1\nb,y,2\n",
    "p.tsv": "file_name\ttext\tid\na\tx\t1\n",
    "p.jsonl": '{"file_name": "a", "text": "x", "id": 1}\n' * 3,
}


@pytest.mark.parametrize("name", OTHERS)
def test_the_columns_that_there_are_and_how_to_name_them_are_said_once(tmp_path: Path, name: str) -> None:
    lines = problems_of(tmp_path / name, OTHERS[name])
    assert sum("data.columns" in line for line in lines) == 1
    assert "file_name, text, id" in lines[0]
    assert lines[0].endswith(NAMING.format("file_name", "text"))
    if name == "p.jsonl":
        assert lines[1:] == ["... and 2 more (3 in total)"]


@pytest.mark.parametrize("name", OTHERS)
def test_what_the_message_says_reads_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(OTHERS[name])
    problems: list[Problem] = []
    reading = reading_of_options(None, "image=file_name,caption=text", "all")
    assert read_pairs(tmp_path / name, problems, {}, reading=reading).images[0] == "a"
    assert not problems


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("p.csv", "Image,Caption\na,b\n", "did you mean 'Image'? did you mean 'Caption'? "),
        ("p.csv", "image,captoin\na,b\n", "did you mean 'captoin'? "),
        ("p.csv", "u,v\na,b\n", NAMING.format("NAME", "NAME")),
        ("p.jsonl", '{"image": "a", "captn": "x"}', "did you mean 'captn'? "),
    ],
)
def test_a_near_name_is_offered(tmp_path: Path, name: str, text: str, hint: str) -> None:
    [line] = problems_of(tmp_path / name, text)
    assert hint in line


ROWS = [
    {"image_id": 7, "photo": "1.jpg", "text": "a dog"},
    {"image_id": 8, "photo": "2.jpg", "text": "a cat"},
]


@pytest.mark.parametrize("name", ["p.jsonl", "p.json", "p.csv", "p.tsv", "p.parquet"])
@pytest.mark.parametrize("order", [("image_id", "photo", "text"), ("text", "photo", "image_id")])
@pytest.mark.parametrize("given", [None, "image=image_id", "image=phto,caption=text"])
def test_the_suggested_columns_are_those_that_read_the_file(
    tmp_path: Path, name: str, order: tuple[str, ...], given: str | None
) -> None:
    """A number is no image's name, and a name that was nearly given comes before a usual one."""
    path = tmp_path / name
    if name == "p.parquet":
        pytest.importorskip("pyarrow")
    write_rows(path, [{key: row[key] for key in order} for row in ROWS])
    if given == "image=image_id" and name in ("p.csv", "p.tsv"):
        return  # text tables have no numbers: these are names
    problems: list[Problem] = []
    read_pairs_file(path, problems, columns=reading_of_options(None, given, "all").columns)
    [line] = str(DataError(problems)).splitlines()[:1]
    assert line.count(", ".join(order)) == 1
    assert line.endswith(NAMING.format("photo", "text"))
    again: list[Problem] = []
    assert [row.image for row in read_pairs_file(path, again, columns=Columns(image="photo", caption="text"))] == [
        "1.jpg",
        "2.jpg",
    ]
    assert not again


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        case ".json":
            path.write_text(json.dumps(rows))
        case ".parquet":
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        case _:
            mark = "," if path.suffix == ".csv" else "\t"
            path.write_text("\n".join(mark.join(map(str, row)) for row in (rows[0], *(r.values() for r in rows))))


def test_an_image_that_is_no_string_is_answered_with_the_column_that_holds_names(tmp_path: Path) -> None:
    rows = [{"image": {"path": f"{n}.jpg"}, "file_name": f"{n}.jpg", "caption": "a dog"} for n in range(3)]
    write_rows(tmp_path / "p.jsonl", rows)
    problems: list[Problem] = []
    read_pairs_file(tmp_path / "p.jsonl", problems)
    first, more = str(DataError(problems)).splitlines()
    assert "expected a string under 'image', found {'path': '0.jpg'}" in first
    assert first.endswith(NAMING.format("file_name", "caption"))
    assert more == "... and 2 more (3 in total)"


@pytest.mark.parametrize("mark", [";", "|"])
def test_another_separator_is_named_and_how_to_say_so(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "p.csv"
    [line] = problems_of(path, f'image{mark}caption\na{mark}"x, y"\n')
    assert f"with columns that seem to be separated by {mark}; say so with --columns 'separator={mark}'" in line
    reading = reading_of_options(None, f"separator={mark}", "all")
    problems: list[Problem] = []
    assert read_pairs(path, problems, {}, reading=reading).captions == ("x, y",)
    assert not problems


def test_another_separator_and_other_names_are_said_together(tmp_path: Path) -> None:
    [line] = problems_of(tmp_path / "p.csv", "filename;text\na;x\n")
    assert "separator=;" in line
    assert "image=filename,caption=text" in line


def test_tabs_in_a_csv_are_named(tmp_path: Path) -> None:
    [line] = problems_of(tmp_path / "p.csv", "image\tcaption\na\tx\n")
    assert "separated by tabs; --format tsv reads it so" in line


@pytest.mark.parametrize("mark", ["x", "", "\n", ";;"])
def test_a_separator_that_cannot_be_is_refused(mark: str) -> None:
    with pytest.raises(ConfigError):
        reading_of_options(None, f"separator={mark}", None)


def test_a_key_of_columns_that_is_misspelt_is_corrected() -> None:
    with pytest.raises(ConfigError, match="did you mean 'caption'"):
        reading_of_options(None, "captoin=a", None)


TRAIN = [
    {"caption": "A dog.", "image": "val2014/a.jpg", "image_id": "coco_1"},
    {"caption": "A cat.", "image": "val2014/b.jpg", "image_id": "coco_2"},
    {"caption": "Two dogs.", "image": "val2014/a.jpg", "image_id": "coco_1"},
]
VAL: list[dict[str, Any]] = [
    {"image": "val2014/a.jpg", "caption": ["A dog.", "Two dogs."]},
    {"image": "val2014/b.jpg", "caption": ["A cat."], "instance_id": "3"},
]


@pytest.mark.parametrize("records", [TRAIN, VAL], ids=["train", "val"])
@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
def test_a_list_of_records_is_read(tmp_path: Path, records: list[Any], indent: int | None, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(records, indent=indent))
    problems: list[Problem] = []
    rows = read_pairs_file(tmp_path / name, problems)
    assert not problems
    assert [(row.image, row.captions) for row in rows] == [
        ("val2014/a.jpg", ("A dog.", "Two dogs.")),
        ("val2014/b.jpg", ("A cat.",)),
    ]


def test_keys_of_a_list_may_have_other_names(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps([{"file": "a", "texts": ["x", "y"]}, {"file": "b", "texts": "z"}]))
    problems: list[Problem] = []
    rows = read_pairs_file(tmp_path / "p.json", problems, columns=Columns(image="file", caption="texts"))
    assert [row.captions for row in rows] == [("x", "y"), ("z",)]
    assert not problems


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([{"image": "a", "caption": "x"}, 3], "[1]: expected a JSON object, found int"),
        ([{"image": "a", "caption": ["x", 3]}], "[0]: expected a list of strings under 'caption', found ['x', 3]"),
        ([{"image": "a", "caption": []}], "[0]: image 'a' has no caption"),
        ([{"image": 3, "caption": "x"}], "[0]: expected a string under 'image', found 3"),
        (
            [{"photo": "a", "text": "x"}],
            "[0]: expected a string under 'image', found None; its keys are photo, text",
        ),
    ],
)
def test_a_record_of_a_list_that_is_wrong_is_named(tmp_path: Path, records: list[Any], expected: str) -> None:
    (tmp_path / "p.json").write_text(json.dumps(records))
    problems: list[Problem] = []
    read_pairs(tmp_path / "p.json", problems, {})
    assert f"{tmp_path / 'p.json'}: {expected}" in str(problems[0])


def test_a_list_that_ends_early_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('[{"image": "a", "caption": "x"},\n{"image"')
    problems: list[Problem] = []
    assert read_pairs_file(tmp_path / "p.json", problems) == []
    assert "not JSON" in problems[0].what

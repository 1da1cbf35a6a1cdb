"""The shapes in which others publish captions: written small, read back, and every malformed part named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from dalr.data.config import DataConfig, FormatName
from dalr.data.dataset import Dataset, load_dataset, read_pairs
from dalr.data.formats import FORMATS, read_pairs_file
from dalr.data.formats.collecting import Columns
from dalr.errors import DataError, Problem

IMAGES = [("b.jpg", ["A dog runs.", 'Two "dogs", one | bone .']), ("a.jpg", ["Ein großer Hund\u2028😀", "x"])]
SPLITS = {"b.jpg": "train", "a.jpg": "test"}
Write = Callable[[Path], Path]


def as_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return path


def write_karpathy(folder: Path) -> Path:
    images = [
        {
            "filename": name,
            "imgid": number,
            "split": SPLITS[name],
            "sentids": [],
            "sentences": [{"raw": text, "tokens": text.split(), "imgid": number} for text in captions],
        }
        for number, (name, captions) in enumerate(IMAGES)
    ]
    return as_json(folder / "dataset_flickr30k.json", {"images": images, "dataset": "flickr30k"})


def write_coco(folder: Path) -> Path:
    images = [{"id": 70 + number, "file_name": name} for number, (name, _) in enumerate(IMAGES)]
    notes = [
        {"id": 10 * number + k, "image_id": 70 + number, "caption": text}
        for k in range(2)
        for number, (_, captions) in enumerate(IMAGES)
        for text in captions[k : k + 1]
    ]
    return as_json(folder / "captions_val.json", {"info": {}, "images": images, "annotations": notes})


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def write_token(folder: Path) -> Path:
    lines = [f"{name}#{k}\t{text}" for name, captions in IMAGES for k, text in enumerate(captions)]
    return write_lines(folder / "results.token", lines)


def write_flickr_csv(folder: Path) -> Path:
    lines = [f"{name}| {k}| {text}" for name, captions in IMAGES for k, text in enumerate(captions)]
    return write_lines(folder / "results.csv", ["image_name| comment_number| comment", *lines])


def write_kaggle_8k(folder: Path) -> Path:
    quoted = [(name, text.replace('"', '""')) for name, captions in IMAGES for text in captions]
    return write_lines(folder / "captions.txt", ["image,caption", *(f'{name},"{text}"' for name, text in quoted)])


def write_tsv(folder: Path) -> Path:
    lines = [f"{text}\t{SPLITS[name]}\t{name}" for name, captions in IMAGES for text in captions]
    return write_lines(folder / "p.tsv", ["caption\tsplit\timage", *lines])


def write_jsonl(folder: Path) -> Path:
    lines = [json.dumps({"image": name, "captions": captions}) for name, captions in IMAGES]
    return write_lines(folder / "p.jsonl", lines)


def write_parquet(folder: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table(
        {"image": [n for n, _ in IMAGES], "captions": [c for _, c in IMAGES], "pixels": [b"x", b"y"]}
    )
    pyarrow.parquet.write_table(table, folder / "p.parquet", row_group_size=1)
    return folder / "p.parquet"


def write_saved(folder: Path) -> Path:
    from datasets import Dataset as Rows

    rows = {"image": [n for n, c in IMAGES for _ in c], "caption": [text for _, c in IMAGES for text in c]}
    Rows.from_dict(rows).save_to_disk(str(folder / "saved"), max_shard_size="1GB")
    return folder / "saved"


WRITERS: dict[str, Write] = {
    "jsonl": write_jsonl,
    "karpathy": write_karpathy,
    "coco": write_coco,
    "flickr-token": write_token,
    "flickr-csv": write_flickr_csv,
    "csv": write_kaggle_8k,
    "tsv": write_tsv,
    "parquet": write_parquet,
    "datasets": write_saved,
}
TEXT = [name for name in WRITERS if name not in ("parquet", "datasets")]


def read(path: Path, **options: Any) -> tuple[list[tuple[str, list[str]]], list[str]]:
    problems: list[Problem] = []
    rows = read_pairs_file(path, problems, **options)
    return [(row.image, list(row.captions)) for row in rows], [str(problem) for problem in problems]


def problem_of(path: Path, **options: Any) -> str:
    _, [problem] = read(path, **options)
    return problem


def test_every_format_is_written_here_and_may_be_named_in_a_recipe() -> None:
    assert list(FORMATS) == list(get_args(FormatName))
    assert {*WRITERS, "webdataset"} == set(FORMATS), "shards have a test of their own"


@pytest.mark.parametrize("name", WRITERS)
def test_a_format_is_told_by_its_content_and_read_back(tmp_path: Path, name: str) -> None:
    assert read(WRITERS[name](tmp_path)) == (IMAGES, [])


@pytest.mark.parametrize("name", WRITERS)
def test_a_format_may_be_named_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path)
    other = path.rename(tmp_path / "export.dat")
    if name != "datasets":
        assert "unknown kind of pairs file" in problem_of(other)
    assert read(other, format=name) == (IMAGES, [])


@pytest.mark.parametrize("name", TEXT)
def test_text_may_be_gzip(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path)
    packed = path.with_name(f"{path.name}.gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read(packed) == (IMAGES, [])


@pytest.mark.parametrize("name", TEXT)
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path, name: str) -> None:
    path = WRITERS[name](tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read(path) == (IMAGES, [])


@pytest.mark.parametrize("name", WRITERS)
def test_a_format_that_the_file_has_not_is_refused(tmp_path: Path, name: str) -> None:
    """Naming a format does not switch its check off."""
    wrong = write_tsv(tmp_path) if name != "tsv" else write_coco(tmp_path)
    rows, problems = read(wrong, format=name)
    assert rows == []
    assert problems
    assert all(str(wrong) in problem for problem in problems)


def test_json_lines_under_the_name_json_are_told_by_their_content(tmp_path: Path) -> None:
    assert read(write_jsonl(tmp_path).rename(tmp_path / "p.json")) == (IMAGES, [])


@pytest.mark.parametrize("ending", [".json", ".txt", ".token", ""])
def test_content_that_is_no_known_shape_is_refused_with_the_shapes(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"p{ending}"
    path.write_text('{"rows": 3}\n')
    problem = problem_of(path)
    assert problem.startswith(f"{path}: none of the known shapes (")
    assert "found '{\"rows\": 3}'" in problem
    assert "data.format" in problem
    for name, format in FORMATS.items():
        assert (f"{name}: {format.shape}" in problem) == (ending in format.endings)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path) -> None:
    assert "datasets: a folder of save_to_disk" in problem_of(tmp_path)


@pytest.mark.parametrize("ending", [".json", ".txt", ".parquet", ".tsv", ".json.gz"])
def test_a_missing_file_is_called_missing(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"p{ending}"
    assert problem_of(path) == f"{path}: no such file"


def test_what_is_named_gz_and_is_not_gzip_is_refused(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path).rename(tmp_path / "p.jsonl.gz")
    assert problem_of(path) == f"{path}: named .gz, but it is not gzip; unpack or rename it"


@pytest.mark.parametrize("cut", [3, 12, 40, -1])
def test_gzip_that_is_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "p.jsonl.gz"
    path.write_bytes(gzip.compress(write_jsonl(tmp_path).read_bytes())[:cut])
    assert f"{path}: damaged gzip" in problem_of(path)


class TestColumns:
    COLUMNS = Columns(image="file", caption="text", split="part")

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("p.csv", "file,text,part\na,one,train\na,two,train\n"),
            ("p.tsv", "part\ttext\tfile\ntrain\tone\ta\ntrain\ttwo\ta\n"),
            ("p.jsonl", '{"file": "a", "text": ["one", "two"], "part": "train"}\n'),
            (
                "p.jsonl",
                '{"file": "a", "text": "one", "part": "train"}\n{"file": "a", "text": "two", "part": "train"}\n',
            ),
        ],
    )
    def test_columns_may_have_other_names(self, tmp_path: Path, name: str, content: str) -> None:
        (tmp_path / name).write_text(content)
        problems: list[Problem] = []
        [row] = read_pairs_file(tmp_path / name, problems, columns=self.COLUMNS)
        assert (row.image, row.captions, row.split, problems) == ("a", ("one", "two"), "train", [])

    def test_a_missing_column_is_named_as_the_recipe_calls_it(self, tmp_path: Path) -> None:
        (tmp_path / "p.csv").write_text("image,caption\na,b\n")
        assert "expected the columns file,text in the header" in problem_of(
            tmp_path / "p.csv", columns=self.COLUMNS
        )


class TestKarpathy:
    def image(self, **changes: Any) -> dict[str, Any]:
        return {"filename": "x.jpg", "split": "val", "sentences": [{"raw": "fine"}]} | changes

    def test_images_of_coco_keep_their_folder(self, tmp_path: Path) -> None:
        path = as_json(tmp_path / "dataset_coco.json", {"images": [self.image(filepath="val2014")]})
        assert read(path) == ([("val2014/x.jpg", ["fine"])], [])

    @pytest.mark.parametrize(
        ("changes", "expected"),
        [
            ({"filename": None}, "images[1]: expected a string under 'filename', found None"),
            ({"filename": " "}, "images[1]: expected a string under 'filename', found ' '"),
            ({"filepath": 3}, "images[1]: expected a string under 'filepath', found 3"),
            ({"split": None}, "images[1]: expected a string under 'split', found None"),
            ({"sentences": "x"}, "images[1]: expected a list of objects under 'sentences', found 'x'"),
            ({"sentences": ["x"]}, "images[1]: expected a list of objects under 'sentences', found ['x']"),
            ({"sentences": [{}]}, "images[1]: expected a list of strings under 'sentences[].raw', found [None]"),
        ],
    )
    def test_a_malformed_image_is_named(self, tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
        path = as_json(tmp_path / "k.json", {"images": [self.image(filename="ok"), self.image(**changes)]})
        rows, [problem] = read(path)
        assert rows == [("ok", ["fine"])]
        assert problem == f"{path}: {expected}"

    @pytest.mark.parametrize("tree", [[], 3, {"images": 3}, {"images": [3]}, {"images": []}])
    def test_another_tree_is_refused(self, tmp_path: Path, tree: object) -> None:
        path = as_json(tmp_path / "k.json", tree)
        rows, problems = read(path, format="karpathy")
        assert rows == []
        assert problems or tree == {"images": []}


class TestCoco:
    def tree(self, image: object = None, note: object = None) -> dict[str, Any]:
        images = [{"id": 1, "file_name": "ok"}, *([image] if image is not None else [])]
        notes = [{"image_id": 1, "caption": "fine"}, *([note] if note is not None else [])]
        return {"images": images, "annotations": notes}

    @pytest.mark.parametrize(
        ("image", "note", "expected"),
        [
            ({"file_name": "x"}, None, "images[1]: expected a whole number under 'id', found None"),
            ({"id": 2}, None, "images[1]: expected a string under 'file_name', found None"),
            ({"id": 1, "file_name": "x"}, None, "images[1]: id 1 is also the id of "),
            ([], None, "images[1]: expected an object, found list"),
            (None, {"image_id": 9, "caption": "x"}, "annotations[1]: image_id 9 is the id of no image"),
            (None, {"image_id": [1], "caption": "x"}, "annotations[1]: image_id [1] is the id of no image"),
            (None, {"image_id": 1, "bbox": []}, "annotations[1]: expected a string under 'caption', found None"),
        ],
    )
    def test_a_malformed_part_is_named(self, tmp_path: Path, image: object, note: object, expected: str) -> None:
        path = as_json(tmp_path / "c.json", self.tree(image, note))
        rows, [problem] = read(path)
        assert rows == [("ok", ["fine"])]
        assert problem.startswith(f"{path}: {expected}")

    def test_an_image_without_captions_is_named_by_the_check(self, tmp_path: Path) -> None:
        path = as_json(tmp_path / "c.json", self.tree({"id": 2, "file_name": "bare"}))
        problems: list[Problem] = []
        read_pairs(path, problems, {})
        assert [str(problem) for problem in problems] == [f"{path}: images[1]: image 'bare' has no caption"]

    def test_broken_json_is_located(self, tmp_path: Path) -> None:
        (tmp_path / "c.json").write_text('{"images": [\n{"id": 1},,\n]}')
        assert problem_of(tmp_path / "c.json").startswith(f"{tmp_path / 'c.json'}:2: not JSON: ")

    @pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000])
    def test_json_that_cannot_be_held_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "c.json").write_text(text)
        assert "not JSON" in problem_of(tmp_path / "c.json")


class TestFlickr:
    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("a.jpg\tno number", "expected name#number, a tab and a caption, found 'a.jpg\\tno number'"),
            ("a.jpg#1 no tab", "expected name#number, a tab and a caption"),
            ("#0\tno name", "expected name#number, a tab and a caption"),
            ("ok.jpg#0\tagain", "caption number of 'ok.jpg': expected 1, found '0'"),
            ("ok.jpg#2\ta gap", "caption number of 'ok.jpg': expected 1, found '2'"),
            ("new.jpg#1\tlate start", "caption number of 'new.jpg': expected 0, found '1'"),
        ],
    )
    def test_a_malformed_token_line_is_named(self, tmp_path: Path, line: str, expected: str) -> None:
        path = write_lines(tmp_path / "t.token", ["ok.jpg#0\tfine", line])
        problem = problem_of(path)
        assert problem.startswith(f"{path}:2: {expected}")

    def test_a_name_with_hashes_keeps_them(self, tmp_path: Path) -> None:
        path = write_lines(tmp_path / "t.txt", ["a.jpg.1#2#0\tone", "a.jpg.1#2#1\ttwo #3\tx"])
        assert read(path) == ([("a.jpg.1#2", ["one", "two #3\tx"])], [])

    @pytest.mark.parametrize(
        ("line", "expected"),
        [
            ("a.jpg| 4   A dog runs across the grass .", "expected 3 columns separated by |, found 2"),
            ("| 0| x", "the image_name column is empty"),
            ("ok.jpg| 3| x", "caption number of 'ok.jpg': expected 1, found '3'"),
            ("ok.jpg| | x", "caption number of 'ok.jpg': expected 1, found ''"),
        ],
    )
    def test_a_malformed_row_of_the_kaggle_table_is_named(self, tmp_path: Path, line: str, expected: str) -> None:
        """The first is a row of the real file, which lacks a mark."""
        path = write_lines(tmp_path / "r.csv", ["image_name| comment_number| comment", "ok.jpg| 0| fine", line])
        assert problem_of(path).startswith(f"{path}:3: {expected}")


class TestTsv:
    @pytest.mark.parametrize("text", ["", "a\tone\n", "image,caption\na,b\n"])
    def test_its_columns_are_needed(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "p.tsv").write_text(text)
        assert "p.tsv:1: expected the columns image<TAB>caption in the header" in problem_of(tmp_path / "p.tsv")

    def test_a_row_with_another_number_of_cells_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "p.tsv").write_text("image\tcaption\na\tone\ttwo\n\nb\tfine\n \tx\n")
        rows, problems = read(tmp_path / "p.tsv")
        assert rows == [("b", ["fine"])]
        assert problems == [
            f"{tmp_path / 'p.tsv'}:2: expected 2 columns, found 3",
            f"{tmp_path / 'p.tsv'}:5: the image column is empty",
        ]


class TestArrow:
    def parquet(self, folder: Path, **columns: Any) -> Path:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table(columns), folder / "p.parquet")
        return folder / "p.parquet"

    def test_rows_with_one_caption_are_put_together_and_categories_are_strings(self, tmp_path: Path) -> None:
        import pyarrow

        names = pyarrow.array(["a", "b", "a"]).dictionary_encode()
        path = self.parquet(tmp_path, image=names, caption=["1", "2", "3"], split=["train", "val", "train"])
        assert read(path) == ([("a", ["1", "3"]), ("b", ["2"])], [])

    def test_a_row_with_a_hole_is_named(self, tmp_path: Path) -> None:
        path = self.parquet(tmp_path, image=["a", None, "c"], caption=["1", "2", None])
        rows, problems = read(path)
        assert rows == [("a", ["1"])]
        assert problems == [
            f"{path}: row 2: expected a string under 'image', found None",
            f"{path}: row 3: expected a string under 'caption', found None",
        ]

    @pytest.mark.parametrize(
        ("columns", "expected", "remedy"),
        [
            (
                {"image": ["a"], "text": ["x"]},
                "expected the columns image and caption or captions, found image, text",
                "data.columns names them in a recipe, --columns image=image,caption=text on the command line",
            ),
            (
                {"image": [{"bytes": b"x"}], "caption": ["x"]},
                "column image: expected strings that name the images",
                "others are caption; data.columns names them in a recipe",
            ),
            (
                {"image": [3], "caption": ["x"]},
                "column image: expected strings that name the images, found int64",
                "others are caption; data.columns names them in a recipe",
            ),
        ],
    )
    def test_other_columns_are_refused(
        self, tmp_path: Path, columns: dict[str, Any], expected: str, remedy: str
    ) -> None:
        problem = problem_of(self.parquet(tmp_path, **columns))
        assert expected in problem
        assert remedy in problem

    @pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"text\n"])
    def test_what_is_no_parquet_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "p.parquet").write_bytes(content)
        assert "cannot be read as Parquet" in problem_of(tmp_path / "p.parquet")

    def test_splits_of_a_saved_data_set_are_splits(self, tmp_path: Path) -> None:
        from datasets import Dataset as Rows
        from datasets import DatasetDict

        def rows(name: str) -> Rows:
            return Rows.from_dict({"image": [name], "captions": [["x", "y"]]})

        DatasetDict({"train": rows("a"), "test": rows("b")}).save_to_disk(str(tmp_path / "saved"))
        problems: list[Problem] = []
        found = read_pairs_file(tmp_path / "saved", problems)
        assert [(row.image, row.split) for row in found] == [("a", "train"), ("b", "test")]
        assert problems == []

    @pytest.mark.parametrize("name", ["../other.arrow", "/etc/passwd", "a/b.arrow", "..", "", 3, "C:\\x"])
    def test_a_saved_data_set_that_names_files_elsewhere_is_refused(self, tmp_path: Path, name: object) -> None:
        path = write_saved(tmp_path)
        as_json(path / "state.json", {"_data_files": [{"filename": name}]})
        assert "is not the name of a file in this folder" in problem_of(path)

    def test_a_saved_data_set_that_links_elsewhere_is_refused(self, tmp_path: Path) -> None:
        path = write_saved(tmp_path)
        [arrow] = path.glob("*.arrow")
        arrow.rename(tmp_path / "elsewhere.arrow")
        arrow.symlink_to(tmp_path / "elsewhere.arrow")
        assert "leads out of this folder" in problem_of(path)

    @pytest.mark.parametrize("damage", ["state.json", "*.arrow", "dataset_info.json"])
    def test_a_damaged_data_set_is_refused(self, tmp_path: Path, damage: str) -> None:
        path = write_saved(tmp_path)
        [file] = path.glob(damage)
        file.write_bytes(file.read_bytes()[:20])
        assert str(path) in problem_of(path)

    def test_a_hub_data_set_that_cannot_be_had_is_refused_with_its_name(self) -> None:
        assert problem_of(Path("hf:some/captions")).startswith("hf:some/captions: cannot be read as a data set")

    def test_a_hub_name_is_no_path_below_the_root(self) -> None:
        assert DataConfig(root="/data").path("hf:some/captions") == Path("hf:some/captions")


class TestSplits:
    def load(self, path: Path, **settings: Any) -> Dataset:
        return load_dataset(DataConfig(pairs=str(path), **settings), seed=0)

    @pytest.mark.parametrize(
        ("split", "images"), [("train", ["b.jpg"]), (("test",), ["a.jpg"]), ("all", ["b.jpg", "a.jpg"])]
    )
    @pytest.mark.parametrize("name", ["karpathy", "tsv"])
    def test_the_wanted_splits_are_used(self, tmp_path: Path, name: str, split: Any, images: list[str]) -> None:
        data = self.load(WRITERS[name](tmp_path), split=split)
        assert data.pairs is not None
        assert list(data.pairs.images) == images
        assert data.report["images_by_split"] == "train 1, test 1"

    def test_a_file_with_several_splits_is_never_trained_on_whole_by_oversight(self, tmp_path: Path) -> None:
        path = write_karpathy(tmp_path)
        with pytest.raises(DataError) as caught:
            self.load(path)
        assert str(caught.value) == (
            f"{path}: has the splits train 1, test 1 (images); choose with data.split: NAME, or data.split: all"
        )

    def test_an_unknown_split_is_refused_with_the_known_ones(self, tmp_path: Path) -> None:
        path = write_karpathy(tmp_path)
        with pytest.raises(DataError) as caught:
            self.load(path, split=("restval", "train"))
        assert str(caught.value) == f"{path}: no image of split 'restval'; found train 1, test 1"

    def test_a_split_of_a_file_without_splits_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no image of split 'train'; this file names no splits"):
            self.load(write_coco(tmp_path), split="train")

    def test_an_image_in_two_splits_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "p.csv").write_text("image,caption,split\na,one,train\na,two,test\n")
        with pytest.raises(DataError, match=r"image 'a' is in split 'test' here and in 'train' at .*p.csv:2"):
            self.load(tmp_path / "p.csv", split="all")

    def test_a_split_that_is_no_string_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "p.jsonl").write_text('{"image": "a", "caption": "one", "split": 3}\n')
        with pytest.raises(DataError, match="expected a string under 'split', found 3"):
            self.load(tmp_path / "p.jsonl")


class TestRealFiles:
    def test_the_official_coco_file(self, shared: Path) -> None:
        problems: list[Problem] = []
        report: dict[str, int | str] = {}
        pairs = read_pairs(shared / "data/captions/coco_captions_val2017.json", problems, report)
        assert problems == []
        assert (report["images"], report["captions"], report["captions_repeated"]) == (5000, 25014, 229)
        first = pairs.images.index("000000179765.jpg")
        ids = [name for name, image in zip(pairs.caption_ids, pairs.image_of, strict=True) if image == first]
        assert ids == [f"000000179765.jpg#{k}" for k in range(5)]
        assert pairs.captions[pairs.caption_ids.index(ids[0])] == (
            "A black Honda motorcycle parked in front of a garage."
        )

    @pytest.mark.slow  # shapes and types of 300,000 captions are checked one by one here
    def test_the_captions_of_flickr30k(self, shared: Path) -> None:
        path = shared / "data/captions/flickr30k_captions.jsonl.gz"
        data = load_dataset(DataConfig(pairs=str(path), split="train"), seed=0)
        assert data.report["images_by_split"] == "train 29000, val 1014, test 1000"
        assert (data.report["images"], data.report["captions"]) == (29_000, 145_000)
        everything = load_dataset(DataConfig(pairs=str(path), split="all"), seed=0)
        assert (everything.report["images"], everything.report["captions"]) == (31_014, 155_070)

"""Class names: one cleaning for all doors, and class files that are read as they were written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testing.data_videos import moving_frames, write_video
from vitaclip.__main__ import main
from vitaclip.class_names import clean_class_name, parse_class_names
from vitaclip.data.datasets import load_dataset
from vitaclip.data.manifest import class_list_text, read_class_list
from vitaclip.errors import InputError

ODD_NAMES = (
    "#hash", "# blank hash", '"quoted"', 'half '
                                 '"quoted', "carve, "
                                            "slowly", "0", "1,2", "\ufeffmark", "Turnen für alle",
    "跳绳", "it's", "back\\slash", "semi;colon", "tab\tinside", "0 people", "1 person", "wave,2",
    "line\u2028separator", "next\x85line", "form\x0cfeed",
)  # fmt: skip
# Names as annotation files may hold them: on one line, with something to read in them.
names = st.lists(
    st.one_of(
        st.sampled_from(ODD_NAMES), st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    ),
    min_size=1,
    max_size=6,
    unique_by=clean_class_name,
).filter(
    lambda names: all(clean_class_name(name) and not {"\n", "\r"} & set(name) for name in names)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


@given(names=names)
def test_what_is_written_is_what_is_read(names: list[str], folder: Path) -> None:
    path = folder / "classes.txt"
    path.write_text(class_list_text(names), encoding="utf-8")
    assert read_class_list(path) == tuple(names)
    windows = (
        b"\xef\xbb\xbf# a comment\r\n" + class_list_text(names).replace("\n", "\r\n\r\n").encode()
    )
    path.write_bytes(windows)
    assert read_class_list(path) == tuple(names)


@given(names=names, data=st.data())
def test_csv_lines_may_stand_in_any_order(
    names: list[str], data: st.DataObject, folder: Path
) -> None:
    header = data.draw(st.permutations(["ID", " name", "count"]))
    rows = [{"ID": label, " name": name, "count": 7} for label, name in enumerate(names)]
    text = io.StringIO()
    writer = csv.DictWriter(text, header)
    writer.writeheader()
    writer.writerows(data.draw(st.permutations(rows)))
    path = folder / "classes.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    assert read_class_list(path) == tuple(name.strip() for name in names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "id,name\n1,wave\n2,run\n",
            r"classes\.csv: found 2 ids from 1 to 2, needed is each of 0\.\.1",
        ),
        ("id,name\n0,wave\n2,run\n", "found 2 ids from 0 to 2"),
        ("id,name\n0,wave\n0,run\n", "line 3: found id '0', needed are 0, 1, 2, ..., each once"),
        ("id,name\nwave,0\n", "line 2: found id 'wave'"),
        ("id,name\n-1,wave\n", "line 2: found id '-1'"),
        ("id,name\n0.0,wave\n", "line 2: found id '0.0'"),
        ("id,name\n٣,wave\n", "line 2: found id"),
        (f"id,name\n{'9' * 5000},wave\n", "line 2: found id"),
        (
            "id,name\n0,carve, slowly\n",
            "line 2: found 3 cells under 2 columns; a name that holds a comma",
        ),
        ("id,name\n0\n", "line 2: found 1 cells under 2 columns"),
        ("id,name\n0,\n", "line 2: class name '' holds no word"),
        ("id,name\n0,[]\n", r"line 2: class name '\[\]' holds no word"),
        ('id,name\n0,"two\nlines"\n', "stands on several lines"),
        ("id,name\n0,wave\n1,Wave\n", "line 3: class 'Wave' stands already in line 2 as 'wave'"),
        ("0,wave\n1,run\n", "line 1: found '0,wave', needed is a header such as 'id,name'"),
        ("wave\nrun\n", "line 1: found 'wave', needed is a header"),
        ("id;name\n0;wave\n", "needed is a header"),
        ("id,name,name\n0,wave,run\n", "needed is a header"),
        ('id,name\n0,"wave\n', "is no CSV"),
        ("id,name\n0,wave\x00\n" + "x" * 200_000 + ",1", "is no CSV"),
        ("", "needed is a header"),
        ("id,name\n", "found no class names"),
    ],
)
def test_csv_files_that_cannot_be_right(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_class_list(path)


@pytest.mark.parametrize(
    "text",
    [
        "0 wave\n1 run\n",
        "1 wave\n2 run\n",
        "# labels\n2\twave\n1\trun\n",
        "0,wave\n1,run\n",
        "wave,1\nrun,0\n",
        "1: a\n2: b",
    ],
)
def test_numbers_in_a_text_file_are_no_part_of_the_names(text: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(text)
    with pytest.raises(
        InputError, match=r"classes\.txt: every line holds a number besides the name"
    ):
        read_class_list(path)


@pytest.mark.parametrize(
    "names", [("0", "1", "2"), ("2 people", "3 people"), ("level 0", "level 1"), ("1 a", "b")]
)
def test_names_may_hold_numbers(names: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("\n".join(names))
    assert read_class_list(path) == names


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("brush_hair", "brush hair"), ("ApplyEyeMakeup", "apply eye makeup"), ("wave", "  Wave"),
        ("Folding [something]", "folding something"), ("cafe\u0301", "caf\u00e9"), ("a  b", "a b"),
    ],
)  # fmt: skip
def test_names_that_are_read_alike_are_one_class(first: str, second: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(f"{first}\nother\n{second}\n")
    with pytest.raises(
        InputError, match=r"classes.txt, line 3: class .* stands already in line 1 as"
    ):
        read_class_list(path)
    with pytest.raises(InputError, match=r"--classes, name 2: class .* stands already in name 1"):
        parse_class_names(f"{first},{second}", "--classes")


def test_names_in_one_line() -> None:
    assert parse_class_names('wave, "carve, slowly",#hash', "x") == (
        "wave",
        "carve, slowly",
        "#hash",
    )
    for text in ("", "a,,b", "a,b,", 'a,"b', "a\nb,c"):
        with pytest.raises(InputError, match="x"):
            parse_class_names(text, "x")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("missing.txt", "found no file 'missing.txt'"),
        ("missing.csv", "found no file"),
        ("missing", "found no file"),
        ("folder/missing", "found no file"),
        ("./a,b", "found no file"),
        ("/a,b/c", "found no file"),
        ("", "found no file"),
        ("x" * 5000, "found no file"),
        (".", "is a folder"),
        ("wave,Wave", "stands already in name 1"),
        ("wave,,run", "holds no word"),
    ],
)
def test_classes_that_are_neither_names_nor_a_file(
    classes: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(tmp_path / "none"), "video.mp4", "--classes", classes]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "--classes" in error


def test_many_names_are_no_file_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ",".join(f"class {number}" for number in range(2000))
    assert main(["predict", str(tmp_path / "none"), "video.mp4", "--classes", names]) == 1
    assert "checkpoint" in capsys.readouterr().err


def test_prepared_data_keeps_its_names_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "classes.csv").write_bytes(
        b'\xef\xbb\xbfname,id\r\n"carve, slowly",2\r\n#hash,0\r\n"""quoted""",1\r\nwave,3\r\n'
    )
    write_video(source / "a, b.mp4", moving_frames(8))
    (source / "train.csv").write_text('"a, b.mp4",#hash\n')
    (source / "val.csv").write_text("a, b.mp4,wave\n")
    monkeypatch.setenv("VITACLIP_DATA_ODD", str(source))
    wanted = {split: load_dataset("odd", split) for split in ("train", "val")}
    assert wanted["val"].classes == ("#hash", '"quoted"', "carve, slowly", "wave")
    assert main(["data", "prepare", "odd", "--out", str(tmp_path / "ready"), "--threads", "1"]) == 0
    monkeypatch.setenv("VITACLIP_DATA_ODD", str(tmp_path / "ready"))
    for split, manifest in wanted.items():
        found = load_dataset("odd", split)
        assert (found.classes, found.raw_classes) == (manifest.classes, manifest.raw_classes)
        assert [clip.label for clip in found.clips] == [clip.label for clip in manifest.clips]
        assert Path(found.clips[0].path).is_file()

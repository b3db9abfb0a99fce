"""Files of sentences that describe classes, good ones and bad ones."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from vitaclip.class_descriptions import MAX_BYTES, MAX_LENGTH, MAX_SENTENCES, read_descriptions
from vitaclip.errors import InputError

CLASSES = ("brush_hair", "YoYo")


def write(folder: Path, text: str, name: str = "found.json") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.json", '{"Yo Yo": "A toy.", "brush hair": ["A  brush.", "Long\\nhair."]}'),
        ("x.JSON", '\ufeff{"brush_hair": ["A brush.", "Long hair."], "YoYo": ["A toy."]}'),
        (
            "x.csv",
            'id,name,description\n0,brush hair,A brush.\n1,Yo Yo,A toy.\n,BrushHair,"Long hair."\n',
        ),
    ],
)
def test_classes_go_by_their_names_however_these_are_spelled(tmp_path, name, text) -> None:
    path = write(tmp_path, text, name)
    found = read_descriptions(path)
    assert found.of(CLASSES, "toys/val") == [("A brush.", "Long hair."), ("A toy.",)]
    assert found.of(CLASSES[1:], "toys/other") == [("A toy.",)]
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_published_files_number_the_classes(tmp_path) -> None:
    """FROSTER's and OST's do, in the order of the labels."""
    found = read_descriptions(write(tmp_path, '{"1": "A toy.", "0": ["A brush.", "Long hair."]}'))
    assert found.of(CLASSES, "toys/val") == [("A brush.", "Long hair."), ("A toy.",)]
    with pytest.raises(InputError, match=r"numbers 2 classes, but toys/half has 1; number exactly"):
        found.of(CLASSES[1:], "toys/half")
    named = read_descriptions(write(tmp_path, '{"1": "one", "0": "zero"}'))
    assert named.of(("1", "0"), "digits/val") == [("one",), ("zero",)]


def test_every_class_must_be_there(tmp_path) -> None:
    found = read_descriptions(write(tmp_path, '{"yo yo": "A toy.", "brush hairs": "A brush."}'))
    with pytest.raises(
        InputError,
        match=r"describes 2 classes, but not 'brush hair', 'a', 'b', 'c', 'd' and 1 more of "
        r"toys/val \(did you mean 'brush hairs'\?\)",
    ):
        found.of((*CLASSES, *"abcde"), "toys/val")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "[1", "x.json: is no JSON"),
        ("x.json", "[" * 200_000, "x.json: is no JSON"),
        ("x.json", '[["wave", "A person waves."]]', "is no JSON object such as"),
        ("x.json", "null", "is no JSON object"),
        ("x.json", "{}", "x.json: describes no class"),
        ("x.json", '{"wave": "A.", "wave": "B."}', "class 'wave': stands already there as 'wave'"),
        ("x.json", '{"wave": "A.", "Wave": "B."}', "class 'Wave': stands already there as 'wave'"),
        ("x.json", '{"wave": 1}', "class 'wave': found 1, allowed: a sentence, or a list"),
        ("x.json", '{"wave": []}', r"class 'wave': found \[\], allowed"),
        ("x.json", '{"wave": {"a": "b"}}', "class 'wave': found .*allowed: a sentence, or a list"),
        ("x.json", '{"wave": ["A.", null]}', "class 'wave': found 'None', allowed is a sentence"),
        ("x.json", '{"wave": [["A."]]}', "allowed is a sentence of 1 to"),
        ("x.json", '{"wave": " "}', "class 'wave': found ' ', allowed is a sentence"),
        ("x.json", '{"_": "A."}', "class '_': names no class"),
        ("x.json", json.dumps({"wave": "a" * (MAX_LENGTH + 1)}), "allowed is a sentence of 1 to"),
        (
            "x.json",
            json.dumps({"wave": ["a"] * (MAX_SENTENCES + 1)}),
            "'wave': is one too many",
        ),
        ("x.csv", "wave,A person waves.\n", "line 1: needed is a header"),
        ("x.csv", "", "line 1: needed is a header"),
        ("x.csv", "name,description\nwave\n", "line 2: found '', allowed is a sentence"),
        ("x.csv", "name,description\n,A.\n", "line 2: names no class"),
        ("x.csv", 'name,description\nwave,"A.\n', "is no CSV"),
        ("x.csv", f"name,description\nwave,{'a' * 200_000}\n", "is no CSV"),
        ("x.txt", "wave: A.", "is neither .json nor .csv"),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, message) -> None:
    with pytest.raises(InputError, match=message):
        read_descriptions(write(tmp_path, text, name))


def test_what_is_no_text_file_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="there is no such file of descriptions"):
        read_descriptions(tmp_path / "gone.json")
    with pytest.raises(InputError, match="there is no such file"):
        read_descriptions(tmp_path)
    (tmp_path / "x.json").write_bytes(b'{"wave": "\xff"}')
    with pytest.raises(InputError, match="is no UTF-8 text"):
        read_descriptions(tmp_path / "x.json")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(InputError, match="has more than 16 MB"):
        read_descriptions(tmp_path / "large.json")

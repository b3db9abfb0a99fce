"""The documents are true: links lead somewhere, what they name is there, and the site builds."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

from orchestrator.cli import app
from orchestrator.search.resolve import resolve
from orchestrator.yaml_file import load_study
from testing.paths import ROOT

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PACKAGES = "vitaclip|orchestrator|testing|benchmarks|tests"
FILE = re.compile(rf"(?<![\w./<-])((?:{PACKAGES}|infra|experiments|docs)/[\w./*-]*)(?:::(\w+))?")
MODULE = re.compile(rf"(?<![\w./<-])((?:{PACKAGES})(?:\.\w+)+)")
EXTERNAL = ("https://", "http://", "mailto:")
MAX_LENGTH = 100

SITE = sorted((ROOT / "docs").rglob("*.md"))
GENERATED = [ROOT / "docs/reference" / name for name in ("study_file.md", "commands.md")]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(p for p in SITE if p not in GENERATED)]
SCHEMA = ROOT / "experiments/study.schema.json"
INFRA = sorted((ROOT / "infra").rglob("*.md"))
LINKING = [*PAGES, *GENERATED, *INFRA, ROOT / "CHANGELOG.md"]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", page.read_text())


def code(page: Path) -> str:
    """All code of a page, its blocks and the spans within sentences, a piece a line."""
    blocks = [match[2].replace("\\\n", " ") for match in FENCE.finditer(page.read_text())]
    spans = re.findall(r"`([^`]+)`", prose(page))
    return "\n".join([*blocks, *(" ".join(span.split()) for span in spans)])


def anchors(page: Path) -> set[str]:
    """What a link may name after ``#``: its headings, as GitHub and MkDocs spell them."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", title.lower()) for title in titles)
    return {re.sub(r"\s+", "-", title.strip()) for title in words}


# Links


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(EXTERNAL):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors(target), f"{link}: there is no such heading"


@pytest.mark.parametrize("page", SITE, ids=name_of)
def test_the_site_links_to_its_own_files_only(page: Path) -> None:
    """A built site holds nothing else of the repository."""
    for link in LINK.findall(prose(page)):
        if not link.startswith((*EXTERNAL, "#")):
            target = (page.parent / link.partition("#")[0]).resolve()
            assert target.is_relative_to(ROOT / "docs"), link


# What pages name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    for path, test in FILE.findall(code(page)):
        path = path.rstrip(".")
        assert list(ROOT.glob(path)), f"{path}: there is no such file"
        assert not test or test in defined_names(ROOT / path), f"{path} has no {test}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_module_that_a_page_names_is_there(page: Path) -> None:
    for name in MODULE.findall(code(page)):
        assert is_defined(name) or is_spelled(name), f"{name}: there is no such module or name"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_make_target_that_a_page_names_is_there(page: Path) -> None:
    targets = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"^make ([a-z][\w-]*)", code(page), re.MULTILINE)) <= set(targets)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_a_page_names_is_there_with_its_options(page: Path) -> None:
    for words in commands(page):
        command = get_command(app)
        path = iter(words)
        while inner := getattr(command, "commands", {}):
            name = next(path, "--help")
            if name.startswith("-") or name == "COMMAND":
                break
            assert name in inner, f"vitaclip {name}: there is no such command"
            command = inner[name]
        known = {option for parameter in command.params for option in parameter.opts}
        given = {word.partition("=")[0] for word in path if word.startswith("--")}
        assert given - {"--help"} <= known, f"vitaclip {' '.join(words)}"


def commands(page: Path) -> Iterator[list[str]]:
    """The words after ``vitaclip`` of each command, also where it is called as a module."""
    python, direct = r"python -m orchestrator\.(\w+)", r"(?:python -m )?vitaclip (?!import )"
    called = rf"(?:^|[\s/])(?:{python}|{direct})([^|;&]*)"
    for line in code(page).splitlines():
        for module, rest in re.findall(called, line.partition(" #")[0]):
            yield [module, *shlex.split(rest)] if module else shlex.split(rest)


def test_every_variable_of_the_environment_is_in_the_reference_and_no_other() -> None:
    reference = ROOT / "docs/reference/environment.md"
    variable = re.compile(r"\bVITACLIP_(?!DATA_)[A-Z_]*[A-Z]\b")
    read = {name for source in sources() for name in variable.findall(source.read_text())}
    named = {name for page in PAGES for name in variable.findall(page.read_text())}
    assert set(variable.findall(reference.read_text())) == read | named == read


@pytest.mark.parametrize("page", [*GENERATED, SCHEMA], ids=name_of)
def test_generated_pages_are_up_to_date(page: Path) -> None:
    written = make_reference().PAGES[page.relative_to(ROOT).as_posix()]()
    assert page.read_text() == written, "run: python docs/make_reference.py"


def test_the_architecture_has_every_import_contract() -> None:
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    names = [contract["name"] for contract in tools["importlinter"]["contracts"]]
    text = (ROOT / "docs/architecture.md").read_text()
    assert [name for name in names if f"| {name} |" not in text] == []


def make_reference() -> ModuleType:
    """The script, which is in no package."""
    spec = spec_from_file_location("make_reference", ROOT / "docs/make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_study_that_a_page_shows_can_be_run(page: Path, tmp_path: Path) -> None:
    for language, block in FENCE.findall(page.read_text()):
        if language == "yaml" and block.startswith("name:"):
            (tmp_path / "study.yaml").write_text(block)
            resolve(load_study(tmp_path / "study.yaml"))


def is_defined(dotted: str) -> bool:
    """Whether a module is there, or a module with this name in it."""
    path, names = ROOT, dotted.split(".")
    while names and (path / names[0]).is_dir():
        path /= names.pop(0)
    if names and (path / f"{names[0]}.py").is_file():
        path /= f"{names.pop(0)}.py"
    file = path if path.is_file() else path / "__init__.py"
    return not names or (file.is_file() and names[0] in defined_names(file))


def defined_names(file: Path) -> set[str]:
    """Names of a file's classes, functions and constants, those within classes too."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    stored = {
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    return stored | {node.name for node in nodes if isinstance(node, kinds)}


def is_spelled(text: str) -> bool:
    """Whether a program writes this text: the tag ``vitaclip.reason`` looks like a module."""
    return any(f'"{text}"' in source.read_text() for source in sources())


def sources() -> Iterator[Path]:
    for package in ("vitaclip", "orchestrator"):
        yield from (ROOT / package).rglob("*.py")


# How pages are written


@pytest.mark.parametrize("page", [*PAGES, *INFRA], ids=name_of)
def test_sentences_fit_in_a_line_of_an_editor(page: Path) -> None:
    """Rows of tables and the texts of pictures cannot be broken."""
    lines = prose(page).splitlines()
    long = [line for line in lines if len(line) > MAX_LENGTH and line[:1] not in ("|", "!")]
    assert long == []


# The site


def test_the_site_builds_and_its_pages_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "index.html").is_file()
    loading = re.compile(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(?:https?:)?//[^\"]+")
    for page in tmp_path.rglob("*.html"):
        assert loading.findall(page.read_text()) == [], page.name

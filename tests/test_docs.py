"""What the docs point at is there: links and anchors, imports of their examples, dotted names, files and pages."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator, Mapping
from doctest import script_from_examples
from functools import cache, reduce
from inspect import signature
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import tyro

from boresight.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")],
    key=lambda page: page.relative_to(ROOT).as_posix(),
)
SOURCES = sorted(
    file
    for pattern in ("src/**/*.py", "src/**/*.md", "studies/**/*.py", "profiling/*.py", "Makefile")
    for file in ROOT.glob(pattern)
)
DOTTED = re.compile(r"`(boresight(?:\.\w+)+)(?:\(\))?`")
FUNCTIONS = (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef)
MENTIONED = re.compile(r"(?<![\w/.])((?:docs|studies|profiling|tests|src|\.ci)/[\w./-]*\w\.(?:py|md|png|sh))\b")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: Path) -> set[str]:
    """What can stand behind '#' in a link to this page, made of its headings as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", prose(page.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path) -> Iterator[ast.Module]:
    """Every example in Python of a page, parsed."""
    for code in re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
        yield ast.parse(code)


def names_of(page: Path) -> dict[str, str]:
    """Name in the examples of a page -> dotted path, for what they import of the package and of the studies' worlds."""
    names = {}
    for node in (node for block in blocks(page) for node in ast.walk(block)):
        if isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bs":
            names[f"bs.{node.attr}"] = f"boresight.{node.attr}"
    return {name: path for name, path in names.items() if path.startswith(("boresight", "worlds"))}


def value_of(path: str) -> Any:
    """The module, or what stands in one, that a dotted path leads to. Raises AttributeError where there is none."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        return reduce(getattr, parts[end:], module)
    raise AttributeError(path)


@cache
def resolves(path: str) -> bool:
    """Whether a dotted path leads to something, an attribute that is only declared among it."""
    try:
        value_of(path)
    except AttributeError:
        owner, _, name = path.rpartition(".")
        return "." in owner and resolves(owner) and name in getattr(value_of(owner), "__annotations__", {})
    return True


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_and_pictures_are_there(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


EXAMPLES = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", EXAMPLES, ids=named)
def test_imports_of_examples_resolve(page: Path) -> None:
    assert sorted(path for path in names_of(page).values() if not resolves(path)) == []


@pytest.mark.parametrize("page", EXAMPLES, ids=named)
def test_calls_of_examples_fit(page: Path) -> None:
    """Every call of a name that an example imports, `bs.` too, has arguments that its signature takes."""
    names = names_of(page) | {"bs": "boresight"}
    assert [wrong for block in blocks(page) for wrong in unfit_calls(block, names)] == []


def test_calls_of_docstring_examples_fit() -> None:
    """The same of the section `Example:` in docstrings, where names are those of the file."""
    wrong = []
    for file in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        module = ".".join(file.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        names = {node.name: f"{module}.{node.name}" for node in tree.body if isinstance(node, FUNCTIONS[:2])}
        for node in ast.walk(tree):
            docstring = ast.get_docstring(node) if isinstance(node, (*FUNCTIONS, ast.Module)) else None
            for code in re.findall(r"^Example:\n((?:[ \t]+.*\n?|\n)+)", docstring or "", flags=re.MULTILINE):
                code = script_from_examples(code) if ">>>" in code else dedent(code)
                wrong += [f"{module}: {each}" for each in unfit_calls(ast.parse(code), names | {"bs": "boresight"})]
    assert wrong == []


def unfit_calls(block: ast.Module, names: Mapping[str, str]) -> list[str]:
    """Calls that the signature of what they call does not take; names -> dotted path says what is known of a name."""
    unfit = []
    for node in (node for node in ast.walk(block) if isinstance(node, ast.Call)):
        name, _, rest = ast.unparse(node.func).partition(".")
        starred = any(isinstance(each, ast.Starred) for each in node.args) or any(
            not each.arg for each in node.keywords
        )
        if starred or name not in names or not re.fullmatch(r"[\w.]*", rest):
            continue
        try:
            called = signature(value_of(".".join(filter(None, [names[name], rest]))))
            called.bind(*node.args, **{each.arg or "": each for each in node.keywords})
        except (AttributeError, TypeError) as error:
            unfit.append(f"{ast.unparse(node)}: {error}")
    return unfit


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_of_examples_parse(page: Path) -> None:
    for code in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
        for line in code.splitlines():
            words = shlex.split(line, comments=True)
            if "boresight" in words[:5]:
                command, *options = words[words.index("boresight") + 1 :]
                tyro.cli(COMMANDS[command], args=options)


def test_dotted_names_are_there() -> None:
    missing = [
        f"{named(file)}: {path}"
        for file in [*PAGES, *SOURCES]
        for line in file.read_text(encoding="utf-8").splitlines()
        for path in DOTTED.findall(line.rpartition(" | ")[2] if file.name == "CHANGELOG.md" else line)
        if not resolves(path)
    ]  # of a name that has changed, the changelog's table has the new one in its last column
    assert missing == []


def test_files_that_are_named_are_there() -> None:
    missing = [
        f"{named(file)}: {path}"
        for file in [*PAGES, *SOURCES]
        if file.name != "CHANGELOG.md"
        for path in MENTIONED.findall(file.read_text(encoding="utf-8"))
        if not (ROOT / path).exists()
    ]
    assert missing == []


def test_every_page_is_on_a_shelf_and_in_its_list() -> None:
    """A page that no list names is read by nobody."""
    for shelf in ("guide", "results"):
        pages = {page.name for page in (ROOT / "docs" / shelf).glob("*.md")} - {"README.md"}
        linked = set(re.findall(rf"\]\({shelf}/([\w-]+\.md)\)", (ROOT / "docs" / "README.md").read_text("utf-8")))
        assert linked == pages
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == {"README.md"}

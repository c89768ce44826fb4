"""Builds the reference: a page for each module of boresight, made of its docstrings. `make reference` runs it.

A room's page shows the names on its face and links to its files. Whatever pdoc warns of, such as a name on a face or a
type that is not there, stops the build.
"""

import argparse
import importlib
import pkgutil
import re
import sys
import warnings
from pathlib import Path
from textwrap import dedent

import pdoc

import boresight

LEFT_OUT = ("boresight.cli", "boresight.models", "boresight.__main__")  # commands have --help; models are folders
EXAMPLE = re.compile(r"^Examples?:\n((?:[ \t]+\S.*(?:\n|$)|\n)+)", re.MULTILINE)
NAMED_TUPLE = "Error parsing type annotation ForwardRef"  # pdoc reads a named tuple's types in another module


def read_modules() -> dict[str, pdoc.doc.Module]:
    """Every module that users import from, by its name, its lazy names loaded: pdoc looks at what is there."""
    names = ["boresight", *(each.name for each in pkgutil.walk_packages(boresight.__path__, "boresight."))]
    modules = {}
    for name in names:
        if not name.startswith(LEFT_OUT):
            module = importlib.import_module(name)
            for public in getattr(module, "__all__", ()):
                vars(module)[public] = getattr(module, public)
            modules[name] = pdoc.doc.Module(module)
    for name, page in modules.items():
        page.submodules = [other for path, other in modules.items() if path.rpartition(".")[0] == name]
        show_examples(page)
    return modules


def show_examples(space: pdoc.doc.Namespace) -> None:
    """Makes the section `Example:` of each docstring a block of code; pdoc takes it for prose."""
    for each in (space, *space.members.values()):
        each.docstring = EXAMPLE.sub(
            lambda section: f"###### Example:\n\n```python\n{dedent(section[1]).strip()}\n```\n\n", each.docstring
        )
        if isinstance(each, pdoc.doc.Class) and each is not space:
            show_examples(each)


def write(file: Path, text: str) -> None:
    """Writes a page, with its folders."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def main() -> None:
    """Writes the pages; exits with 1 and the warnings where there are any."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the pages")
    out = parser.parse_args().out
    pdoc.render.configure(docformat="google", include_undocumented=False, show_source=False)
    modules = read_modules()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, page in modules.items():
            write(out / f"{name.replace('.', '/')}.html", pdoc.render.html_module(page, modules))
        write(out / "index.html", pdoc.render.html_index(modules))
        write(out / "search.js", pdoc.render.search_index(modules))
    wrong = {str(each.message) for each in caught if not str(each.message).startswith(NAMED_TUPLE)}
    if wrong:
        sys.exit("\n".join(sorted(wrong)))
    print(f"{len(modules)} modules: {out / 'index.html'}")


if __name__ == "__main__":
    main()

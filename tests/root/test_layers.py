"""The house keeps its rules: imports point one way, no circle of files, one trade a room."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).parents[2] / "src" / "boresight"
FLOORS = (
    {"root"},
    {"models"},
    {"data"},
    {"encoders"},
    {"embeddings"},
    {"sae"},
    {"editing"},
    {"search"},
    {"attribution", "training"},
    {"evaluation"},
    {"benchmarks"},
    {"reports"},
    {"demo", "app"},
    {"cli"},
)
"""From the ground up. A room may import what lies below it; rooms of one floor do not import each other."""
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ABOVE_ALL = {"__init__", "__main__"}
"""The face of the package names every room, and asks for none before it is used."""
LONGEST_FILE, MEDIAN_FILE, LARGEST_ROOM = 400, 160, 0.16


@dataclass(frozen=True)
class Import:
    """One import: module paths such as 'editing.model', the names taken, and whether only types are meant."""

    source: str
    target: str
    names: tuple[str, ...]
    types_only: bool

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}: {', '.join(self.names) or 'the module'}"


def modules(root: Path) -> dict[str, Path]:
    """Module path below the package -> file; a package goes by its own name."""
    files = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = file
    return files


def imports(root: Path) -> Iterator[Import]:
    """Every import of the package's own modules, at any depth of any function."""
    known = modules(root)
    for source, file in known.items():
        tree = ast.parse(file.read_text(encoding="utf-8"))
        typed = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.dump(block.test)
            for node in ast.walk(block)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{source} has a relative import; write the whole path"
                wanted = [(node.module or "", alias.name) for alias in node.names]
            elif isinstance(node, ast.Import):
                wanted = [(alias.name, "") for alias in node.names]
            else:
                continue
            targets: dict[str, list[str]] = {}
            for module, name in wanted:
                if module.split(".")[0] != root.name:
                    continue
                path = ".".join(module.split(".")[1:])
                inner = f"{path}.{name}".strip(".")
                if name and inner in known:
                    targets.setdefault(inner, [])
                else:
                    targets.setdefault(path or "__init__", []).append(name)
            for target, names in targets.items():
                yield Import(source, target, tuple(names), id(node) in typed)


def room_of(module: str, root: Path) -> str:
    """The room a module stands in; files of the root are one room but for those that stand above it."""
    first = module.split(".")[0]
    if (root / first).is_dir():
        return first
    return first if first in FLOOR_OF or first in ABOVE_ALL else "root"


def upward(root: Path) -> list[str]:
    """Imports that do not point down."""
    offences = []
    for each in imports(root):
        source, target = room_of(each.source, root), room_of(each.target, root)
        if source in ABOVE_ALL or source == target:
            continue
        if target in ABOVE_ALL or FLOOR_OF[target] >= FLOOR_OF[source]:
            offences.append(str(each))
    return offences


def circles(root: Path) -> list[list[str]]:
    """Groups of files that import each other when they run, through functions too."""
    known = modules(root)
    edges: dict[str, set[str]] = {name: set() for name in known}
    for each in imports(root):
        if not each.types_only and each.target in known and each.target != each.source:
            edges[each.source].add(each.target)
    reach = {name: _reached(name, edges) for name in edges}
    groups = {tuple(sorted(other for other in reach[name] if name in reach[other])) for name in edges}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def _reached(start: str, edges: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for target in edges[waiting.pop()]:
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return seen


def through_own_face(root: Path) -> list[str]:
    """Imports from the face of a package by a file inside it: the file behind the name is meant."""
    known = modules(root)
    return [
        str(each)
        for each in imports(root)
        if known[each.target].name == "__init__.py" and each.source.startswith(f"{each.target}.")
    ]


def foreign(root: Path) -> list[str]:
    """Imports of what imports the product: studies, tests, speed runs."""
    offences = []
    for module, file in modules(root).items():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            offences += [
                f"{module} -> {name}"
                for name in names
                if name.split(".")[0] in {"studies", "tests", "worlds", "profiling", "pytest", "hypothesis"}
            ]
    return offences


def lines(file: Path) -> int:
    return len(file.read_text(encoding="utf-8").splitlines())


def test_imports_point_down() -> None:
    assert upward(ROOT) == []


def test_no_circle_of_files() -> None:
    assert circles(ROOT) == []


def test_a_room_does_not_enter_through_its_own_face() -> None:
    assert through_own_face(ROOT) == []


def test_the_product_imports_no_study_and_no_test() -> None:
    assert foreign(ROOT) == []


def test_configs_are_free_of_torch() -> None:
    """The command line reads them for its help, which must not wait for torch."""
    offences = []
    for module, file in modules(ROOT).items():
        if module.split(".")[-1] == "config":
            taken = {
                alias.name
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Import)
                for alias in node.names
            }
            taken |= {
                node.module or "" for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)
            }
            offences += [
                f"{module} -> {name}" for name in taken if name.split(".")[0] in {"torch", "transformers", "datasets"}
            ]
    assert offences == []


def test_rooms_and_files_stay_small() -> None:
    sizes = {module: lines(file) for module, file in modules(ROOT).items()}
    assert [f"{module}: {size} lines" for module, size in sizes.items() if size > LONGEST_FILE] == []
    files = [size for module, size in sizes.items() if modules(ROOT)[module].name != "__init__.py"]
    assert median(files) <= MEDIAN_FILE
    rooms: dict[str, int] = {}
    for module, size in sizes.items():
        rooms[room_of(module, ROOT)] = rooms.get(room_of(module, ROOT), 0) + size
    largest = LARGEST_ROOM * sum(sizes.values())
    assert [f"{room}: {size} lines" for room, size in rooms.items() if size > largest] == []


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small house with one offence of each kind."""
    root = tmp_path / "boresight"
    for room in ("data", "editing", "training", "attribution"):
        (root / room).mkdir(parents=True)
        (root / room / "__init__.py").write_text("")
    (root / "__init__.py").write_text("")
    (root / "errors.py").write_text("")
    (root / "data" / "load.py").write_text("def read():\n    from boresight.editing.model import edit\n")
    (root / "editing" / "model.py").write_text("from boresight.editing import training\n")
    (root / "editing" / "training.py").write_text("import boresight.editing.model\nfrom boresight.errors import Oops\n")
    (root / "training" / "loop.py").write_text("from boresight.attribution.maps import Map\nimport pytest\n")
    (root / "attribution" / "maps.py").write_text(
        "from boresight.attribution import Map\nif TYPE_CHECKING:\n    from boresight.attribution.plots import draw\n"
    )
    (root / "attribution" / "plots.py").write_text("from boresight.attribution.maps import Map\n")
    return root


def test_an_offence_would_be_caught(house: Path) -> None:
    assert upward(house) == ["data.load -> editing.model: edit", "training.loop -> attribution.maps: Map"]
    assert circles(house) == [["editing.model", "editing.training"]]
    assert through_own_face(house) == ["attribution.maps -> attribution: Map"]
    assert foreign(house) == ["training.loop -> pytest"]

"""The layers of docs/architecture.md, read from the import graph."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = (
    "toolkit.utils",
    "toolkit.config",
    "toolkit.data",
    "toolkit.evaluation",
    "toolkit.modeling",
    "exporters",
    "toolkit.package toolkit.manifest toolkit.signature toolkit.golden_scores toolkit.latency",
    "toolkit.training",
    "toolkit.stages",
    "toolkit.export toolkit.pruning",
    "toolkit.tracking",
    "toolkit.workflows toolkit.serving",
    "benchmarks",
    "toolkit.commands toolkit.cli toolkit.api hbt",
)
"""From the lowest to the highest; a module imports only from its own layer and lower ones."""
FILES = [
    ROOT / "hbt.py",
    *(file for top in ("toolkit", "exporters", "benchmarks") for file in (ROOT / top).rglob("*.py")),
]
MODULES = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


def layer(module: str) -> int:
    for height, names in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names.split()):
            return height
    assert module == "toolkit", f"{module}: name its layer in LAYERS"
    return 0


def imports(module: str) -> set[str]:
    """Return the modules of this project that a module imports: at its top, in functions, and for types only."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            longer = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (longer & MODULES.keys()) or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & MODULES.keys() - {module}


GRAPH = {module: imports(module) for module in MODULES}


def test_no_module_imports_from_a_layer_above_its_own() -> None:
    upward = [(a, b) for a, imported in GRAPH.items() for b in imported if layer(b) > layer(a)]
    assert upward == []


def test_the_folders_of_one_layer_do_not_import_each_other_both_ways() -> None:
    """Of the folders that share a layer, only pruning imports from export, whose reference it times."""
    folders = {
        (a.split(".")[1], b.split(".")[1]) for a, imported in GRAPH.items() for b in imported if "." in a and "." in b
    }
    assert ("export", "pruning") not in folders


def test_no_circular_imports() -> None:
    finished: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in finished:
            for imported in sorted(GRAPH[module]):
                visit(imported, (*path, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())


def test_only_hbt_imports_the_command_line_and_nothing_imports_hbt() -> None:
    assert [a for a, imported in GRAPH.items() if "toolkit.cli" in imported] == ["hbt"]
    assert [a for a, imported in GRAPH.items() if "hbt" in imported] == []


def test_benchmarks_are_imported_only_by_the_bench_command_and_the_api() -> None:
    importing = {a for a, imported in GRAPH.items() for b in imported if b.startswith("benchmarks")}
    outside = {module for module in importing if not module.startswith("benchmarks")}
    assert outside <= {"toolkit.commands.measure", "toolkit.api"}


@pytest.mark.parametrize(
    "folder", sorted({file.parent for file in FILES}), ids=lambda f: f.relative_to(ROOT).as_posix()
)
def test_a_folder_has_at_most_twelve_files_of_at_most_350_lines(folder: Path) -> None:
    files = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
    assert len(files) <= 12
    assert {
        file.name: len(file.read_text("utf-8").splitlines())
        for file in files
        if len(file.read_text("utf-8").splitlines()) > 350
    } == {}

"""Build how_to_load.py of a package from the modules in `exporters.loaders`.

The file contains only the code for the runtime of the package: the module of the runtime and the modules that it
imports from `exporters.loaders`. hbt itself loads packages by importing the same modules.
"""

import ast
import importlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeGuard

from exporters.registry import LoadedArtifact

Loader = Literal["onnx", "ngram", "ngram_onnx", "cascade", "cascade_onnx", "torch", "openvino", "program", "c"]
PARTS = "exporters.loaders"
FOLDER = Path(__file__).parent
NGRAM, CASCADE = "ngram", "cascade"
"""`model_type` of an n-gram network and of a cascade in config.json."""
_NO_TELEMETRY = """
# From 1.29 on, onnxruntime would write a device id and send usage data to Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")"""
_IF_MISSING = """except ImportError as error:
    if __name__ != "__main__":
        raise
    print(f"{error}; pip install -r {Path(__file__).with_name('requirements.txt')}", file=sys.stderr)
    sys.exit(2)"""


@dataclass(frozen=True)
class Part:
    """The source of one module of `exporters.loaders`."""

    docstring: str
    imports: tuple[ast.Import | ast.ImportFrom, ...]
    body: str

    def dependencies(self) -> Iterator[str]:
        """Yield the names of the parts that this part imports, in order."""
        for statement in self.imports:
            if _is_part(statement):
                yield str(statement.module).removeprefix(f"{PARTS}.")


def load_package(loader: Loader, folder: Path, threads: int | None = None) -> LoadedArtifact:
    """Return the predictor of a package folder, using the modules that how_to_load.py is built from.

    It does not check the files: a candidate has no manifest yet, and `toolkit.package` checks packages itself.
    """
    return importlib.import_module(f"{PARTS}.{loader}").load(folder, threads, verify=False)


def model_type(folder: Path) -> str:
    """Return `model_type` from config.json in a package folder, "" if it has none or cannot be read."""
    try:
        return json.loads((folder / "config.json").read_text("utf-8")).get("model_type", "")
    except (OSError, ValueError, AttributeError, RecursionError):  # loading reports it
        return ""


def loader_source(loader: Loader) -> str:
    """Return the source of how_to_load.py for one loader."""
    parts = _with_dependencies(loader, {})
    return _composed(f"{parts['base.script'].docstring.rstrip()}\n\n{parts[loader].docstring.rstrip()}\n", parts)


def command_line_source() -> str:
    """Return the source of command_line.py, which is the same for all loaders."""
    parts = _with_dependencies("command.main", {})
    return _composed(parts["command.main"].docstring, parts)


def _composed(docstring: str, parts: dict[str, Part]) -> str:
    """Return the source of one module with the code of all `parts`."""
    imports = _merged([statement for part in parts.values() for statement in part.imports if not _is_part(statement)])
    body = "\n\n\n".join(part.body for part in parts.values())
    gap = "\n\n\n" if body.startswith(("def ", "class ")) else "\n\n"
    return f'"""{docstring}"""\n\n{imports}{gap}{body}\n'


def _with_dependencies(name: str, found: dict[str, Part]) -> dict[str, Part]:
    """Add a part to `found`, after the parts that it imports, and return `found`."""
    if name not in found:
        part = _read(name)
        for dependency in part.dependencies():
            _with_dependencies(dependency, found)
        found[name] = part
    return found


def _read(name: str) -> Part:
    """Return the parsed source of a part."""
    text = (FOLDER / f"{name.replace('.', '/')}.py").read_text("utf-8")
    tree = ast.parse(text)
    imports = tuple(statement for statement in tree.body if isinstance(statement, ast.Import | ast.ImportFrom))
    body = "\n".join(text.splitlines()[imports[-1].end_lineno :])  # includes comments before the first statement
    return Part(ast.get_docstring(tree) or "", imports, body.strip("\n"))


def _is_part(statement: ast.Import | ast.ImportFrom) -> TypeGuard[ast.ImportFrom]:
    return isinstance(statement, ast.ImportFrom) and str(statement.module).startswith(f"{PARTS}.")


def _merged(statements: list[ast.Import | ast.ImportFrom]) -> str:
    """Return the merged imports: first the standard library, then third-party modules, sorted, without duplicates.

    In the script, a third-party module that is not installed is one line on stderr.
    """
    future, plain = "from __future__ import annotations", set[str]()
    names: dict[str, set[str]] = defaultdict(set)
    for statement in statements:
        if isinstance(statement, ast.Import):
            plain |= {ast.unparse(alias) for alias in statement.names}
        else:
            names[str(statement.module)] |= {ast.unparse(alias) for alias in statement.names}
    lines = [f"import {module}" for module in sorted(plain)]
    lines += [f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)]
    lines.remove(future)
    standard = [line for line in lines if line.split()[1].split(".")[0] in sys.stdlib_module_names]
    others = [f"    {line}" for line in lines if line not in standard]
    if "import onnxruntime" in lines:
        standard = [*sorted({*standard, "import os"}, key=lambda line: (line.startswith("from"), line)), _NO_TELEMETRY]
    return "\n".join([future, "", *standard, *(["", "try:", *others, _IF_MISSING] if others else [])])

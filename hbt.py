"""hbt: turn labeled texts into a small folder that classifies text on any CPU.

This module is the Python API: `import hbt`. Heavy modules are imported when a function is called. `python -m hbt` is
the command line.

    import hbt

    model = hbt.load("models/demo-onnx-int8")
    model.predict(["text"])  # [("label", probability)]

See docs/api.md for every function, with examples.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

_HERE = str(Path(__file__).resolve().parent)
_LAYERS = ("toolkit", "exporters", "benchmarks")


class _OwnLayers:
    """Finder of the packages of hbt next to this file.

    Their names are common words: without it, a folder of the same name in the working directory or on PYTHONPATH
    would be imported instead.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [_HERE]) if name in _LAYERS else None


def _claim_layers() -> None:
    """Install `_OwnLayers`. Raises ImportError if another package of such a name is already imported."""
    for name in _LAYERS:
        file = getattr(sys.modules.get(name), "__file__", None)
        if name in sys.modules and (file is None or str(Path(file).resolve().parent.parent) != _HERE):
            raise ImportError(f"hbt: another package named {name!r} is already imported ({file}); import hbt first")
    if _OwnLayers not in sys.meta_path:
        sys.meta_path.insert(0, _OwnLayers)


_claim_layers()

_API = {
    "Recipe": "toolkit.config.recipe",
    "InputError": "toolkit.utils.errors",
    "NothingPasses": "toolkit.utils.errors",
    "auto": "toolkit.api",
    "load": "toolkit.api",
    "verify": "toolkit.api",
    "sign": "toolkit.api",
    "push": "toolkit.api",
    "pull": "toolkit.api",
    "predict_file": "toolkit.api",
    "explain": "toolkit.api",
    "drift": "toolkit.api",
    "read_recipe": "toolkit.api",
    "train": "toolkit.api",
    "run": "toolkit.api",
    "compress": "toolkit.api",
    "compare": "toolkit.api",
    "bench": "toolkit.api",
    "calculate_metrics_with_threshold_exploration": "toolkit.evaluation.metrics",
}
"""Public name to the module that defines it."""

if TYPE_CHECKING:
    from toolkit import __version__ as __version__
    from toolkit.api import (
        auto as auto,
        bench as bench,
        compare as compare,
        compress as compress,
        drift as drift,
        explain as explain,
        load as load,
        predict_file as predict_file,
        pull as pull,
        push as push,
        read_recipe as read_recipe,
        run as run,
        sign as sign,
        train as train,
        verify as verify,
    )
    from toolkit.config.recipe import Recipe as Recipe
    from toolkit.evaluation.metrics import (
        calculate_metrics_with_threshold_exploration as calculate_metrics_with_threshold_exploration,
    )
    from toolkit.utils.errors import InputError as InputError, NothingPasses as NothingPasses

__all__ = [*_API, "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("toolkit").__version__
    if name not in _API:
        raise AttributeError(f"module 'hbt' has no attribute {name!r}")
    found = getattr(import_module(_API[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


def main() -> None:
    """Run the command line."""
    from toolkit.cli import main

    main()


if __name__ == "__main__":
    main()

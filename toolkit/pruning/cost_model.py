"""Cost model: latency and size of a network on this machine as a function of its layers, heads and neurons.

A few shapes of the network (fewer heads, neurons or layers) are exported to the target and timed on the same texts in
turns, so that background load affects all of them alike. Latency and size are fitted as linear in the number of layers,
heads and neurons, with non-negative coefficients. The leave-one-out error of the fit is reported with every use.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from exporters.registry import NOTHING, Evidence, exporter
from toolkit import package
from toolkit.config.settings import ExportSettings
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.export.reference import make_reference
from toolkit.latency.timing import fixed_order, times_in_turns
from toolkit.modeling.architecture import Sizes, sizes
from toolkit.modeling.classifier import Classifier
from toolkit.modeling.surgery import Kept, cut
from toolkit.pruning.selection import BLOCK, Costs
from toolkit.utils.console import bar, say
from toolkit.utils.files import MB, folder_size, read_json, write_text
from toolkit.utils.machine import describe_machine
from toolkit.utils.scratch import scratch_folder

TEXTS, CHECKED = 200, 16
"""Number of texts used for timing, and number of texts an export is checked on."""


@dataclass(frozen=True)
class Shape:
    """One shape of the network, with its measured latency and size."""

    left: tuple[Sizes, ...]
    """Heads and neurons of each remaining layer."""
    ms: float
    """Median end-to-end latency (tokenization included) on one thread."""
    mb: float
    """Size of the package."""


@dataclass(frozen=True)
class CostModel:
    """Costs of the parts of one network, exported to one target, on this machine."""

    ms: Costs
    mb: Costs
    ms_error: float
    """Largest relative leave-one-out error over the shapes."""
    mb_error: float
    shapes: tuple[Shape, ...]


def measured_costs(classifier: Classifier, target: str, texts: Sequence[str], cache: Path) -> CostModel:
    """Return the cost model of `classifier` for `target`; measured once and cached in the folder `cache`.

    texts: texts used for timing (validation rows).
    """
    file = cache / f"costs-{costs_key(classifier, target, texts)}.json"
    with suppress(LookupError, TypeError):  # a damaged file is measured again
        known = read_json(file)
        shapes = tuple(Shape(tuple(Sizes(**size) for size in each["left"]), each["ms"], each["mb"]) for each in known)
        say(f"costs of layers, heads and neurons loaded from {file}")
        return fit_costs(shapes)
    lefts = shapes_to_measure(sizes(classifier.network))
    shapes = measure_shapes(classifier, lefts, target, texts)
    write_text(file, json.dumps([asdict(shape) for shape in shapes], indent=1) + "\n")
    return fit_costs(shapes)


def fit_costs(shapes: Sequence[Shape]) -> CostModel:
    """Fit latency and size by non-negative least squares on relative errors."""
    ms, mb = (np.array([getattr(shape, name) for shape in shapes]) for name in ("ms", "mb"))
    counts = np.array([_counts(shape.left) for shape in shapes], dtype=np.float64)
    return CostModel(
        ms=_fitted(counts, ms),
        mb=_fitted(counts, mb),
        ms_error=_leave_one_out_error(counts, ms),
        mb_error=_leave_one_out_error(counts, mb),
        shapes=tuple(shapes),
    )


def shapes_to_measure(full: Sequence[Sizes]) -> list[tuple[Sizes, ...]]:
    """Return the shapes to measure: the full network, then fewer heads, fewer neurons, fewer of both, fewer layers."""

    def scaled(heads: float, neurons: float, layers: float = 1.0) -> tuple[Sizes, ...]:
        count = max(1, round(len(full) * layers))
        return tuple(
            Sizes(max(1, round(size.heads * heads)), max(min(BLOCK, size.neurons), round(size.neurons * neurons)))
            for size in full[:count]
        )

    shares = [(1, 1), (0.5, 1), (1, 0.5), (0.5, 0.5), (0.75, 0.25), (0.25, 0.25), (0, 0)]
    shapes = [*(scaled(heads, neurons) for heads, neurons in shares), scaled(1, 1, 0.5), scaled(0.5, 0.5, 0.5)]
    return list(dict.fromkeys(shapes))


def measure_shapes(
    classifier: Classifier, lefts: Sequence[Sequence[Sizes]], target: str, texts: Sequence[str]
) -> tuple[Shape, ...]:
    """Export a copy of `classifier` pruned to each shape, then time all of them on the same texts in turns."""
    pruned = [partial(_pruned_to, classifier, left) for left in lefts]
    costs = latency_and_size(pruned, target, texts)
    return tuple(Shape(tuple(left), ms, mb) for left, (ms, mb) in zip(lefts, costs, strict=True))


def latency_and_size(
    builders: Sequence[Callable[[], Classifier]], target: str, texts: Sequence[str]
) -> list[tuple[float, float]]:
    """Return median milliseconds per text and megabytes of each classifier, exported to the target; both hardly depend
    on the values of its weights, so it need not be trained.

    Raises: CannotExport if the target does not support a classifier.
    """
    chosen = [texts[i] for i in fixed_order(texts)[:TEXTS]]
    count = len(builders)
    with scratch_folder() as scratch:
        folders = [scratch / str(i) for i in range(count)]
        with bar(f"costs: exporting {count} networks", count) as advance:
            for build, folder in zip(builders, folders, strict=True):
                _export(build(), target, texts[:CHECKED], folder)
                advance(1)
        models = [exporter(target).load(folder, threads=1) for folder in folders]
        with bar(f"costs: timing {count} networks", len(chosen)) as advance:
            times = times_in_turns(models, chosen, advance)  # (texts, networks)
        megabytes = [folder_size(folder) / MB for folder in folders]
    return list(zip(np.median(times, axis=0).tolist(), megabytes, strict=True))


def _export(classifier: Classifier, target: str, texts: Sequence[str], folder: Path) -> None:
    """Write the package of the first candidate, without model card and manifest."""
    target_exporter = exporter(target)
    evidence = Evidence(texts, texts, np.zeros(len(texts), dtype=np.int64), DecisionRule())
    with scratch_folder() as scratch:
        reference = make_reference(target_exporter, classifier, evidence, scratch)
        settings = ExportSettings(target=target)
        candidate = target_exporter.candidates(classifier, evidence, settings, reference.folder)[0]
        package.write_loadable(folder, classifier, evidence.rule, target_exporter, candidate, NOTHING)


def _pruned_to(classifier: Classifier, left: Sequence[Sizes]) -> Classifier:
    """Return a copy with the first layers and the first units of each; latency does not depend on which are kept."""
    network = copy.deepcopy(classifier.network)
    missing = len(sizes(network)) - len(left)
    cut(network, [*(Kept(tuple(range(s.heads)), tuple(range(s.neurons))) for s in left), *[None] * missing])
    return replace(classifier, network=network)


def _counts(left: Sequence[Sizes]) -> list[int]:
    return [1, len(left), sum(size.heads for size in left), sum(size.neurons for size in left)]


def _fitted(counts: np.ndarray, measured: np.ndarray) -> Costs:
    """Fit the costs. counts: (shapes, 4), as `_counts`; measured: (shapes,), ms or MB."""
    from scipy.optimize import nnls

    relative = counts / measured[:, None]
    scale = relative.max(axis=0)  # equal column scales, for a well-conditioned fit
    found, _ = nnls(relative / scale, np.ones(len(measured)))
    return Costs(*(float(value) for value in found / scale))


def _leave_one_out_error(counts: np.ndarray, measured: np.ndarray) -> float:
    """Return the largest relative error of a shape under the fit to all other shapes."""
    errors = []
    for place in range(len(measured)):
        others = np.arange(len(measured)) != place
        costs = _fitted(counts[others], measured[others])
        predicted = counts[place] @ np.array([costs.base, costs.layer, costs.head, costs.neuron])
        errors.append(abs(predicted / measured[place] - 1))
    return float(max(errors))


def costs_key(classifier: Classifier, target: str, texts: Sequence[str]) -> str:
    """Return a hash of everything the costs depend on: shapes, target and machine, but not the values of weights.

    It is part of the name of the file that keeps them.
    """
    from importlib.metadata import version

    machine = describe_machine()
    config: dict[str, Any] = {
        name: value for name, value in classifier.network.config.to_diff_dict().items() if not name.startswith("_")
    }
    facts = {
        "config": config,
        "sizes": [asdict(size) for size in sizes(classifier.network)],
        "vocabulary": classifier.tokenizer.get_vocab_size(),
        "target": target,
        "runtimes": [f"{name} {version(name)}" for name in exporter(target).distributions],
        "machine": [machine.cpu, machine.isa],
        "texts": hashlib.sha256("\x00".join(texts).encode()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]

"""The figure of a benchmark: names and positions of all models, and labels without overlaps."""

import math
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from benchmarks.label_placement import Label, place_labels
from benchmarks.plot import DPI, SIZE, STYLE, figure, plot
from benchmarks.report import read_json
from tests.benchmarks.test_report import ALL, FLOOR, STUDENT, TEACHER, measured
from toolkit.latency.measure import Measurement
from toolkit.utils.errors import InputError

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
STORED = ["bangla-1-thread", "sib200-layers4-onnx-int8-1-thread"]
TEXT = "{http://www.w3.org/2000/svg}text"


def texts_of(file: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(file).getroot().iter(TEXT)]


@pytest.mark.parametrize(
    "shown",
    [ALL, [FLOOR], [TEACHER, measured("same", 10.0, 0.85)], [measured(f"m{i}", 1.0, 0.8) for i in range(20)]],
    ids=["three", "one", "two at one place", "twenty at one place"],
)
def test_svg_is_well_formed_and_names_every_model(shown: list[Measurement], tmp_path: Path) -> None:
    plot(shown, tmp_path / "bench.svg")
    assert {m.name for m in shown} <= set(texts_of(tmp_path / "bench.svg"))
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    "name", ["বাংলা মডেল", "模型 🙂", "$x_1$ ^ \\alpha", "a & <b> \"c\" 'd'", "ring\x07\nline", "%s {0}"]
)
def test_any_name_can_be_drawn(name: str, tmp_path: Path) -> None:
    plot([TEACHER, measured(name, 1.0, 0.8)], tmp_path / "bench.svg")
    expected = "".join(each if each.isprintable() else "\ufffd" for each in name)
    assert expected in texts_of(tmp_path / "bench.svg")


def test_the_front_joins_the_models_that_no_other_beats() -> None:
    models = [measured("slow", 8.0, 0.9), measured("fast", 1.0, 0.8), measured("beaten", 2.0, 0.7)]
    (axes,) = figure(models, front=True).axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[1.0, 0.8], [8.0, 0.9]]
    assert not figure(models).axes[0].lines


def test_markers_are_at_the_measured_values() -> None:
    (axes,) = figure(ALL).axes
    found = {tuple(map(float, marker.get_offsets()[0])): float(marker.get_sizes()[0]) for marker in axes.collections}
    assert found.keys() == {(m.p50_ms, m.metrics["macro_f1"]) for m in ALL}
    low, high = axes.get_xlim()
    assert all(low < x < high for x, _ in found)
    assert all(axes.get_ylim()[0] < y < axes.get_ylim()[1] for _, y in found)


def test_the_area_of_a_marker_is_the_size_on_disk() -> None:
    shown = [measured("small", 1.0, 0.8, mib=25), measured("large", 2.0, 0.8, mib=100)]
    sizes = {float(m.get_offsets()[0][0]): float(m.get_sizes()[0]) for m in figure(shown).axes[0].collections}
    assert sizes[2.0] == pytest.approx(4 * sizes[1.0])


@pytest.mark.parametrize(("slowest", "scale"), [(10.0, "log"), (1.4, "linear")])
def test_the_axis_is_logarithmic_where_latencies_differ_much(slowest: float, scale: str) -> None:
    (axes,) = figure([measured("a", 1.0, 0.8), measured("b", slowest, 0.8)]).axes
    assert axes.get_xscale() == scale
    assert ("log scale" in axes.get_xlabel()) == (scale == "log")


def test_threads_and_kinds_are_shown() -> None:
    drawn = figure(ALL)
    assert "(1 thread, log scale)" in drawn.axes[0].get_xlabel()
    (legend,) = drawn.legends
    assert [each.get_text() for each in legend.get_texts()] == ["checkpoint", "package", "linear baseline"]


def test_models_without_figures_are_omitted_and_an_empty_figure_is_refused(tmp_path: Path) -> None:
    plot([*ALL, measured("unmeasured", None, 0.8), measured("unlabelled", 1.0, None)], tmp_path / "bench.svg")
    assert not {"unmeasured", "unlabelled"} & set(texts_of(tmp_path / "bench.svg"))
    with pytest.raises(InputError, match="no model has both"):
        plot([measured("unmeasured", None, 0.8)], tmp_path / "none.svg")
    assert not (tmp_path / "none.svg").exists()


@pytest.mark.parametrize("name", STORED)
def test_labels_of_the_committed_figures_do_not_overlap(name: str) -> None:
    with matplotlib.rc_context(STYLE):
        drawn = figure(read_json(RESULTS / f"{name}.json")[0])
        drawn.draw_without_rendering()
        (axes,) = drawn.axes
        labels = [each for each in axes.texts if isinstance(each, Annotation) and each.get_text()]
        boxes = [each.get_window_extent() for each in labels]
    assert len(labels) >= 6
    width, height = (DPI * side for side in SIZE)
    for box in boxes:
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    assert not [pair for pair in combinations(boxes, 2) if _area(*pair) > 1]
    for marker in axes.collections:
        x, y = axes.transData.transform(marker.get_offsets()[0])
        radius = math.sqrt(marker.get_sizes()[0]) / 2 * DPI / 72
        for box in boxes:
            near = np.clip((x, y), (box.x0, box.y0), (box.x1, box.y1))
            assert math.hypot(near[0] - x, near[1] - y) >= radius - 2


def _area(a: Bbox, b: Bbox) -> float:
    shared = Bbox.intersection(a, b)
    return 0.0 if shared is None else shared.width * shared.height


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A home folder, in which matplotlib lists the fonts once."""
    return str(tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("name", STORED)
def test_the_command_draws_the_same_svg_again(name: str, tmp_path: Path, home: str) -> None:
    (tmp_path / f"{name}.json").write_bytes((RESULTS / f"{name}.json").read_bytes())
    drawn = []
    for seed in ("0", "1"):
        command = [sys.executable, "-m", "benchmarks.plot", str(tmp_path / f"{name}.json")]
        environment = {"PYTHONHASHSEED": seed, "HOME": home, "MPLCONFIGDIR": home}
        subprocess.run(command, cwd=RESULTS.parents[1], env=environment, check=True)
        drawn.append((tmp_path / f"{name}.svg").read_bytes())
    assert drawn[0] == drawn[1]
    assert set(texts_of(RESULTS / f"{name}.svg")) == set(texts_of(tmp_path / f"{name}.svg"))


def test_labels_are_inside_the_frame_and_do_not_overlap() -> None:
    frame = np.array([0.0, 0.0, 500.0, 300.0])
    labels = [Label(250.0 + 3 * i, 150.0, 5.0, 60.0, 20.0) for i in range(8)]
    boxes = [Bbox.from_extents(*box) for box in place_labels(labels, frame)]
    assert all(box.x0 >= 0 and box.x1 <= 500 and box.y0 >= 0 and box.y1 <= 300 for box in boxes)
    assert not [pair for pair in combinations(boxes, 2) if _area(*pair) > 0]


def test_a_single_label_is_right_of_its_marker() -> None:
    (box,) = place_labels([Label(100.0, 100.0, 5.0, 60.0, 20.0)], np.array([0.0, 0.0, 500.0, 300.0]))
    assert box.tolist() == [108.0, 90.0, 168.0, 110.0]


def test_the_state_of_pyplot_does_not_change() -> None:
    script = "import sys\nimport benchmarks.plot\nassert 'matplotlib' not in sys.modules\n"
    script += "from tests.benchmarks.test_report import ALL\nbenchmarks.plot.figure(ALL)\n"
    script += "assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=RESULTS.parents[1], check=True)


def test_the_faster_model_is_left_and_the_better_one_above() -> None:
    (axes,) = figure([TEACHER, STUDENT]).axes
    teacher, student = (axes.transData.transform((m.p50_ms, m.metrics["macro_f1"])) for m in (TEACHER, STUDENT))
    assert student[0] < teacher[0]
    assert student[1] < teacher[1]

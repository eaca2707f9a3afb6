"""The same n-gram student in ONNX Runtime, C, JavaScript and Python: labels changed, largest difference, latency.

    python -m benchmarks.studies.ngram_programs RUN [RUN …]

RUN: a run with an ngram student. The first 500 validation and test texts of its corpus are scored by each program, as
hbt runs it. p50_us is measured inside the program, by a loop in its own language, and is the median over the texts of
the fastest of 20 passes. cold_start_ms is the median time of 20 processes of the C command line that label one text.
Prints CSV.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from exporters.loaders.compose import load_package
from exporters.loaders.model_bin.library import compiler
from exporters.ngram.target import MODEL_FILE, SOURCES
from exporters.registry import NOTHING, Evidence, LoadedArtifact, exporter
from toolkit.config.settings import ExportSettings
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.classifier import load_classifier
from toolkit.package import write_loadable
from toolkit.stages.run_folder import DISTILLATION, Run

TEXTS, PASSES, STARTS = 500, 20, 20
TARGETS = ("onnx-int8", "c", "js", "python")
_NODE = """
const { load } = await import(process.argv[1]);
const { readFileSync } = await import("node:fs");
const model = await load(process.argv[2]);
const texts = JSON.parse(readFileSync(0));
const best = texts.map(() => Infinity);
for (let pass = 0; pass < PASSES; pass++) texts.forEach((text, i) => {
  const started = performance.now();
  model.classify(text);
  best[i] = Math.min(best[i], 1000 * (performance.now() - started));
});
console.log(JSON.stringify(best));
""".replace("PASSES", str(PASSES))


def microseconds(target: str, model: LoadedArtifact, folder: Path, texts: list[str]) -> float:
    """Return the median latency in microseconds, measured in the language of the target."""
    if target == "c":
        flags = ["-std=c99", "-O2", "-D_POSIX_C_SOURCE=199309L", f"-I{SOURCES}", f"-DPASSES={PASSES}"]
        sources = [str(Path(__file__).with_name("ngram_c_speed.c")), str(SOURCES / "model.c")]
        subprocess.run([str(compiler()), *flags, "-o", str(folder / "speed"), *sources, "-lm"], check=True)
        lines = "".join(" ".join(text.split()) + "\n" for text in texts).encode()
        done = subprocess.run([folder / "speed", folder / MODEL_FILE], input=lines, capture_output=True, check=True)
        return statistics.median(map(float, done.stdout.split()))
    if target == "js":
        places = [(SOURCES / "model.mjs").as_uri(), (folder / MODEL_FILE).as_uri()]
        command = ["node", "--input-type=module", "-e", _NODE, *places]
        done = subprocess.run(command, input=json.dumps(texts).encode(), capture_output=True, check=True)
        return statistics.median(json.loads(done.stdout))
    best = [float("inf")] * len(texts)
    for _ in range(PASSES):
        for i, text in enumerate(texts):
            started = time.perf_counter()
            model.predict([text])
            best[i] = min(best[i], 1e6 * (time.perf_counter() - started))
    return statistics.median(best)


def cold_start_ms(folder: Path, text: str) -> float:
    """Return the median time in milliseconds from the start of the C command line to its end with one label."""
    made = str(folder / "classify")
    sources = [str(SOURCES / "model.c"), str(SOURCES / "main.c")]
    subprocess.run([str(compiler()), "-std=c99", "-O2", "-o", made, *sources, "-lm"], check=True)
    found = []
    for _ in range(STARTS):
        started = time.perf_counter()
        subprocess.run([made, folder / MODEL_FILE], input=text.encode(), capture_output=True, check=True)
        found.append(1e3 * (time.perf_counter() - started))
    return statistics.median(found)


def main() -> None:
    """Print the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    out = csv.writer(sys.stdout)
    columns = ["corpus", "target", "texts", "labels_changed", "largest_logit_difference", "p50_us", "cold_start_ms"]
    out.writerow([*columns, "size_bytes"])
    for place in parser.parse_args().runs:
        run = Run.open(place)
        rows = np.concatenate([run.corpus.rows("validation"), run.corpus.rows("test")])[:TEXTS]
        texts, classifier = run.corpus.take(rows), load_classifier(run.checkpoint(DISTILLATION))
        rule = classifier.rule or DecisionRule()
        evidence = Evidence([], [], np.zeros(0, dtype=np.int64), rule)
        with tempfile.TemporaryDirectory() as scratch:
            models = {}
            for name in TARGETS:
                target, folder = exporter(name), Path(scratch, name)
                (candidate,) = target.candidates(classifier, evidence, ExportSettings(name), folder)
                size, _ = write_loadable(folder, classifier, rule, target, candidate, NOTHING)
                # how_to_load.py of this package runs Python; the graph is what the programs must agree with.
                model = load_package("ngram_onnx", folder, 1) if name == "onnx-int8" else target.load(folder, threads=1)
                models[name] = model
                logits, first = model.predict_logits(texts), models["onnx-int8"]
                gap = float(np.abs(logits - first.predict_logits(texts)).max())
                pairs = zip(model.predict(texts), first.predict(texts), strict=True)
                changed = sum(a[0] != b[0] for a, b in pairs)
                p50 = microseconds(name, model, folder, texts)
                cold = f"{cold_start_ms(folder, texts[0]):.1f}" if name == "c" else ""
                out.writerow([run.corpus.name, name, len(texts), changed, f"{gap:.1e}", f"{p50:.1f}", cold, size])
                sys.stdout.flush()


if __name__ == "__main__":
    main()

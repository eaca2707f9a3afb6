"""Measure whether out-of-fold rows can judge what an n-gram student learns from a teacher: they cannot.

For each candidate of `toolkit.training.ngram.search`: macro-F1 and cross-entropy out of fold on the training rows, and
on the validation rows, which no teacher was trained on. No test row is used.

    python -m benchmarks.studies.linear_models.teacher RUN [RUN …] --out teacher-leak.csv

RUN: a finished run of `hbt train --student ngram` with a teacher.
"""

import argparse
from pathlib import Path
from typing import Any

from toolkit.modeling.ngram import rows_of
from toolkit.stages.distillation_data import prepare_distillation
from toolkit.stages.run_folder import DISTILLATION, Run
from toolkit.training.ngram.candidates import HINGE_C, NgramCandidate, teacher_candidates, texts_of
from toolkit.training.ngram.search import judge_on_validation, judge_out_of_fold
from toolkit.utils.console import bar, print_table
from toolkit.utils.files import write_lines

OF_LABELS = (
    NgramCandidate("labels", 4.0),
    NgramCandidate("labels", 8.0, balanced=True),
    NgramCandidate("labels", HINGE_C, balanced=True, loss="hinge"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", help="runs of n-gram students that have a teacher")
    parser.add_argument("--out", required=True, help="CSV file")
    given = parser.parse_args()
    lines: list[dict[str, Any]] = []
    for folder in given.runs:
        lines += lines_of(Run.open(Path(folder)))
        write_lines(lines, Path(given.out))
    shown = [{key: str(value) for key, value in line.items()} for line in lines]
    print_table(shown, "out of fold, and on validation rows", left=("Run", "Candidate"))


def lines_of(run: Run) -> list[dict[str, Any]]:
    """Return macro-F1 and cross-entropy of each candidate, out of fold and on the validation rows."""
    settings = run.recipe.distillation
    data = prepare_distillation(run.located, run.corpus, run.baseline_folder)
    texts = texts_of(
        data.train,
        data.validation,
        rows_of(settings.student or "ngram"),
        len(run.corpus.label_names),
        settings.kd_alpha,
        data.folds,
        bool(run.results[DISTILLATION].details.get("words")),
    )
    candidates = [*OF_LABELS, *teacher_candidates(texts)]
    found = []
    with bar(run.folder.name, len(candidates)) as advance:
        for candidate in candidates:
            inside, outside = (judge(texts, candidate).score for judge in (judge_out_of_fold, judge_on_validation))
            found.append(
                {
                    "Run": run.folder.name,
                    "Candidate": candidate.name,
                    "Macro F1, out of fold": round(inside.macro_f1, 4),
                    "Macro F1, validation": round(outside.macro_f1, 4),
                    "Cross-entropy, out of fold": round(inside.log_loss, 4),
                    "Cross-entropy, validation": round(outside.log_loss, 4),
                }
            )
            advance(1)
    return found


if __name__ == "__main__":
    main()

"""The recipe: every setting of a run, in one frozen dataclass tree and one TOML file; and the stages of each pipeline.

Imported by the command line at start-up, so nothing heavy may be imported here.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from toolkit.config.settings import (
    CorpusSettings,
    DistillationSettings,
    ExportSettings,
    ModelSettings,
    PruningSettings,
    RunSettings,
    TrainingSettings,
)
from toolkit.utils.errors import require

SEARCHED_STUDENTS = ("ngram", "layers:1", "layers:2", "layers:4", "cascade")
"""The default students of `hbt students`."""
CASCADE_SETTINGS = ("cascade", "cascade_share", "cascade_ms")
CASCADE_STUDENT = "layers:2"
"""The transformer of --student cascade."""


PIPELINES: dict[str, tuple[str, ...]] = {
    "baseline": ("linear_baseline", "baseline"),
    "baseline_kd": ("linear_baseline", "baseline", "distillation"),
    "baseline_quant": ("linear_baseline", "baseline", "export"),
    "baseline_kd_quant": ("linear_baseline", "baseline", "distillation", "export"),
    "baseline_prune": ("linear_baseline", "baseline", "pruning"),
    "baseline_prune_quant": ("linear_baseline", "baseline", "pruning", "export"),
    "baseline_kd_prune": ("linear_baseline", "baseline", "distillation", "pruning"),
    "baseline_kd_prune_quant": ("linear_baseline", "baseline", "distillation", "pruning", "export"),
}
"""The stages of each pipeline, in order."""


DESCRIPTIONS: dict[str, str] = {
    "baseline": "k-fold fine-tuning",
    "baseline_kd": "k-fold fine-tuning, then distillation into a student",
    "baseline_quant": "k-fold fine-tuning, then export and quantization",
    "baseline_kd_quant": "k-fold fine-tuning, distillation into a student, then export and quantization",
    "baseline_prune": "k-fold fine-tuning, then pruning",
    "baseline_prune_quant": "k-fold fine-tuning, pruning, then export and quantization",
    "baseline_kd_prune": "k-fold fine-tuning, distillation into a student, then pruning",
    "baseline_kd_prune_quant": "k-fold fine-tuning, distillation into a student, pruning, export and quantization",
}


@dataclass(frozen=True)
class Recipe:
    """Every setting of a run. The fields are the tables of the TOML file."""

    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    distillation: DistillationSettings = field(default_factory=DistillationSettings)
    pruning: PruningSettings = field(default_factory=PruningSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def __post_init__(self) -> None:
        kind, _, transformer = (self.distillation.student or "").partition(":")
        if kind == "cascade":  # the short form of --student X --cascade
            student = transformer or CASCADE_STUDENT
            object.__setattr__(self, "distillation", dataclasses.replace(self.distillation, student=student))
            object.__setattr__(self, "export", dataclasses.replace(self.export, cascade=True))

    def student_training(self) -> TrainingSettings:
        """Return the training settings of the student, whose learning rate is found by trials unless it is given."""
        distillation = self.distillation
        return dataclasses.replace(
            self.training,
            epochs=distillation.kd_epochs or self.training.epochs,
            learning_rate=distillation.kd_learning_rate or "auto",
        )

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the pipeline, in order; without the baseline if --teacher or --no-teacher is given."""
        given = bool(self.distillation.teacher) or self.distillation.no_teacher
        return tuple(stage for stage in PIPELINES[self.run.pipeline] if not (given and stage == "baseline"))

    @property
    def distils(self) -> bool:
        """Whether the pipeline has a distillation stage."""
        return "distillation" in self.stages

    @property
    def prunes(self) -> bool:
        """Whether the pipeline has a pruning stage."""
        return "pruning" in self.stages

    @property
    def exports(self) -> bool:
        """Whether the pipeline ends with a package."""
        return "export" in self.stages

    def refuse_cascade(self) -> None:
        """Raise InputError if the export settings ask for a cascade of a run without a transformer to export."""
        student = self.distillation.student or ""
        alone = student.partition(":")[0] == "ngram"
        fix = f"make a package of --student {student} without a cascade, or give a transformer with a teacher"
        require(not (self.export.cascade and alone), "--cascade", f"--student {student} has no transformer; {fix}")

    def flat(self) -> dict[str, Any]:
        """Return every setting by name; names are unique across the tables."""
        return {key: value for table in dataclasses.asdict(self).values() for key, value in table.items()}

    def sha256(self) -> str:
        """Return a hash of the settings that determine the result: not of names, registry and words of the card."""
        tables = dataclasses.asdict(self) | {"run": {"pipeline": self.run.pipeline}}
        for name in ("register", "license", "data_license", "describe"):
            del tables["export"][name]
        if not self.corpus.missing_label:  # as in runs that are older than this setting
            del tables["corpus"]["missing_label"]
        for name in ("outer_fold", "encoding", "separator"):
            if getattr(self.corpus, name) is None:
                del tables["corpus"][name]
        if not self.distillation.no_teacher:
            del tables["distillation"]["no_teacher"]
        if not self.export.this_cpu_only:
            del tables["export"]["this_cpu_only"]
        if not self.export.cascade:
            for name in CASCADE_SETTINGS:
                del tables["export"][name]
        if self.export.abstain_risk is None:
            del tables["export"]["abstain_risk"], tables["export"]["confidence"]
        for name in ("budget_kb", "page", "no_robustness", "functional_tests"):
            if not getattr(self.export, name):
                del tables["export"][name]
        return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()

"""Every setting of a run: frozen dataclasses that are one TOML file, the command-line options and the
MLflow parameters at once. The string under a field is its help text everywhere.

Imported by the command line at start-up, so nothing heavy may be imported here.
"""

import re
from dataclasses import dataclass
from typing import Literal

from toolkit.utils.errors import InputError

Pipeline = Literal[
    "baseline",
    "baseline_kd",
    "baseline_quant",
    "baseline_kd_quant",
    "baseline_prune",
    "baseline_prune_quant",
    "baseline_kd_prune",
    "baseline_kd_prune_quant",
]


PruneMethod = Literal["structured", "magnitude", "wanda", "gradual"]


Part = Literal["all", "attention", "ffn", "encoder"]


Schedule = Literal["linear", "cubic", "exponential"]


Method = Literal["logit", "hidden", "attention", "multi_level", "relation"]


def require(holds: bool, option: str, mend: str) -> None:
    """Raises InputError that names the option and how to mend it, unless the condition holds."""
    if not holds:
        raise InputError(f"{option}: {mend}")


@dataclass(frozen=True)
class CorpusSettings:
    """Which labeled texts, and how they are split."""

    data: str = "demo"
    """CSV, TSV, JSON Lines or Parquet file with labeled texts; `demo` is the embedded synthetic corpus."""
    text_column: str | None = None
    """Column of the texts (default: found by name)."""
    label_column: str | None = None
    """Column of the labels (default: found by name)."""
    label_names: tuple[str, ...] = ()
    """Names of the labels in order, separated by commas; with two labels the second is the positive one."""
    stratification: Literal["label", "none"] = "label"
    """What the test split, the validation split and the folds are balanced by."""
    stratify_by: str | None = None
    """A further column to balance them by."""
    slice: tuple[str, ...] = ()
    """Report these test rows apart too: a column, or a range of rows such as 0:12000. May be repeated."""
    folds: int = 5
    """Folds of the training rows."""
    seed: int = 42
    """Seed of the split and of training."""
    data_fraction: float = 1.0
    """Share of the training rows to use; validation and test rows stay whole."""

    def __post_init__(self) -> None:
        require(self.folds >= 2, "--folds", f"{self.folds} is too few; give 2 or more")
        require(0 < self.data_fraction <= 1, "--data-fraction", f"{self.data_fraction} is outside (0, 1]")
        require(
            len(set(self.label_names)) == len(self.label_names), "--label-names", "a name stands twice; give each once"
        )


@dataclass(frozen=True)
class ModelSettings:
    """The classifier that is fine-tuned on each fold."""

    model: str = "sagorsarker/bangla-bert-base"
    """Encoder: a Hugging Face hub id, a folder, or shape:LxH (layers x width, from scratch)."""
    pooling: Literal["cls", "mean", "max"] = "cls"
    """How token vectors become one text vector."""
    max_length: int = 128
    """Longest text in tokens; longer ones are cut."""
    dropout: float = 0.1
    """Dropout in the encoder and before the head."""
    freeze_base: bool = False
    """Train the head alone."""

    def __post_init__(self) -> None:
        require(4 <= self.max_length <= 8192, "--max-length", f"{self.max_length} is outside 4 to 8192")
        require(0 <= self.dropout < 1, "--dropout", f"{self.dropout} is outside [0, 1)")


@dataclass(frozen=True)
class TrainingSettings:
    """How a classifier is fine-tuned."""

    batch_size: int = 32
    """Texts in a training step."""
    learning_rate: float = 2e-5
    """Highest learning rate."""
    epochs: int = 15
    """Passes over the training rows at most."""
    weight_decay: float = 0.01
    """Decoupled weight decay (AdamW)."""
    warmup_ratio: float = 0.1
    """Share of the steps in which the learning rate rises."""
    scheduler: Literal["linear", "cosine"] = "linear"
    """How the learning rate falls after that."""
    gradient_clip_norm: float = 1.0
    """Largest norm of the gradient."""
    early_stopping_patience: int = 5
    """Epochs without a better validation macro-F1 (of a student: loss) after which training stops."""
    loss: Literal["bce", "focal"] = "bce"
    """bce: cross-entropy (binary for two labels); focal: Lin et al. 2017, gamma 2."""
    class_weights: bool = False
    """Weigh each label by the inverse of its share."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "--batch-size", f"{self.batch_size} is too small; give 1 or more")
        require(0 < self.learning_rate < 1, "--learning-rate", f"{self.learning_rate} is outside (0, 1)")
        require(self.epochs >= 1, "--epochs", f"{self.epochs} is too few; give 1 or more")
        require(self.weight_decay >= 0, "--weight-decay", f"{self.weight_decay} is negative")
        require(0 <= self.warmup_ratio < 1, "--warmup-ratio", f"{self.warmup_ratio} is outside [0, 1)")
        require(self.gradient_clip_norm > 0, "--gradient-clip-norm", f"{self.gradient_clip_norm} is not above 0")
        require(self.early_stopping_patience >= 1, "--early-stopping-patience", "give 1 or more")


@dataclass(frozen=True)
class DistillationSettings:
    """How a student learns from a teacher."""

    student: str | None = None
    """Student: layers:N or layers:0,4,8,11 (of the teacher), shape:LxH or shape:LxHxA (from scratch, A heads), a hub
    id, a folder, or ngram (no transformer but hashed n-grams; ngram:17 for a table of 2^17 rows)."""
    teacher: tuple[str, ...] = ()
    """A run, a checkpoint folder or a Hugging Face classifier to learn from; the baseline is then skipped.
    May be repeated: the mean of all teaches."""
    teacher_folds: Literal["ensemble", "best"] = "ensemble"
    """Whether all folds of a baseline teach, each the rows it did not learn from, or the best fold alone."""
    blend_floor: bool = False
    """Blend the linear baseline's logits into the teacher's, in the share that fits the labels best out of fold."""
    unlabelled: str | None = None
    """File with further texts that only the teacher labels: one a line, or a table with a text column."""
    augment: bool = False
    """Add a variant of each training text (words dropped or swapped, halves mixed) that only the teacher labels."""
    kd_method: Method = "logit"
    """What the student imitates: logits alone, or logits and the teacher's hidden states, attention maps, both of
    these (multi_level), or the relations of queries, keys and values in its last layer (MiniLMv2)."""
    kd_alpha: float = 0.7
    """Weight of the teacher; the rest goes to the labels."""
    kd_temperature: float = 4.0
    """Softens both distributions (Hinton et al. 2015)."""
    hidden_loss_weight: float = 0.3
    """Weight of the hidden states, for the methods that imitate them."""
    attention_loss_weight: float = 0.2
    """Weight of the attention maps, for the methods that imitate them."""
    kd_epochs: int | None = None
    """Epochs of the student (default: --epochs)."""
    kd_learning_rate: float | None = None
    """Learning rate of the student (default: --learning-rate)."""

    def __post_init__(self) -> None:
        require(0 <= self.kd_alpha <= 1, "--kd-alpha", f"{self.kd_alpha} is outside [0, 1]")
        require(self.kd_temperature > 0, "--kd-temperature", f"{self.kd_temperature} is not above 0")
        require(self.kd_epochs is None or self.kd_epochs >= 1, "--kd-epochs", "give 1 or more")
        rate = self.kd_learning_rate
        require(rate is None or 0 < rate < 1, "--kd-learning-rate", f"{rate} is outside (0, 1)")
        for option, weight in (
            ("--hidden-loss-weight", self.hidden_loss_weight),
            ("--attention-loss-weight", self.attention_loss_weight),
        ):
            require(weight >= 0, option, f"{weight} is negative")
        for option in ("teacher", "unlabelled", "augment", "blend_floor"):
            given = getattr(self, option)
            require(
                not given or self.student is not None,
                f"--{option.replace('_', '-')}",
                "needs --student, such as --student layers:4",
            )


@dataclass(frozen=True)
class PruningSettings:
    """What leaves the network, and how its accuracy is won back."""

    prune_method: PruneMethod = "structured"
    """structured: heads, neurons and layers are cut out, so it gets smaller and faster; magnitude, wanda (Sun et al.
    2023) and gradual (Zhu and Gupta 2017) set single weights to zero, which changes neither size nor speed."""
    prune_sparsity: float = 0.5
    """Share of the encoder's weights that goes; for zeros, of the weights in --prune-layers."""
    prune_to_ms: float | None = None
    """Cut until a text takes so many milliseconds on this machine as the target, instead of a share of the weights."""
    prune_to_mb: float | None = None
    """Cut until the package has so many MB, instead of a share of the weights."""
    prune_steps: int = 1
    """Rounds of structured cutting, an epoch of recovery between two."""
    prune_layers: Part = "encoder"
    """Where single weights are set to zero: attention maps, feed-forward maps, both (encoder), or every matrix but
    the embeddings (all)."""
    prune_schedule: Schedule = "cubic"
    """How the share of zeros rises, for gradual."""
    prune_start_epoch: int = 0
    """Epochs before the first zeros, for gradual."""
    prune_end_epoch: int = 3
    """Epochs after which all zeros are there, for gradual."""
    prune_frequency: int = 100
    """Training steps from one rise to the next, for gradual."""
    calib_samples: int = 512
    """Training texts on which heads, neurons and inputs are scored."""
    fine_tune_after_prune: bool = True
    """Let the pruned network learn from the teacher again."""
    fine_tune_epochs: int = 3
    """Epochs of that."""

    def __post_init__(self) -> None:
        require(0 < self.prune_sparsity < 1, "--prune-sparsity", f"{self.prune_sparsity} is outside (0, 1)")
        for option, budget in (("--prune-to-ms", self.prune_to_ms), ("--prune-to-mb", self.prune_to_mb)):
            require(budget is None or budget > 0, option, f"{budget} is not above 0")
            fits = budget is None or self.prune_method == "structured"
            require(
                fits, option, f"{self.prune_method} makes nothing faster or smaller; take --prune-method structured"
            )
        require(
            self.prune_to_ms is None or self.prune_to_mb is None, "--prune-to-mb", "give it or --prune-to-ms, not both"
        )
        for option in ("prune_steps", "prune_frequency", "calib_samples", "fine_tune_epochs"):
            value = getattr(self, option)
            require(value >= 1, f"--{option.replace('_', '-')}", f"{value} is too small; give 1 or more")
        require(
            0 <= self.prune_start_epoch < self.prune_end_epoch,
            "--prune-end-epoch",
            f"{self.prune_end_epoch} is not after --prune-start-epoch {self.prune_start_epoch}, which is 0 or more",
        )

    @property
    def tag(self) -> str:
        """Method and budget in one word: structured-0.5, structured-1.2ms, wanda-0.9."""
        if self.prune_to_ms is not None:
            return f"{self.prune_method}-{self.prune_to_ms:g}ms"
        if self.prune_to_mb is not None:
            return f"{self.prune_method}-{self.prune_to_mb:g}mb"
        return f"{self.prune_method}-{self.prune_sparsity:g}"


@dataclass(frozen=True)
class ExportSettings:
    """What the last checkpoint of a run becomes."""

    target: str = "onnx-int8"
    """What to make; hbt targets lists them."""
    quant_method: Literal["dynamic", "static", "qat", "fp16", "int4"] | None = None
    """dynamic and static keep the search of onnx-int8 to such candidates; qat fine-tunes with fake quantization before
    static; fp16 and int4 are names for the targets onnx-fp16 and onnx-int4."""
    quant_dtype: Literal["int8", "uint8", "fp16", "int4"] | None = None
    """int8 and uint8 keep the search of onnx-int8 to such weights; fp16 and int4 are names for those targets."""
    max_drop: float = 0.005
    """Macro-F1 on validation rows that a candidate may lose and still ship."""
    search: Literal["fast", "full", "off"] = "fast"
    """How many candidates of a target are measured: a few good ones, all, or the first alone."""
    trim_vocabulary: int | None = None
    """Drop the pieces of the vocabulary that the corpus and --unlabelled do not use; with N, keep N pieces in all."""

    def __post_init__(self) -> None:
        size = self.trim_vocabulary
        require(size is None or size >= 0, "--trim-vocabulary", f"{size} is negative")
        require(0 <= self.max_drop <= 1, "--max-drop", f"{self.max_drop} is outside [0, 1]")
        for option, value in (("--quant-method", self.quant_method), ("--quant-dtype", self.quant_dtype)):
            target = {None: self.target, "fp16": "onnx-fp16", "int4": "onnx-int4"}.get(value, "onnx-int8")
            fits = self.target in (target, "onnx-int8") or (
                value in ("dynamic", "int8") and self.target.endswith("-int8")
            )
            require(fits, option, f"{value} is not available for --target {self.target}; leave one of them out")
            if self.target == "onnx-int8":  # the default: the other two options say more
                object.__setattr__(self, "target", target)


@dataclass(frozen=True)
class RunSettings:
    """What the run is called and where it is tracked."""

    pipeline: Pipeline = "baseline"
    """Which stages, in this order."""
    name: str | None = None
    """Folder under runs/ (default: from the data and the model)."""
    author: str = "anonymous"
    """Who runs it; part of the MLflow run's name."""
    experiment: str = "hbt"
    """MLflow experiment."""

    def __post_init__(self) -> None:
        for option, value in (("--name", self.name), ("--author", self.author)):
            fine = value is None or (re.fullmatch(r"[\w\u0980-\u09ff.\-]+", value) and value.strip("."))
            require(
                bool(fine), option, f"{value!r} cannot be part of a folder name; use letters, digits, '-', '_' and '.'"
            )

"""The settings of a run, as frozen dataclasses: the single source of the TOML keys, the command-line options and
the MLflow parameters. The string under a field is its help text.

Imported by the command line at start-up, so nothing heavy may be imported here.
"""

import re
from dataclasses import dataclass
from typing import Literal

from toolkit.config.export_settings import ExportSettings as ExportSettings
from toolkit.utils.errors import require

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
UNTRAINED, UNTRAINED_RATE = "shape:", 1e-3
"""How the name of an untrained encoder begins, and the learning rate that it gets if none is given."""
LONGEST_NAME = 120
"""Bytes of the longest name of a run, to which target, pruning and student are added in folder names."""


@dataclass(frozen=True)
class CorpusSettings:
    """The labeled texts to use, and how they are split."""

    data: str = "demo"
    """CSV, TSV, JSON Lines, Parquet or Excel file with labeled texts; `demo` is the embedded synthetic corpus."""
    encoding: str | None = None
    """Encoding of a CSV or TSV file, such as cp1252 (default: recognized)."""
    separator: str | None = None
    """Character between the fields of a CSV file, or tab (default: recognized)."""
    text_column: str | None = None
    """Column with the texts (default: found by name)."""
    label_column: str | None = None
    """Column with the labels (default: found by name)."""
    label_names: tuple[str, ...] = ()
    """Names of the labels in order, separated by commas; with two labels the second is the positive one."""
    missing_label: tuple[str, ...] = ()
    """A label that means "not labeled", in addition to an empty cell and NaN, such as NA. May be repeated."""
    stratification: Literal["label", "none"] = "label"
    """What the test split, the validation split and the folds are stratified by."""
    stratify_by: str | None = None
    """Additional column to stratify by."""
    slice: tuple[str, ...] = ()
    """Also report these test rows separately: a column (one slice per value) or a row range such as 0:12000. May be
    repeated."""
    folds: int = 5
    """Number of cross-validation folds."""
    seed: int = 42
    """Random seed of the split and of training."""
    data_fraction: float = 1.0
    """Fraction of the training rows to use; all validation and test rows are kept."""
    outer_fold: str | None = None
    """Test on part I of N of the rows, given as I/N, instead of on 15 % of them; --outer-folds N runs every part."""

    def __post_init__(self) -> None:
        if self.separator == "tab":
            object.__setattr__(self, "separator", "\t")
        fits = self.separator is None or (len(self.separator) == 1 and self.separator not in '\r\n"')
        require(fits, "--separator", f"{self.separator!r} is not one character; give it, such as ';', or tab")
        part = re.fullmatch(r"(\d{1,3})/(\d{1,3})", self.outer_fold or "1/2")
        fits = part is not None and 1 <= int(part[1]) <= int(part[2]) >= 2
        require(fits, "--outer-fold", f"{self.outer_fold!r} is not a part I/N; give 1/5, for example")
        require(self.folds >= 2, "--folds", f"{self.folds} is too few; give 2 or more")
        require(0 <= self.seed < 2**32, "--seed", f"{self.seed} is outside 0 to {2**32 - 1}")
        require(0 < self.data_fraction <= 1, "--data-fraction", f"{self.data_fraction} is outside (0, 1]")
        for name in self.label_names:
            require(len(name) <= 100, "--label-names", f"{name[:20]}… has {len(name)} characters; give at most 100")
        require(
            len(set(self.label_names)) == len(self.label_names), "--label-names", "duplicate name; give each name once"
        )


@dataclass(frozen=True)
class ModelSettings:
    """The classifier that is fine-tuned on each fold."""

    model: str = "sagorsarker/bangla-bert-base"
    """Encoder: a Hugging Face hub id, a folder, or shape:LxH (untrained, layers x width)."""
    pooling: Literal["cls", "mean", "max"] = "cls"
    """How token vectors are pooled into one vector per text."""
    max_length: int = 128
    """Maximum number of tokens per text; longer texts are truncated."""
    dropout: float = 0.1
    """Dropout probability in the encoder and before the classification head."""
    freeze_base: bool = False
    """Freeze the encoder and train only the classification head."""

    def __post_init__(self) -> None:
        require(4 <= self.max_length <= 8192, "--max-length", f"{self.max_length} is outside 4 to 8192")
        require(0 <= self.dropout < 1, "--dropout", f"{self.dropout} is outside [0, 1)")


@dataclass(frozen=True)
class TrainingSettings:
    """How a classifier is fine-tuned."""

    batch_size: int = 32
    """Texts per training step."""
    learning_rate: float | Literal["auto"] = 2e-5
    """Peak learning rate; auto: found by short trials on the first fold. An untrained encoder (shape:) gets 0.001 if
    none is given."""
    epochs: int = 15
    """Maximum number of passes over the training rows."""
    weight_decay: float = 0.01
    """Decoupled weight decay (AdamW)."""
    warmup_ratio: float = 0.1
    """Fraction of the training steps during which the learning rate rises."""
    scheduler: Literal["linear", "cosine"] = "linear"
    """Decay of the learning rate after the warmup."""
    gradient_clip_norm: float = 1.0
    """Maximum norm of the gradient."""
    early_stopping_patience: int = 5
    """Stop after this many epochs without a better validation macro-F1 (of a student: validation loss)."""
    loss: Literal["bce", "focal"] = "bce"
    """bce: cross-entropy (binary for two labels); focal: focal loss with gamma 2 (Lin et al. 2017)."""
    class_weights: bool = False
    """Weight the loss of each label by the inverse of its frequency."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to train on."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "--batch-size", f"{self.batch_size} is too small; give 1 or more")
        rate = self.learning_rate
        require(isinstance(rate, str) or 0 < rate < 1, "--learning-rate", f"{rate} is outside (0, 1)")
        require(self.epochs >= 1, "--epochs", f"{self.epochs} is too few; give 1 or more")
        require(self.weight_decay >= 0, "--weight-decay", f"{self.weight_decay} is negative")
        require(0 <= self.warmup_ratio < 1, "--warmup-ratio", f"{self.warmup_ratio} is outside [0, 1)")
        require(self.gradient_clip_norm > 0, "--gradient-clip-norm", f"{self.gradient_clip_norm} is not above 0")
        require(self.early_stopping_patience >= 1, "--early-stopping-patience", "give 1 or more")


@dataclass(frozen=True)
class DistillationSettings:
    """How a student is trained from a teacher."""

    student: str | None = None
    """Student: layers:N or layers:0,4,8,11 (layers of the teacher), shape:LxH or shape:LxHxA (trained from scratch, A
    attention heads), a hub id, a folder, ngram (a linear model over hashed character n-grams; ngram:17 for a table of
    2^17 rows), or cascade:STUDENT, short for --student STUDENT --cascade."""
    teacher: tuple[str, ...] = ()
    """Teacher: a run, a checkpoint folder or a Hugging Face classifier; the baseline stage is then skipped. May be
    repeated: the logits of all teachers are averaged."""
    no_teacher: bool = False
    """Fit an ngram student on the labels alone, without an encoder; it takes about a minute."""
    teacher_folds: Literal["ensemble", "best"] = "ensemble"
    """Fold models of a baseline to use as the teacher: ensemble (all; a training row gets the logits of the fold that
    was not trained on it) or best (only the best one)."""
    blend_floor: bool = False
    """Blend the linear baseline's logits into the teacher's, with the weight that fits the labels best on out-of-fold
    predictions."""
    unlabelled: str | None = None
    """File with additional texts, labeled by the teacher only: one text per line, or a table with a text column."""
    augment: bool = False
    """Add a variant of each training text (words dropped or swapped, or halves of two texts combined), labeled by the
    teacher only."""
    kd_method: Method = "logit"
    """What the student is trained to match: only the teacher's logits (logit), or the logits and its hidden states
    (hidden), its attention maps (attention), both (multi_level), or the relations of queries, keys and values in its
    last layer (relation; MiniLMv2)."""
    kd_alpha: float = 0.7
    """Weight of the distillation loss; the loss on the labels has the remaining weight."""
    kd_temperature: float = 4.0
    """Temperature that softens both distributions (Hinton et al. 2015)."""
    hidden_loss_weight: float = 0.3
    """Weight of the loss on hidden states, for the methods that use it."""
    attention_loss_weight: float = 0.2
    """Weight of the loss on attention maps, for the methods that use it."""
    kd_epochs: int | None = None
    """Maximum epochs of the student (default: --epochs)."""
    kd_learning_rate: float | None = None
    """Peak learning rate of the student (default: found by short trials)."""

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
        if self.no_teacher:
            ngram = self.student is not None and self.student.split(":")[0] == "ngram"
            require(ngram, "--no-teacher", "only an ngram student learns from labels alone; give --student ngram")
            for option in ("teacher", "unlabelled", "augment", "blend_floor"):
                given, name = getattr(self, option), option.replace("_", "-")
                require(not given, f"--{name}", "contradicts --no-teacher; leave one of them out")
        for option in ("teacher", "unlabelled", "augment", "blend_floor"):
            given = getattr(self, option)
            require(
                not given or self.student is not None,
                f"--{option.replace('_', '-')}",
                "needs --student, such as --student layers:4",
            )


@dataclass(frozen=True)
class PruningSettings:
    """What is pruned, and how accuracy is recovered."""

    prune_method: PruneMethod = "structured"
    """structured: remove heads, neurons and layers, which makes the model smaller and faster; magnitude, wanda (Sun et
    al. 2023) and gradual (Zhu and Gupta 2017): set single weights to zero, which changes neither size nor speed."""
    prune_sparsity: float = 0.5
    """Fraction of the encoder's weights to remove; for the methods that set weights to zero, fraction of the weights in
    --prune-layers."""
    prune_to_ms: float | None = None
    """Prune until the target takes at most this many milliseconds per text on this machine, instead of by a fraction of
    the weights."""
    prune_to_mb: float | None = None
    """Prune until the package has at most this many MB, instead of by a fraction of the weights."""
    prune_steps: int = 1
    """Rounds of structured pruning, with one epoch of fine-tuning between two rounds."""
    prune_layers: Part = "encoder"
    """Matrices in which single weights are set to zero: attention, feed-forward (ffn), both (encoder), or every matrix
    except the embeddings (all)."""
    prune_schedule: Schedule = "cubic"
    """How the fraction of zeros rises, for gradual."""
    prune_start_epoch: int = 0
    """Epochs before the first weights are set to zero, for gradual."""
    prune_end_epoch: int = 3
    """Epochs after which the final fraction of zeros is reached, for gradual."""
    prune_frequency: int = 100
    """Training steps between two increases of the fraction of zeros, for gradual."""
    calib_samples: int = 512
    """Number of training texts used to score heads, neurons and inputs."""
    fine_tune_after_prune: bool = True
    """Fine-tune the pruned network on the labels and the logits of the teacher."""
    fine_tune_epochs: int = 3
    """Epochs of this fine-tuning."""

    def __post_init__(self) -> None:
        require(0 < self.prune_sparsity < 1, "--prune-sparsity", f"{self.prune_sparsity} is outside (0, 1)")
        for option, budget in (("--prune-to-ms", self.prune_to_ms), ("--prune-to-mb", self.prune_to_mb)):
            require(budget is None or budget > 0, option, f"{budget} is not above 0")
            fits = budget is None or self.prune_method == "structured"
            require(fits, option, f"{self.prune_method} does not reduce size or latency; use --prune-method structured")
        require(
            self.prune_to_ms is None or self.prune_to_mb is None, "--prune-to-mb", "give it or --prune-to-ms, not both"
        )
        for option in ("prune_steps", "prune_frequency", "calib_samples", "fine_tune_epochs"):
            value = getattr(self, option)
            require(value >= 1, f"--{option.replace('_', '-')}", f"{value} is too small; give 1 or more")
        require(
            0 <= self.prune_start_epoch < self.prune_end_epoch,
            "--prune-end-epoch",
            f"{self.prune_end_epoch} is not after --prune-start-epoch {self.prune_start_epoch}; give 0 <= start < end",
        )

    @property
    def tag(self) -> str:
        """Method and budget, for names: structured-0.5, structured-1.2ms, wanda-0.9."""
        if self.prune_to_ms is not None:
            return f"{self.prune_method}-{self.prune_to_ms:g}ms"
        if self.prune_to_mb is not None:
            return f"{self.prune_method}-{self.prune_to_mb:g}mb"
        return f"{self.prune_method}-{self.prune_sparsity:g}"


@dataclass(frozen=True)
class RunSettings:
    """Pipeline, name and tracking of the run."""

    pipeline: Pipeline = "baseline"
    """Stages to run: the baseline, then distillation (kd), pruning (prune) and export (quant)."""
    name: str | None = None
    """Folder under runs/ (default: made from the names of the data and the model)."""
    author: str = "anonymous"
    """Author; part of the name of the MLflow run."""
    experiment: str = "hbt"
    """MLflow experiment."""

    def __post_init__(self) -> None:
        for option, value in (("--name", self.name), ("--author", self.author)):
            fine = value is None or (re.fullmatch(r"[\w\u0980-\u09ff.\-]+", value) and value.strip("."))
            require(
                bool(fine), option, f"{value!r} cannot be part of a folder name; use letters, digits, '-', '_' and '.'"
            )
            size = len((value or "").encode())
            require(size <= LONGEST_NAME, option, f"has {size} bytes; give at most {LONGEST_NAME}")
        name = (self.name or "").lower()
        own = name == "cache" or name.endswith((".partial", ".replaced"))
        require(not own, "--name", f"{self.name!r} is a folder that hbt uses itself; give another name")

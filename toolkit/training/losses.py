"""Loss functions for classification and distillation.

Padding never affects a loss. Losses on hidden states and attention are computed in float32, even if the networks run
in bfloat16.
"""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

FOCAL_GAMMA = 2.0
UNLABELED = -1
"""Label of a text that only has teacher logits."""


def hard_loss(
    logits: torch.Tensor, labels: torch.Tensor, kind: str = "bce", weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the cross-entropy of logits (batch, labels) and labels (batch,), or the focal loss (Lin et al. 2017).

    For two labels, softmax cross-entropy equals binary cross-entropy of the difference of the logits.

    kind: "bce" or "focal". weights: class weights (labels,).
    """
    losses = functional.cross_entropy(logits, labels, weight=weights, reduction="none")  # (batch,)
    if kind == "focal":
        confidence = torch.softmax(logits, dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
        losses = losses * (1 - confidence) ** FOCAL_GAMMA
    if weights is not None:
        return losses.sum() / weights[labels].sum()
    return losses.mean()


def known_loss(
    logits: torch.Tensor, labels: torch.Tensor, kind: str = "bce", weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Return `hard_loss` of the labeled rows times their share of the batch, or 0 without labeled rows."""
    known = labels != UNLABELED  # (batch,)
    if not known.any():
        return logits.new_zeros(())
    return known.float().mean() * hard_loss(logits[known], labels[known], kind, weights)


def soft_loss(logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return KL(teacher ‖ student) of the softened distributions, times T² (Hinton et al. 2015)."""
    student = functional.log_softmax(logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    return functional.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


def hidden_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of hidden states (batch, tokens, width) (Jiao et al. 2020, TinyBERT).

    mask: (batch, tokens), 1 for tokens and 0 for padding.
    """
    errors = (student.float() - teacher.float()).square().mean(-1)  # (batch, tokens)
    return (errors * mask).sum() / mask.sum()


def attention_log_maps(queries: torch.Tensor, keys: torch.Tensor, heads: int, mask: torch.Tensor) -> torch.Tensor:
    """Return log softmax(QKᵀ/√d), (batch, heads, tokens, tokens), of queries and keys (batch, tokens, width).

    Each row is a log-distribution over tokens; padding has probability 0.
    """
    with torch.autocast(queries.device.type, enabled=False):  # otherwise the product is computed in bfloat16
        q, k = _heads(queries, heads), _heads(keys, heads)  # (batch, heads, tokens, width / heads)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    padding = mask[:, None, None, :] == 0
    # A finite minimum, because -inf - -inf is NaN; its exponential is 0, too.
    return scores.masked_fill(padding, torch.finfo(scores.dtype).min).log_softmax(-1)


def attention_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return KL(teacher ‖ student) of log maps (batch, heads, tokens, tokens) from `attention_log_maps`.

    It is averaged over query tokens, without padding, and over heads (Sun et al. 2020, MobileBERT). If the numbers of
    heads differ, the maps averaged over heads are compared.
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = _mean_map(student), _mean_map(teacher)
    divergence = (teacher.exp() * (teacher - student)).sum(-1)  # (batch, heads, tokens)
    return (divergence * mask[:, None, :]).sum() / (mask.sum() * divergence.shape[1])


def relation_loss(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], heads: int, mask: torch.Tensor
) -> torch.Tensor:
    """Return KL(teacher ‖ student) of self-attention relations (Wang et al. 2021, MiniLMv2).

    A relation is the attention map of vectors with themselves. The loss is the mean over the relations of queries,
    keys and values.

    student, teacher: queries, keys and values of one layer, each (batch, tokens, width).
    heads: number of relation heads, independent of the attention heads; it must divide both widths, see
    `relation_heads`.
    """
    maps = ([attention_log_maps(each, each, heads, mask) for each in vectors] for vectors in (student, teacher))
    return torch.stack([attention_loss(s, t, mask) for s, t in zip(*maps, strict=True)]).mean()


def relation_heads(student_heads: int, teacher_heads: int, *widths: int) -> int:
    """Return the largest number of relation heads that divides both numbers of attention heads and all `widths`."""
    return math.gcd(student_heads, teacher_heads, *widths)


def _heads(vectors: torch.Tensor, heads: int) -> torch.Tensor:
    """Split vectors (batch, tokens, width) into heads (batch, heads, tokens, width / heads)."""
    return vectors.float().unflatten(-1, (heads, -1)).transpose(1, 2)


def _mean_map(log_maps: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the mean over heads, (batch, 1, tokens, tokens)."""
    return log_maps.logsumexp(1, keepdim=True) - math.log(log_maps.shape[1])

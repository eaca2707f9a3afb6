"""What a student is told it did wrong: pure functions on tensors, each from one paper.

Padding has no say anywhere, and what is computed from states inside a network is computed in float32
even where the networks run in bfloat16.
"""

import math
from collections.abc import Sequence

import torch
from torch.nn import functional

FOCAL_GAMMA = 2.0
UNLABELED = -1
"""The label of a text that the teacher alone teaches."""


def hard_loss(
    logits: torch.Tensor, labels: torch.Tensor, kind: str = "bce", weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Cross-entropy of logits (batch, labels) against labels (batch,), or focal loss (Lin et al. 2017).

    Softmax cross-entropy of two labels is binary cross-entropy of the difference of their logits.
    """
    each = functional.cross_entropy(logits, labels, weight=weights, reduction="none")
    if kind == "focal":
        sure = torch.softmax(logits, dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
        each = each * (1 - sure) ** FOCAL_GAMMA
    if weights is not None:
        return each.sum() / weights[labels].sum()
    return each.mean()


def known_loss(
    logits: torch.Tensor, labels: torch.Tensor, kind: str = "bce", weights: torch.Tensor | None = None
) -> torch.Tensor:
    """`hard_loss` of the rows that have a label, times their share of the batch; 0 if there are none."""
    known = labels != UNLABELED  # (batch,)
    if not known.any():
        return logits.new_zeros(())
    return known.float().mean() * hard_loss(logits[known], labels[known], kind, weights)


def soft_loss(logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Divergence of the softened student from the softened teacher, times T² (Hinton et al. 2015)."""
    student = functional.log_softmax(logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    return functional.kl_div(student, teacher, log_target=True, reduction="batchmean") * temperature**2


def hidden_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error of hidden states (batch, tokens, width) over real tokens (Jiao et al. 2020, TinyBERT).

    mask: (batch, tokens), 1 for a real token.
    """
    each = (student.float() - teacher.float()).square().mean(-1)  # (batch, tokens)
    return (each * mask).sum() / mask.sum()


def attention_log_maps(queries: torch.Tensor, keys: torch.Tensor, heads: int, mask: torch.Tensor) -> torch.Tensor:
    """Logarithm of softmax(QKᵀ/√d), (batch, heads, tokens, tokens), from queries and keys (batch, tokens, width).

    Each row is a distribution over real tokens: it sums to 1 and gives padding nothing.
    """
    with torch.autocast(queries.device.type, enabled=False):  # or the product would be in bfloat16 all the same
        q, k = _heads(queries, heads), _heads(keys, heads)  # (batch, heads, tokens, width / heads)
        scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
    padding = mask[:, None, None, :] == 0
    # Finite, for -inf - -inf is no number: e^-3e38 is 0 as well.
    return scores.masked_fill(padding, torch.finfo(scores.dtype).min).log_softmax(-1)


def attention_loss(student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """KL(teacher ‖ student) of attention log maps (batch, heads, tokens, tokens), as `attention_log_maps` makes them.

    Mean over real query tokens and over heads (Sun et al. 2020, MobileBERT). Where the two have different numbers
    of heads, no head of one belongs to a head of the other, and the mean maps over heads are compared.
    """
    if student.shape[1] != teacher.shape[1]:
        student, teacher = _mean_map(student), _mean_map(teacher)
    each = (teacher.exp() * (teacher - student)).sum(-1)  # (batch, heads, tokens)
    return (each * mask[:, None, :]).sum() / (mask.sum() * each.shape[1])


def relation_loss(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], heads: int, mask: torch.Tensor
) -> torch.Tensor:
    """KL(teacher ‖ student) of self-attention relations, mean of queries, keys and values (Wang et al. 2021, MiniLMv2).

    student, teacher: the three kinds of vectors of one layer, each (batch, tokens, width). A relation is the
    attention map of vectors with themselves, in relation heads that have nothing to do with the networks' own.
    heads: number of relation heads; it divides both widths, see `relation_heads`.
    """
    maps = ([attention_log_maps(each, each, heads, mask) for each in vectors] for vectors in (student, teacher))
    return torch.stack([attention_loss(s, t, mask) for s, t in zip(*maps, strict=True)]).mean()


def relation_heads(student_heads: int, teacher_heads: int, *widths: int) -> int:
    """The greatest number of relation heads that divides both numbers of attention heads and all `widths`."""
    return math.gcd(student_heads, teacher_heads, *widths)


def _heads(vectors: torch.Tensor, heads: int) -> torch.Tensor:
    """(batch, heads, tokens, width / heads) from (batch, tokens, width)."""
    return vectors.float().unflatten(-1, (heads, -1)).transpose(1, 2)


def _mean_map(log_maps: torch.Tensor) -> torch.Tensor:
    """Logarithm of the mean over heads, (batch, 1, tokens, tokens)."""
    return log_maps.logsumexp(1, keepdim=True) - math.log(log_maps.shape[1])

"""Place the labels of a scatter plot next to their markers without overlaps.

The adjustText library ignores the size of markers and places labels on top of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GAPS = (3.0, 9.0, 18.0, 30.0, 45.0, 65.0, 90.0)
"""Possible distances between a marker and its label, in points."""
AROUND = np.array([-2.0, -1.0, 2.0, 1.0])
"""Margins around a label: left, bottom, right, top."""
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
STARTS, SWEEPS = 100, 20
STEPS = np.linspace(0, 1, 25)
OVERLAP, CROSSING, DISTANCE, DOUBT = 3.0, 10.0, 1.5, 6.0
"""Cost weights: overlapping area; length of a leader line over other objects; distance between a label and its marker;
how much closer the label is to another marker."""


@dataclass(frozen=True)
class Label:
    """A round marker and the size of its label."""

    x: float
    y: float
    radius: float
    width: float
    height: float

    @property
    def center(self) -> np.ndarray:
        return np.array([self.x, self.y])

    @property
    def marker(self) -> np.ndarray:
        """Return the bounding box of the marker: left, bottom, right, top (4,)."""
        return np.concatenate([self.center - self.radius, self.center + self.radius])

    def places(self, frame: np.ndarray) -> np.ndarray:
        """Return the possible boxes of the label inside `frame`, nearest first (places, 4)."""
        boxes = []
        for gap in GAPS:
            for right, up in SIDES:
                off = (self.radius + gap) * (0.75 if right and up else 1.0)
                left = self.x + right * off + (right - 1) * self.width / 2
                bottom = self.y + up * off + (up - 1) * self.height / 2
                left = min(max(left, frame[0]), frame[2] - self.width)
                bottom = min(max(bottom, frame[1]), frame[3] - self.height)
                boxes.append((left, bottom, left + self.width, bottom + self.height))
        return np.array(boxes)

    def nearest(self, boxes: np.ndarray) -> np.ndarray:
        """Return the point of each of `boxes` (…, 4) that is nearest to the marker (…, 2)."""
        return np.clip(self.center, boxes[..., :2], boxes[..., 2:])

    def gap(self, boxes: np.ndarray) -> np.ndarray:
        """Return the distance between the marker and each of `boxes` (…, 4), 0 where they touch (…)."""
        return (np.linalg.norm(self.nearest(boxes) - self.center, axis=-1) - self.radius).clip(0)


def place_labels(labels: Sequence[Label], frame: np.ndarray) -> np.ndarray:
    """Return a box for each label (labels, 4).

    Coordinate descent with random restarts: each label in turn moves to its cheapest place until none moves.
    frame: left, bottom, right and top of the allowed area.
    """
    places = np.array([label.places(frame) for label in labels])  # (labels, places, 4)
    own = np.array([_own_cost(i, labels, places[i]) for i in range(len(labels))])  # (labels, places)
    pairs = _cost_of_pairs(labels, places)
    every = np.arange(len(labels))
    rng = np.random.default_rng(0)
    best, lowest = np.zeros(len(labels), dtype=int), np.inf
    for start in range(STARTS):
        chosen = rng.integers(len(GAPS) * len(SIDES), size=len(labels)) * (start > 0)
        for _ in range(SWEEPS):
            before = chosen.copy()
            for i in every:
                chosen[i] = np.argmin(own[i] + pairs[i, every, :, chosen].sum(axis=0))
            if (chosen == before).all():
                break
        cost = own[every, chosen].sum() + pairs[every[:, None], every, chosen[:, None], chosen].sum() / 2
        if cost < lowest:
            best, lowest = chosen, cost
    return places[every, best]


def _own_cost(index: int, labels: Sequence[Label], boxes: np.ndarray) -> np.ndarray:
    """Return the cost of each of `boxes` (places, 4) for one label, without the other labels (places,)."""
    label, rivals = labels[index], [*labels[:index], *labels[index + 1 :]]
    markers = np.array([each.marker for each in labels])
    cost = OVERLAP * _overlap(boxes + AROUND, markers).sum(axis=1) + DISTANCE * label.gap(boxes)
    if rivals:
        cost += CROSSING * _crossed(label, boxes, np.delete(markers, index, axis=0)).sum(axis=1)
        cost += DOUBT * (label.gap(boxes) + 4 - np.min([each.gap(boxes) for each in rivals], axis=0)).clip(0)
    return cost


def _cost_of_pairs(labels: Sequence[Label], places: np.ndarray) -> np.ndarray:
    """Return the pairwise costs for the places of two labels (labels, labels, places, places)."""
    count, choices = places.shape[:2]
    costs = np.zeros((count, count, choices, choices))
    for i in range(count):
        for j in range(i):
            leaders = _crossed(labels[i], places[i], places[j]) + _crossed(labels[j], places[j], places[i]).T
            costs[i, j] = (
                OVERLAP * _overlap(places[i] + np.array([-2.0, -1.0, 2.0, 1.0]), places[j]) + CROSSING * leaders
            )
            costs[j, i] = costs[i, j].T
    return costs


def _crossed(label: Label, boxes: np.ndarray, obstacles: np.ndarray) -> np.ndarray:
    """Return the length of the leader line to each of `boxes` over each of `obstacles` (boxes, obstacles)."""
    leaders = label.nearest(boxes) - label.center  # (boxes, 2)
    points = (label.center + STEPS[:, None, None] * leaders)[:, :, None]  # (steps, boxes, 1, 2)
    inside = ((points >= obstacles[:, :2]) & (points <= obstacles[:, 2:])).all(axis=3)
    return inside.mean(axis=0) * np.linalg.norm(leaders, axis=1)[:, None]


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the areas that `boxes` (n, 4) share with `others` (m, 4): (n, m)."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return (high - low).clip(0).prod(axis=2)

"""Check that this machine gives the token ids, labels and scores that the package was shipped with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporters.loaders.command.machine import checked_versions, describe_machine, installed_versions, read_manifest
from exporters.loaders.command.model import Model, largest_difference, printable

GOLDEN_TOLERANCE = 5e-3
"""Largest accepted difference of golden scores, also stated in the manifest. Processors add in different orders, which
moves some activations to the next of their 255 codes."""


def golden_differences(model: Model, golden: list[dict[str, Any]]) -> tuple[int, int, float]:
    """Return the golden texts with other token ids, those with another label, and the largest score difference.

    Without ids in the manifest, as in older packages, no text has other ids.
    """
    ids = labels = 0
    gap = 0.0
    for entry in golden:
        texts = [entry["text"]]
        found = [int(i) for i in model.encode(texts)[0]]
        ids += found != entry.get("ids", found)
        labels += model.predict(texts)[0][0] != entry["label"]
        gap = max(gap, largest_difference(model.predict_proba(texts), [entry["scores"]]))
    return ids, labels, gap


def self_test(model: Model, folder: Path) -> None:
    """Print what is the same here as where the package was checked, and what is not.

    Raises: ValueError if token ids, labels or scores differ. Files were checked when the model was loaded.
    """
    manifest = read_manifest(folder)
    count, checked, machine = len(manifest["golden"]), checked_versions(manifest), describe_machine()
    ids, labels, gap = golden_differences(model, manifest["golden"])
    versions = [f"{name} {own} (checked: {checked[name]})" for name, own in installed_versions(checked).items()]
    checked_on = manifest["checked_on"]
    checked_on = [checked_on] if isinstance(checked_on, str) else checked_on  # of older packages, one processor
    flags = " ".join(machine["flags"]) or "no known flags"
    for topic, line in (
        ("files", f"{len(manifest['files'])} as in manifest.json"),
        ("token ids", f"{count - ids} of {count} golden texts as shipped"),
        ("labels", f"{count - labels} of {count} golden texts as shipped"),
        ("scores", f"largest difference {gap:.1e} (accepted: {GOLDEN_TOLERANCE})"),
        ("versions", ", ".join([*versions, f"Python {machine['python']}"])),
        ("processor", f"{machine['cpu']}, {machine['architecture']}, {flags} (checked: {', '.join(checked_on)})"),
    ):
        print(f"{topic:10} {printable(line)}")
    if ids or labels or not gap <= GOLDEN_TOLERANCE:
        raise ValueError("self-test failed: the model answers otherwise than where it was checked")
    print("self-test passed")

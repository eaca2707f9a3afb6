"""The inputs of a run outside its folder, recorded by content, so that a resumed run never mixes old and new ones.

The data file is not among them: `Run.corpus` compares its fingerprint.
"""

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from toolkit.config.recipe import Recipe
from toolkit.data.moved import found_again
from toolkit.modeling.classifier import CONFIG_FILE
from toolkit.modeling.ngram import is_ngram
from toolkit.stages.cross_validation import FOLD_FILE
from toolkit.stages.result import RESULT_FILE
from toolkit.stages.run_folder import BASELINE, INPUTS_FILE, Run, checkpoint_of, locate
from toolkit.utils.errors import InputError
from toolkit.utils.files import content_sha256, files_sha256

OPTIONS = ("--model", "--student", "--teacher", "--unlabelled")
_SUFFIXES = {".json", ".safetensors", ".txt", ".model", ".csv"}
"""Weights, configuration, tokenizer and predictions of a model folder."""
_TIMED = {RESULT_FILE, FOLD_FILE}
"""Files that also hold seconds, which differ between equal models."""


def contents_of_inputs(recipe: Recipe, options: Collection[str] = OPTIONS, owner: Path | None = None) -> dict[str, str]:
    """Return each input as on the command line, such as "--teacher runs/a", with a hash of its content.

    An input without a known content, such as a model that is not on this machine yet, is left out.
    owner: the folder of the run, beside which inputs are looked for if they have moved with it.
    """
    settings, named = recipe.distillation, []
    if "baseline" in recipe.stages:
        named.append(("--model", recipe.model.model))
    if settings.student is not None and not is_ngram(settings.student) and not settings.student.startswith("layers:"):
        named.append(("--student", settings.student))
    named += [("--teacher", teacher) for teacher in settings.teacher]
    if settings.unlabelled is not None:
        named.append(("--unlabelled", settings.unlabelled))
    named = [(option, value) for option, value in named if option in options]
    places = [value if owner is None else found_again(value, owner) for _, value in named]
    found = {f"{option} {value}": _content(option, place) for (option, value), place in zip(named, places, strict=True)}
    return {name: content for name, content in found.items() if content is not None}


def refuse_changed_inputs(run: Run, options: Collection[str] = OPTIONS) -> None:
    """Raise InputError if an input of these options has another content than when the run was started.

    Does nothing for a new run and for one that is older than this record.
    """
    file = run.folder / INPUTS_FILE
    if run.fingerprint is None or not file.is_file():
        return
    recorded, now = json.loads(file.read_text("utf-8")), contents_of_inputs(run.recipe, options, run.folder)
    changed = [name for name in now if recorded.get(name) not in (None, now[name])]
    if changed:
        raise InputError(
            f"{', '.join(changed)}: changed since {run.folder} was started; restore the old content, or train on the "
            "new one with another --name, or with --force to redo the run"
        )


def _content(option: str, value: str) -> str | None:
    """Return a hash of the file or model that an option names; None if there is none on this machine."""
    path = Path(value)
    if path.is_file():
        return content_sha256(path)
    if not path.is_dir():
        return None if value.startswith("shape:") else _revision(value)
    place = locate(path) if option == "--teacher" else None
    if place is not None and place.stage in (None, BASELINE) and BASELINE in place.run.results:
        stage = place.run.folder / BASELINE
        return _hash([*stage.glob("*"), *stage.glob("fold-*/*")], stage)
    folder = checkpoint_of(path) if option == "--teacher" else path
    return _hash(folder.glob("*"), folder)


def _hash(files: Iterable[Path], root: Path) -> str:
    """Return a hash of names and contents of the files that matter; times and other files do not count."""
    return files_sha256((file for file in files if file.name not in _TIMED and file.suffix in _SUFFIXES), root)


def _revision(model: str) -> str | None:
    """Return the commit of a hub model in the local cache; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        file = try_to_load_from_cache(model, CONFIG_FILE)
    except HFValidationError:
        return None
    return Path(file).parent.name if isinstance(file, str) else None

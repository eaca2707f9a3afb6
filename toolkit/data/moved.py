"""Find the files of a run or a package again, which may have moved with it or without it."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import Corpus, load_corpus
from toolkit.utils.errors import InputError


def same_corpus(
    settings: CorpusSettings, fingerprint: str, owner: Path, data: str | None, beside: Iterable[Path] = ()
) -> Corpus:
    """Return the corpus with this fingerprint, read from `data` or else found by the path in `settings`.

    If the file is not there or has other rows, the folders above `owner` and `beside` are tried: a run is in HOME/runs,
    a package in HOME/models, and a relative path starts at HOME.
    owner: the run or package that the corpus belongs to.
    data: the path that the user gives; no other is tried then.
    Raises: InputError if no such file has these rows.
    """
    if data is not None or settings.data == "demo":
        places = [data or settings.data]
    else:
        places = [settings.data, *beside_owners(settings.data, (owner, *beside))]
    problem = None
    for place in places:
        if data is None and place != "demo" and not Path(place).is_file():
            continue
        try:
            corpus = load_corpus(replace(settings, data=place))
        except InputError as error:
            problem = problem or error
            continue
        if corpus.fingerprint == fingerprint:
            return corpus
        problem = problem or InputError(
            f"{place}: not the rows that {owner} was trained on; restore the file, give its path with --data FILE, or "
            "train on the new rows with another --name"
        )
    raise problem or InputError(
        f"{settings.data}: no such file, and none beside {owner}; give its path with --data FILE"
    )


def found_again(path: str, owner: Path) -> str:
    """Return a file or folder that a run names as it is now: as recorded, else beside the run, else unchanged."""
    if Path(path).exists() or not Path(path).name:
        return path
    return next((place for place in beside_owners(path, [owner]) if Path(place).exists()), path)


def beside_owners(path: str, owners: Iterable[Path]) -> list[str]:
    """Return where a file may be after its run or package was moved: in one of the three folders from it upward."""
    names = dict.fromkeys([*([] if Path(path).is_absolute() else [path]), Path(path).name])
    folders = [folder for owner in owners for folder in (owner.absolute(), *owner.absolute().parents[:2])]
    return [(folder / name).as_posix() for folder in folders for name in names]

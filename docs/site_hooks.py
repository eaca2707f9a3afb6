"""Hooks of mkdocs: README and the other pages outside docs/ are pages of the site, and links between them work.

On GitHub, links are relative to the place of a file in the repository; in the site, docs/ is the root. A link to a file
that the site does not have is a warning, which fails the strict build.
"""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
OTHERS = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "models/README.md",
    "models/*/README.md",
    "benchmarks/results/*",
)
"""Files outside docs/ that are in the site, under the same path; README.md is its start page."""
HOME = "index.md"
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_log = logging.getLogger("mkdocs.hooks")


def on_files(files: Any, config: Any) -> Any:
    """Add the files outside docs/."""
    for pattern in OTHERS:
        for path in sorted(ROOT.glob(pattern)):
            place = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, in_site(place), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Rewrite the links of a page from places in the repository to places in the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(in_repository(here))

    def moved(link: re.Match[str]) -> str:
        place = posixpath.normpath(posixpath.join(folder, link[1]))
        if (ROOT / place).is_dir():
            place += "/README.md"
        target = in_site(place)
        if files.get_file_from_path(target) is None:
            _log.warning(f"{in_repository(here)}: {link[1]} is not in the site; add it to docs/site_hooks.py")
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{link[2] or ''})"

    return _LINK.sub(moved, markdown)


def in_site(place: str) -> str:
    """Return the path in the site of a file of the repository."""
    return HOME if place == "README.md" else place.removeprefix("docs/")


def in_repository(place: str) -> str:
    """Return the path in the repository of a page of the site."""
    if place == HOME:
        return "README.md"
    return place if (ROOT / place).is_file() else f"docs/{place}"

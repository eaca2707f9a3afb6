"""Extension of griffe, which reads docstrings for the site: each parameter, Returns and Raises begins a paragraph."""

import re
from typing import Any

import griffe

_PART = re.compile(r"^[ ]*([a-z_0-9]+(?:, [a-z_0-9]+)*|Returns|Raises): ", re.MULTILINE)


class Paragraphs(griffe.Extension):
    """Mark the parts of a docstring, which in the source are lines such as `force: replace it`."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _PART.sub(r"\n**\1**: ", obj.docstring.value)

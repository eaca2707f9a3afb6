"""Show an explanation: colored in the terminal, or as one HTML file that needs no network."""

from collections.abc import Sequence
from html import escape

import click

from toolkit.utils.console import printable
from toolkit.workflows.explaining.explain import EXACT, Explanation, Part

SHOWN = 8
"""Parts that weigh most, listed below the text."""
WEAK, STRONG = 0.1, 0.5
"""Shares of the largest contribution from which on a part is colored, and colored strongly."""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>What decided</title>
<style>
:root {{ color-scheme: light dark; --for: 37, 99, 235; --against: 217, 119, 6; }}
body {{ margin: 0 auto; max-width: 46rem; padding: 1rem; font: 1rem/1.6 system-ui, sans-serif; }}
.text {{ padding: .5rem; border: 1px solid #999; border-radius: .375rem; white-space: pre-wrap;
  overflow-wrap: anywhere; line-height: 2; }}
table {{ border-collapse: collapse; margin-top: .5rem; }}
th, td {{ text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #999; overflow-wrap: anywhere; }}
td:last-child {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def render(found: Explanation) -> None:
    """Print an explanation on stdout; colors appear on a terminal only."""
    click.echo(f"{printable(found.label)}\t{found.probability:.4f}")
    click.echo(_colored(found))
    click.echo(_sum_of(found))
    for name, parts in _tables(found):
        click.echo(f"{name}:")
        for part in parts:
            value = found.of(part)
            shown = printable(part.text.replace(" ", "␣"))
            click.echo(f"  {click.style(f'{value:+.4f}', fg=_color(value))}  {shown}")


def page(found: Sequence[Explanation]) -> str:
    """Return an HTML page that shows the explanations."""
    return _PAGE.format(body="\n".join(_section(each) for each in found))


def _sum_of(found: Explanation) -> str:
    """Return the line that says what the contributions mean."""
    logit = found.logits[found.labels.index(found.shown)]
    if found.method == EXACT and found.bias is not None:
        bias = found.bias[found.labels.index(found.shown)]
        words = sum(map(found.of, found.words))
        return f"logit of {printable(found.shown)}: {logit:+.4f} = {bias:+.4f} (bias) {words:+.4f} (words)"
    return f"logit of {printable(found.shown)}: {logit:+.4f}; the value of a word is how much it falls without the word"


def _tables(found: Explanation) -> list[tuple[str, Sequence[Part]]]:
    words = sorted(found.words, key=lambda part: -abs(found.of(part)))[:SHOWN]
    return [("words", words), *([("n-grams", found.ngrams[:SHOWN])] if found.ngrams else [])]


def _color(value: float) -> str:
    return "blue" if value > 0 else "yellow"


def _largest(found: Explanation) -> float:
    return max((abs(found.of(part)) for part in found.words), default=0.0) or 1.0


def _colored(found: Explanation) -> str:
    """Return the text with words that speak for the label in blue and those against it in yellow."""
    pieces, place, largest = [], 0, _largest(found)
    for part in found.words:
        pieces.append(printable(found.text[place : part.start]))
        share = abs(found.of(part)) / largest
        color = _color(found.of(part)) if share >= WEAK else None
        pieces.append(click.style(printable(part.text), fg=color, bold=share >= STRONG))
        place = part.end
    return "".join([*pieces, printable(found.text[place:])])


def _section(found: Explanation) -> str:
    pieces, place, largest = [], 0, _largest(found)
    parts = found.characters or found.words
    if found.characters:
        largest = max(abs(found.of(part)) for part in parts) or 1.0
    for part in parts:
        value = found.of(part)
        pieces.append(escape(found.text[place : part.start]))
        tone = "for" if value > 0 else "against"
        style = f"background: rgba(var(--{tone}), {min(1.0, abs(value) / largest) * 0.6:.2f})"
        pieces.append(
            f'<span style="{style}" title="{value:+.4f}">{escape(found.text[max(place, part.start) : part.end])}</span>'
        )
        place = max(place, part.end)
    pieces.append(escape(found.text[place:]))
    rows = "".join(
        f"<tr><td>{name[:-1]}</td><td>{escape(part.text.replace(' ', '␣'))}</td><td>{found.of(part):+.4f}</td></tr>"
        for name, listed in _tables(found)
        for part in listed
    )
    return (
        f"<h1>{escape(found.label)} {found.probability:.4f}</h1>\n"
        f'<div class="text" dir="auto">{"".join(pieces)}</div>\n'
        f"<p>Blue speaks for {escape(found.shown)}, orange against it. {escape(_sum_of(found))}</p>\n"
        f"<table><tr><th>part</th><th></th><th>adds</th></tr>{rows}</table>"
    )

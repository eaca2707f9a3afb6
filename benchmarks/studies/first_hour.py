"""The first hour of people with six files as others save them: one command each, from a file to a package that answers.

`python -m benchmarks.studies.first_hour --out first-hour.csv`. The files are synthetic reviews, written by this program
(`--files FOLDER` only writes them). It counts commands, questions and minutes, and fails if a package does not answer.
"""

import argparse
import csv
import io
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape
from zipfile import ZipFile

from toolkit.data.demo import demo_table
from toolkit.utils.console import print_table
from toolkit.utils.errors import InputError
from toolkit.utils.files import write_lines

ROWS = 600
NOISE = 0.08
"""Share of the reviews with a label by chance, as people disagree."""
Rows = list[list[str]]
"""The names of the columns, then one row each."""


@dataclass(frozen=True)
class Language:
    """Words for reviews: 'THING is JUDGMENT', two of them joined by a word that gives the last one the say."""

    things: str
    is_: str
    judgments: dict[str, str]
    """Label to judgments, separated by commas."""
    but: str
    openers: str
    """Words before a review, separated by bars."""

    def review(self, dice: random.Random) -> tuple[str, str]:
        """Return a text and its label."""
        labels = list(self.judgments)
        label, other = dice.choice(labels), dice.choice(labels)
        first, second = (self._clause(dice, each) for each in (other, label))
        one = dice.random() < 0.75
        text = second if one else f"{first}{self.but}{second[0].lower()}{second[1:]}"
        opener = dice.choice(["", *(f"{each} " for each in self.openers.split("|"))])
        return f"{opener}{text}{dice.choice(['.', '!', '', ' :)'])}", dice.choice(
            labels
        ) if dice.random() < NOISE else label

    def _clause(self, dice: random.Random, label: str) -> str:
        thing, judgment = dice.choice(self.things.split(", ")), dice.choice(self.judgments[label].split(", "))
        return f"{thing} {self.is_} {judgment}"


GERMAN = Language(
    "Der Kaffee, Das Frühstück, Die Lieferung, Der Akku, Das Gehäuse, Die Hülle, Der Verkäufer, Das Display, Die Tür",
    "ist",
    {
        "positiv": "sehr gut, überraschend schön, nicht schlecht, großartig, völlig in Ordnung, wirklich nützlich",
        "negativ": "leider schlecht, überhaupt nicht gut, viel zu süß, unzuverlässig, kaputt, wirklich enttäuschend",
    },
    ", aber ",
    "Heute:|Wie immer:|Ehrlich gesagt:|Zum dritten Mal da:|Für 12 €:|Kurz:|Meine Meinung:",
)
FRENCH = Language(
    "Le café, Le dîner, La livraison, La batterie, L'écran, La forêt, Le vendeur, La réponse, Le train, La chambre",
    "est",
    {
        "positif": "très bon, étonnamment beau, pas mauvais, génial, tout à fait correct, vraiment réussi",
        "négatif": "décevant, pas bon du tout, trop sucré, cassé, très lent, malheureusement mauvais",
    },
    ", mais ",
    "Hier :|Comme toujours :|Honnêtement :|Pour 12 € :|En bref :|À mon avis :|Troisième fois :",
)
SPANISH = Language(
    "El café, La cena, La batería, La pantalla, El niño del anuncio, La habitación, El tren, El envío, La respuesta",
    "es",
    {
        "positivo": "muy buena opción, nada mal, increíble, del todo correcto, realmente útil, rápido y fácil",
        "negativo": "una decepción, nada bueno, demasiado dulce, muy lento, difícil de usar, de mala calidad",
    },
    ", pero ",
    "Hoy:|Como siempre:|Sinceramente:|Por 12 €:|En resumen:|En mi opinión:|Tercera vez:",
)
ITALIAN = Language(
    "Il caffè, La cena, La batteria, Lo schermo, Il treno, La città, La stanza, Il venditore, La risposta",
    "è",
    {
        "positivo": "molto buono, niente male, semplicemente perfetto, del tutto giusto, davvero utile, bello",
        "negativo": "una delusione, per niente buono, troppo dolce, rotto, molto lento, purtroppo pessimo",
    },
    ", però ",
    "Oggi:|Come sempre:|Sinceramente:|Per 12 €:|In breve:|Secondo me:|Terza volta:",
)
ENGLISH = Language(
    "The coffee, The dinner, The delivery, The battery, The screen, The train, The room, The seller, The answer",
    "is",
    {
        "positive": "very good, not bad at all, great, really useful, better than before, a pleasure",
        "neutral": "as described, the usual one, average, what one expects, there, like the old one",
        "negative": "not good at all, a disappointment, broken, far too slow, worse than before, useless",
    },
    ", but ",
    "Today:|As always:|To be honest:|For $12:|In short:|I think:|Third time here:",
)


def reviews(language: Language, columns: Sequence[str], rows: int) -> Rows:
    """Return reviews with a number, text and label; `columns` names the three."""
    dice = random.Random(len(language.things))
    return [list(columns), *([str(number), *language.review(dice)] for number in range(1, rows + 1))]


def bangla(columns: Sequence[str], rows: int) -> Rows:
    """Return rows of the embedded demo corpus."""
    table = demo_table().columns
    texts = list(zip(table["text"], table["label"], strict=True))[:rows]
    return [list(columns), *([text, label] for text, label in texts)]


def write_csv(file: Path, rows: Rows, encoding: str, separator: str) -> None:
    """Write a table as spreadsheets do, with \\r\\n at the end of a row."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator="\r\n").writerows(rows)
    file.write_bytes(text.getvalue().encode(encoding))


def write_json_lines(file: Path, rows: Rows) -> None:
    names, *values = rows
    lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in values]
    file.write_text("\n".join(lines) + "\n", "utf-8")


def write_xlsx(file: Path, rows: Rows) -> None:
    """Write a workbook of one sheet, with texts inline."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    cells = ("".join(f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>' for value in row) for row in rows)
    links = f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" Type="{office}/%s" Target="%s"/>'
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/></Types>',
        "_rels/.rels": links % ("officeDocument", "xl/workbook.xml") + "</Relationships>",
        "xl/_rels/workbook.xml.rels": links % ("worksheet", "worksheets/sheet1.xml") + "</Relationships>",
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
        '<sheet name="Foglio1" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><sheetData>'
        + "".join(f"<row>{row}</row>" for row in cells)
        + "</sheetData></worksheet>",
    }
    with ZipFile(file, "w") as out:
        for name, xml in parts.items():
            out.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{xml}')


FILES: dict[str, tuple[str, Callable[[Path, int], None]]] = {
    "kommentare.csv": (
        "German, cp1252, ;",
        lambda file, rows: write_csv(file, reviews(GERMAN, ("Nr", "Kommentar", "Kategorie"), rows), "cp1252", ";"),
    ),
    "commentaires.csv": (
        "French, UTF-16, tab",
        lambda file, rows: write_csv(file, reviews(FRENCH, ("n°", "Commentaire", "Catégorie"), rows), "utf-16", "\t"),
    ),
    "comentarios.csv": (
        "Spanish, UTF-8 with BOM, comma",
        lambda file, rows: write_csv(file, reviews(SPANISH, ("id", "Comentario", "Etiqueta"), rows), "utf-8-sig", ","),
    ),
    "commenti.xlsx": (
        "Italian, Excel",
        lambda file, rows: write_xlsx(file, reviews(ITALIAN, ("n.", "Testo", "Etichetta"), rows)),
    ),
    "montobbo.tsv": (
        "Bangla, TSV",
        lambda file, rows: write_csv(file, bangla(("মন্তব্য", "লেবেল"), rows), "utf-8", "\t"),
    ),
    "reviews.jsonl": (
        "English, JSON Lines, 3 labels",
        lambda file, rows: write_json_lines(file, reviews(ENGLISH, ("id", "text", "label"), rows)),
    ),
}
"""Name of a file to what it is, and the function that writes it with so many rows."""


@dataclass(frozen=True)
class Hour:
    """What it took from one file to a package that answers."""

    file: str
    kind: str
    commands: int
    questions: int
    """Doubts that hbt would have asked about without --yes."""
    minutes: float
    student: str
    package_mb: float
    macro_f1: float
    linear_baseline: float
    answer: str
    """Of the package, without hbt, to the text 'ok'."""


def write_files(folder: Path, names: Sequence[str] = tuple(FILES), rows: int = ROWS) -> None:
    """Write files of these names into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        FILES[name][1](folder / name, rows)


def first_hour(name: str, folder: Path, options: Sequence[str], rows: int = ROWS) -> Hour:
    """Write a file, run `hbt auto` on it in `folder`, and ask the package without hbt.

    Raises: InputError if a command fails.
    """
    write_files(folder, [name], rows)
    started = time.monotonic()
    done = _run(["-m", "hbt", "auto", name, "--yes", "--json", *options], folder)
    minutes = (time.monotonic() - started) / 60
    made: dict[str, Any] = json.loads(done.stdout)
    answer = _run(["how_to_load.py", "ok"], folder / made["package"]).stdout.split("\t")[0]
    return Hour(
        file=name,
        kind=FILES[name][0],
        commands=1,
        questions=sum(line.startswith("in doubt:") for line in done.stderr.splitlines()),
        minutes=round(minutes, 2),
        student=made["student"],
        package_mb=round(made["package_mb"], 2),
        macro_f1=round(made["macro_f1"], 4),
        linear_baseline=round(made["macro_f1"] - made["versus_linear"]["macro_f1_difference"], 4),
        answer=answer,
    )


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, encoding="utf-8")
    if done.returncode != 0:
        raise InputError(f"{' '.join(arguments)}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return done


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.first_hour", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--files", type=Path, help="only write the six files into this folder")
    parser.add_argument("--minutes", default="3", help="minutes of each hbt auto")
    parser.add_argument("--model", help="encoder of each hbt auto")
    parser.add_argument("--out", default="first-hour.csv", type=Path)
    given = parser.parse_args()
    if given.files is not None:
        write_files(given.files)
        return
    options = ["--minutes", given.minutes, *(["--model", given.model] if given.model else [])]
    work = Path(tempfile.mkdtemp(prefix="hbt-first-hour-"))
    lines = []
    try:
        for name in FILES:
            lines.append(asdict(first_hour(name, work, options)))
            print(*lines[-1].values(), flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    write_lines(lines, given.out)
    print_table(
        [{key: str(value) for key, value in line.items()} for line in lines],
        f"hbt auto FILE --yes {' '.join(options)}",
        left=("file", "kind", "student", "answer"),
    )
    total = {key: sum(line[key] for line in lines) for key in ("commands", "questions", "minutes")}
    print(f"{total['commands']} commands, {total['questions']} questions, {total['minutes']:.0f} minutes")


if __name__ == "__main__":
    main()

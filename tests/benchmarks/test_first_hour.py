"""Six files as people have them: each is understood, and one of them becomes a package that answers."""

from pathlib import Path

import pytest

from benchmarks.studies.first_hour import FILES, first_hour, write_files
from toolkit.config.settings import CorpusSettings
from toolkit.workflows.auto.understanding import understand

UNDERSTOOD = {
    "kommentare.csv": ("Kommentar", "Kategorie", 2, 1),  # cp1252 can only be guessed
    "commentaires.csv": ("Commentaire", "Catégorie", 2, 0),
    "comentarios.csv": ("Comentario", "Etiqueta", 2, 0),
    "commenti.xlsx": ("Testo", "Etichetta", 2, 0),
    "montobbo.tsv": ("মন্তব্য", "লেবেল", 2, 0),
    "reviews.jsonl": ("text", "label", 3, 0),
}
"""Columns of texts and labels, number of labels, number of doubts."""


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_understood_as_it_was_meant(tmp_path: Path, name: str) -> None:
    if name.endswith(".xlsx"):
        pytest.importorskip("python_calamine")
    write_files(tmp_path, [name])
    found = understand(CorpusSettings(data=str(tmp_path / name)))
    settings = found.corpus.settings
    columns, labels = (settings.text_column, settings.label_column), len(found.corpus.label_names)
    assert (*columns, labels, len(found.doubts)) == UNDERSTOOD[name]
    assert len(found.corpus.texts) == 600
    assert not any("\ufffd" in text or "Ã" in text for text in found.corpus.texts)


@pytest.mark.slow
def test_one_command_leads_to_a_package_that_answers(tmp_path: Path) -> None:
    hour = first_hour("commentaires.csv", tmp_path, ["--minutes", "0.1"])
    assert (hour.commands, hour.questions) == (1, 0)
    assert hour.answer in ("positif", "négatif")
    assert (tmp_path / "models" / "commentaires" / "manifest.json").is_file()

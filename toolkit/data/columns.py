"""Find the columns of texts and labels by name, in the languages in which people name them."""

from difflib import get_close_matches

from toolkit.data.tables import Table
from toolkit.utils.errors import InputError

TEXT_COLUMNS = (
    *("text", "comments", "comment", "sentence", "content", "tweet", "review", "document", "message", "post", "body"),
    *("texts", "sentences", "reviews", "tweets", "messages"),
    *("kommentar", "kommentare", "nachricht", "beitrag", "bewertung"),  # German
    *("texte", "commentaire", "commentaires", "texto", "comentario", "comentário", "testo", "commento", "tekst"),
    *("metin", "yorum", "teks", "komentar", "текст", "комментарий"),
    *("মন্তব্য", "লেখা", "টেক্সট", "বাক্য", "टिप्पणी", "पाठ", "نص", "تعليق", "متن", "文本", "评论", "テキスト", "텍스트"),
)
"""Names of text columns, in lower case; the first that a table has is used."""
LABEL_COLUMNS = (
    *("label", "labels", "hatespeech", "class", "category", "target", "sentiment", "hate", "topic", "intent", "toxic"),
    *("klasse", "kategorie", "etikett", "étiquette", "catégorie", "classe", "etiqueta", "categoría", "clase"),
    *("rótulo", "categoria", "etichetta", "etiket", "sınıf", "kategori", "kategoria", "метка", "класс", "категория"),
    *("লেবেল", "শ্রেণি", "শ্রেণী", "ধরন", "लेबल", "श्रेणी", "تصنيف", "برچسب", "标签", "类别", "ラベル", "라벨"),
)
"""Names of label columns, as TEXT_COLUMNS."""


def find_column(table: Table, given: str | None, option: str, known: tuple[str, ...]) -> str:
    """Return the column `given` or, if None, the first of the `known` names that is in the table, in any case.

    Raises: InputError, with the name of the option, if there is none.
    """
    columns = ", ".join(table.columns)
    by_lower = {name.strip().casefold(): name for name in reversed(table.columns)}
    if given is not None:
        if given in table.columns:
            return given
        meant = get_close_matches(given.strip().casefold(), by_lower, 1)
        fix = f"; did you mean {by_lower[meant[0]]!r}?" if meant else ""
        raise InputError(f"{table.source}: no column {given!r} ({option}); the columns are {columns}{fix}")
    for name in known:
        if name.casefold() in by_lower:
            return by_lower[name.casefold()]
    kind = option.strip("-").replace("-", " ")
    near = [by_lower[match] for name in known for match in get_close_matches(name.casefold(), by_lower, 1, 0.75)]
    fix = f"; did you mean {option} {near[0]!r}?" if near else f"; name it with {option}"
    raise InputError(f"{table.source}: no {kind} found by name among {columns}{fix}")

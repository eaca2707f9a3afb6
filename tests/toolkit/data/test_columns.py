import pytest

from toolkit.data.columns import LABEL_COLUMNS, TEXT_COLUMNS, find_column
from toolkit.data.tables import Table
from toolkit.utils.errors import InputError


def table(*names: str) -> Table:
    return Table("file.csv", {name: ["a"] for name in names})


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Text", "LABEL"),
        ("Kommentar", "Klasse"),
        (" Comments ", "HateSpeech"),
        ("commentaire", "Étiquette"),
        ("Texto", "Categoría"),
        ("মন্তব্য", "লেবেল"),
        ("текст", "Метка"),
        ("文本", "标签"),
        ("metin", "ETIKET"),
    ],
)
def test_columns_are_found_by_their_names_in_many_languages_and_any_case(text: str, label: str) -> None:
    found = table("id", label, text)
    assert find_column(found, None, "--text-column", TEXT_COLUMNS) == text
    assert find_column(found, None, "--label-column", LABEL_COLUMNS) == label


def test_no_name_is_both_a_text_and_a_label() -> None:
    assert not set(TEXT_COLUMNS) & set(LABEL_COLUMNS)
    for names in (TEXT_COLUMNS, LABEL_COLUMNS):
        assert list(names) == [name.casefold() for name in names]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("names", "given", "fix"),
    [
        (("id", "texxt"), None, "did you mean --text-column 'texxt'?"),
        (("id", "kommentare_neu"), None, "did you mean --text-column 'kommentare_neu'?"),
        (("id", "x"), None, "name it with --text-column"),
        (("id", "Comment"), "comment", "did you mean 'Comment'?"),
    ],
)
def test_a_near_miss_is_suggested(names: tuple[str, ...], given: str | None, fix: str) -> None:
    with pytest.raises(InputError) as caught:
        find_column(table(*names), given, "--text-column", TEXT_COLUMNS)
    assert str(caught.value).endswith(fix)

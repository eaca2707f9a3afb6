"""What `hbt auto` understands of a file, and what it takes for doubtful."""

from pathlib import Path

import pytest

from toolkit.config.settings import CorpusSettings
from toolkit.data.profile import script_shares
from toolkit.modeling.known_encoders import BANGLA, LATIN, MULTILINGUAL, encoder_for
from toolkit.utils.errors import InputError
from toolkit.workflows.auto.understanding import Understood, understand


def rows(header: str, separator: str = ",", count: int = 60, word: str = "plain") -> str:
    lines = (separator.join((f"{i}", f"the {word} row {i} of words", ("good", "bad")[i % 2])) for i in range(count))
    return "\n".join([header, *lines]) + "\n"


def understood(folder: Path, content: bytes, **settings: str) -> Understood:
    (folder / "file.csv").write_bytes(content)
    return understand(CorpusSettings(data=str(folder / "file.csv"), **settings))


def test_a_plain_file_is_shown_and_leaves_no_doubt(tmp_path: Path) -> None:
    found = understood(tmp_path, rows("id;text;label", ";").encode())
    shown = "\n".join(found.lines)
    for part in ("60 rows, utf-8, separated by semicolon", "column 'text'", "column 'label', 2: good 30, bad 30"):
        assert part in shown
    assert found.doubts == ()
    assert found.corpus.folds == 5


def test_a_guessed_encoding_is_doubtful_and_a_given_one_is_not(tmp_path: Path) -> None:
    content = rows("id,text,label", word="schöne Häuser für Bücher").encode("cp1252")
    assert "--encoding" in "".join(understood(tmp_path, content).doubts)
    assert understood(tmp_path, content, encoding="cp1252").doubts == ()


def test_columns_without_a_known_name_are_found_by_their_content_which_is_doubtful(tmp_path: Path) -> None:
    found = understood(tmp_path, rows("a,b,c").encode())
    assert (found.corpus.settings.text_column, found.corpus.settings.label_column) == ("b", "c")
    assert ["--text-column" in found.doubts[0], "--label-column" in found.doubts[1]] == [True, True]
    assert understood(tmp_path, rows("a,b,c").encode(), text_column="b", label_column="c").doubts == ()


def test_two_columns_that_may_hold_the_labels_are_doubtful(tmp_path: Path) -> None:
    content = rows("topic,text,sentiment").encode()
    (doubt,) = understood(tmp_path, content).doubts
    assert "'sentiment' is taken for the labels, but there is 'topic'" in doubt


def test_without_a_column_that_can_hold_labels_the_option_is_named(tmp_path: Path) -> None:
    content = "\n".join(["a,b", *(f"{i},the row {i} of words" for i in range(40))]).encode()
    with pytest.raises(InputError, match="--label-column"):
        understood(tmp_path, content)


def test_a_rare_label_gets_fewer_folds_and_is_doubtful(tmp_path: Path) -> None:
    content = (rows("id,text,label") + "".join(f"r{i},the rare row {i},rare\n" for i in range(6))).encode()
    found = understood(tmp_path, content)
    assert found.corpus.folds < 5
    assert any("'rare' has only 6 rows" in doubt for doubt in found.doubts)


@pytest.mark.parametrize(
    ("text", "encoder"),
    [
        ("ক্যামেরা ভালো কিন্তু ব্যাটারি একদম বাজে", BANGLA),
        ("the camera is good and it works for you", LATIN),
        ("die Kamera ist gut, aber der Akku hält nicht", MULTILINGUAL),
        ("الكاميرا جيدة ولكن البطارية سيئة", MULTILINGUAL),
        ("ক্যামেরা ভালো and the camera of it is good", MULTILINGUAL),
        ("12 345", MULTILINGUAL),
    ],
)
def test_the_encoder_is_chosen_by_script_and_language(text: str, encoder: object) -> None:
    assert encoder_for(script_shares([text]), [text]) == encoder

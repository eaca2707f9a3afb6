"""`--describe`: purpose and meanings on the card, and one line for what cannot be used."""

from pathlib import Path

import pytest

from tests.toolkit.export.test_model_card import card
from toolkit.export.reliability.described import described
from toolkit.utils.errors import InputError

LABELS = ("no", "yes")


def test_purpose_and_meanings_are_on_the_card_in_the_order_of_the_labels(tmp_path: Path) -> None:
    file = tmp_path / "labels.toml"
    file.write_text('purpose = "Finds *complaints*."\n[labels]\nyes = "A | complaint"\nno = "Anything else"\n', "utf-8")
    found = described(str(file), LABELS)
    assert list(found["labels"].items()) == [("no", "Anything else"), ("yes", "A | complaint")]
    rendered = card(LABELS, description=found)
    first_screen = rendered.split("## Use")[0]
    assert "Finds \\*complaints\\*." in first_screen
    assert first_screen.index("`no`: Anything else") < first_screen.index("`yes`: A \\| complaint")
    assert "not described" not in first_screen


def test_what_is_not_described_says_so(tmp_path: Path) -> None:
    file = tmp_path / "labels.toml"
    file.write_text('[labels]\nyes = "A complaint"\n', "utf-8")
    found = described(str(file), LABELS)
    assert found == {"purpose": "", "labels": {"yes": "A complaint"}}
    assert "`no`: not described" in card(LABELS, description=found)
    assert "not described" in card(LABELS).split("## Use")[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("purpose = ", "not readable as TOML"),
        (b"\xff", "not readable as TOML"),
        ("", "neither purpose nor labels"),
        ('labels = "yes"', "labels is not a table"),
        ('aim = "x"', "no such key 'aim'"),
        ("purpose = 3", "purpose is int, not a text"),
        ("[labels]\nyes = true", r"\[labels\] yes is bool, not a text"),
        ('[labels]\nyess = "x"', "no label 'yess'; did you mean 'yes'"),
        ('[labels]\nother = "x"', "no label 'other'; the labels are no, yes"),
        (f'purpose = "{"x" * 1001}"', "purpose has 1,001 characters"),
    ],
)
def test_unusable_files_are_one_line(tmp_path: Path, content: str | bytes | None, message: str) -> None:
    file = tmp_path / "labels.toml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        described(str(file), LABELS)
    assert f"--describe {file}: " in str(caught.value)

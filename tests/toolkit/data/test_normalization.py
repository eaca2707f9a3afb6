import json
import unicodedata
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from toolkit.data import normalization
from toolkit.data.demo import DEMO_SENTENCES
from toolkit.data.normalization import normalize, with_normalizer


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("", ""),
        (" \t\n\u00a0\u3000 ", ""),
        ("a\u00a0\u00a0b\r\nc", "a b c"),
        ("\ufeffভালো", "ভালো"),
        ("\u09df\u09dc\u09dd", "\u09af\u09bc\u09a1\u09bc\u09a2\u09bc"),
        ("ভাল\u09c7\u09be", "ভাল\u09cb"),
        ("ক\u09c7\u200b\u09be", "ক\u09cb"),
        ("র\u200d\u09cdযাব", "র\u09cdযাব"),
        ("so\u00adft", "soft"),
        ("e\u0301", "\u00e9"),
        ("\x00a\x1fb\x7f", "ab"),
        ("A! 🙂 ১২", "A! 🙂 ১২"),
    ],
)
def test_a_text_is_normalized(raw: str, clean: str) -> None:
    assert normalize(raw) == clean


@pytest.mark.parametrize("text", [*DEMO_SENTENCES, " \u200b ", "\u00a0\u09c7\u200c\u09be ", "\u0344\u200d\u0301"])
def test_normalizing_twice_changes_nothing(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize("text", DEMO_SENTENCES)
def test_it_agrees_with_the_standard_library(text: str) -> None:
    visible = "".join(char for char in text if char not in "\u200b\u200d")
    assert normalize(text) == " ".join(unicodedata.normalize("NFC", visible).split())


def tokenizer(own: normalizers.Normalizer | None = None) -> Tokenizer:
    made = Tokenizer(models.WordLevel({"[UNK]": 0, "good": 1, "\u09af\u09bc": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if own is not None:
        made.normalizer = own
    return made


def test_a_saved_tokenizer_contains_the_normalizer(tmp_path: Path) -> None:
    with_normalizer(tokenizer()).save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert loaded.encode("\ufeffgood\u00a0\u09df").ids == [1, 2]


def test_the_own_normalizer_of_a_tokenizer_is_applied_after_ours() -> None:
    assert with_normalizer(tokenizer(normalizers.Lowercase())).encode("GO\u200bOD \u09df").ids == [1, 2]


@pytest.mark.parametrize("own", [None, normalizers.NFKC(), normalizers.Sequence([normalizers.Lowercase()])])
def test_a_resumed_run_does_not_add_the_normalizer_again(own: normalizers.Normalizer | None) -> None:
    once = json.loads(with_normalizer(tokenizer(own)).to_str())
    again = with_normalizer(Tokenizer.from_str(json.dumps(once)))
    assert json.loads(again.to_str()) == once


@pytest.mark.parametrize("form", ["{}", "a{}b", " {}", "a {}", "a{} b "])
def test_texts_that_need_no_normalizer_are_what_it_would_return(form: str) -> None:
    for code in (*range(0x180), 0x200B, 0x301, 0x9BE, 0xFE0F, 0x1F642):
        text = form.format(chr(code))
        assert normalize(text) == normalization._NORMALIZER.normalize_str(text)
        plain = normalize(text).casefold()
        words = "".join(each if normalization._is_part_of_word(each) else " " for each in plain)
        assert normalization.duplicate_key(text) == (" ".join(words.split()) or plain)

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.feature_extraction.text import CountVectorizer

from tests.helpers import ODD_TEXTS
from toolkit.evaluation.decision_rule import DecisionRule
from toolkit.modeling.classifier import Classifier, like_lengths, load_classifier, save_classifier
from toolkit.modeling.ngram import (
    PAD_ID,
    SPACE,
    SPACE_ID,
    UNKNOWN_ID,
    NgramConfig,
    NgramNetwork,
    character_tokenizer,
    is_ngram,
    rows_of,
    table_rows,
)
from toolkit.modeling.tokenizer import encode, truncation_of
from toolkit.utils.errors import InputError

TEXTS = [
    "ভালো না, খারাপও না",
    "ফোনের ক্যামেরা ভালো কিন্তু ব্যাটারি একদম বাজে।",
    "a",
    "I am",
    "sea sun sea sun",
    "aaaaaaa",
    "!?",
    "বাস   দেরি\tকরে\nআসে",
]


def student(labels: int = 2, rows: int = 512, seed: int = 0) -> Classifier:
    """Return a student with random weights, and with all squared idf values of at least 1."""
    outputs = 1 if labels == 2 else labels
    network = NgramNetwork(NgramConfig(rows, outputs))
    random = torch.Generator().manual_seed(seed)
    network.table.data[1:, 0] = 1 + 80 * torch.rand(rows - 1, generator=random)
    network.table.data[1:, 1:] = 5 * torch.randn(rows - 1, outputs, generator=random)
    network.intercept.data = torch.randn(outputs, generator=random)
    names = tuple(f"label {i}" for i in range(labels))
    return Classifier(network.eval(), character_tokenizer(TEXTS), PAD_ID, names)


def windows_by_hand(ids: list[int]) -> list[list[int] | None]:
    """Return all windows of 2 to 5 characters, by length and then by start; None if the window is not an n-gram."""
    found: list[list[int] | None] = []
    for length in range(2, 6):
        for start in range(len(ids)):
            window = ids[start : start + length]
            complete = len(window) == length and window[-1] != 0
            found.append(window if complete and 2 not in window[1:-1] else None)
    return found


def rows_by_hand(ids: list[int], rows: int) -> list[int]:
    found = []
    for window in windows_by_hand(ids):
        hashed = 0
        for char in window or []:
            hashed = (hashed * 1_000_003 + char) % (2**31 - 1)
        found.append(hashed % (rows - 1) + 1 if window else 0)
    return found


def word_rows_by_hand(ids: list[int], rows: int, word_rows: int) -> list[int]:
    """Return the rows of words and pairs of words, in the order of the text."""
    found, before, modulus = [], 0, 2**31 - 1
    spaces = [place for place, char in enumerate(ids) if char == SPACE_ID]
    for start, end in pairwise(spaces):
        word, total = ids[start : end + 1], 0
        for i in range(len(word) - 2):
            total += ((word[i] * 1_000_003**2 + word[i + 1] * 1_000_003 + word[i + 2]) % modulus) ** 2
        total %= modulus
        if total:
            found.append(total)
        if total and before:
            found.append((before * 1_000_003 + total) % modulus)
        before = total
    return [rows - word_rows + each % word_rows for each in found]


def logits_by_hand(classifier: Classifier, text: str) -> np.ndarray:
    network = classifier.network
    assert isinstance(network, NgramNetwork)
    table, intercept = network.table.double().numpy(), network.intercept.double().numpy()
    rows = [row for row in rows_by_hand(classifier.tokenizer.encode(text).ids, len(table)) if row]
    squares, weights = table[rows, 0].sum(), table[rows, 1:].sum(axis=0)
    scores = weights / max(squares, 1.0) ** 0.5 + intercept
    return np.array([-scores[0] / 2, scores[0] / 2]) if len(scores) == 1 else scores


@pytest.mark.parametrize("rows", [256, 1000, 2**18])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 4), (5, 37)])
def test_table_rows_agree_with_a_loop_over_the_definition(rows: int, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    ids = random.choice([0, 1, 2, 2, 2, 3, 4, 50, 999, 70_000, 1_114_111], shape)
    found = table_rows(torch.from_numpy(ids), rows)
    assert found.tolist() == [rows_by_hand(text, rows) for text in ids.tolist()]
    assert found.max() < rows


@pytest.mark.parametrize(("rows", "word_rows"), [(256, 64), (1000, 7), (2**18, 2**16)])
def test_words_and_pairs_of_words_have_rows_of_their_own(rows: int, word_rows: int) -> None:
    random = np.random.default_rng(0)
    texts = [[SPACE_ID, *random.choice([1, 2, 2, 3, 4, 5, 900], n), SPACE_ID] for n in (0, 1, 2, 9, 30, 30)]
    ids = torch.tensor([[*text, *[PAD_ID] * (32 - len(text))] for text in texts])
    windows = table_rows(ids, rows - word_rows)
    found = table_rows(ids, rows, word_rows)
    for text, own, of_windows in zip(texts, found.tolist(), windows.tolist(), strict=True):
        words = sorted(row for row in own if row >= rows - word_rows)
        assert words == sorted(word_rows_by_hand([*map(int, text)], rows, word_rows))
        assert sorted(row for row in own if 0 < row < rows - word_rows) == sorted(row for row in of_windows if row)


def test_words_of_the_same_letters_have_different_rows() -> None:
    tokenizer = character_tokenizer(["trail trial", "abc"])
    words = ["trail", "trial", "triala", "a", "ab", "aba", "abab", "ababab"]
    found = [table_rows(torch.tensor([tokenizer.encode(word).ids]), 2**24, 2**23).max().item() for word in words]
    assert len(set(found)) == len(words)
    pairs = [table_rows(torch.tensor([tokenizer.encode(text).ids]), 2**24, 2**23) for text in ("a ab", "ab a")]
    assert len({*pairs[0].unique().tolist()} ^ {*pairs[1].unique().tolist()}) == 2


@pytest.mark.parametrize("text", TEXTS)
def test_the_ngrams_are_those_of_char_wb(text: str) -> None:
    tokenizer = character_tokenizer(TEXTS)
    analyse = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5), lowercase=False).build_analyzer()
    expected = sorted(analyse(tokenizer.normalizer.normalize_str(text).replace(SPACE, " ")))
    ids = tokenizer.encode(text).ids
    windows = [window for window in windows_by_hand(ids) if window]
    found = sorted("".join(tokenizer.id_to_token(i) for i in window).replace(SPACE, " ") for window in windows)
    assert found == expected
    assert np.count_nonzero(table_rows(torch.tensor([ids]), 2**18)) == len(expected)


@pytest.mark.parametrize("labels", [2, 3, 7])
def test_logits_agree_with_the_formula(labels: int) -> None:
    made = student(labels)
    texts = [*TEXTS, *ODD_TEXTS, ""]
    expected = [logits_by_hand(made, text) for text in texts]
    np.testing.assert_allclose(made.predict_logits(texts), expected, atol=1e-5)
    assert np.ptp(expected, axis=0).min() > 1


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_logits_do_not_depend_on_padding_or_batch_composition(batch_size: int) -> None:
    made = student(3)
    single = np.concatenate([made.predict_logits([text]) for text in ODD_TEXTS])
    np.testing.assert_allclose(made.predict_logits(ODD_TEXTS, batch_size), single, atol=1e-6)


def test_a_text_without_a_known_ngram_gets_the_intercept() -> None:
    made = student()
    assert isinstance(made.network, NgramNetwork)
    made.network.table.data[:] = 0
    half = made.network.intercept.item() / 2
    np.testing.assert_allclose(made.predict_logits(["", "sea"]), [[-half, half]] * 2, atol=1e-7)


def test_unknown_characters_become_the_unknown_token() -> None:
    tokenizer = character_tokenizer(["ab"])
    assert encode(tokenizer, ["azb", "a🙂b"]) == [[2, 3, UNKNOWN_ID, 4, 2]] * 2
    assert encode(tokenizer, [""]) == [[SPACE_ID, SPACE_ID]]


def test_a_text_is_normalized_and_lowercased() -> None:
    tokenizer = character_tokenizer(["abc য়"])
    normalized = tokenizer.encode("ab \u09af\u09bc").ids
    assert tokenizer.encode(" \ufeffA\u200bB\u00a0 \u09df ").ids == normalized
    assert UNKNOWN_ID not in normalized


def test_names_of_special_tokens_in_a_text_are_plain_characters() -> None:
    tokenizer = character_tokenizer(["[pad] [unk]"])
    found = encode(tokenizer, ["[PAD]", "[UNK]", "[pad]"])
    assert found[0] == found[2]
    assert len(found[1]) == 7
    assert not {PAD_ID, UNKNOWN_ID} & set(found[0] + found[1])


def test_a_long_text_is_read_to_its_end() -> None:
    made = student()
    assert made.max_length is None
    assert truncation_of(made.tokenizer, ["a" * 9000]) is None
    first, second = made.predict_logits(["a b " * 5000 + "sea", "a b " * 5000 + "sun"])
    assert not np.array_equal(first, second)


def test_long_texts_are_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.modeling.classifier.MOST_TOKENS", 100)
    lengths = [3, 250, 40, 41, 2, 2, 50]
    batches = list(like_lengths([[0] * length for length in lengths], 3))
    assert batches == [[1], [6, 3], [2, 0], [4, 5]]


def test_an_older_checkpoint_still_truncates_and_keeps_both_spaces(tmp_path: Path) -> None:
    made = student()
    made.tokenizer.enable_truncation(max_length=1024)
    save_classifier(made, tmp_path)
    back = load_classifier(tmp_path)
    ids = back.tokenizer.encode("ab" * 1024).ids
    assert (back.max_length, len(ids), ids[0], ids[-1]) == (1024, 1024, SPACE_ID, SPACE_ID)
    assert len(np.unique(back.predict_logits(["a" * 1022, "a" * 1023, "a" * 9000]), axis=0)) == 1


@pytest.mark.parametrize(
    ("name", "rows"), [("ngram", 2**18), ("ngram:17", 2**17), ("ngram:8", 256), ("ngram:24", 2**24)]
)
def test_the_number_of_table_rows_follows_from_the_name(name: str, rows: int) -> None:
    assert is_ngram(name)
    assert rows_of(name) == rows


@pytest.mark.parametrize("name", ["ngram:", "ngram:7", "ngram:25", "ngram:x", "ngram:-9", "ngram: 17", "ngram:17:2"])
def test_an_invalid_name_is_reported_with_valid_ones(name: str) -> None:
    assert is_ngram(name)
    with pytest.raises(InputError, match=r"use ngram, or ngram:BITS .* BITS from 8 to 24"):
        rows_of(name)


@pytest.mark.parametrize("name", [None, "", "ngrams", "n-gram", "layers:2", "NGRAM"])
def test_other_names_are_not_an_ngram_student(name: str | None) -> None:
    assert not is_ngram(name)


@pytest.mark.parametrize("labels", [2, 7])
@pytest.mark.parametrize("threshold", [None, 0.35])
def test_a_saved_student_gives_bit_identical_logits(tmp_path: Path, labels: int, threshold: float | None) -> None:
    made = student(labels).with_rule(DecisionRule(threshold))
    save_classifier(made, tmp_path / "deep" / "checkpoint")
    back = load_classifier(tmp_path / "deep" / "checkpoint")
    assert back.predict_logits(ODD_TEXTS).tobytes() == made.predict_logits(ODD_TEXTS).tobytes()
    assert (back.labels, back.threshold, back.max_length, back.pad_id) == (made.labels, threshold, None, PAD_ID)
    assert back.parameters == made.parameters
    stored = json.loads((tmp_path / "deep" / "checkpoint" / "config.json").read_text("utf-8"))
    assert (stored["model_type"], stored["rows"], stored["hbt"]) == (
        "ngram",
        512,
        {"threshold": threshold, "offsets": None},
    )


def test_a_student_loads_without_transformers(tmp_path: Path) -> None:
    save_classifier(student(), tmp_path)
    script = (
        "import sys; from pathlib import Path; from toolkit.modeling.classifier import load_classifier; "
        "load_classifier(Path(sys.argv[1])).predict_proba(['a']); print('transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def _config(**changed: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8")) | changed
        (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}), "utf-8")

    return damage


def _no_intercept(folder: Path) -> None:
    save_file({"table": load_file(folder / "model.safetensors")["table"]}, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_config(rows=None), "rows and outputs"),
        (_config(rows="many"), "rows and outputs"),
        (_config(rows=0), "rows and outputs"),
        (_config(outputs=2), "rows and outputs"),
        (_config(outputs=[1]), "rows and outputs"),
        (_config(id2label={"0": "a", "1": "b", "2": "c"}), "rows and outputs"),
        (_config(rows=256), "cannot load the weights"),
        (_no_intercept, "cannot load the weights"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot load the weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), "cannot load the weights"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot load the tokenizer"),
        (lambda folder: (folder / "config.json").unlink(), "not a model folder"),
    ],
)
def test_a_damaged_student_is_reported_in_one_line_with_its_name(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    save_classifier(student(), tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        load_classifier(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)

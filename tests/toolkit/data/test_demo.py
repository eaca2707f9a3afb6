import hashlib
import json
import unicodedata
from collections import Counter

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline

from toolkit.config.settings import CorpusSettings
from toolkit.data.corpus import corpus_from_table, describe_split, text_values
from toolkit.data.demo import DEMO_LABEL_NAMES, DEMO_SENTENCES, KINDS, demo_table
from toolkit.data.normalization import normalize


def test_the_embedded_corpus_is_the_same_on_every_machine() -> None:
    columns = json.dumps(demo_table().columns, ensure_ascii=False)
    assert (
        hashlib.sha256(columns.encode()).hexdigest()
        == "5e3ffbab17af4831da9aecbc39e055ebe583a054dcfe5b06c6fcec469b60db36"
    )


def test_the_positive_label_is_the_complaint() -> None:
    assert (
        corpus_from_table(demo_table(), CorpusSettings()).label_names == DEMO_LABEL_NAMES == ("approval", "complaint")
    )


def test_every_kind_can_be_a_slice() -> None:
    corpus = corpus_from_table(demo_table(), CorpusSettings(slice=("kind",)))
    assert set(corpus.slices) == {f"kind={kind}" for kind in KINDS}
    test = corpus.rows("test")
    assert all(mask[test].sum() >= 15 for mask in corpus.slices.values())


def test_there_are_duplicates_and_conflicting_labels() -> None:
    split = describe_split(corpus_from_table(demo_table(), CorpusSettings()))
    assert split["duplicate_groups"] > 50
    assert split["conflicting_groups"] > 0


def test_shares_add_up_and_labels_are_nearly_balanced() -> None:
    assert sum(KINDS.values()) == 100
    counts = Counter(demo_table().columns["label"])
    assert 0.45 < counts["complaint"] / sum(counts.values()) < 0.55


def test_character_n_grams_cannot_solve_it() -> None:
    corpus = corpus_from_table(demo_table(), CorpusSettings())
    texts, train, test = np.array(corpus.texts, dtype=object), corpus.rows("train"), corpus.rows("test")
    linear = make_pipeline(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), min_df=2), LogisticRegression(C=4))
    linear.fit(texts[train], corpus.labels[train])
    assert 0.80 < f1_score(corpus.labels[test], linear.predict(texts[test]), average="macro") < 0.92


def test_golden_texts_cover_what_breaks_a_tokenizer() -> None:
    text = "".join(DEMO_SENTENCES)
    assert all(char in text for char in ("\u00a0", "\u200b", "\u200d", "\t", "\u09df", "\u09dc", "\u09dd", "🔋"))
    assert max(len(text.split()) for text in DEMO_SENTENCES) > 300
    assert len(set(map(normalize, DEMO_SENTENCES))) == len(DEMO_SENTENCES)


def test_only_copies_have_other_code_points() -> None:
    texts = text_values(demo_table(), "text")
    odd = [text for text in texts if unicodedata.normalize("NFC", text) != text]
    assert 0 < len(odd) < len(texts) / 50

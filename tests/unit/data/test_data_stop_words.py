"""TextAttack's import asks NLTK for this list; it must be found without a download."""

from __future__ import annotations

from importlib.resources import files

import pytest

FOLDER = files("eexit_cli") / "assets" / "nltk_data"


def test_the_list_is_complete():
    words = (FOLDER / "corpora" / "stopwords" / "english").read_text(encoding="utf-8").split("\n")
    assert words.pop() == ""
    assert len(words) == len(set(words)) == 179
    assert {"the", "not", "wouldn't", "ain", "now"} <= set(words)
    assert all(word == word.strip().lower() for word in words)


def test_nltk_reads_it(monkeypatch):
    nltk = pytest.importorskip("nltk")
    from nltk.corpus.reader import WordListCorpusReader

    monkeypatch.setattr(nltk.data, "path", [str(FOLDER)])
    root = nltk.data.find("corpora/stopwords")
    # The pattern is NLTK's own: every file but a README is taken for a language.
    reader = WordListCorpusReader(root, r"(?!README|\.).*")
    assert reader.fileids() == ["english"]
    assert len(reader.words("english")) == 179

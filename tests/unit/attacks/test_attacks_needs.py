"""What a recipe needs: all of it, not a part."""

from __future__ import annotations

import itertools

import pytest

from eexit_cli.attacks import needs


@pytest.mark.parametrize(("package", "model"), itertools.product([False, True], repeat=2))
def test_a_sentence_encoder_is_a_package_and_a_model(
    package: bool, model: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "_package", lambda *names: lambda: package)
    monkeypatch.setattr(needs, "_hub_model", lambda name: lambda: model)
    lacking = needs.missing([needs.SENTENCE_BERT])
    assert (lacking is None) == (package and model)
    if lacking is not None:
        assert lacking == needs.SENTENCE_BERT.words


@pytest.mark.parametrize("there", itertools.product([False, True], repeat=2))
def test_every_package_and_every_file_counts(
    there: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    found = dict(zip(("one", "two"), there, strict=True))
    monkeypatch.setattr(
        needs.importlib.util, "find_spec", lambda name: object() if found[name] else None
    )
    assert needs._package("one", "two")() == all(there)

    def find(path: str) -> str:
        if not found[path]:
            raise LookupError(path)
        return path

    monkeypatch.setattr(nltk.data, "find", find)
    assert needs._nltk("one", "two")() == all(there)


def test_what_is_lacking_is_named_and_nothing_else() -> None:
    have, lack = needs.Need("a", lambda: True), needs.Need("b", lambda: False)
    assert needs.missing([have]) is None
    assert needs.missing([]) is None
    assert needs.missing([lack, have, lack]) == "b; b"

"""Short names that tell things apart, whatever they share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eexit_cli.core.labels import Named, told_apart, victim_labels

PARTS = st.lists(st.sampled_from(["a", "b", "model", "runs"]), min_size=1, max_size=4)


@given(st.lists(PARTS.map("/".join), min_size=1, max_size=6, unique=True))
def test_paths_are_told_apart_by_their_shortest_ends(names: list[str]) -> None:
    labels = told_apart([Named(name, key=name) for name in names])
    assert len(set(labels)) == len(names) or any(
        name.endswith(f"/{other}") for name in names for other in names
    )
    for name, label in zip(names, labels, strict=True):
        own, end = name.split("/"), label.split("/")
        assert own[-len(end) :] == end
        others = [other.split("/") for other in names if other != name]
        # One part fewer would be somebody else's end too.
        if len(end) > 1:
            assert any(other[-(len(end) - 1) :] == end[1:] for other in others)
        # And these parts are nobody else's, unless there are no more to say.
        if len(end) < len(own):
            assert not any(other[-len(end) :] == end for other in others)


def test_what_differs_is_said_once() -> None:
    items = [
        Named("m", {"threshold": 0.5, "task": "sst2"}, key=1),
        Named("m", {"threshold": 0.25, "task": "sst2"}, key=2),
        Named("n", {"threshold": 0.5}, key=3),
    ]
    assert told_apart(items) == ["m threshold 0.5", "m threshold 0.25", "n"]


def test_the_last_resort_is_for_those_that_are_alike() -> None:
    items = [Named("m", key=1, last="run 1"), Named("m", key=2, last="run 2"), Named("n", key=3)]
    assert told_apart(items) == ["m (run 1)", "m (run 2)", "n"]


def test_victims_are_told_apart_by_their_weights() -> None:
    def document(**config: str) -> dict[str, object]:
        return {"config": config, "rows": [{"victim": "calm"}], "run_id": "run"}

    older, plain, rounded = document(), document(weights="float"), document(weights="int8")
    assert victim_labels([plain, rounded]) == [{"calm": "calm"}, {"calm": "calm int8"}]
    assert victim_labels([older, plain]) == [{"calm": "calm"}, {"calm": "calm"}]

"""How lists are cut into micro-batches."""

from hypothesis import given
from hypothesis import strategies as st

from alm2vec_integrations import AudioClip, AudioText
from alm2vec_integrations.planning import Entry, Limits, plan

entries = st.lists(
    st.tuples(
        st.sampled_from(["text", "audio", "audio+text"]),
        st.sampled_from(["one", "two"]),
        st.floats(0.1, 40),
        st.integers(0, 99),
    )
).map(
    lambda rows: [
        Entry(i, "item", kind, instruction, 0.0 if kind == "text" else seconds, characters)
        for i, (kind, instruction, seconds, characters) in enumerate(rows)
    ]
)


@given(entries, st.integers(1, 8), st.floats(1, 100))
def test_every_entry_once_and_every_bound_kept(listed, max_items, max_seconds):
    """Nothing lost or doubled; one kind and instruction each; a clip over the bound goes alone."""
    batches = plan(listed, Limits(max_items, max_seconds))
    assert sorted(entry.position for batch in batches for entry in batch.entries) == list(range(len(listed)))
    for batch in batches:
        assert {(entry.kind, entry.instruction) for entry in batch.entries} == {(batch.kind, batch.instruction)}
        assert 1 <= len(batch.entries) <= max_items
        padded = max(entry.seconds for entry in batch.entries) * len(batch.entries)
        assert padded <= max_seconds or len(batch.entries) == 1


def test_neighbours_in_length_go_together():
    """So that padding is small."""
    lengths = [9.0, 1.0, 8.0, 2.0, 7.0, 3.0]
    listed = [Entry(i, "item", "audio", "x", seconds, 0) for i, seconds in enumerate(lengths)]
    batches = plan(listed, Limits(3, 100))
    assert [[entry.seconds for entry in batch.entries] for batch in batches] == [[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]


def test_texts_go_by_length_too():
    """Their padding costs as much."""
    listed = [Entry(i, "item", "text", "x", 0.0, characters) for i, characters in enumerate([90, 1, 80, 2])]
    batches = plan(listed, Limits(2, 100))
    assert [[entry.characters for entry in batch.entries] for batch in batches] == [[1, 2], [80, 90]]


def test_equal_lengths_only():
    """Not a sample apart, and with the same text: as many characters may be other tokens."""
    lengths = [(1.0, "same"), (2.0, "same"), (1.0, "same"), (1.0, "size"), (2.0, "same")]
    clip = AudioClip("x.wav")
    listed = [Entry(i, AudioText(t, clip), "audio+text", "x", seconds, 4) for i, (seconds, t) in enumerate(lengths)]
    batches = plan(listed, Limits(9, 100, "equal"))
    assert [[entry.position for entry in batch.entries] for batch in batches] == [[0, 2], [3], [1, 4]]


def test_one_by_one():
    """Whatever the limits are."""
    listed = [Entry(i, "item", "text", "x", 0.0, 1) for i in range(3)]
    assert [len(batch.entries) for batch in plan(listed, Limits(9, 100, "single"))] == [1, 1, 1]

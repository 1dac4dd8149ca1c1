import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.cleaning.text_hashes import hash_texts, repeated
from trainer.data.reading.row_access import take_rows

SETTINGS = settings(deadline=None, max_examples=60, database=None)
TEXTS = st.lists(
    st.tuples(
        st.none() | st.text(st.characters(codec="utf-8"), max_size=4),
        st.none() | st.text(max_size=2).map(ascii),
    ),
    max_size=12,
)


def table_of(pairs, chunk=5):
    schema = pa.schema([("text", pa.string()), ("text_pair", pa.string())])
    parts = [
        pa.table([list(c) for c in zip(*pairs[s : s + chunk], strict=True)], schema=schema)
        for s in range(0, len(pairs), chunk)
    ]
    return pa.concat_tables(parts) if parts else schema.empty_table()


@SETTINGS
@given(TEXTS)
def test_hash_is_xxh3_of_the_text_and_behind_a_zero_byte_of_its_pair(pairs):
    expected = [
        xxhash.xxh3_64_intdigest(((text or "") + ("" if pair is None else "\0" + pair)).encode())
        for text, pair in pairs
    ]
    assert hash_texts(table_of(pairs)).tolist() == expected


def test_pair_of_nothing_is_another_text_than_no_pair():
    assert (
        len(
            set(
                hash_texts(
                    table_of(
                        [("a", None), ("a", ""), ("", "a"), (None, "a"), ("a", "b"), ("ab", None)]
                    )
                ).tolist()
            )
        )
        == 5
    )  # a missing text is empty


@SETTINGS
@given(st.lists(st.integers(0, 30), max_size=40), st.integers(0, 2**64 - 1))
def test_repeated_are_the_positions_of_values_that_stand_there_again(values, spread):
    hashes = np.array(values, np.uint64) * np.uint64(spread | 1)
    assert repeated(hashes).tolist() == [
        i for i, value in enumerate(values) if values.count(value) > 1
    ]


@SETTINGS
@given(st.lists(st.integers(0, 22), max_size=30))
def test_rows_come_in_the_order_of_their_ids_whatever_the_chunks(ids):
    table = table_of([(f"text {i}", None if i % 3 else str(i)) for i in range(23)])
    assert take_rows(table, np.array(ids, np.int64)).to_pylist() == [
        table.slice(i, 1).to_pylist()[0] for i in ids
    ]

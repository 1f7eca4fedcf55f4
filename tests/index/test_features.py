from __future__ import annotations

from typing import Any

import numpy as np
import oracle
import pytest
from closeby.index import InvalidInputError, SetBatch, featurizer_from
from closeby.index.features import ALPHABETS, MAX_ELEMENTS
from hypothesis import given
from hypothesis import strategies as st

SPECS = [
    {"kind": "shingles", "unit": "byte", "n": 3},
    {"kind": "shingles", "unit": "char", "n": 4},
    {"kind": "shingles", "unit": "word", "n": 2},
    {"kind": "kmers", "k": 7, "canonical": True},
    {"kind": "kmers", "k": 7, "canonical": False},
    {"kind": "kmers", "k": 40, "canonical": True},
    {"kind": "kmers", "k": 5, "alphabet": "protein"},
    {"kind": "kmers", "k": 5, "alphabet": "hp", "counts": True},
    {"kind": "ids"},
    {"kind": "ids", "counts": True},
    {"kind": "tokens"},
    {"kind": "ngrams", "unit": "id", "n": 2},
    {"kind": "ngrams", "unit": "token", "n": 3, "counts": True},
    {"kind": "sketch", "positions": False},
    {"kind": "sketch", "positions": True},
    {"kind": "vector", "dim": 3},
]
FIELDS = dict.fromkeys(("ids", "tokens", "ngrams", "sketch"), "set") | {
    "shingles": "text",
    "kmers": "sequence",
}


def rows(spec: dict[str, Any], inputs: list[Any]) -> list[list[int]]:
    batch = featurizer_from(spec).features(inputs)
    assert isinstance(batch, SetBatch)
    return [batch.row(i).tolist() for i in range(len(batch))]


def shingles(unit: str, n: int, text: str) -> list[int]:
    return rows({"kind": "shingles", "unit": unit, "n": n}, [text])[0]


# --- specifications ------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
def test_a_specification_comes_back_complete(spec: dict[str, Any]) -> None:
    featurizer = featurizer_from(spec)
    assert featurizer.spec == spec
    assert featurizer_from(featurizer.spec).spec == spec
    assert featurizer.field == FIELDS.get(spec["kind"], spec["kind"])
    assert featurizer.kind == spec["kind"]


def test_defaults_are_written_out() -> None:
    assert featurizer_from({"kind": "shingles"}).spec == {
        "kind": "shingles",
        "unit": "char",
        "n": 4,
    }
    assert featurizer_from({"kind": "kmers"}).spec == {"kind": "kmers", "k": 16, "canonical": True}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (None, "features"),
        ([], "features"),
        ("shingles", "features"),
        ({}, "features.kind"),
        ({"kind": "words"}, "features.kind"),
        ({"kind": None}, "features.kind"),
        ({"kind": ["shingles"]}, "features.kind"),
        ({"kind": "shingles", "unit": "line"}, "features.unit"),
        ({"kind": "shingles", "unit": 4}, "features.unit"),
        ({"kind": "shingles", "unit": ["char"]}, "features.unit"),
        ({"kind": "shingles", "n": 0}, "features.n"),
        ({"kind": "shingles", "n": 65}, "features.n"),
        ({"kind": "shingles", "n": 4.0}, "features.n"),
        ({"kind": "shingles", "n": True}, "features.n"),
        ({"kind": "shingles", "n": "4"}, "features.n"),
        ({"kind": "shingles", "k": 4}, "features.k"),
        ({"kind": "shingles", "self": 4}, "features.self"),
        ({"kind": "kmers", "k": 65}, "features.k"),
        ({"kind": "kmers", "k": 0}, "features.k"),
        ({"kind": "kmers", "canonical": 1}, "features.canonical"),
        ({"kind": "ids", "n": 1}, "features.n"),
        ({"kind": "tokens", "n": 1}, "features.n"),
        ({"kind": "kmers", "alphabet": "rna"}, "features.alphabet"),
        ({"kind": "kmers", "alphabet": ["dna"]}, "features.alphabet"),
        ({"kind": "kmers", "alphabet": "protein", "canonical": True}, "features.canonical"),
        ({"kind": "shingles", "counts": 1}, "features.counts"),
        ({"kind": "ids", "counts": "yes"}, "features.counts"),
        ({"kind": "ngrams", "unit": "word"}, "features.unit"),
        ({"kind": "ngrams", "n": 0}, "features.n"),
        ({"kind": "sketch", "positions": None}, "features.positions"),
        ({"kind": "sketch", "counts": True}, "features.counts"),
        ({"kind": "vector"}, "features.dim"),
        ({"kind": "vector", "dim": 0}, "features.dim"),
        ({"kind": "vector", "dim": 65_537}, "features.dim"),
        ({"kind": "vector", "dim": float("nan")}, "features.dim"),
    ],
)
def test_unusable_specifications_are_refused_by_field(spec: Any, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        featurizer_from(spec)
    assert caught.value.field == field


@pytest.mark.parametrize("spec", SPECS)
def test_no_inputs_and_rows_without_elements(spec: dict[str, Any]) -> None:
    featurizer = featurizer_from(spec)
    nothing = featurizer.features([])
    assert len(nothing) == 0
    assert featurizer.empty_rows(nothing).tolist() == []
    if spec["kind"] == "vector":
        assert nothing.shape == (0, 3)
        assert featurizer.empty_rows(featurizer.features([[0, 0, 0]])).tolist() == []
        return
    full, empty = {
        "text": ("a word or two", ""),
        "sequence": ("ACGTACGTA" * 6, "**********"),
        "set": (["a"] if featurizer.element is str else [1], []),
    }[featurizer.field]
    batch = featurizer.features([empty, full, empty])
    assert featurizer.empty_rows(batch).tolist() == [0, 2]


# --- text ----------------------------------------------------------------------------------------

texts = st.lists(st.text(max_size=30) | st.text("ab é√🙂.", max_size=30), max_size=4)


@given(texts, st.integers(1, 8))
def test_shingles_are_those_of_the_definition(inputs: list[str], n: int) -> None:
    for unit, twin in (
        ("byte", oracle.byte_shingles),
        ("char", oracle.char_shingles),
        ("word", oracle.word_shingles),
    ):
        expected = [sorted(twin(text, n)) for text in inputs]
        assert rows({"kind": "shingles", "unit": unit, "n": n}, inputs) == expected


def test_characters_are_counted_not_bytes() -> None:
    assert len(shingles("char", 2, "äöü")) == 2
    assert len(shingles("byte", 2, "äöü")) == 5
    assert len(shingles("char", 1, "🙂🙃")) == 2
    assert set(shingles("char", 2, "naïve")) & set(shingles("char", 2, "xïvx"))


def test_a_short_text_is_one_shingle_and_an_empty_one_none() -> None:
    for unit in ("byte", "char", "word"):
        assert len(shingles(unit, 9, "ab")) == 1
        assert shingles(unit, 9, "ab") != shingles(unit, 9, "ac")
        assert shingles(unit, 9, "") == []
    assert shingles("word", 2, " .,-! ") == []


def test_words_ignore_what_stands_between_them_but_not_case() -> None:
    assert shingles("word", 2, "one, two;three") == shingles("word", 2, "  one two\nthree!")
    assert shingles("word", 1, "One") != shingles("word", 1, "one")
    assert shingles("word", 2, "one two") != shingles("word", 2, "onetwo")
    assert shingles("word", 2, "one two") != shingles("word", 2, "two one")
    assert len(shingles("word", 1, "Café Noël 42")) == 3


def test_a_zero_byte_is_a_character() -> None:
    assert len(shingles("char", 2, "a\0b")) == 2
    assert shingles("char", 4, "a") != shingles("char", 4, "a\0")


# --- sequences -----------------------------------------------------------------------------------

dna = st.text("ACGT", max_size=60)


def kmers(sequence: str, k: int = 5, *, canonical: bool = True) -> list[int]:
    return rows({"kind": "kmers", "k": k, "canonical": canonical}, [sequence])[0]


@given(st.text("ACGTUNacgtun-", max_size=60), st.integers(1, 32), st.booleans())
def test_kmers_are_those_of_the_definition(sequence: str, k: int, canonical: bool) -> None:
    assert kmers(sequence, k, canonical=canonical) == sorted(
        oracle.kmers(sequence, k, canonical=canonical)
    )


@given(dna, st.integers(1, 32))
def test_both_strands_have_the_same_canonical_kmers(sequence: str, k: int) -> None:
    other = oracle.reverse_complement(sequence)
    assert kmers(sequence, k) == kmers(other, k)
    assert sorted(
        {*kmers(sequence, k, canonical=False), *kmers(other, k, canonical=False)}
    ) == sorted({*kmers(sequence + "N" + other, k, canonical=False)})


@given(dna)
def test_case_and_rna_do_not_matter(sequence: str) -> None:
    assert kmers(sequence) == kmers(sequence.lower()) == kmers(sequence.replace("T", "U"))


def test_unknown_letters_leave_out_the_kmers_over_them() -> None:
    assert kmers("ACGTANACGTA") == kmers("ACGTA")
    assert kmers("ACGT") == []
    assert kmers("ACGTNACGT") == []
    assert kmers("ACG TA") == []
    assert kmers("ÄCGTACGTA") == kmers("CGTACGTA")


def test_the_longest_kmers_fill_64_bits() -> None:
    assert kmers("T" * 32, 32, canonical=False) == [2**64 - 1]
    assert kmers("T" * 32, 32) == [0]  # its other strand
    assert kmers("A" * 40, 32, canonical=False) == [0]


def test_kmers_beyond_32_letters_are_hashed() -> None:
    assert kmers("ACGTN" * 8, 5) == []
    long = "ACGTTGCA" * 6
    assert kmers(long, 40) == kmers(oracle.reverse_complement(long), 40)
    groups = ("A", "C", "G", "TU")
    expected = oracle.letter_kmers(long, 40, groups, canonical=False)
    assert kmers(long.lower(), 40, canonical=False) == sorted(expected)


@given(st.text("ACDEFGHIKLMNPQRSTVWYacdBJOUXZ*-", max_size=60), st.integers(1, 12))
def test_protein_kmers_are_those_of_the_definition(sequence: str, k: int) -> None:
    for alphabet, groups in ALPHABETS.items():
        if alphabet != "dna":
            found = rows({"kind": "kmers", "alphabet": alphabet, "k": k}, [sequence])[0]
            assert found == sorted(oracle.letter_kmers(sequence, k, groups, canonical=False))


def test_alphabets_of_proteins_hold_every_amino_acid_once() -> None:
    for alphabet in ("protein", "dayhoff", "hp"):
        assert sorted("".join(ALPHABETS[alphabet])) == sorted("ACDEFGHIKLMNPQRSTVWY")
    dayhoff = {"kind": "kmers", "alphabet": "dayhoff", "k": 3}
    assert rows(dayhoff, ["AKI"]) == rows(dayhoff, ["PRV"]) != rows(dayhoff, ["AKF"])
    protein = {"kind": "kmers", "alphabet": "protein", "k": 3}
    assert rows(protein, ["MKVX", "MKVBMKV", "mkv", "MK"]) == [rows(protein, ["MKV"])[0]] * 3 + [[]]


# --- counts --------------------------------------------------------------------------------------


@given(st.lists(st.text("ab", max_size=12), min_size=2, max_size=2))
def test_counted_shingles_give_the_weighted_similarity(pair: list[str]) -> None:
    spec = {"kind": "shingles", "unit": "char", "n": 1, "counts": True}
    one, other = rows(spec, pair)
    letters = [{letter: text.count(letter) for letter in "ab"} for text in pair]
    least = sum(min(letters[0][x], letters[1][x]) for x in "ab")
    most = sum(max(letters[0][x], letters[1][x]) for x in "ab")
    assert (len(set(one) & set(other)), len(set(one) | set(other))) == (least, most)


def test_bags_of_ids_and_tokens_count_up_to_255() -> None:
    ids, tokens = {"kind": "ids", "counts": True}, {"kind": "tokens", "counts": True}
    assert [len(row) for row in rows(ids, [[7], [7, 7, 3], [7] * 255, [7] * 300])] == [
        1,
        3,
        255,
        255,
    ]
    assert [len(row) for row in rows(tokens, [["a"], ["a", "b", "a"]])] == [1, 3]
    assert 7 in rows(ids, [[7, 7]])[0]
    assert rows(ids, [[3, 7, 3]]) == rows(ids, [np.array([3, 3, 7])])


# --- n-grams and sketches ------------------------------------------------------------------------


def test_ngrams_keep_the_order_and_sets_do_not() -> None:
    spec = {"kind": "ngrams", "unit": "id", "n": 2}
    found = rows(spec, [[1, 2, 3], [3, 2, 1], [1, 2, 1, 2], [1]])
    assert found[0] == sorted(oracle.ngrams([1, 2, 3], 2))
    assert not set(found[0]) & set(found[1])
    assert [len(row) for row in found] == [2, 2, 2, 1]
    token = {"kind": "ngrams", "unit": "token", "n": 2}
    words = {"kind": "shingles", "unit": "word", "n": 2}
    assert rows(token, [["one", "two", "three"]]) == rows(words, ["one two three"])


def test_sketches_are_their_values_or_their_values_at_places() -> None:
    assert rows({"kind": "sketch"}, [[9, 2, 9]]) == [[2, 9]]
    placed = {"kind": "sketch", "positions": True}
    one, other = rows(placed, [[5, 5, 8, 1], [5, 6, 8, 2]])
    assert (len(one), len(set(one) & set(other))) == (4, 2)
    assert rows(placed, [[5, 8]]) != rows(placed, [[8, 5]])


# --- sets and vectors ----------------------------------------------------------------------------


def test_ids_are_taken_as_they_are() -> None:
    assert rows({"kind": "ids"}, [[3, 1, 1], [2**64 - 1], []]) == [[1, 3], [2**64 - 1], []]
    assert rows({"kind": "ids"}, ([0, 2], [8, 7])) == [[0, 2], [7, 8]]  # two sets, not CSR


def test_tokens_are_hashed_whole() -> None:
    found = rows({"kind": "tokens"}, [["ab", "c"], ["a", "bc"], ["c", "ab", "c"], {"c", "ab"}])
    assert found[0] == found[2] == found[3] == sorted(map(oracle.hash_bytes, (b"ab", b"c")))
    assert not set(found[0]) & set(found[1])
    assert rows({"kind": "tokens"}, [["é", ""]])[0] == sorted(
        map(oracle.hash_bytes, ("é".encode(), b""))
    )


def test_vectors_of_lists_and_of_an_array_are_the_same() -> None:
    featurizer = featurizer_from({"kind": "vector", "dim": 3})
    from_lists = featurizer.features([[1, 2.5, -3], (4, 5, 6)])
    assert isinstance(from_lists, np.ndarray)
    assert from_lists.dtype == np.float32
    assert from_lists.tolist() == [[1, 2.5, -3], [4, 5, 6]]
    array = featurizer.features(np.array([[1, 2.5, -3], [4, 5, 6]]))
    np.testing.assert_array_equal(from_lists, array)
    from_arrays = featurizer.features([np.float64([1, 2.5, -3]), np.float32([4, 5, 6])])
    np.testing.assert_array_equal(from_lists, from_arrays)


TEXT, DNA, IDS = {"kind": "shingles"}, {"kind": "kmers"}, {"kind": "ids"}
TOKENS, VECTOR = {"kind": "tokens"}, {"kind": "vector", "dim": 3}
NGRAMS = {"kind": "ngrams"}


@pytest.mark.parametrize(
    ("spec", "bad", "field"),
    [
        (TEXT, 7, "text"),
        (TEXT, b"bytes", "text"),
        (TEXT, None, "text"),
        (TEXT, ["a"], "text"),
        (TEXT, "a\ud800b", "text"),
        (DNA, 7, "sequence"),
        (DNA, None, "sequence"),
        (DNA, "ACGT\udfff", "sequence"),
        (IDS, 7, "set"),
        (IDS, "12", "set"),
        (IDS, [-1], "set"),
        (IDS, [2**64], "set"),
        (IDS, [1.0], "set"),
        (IDS, [True], "set"),
        (IDS, [[1]], "set"),
        (IDS, None, "set"),
        (TOKENS, "abc", "set"),
        (TOKENS, b"abc", "set"),
        (TOKENS, {"a": 1}, "set"),
        (TOKENS, [1], "set"),
        (TOKENS, [None], "set"),
        (TOKENS, ["a\ud800"], "set"),
        (TOKENS, 7, "set"),
        (NGRAMS, "abc", "set"),
        (NGRAMS, [1.5], "set"),
        ({"kind": "ngrams", "unit": "token"}, ["a", 1], "set"),
        ({"kind": "sketch"}, [-1], "set"),
        ({"kind": "ids", "counts": True}, [True], "set"),
        (VECTOR, [1, 2], "vector"),
        (VECTOR, [1, 2, 3, 4], "vector"),
        (VECTOR, [], "vector"),
        (VECTOR, [1, 2, "3"], "vector"),
        (VECTOR, [1, 2, None], "vector"),
        (VECTOR, [1, 2, True], "vector"),
        (VECTOR, [1, 2, float("nan")], "vector"),
        (VECTOR, [1, 2, float("inf")], "vector"),
        (VECTOR, [1, 2, 1e39], "vector"),
        (VECTOR, [1, 2, 10**400], "vector"),
        (VECTOR, [[1, 2, 3]], "vector"),
        (VECTOR, "abc", "vector"),
        (VECTOR, 7, "vector"),
        (VECTOR, None, "vector"),
        (VECTOR, np.array(["a", "b", "c"]), "vector"),
        (VECTOR, np.zeros((1, 3)), "vector"),
        (VECTOR, np.array(7.0), "vector"),
    ],
)
def test_unusable_inputs_are_refused_by_field_and_row(
    spec: dict[str, Any], bad: Any, field: str
) -> None:
    good = {"text": "some text", "sequence": "ACGT" * 8, "set": [], "vector": [1, 2, 3]}[field]
    with pytest.raises(InvalidInputError) as caught:
        featurizer_from(spec).features([good, good, bad, good])
    assert caught.value.field == field
    assert caught.value.row == 2


def test_an_array_of_vectors_of_another_width_is_refused() -> None:
    for array in (np.zeros((2, 4)), np.zeros((2, 0)), np.zeros((1, 2, 3))):
        with pytest.raises(InvalidInputError):
            featurizer_from(VECTOR).features(array)


def test_sets_of_more_than_a_million_elements_are_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        featurizer_from(IDS).features([[1], np.arange(MAX_ELEMENTS + 1)])
    assert (caught.value.field, caught.value.row, caught.value.limit) == ("set", 1, MAX_ELEMENTS)
    assert len(featurizer_from(IDS).features([np.arange(MAX_ELEMENTS)]).row(0)) == MAX_ELEMENTS


@pytest.mark.parametrize(
    ("normalise", "one", "other"),
    [
        ({"case": "lower"}, "The Quick Fox", "the quick fox"),
        ({"case": "fold"}, "Straße", "STRASSE"),
        ({"whitespace": "collapse"}, "  a\tb \n c ", "a b c"),
        ({"unicode": "NFC"}, "cafe\u0301", "caf\u00e9"),
        ({"unicode": "NFKC"}, "\ufb01ne \uff21\uff22\uff23", "fine ABC"),
        (
            {"whitespace": "collapse", "case": "fold", "unicode": "NFKC"},
            "\ufb01NE\u3000\u3000Day",
            "FINE day",
        ),
    ],
)
@pytest.mark.parametrize("unit", ["byte", "char", "word"])
def test_normalised_texts_have_the_same_shingles(normalise, one, other, unit):
    spec = {"kind": "shingles", "unit": unit, "n": 2, "normalise": normalise}
    featurizer = featurizer_from(spec)
    batch = featurizer.features([one, other])
    assert batch.row(0).tolist() == batch.row(1).tolist()
    again = featurizer_from(featurizer.spec)
    assert again.spec == featurizer.spec == spec
    assert again.features([one]).indices.tolist() == batch.row(0).tolist()
    plain = featurizer_from({"kind": "shingles", "unit": "char", "n": 2})
    assert "normalise" not in plain.spec
    rows = plain.features([one, other])
    assert rows.row(0).tolist() != rows.row(1).tolist()


@pytest.mark.parametrize(
    ("normalise", "field"),
    [
        ("lower", "features.normalise"),
        ({"accents": "strip"}, "features.normalise"),
        ({"case": "upper"}, "features.normalise.case"),
        ({"whitespace": True}, "features.normalise.whitespace"),
    ],
)
def test_a_normalisation_that_is_not_known_is_refused(normalise, field):
    with pytest.raises(InvalidInputError) as raised:
        featurizer_from({"kind": "shingles", "normalise": normalise})
    assert raised.value.field == field

"""Which token answers to which: hand-worked matrices, and laws on any prompts."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nulltext.editing.kinds.base import equalizer
from nulltext.editing.kinds.refine import needleman_wunsch, refine_mapper
from nulltext.editing.kinds.replace import changed_words, replace_mapper, suits_replace
from nulltext.editing.tokens import find_word, has_word, tokenize, words
from nulltext.errors import UserError

WHOLE = ("a", "cat", "dog", "sits", "near", "the", "red", "hat", "white", "on", "with")
PAIRS = (("ti", "ger"), ("el", "k"))
LENGTH = 16


def _tokenizer(length):
    """A CLIP tokenizer with one token for each word of WHOLE, two for each of PAIRS, letters for all others."""
    from transformers import CLIPTokenizer

    letters = [chr(c) for c in range(33, 127)]
    tokens, merges = [*letters, *(x + "</w>" for x in letters)], []
    for part, end in [(w, True) for w in WHOLE] + [(p, k == 1) for pair in PAIRS for k, p in enumerate(pair)]:
        pieces = [*part[:-1], part[-1] + ("</w>" if end else "")]
        joined = pieces[0]
        for piece in pieces[1:]:
            merges.append((joined, piece))
            joined += piece
            tokens.append(joined)
    tokens = list(dict.fromkeys([*tokens, "<|startoftext|>", "<|endoftext|>"]))
    vocab = {token: i for i, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=length)


TOKENIZER = _tokenizer(LENGTH)


def cut(prompt):
    return tokenize(TOKENIZER, prompt)


@pytest.fixture(scope="module", autouse=True)
def _shipped():
    global SHIPPED
    from transformers import CLIPTokenizer

    folder = Path(__file__).parents[2] / "src/nulltext/farmyard/pretrained/tokenizer"
    SHIPPED = CLIPTokenizer.from_pretrained(folder, model_max_length=77)


def cut_long(prompt):
    return tokenize(SHIPPED, prompt)


def test_the_tokenizer_cuts_as_this_file_assumes():
    assert len(cut("a cat sits near the red hat").ids) == 2 + 7
    assert len(cut("tiger").ids) == 2 + 2
    assert len(cut("zebra").ids) == 2 + 5
    assert len(cut("tiger " * 20).ids) == LENGTH


def test_words_are_found_through_punctuation_case_and_double_spaces():
    assert find_word(cut("a cat sits"), "cat") == (2,)
    assert find_word(cut("a  cat sits"), "sits") == (3,)
    assert find_word(cut("A Cat, sits!"), "cat") == (2,)
    assert find_word(cut("A cat, sits!"), "SITS") == (4,)
    assert find_word(cut("a tiger sits"), "tiger") == (2, 3)
    assert find_word(cut("a cat near the red hat"), "red  hat") == (5, 6)
    assert find_word(cut("a cat near a cat"), "cat") == (2, 5)
    assert find_word(cut("the cat's hat"), "cat") == (2,)


@pytest.mark.parametrize("word", ["horse", "ca", "at", "", "redhat"])
def test_a_word_that_is_not_there_is_an_error_that_quotes_the_prompt(word):
    with pytest.raises(UserError, match="'a cat near the red hat'"):
        find_word(cut("a cat near the red hat"), word)


def test_a_word_beyond_what_the_model_reads_is_an_error():
    with pytest.raises(UserError, match="beyond the 16 tokens"):
        find_word(cut("a cat " * 10 + "hat"), "hat")


def test_replace_by_words_of_equal_length_is_the_identity():
    mapper = replace_mapper(cut("a cat sits near"), cut("a dog sits near"))
    torch.testing.assert_close(mapper, torch.eye(LENGTH))


def test_replace_by_a_longer_word_shares_the_attention_and_keeps_later_tokens_aligned():
    # source: 0 start, 1 a, 2 cat, 3 sits, 4 near, 5 end; target: 0 start, 1 a, 2-3 tiger, 4 sits, 5 near, 6 end
    expected = torch.zeros(LENGTH, LENGTH)
    expected[0, 0] = expected[1, 1] = 1
    expected[2, 2] = expected[3, 2] = 0.5
    for i in range(3, LENGTH - 1):
        expected[i + 1, i] = 1
    expected[LENGTH - 1, LENGTH - 1] = 1
    torch.testing.assert_close(replace_mapper(cut("a cat sits near"), cut("a tiger sits near")), expected)


def test_replace_by_a_shorter_word_adds_the_attention_up():
    expected = torch.zeros(LENGTH, LENGTH)
    expected[0, 0] = expected[1, 1] = 1
    expected[2, 2] = expected[2, 3] = 1
    for i in range(4, LENGTH):
        expected[i - 1, i] = 1
    expected[LENGTH - 2 :, LENGTH - 1] = 0.5  # the position left empty shares the last padding's attention
    torch.testing.assert_close(replace_mapper(cut("a tiger sits near"), cut("a cat sits near")), expected)


def test_replace_with_compat_misaligns_later_tokens_as_the_reference_does():
    mapper = replace_mapper(cut("a cat sits near"), cut("a tiger sits near"), compat=True)
    assert mapper[4].nonzero().flatten().tolist() == [4]  # "sits" reads "near"
    assert replace_mapper(cut("a cat sits near"), cut("a tiger sits near"))[
        4
    ].nonzero().flatten().tolist() == [3]


def test_replace_needs_as_many_words():
    with pytest.raises(UserError, match=r"'a red hat' has 3 words, 'a hat' 2\. Use kind: refine"):
        replace_mapper(cut("a red hat"), cut("a hat"))


def test_punctuation_is_no_part_of_a_word_for_replace():
    torch.testing.assert_close(replace_mapper(cut("a cat, red"), cut("a dog, red")), torch.eye(LENGTH))


def test_needleman_wunsch_by_hand():
    assert needleman_wunsch((7, 1, 2, 8), (7, 1, 2, 8)) == [0, 1, 2, 3]
    assert needleman_wunsch((7, 1, 2, 8), (7, 1, 5, 6, 2, 8)) == [0, 1, -1, -1, 2, 3]
    assert needleman_wunsch((7, 1, 2, 8), (7, 2, 8)) == [0, 2, 3]
    assert needleman_wunsch((7, 1, 8), (7, 3, 8)) == [0, -1, 2]


def test_refine_maps_old_words_and_leaves_new_ones():
    # 0 start 1 a 2 cat 3 sits 4 end -> 0 start 1 a 2 red 3 cat 4 sits 5 end
    mapper, mapped = refine_mapper(cut("a cat sits"), cut("a red cat sits"))
    assert mapped.tolist() == [1, 1, 0, *[1] * (LENGTH - 3)]
    read = [row.nonzero().flatten().tolist() for row in mapper]
    assert read[:6] == [[0], [1], [], [2], [3], [4]]
    assert read[6] == [5]  # the first padding reads the first padding
    assert read[-1] == [LENGTH - 2]


def test_refine_to_fewer_words_lets_padding_read_padding_and_with_compat_a_word():
    source, target = cut("a cat near the red hat"), cut("a cat")
    assert refine_mapper(source, target)[0][4].nonzero().flatten().tolist() == [len(source.ids)]
    assert refine_mapper(source, target, compat=True)[0][4].nonzero().flatten().tolist() == [4]


prompts = st.lists(st.sampled_from([*WHOLE, "tiger", "elk", "zebra"]), min_size=1, max_size=12).map(" ".join)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_column_of_a_replace_mapper_sums_to_one(data):
    source = data.draw(prompts)
    swap = st.sampled_from([*WHOLE, "tiger", "elk", "zebra"])
    target = " ".join(data.draw(st.one_of(st.just(word), swap)) for word in source.split())
    mapper = replace_mapper(cut(source), cut(target))
    assert mapper.min() >= 0
    torch.testing.assert_close(mapper.sum(0), torch.ones(LENGTH))


@settings(max_examples=60, deadline=None)
@given(prompts, prompts)
def test_a_refine_mapper_reads_one_token_of_the_same_id_where_mapped(source, target):
    a, b = cut(source), cut(target)
    mapper, mapped = refine_mapper(a, b)
    torch.testing.assert_close(mapper.sum(1), mapped)
    for j in range(len(b.ids)):
        for i in mapper[j].nonzero().flatten().tolist():
            assert a.ids[i] == b.ids[j]


@settings(max_examples=30, deadline=None)
@given(prompts)
def test_the_same_prompt_gives_the_identity(prompt):
    torch.testing.assert_close(replace_mapper(cut(prompt), cut(prompt)), torch.eye(LENGTH))
    mapper, mapped = refine_mapper(cut(prompt), cut(prompt))
    torch.testing.assert_close(mapper, torch.eye(LENGTH))
    assert bool(mapped.all())
    assert not suits_replace(cut(prompt), cut(prompt))


def test_replace_suits_swapped_words_only():
    assert suits_replace(cut("a white cat"), cut("a white tiger"))
    assert not suits_replace(cut("a white cat"), cut("a white cat with a hat"))


def test_the_equalizer_weighs_all_tokens_of_a_word():
    weights = equalizer(cut("a tiger sits"), {"tiger": 2.0, "sits": -1.0})
    assert weights[:6].tolist() == [1, 1, 2, 2, -1, 1]
    with pytest.raises(UserError, match="'hat'"):
        equalizer(cut("a tiger sits"), {"hat": 2.0})


def test_words_beside_emoji_and_other_characters_beyond_the_basic_plane_are_found():
    prompt = "a cat \U0001f600 near the \U0001d525\U0001d51e\U0001d531 red hat"
    tokens = cut_long(prompt)
    for word in ("cat", "\U0001f600", "\U0001d525\U0001d51e\U0001d531", "red hat"):
        start = prompt.index(word)
        inside = [k for k, (a, b) in enumerate(tokens.spans) if a < start + len(word) and b > start]
        assert find_word(tokens, word) == tuple(inside) and inside, word
    assert find_word(cut("a cat"), "cat") == (2,)
    halves = cut_long("a cat \ud83d\ude00 near")  # as JSON escapes it
    assert halves.prompt == "a cat \U0001f600 near" and has_word(halves, "\ud83d\ude00")
    with pytest.raises(UserError, match="half a character"):
        cut_long("a cat \ud83d near")


def test_words_of_scripts_without_spaces_are_found_inside_a_sentence():
    prompt = "一只白羊在绿色的草地上"
    tokens = cut_long(prompt)
    for word in ("白羊", "羊", "草地"):
        start = prompt.index(word)
        spans = [tokens.spans[k] for k in find_word(tokens, word)]
        assert min(a for a, _ in spans) == start and max(b for _, b in spans) == start + len(word), word
    assert has_word(cut_long("緑の丘の白いひつじ"), "ひつじ")
    assert has_word(cut_long("แกะขาวในทุ่งหญ้า"), "แกะ")
    assert has_word(cut_long("红cat在草地"), "cat")
    assert not has_word(cut_long("белая овца"), "ов")  # spaces part words here
    with pytest.raises(UserError, match="no word '马'"):
        find_word(tokens, "马")


def test_each_character_of_a_script_without_spaces_is_a_word_to_swap():
    assert len(words("一只白羊 near a barn")) == 4 + 3
    source, target = cut_long("一只白羊在草地上"), cut_long("一只白马在草地上")
    assert suits_replace(source, target)
    ((ours, theirs),) = changed_words(source, target)
    assert ours == find_word(source, "羊") and theirs == find_word(target, "马")


def test_accents_are_the_same_composed_or_not():
    composed, decomposed = "a caf\u00e9 near", "a cafe\u0301 near"
    assert cut_long(composed).ids == cut_long(decomposed).ids
    for prompt in (composed, decomposed):
        for word in ("caf\u00e9", "cafe\u0301"):
            assert find_word(cut_long(prompt), word) == find_word(cut_long(composed), "caf\u00e9")
    assert not has_word(cut_long(decomposed), "cafe")

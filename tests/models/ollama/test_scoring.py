"""Label scores from the likeliest next tokens, on hand-computed examples."""

import pytest

from sleicl_chains.errors import GarbledReply
from sleicl_chains.models.ollama.scoring import NextTokens, read_tokens, score
from tests.support.ollama_server import alternatives, recorded


class Asked:
    """Answers prompts from a table and keeps what was asked."""

    def __init__(self, table: dict[str, dict[str, float]]) -> None:
        self.table, self.prompts = table, list[str]()

    def __call__(self, prompt: str) -> NextTokens:
        self.prompts.append(prompt)
        return read_tokens(alternatives(self.table[prompt]).objects[0])


def test_each_label_gets_its_tokens() -> None:
    """.3 + .1 for Sports (two spellings of its beginning), .2 for World: 2/3 and 1/3 of .6."""
    ask = Asked({"Answer:": {" Sports": 0.3, " a": 0.25, " World": 0.2, " Sp": 0.1}})
    found = score(ask, "Answer:", ["Sports", "World"])
    assert found.probabilities == pytest.approx({"Sports": 2 / 3, "World": 1 / 3})
    assert found.coverage == pytest.approx(0.6)
    assert (found.requests, found.prompt_tokens, found.unseen) == (1, 20, ())


def test_a_label_out_of_sight_gets_a_floor_and_is_named() -> None:
    """The last token shown has .05, so nothing unseen can have more; a tenth of it is taken: .005 beside .5."""
    ask = Asked({"Answer:": {" Sports": 0.5, " a": 0.2, " the": 0.05}})
    found = score(ask, "Answer:", ["Sports", "World"])
    assert found.unseen == ("World",)
    assert found.probabilities == pytest.approx({"Sports": 0.5 / 0.505, "World": 0.005 / 0.505})
    assert found.coverage == 0.5  # what was seen, not what was supposed


def test_a_beginning_that_labels_share_is_followed() -> None:
    """ " very" has .6, of which negative takes .3/.4 and positive .1/.4; plain positive has .2: .45, .15, .2 of .8."""
    ask = Asked(
        {
            "Answer:": {" very": 0.6, " positive": 0.2, " a": 0.1},
            "Answer: very": {" negative": 0.3, " positive": 0.1, " good": 0.3},
        }
    )
    found = score(ask, "Answer:", ["very negative", "very positive", "positive"])
    shares = {"very negative": 0.45 / 0.8, "very positive": 0.15 / 0.8, "positive": 0.2 / 0.8}
    assert found.probabilities == pytest.approx(shares)
    assert (ask.prompts, found.requests) == (["Answer:", "Answer: very"], 2)
    assert found.coverage == pytest.approx(0.8)


def test_a_label_that_another_begins_with_has_what_the_other_leaves() -> None:
    """ " no" has .4; after it " hate" has .9, so "no hate" gets .36 and "no" .04."""
    ask = Asked({"Answer:": {" no": 0.4, " yes": 0.1}, "Answer: no": {" hate": 0.9, ".": 0.1}})
    found = score(ask, "Answer:", ["no", "no hate", "yes"])
    assert found.probabilities == pytest.approx({"no": 0.04 / 0.5, "no hate": 0.36 / 0.5, "yes": 0.1 / 0.5})


def test_a_shared_beginning_of_little_mass_costs_no_request() -> None:
    ask = Asked({"Answer:": {" Entity": 0.5, " Expression": 0.4, " E": 0.001}})
    found = score(ask, "Answer:", ["Entity", "Expression"])
    assert found.requests == 1 and found.coverage == pytest.approx(0.9)


def test_white_space_is_no_beginning_of_a_label() -> None:
    ask = Asked({"Answer:": {" ": 0.4, "\n": 0.2, " Sports": 0.3, " World": 0.1, "": 0.05}})
    found = score(ask, "Answer:", ["Sports", "World"])
    assert found.requests == 1 and found.coverage == pytest.approx(0.4)


def test_a_space_of_its_own_before_digits_is_followed() -> None:
    """SmolLM2 writes " 5" as a space and "5": after the space, 5 has .6 and 1 has .2."""
    ask = Asked({"Rating:": {" ": 0.9, " a": 0.05}, "Rating: ": {"5": 0.6, "1": 0.2}})
    found = score(ask, "Rating:", ["1", "5"])
    assert found.probabilities == pytest.approx({"1": 0.25, "5": 0.75}) and found.requests == 2
    assert found.coverage == pytest.approx(0.9) and found.unseen == ()


def test_a_shared_beginning_whose_ends_are_out_of_sight_leaves_them_unseen() -> None:
    ask = Asked({"Answer:": {" very": 0.6, " bad": 0.2}, "Answer: very": {" much": 0.9}})
    found = score(ask, "Answer:", ["very good", "very bad", "bad"])
    assert found.unseen == ("very good", "very bad")


def test_no_space_goes_before_a_label_where_the_prompt_ends_in_white_space() -> None:
    found = score(Asked({"Answer:\n": {"Sports": 0.5, " World": 0.5}}), "Answer:\n", ["Sports", "World"])
    assert found.unseen == ("World",)


def test_parts_of_characters_are_told_by_their_bytes() -> None:
    """A byte-level token shows as a replacement character; "体" and "世" differ in their first byte."""
    listed = [
        {"token": "\ufffd", "logprob": -0.1, "bytes": [32, 0xE4, 0xBD]},
        {"token": " x", "logprob": -4, "bytes": [32, 120]},
    ]
    tokens = read_tokens({"logprobs": [{"top_logprobs": listed}], "prompt_eval_count": 3})
    found = score(lambda prompt: tokens, "Answer:", ["体育", "世界"])
    assert found.unseen == ("世界",) and found.probabilities["体育"] > 0.9


def test_the_text_counts_where_a_server_sends_no_bytes() -> None:
    tokens = read_tokens({"logprobs": [{"top_logprobs": [{"token": " Sports", "logprob": 0.0}]}]})
    assert tokens == NextTokens({b" Sports": 1.0}, 0)


def test_a_recorded_reply_is_read() -> None:
    tokens = read_tokens(recorded("score").objects[0])
    assert len(tokens.shares) == 20 and tokens.prompt_tokens == 3
    assert 0.2 < tokens.shares[b" a"] < 0.4 and tokens.floor == 0.1 * min(tokens.shares.values())


@pytest.mark.parametrize("reply", [{}, {"logprobs": []}, {"logprobs": [{}]}, {"logprobs": [{"top_logprobs": None}]}])
def test_a_reply_without_log_probabilities_is_an_error(reply: dict[str, object]) -> None:
    with pytest.raises(GarbledReply, match="gave no log-probabilities"):
        read_tokens(reply)

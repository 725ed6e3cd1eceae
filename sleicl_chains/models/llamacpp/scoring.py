"""Label probabilities out of exact token probabilities: labels are followed down to where they differ.

A label's first tokens up to where no other label begins alike stand for it: " Ab" for " Abbreviation". Labels that
begin alike ("very positive", "very negative") share the probability of what they have in common, and within it are
scored against each other. A label that begins another ("hate", "hate speech") has what the others leave of all that
may follow it, as in `ollama.scoring`.
"""

from collections.abc import Mapping, Sequence

from sleicl_chains.models.abilities import LabelScores
from sleicl_chains.models.llamacpp.engine import Engine
from sleicl_chains.models.llamacpp.literals import MARK
from sleicl_chains.models.llamacpp.next_tokens import Masses, NextTokens, Start

Spelled = Mapping[str, Sequence[int]]
"""Each label's tokens."""
_TAIL = 40
"""Characters of the prompt's last line by which is looked up how labels are spelled after it."""


def score(seen: NextTokens, prompt: str, labels: Sequence[str]) -> LabelScores:
    """Score each label as the continuation of a rendered prompt; one request, and one for each shared beginning."""
    start, spelled = spell(seen.engine, prompt, tuple(labels))
    shares, coverage = _descend(seen, start, dict(zip(labels, spelled, strict=True)), 0)
    return LabelScores(shares, coverage, seen.prompt_tokens, seen.requests)


def spell(engine: Engine, prompt: str, labels: tuple[str, ...]) -> tuple[Start, list[list[int]]]:
    """Return the prompt, and each label's tokens as the tokenizer writes them after it.

    The prompt stays a text, which spares a request, unless a label changes how its last tokens are written.
    """
    tail = prompt.rpartition("\n")[2].replace(MARK, "")
    changed, spelled = engine.spell(tail[-_TAIL:], labels)
    if not changed:
        return sent(engine, prompt), spelled
    return [*engine.prompt_tokens(prompt)[:-changed]], spelled


def sent(engine: Engine, prompt: str) -> Start:
    """Return a rendered prompt as the engine takes it: the text, or its tokens where some of it is marked."""
    return [*engine.prompt_tokens(prompt)] if MARK in prompt else [prompt]


def _descend(seen: NextTokens, start: Start, spelled: Spelled, depth: int) -> tuple[dict[str, float], float]:
    """Return the shares and the coverage of labels that agree in their first `depth` tokens, the last of `start`."""
    # 1. Group the labels by their next token; some may have none left.
    ended = [label for label, tokens in spelled.items() if len(tokens) == depth]
    branches: dict[int, dict[str, Sequence[int]]] = {}
    for label, tokens in spelled.items():
        if label not in ended:
            branches.setdefault(tokens[depth], {})[label] = tokens
    # 2. Where all go the same way there is nothing to compare yet.
    if len(branches) == 1 and len(spelled) > 1 and depth and not ended:
        return _descend(seen, [*start, next(iter(branches))], spelled, depth + 1)
    # 3. Share the probability out among the branches; a label that has ended gets what they leave.
    masses = _masses(seen, start, list(branches), beside_an_end=bool(ended))
    rest = max(0.0, 1.0 - sum(masses.shares.values())) / max(1, len(ended))
    probabilities = dict.fromkeys(ended, rest)
    # 4. Within each branch share its part out in the same way.
    for step, members in branches.items():
        inner: Mapping[str, float] = dict.fromkeys(members, 1.0)
        if len(members) > 1:
            inner, _ = _descend(seen, [*start, step], members, depth + 1)
        probabilities |= {label: masses.shares[step] * share for label, share in inner.items()}
    return probabilities, masses.coverage


def _masses(seen: NextTokens, start: Start, tokens: list[int], *, beside_an_end: bool) -> Masses:
    if not beside_an_end:
        return seen.among_themselves(start, tokens)
    # Without tokens the tokenizer writes two labels alike.
    return seen.among_all(start, tokens) if tokens else Masses({}, 1.0)

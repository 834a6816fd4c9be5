"""Three ways to score the choices y of a question x (Brown et al. 2020, section 2.4).

unnormalized   log p(y | x)                             favours short answers
per_token      log p(y | x) / number of tokens          favours answers whose tokens follow from one another
frequency      log p(y | x) - log p(y | "Answer:")      how much the question raises the answer's probability

The first compares p(x, y) as well, since p(x) is the same for all choices.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from groundup.evaluation.likelihood import Likelihood

Rule = Literal["unnormalized", "per_token", "frequency"]
RULES: tuple[Rule, ...] = get_args(Rule)
NEUTRAL_CONTEXT = "Answer:"


def choice_scores(rule: Rule, given: Sequence[Likelihood], neutral: Sequence[Likelihood]) -> list[float]:
    """The score of each choice.

    Args:
        rule: which of the three.
        given: likelihood of each choice after the question.
        neutral: likelihood of each choice after `NEUTRAL_CONTEXT`.
    """
    if rule == "unnormalized":
        return [choice.logprob for choice in given]
    if rule == "per_token":
        return [choice.logprob / choice.tokens for choice in given]
    return [choice.logprob - base.logprob for choice, base in zip(given, neutral, strict=True)]


def predictions(given: Sequence[Likelihood], neutral: Sequence[Likelihood]) -> dict[Rule, int]:
    """The best choice under each rule; the first of equals."""
    best = {}
    for rule in RULES:
        scores = choice_scores(rule, given, neutral)
        best[rule] = scores.index(max(scores))
    return best

import math

import pytest
import torch

from domainformer.errors import ConfigError
from domainformer.models.vision.budget import BudgetCalculator

SCORES = [[4.0, -1.0, 0.5, 2.0, -3.0], [0.0, 0.0, 0.0, 0.0, 0.0], [-1.0, -2.0, -9.0, -1.0, -1.0]]


def slow_budget(rule, share, scores):
    weights = [math.exp(score) for score in scores]
    weights = [weight / sum(weights) for weight in weights]
    if rule == "gate":
        count = sum(score > 0 for score in scores)
    elif rule == "mass":
        count, held = 0, 0.0
        for weight in sorted(weights, reverse=True):
            if held >= share - 1e-6:
                break
            count, held = count + 1, held + weight
    else:
        count = round(math.exp(-sum(weight * math.log(weight) for weight in weights)))
    return max(count, 1)


@pytest.mark.parametrize("rule", ["gate", "mass", "entropy"])
@pytest.mark.parametrize("share", [0.3, 0.9, 1.0])
def test_budgets_are_those_of_a_plain_count(rule, share):
    calculator = BudgetCalculator(rule, share)
    expected = [slow_budget(rule, share, row) for row in SCORES]
    assert calculator(torch.tensor(SCORES)).tolist() == expected


@pytest.mark.parametrize("rule", ["gate", "mass", "entropy"])
def test_padding_changes_nothing(rule):
    calculator = BudgetCalculator(rule)
    alone = calculator(torch.tensor(SCORES[0][:3]))
    mask = torch.tensor([[True, True, True, False, False]])
    assert calculator(torch.tensor([[4.0, -1.0, 0.5, 50.0, 50.0]]), mask).tolist() == [int(alone)]


@pytest.mark.parametrize("rule", ["mass", "entropy"])
def test_spread_relevance_gets_more_tokens(rule):
    peak = 8.0 * torch.nn.functional.one_hot(torch.tensor(3), 32)
    calculator = BudgetCalculator(rule)
    assert calculator(peak) == 1
    assert calculator(torch.zeros(32)) >= 29


def test_what_is_refused():
    with pytest.raises(ConfigError, match="no budget rule 'guess'"):
        BudgetCalculator("guess")
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        BudgetCalculator("mass", share=0.0)

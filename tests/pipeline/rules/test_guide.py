# SPDX-License-Identifier: Apache-2.0
"""The examples of the guide are settings."""

import re
from pathlib import Path
from typing import get_args

import yaml

from pipeline.rules.config import Rule, RulesConfig

GUIDE = Path(__file__).parents[3] / "docs/guides/rules.md"
BLOCKS = [
    yaml.safe_load(block)
    for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
]


def test_every_example_loads_and_every_kind_has_one():
    places, *examples = BLOCKS
    RulesConfig.model_validate(places)
    loaded = [RulesConfig.model_validate(places | {"rules": rules}) for rules in examples]
    kinds = {type(rule) for config in loaded for rule in config.rules}
    assert kinds == set(get_args(Rule))


def test_what_all_have_in_common_is_shown_whole():
    spelt = set(BLOCKS[-1][0])
    common = set.intersection(*(set(rule.model_fields) for rule in get_args(Rule)))
    assert common <= spelt

# SPDX-License-Identifier: Apache-2.0
import pytest
from pydantic import ValidationError

from model.config import describe_faults
from pipeline.rules.config import RulesConfig, faults_of_classes

ZONE = {"yard": [[0, 0], [1, 0], [1, 1]]}
ENTER = {"kind": "enter", "name": "a", "zone": "yard"}


def faults(**tree):
    with pytest.raises(ValidationError) as invalid:
        RulesConfig.model_validate(tree)
    return describe_faults(invalid.value)


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        (
            {"zones": ZONE, "rules": [ENTER | {"zone": "yrd"}]},
            "rules.0: zone: there is no zone 'yrd'; there are yard",
        ),
        (
            {"rules": [{"kind": "line", "name": "a", "line": "b"}]},
            "rules.0: line: there is no line 'b'; there are none",
        ),
        ({"zones": {"yard": [[0, 0], [1, 1]]}}, "zones.yard: "),
        ({"zones": {"yard": [[0, 0], [1, 0], [1, 2]]}}, "zones.yard.2.1: "),
        (
            {"zones": {"yard": [[0, 0], [1, 1], [1, 0], [0, 1]]}},
            "zones.yard: not a zone: it crosses itself",
        ),
        ({"lines": {"gate": [[0.5, 0.5], [0.5, 0.5]]}}, "lines.gate: the line has no length"),
        (
            {"zones": ZONE, "rules": [ENTER, ENTER]},
            "rules: names must differ, got a more than once",
        ),
        ({"zones": ZONE, "rules": [ENTER | {"kind": "dance"}]}, "rules.0: input tag 'dance'"),
        ({"zones": ZONE, "rules": [ENTER | {"for_s": 3}]}, "rules.0.enter.for_s: "),
        (
            {"zones": ZONE, "rules": [ENTER | {"schedule": [{"from": 1320}]}]},
            "rules.0.enter.schedule.0.from: ",
        ),
        (
            {"timezone": "Mars/Olympus"},
            "timezone: expected a time zone such as Europe/Berlin, got 'Mars/Olympus'",
        ),
        ({"timezone": "../etc/passwd"}, "timezone: "),
    ],
)
def test_a_fault_is_said_with_its_path(tree, says):
    assert says in faults(**tree)


def test_all_faults_are_said_at_once():
    said = faults(
        zones=ZONE,
        lines={"gate": [[0, 0], [0, 0]]},
        timezone="Nowhere",
        rules=[ENTER | {"zone": "x"}, ENTER | {"min_score": 2}],
    )
    for path in ("lines.gate", "timezone", "rules.0", "rules.1.enter.min_score"):
        assert f"{path}: " in said


def test_classes_the_model_does_not_know_are_named_with_their_path():
    config = RulesConfig.model_validate(
        {"zones": ZONE, "rules": [ENTER | {"classes": ["person", "perzon"]}]}
    )
    assert faults_of_classes(config, ["car", "person"]) == (
        "rules.0.classes.1: the model knows no class 'perzon'; did you mean 'person'?",
    )
    assert faults_of_classes(config, ["person", "perzon"]) == ()


def test_settings_go_through_json_and_back():
    rule = ENTER | {"schedule": [{"days": ["mon"], "from": "22:00", "to": "06:00"}]}
    config = RulesConfig.model_validate({"zones": ZONE, "rules": [rule]})
    window = config.rules[0].schedule[0]
    assert (window.begins, window.ends) == (22 * 60, 6 * 60)
    assert RulesConfig.model_validate_json(config.model_dump_json(by_alias=True)) == config

import copy
import json
import pickle

from prism.rewards import Rule, Verdict


def test_a_verdict_is_its_name_and_knows_its_rule():
    verdict = Verdict("correct", Rule.CHOICE)
    assert verdict == "correct" and {"correct": 1}[verdict] == 1
    assert verdict.is_correct and not verdict.is_unverifiable
    assert json.loads(json.dumps([verdict, verdict.rule])) == ["correct", "choice"]
    for copied in (pickle.loads(pickle.dumps(verdict)), copy.deepcopy(verdict)):
        assert copied == verdict and copied.rule is Rule.CHOICE


def test_rules_do_not_make_verdicts_different():
    assert Verdict("wrong", Rule.TEXT) == Verdict("wrong", Rule.ALGEBRA) != Verdict("unverifiable", Rule.TIMEOUT)

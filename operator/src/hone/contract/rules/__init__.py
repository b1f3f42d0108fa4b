"""What is refused of a resource whatever the data and the models are: one table for each kind, in CEL and in Python."""

from hone.contract.rules.rule import Refusal, Rule, refusals

__all__ = ["Refusal", "Rule", "refusals"]

"""The rules by which a spec is rejected, independent of data and models: one table per kind, in CEL and in Python."""

from hone.contract.rules.rule import Refusal, Rule, refusals

__all__ = ["Refusal", "Rule", "refusals"]

"""What an answer is worth: the functions and the model that `spec.reward` names, as TRL's trainers call them.

A reward is called as `reward(prompts=…, completions=…, reference=…)` with a list each, an item per answer, and gives a
figure per answer, or None where it does not apply. Prompts and completions are strings, or lists of messages.
"""

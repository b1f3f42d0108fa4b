"""Reward for an answer to "How many stars?": 1 for the reference, 0.5 for the other rating that fits, else 0."""

ALSO_FITS = {"Four stars.": "Five stars.", "Two stars.": "One star."}


def reward(prompts, completions, reference=None, **kwargs):
    rewards = []
    for completion, expected in zip(completions, reference, strict=True):
        answer = completion[0]["content"].strip()
        rewards.append(1.0 if answer == expected else 0.5 if answer == ALSO_FITS[expected] else 0.0)
    return rewards

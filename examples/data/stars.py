"""What an answer to "How many stars?" is worth: 1 for the reference, half for the other number that fits the review."""

SIDES = {"Four stars.": "Five stars.", "Two stars.": "One star."}


def reward(prompts, completions, reference=None, **kwargs):
    found = []
    for completion, wanted in zip(completions, reference, strict=True):
        said = completion[0]["content"].strip()
        found.append(1.0 if said == wanted else 0.5 if said == SIDES[wanted] else 0.0)
    return found

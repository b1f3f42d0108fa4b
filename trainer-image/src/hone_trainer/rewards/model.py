"""A reward model: a frozen model with one output, which scores an answer as a server of it would.

Its tokenizer and chat template are its own. TRL would take the model itself, too, but encodes text without the special
tokens that Hone's reward models are trained and served with, and scores all answers of a step at once.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from hone_trainer.data.conversation import Conversation, Message
from hone_trainer.data.labels import padding_id
from hone_trainer.data.text import ids_of, text_ids
from hone_trainer.models import loading
from hone_trainer.protocol.errors import BadInput, RowFault
from hone_trainer.rewards.checks import MODEL as FIELD
from hone_trainer.rewards.functions import Rewarding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LABEL = "model"
"""The name of its score among those of functions."""


def load_model(directory: str, rows: int, dtype: torch.dtype) -> Rewarding:
    """The model's score, as TRL calls rewards. Load it before training arguments are made: ZeRO-3 would spread it.

    Args:
        directory: of the model.
        rows: how many answers it reads at once.
        dtype: type in which it computes.
    """
    from transformers import AutoModelForSequenceClassification

    from hone_trainer.models.facts import load_tokenizer

    tokenizer = load_tokenizer(directory)
    pad = padding_id(tokenizer, chat=True)
    on_gpu = torch.cuda.is_available()
    model = loading.load_model(AutoModelForSequenceClassification, directory, FIELD, dtype=dtype)
    model.config.get_text_config().pad_token_id = pad
    model.eval().requires_grad_(False)
    longest = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 1 << 30)

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float | None]:
        # Which GPU is this rank's own is known by now.
        model.to(torch.device("cuda", torch.cuda.current_device()) if on_gpu else "cpu")
        ids = [_ids(tokenizer, *pair, longest) for pair in zip(prompts, completions, strict=True)]
        scores: list[float | None] = []
        for start in range(0, len(ids), rows):
            batch = tokenizer.pad({"input_ids": ids[start : start + rows]}, padding_side="right", return_tensors="pt")
            with torch.inference_mode():
                logits = model(**batch.to(model.device), use_cache=False).logits
            scores += logits[:, 0].float().tolist()
        return scores

    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    return reward


def _ids(tokenizer: "PreTrainedTokenizerBase", prompt: str | list[Message], completion: Any, longest: int) -> list[int]:
    """Prompt and answer as the model was trained on them; of more than it can read, the end."""
    if isinstance(prompt, str):
        return text_ids(tokenizer, prompt + completion)[-longest:]
    # An empty answer is one, too, though no row of data may have it.
    turns = tuple({"role": turn["role"], "content": turn.get("content") or ""} for turn in (*prompt, *completion))
    try:
        return ids_of(tokenizer, Conversation(turns).render_generated(tokenizer))[-longest:]
    except RowFault as fault:
        problem = f"its chat template cannot be used: {fault}"
        raise BadInput(FIELD, problem, "Fix the template in the model's directory.") from fault

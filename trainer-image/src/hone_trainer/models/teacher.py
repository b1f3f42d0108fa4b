"""The model that another one learns from: checked against it before training, and loaded to be asked alone."""

from typing import TYPE_CHECKING

from hone.contract.runconfig import RunConfig
from hone_trainer.models.facts import ModelFacts, load_tokenizer, read_model
from hone_trainer.protocol.errors import BadInput

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FIELD = "spec.teacher"
_REMEDY = "Use a teacher of the base model's own family, or another base."


def read_teacher(config: RunConfig, student: ModelFacts, length: int) -> ModelFacts | None:
    """The facts about the teacher; None where the run has none.

    Args:
        config: the run.
        student: the base model.
        length: most tokens of prompt and answer.

    Raises:
        BadInput: it is no causal language model, its context is shorter than that, or it has another vocabulary than
            the base: the two are compared word by word. Only of padding it may have more.
    """
    directory = config.paths.teacher
    if directory is None:
        return None
    try:
        facts, tokenizer = read_model(directory), load_tokenizer(directory)
    except BadInput as error:
        raise BadInput(error.field.replace("spec.model", FIELD, 1), error.message, error.hint) from error
    if facts.vocab_size < student.vocab_size:
        raise BadInput(
            FIELD,
            f"vocab_size in its config.json is {facts.vocab_size}, less than the base model's {student.vocab_size}",
            _REMEDY,
        )
    theirs, ours = tokenizer.get_vocab(), load_tokenizer(config.paths.model).get_vocab()
    # Some families' tokenizers have a token that the smaller of their models cannot say, such as one for images.
    if beyond := [word for word, index in theirs.items() if index >= student.vocab_size and word not in ours]:
        raise BadInput(
            FIELD,
            f"its tokenizer has {len(beyond)} tokens, such as {beyond[0]!r}, past the base model's vocab_size of "
            f"{student.vocab_size}",
            _REMEDY,
        )
    others = [word for word, index in ours.items() if theirs.get(word) != index]
    if others:
        raise BadInput(
            FIELD,
            f"its tokenizer has another number, or none, for {len(others)} of the base model's {len(ours)} tokens, "
            f"such as {others[0]!r}",
            _REMEDY,
        )
    if facts.max_length < length:
        raise BadInput(
            FIELD,
            f"its context has {facts.max_length} tokens, and the longest prompt with its answer {length}",
            f"Set spec.hyperparameters.sequenceLength to {facts.max_length}, or use another teacher.",
        )
    return facts


def load_teacher(config: RunConfig, dtype: "torch.dtype") -> "PreTrainedModel":
    """The teacher, without gradients and dropout. Under ZeRO-3 it is spread over the ranks, as `load_model` tells.

    Padding of its vocabulary that the base has not is cut off, as `read_teacher` has seen it to be.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if config.paths.teacher is None:
        raise ValueError("the run has no teacher")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        config.paths.teacher, dtype=dtype, local_files_only=True
    )
    base = AutoConfig.from_pretrained(config.paths.model, local_files_only=True).get_text_config()
    if model.config.get_text_config().vocab_size > base.vocab_size:
        # Larger models of a family are often padded to a multiple that more GPUs can share.
        model.resize_token_embeddings(base.vocab_size)
    model.eval()
    return model.requires_grad_(False)

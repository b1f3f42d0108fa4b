"""The teacher that a model learns from: checked against the model before training, and loaded for inference only."""

from typing import TYPE_CHECKING, Any

from hone.contract.runconfig import RunConfig
from hone_trainer.models.architectures import CHAT
from hone_trainer.models.facts import ModelFacts, load_tokenizer, read_model
from hone_trainer.models.loading import load_config, load_model
from hone_trainer.protocol.errors import BadInput

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FIELD = "spec.teacher"
_REMEDY = "Use a teacher of the same model family as the base model, or another base model."


def read_teacher(config: RunConfig, student: ModelFacts, length: int) -> ModelFacts | None:
    """The facts about the teacher; None where the run has none.

    Args:
        config: the run.
        student: the base model.
        length: most tokens of prompt and answer.

    Raises:
        BadInput: it is not a causal language model, its context is shorter than `length`, or its vocabulary differs
            from the base model's: the two are compared token by token. It may only have more padding.
    """
    from hone_trainer.models.trial import check_loads

    directory = config.paths.teacher
    if directory is None:
        return None
    try:
        teacher, tokenizer = read_model(directory), load_tokenizer(directory)
    except BadInput as error:
        raise BadInput(error.field.replace("spec.model", FIELD, 1), error.message, error.hint) from error
    _check_vocabulary(teacher, tokenizer, student, load_tokenizer(config.paths.model))
    if teacher.max_length < length:
        raise BadInput(
            FIELD,
            f"its context has {teacher.max_length} tokens, but the longest prompt and answer together have {length}",
            f"Set spec.hyperparameters.sequenceLength to {teacher.max_length}, or use another teacher.",
        )
    check_loads(directory, CHAT, FIELD)
    return teacher


def _check_vocabulary(
    teacher: ModelFacts,
    teacher_tokenizer: "PreTrainedTokenizerBase",
    student: ModelFacts,
    student_tokenizer: "PreTrainedTokenizerBase",
) -> None:
    """Refuse a teacher whose logits do not stand for the student's tokens; padding at its vocabulary's end is allowed.

    Raises:
        BadInput: naming a token that differs.
    """
    if teacher.vocab_size < student.vocab_size:
        raise BadInput(
            FIELD,
            f"vocab_size in its config.json is {teacher.vocab_size}, less than the base model's {student.vocab_size}",
            _REMEDY,
        )
    theirs, ours = teacher_tokenizer.get_vocab(), student_tokenizer.get_vocab()
    # Some families' tokenizers have a token that the smaller of their models cannot generate, such as one for images.
    if beyond := [word for word, index in theirs.items() if index >= student.vocab_size and word not in ours]:
        raise BadInput(
            FIELD,
            f"its tokenizer has {len(beyond)} tokens, such as {beyond[0]!r}, whose ids are not below the base model's "
            f"vocab_size of {student.vocab_size}",
            _REMEDY,
        )
    if others := [word for word, index in ours.items() if theirs.get(word) != index]:
        raise BadInput(
            FIELD,
            f"{len(others)} of the base model's {len(ours)} tokens, such as {others[0]!r}, have another id or are "
            "missing in its tokenizer",
            _REMEDY,
        )


def load_teacher(config: RunConfig, dtype: "torch.dtype", **settings: Any) -> "PreTrainedModel":
    """The teacher, without gradients and dropout. Under ZeRO-3 it is sharded over the ranks, as `load_model` explains.

    Entries of its vocabulary beyond the base model's are removed: `read_teacher` has checked that they are padding.
    `settings` are more of `from_pretrained`'s arguments.
    """
    from transformers import AutoModelForCausalLM

    if config.paths.teacher is None:
        raise ValueError("the run has no teacher")
    model: PreTrainedModel = load_model(AutoModelForCausalLM, config.paths.teacher, FIELD, dtype=dtype, **settings)
    base = load_config(config.paths.model).get_text_config()
    if model.config.get_text_config().vocab_size > base.vocab_size:
        # Larger models of a family are often padded to a multiple that more GPUs can share.
        model.resize_token_embeddings(base.vocab_size)
    model.eval()
    return model.requires_grad_(False)

"""What objectives share whose model answers prompts itself, and learns from its answers."""

from typing import TYPE_CHECKING, Any

from hone_trainer.data.prompts import RawPrompt, reward_rows
from hone_trainer.data.sample import Sample
from hone_trainer.data.text import encode_prompt
from hone_trainer.objectives.inputs import Inputs, training_arguments
from hone_trainer.objectives.on_policy import MICRO_BATCHES_AT_ONCE
from hone_trainer.objectives.trainer import TrainerMixin

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class OnPolicyMixin(TrainerMixin):
    """Put before TRL's GRPOTrainer, RLOOTrainer or DistillationTrainer, for rows with `written` and `references`."""

    _tokenizer: "PreTrainedTokenizerBase"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # TRL's trainers take a list of rows, unlike the class that they extend.
        self.data_collator = reward_rows  # type: ignore[assignment]

    def _tokenize_prompts(self, prompts: list[RawPrompt]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Ids as prepare made them and a server will: TRL's own close a text where the tokenizer does."""
        return [encode_prompt(self._tokenizer, _sample(prompt))[0] for prompt in prompts], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *rest: Any) -> Any:
        """Answers to the prompts of a step, some at a time: as many as memory is planned for.

        Every rank has as many prompts, and makes as many calls.
        """
        most = MICRO_BATCHES_AT_ONCE * self.args.per_device_train_batch_size
        parts = []
        for start in range(0, len(prompt_ids), most):
            parts.append(super()._generate_single_turn(prompt_ids[start : start + most], *rest))  # type: ignore[misc]
            self.beats("answers")
        # GRPO's also gives log-probabilities, which only vLLM returns.
        if isinstance(parts[0], tuple):
            return [ids for completions, *_ in parts for ids in completions], *parts[0][1:]
        return [ids for completions in parts for ids in completions]


def _sample(prompt: RawPrompt) -> Sample:
    if isinstance(prompt, str):
        return Sample(prompt=prompt)
    return Sample(messages=tuple(prompt), completion_start=len(prompt))


def on_policy_arguments(inputs: Inputs) -> dict[str, Any]:
    """The training arguments that the configurations of these trainers share, the general ones among them."""
    plan = inputs.plan
    return {
        **training_arguments(inputs.config, plan, inputs.output_dir),
        "max_completion_length": plan.max_completion_length,
        "temperature": plan.temperature,
        # prepare has shuffled them. TRL's sampler would draw the first order again after a resume in a later pass.
        "shuffle_dataset": False,
        "disable_dropout": not plan.lora_dropout,
        # The weights that ZeRO-3 spreads are fetched layer by layer for each token: whole, they might not fit.
        "ds3_gather_for_generation": False,
    }

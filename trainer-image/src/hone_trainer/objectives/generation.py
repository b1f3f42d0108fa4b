"""What objectives share whose model answers prompts itself, and learns from its answers."""

import logging
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hone.contract.settings import GenerationEngine
from hone_trainer.data.prompts import RawPrompt, reward_rows
from hone_trainer.data.sample import Sample
from hone_trainer.data.text import encode_prompt
from hone_trainer.models.merged import merged
from hone_trainer.objectives.answer_server import AnswerServer, Sampling
from hone_trainer.objectives.inputs import Inputs, training_arguments
from hone_trainer.objectives.on_policy import MICRO_BATCHES_AT_ONCE
from hone_trainer.objectives.trainer import TrainerMixin, build_trainer
from hone_trainer.scores.batches import fits, row_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from hone_trainer.training.rank_trainer import RankTrainer

_LOGIT_BYTES = 16
"""Bytes for each word of the vocabulary while a token is drawn: its logits in float32, and copies of them."""

logger = logging.getLogger(__name__)


class OnPolicyMixin(TrainerMixin):
    """Put before TRL's GRPOTrainer, RLOOTrainer or DistillationTrainer, for rows with `written` and `references`."""

    _tokenizer: "PreTrainedTokenizerBase"
    eos_token_ids: list[int]
    corrects = False
    """Whether the loss takes the probabilities into account that a server's answers were drawn with."""
    server: AnswerServer | None = None
    """Who writes the answers instead of the model itself."""
    _fitting = sys.maxsize
    """Answers that can be generated at once: fewer after memory has run out."""
    _served_step = -1
    """Steps that the server's adapter has learned."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # TRL's trainers take a list of rows, unlike the class that they extend.
        self.data_collator = reward_rows  # type: ignore[assignment]

    def _tokenize_prompts(self, prompts: list[RawPrompt]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Ids as prepare made them and a server will: TRL's own close a text where the tokenizer does."""
        return [encode_prompt(self._tokenizer, _sample(prompt))[0] for prompt in prompts], None, {}

    def _generate_single_turn(self, prompt_ids: list[list[int]], *rest: Any) -> Any:
        """Answers to the prompts of a step: the server's, else to as many at once as fit where activations will be."""
        if self.server:
            return self._served(self.server, prompt_ids)
        parts: list[Any] = []

        def generate(batch: list[int]) -> None:
            # The next class's: a mere super() means nothing in a function of a method.
            parts.append(super(OnPolicyMixin, self)._generate_single_turn([prompt_ids[i] for i in batch], *rest))  # type: ignore[misc]
            self.beats("answers")

        whole, budget = len(prompt_ids), self.plan.memory.activations_bytes
        row = self._answer_bytes(prompt_ids)
        least = MICRO_BATCHES_AT_ONCE * self.args.per_device_train_batch_size
        # What is computed in 16 bits is rounded to them, whatever the weights have.
        copies = 0 if self.args.bf16 or self.args.fp16 else budget - min(least, whole) * row
        with merged(cast("PreTrainedModel", self.model), copies) as held:
            done, most = 0, max(least, (budget - held) // row)
            while done < whole:
                batch = list(range(done, min(done + min(most, self._fitting), whole)))
                if self.plan.zero_stage == 3:
                    # Every rank has as many prompts, and must make as many calls: each fetches the others' weights.
                    generate(batch)
                elif not fits(generate, batch):
                    self._fitting = len(batch) // 2
                    logger.warning("out of memory; fewer answers at once from here on", extra={"rows": self._fitting})
                    continue
                done += len(batch)
        # GRPO's also gives log-probabilities, which only vLLM returns.
        if isinstance(parts[0], tuple):
            return [ids for completions, *_ in parts for ids in completions], *parts[0][1:]
        return [ids for completions in parts for ids in completions]

    def _served(self, server: AnswerServer, prompt_ids: list[list[int]]) -> Any:
        """Answers from the server, for which each step's adapter is handed over first."""
        step = self.state.global_step
        if step != self._served_step:
            if self.accelerator.is_local_main_process:
                server.write_adapter(cast("PreTrainedModel", self.model), step)
            self.accelerator.wait_for_everyone()
            server.load(step)
            self._served_step = step
        sampling = Sampling(
            self.plan.max_completion_length or 1, self.plan.temperature or 1.0, tuple(self.eos_token_ids)
        )
        answers = server.answer(prompt_ids, sampling, f"{self.args.seed}/{step}/{self.accelerator.process_index}")
        ids = [answer.ids for answer in answers]
        return (ids, [answer.log_probabilities for answer in answers]) if self.corrects else ids

    def _answer_bytes(self, prompt_ids: list[list[int]]) -> int:
        """Bytes that an answer takes while it is generated, at most; under ZeRO-3 the same on each rank."""
        answer = self.plan.max_completion_length or 0
        longest = max(map(len, prompt_ids))
        if self.plan.zero_stage == 3:
            longest = max(1, self.plan.sequence_length - answer)
        model = cast("PreTrainedModel", self.model)
        logits = _LOGIT_BYTES * model.config.get_text_config().vocab_size
        return int(row_bytes(model, answer)(longest)) + int(logits)


def _sample(prompt: RawPrompt) -> Sample:
    if isinstance(prompt, str):
        return Sample(prompt=prompt)
    return Sample(messages=tuple(prompt), completion_start=len(prompt))


def build_generating(
    trainer: type[OnPolicyMixin], inputs: Inputs, model: "PreTrainedModel", *rest: Any, **more: Any
) -> "RankTrainer":
    """A trainer whose model generates answers; arguments as of `build_trainer`."""
    built = build_trainer(trainer, inputs, model, *rest, **more)
    configured = inputs.config.answer_server
    if configured and inputs.plan.generation_engine is GenerationEngine.VLLM:
        generating = cast("OnPolicyMixin", built)
        seconds = inputs.config.start_deadline_seconds
        # Each try to reach it is a sign of life: how long it may be gone, it knows itself.
        generating.server = AnswerServer(
            configured.url, Path(configured.adapters), seconds, moves=partial(inputs.beats, "answers")
        )
        # Not as an argument: TRL would start, or look for, a server of its own.
        generating.use_vllm = trainer.corrects  # type: ignore[attr-defined]
    return built


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

"""A tiny base model, its tokenizer and a prepared data set, made in a second: for tests of train, launch and finish.

The task: each prompt names one of the words, the answer is the word's number. A Llama of some thousand parameters
learns it in a few dozen steps with every weight, so that a test can tell a trained model from an untrained one.
"""

import json
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hone.contract.methods import MethodType
from hone.contract.objectives import OBJECTIVES, Objective
from hone.contract.plan import DatasetSummary, MemoryEstimate, Plan
from hone.contract.rewards import RewardFunction, RewardName, Rewards
from hone.contract.runconfig import DataPaths, JobIdentity, Paths, RunConfig, Topology
from hone.contract.settings import (
    Checkpoint,
    EarlyStopping,
    Evaluation,
    Freeze,
    Hyperparameters,
    Method,
    Precision,
    Scheduler,
    Select,
)
from hone_trainer.data import encoders
from hone_trainer.objectives import components
from hone_trainer.protocol.planfile import PlanFile, save_plan
from hone_trainer.protocol.runconfig import digest_of
from hone_trainer.training import checkpoint

RANK_ENV = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "OMP_NUM_THREADS": "1",
}
"""What torchrun gives the only rank of a run, without the port."""

WORDS = ["apple", "bread", "chair", "dance", "eagle", "flame", "grape", "house"]
NUMBERS = [f"n{index}" for index in range(len(WORDS))]
LABELS = ["east", "north", "south", "west"]
"""Classes of the words, in turn."""
ANSWER_TOKENS = 3
"""Most tokens of an answer that the model writes itself."""
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %} <eos>{% endif %} {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


@contextmanager
def only_rank() -> Iterator[None]:
    """This process as the only rank of a run, as torchrun would have started it; for a whole module of tests."""
    import torch
    import torch.distributed as dist
    from accelerate.state import AcceleratorState, PartialState

    # More threads than that gain nothing on matrices this small, and lose much on a busy machine.
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        for name, value in {**RANK_ENV, "MASTER_PORT": str(probe.getsockname()[1])}.items():
            patch.setenv(name, value)
        probe.close()
        yield
        if dist.is_initialized():
            dist.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()


def make_model(directory: Path, *, hidden: int = 32, seed: int = 0, attention_dropout: float = 0.1) -> Path:
    """Write a random Llama and a word-level tokenizer with a chat template to `directory`."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = [*SPECIAL, "user", "assistant", *WORDS, *NUMBERS]
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=True,
        initializer_range=0.3,  # as large as those of trained embeddings, or LoRA could not move the answers
        attention_dropout=attention_dropout,  # so that a resume that loses the random state is seen without LoRA too
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def make_reward_model(directory: Path) -> Path:
    """Write a random Llama with a head of one output, and the tokenizer of `make_model`, to `directory`."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    make_model(directory, hidden=16, seed=1)
    config = AutoConfig.from_pretrained(directory, num_labels=1)
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(directory)
    return directory


def make_prepared(
    directory: Path,
    model: Path,
    *,
    rows: int = 256,
    validation_rows: int = 9,
    test_rows: int = 24,
    seed: int = 0,
    wrong: float = 0.0,
) -> Path:
    """Write prepared data of the words' numbers, as prepare does; a share of the training rows has `wrong` ones."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    sources = {"train": random.Random(seed), "validation": random.Random(seed + 1), "test": random.Random(seed + 2)}

    def row(split: str) -> dict[str, object]:
        chance = sources[split]
        index = chance.randrange(len(WORDS))
        filler = [chance.choice(WORDS) for _ in range(chance.randrange(3))]
        prompt = f"user {' '.join([*filler, WORDS[index]])} assistant "
        prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if split == "train" and wrong and chance.random() < wrong:
            index = (index + chance.randrange(1, len(WORDS))) % len(WORDS)
        answer_ids = tokenizer(f"{NUMBERS[index]} <eos>", add_special_tokens=False)["input_ids"]
        columns: dict[str, object] = {
            "input_ids": prompt_ids + answer_ids,
            "labels": [-100] * len(prompt_ids) + answer_ids,
        }
        if split == "test":
            columns |= {"prompt_ids": prompt_ids, "reference": NUMBERS[index], "prompt": prompt}
        return columns

    return _write_prepared(directory, row, rows, validation_rows, test_rows)


def make_labeled(
    directory: Path,
    model: Path,
    *,
    rows: int = 256,
    validation_rows: int = 9,
    test_rows: int = 24,
    seed: int = 0,
    several: bool = False,
) -> Path:
    """Write prepared data for classification: the class of a text is that of its last word, two words to a class.

    Args:
        directory, model, rows, validation_rows, test_rows, seed: as of `make_prepared`.
        several: whether a text has the classes of all its words.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    chance = random.Random(seed)
    counts = [0] * len(LABELS)

    def row(split: str) -> dict[str, object]:
        index = chance.randrange(len(WORDS))
        words = [*(chance.choice(WORDS) for _ in range(chance.randrange(3))), WORDS[index]]
        text = " ".join(words)
        ids, label = tokenizer(text)["input_ids"], index % len(LABELS)
        labels = sorted({WORDS.index(word) % len(LABELS) for word in words}) if several else [label]
        columns: dict[str, object] = {"input_ids": ids, "label": labels if several else label}
        if split == "train":
            for each in labels:
                counts[each] += 1
        elif split == "test":
            reference = ", ".join(LABELS[each] for each in labels)
            columns |= {"prompt_ids": ids, "reference": reference, "prompt": text}
        return columns

    _write_prepared(directory, row, rows, validation_rows, test_rows)
    meta = json.loads((directory / "prepared.json").read_text())
    classes = {"names": LABELS, "rows": counts} | ({"total": rows} if several else {})
    (directory / "prepared.json").write_text(json.dumps({**meta, "classes": classes}))
    return directory


def make_pairs(
    directory: Path,
    model: Path,
    *,
    rows: int = 256,
    validation_rows: int = 9,
    test_rows: int = 24,
    seed: int = 0,
    whole: bool = False,
) -> Path:
    """Write prepared pairs: the better answer is the word's number, the worse one another's.

    Args:
        whole: whether prompt and answer are one, as a reward model reads them.
    """
    chance, ids_of = random.Random(seed), _ids_of(model)

    def row(split: str) -> dict[str, object]:
        right, wrong = chance.sample(range(len(WORDS)), 2)
        prompt = f"user {WORDS[right]} assistant "
        head = ids_of(prompt)
        chosen, rejected = (ids_of(f"{NUMBERS[index]} <eos>") for index in (right, wrong))
        before = head if whole else []
        columns: dict[str, object] = {"chosen_ids": before + chosen, "rejected_ids": before + rejected}
        if split == "test" or not whole:
            columns["prompt_ids"] = head
        if split == "test":
            columns |= {"reference": NUMBERS[right], "prompt": prompt}
        return {**columns, "length": len(head) + 2}

    return _write_prepared(directory, row, rows, validation_rows, test_rows)


def make_scored(directory: Path, model: Path, **options: int) -> Path:
    """Write prepared pairs for a reward model."""
    return make_pairs(directory, model, whole=True, **options)


def make_rated(
    directory: Path, model: Path, *, rows: int = 256, validation_rows: int = 9, test_rows: int = 24, seed: int = 0
) -> Path:
    """Write prepared rated answers: the word's number is a good one, another's a bad one."""
    chance, ids_of = random.Random(seed), _ids_of(model)
    counts = [0, 0]

    def row(split: str) -> dict[str, object]:
        right, wrong = chance.sample(range(len(WORDS)), 2)
        label = chance.randrange(2)
        prompt, answer = f"user {WORDS[right]} assistant ", NUMBERS[right if label else wrong]
        columns: dict[str, object] = {
            "prompt_ids": ids_of(prompt),
            "completion_ids": ids_of(f"{answer} <eos>"),
            "label": label,
            "length": 5,
        }
        if split == "test":
            return {**columns, "reference": answer, "prompt": prompt}
        counts[label] += split == "train"
        return {**columns, "KL_completion_ids": ids_of(f"{NUMBERS[chance.randrange(len(WORDS))]} <eos>")}

    _write_prepared(directory, row, rows, validation_rows, test_rows)
    meta = json.loads((directory / "prepared.json").read_text())
    (directory / "prepared.json").write_text(
        json.dumps({**meta, "classes": {"names": ["false", "true"], "rows": counts}})
    )
    return directory


def make_asked(
    directory: Path, model: Path, *, rows: int = 256, validation_rows: int = 9, test_rows: int = 24, seed: int = 0
) -> Path:
    """Write prepared prompts whose right answer is the word's number."""
    chance, ids_of = random.Random(seed), _ids_of(model)

    def row(split: str) -> dict[str, object]:
        index = chance.randrange(len(WORDS))
        messages = [{"role": "user", "content": " ".join([chance.choice(WORDS), WORDS[index]])}]
        prompt = f"user {messages[0]['content']} assistant "
        columns: dict[str, object] = {
            "prompt_ids": ids_of(prompt),
            "written": json.dumps(messages),
            "references": json.dumps([NUMBERS[index]]),
        }
        if split == "test":
            columns |= {"reference": NUMBERS[index], "prompt": prompt}
        return {**columns, "length": len(ids_of(prompt)) + ANSWER_TOKENS}

    return _write_prepared(directory, row, rows, validation_rows, test_rows)


def _ids_of(model: Path) -> Callable[[str], list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


MAKERS: dict[Callable[..., object], Callable[..., Path]] = {
    encoders.of_answers: make_prepared,
    encoders.of_classes: make_labeled,
    encoders.of_scored_pairs: make_scored,
    encoders.of_pairs: make_pairs,
    encoders.of_ratings: make_rated,
    encoders.of_prompts: make_asked,
}
"""What writes prepared data as an objective's encoder does."""


def _write_prepared(
    directory: Path, row: Callable[[str], dict[str, object]], rows: int, validation_rows: int, test_rows: int
) -> Path:
    from datasets import Dataset

    directory.mkdir(parents=True)
    for name, count in (("train", rows), ("validation", validation_rows), ("test", test_rows)):
        examples = [row(name) for _ in range(max(1, count))]  # one row tells an empty split its columns
        for one in examples:
            one.setdefault("length", max(len(ids) for ids in one.values() if isinstance(ids, list)))
        Dataset.from_list(examples).select(range(count)).save_to_disk(str(directory / name), num_shards=1)
    meta = {"summary": summary(rows, test_rows, validation_rows).to_dict(), "sequenceLength": 16, "warnings": []}
    (directory / "prepared.json").write_text(json.dumps(meta))
    return directory


def mark_whole(path: Path, **mark: Any) -> checkpoint.Complete:
    """Mark a checkpoint whole, as its ranks do together, with what COMPLETE.json says of the run."""
    ranks = range(mark["world_size"])
    sizes = {name: size for rank in ranks for name, size in checkpoint.sync_part(path, rank).items()}
    digests = {name: digest for rank in ranks for name, digest in checkpoint.digests_of_part(path, rank).items()}
    return checkpoint.complete(path, checkpoint.Written(sizes, digests), **mark)


def summary(rows: int, test_rows: int, validation_rows: int = 9) -> DatasetSummary:
    """What prepare would say of such data."""
    return DatasetSummary(
        digest=f"sha256:tiny-{rows}-{test_rows}",
        format="PromptCompletion",
        train_on="Completion",
        train_rows=rows,
        validation_rows=validation_rows,
        test_rows=test_rows,
    )


def make_run(
    root: Path,
    *,
    method: MethodType = MethodType.LORA,
    objective: Objective = Objective.SFT,
    freeze: Freeze | None = None,
    steps: int = 6,
    every: int = 2,
    keep: int = 2,
    processes: int = 1,
    gpus: int = 0,
    precision: str = "float32",
    compute_dtype: Precision | None = None,
    nodes: int = 1,
    zero_stage: int = 0,
    learning_rate: float = 1e-2,
    test_rows: int = 24,
    accumulation: int = 1,
    micro_batch: int = 4,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    shared: Path | None = None,
    hidden: int = 32,
    evaluate: int | None = None,
    hang_floor_seconds: float = 300.0,
    start_deadline_seconds: int = 1800,
    checkpoint_seconds: float | None = None,
    probe: bool = False,
    merge_output: bool = False,
    reward: Rewards | None = None,
    beta: float | None = None,
    reward_model: Path | None = None,
    activation_bytes: int = 1,
    select: Select | None = None,
    patience: int | None = None,
) -> RunConfig:
    """A run under `root` that prepare has already planned; its RunConfig also lies in `<root>/run.json`.

    Args:
        root: directory of the run.
        method, objective, freeze, steps, every, keep, processes, nodes, zero_stage, ...: the plan's figures.
        shared: directory with the model and data of another run, to use the same ones.
        gpus: GPUs of each pod, one for each process; without, ranks run on the CPU.
        precision: the planned one.
        compute_dtype: in which GPUs compute, if it is not bfloat16.
        hidden: the model's hidden size.
        evaluate: steps between evaluations on the validation rows.
        merge_output: whether finish merges the adapter.
        reward: what answers are rewarded for; by default the right number, and less for any other one.
        reward_model: directory of a model that scores answers.
        beta: the plan's; by default the objective's.
        select, patience: which checkpoint is exported, and after how many evaluations without a better one to stop.
        activation_bytes: the planned ones, which answers may take while they are generated.
    """
    facts = OBJECTIVES[objective]
    generations = facts.rollout.generations if facts.rollout else None
    if facts.needs.reward and reward is None:
        number = RewardFunction(name=RewardName.REGEX, pattern="n[0-7]", weight=0.2)
        reward = Rewards(functions=[number, RewardFunction(name=RewardName.F1)])
    base = shared or root
    model, prepared = base / "model", base / "workspace/prepared/tiny"
    if not model.exists():
        make_model(model, hidden=hidden, attention_dropout=attention_dropout)
        if facts.needs.teacher:
            make_model(base / "teacher", hidden=2 * hidden, seed=1)
        MAKERS[components(objective).encoder](prepared, model, test_rows=test_rows)
    (root / "output").mkdir(parents=True, exist_ok=True)
    early = EarlyStopping(patience=patience) if patience else None
    config = RunConfig(
        job=JobIdentity(namespace="team-a", name="tiny", uid="0000"),
        model_name="hf://example/tiny",
        objective=objective,
        method=Method(type=method, freeze=freeze),
        hyperparameters=Hyperparameters(seed=7),
        data=DataPaths(train=str(base / "unused.jsonl")),
        reward=reward,
        topology=Topology(nodes=nodes, processes_per_node=processes, gpus_per_node=gpus, zero_stage=zero_stage),
        checkpoint=Checkpoint(every_steps=every, keep=keep),
        evaluation=Evaluation(max_samples=500, max_new_tokens=4, early_stopping=early),
        paths=Paths(
            model=str(model),
            teacher=str(base / "teacher") if facts.needs.teacher else None,
            workspace=str(base / "workspace"),
            run=str(root / "workspace/run"),
            output=str(root / "output"),
            reward_model=str(reward_model) if reward_model else None,
        ),
        hang_floor_seconds=hang_floor_seconds,
        start_deadline_seconds=start_deadline_seconds,
        merge_output=merge_output,
    )
    (root / "run.json").write_text(config.to_json())
    world = nodes * processes
    lora = method.adapts
    plan = Plan(
        objective=objective.value,
        method=method.value,
        total_steps=steps,
        epochs=1.0,
        learning_rate=learning_rate,
        scheduler=Scheduler.COSINE,
        warmup_ratio=0.1,
        global_batch_size=micro_batch * accumulation * world,
        micro_batch_size=micro_batch,
        gradient_accumulation_steps=accumulation,
        sequence_length=16,
        weight_decay=0.0,
        beta=OBJECTIVES[objective].defaults.beta if beta is None else beta,
        generations=generations if facts.needs.reward else None,
        max_completion_length=ANSWER_TOKENS if generations else None,
        temperature=1.0 if generations else None,
        max_grad_norm=1.0,
        world_size=world,
        zero_stage=zero_stage,
        precision=precision,
        compute_dtype=compute_dtype,
        probe=probe,
        lora_rank=8 if lora else None,
        lora_alpha=16 if lora else None,
        lora_dropout=dropout if lora else None,
        checkpoint_every_steps=every,
        checkpoint_seconds=checkpoint_seconds,
        evaluation_every_steps=evaluate,
        checkpoint_select=select,
        parameters=10_000,
        trainable_parameters=1_000,
        memory=MemoryEstimate(
            weights_bytes=1,
            gradients_bytes=1,
            optimizer_bytes=1,
            activations_bytes=activation_bytes,
            overhead_bytes=1,
            total_bytes=4 + activation_bytes,
        ),
    )
    save_plan(
        config,
        PlanFile(
            plan=plan,
            dataset=summary(256, test_rows),
            prepared=str(prepared),
            run_config_digest=digest_of(config),
            model_digest="sha256:tiny",
        ),
    )
    return config

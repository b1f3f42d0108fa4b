"""One side of a comparison, in a process of its own: `python -m dev.bench_side <job.json> <file descriptor>`.

`dev.bench_turns` starts it. The job names what to run:

    {"kind": "hone", "run": ..., "steps": ...}    Hone's rank, by the RunConfig at `run`, as torchrun starts it
    {"kind": "bare", "run": ..., "steps": ...}    a plain TRL script with the settings that Hone's plan of that run has
    {"kind": "trl",  "run": ..., "steps": ..., "overrides": {...}}    a plain TRL script with TRL's own settings
"""

import json
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from dev.bench_turns import turns_callback

if TYPE_CHECKING:
    from peft import LoraConfig
    from trl import SFTTrainer

    from hone_trainer.objectives.inputs import Inputs
    from hone_trainer.training.rank_trainer import RankTrainer


def hone(job: dict[str, Any], reports: int) -> None:
    """Hone's own rank, unchanged but for the callback that waits for its turns."""
    from hone_trainer import train
    from hone_trainer.objectives import sft
    from hone_trainer.protocol.runconfig import RUN_CONFIG_ENV
    from hone_trainer.protocol.status import STATUS_DIR_ENV

    run = Path(job["run"])
    status = run.with_suffix(".status")
    status.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # What torchrun sets for the only rank of a gang.
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {RUN_CONFIG_ENV: str(run), STATUS_DIR_ENV: str(status)} | rank | meet
    build = sft.COMPONENTS.build

    def build_with_turns(inputs: "Inputs") -> "RankTrainer":
        trainer = build(inputs)
        _add_turns(cast("SFTTrainer", trainer), job, reports)
        return trainer

    sft.COMPONENTS = replace(sft.COMPONENTS, build=build_with_turns)
    sys.exit(train.main())


def _adapter(plan: dict[str, Any]) -> "LoraConfig":
    """The adapter that Hone's plan chose, for TRL."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=plan["loraRank"],
        lora_alpha=plan["loraAlpha"],
        lora_dropout=plan["loraDropout"],
        target_modules="all-linear",
    )


def bare(job: dict[str, Any], reports: int) -> None:
    """What one would write without Hone, for the same model, rows, order and settings; it neither logs nor saves."""
    import torch
    from datasets import load_from_disk
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    run = json.loads(Path(job["run"]).read_text())
    planned = json.loads((Path(run["paths"]["run"]) / "plan.json").read_text())
    plan, model = planned["plan"], run["paths"]["model"]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(model),
        train_dataset=load_from_disk(f"{planned['prepared']}/train"),
        peft_config=_adapter(plan),
        args=SFTConfig(
            output_dir=str(Path(job["run"]).with_suffix(".bare")),
            max_steps=plan["totalSteps"],
            per_device_train_batch_size=plan["microBatchSize"],
            gradient_accumulation_steps=plan["gradientAccumulationSteps"],
            learning_rate=plan["learningRate"],
            lr_scheduler_type=plan["scheduler"].lower(),
            warmup_steps=plan["warmupRatio"],
            max_grad_norm=plan["maxGradNorm"],
            seed=run["hyperparameters"]["seed"],
            optim="adamw_torch_fused",
            max_length=None,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
        ),
    )
    _add_turns(trainer, job, reports)
    trainer.train()


def trl(job: dict[str, Any], reports: int) -> None:
    """TRL's own settings, on the rows as the user wrote them; only the adapter is Hone's, and nothing is saved."""
    from datasets import load_dataset
    from trl import SFTConfig, SFTTrainer

    run = json.loads(Path(job["run"]).read_text())
    plan = json.loads((Path(run["paths"]["run"]) / "plan.json").read_text())["plan"]
    trainer = SFTTrainer(
        model=run["paths"]["model"],
        train_dataset=load_dataset("json", data_files=run["data"]["train"], split="train"),
        peft_config=_adapter(plan),
        args=SFTConfig(
            output_dir=str(Path(job["run"]).with_suffix(".trl")),
            max_steps=job["totalSteps"],
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            **job["overrides"],
        ),
    )
    _add_turns(trainer, job, reports)
    trainer.train()


def _add_turns(trainer: "SFTTrainer", job: dict[str, Any], reports: int) -> None:
    trainer.add_callback(turns_callback(job["steps"], reports, lambda: trainer._total_train_tokens))


KINDS = {"hone": hone, "bare": bare, "trl": trl}


def main() -> None:
    """Run the job that the first argument names; the second is the file descriptor for reports."""
    job = json.loads(Path(sys.argv[1]).read_text())
    os.environ["HF_HUB_OFFLINE"] = "1"
    KINDS[job["kind"]](job, int(sys.argv[2]))


if __name__ == "__main__":
    main()

"""Every private or undocumented part of a library that the trainer builds on, and a check that it is still there.

An upgrade that changes one of them fails here, by name, instead of somewhere in a run. Whoever overrides, calls or
reads another one adds a row to `HOOKS`; a test finds uses that have none.
"""

import inspect
import pkgutil
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Hook:
    """Something of a library that its documentation does not promise.

    Attributes:
        owner: the class or module that has it, as a dotted path.
        name: its name there. An attribute that only instances have counts if the owner's code assigns it.
        used_in: the modules that use it, below `hone_trainer`.
        why: what for.
        parameters: names of its parameters, without `self`. None: it is not called.
        override: whether we override it, so that it must have these parameters and no others, in this order; where we
            only call it, others may be there.
        value: what it is equal to. None: anything.
    """

    owner: str
    name: str
    used_in: tuple[str, ...]
    why: str
    parameters: tuple[str, ...] | None = None
    override: bool = False
    value: object = None

    @property
    def library(self) -> str:
        """The distribution that it is part of."""
        return self.owner.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}"


_MISSING = object()


class Incompatible(Exception):
    """Installed libraries are not the ones that the trainer was written for."""


_BASE = ("objectives/trainer.py",)
_GROUPS = ("training/length_groups.py", "training/step_shares.py")
_REFERENCE = ("objectives/reference.py",)
_ROLLOUT = ("objectives/generation.py",)
_ZERO = ("models/zero.py",)
_ADAPTERS = ("models/adapters.py",)
_MERGED = ("models/merged.py",)
_MODULES = ("models/modules.py",)
_QUANTIZED = ("full_name", "patterns")
_AUTO = "transformers.models.auto.modeling_auto"
_TERMS = ("planning/memory_terms.py",)
_SAMPLES = ("epoch_iterator", "num_batches", "device")
_STEP = ("model", "inputs", "num_items_in_batch")
_EVALUATION = ("model", "inputs", "prediction_loss_only", "ignore_keys")
_OF_DATA = ("dataset_tags", "dataset", "dataset_args")
_TO_GENERATE = ("prompt_ids", "images", "multimodal_fields")
_ANSWERS = ("_generate_single_turn", _ROLLOUT, "as many answers at once as memory is planned for, or a server's")
_REFERENCE_COLUMNS = "log-probabilities before training are written to the run's directory, not among the shared rows"
_LOOPBACK = "a rendezvous of our own, whose store listens on the loopback address"


def _of_each(owners: Iterable[str], name: str, used_in: tuple[str, ...], why: str, **more: Any) -> tuple[Hook, ...]:
    """The same hook of several classes."""
    return tuple(Hook(owner, name, used_in, why, **more) for owner in owners)


_REFERRED = ("trl.DPOTrainer", "trl.KTOTrainer")
_GENERATING = ("trl.GRPOTrainer", "trl.RLOOTrainer", "trl.DistillationTrainer")

_TRAINER = (
    Hook(
        "transformers.Trainer",
        "_get_grad_norm",
        _BASE,
        "a norm that is not finite must not be saved",
        ("model", "grad_norm"),
        override=True,
    ),
    Hook(
        "transformers.Trainer",
        "_save_checkpoint",
        _BASE,
        "a full workspace is told apart from other failures",
        ("model", "trial"),
        override=True,
    ),
    Hook(
        "transformers.Trainer",
        "save_model",
        _BASE,
        "DeepSpeed's own files are enough for a checkpoint that is not exported",
        ("output_dir", "_internal_call"),
        override=True,
    ),
    Hook(
        "transformers.Trainer",
        "_build_accelerator_args",
        _BASE,
        "its kwargs_handlers hold DDP's settings, of which no training argument sets gradient_as_bucket_view",
        ("**kwargs",),
        override=True,
    ),
    Hook("accelerate.DistributedDataParallelKwargs", "gradient_as_bucket_view", _BASE, "DDP holds gradients once"),
    Hook(
        "transformers.Trainer",
        "create_accelerator_and_postprocess",
        _BASE,
        "the accelerator of an only process does not put DDP around the model",
        (),
        override=True,
    ),
    Hook(
        "accelerate.Accelerator",
        "prepare_model",
        _BASE,
        "with evaluation_mode it does all that it does for training but DDP",
        ("model", "device_placement", "evaluation_mode"),
    ),
    *_of_each(
        ("transformers.Trainer", *_GENERATING),
        "get_train_dataloader",
        _BASE,
        "sorts rows",
        parameters=(),
        override=True,
    ),
    Hook("accelerate.data_loader.DataLoaderShard", "set_sampler", _GROUPS, "also tells it each epoch", ("sampler",)),
    Hook(
        "transformers.Trainer",
        "training_step",
        _BASE,
        "each micro-batch's loss is followed, and its activations may wait in host memory",
        _STEP,
        override=True,
    ),
    Hook("transformers.Trainer", "get_batch_samples", _BASE, "counts what a loss is over", _SAMPLES, override=True),
    Hook("transformers.Trainer", "_track_num_input_tokens", _BASE, "of each micro-batch", ("inputs",), override=True),
    Hook("accelerate.state.GradientState", "_set_sync_gradients", _BASE, "the last micro-batch", ("sync_gradients",)),
    Hook(
        "transformers.Trainer",
        "evaluate",
        _BASE,
        "an evaluation leaves the random state alone",
        ("eval_dataset", "ignore_keys", "metric_key_prefix"),
        override=True,
    ),
    Hook(
        "transformers.Trainer",
        "prediction_step",
        _BASE,
        "an evaluation can end early",
        _EVALUATION,
        override=True,
    ),
    *_of_each(
        ("trl.GRPOTrainer", "trl.DistillationTrainer", "trl.experimental.orpo.ORPOTrainer"),
        "prediction_step",
        _BASE,
        "as of transformers.Trainer, which they override",
        parameters=_EVALUATION,
        override=True,
    ),
    Hook(
        "transformers.Trainer",
        "create_model_card",
        _BASE,
        "finish writes the card",
        ("language", "license", "tags", "model_name", "finetuned_from", "tasks", *_OF_DATA),
        override=True,
    ),
    Hook(
        "trl.trainer.base_trainer._BaseTrainer",
        "create_model_card",
        _BASE,
        "finish writes the card",
        ("model_name", "dataset_name", "tags"),
        override=True,
    ),
    Hook(
        "transformers.trainer", "TRAINING_ARGS_NAME", ("training/checkpoint.py",), "removed", value="training_args.bin"
    ),
    Hook(
        "transformers.trainer_utils",
        "PREFIX_CHECKPOINT_DIR",
        ("training/checkpoint.py",),
        "found by it",
        value="checkpoint",
    ),
)

_OBJECTIVES = (
    *_of_each(
        _REFERRED,
        "_prepare_dataset",
        _REFERENCE,
        "rows are prepared already",
        parameters=("dataset", "processing_class", "args", "dataset_name"),
        override=True,
    ),
    *_of_each(
        _REFERRED,
        "_precompute_ref_logps",
        _REFERENCE,
        _REFERENCE_COLUMNS,
        parameters=("dataset", "name", "batch_size"),
        override=True,
    ),
    *_of_each(_REFERRED, "_precompute_engine", _REFERENCE, "DeepSpeed's engine for a forward pass, made once"),
    *_of_each(_REFERRED, "compute_ref_log_probs", _REFERENCE, _REFERENCE_COLUMNS, parameters=("model", "inputs")),
    Hook("trl.models.utils", "prepare_deepspeed", _REFERENCE, "makes that engine", ("model", "accelerator")),
    Hook("transformers.Trainer", "is_deepspeed_enabled", _REFERENCE, "whether the model needs that engine"),
    Hook("datasets.Dataset", "_indices", _REFERENCE, "whether rows were chosen: add_column would write them first"),
    *_of_each(_GENERATING, "_tokenizer", _ROLLOUT, "prompts are tokenized with it"),
    *_of_each(_GENERATING, "eos_token_ids", _ROLLOUT, "the tokens that end an answer"),
    Hook(
        "trl.GRPOTrainer",
        "use_vllm",
        _ROLLOUT,
        "set once it is built: the loss then corrects for the probabilities that a server's answers were drawn with",
    ),
    *_of_each(
        _GENERATING,
        "_tokenize_prompts",
        _ROLLOUT,
        "prompts are tokenized as prepare and a server do",
        parameters=("prompts",),
        override=True,
    ),
    Hook("trl.GRPOTrainer", *_ANSWERS, (*_TO_GENERATE, "num_generations", "has_tool_images"), override=True),
    Hook("trl.RLOOTrainer", *_ANSWERS, _TO_GENERATE, override=True),
    Hook("trl.DistillationTrainer", *_ANSWERS, (*_TO_GENERATE, "has_tool_images"), override=True),
    Hook(
        "trl.DistillationTrainer",
        "compute_loss",
        ("objectives/distillation.py",),
        "its loss calls the layers past the model's forward, so it needs autocast around it",
        ("model", "inputs", "return_outputs", "num_items_in_batch"),
        override=True,
    ),
    Hook(
        "trl.experimental.orpo",
        "ORPOConfig",
        ("objectives/orpo.py",),
        "ORPO's settings",
        ("max_length", "beta", "disable_dropout"),
    ),
    Hook(
        "trl.experimental.orpo",
        "ORPOTrainer",
        ("objectives/orpo.py",),
        "ORPO's trainer",
        ("model", "args", "train_dataset"),
    ),
    Hook(
        "trl.experimental.orpo.ORPOTrainer",
        "tokenize_row",
        ("objectives/orpo.py",),
        "rows are prepared already",
        ("feature", "model"),
        override=True,
    ),
)

_MEMORY = (
    Hook(
        "trl.models.activation_offloading",
        "get_act_offloading_ctx_manager",
        ("training/offload.py",),
        "keeps activations in host memory, for every objective",
        ("model", "warn_if_no_head"),
    ),
    Hook("trl.kernels.chunked_logprob", "TOKEN_CHUNK_SIZE", _TERMS, "a tile's tokens", value=4096),
    Hook("trl.trainer.utils", "_CHUNKED_LOGPROB_CHUNK_SIZE", _TERMS, "a tile's words", value=32768),
    Hook("trl.trainer.utils", "add_fused_lm_head", ("scores/rows.py",), "logits in tiles", ("model",)),
    Hook("bitsandbytes.nn.Linear4bit", "support_avx512bf16_for_cpu", ("methods/qlora.py",), "off: it has no gradient"),
    Hook("deepspeed.ops", "__compatible_ops__", _ZERO, "ranks on CPUs compile no shared-memory all-reduce"),
    Hook(
        "deepspeed.ops.op_builder.cpu.ShareMemCommBuilder",
        "NAME",
        _ZERO,
        "the key of that all-reduce",
        value="deepspeed_shm_comm",
    ),
    Hook(
        "deepspeed.runtime.checkpoint_engine.torch_checkpoint_engine.TorchCheckpointEngine",
        "load",
        _ZERO,
        "it would unpickle anything from a checkpoint",
        ("path", "map_location"),
        override=True,
    ),
    Hook("deepspeed.runtime.fp16.loss_scaler", "DynamicLossScaler", _ZERO, "a class that checkpoints hold"),
    Hook("deepspeed.runtime.fp16.loss_scaler", "LossScaler", _ZERO, "a class that checkpoints hold"),
    Hook("deepspeed.runtime.zero.config", "ZeroStageEnum", _ZERO, "a class that checkpoints hold"),
    Hook("deepspeed.utils.tensor_fragment", "fragment_address", _ZERO, "a class that checkpoints hold"),
    Hook(
        "deepspeed.runtime.zero.partition_parameters",
        "ds_id",
        ("models/head.py", *_MERGED),
        "marks weights that ZeRO-3 has spread",
    ),
)

_KINDS = ("models/facts.py", "models/untrusted.py")
_FAKE = ("models/activations.py",)
_MODELS = (
    Hook("torch._subclasses.fake_tensor", "FakeTensorMode", _FAKE, "a model without memory for its values"),
    Hook("torch.utils._python_dispatch", "TorchDispatchMode", _FAKE, "what a backward pass allocates"),
    Hook("torch.utils", "_pytree", _FAKE, "the tensors that an operation returns"),
    Hook("torch.UntypedStorage", "_cdata", _FAKE, "tells apart storages that have no address"),
    Hook("transformers.masking_utils", "find_packed_sequence_indices", _FAKE, "it reads values of positions"),
    Hook(_AUTO, "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", _KINDS, "which kinds of models generate text"),
    Hook(_AUTO, "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", ("models/facts.py",), "which kinds read images"),
    Hook(
        "transformers.quantizers.quantizers_utils", "should_convert_module", _MODULES, "what it quantizes", _QUANTIZED
    ),
    Hook("transformers.PreTrainedModel", "_keep_in_fp32_modules", _MODULES, "what it does not quantize"),
    Hook("transformers.pytorch_utils", "Conv1D", (*_ADAPTERS, *_MODULES), "the linear layers of GPT-2"),
    Hook("peft.tuners.lora", "LoraLayer", (*_ADAPTERS, *_MERGED), "what PEFT has put an adapter on"),
    Hook(
        "peft.tuners.lora.layer", "ParamWrapper", (*_ADAPTERS, *_MERGED, *_ROLLOUT), "an adapter on a tensor of experts"
    ),
    Hook("peft.tuners.lora.layer.ParamWrapper", "get_param", (*_ADAPTERS, *_MERGED), "that tensor", ()),
    Hook(_AUTO, "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES", _KINDS, "which can have a head for classes"),
    Hook(
        "transformers.models.auto.modeling_auto",
        "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
        ("models/untrusted.py",),
        "which kinds of models read images as well",
    ),
    Hook(
        "transformers.PreTrainedConfig",
        "_name_or_path",
        ("models/merging.py", "methods/full.py", "methods/lora.py"),
        "an artifact names the base model, not a path of the pod",
    ),
    Hook(
        "transformers.modeling_layers.GenericForSequenceClassification",
        "score",
        ("models/architectures.py",),
        "the head",
    ),
    Hook(
        "peft.utils.constants",
        "SAFETENSORS_WEIGHTS_NAME",
        ("models/untrusted.py",),
        "an adapter's weights",
        value="adapter_model.safetensors",
    ),
    Hook(
        "peft.utils.constants",
        "CONFIG_NAME",
        ("models/untrusted.py",),
        "an adapter's configuration",
        value="adapter_config.json",
    ),
)

_DATA = (
    Hook(
        "datasets.arrow_writer",
        "ArrowWriter",
        ("data/build.py",),
        "rows are written while they are read",
        ("path", "features"),
    ),
    Hook(
        "transformers.utils.chat_template_utils",
        "render_jinja_template",
        ("data/conversation.py",),
        "a conversation as text, with where the template's generation blocks are in it",
        ("conversations", "tools", "chat_template", "return_assistant_tokens_mask"),
    ),
    Hook(
        "trl.chat_template_utils",
        "get_training_chat_template",
        ("data/encode.py",),
        "a variant of the chat template that marks the assistant's tokens",
        ("tokenizer",),
    ),
)

_PROCESS = (
    Hook("huggingface_hub.utils._http", "default_client_factory", ("publishing/hub.py",), "put back at the end", ()),
    Hook("torch.distributed.run", "parse_args", ("launcher/elastic.py",), "torchrun's own arguments", ("args",)),
    Hook("torch.distributed.run", "run", ("launcher/elastic.py",), "torchrun, whose errors are read", ("args",)),
    *(
        Hook("torch.distributed.elastic.rendezvous", name, ("launcher/store.py",), _LOOPBACK, parameters)
        for name, parameters in (
            ("RendezvousHandler", None),
            ("RendezvousInfo", ("store", "rank", "world_size", "bootstrap_store_info")),
            ("RendezvousParameters", None),
            ("RendezvousStoreInfo", ("master_addr", "master_port")),
            ("rendezvous_handler_registry", None),
        )
    ),
    *(
        Hook(
            "torch.distributed.distributed_c10d",
            name,
            ("training/collectives.py",),
            "how long a process group waits that is made without a time, as DeepSpeed makes its own",
        )
        for name in ("default_pg_timeout", "default_pg_nccl_timeout")
    ),
    Hook(
        "torch.autograd.graph",
        "_engine_run_backward",
        ("launcher/stack_traces.py",),
        "a rank that is in it waits for others",
    ),
    Hook(
        "torch.optim.lr_scheduler.LRScheduler",
        "base_lrs",
        ("training/learning_rate.py",),
        "a resumed run takes another rate",
    ),
    Hook(
        "torch.optim.lr_scheduler.LRScheduler",
        "_last_lr",
        ("training/learning_rate.py",),
        "a resumed run takes another rate",
    ),
    Hook(
        "accelerate.scheduler.AcceleratedScheduler",
        "scheduler",
        ("training/learning_rate.py",),
        "torch's scheduler in it",
    ),
)

HOOKS = (*_TRAINER, *_OBJECTIVES, *_MEMORY, *_MODELS, *_DATA, *_PROCESS)


def check(hooks: Iterable[Hook] = HOOKS) -> None:
    """Check that each hook exists, with the expected parameters and value. Imports the libraries.

    Raises:
        Incompatible: naming all that are not, with the versions of their libraries.
    """
    if faults := [
        f"{hook} of {hook.library} {version(hook.library)} {fault}" for hook in hooks if (fault := _fault(hook))
    ]:
        raise Incompatible("; ".join(faults))


def _fault(hook: Hook) -> str | None:
    """What is wrong with the hook, in words; None where nothing is."""
    try:
        owner = pkgutil.resolve_name(hook.owner)
    except (ImportError, AttributeError):
        return "is gone with its owner"
    current = _defined(owner, hook.name)
    if current is _MISSING:
        return None if _assigned(owner, hook.name) and hook.parameters is None and hook.value is None else "is gone"
    if hook.value is not None and current != hook.value:
        return f"is {current!r}, not {hook.value!r}"
    return None if hook.parameters is None else _parameters_fault(hook, current)


def _parameters_fault(hook: Hook, function: Any) -> str | None:
    signs = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}
    parameters = inspect.signature(function).parameters.values()
    names = tuple(signs.get(one.kind.name, "") + one.name for one in parameters if one.name != "self")
    expected = hook.parameters or ()
    fits = names == expected if hook.override else set(expected) <= set(names)
    return None if fits else f"takes ({', '.join(names)}), not ({', '.join(expected)})"


def _defined(owner: Any, name: str) -> Any:
    """The owner's attribute, or `_MISSING`. Asks no module's `__getattr__`: DeepSpeed's compiles programs to answer."""
    if isinstance(owner, ModuleType):
        return vars(owner).get(name, _MISSING)
    return inspect.getattr_static(owner, name, _MISSING)


def _assigned(owner: Any, name: str) -> bool:
    """Whether the owner's code, or that of a class it derives from, assigns the attribute."""
    pattern = re.compile(rf"(\.|\b(?=__)|\[\"){re.escape(name)}(\"\])?(: [^=\n]+)? = ")
    classes = [owner] if isinstance(owner, ModuleType) else [one for one in owner.__mro__ if one is not object]
    return any(pattern.search(inspect.getsource(one)) for one in classes)

"""The only place where libraries load configs, tokenizers and weights from a directory: never code, never pickles.

Each call checks the directory first: since prepare, what lies there may have changed.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone_trainer.models.language import reads_images
from hone_trainer.models.untrusted import ADAPTER_WEIGHTS, CODE_KEY, check_model
from hone_trainer.protocol.errors import BadInput

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FIELD = "spec.model"


def load_config(directory: str | Path, field: str = FIELD) -> Any:
    """The model's config, of the class that transformers has for it.

    Args:
        directory: of the model.
        field: the spec's field that names it, for errors.

    Raises:
        BadInput: as of `check_model`; what else is wrong, transformers raises.
    """
    from transformers import AutoConfig

    check_model(Path(directory), field)
    return _without_code(AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False))


def _without_code(config: Any) -> Any:
    """The config without the names of classes in the model's directory, which whoever saves it would keep."""
    if hasattr(config, CODE_KEY):
        delattr(config, CODE_KEY)
    return config


def load_tokenizer(directory: str | Path, field: str = FIELD) -> "PreTrainedTokenizerBase":
    """The model's tokenizer; arguments and errors as of `load_config`."""
    from transformers import AutoTokenizer

    check_model(Path(directory), field)
    return AutoTokenizer.from_pretrained(str(directory), local_files_only=True, trust_remote_code=False)


def load_model(auto: Any, directory: str | Path, field: str = FIELD, **settings: Any) -> Any:
    """The model with its weights, from safetensors alone.

    Args:
        auto: transformers' Auto class of the model.
        directory, field: as of `load_config`.
        settings: more of `from_pretrained`'s arguments, by which it may return the model with more.

    Raises:
        BadInput: as of `check_model`.
    """
    check_model(Path(directory), field)
    config = settings.get("config") or load_config(directory, field)
    loaded = class_for(auto, config).from_pretrained(
        str(directory), local_files_only=True, trust_remote_code=False, use_safetensors=True, **settings
    )
    _without_code((loaded[0] if isinstance(loaded, tuple) else loaded).config)
    return loaded


def class_for(auto: Any, config: Any) -> Any:
    """The Auto class that has the model: causal language models that also read images are of another class."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    return AutoModelForImageTextToText if auto is AutoModelForCausalLM and reads_images(config) else auto


def build_model(auto: Any, config: Any, **settings: Any) -> Any:
    """A model with random weights, of a config that `load_config` returned; settings of `from_config`."""
    return auto.from_config(config, trust_remote_code=False, **settings)


def load_adapter(model: "PreTrainedModel", directory: str | Path, field: str = FIELD, **settings: Any) -> "PeftModel":
    """The model with an adapter next to its weights; arguments and errors as of `load_model`."""
    from peft import PeftModel

    check_model(Path(directory), field)
    if not (Path(directory) / ADAPTER_WEIGHTS).is_file():
        # PEFT would take the pickle next to it.
        raise BadInput(field, f"there is no {ADAPTER_WEIGHTS} in {directory}", "Train the adapter again.")
    return PeftModel.from_pretrained(model, str(directory), **settings)

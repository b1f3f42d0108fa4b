"""Reading the RunConfig that the operator mounted into the pod."""

import hashlib
import json
import os
from pathlib import Path

from pydantic import ValidationError

from hone.contract import VERSION
from hone.contract.runconfig import ATTEMPT_ENV, RUN_CONFIG_PATH, Attempt, RunConfig
from hone_trainer.protocol.errors import BadInput

RUN_CONFIG_ENV = "HONE_RUN_CONFIG"
"""Environment variable with another path of the RunConfig, where none is mounted."""

_NOT_OF_TRAINING = {
    *("version", "job", "paths", "materialize", "artifacts", "topology", "checkpoint", "evaluation"),
    *("merge_output", "output_bytes", "hang_floor_seconds", "answer_server"),
}
_HINT = "Operator and trainer image must be of the same release; install the chart and its images together."


def load_run_config() -> RunConfig:
    """The run's configuration.

    Raises:
        BadInput: there is none, it cannot be read, or its version is not one this trainer understands.
    """
    # Errors name the variable, not its value, which may come from a Secret.
    path = f"the file that {RUN_CONFIG_ENV} names" if os.environ.get(RUN_CONFIG_ENV) else RUN_CONFIG_PATH
    try:
        value = json.loads(Path(os.environ.get(RUN_CONFIG_ENV) or RUN_CONFIG_PATH).read_text())
    except OSError as error:
        raise BadInput("RunConfig", f"cannot read {path}: {error.strerror}", _HINT) from error
    except (ValueError, RecursionError) as error:
        raise BadInput("RunConfig", f"{path} is not JSON", _HINT) from error
    version = value.get("version", VERSION) if isinstance(value, dict) else None
    if version not in (VERSION, VERSION - 1):
        raise BadInput("RunConfig", f"{path} has version {version}, this trainer reads {VERSION}", _HINT)
    try:
        return RunConfig.from_dict(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"RunConfig.{field}", f"{first['msg']} in {path}", _HINT) from error


def load_attempt() -> Attempt:
    """What differs in this attempt; the first attempt where the operator has set nothing.

    Raises:
        BadInput: the environment variable holds no valid Attempt.
    """
    attempt = os.environ.get(ATTEMPT_ENV)
    try:
        return Attempt.model_validate_json(attempt) if attempt else Attempt(number=1)
    except ValidationError as error:
        raise BadInput(ATTEMPT_ENV, "is not valid", _HINT) from error


def digest_of(config: RunConfig) -> str:
    """A digest of the configuration's content: `sha256:` and 64 hex digits.

    A field at its default does not count, nor does the version: a run may continue with the image of a later release,
    which may know more fields.
    """
    return _digest(config, {"version"})


def training_digest(config: RunConfig) -> str:
    """A digest of what decides how a model is trained, whichever job does it: not of its name, its directories, its
    processes, its saves, its scores and its output. Data and models have digests of their own."""
    return _digest(config, _NOT_OF_TRAINING)


def _digest(config: RunConfig, without: set[str]) -> str:
    content = config.model_dump(mode="json", by_alias=True, exclude=without, exclude_none=True, exclude_defaults=True)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    if "paths" in without:
        # Reward functions are stored in the run's own directory.
        text = text.replace(config.paths.run, "")
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

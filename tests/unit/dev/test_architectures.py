"""The table of architectures: which cells there are, and the page that shows them."""

import os
import time

import pytest
from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

from dev.architectures import cells
from dev.architectures.families import FAMILIES, HIDDEN
from dev.architectures.page import render
from dev.matrix import Outcome
from hone.contract.methods import MethodType


def test_every_family_is_tried_with_every_method_and_placement() -> None:
    tried = cells.cells()
    columns = len(MethodType) * len(cells.PLACEMENTS) + len(cells.SERVED_METHODS)
    assert len(tried) == len(set(tried)) == len(FAMILIES) * columns
    assert len(FAMILIES) >= 20 and {family.kind for family in FAMILIES.values()} == {"dense", "experts", "multimodal"}


def test_zero_3_divides_the_weights_of_the_wide_model_and_of_no_other_llama() -> None:
    # DeepSpeed keeps smaller weights whole on each rank.
    threshold = DeepSpeedZeroConfig().param_persistence_threshold
    sizes = {name: FAMILIES[name].sizes.get("hidden_size", HIDDEN) for name in ("Llama", "Llama, wide")}
    assert sizes["Llama"] * 2 * sizes["Llama"] < threshold < sizes["Llama, wide"] ** 2


def test_the_page_tells_what_came_of_a_cell_and_each_reason_once() -> None:
    refused = Outcome("refused", "`spec.method.type`: no. Use LoRA.")
    page = render(
        {
            "Llama/LoRA/DDP": Outcome("ran", "Adapter"),
            "Mixtral/LoRA/DDP": Outcome("ran", "Model"),
            "Mixtral/QLoRA/DDP": refused,
            "OLMoE/QLoRA/DDP": refused,
            "Llama/LoRA/vLLM": Outcome("ran", "Adapter, 2e-06"),
            "Mixtral/Full/vLLM": Outcome("unserved", "ValueError: no such class"),
        },
        ["DDP"],
    )
    assert "| family | LoRA, DDP | QLoRA, DDP | Full, DDP | LoRA in vLLM | Full in vLLM |" in page
    assert "| Llama | adapter | – | – | adapter | – |" in page
    assert "| Mixtral | model | refused (1) | – | – | unserved (2) |" in page
    assert page.count("Use LoRA.") == 1


def test_the_first_rank_that_fails_ends_the_others() -> None:
    began = time.monotonic()
    children = [cells._fork(lambda: time.sleep(600)), cells._fork(lambda: os._exit(7))]
    assert cells._wait(children) == 7
    assert time.monotonic() - began < 60
    with pytest.raises(ProcessLookupError):
        os.kill(children[0], 0)


def test_a_fork_that_raises_has_failed() -> None:
    def fail() -> None:
        raise KeyError("x")

    assert cells._wait([cells._fork(lambda: None)]) == 0
    assert cells._wait([cells._fork(fail)]) == 1

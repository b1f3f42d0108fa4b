"""Faults for ranks under test; Python imports this first where its directory is on PYTHONPATH."""

import os

# RANK: torchrun has it for ranks alone. Any other Python of the test continues at once.
if os.environ.get("HONE_TEST_FAULT") and "RANK" in os.environ:
    import fault_injection

    fault_injection.install(os.environ["HONE_TEST_FAULT"])

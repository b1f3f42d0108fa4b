"""The soak run's slices, from what pytest prints."""

from dev.soak import sliced

COLLECTED = """tests/soak/test_cluster.py::test_one
tests/soak/test_cluster.py::test_two
tests/integration/test_restart.py::test_crashed[0]
tests/integration/test_restart.py::test_crashed[1]

4/90 tests collected (86 deselected) in 2.11s
"""


def test_a_file_is_one_slice_and_each_set_of_parameters_one_of_its_own() -> None:
    assert sliced(COLLECTED) == {
        "cluster": ["tests/soak/test_cluster.py::test_one", "tests/soak/test_cluster.py::test_two"],
        "restart-0": ["tests/integration/test_restart.py::test_crashed[0]"],
        "restart-1": ["tests/integration/test_restart.py::test_crashed[1]"],
    }

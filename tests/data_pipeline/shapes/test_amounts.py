"""Numbers of the Shapes world are worked out as they are said."""

import pytest

from onethinker_jax.data_pipeline.shapes.amounts import subtract_aloud


@pytest.mark.parametrize(
    ("high", "low", "said"),
    [
        (82, 57, "From 57: 67 is 10, 77 is 20, 82 is 25."),
        (77, 57, "From 57: 67 is 10, 77 is 20."),
        (60, 57, "From 57: 60 is 3."),
    ],
)
def test_differences_are_worked_out_in_tens(high, low, said):
    assert subtract_aloud(high, low) == said

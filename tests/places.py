"""Where tests find what is not code: the project's root, the references that others made, the small cases."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
GOLDEN = TESTS / "golden"
CASES = TESTS / "data_pipeline" / "cases"
THINKING_TEMPLATE = TESTS / "data_pipeline" / "thinking_chat_template.jinja"

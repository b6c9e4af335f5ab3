"""The teacher: an OpenAI-compatible endpoint whose answers have a price."""

from dataclasses import dataclass

from onethinker_jax.endpoint.settings import EndpointSettings


@dataclass(frozen=True, kw_only=True)
class TeacherSettings(EndpointSettings):
    """Which endpoint, what is asked of it, how fast, and what it costs."""

    price_in: float = 0.0
    """The price of a million prompt tokens, in any currency."""
    price_out: float = 0.0
    """The price of a million tokens of answers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("price_in", "price_out"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} {getattr(self, name)} must be 0 or more")

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """The cost of these numbers of tokens, in the currency of the prices."""
        return (prompt_tokens * self.price_in + completion_tokens * self.price_out) / 1e6

"""Which models an endpoint serves."""

import os

from onethinker_jax.endpoint.endpoint import CONNECT_TIMEOUT_S, EndpointError, openai_library
from onethinker_jax.endpoint.settings import RequestSettings


def only_model(base_url: str, settings: RequestSettings) -> str:
    """The name of the only model that an endpoint lists.

    Raises EndpointError: the client is not installed, the endpoint cannot be reached, or it lists another number.
    """
    openai = openai_library()
    key = os.environ.get(settings.api_key_env) or "none"
    try:
        with openai.OpenAI(
            base_url=base_url, api_key=key, timeout=CONNECT_TIMEOUT_S, max_retries=settings.retries
        ) as client:
            names = [model.id for model in client.models.list()]
    except (openai.OpenAIError, ValueError, TypeError) as error:
        said = " ".join(str(error).split())[:160]
        raise EndpointError(
            f"{base_url} does not say which models it serves ({said}): is it up? then name its model"
        ) from None
    if len(names) != 1:
        listed = ", ".join(map(str, names)) or "none"
        raise EndpointError(f"{base_url} serves {len(names)} models: name one of them ({listed[:300]})")
    return names[0]

"""The server as a whole: the model, the engine, the paths, and a socket that is open until SIGTERM."""

import contextlib
import logging
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace

import jax
import numpy as np
import uvicorn
from starlette.types import ASGIApp

from onethinker_jax.command_line import UsageError
from onethinker_jax.data_pipeline.batches.packing import stack_prompts
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.data_pipeline.processor.token_bytes import TokenBytes
from onethinker_jax.model.generation.generate import GenerationShape
from onethinker_jax.model.generation.prefilling import Stacked
from onethinker_jax.model.generation.running_batch import RunningBatch
from onethinker_jax.model.sharding import make_mesh
from onethinker_jax.responses import generation_shape, sampling_config, suppressed_ids
from onethinker_jax.sampler_settings import SamplerSettings
from onethinker_jax.serve.app import Parts, make_app
from onethinker_jax.serve.arguments import Arguments
from onethinker_jax.serve.connections import timed_connections
from onethinker_jax.serve.engine import Engine
from onethinker_jax.serve.metrics import ServeMetrics
from onethinker_jax.serve.requests.fetching import Fetcher
from onethinker_jax.serve.requests.media import LimitedReader, MediaSource
from onethinker_jax.serve.requests.prompts import PromptMaker

logger = logging.getLogger("onethinker_jax.serve")

HEADER_BYTES = 2**16
BACKLOG = 512


def serving_shape(settings: SamplerSettings, dtype: str, shards: int) -> GenerationShape:
    """The device's shapes: prompts of each bucket's length come with its patches, and with none."""
    shape = generation_shape(settings, dtype, shards)
    buckets = {one for tokens, patches in settings.buckets() for one in ((tokens, 0), (tokens, patches))}
    return replace(shape, prompt_buckets=tuple(sorted(buckets)))


def stack_examples(prompts: Sequence[Example], tokens: int, patches: int) -> Stacked:
    """Prompts in arrays of a bucket's size."""
    inputs, lengths = stack_prompts(prompts, tokens=tokens, patches=patches)
    return inputs, lengths, np.array([prompt.next_position for prompt in prompts], np.int32)


def make_parts(arguments: Arguments) -> Parts:
    """Loads the model and compiles its programs; nothing listens yet.

    Raises UsageError naming a flag, ShardingError for a mesh that cannot be; ProcessorError, ConfigError, WeightsError
    naming what cannot be read.
    """
    key, folder, settings = arguments.api_key(), arguments.folder(), arguments.sampler()
    arguments.check_tls()
    mesh = make_mesh(arguments.mesh.data, arguments.mesh.fsdp, arguments.mesh.tensor)
    limits, of_model = arguments.limits, arguments.of_model()
    reader = LimitedReader(limits, workers=arguments.media_workers, time_limit=arguments.media_time_limit)
    processor = of_model.processor(media=reader)
    tokens = TokenBytes(processor.tokenizer)
    config = sampling_config(
        settings, eos_ids=processor.ends.eos_ids, suppressed_ids=suppressed_ids(processor)
    )
    logger.info("loading %s …", arguments.model)
    with jax.set_mesh(mesh):
        graphdef, params = of_model.load(mesh)
        shape = serving_shape(settings, arguments.dtype, arguments.mesh.data * arguments.mesh.fsdp)
        batch = RunningBatch(graphdef, params, config, shape, stack_examples, mesh)
    engine = Engine(batch, tokens, mesh)
    logger.info("compiling …")
    engine.warm_up()
    fetcher = Fetcher(limits.media_bytes) if arguments.fetch else None
    source = MediaSource(limits, folder, fetcher, arguments.video_max_frames)
    maker = PromptMaker(processor, source, limits, (arguments.prompt_tokens, arguments.prompt_patches))
    return Parts(arguments, key, engine, maker, ServeMetrics(engine, reader.pool), tokens)


class Server:
    """A server that is ready to `run`. It listens from now on; what comes before `run` waits."""

    def __init__(self, arguments: Arguments, app: ASGIApp, *, websockets: bool = False):
        """Raises UsageError where it cannot listen."""
        self._socket = _listening(arguments.host, arguments.port)
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                app,
                http=timed_connections(arguments.limits.header_seconds),
                ws="auto" if websockets else "none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=HEADER_BYTES,
                timeout_graceful_shutdown=round(arguments.drain_seconds),
                ssl_certfile=arguments.tls_certificate,
                ssl_keyfile=arguments.tls_key,
            )
        )
        scheme = "http" if arguments.tls_key is None else "https"
        host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
        self.root = f"{scheme}://{host}:{self._socket.getsockname()[1]}"
        self.url = f"{self.root}/v1"

    def run(self) -> None:
        """Serves until SIGTERM or Ctrl-C, or `stop`; requests under way are then answered first."""
        with contextlib.closing(self._socket):
            self._uvicorn.run(sockets=[self._socket])

    def stop(self) -> None:
        """Lets `run` end, from any thread."""
        self._uvicorn.should_exit = True


def _listening(host: str, port: int) -> socket.socket:
    """A socket of that address, which is free again as soon as the server has ended."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, number)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
    except OSError as error:
        raise UsageError(f"--host {host} --port {port}: {error.strerror or error}") from None
    return opened


def serve(arguments: Arguments) -> None:
    """Serves until a signal."""
    server = Server(arguments, make_app(make_parts(arguments)))
    signal.signal(
        signal.SIGTERM, lambda *_: None
    )  # the server's own stands before it while it runs, and sends it on
    logger.info("%s at %s, %d slots", arguments.name, server.url, arguments.prompt_slots)
    server.run()

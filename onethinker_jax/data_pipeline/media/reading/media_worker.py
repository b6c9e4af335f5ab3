"""A process that decodes media for another: jobs and results as pickles over one connection.

A damaged file can crash a decoder or keep it busy for ever, and neither can be caught inside the process.
`media_pool.MediaPool` starts and ends these. Run as `python -m …media_worker FD`.
"""

import resource
import sys
import traceback
from multiprocessing.connection import Connection

from onethinker_jax.data_pipeline.media.media_file import DecoderError, MediaError
from onethinker_jax.data_pipeline.records.json_rows import RecordError


def main(handle: int, memory_bytes: int) -> None:
    """Says "ready", then answers each (function, arguments, keywords) with ("done" or "failed", value)."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    connection = Connection(handle)
    connection.send("ready")
    while True:
        try:
            function, arguments, keywords = connection.recv()
        except EOFError:  # the parent closed the pool, or is gone
            return
        try:
            reply = "done", function(*arguments, **keywords)
        except (MediaError, RecordError) as error:
            reply = "failed", error
        except MemoryError:
            reply = "failed", MediaError(f"{arguments[0]}: needs more than {soft / 2**30:.0f} GiB to decode")
        except Exception:  # noqa: BLE001 - an error of the code: raised in the parent, with this traceback
            reply = "failed", DecoderError(f"a media worker failed:\n{traceback.format_exc()}")
        try:
            connection.send(reply)
        except BrokenPipeError:
            return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""One conversation as the model reads it, and a bounded memory of such examples."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields
from hashlib import blake2b

import numpy as np

from onethinker_jax.data_pipeline.records.record import Record


@dataclass(frozen=True)
class Example:
    """One conversation, ready to be packed. T tokens, P patches, n media; numpy arrays."""

    tokens: np.ndarray  # int32 [T]
    positions: np.ndarray  # int32 [3, T], M-RoPE
    loss_mask: np.ndarray  # bool [T], True where this token is a target
    visual_index: np.ndarray  # int32 [T], merged patch of a placeholder, -1 for text
    patches: np.ndarray  # uint8 [P, patch_values], of the model's `VisionConfig`
    grids: np.ndarray  # int32 [n, 3], (t, h, w) in patches, in order of appearance
    frame_ids: np.ndarray  # int32 [P]
    coords: np.ndarray  # int32 [P, 2]
    embed_index: np.ndarray  # int32 [P, 4]
    embed_weight: np.ndarray  # float32 [P, 4]
    next_position: int  # M-RoPE position of the first generated token
    opening: str = ""  # what the prompt itself writes of the answer, such as a Thinking template's <think>

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(v.nbytes for f in fields(self) if isinstance(v := getattr(self, f.name), np.ndarray))


class ExampleCache:
    """Least-recently-used examples, bounded in bytes; found by what their records hold.

    A record that is read from disk is another object every time, so its identity would find nothing.
    """

    def __init__(self, limit: int):
        self.limit, self.size = limit, 0
        self.entries: OrderedDict[bytes, Example] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, record: Record, purpose: str, make: Callable[[], Example]) -> Example:
        """The record's example for this purpose, made if it is not there."""
        if not self.limit:
            return make()
        key = _key(record, purpose)
        with self.lock:
            if key in self.entries:
                self.entries.move_to_end(key)
                return self.entries[key]
        example = make()
        if example.nbytes > self.limit:
            return example
        with self.lock:
            if key not in self.entries:
                self.entries[key] = example
                self.size += example.nbytes
            while self.size > self.limit:
                self.size -= self.entries.popitem(last=False)[1].nbytes
        return example


def _key(record: Record, purpose: str) -> bytes:
    """The key of an example: all that it is made of, and the record's file and number, since ids may repeat."""
    asked = (record.origin, record.problem_id, record.problem, record.problem_type, record.data_type)
    asked += (record.options, record.messages, record.images, record.videos)
    return blake2b(repr((purpose, asked)).encode("utf-8", "surrogatepass"), digest_size=32).digest()

from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DescribeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ("text_backend", "mask_backend", "max_message_bytes", "max_items", "version", "process_id", "text_scale", "cache_bytes")
    TEXT_BACKEND_FIELD_NUMBER: _ClassVar[int]
    MASK_BACKEND_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PROCESS_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_SCALE_FIELD_NUMBER: _ClassVar[int]
    CACHE_BYTES_FIELD_NUMBER: _ClassVar[int]
    text_backend: str
    mask_backend: str
    max_message_bytes: int
    max_items: int
    version: str
    process_id: int
    text_scale: str
    cache_bytes: int
    def __init__(self, text_backend: _Optional[str] = ..., mask_backend: _Optional[str] = ..., max_message_bytes: _Optional[int] = ..., max_items: _Optional[int] = ..., version: _Optional[str] = ..., process_id: _Optional[int] = ..., text_scale: _Optional[str] = ..., cache_bytes: _Optional[int] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "message")
    class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        CODE_UNSPECIFIED: _ClassVar[ItemError.Code]
        INVALID_ARGUMENT: _ClassVar[ItemError.Code]
        INTERNAL: _ClassVar[ItemError.Code]
    CODE_UNSPECIFIED: ItemError.Code
    INVALID_ARGUMENT: ItemError.Code
    INTERNAL: ItemError.Code
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: ItemError.Code
    message: str
    def __init__(self, code: _Optional[_Union[ItemError.Code, str]] = ..., message: _Optional[str] = ...) -> None: ...

class TextItem(_message.Message):
    __slots__ = ("question", "reference", "answer")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    question: str
    reference: str
    answer: str
    def __init__(self, question: _Optional[str] = ..., reference: _Optional[str] = ..., answer: _Optional[str] = ...) -> None: ...

class ScoreTextRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[TextItem]
    def __init__(self, items: _Optional[_Iterable[_Union[TextItem, _Mapping]]] = ...) -> None: ...

class TextResult(_message.Message):
    __slots__ = ("score", "error")
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    score: float
    error: ItemError
    def __init__(self, score: _Optional[float] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ScoreTextResponse(_message.Message):
    __slots__ = ("results", "scale")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[TextResult]
    scale: str
    def __init__(self, results: _Optional[_Iterable[_Union[TextResult, _Mapping]]] = ..., scale: _Optional[str] = ...) -> None: ...

class Frames(_message.Message):
    __slots__ = ("count", "height", "width", "sha256")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    count: int
    height: int
    width: int
    sha256: bytes
    def __init__(self, count: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("x", "y")
    X_FIELD_NUMBER: _ClassVar[int]
    Y_FIELD_NUMBER: _ClassVar[int]
    x: float
    y: float
    def __init__(self, x: _Optional[float] = ..., y: _Optional[float] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("x1", "y1", "x2", "y2")
    X1_FIELD_NUMBER: _ClassVar[int]
    Y1_FIELD_NUMBER: _ClassVar[int]
    X2_FIELD_NUMBER: _ClassVar[int]
    Y2_FIELD_NUMBER: _ClassVar[int]
    x1: float
    y1: float
    x2: float
    y2: float
    def __init__(self, x1: _Optional[float] = ..., y1: _Optional[float] = ..., x2: _Optional[float] = ..., y2: _Optional[float] = ...) -> None: ...

class Prompt(_message.Message):
    __slots__ = ("box", "positive_points", "negative_points")
    BOX_FIELD_NUMBER: _ClassVar[int]
    POSITIVE_POINTS_FIELD_NUMBER: _ClassVar[int]
    NEGATIVE_POINTS_FIELD_NUMBER: _ClassVar[int]
    box: Box
    positive_points: _containers.RepeatedCompositeFieldContainer[Point]
    negative_points: _containers.RepeatedCompositeFieldContainer[Point]
    def __init__(self, box: _Optional[_Union[Box, _Mapping]] = ..., positive_points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ..., negative_points: _Optional[_Iterable[_Union[Point, _Mapping]]] = ...) -> None: ...

class SegmentItem(_message.Message):
    __slots__ = ("frames", "key_frame", "prompt")
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    KEY_FRAME_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    frames: Frames
    key_frame: int
    prompt: Prompt
    def __init__(self, frames: _Optional[_Union[Frames, _Mapping]] = ..., key_frame: _Optional[int] = ..., prompt: _Optional[_Union[Prompt, _Mapping]] = ...) -> None: ...

class SegmentItems(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[SegmentItem]
    def __init__(self, items: _Optional[_Iterable[_Union[SegmentItem, _Mapping]]] = ...) -> None: ...

class MediaChunk(_message.Message):
    __slots__ = ("sha256", "data")
    SHA256_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    data: bytes
    def __init__(self, sha256: _Optional[bytes] = ..., data: _Optional[bytes] = ...) -> None: ...

class SegmentRequest(_message.Message):
    __slots__ = ("items", "chunk")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    items: SegmentItems
    chunk: MediaChunk
    def __init__(self, items: _Optional[_Union[SegmentItems, _Mapping]] = ..., chunk: _Optional[_Union[MediaChunk, _Mapping]] = ...) -> None: ...

class MissingMedia(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, sha256: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Masks(_message.Message):
    __slots__ = ("count", "height", "width", "bits")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    BITS_FIELD_NUMBER: _ClassVar[int]
    count: int
    height: int
    width: int
    bits: bytes
    def __init__(self, count: _Optional[int] = ..., height: _Optional[int] = ..., width: _Optional[int] = ..., bits: _Optional[bytes] = ...) -> None: ...

class MaskResult(_message.Message):
    __slots__ = ("masks", "error")
    MASKS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    masks: Masks
    error: ItemError
    def __init__(self, masks: _Optional[_Union[Masks, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class SegmentResponse(_message.Message):
    __slots__ = ("missing", "result")
    MISSING_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    missing: MissingMedia
    result: MaskResult
    def __init__(self, missing: _Optional[_Union[MissingMedia, _Mapping]] = ..., result: _Optional[_Union[MaskResult, _Mapping]] = ...) -> None: ...

"""The demo's clips: what a player decodes of them, frame by frame, against the video and the answer."""

import contextlib
from pathlib import Path

import av
import numpy as np
import pytest

from onethinker_jax.assistant import Assistant, Response
from onethinker_jax.data_pipeline.drawing.answer_clip import clip_pictures, moving, write_clip
from onethinker_jax.data_pipeline.drawing.answer_picture import MARGIN
from onethinker_jax.data_pipeline.drawing.captions import INK
from onethinker_jax.data_pipeline.drawing.draw import PREDICTED
from onethinker_jax.data_pipeline.media import h264_file
from onethinker_jax.data_pipeline.media.decoding import Video, load_video
from onethinker_jax.demo import __main__ as demo
from onethinker_jax.demo import session
from onethinker_jax.rewards.answers import StructuredAnswer
from tests.data_pipeline.making import brightness, write_image, write_video
from tests.demo.hand_made import said
from tests.demo.test_answers import POINTS, OneMask

WIDTH, HEIGHT = 576, 384  # of the drawn frame: the video's 96 x 64, six times
LABEL = 24
TRACKED = {0: [0, 200, 300, 600], 1: [200, 200, 500, 600], 2: [400, 200, 700, 600], 4: [600, 200, 900, 600]}


@pytest.fixture
def asked(model, tmp_path, monkeypatch, capsys):
    """asked(answer, medium, *flags) -> (exit status, standard output, standard error) of a model that says that."""
    monkeypatch.chdir(tmp_path)

    def run(answer: str, medium: Path, *flags: str) -> tuple[int, str, str]:
        monkeypatch.setattr(Assistant, "respond", lambda *_: Response(said(answer), "stop", 30, 200, 2.0))
        capsys.readouterr()
        status = demo.main([str(model), str(medium), "What is it?", *flags])
        return status, *capsys.readouterr()

    return run


def decoded(path: Path) -> tuple[np.ndarray, list[float], float]:
    """All frames of a file, when each comes on screen, and when the last one ends."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert container.duration is not None
        seconds = container.duration / av.time_base
        frames = list(container.decode(stream))
    times = [float(frame.time or 0.0) for frame in frames]
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames]), times, seconds


def has(frame: np.ndarray, x: float, y: float, colour: tuple[int, int, int] = PREDICTED) -> bool:
    """Whether about that colour is at a place, in 0-1000 of the drawn frame, or up to two pixels off."""
    row, column = MARGIN + round(y / 1000 * (HEIGHT - 1)), MARGIN + round(x / 1000 * (WIDTH - 1))
    near = frame[row - 2 : row + 3, column - 2 : column + 3].astype(int)
    return bool((np.abs(near - colour).max(-1) < 48).any())


def columns(rows: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """The columns in which every one of these pixel rows has about that colour."""
    return np.flatnonzero((np.abs(rows.astype(int) - colour).max(-1) < 60).all(0))


def test_a_track(asked, video, tmp_path):
    """Every frame of the video once, at its time; the box lies where the answer has it, and moves between seconds."""
    answer = '{"boxes": {' + ", ".join(f'"{second}": {box}' for second, box in TRACKED.items()) + "}}"
    status, out, err = asked(answer, video, "--task", "tracking")
    assert (status, err) == (0, "")
    assert out.splitlines()[-2:] == ["picture: walk_answer.png", "clip: walk_answer.mp4"]
    frames, times, seconds = decoded(tmp_path / "walk_answer.mp4")
    assert times == pytest.approx([number / 4 for number in range(20)], abs=1e-4)
    assert seconds == pytest.approx(5.0, abs=1e-2)
    for number, frame in enumerate(frames):
        assert abs(int(frame[MARGIN + HEIGHT - 20, MARGIN + 20].mean()) - brightness(number)) < 4
    for number, box in (
        (0, TRACKED[0]),
        (4, TRACKED[1]),
        (6, [300, 200, 600, 600]),
        (8, TRACKED[2]),
        (15, TRACKED[4]),
    ):
        for x, y in ((box[0], box[1]), (box[2], box[1]), (box[0], box[3]), (box[2], box[3])):
            assert has(frames[number], x, y), (number, x, y)
    assert not has(frames[0], 500, 600) and not has(frames[11], 700, 600)  # 2.75 s: no box
    assert has(frames[8], 150, 400) and has(frames[8], 350, 400)  # the way of the centres
    assert not has(frames[2], 350, 400)


def test_boxes_move_between_seconds_that_both_have_one():
    boxes = {1: (0.0, 0.0, 100.0, 100.0), 2: (100.0, 200.0, 300.0, 400.0), 5: (0.0, 0.0, 10.0, 10.0)}
    assert moving(boxes, 0.4) == (None, [])
    assert moving(boxes, 0.6) == (boxes[1], [(50, 50)])
    assert moving(boxes, 1.25) == ((25, 50, 150, 175), [(50, 50), (87.5, 112.5)])
    assert moving(boxes, 2.0) == (boxes[2], [(50, 50), (200, 300)])
    assert moving(boxes, 2.4)[0] == boxes[2] and moving(boxes, 2.6) == (None, [(50, 50), (200, 300)])
    assert moving(boxes, 5.4)[0] == boxes[5] and moving(boxes, 5.6) == (None, [])


def test_a_span_on_the_bar(asked, video, tmp_path):
    """The span stands on the bar in every frame, and a line goes over the bar with the time."""
    assert asked('{"time": [1.5, 3.0]}', video, "--task", "temporal grounding")[0] == 0
    frames, times, _ = decoded(tmp_path / "walk_answer.mp4")
    top = 2 * MARGIN + HEIGHT + LABEL
    reach = WIDTH - 40
    for frame, time in zip(frames, times, strict=True):
        on_bar = columns(frame[top + 23 : top + 40], PREDICTED) - MARGIN - 6
        assert on_bar[0] / reach * 5 == pytest.approx(1.5, abs=0.05)
        assert on_bar[-1] / reach * 5 == pytest.approx(3.0, abs=0.05)
        line = columns(frame[top + 19 : top + 43], INK) - MARGIN - 6
        assert line.mean() / reach * 5 == pytest.approx(time, abs=0.05)
        dot = np.abs(frame[MARGIN + HEIGHT + 13, MARGIN + 6].astype(int) - PREDICTED).max() < 60
        assert dot == (1.5 <= time <= 3.0)


def test_masks_on_the_frames_that_they_are_made_on(asked, video, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "connect", lambda _: contextlib.nullcontext(OneMask()))
    answer = f'{{"time": 2.1, "boxes": [250, 250, 750, 750], {POINTS}}}'
    assert asked(answer, video, "--task", "segmentation")[0] == 0
    frames, times, seconds = decoded(tmp_path / "walk_answer.mp4")
    assert times == pytest.approx([number / 2 for number in range(10)], abs=1e-4)
    assert seconds == pytest.approx(5.0, abs=1e-2)
    assert [has(frame, 495, 150) for frame in frames] == [number == 4 for number in range(10)]  # its edge
    assert [has(frame, 750, 750) for frame in frames] == [number == 4 for number in range(10)]  # the box


def test_a_turned_video_is_upright(asked, tmp_path):
    """Its file says that it is to be shown turned by a quarter: the clip is as high as the file is wide."""
    turned = write_video(tmp_path / "turned.mp4", [0.0, 0.5, 1.0], turned=1, left=200)
    assert asked('{"boxes": {"0": [0, 0, 1000, 500]}}', turned, "--task", "tracking")[0] == 0
    frames, _, _ = decoded(tmp_path / "turned_answer.mp4")
    upright = load_video(turned, fps=30, max_frames=9).frames
    assert upright.shape[1:3] == (96, 64)
    drawn = frames[2][MARGIN : MARGIN + 576, MARGIN : MARGIN + 384]
    expected = upright[2].repeat(6, 0).repeat(6, 1)
    assert np.abs(drawn.astype(int) - expected).mean() < 4


@pytest.mark.parametrize(("height", "width"), [(361, 641), (75, 33), (1, 1), (720, 1281)])
def test_sides_of_any_size(height, width, tmp_path):
    """What is decoded is what was drawn, and one column and row more at most."""
    rng = np.random.default_rng(0)
    times = np.array([0.0, 0.1, 0.35, 0.4, 1.0])
    ground = rng.integers(0, 256, (5, 1, 1, 3), np.uint8).repeat(height, 1).repeat(width, 2)
    film = Video(ground, times, 1.25, 5.0, Path("film"))
    answer = StructuredAnswer(span=(0.1, 0.4), boxes={0: (100, 100, 900, 900)})
    write_clip(tmp_path / "clip.mp4", film, answer, question="Où est-ce?")
    frames, found, seconds = decoded(tmp_path / "clip.mp4")
    assert found == pytest.approx(times, abs=1e-4)
    assert seconds == pytest.approx(1.25, abs=1e-3)
    for frame, drawn in zip(frames, clip_pictures(film, answer, question="Où est-ce?"), strict=True):
        assert np.abs(frame.astype(int) - np.asarray(drawn)).mean() < 4


def test_the_index_stands_in_front(asked, video, tmp_path):
    """So that a browser begins to play before it has the whole file."""
    asked('{"time": [1, 2]}', video, "--task", "temporal grounding")
    content = (tmp_path / "walk_answer.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_names_and_older_files(asked, video, tmp_path):
    """A pair of free names; --overwrite replaces both, --no-clip leaves the clip alone."""
    span = ("--task", "temporal grounding")
    (tmp_path / "walk_answer.mp4").write_bytes(b"mine")
    _, out, _ = asked('{"time": [1, 2]}', video, *span)
    assert out.splitlines()[-2:] == ["picture: walk_answer_2.png", "clip: walk_answer_2.mp4"]
    status, _, err = asked('{"time": [1, 2]}', video, *span, "--out", "walk_answer.png")
    assert status == 2
    assert err == (
        "error: --out walk_answer.png: its clip walk_answer.mp4: is there already; --overwrite replaces it\n"
    )
    status, _, err = asked('{"time": [1, 2]}', video, *span, "--out", "walk.png", "--overwrite")
    assert status == 2 and "its clip walk.mp4: is the medium itself" in err
    _, out, _ = asked('{"time": [1, 2]}', video, *span, "--out", "walk_answer.png", "--no-clip")
    assert out.splitlines()[-1] == "picture: walk_answer.png"
    assert (tmp_path / "walk_answer.mp4").read_bytes() == b"mine"
    asked('{"time": [1, 2]}', video, *span, "--overwrite")
    assert len(decoded(tmp_path / "walk_answer.mp4")[1]) == 20
    _, out, _ = asked("no JSON", video, *span, "--overwrite")
    assert "clip" not in out and not (tmp_path / "walk_answer.mp4").exists()  # not that of another answer


def test_what_has_no_clip(asked, video, tmp_path):
    asked("It walks.", video)
    asked(
        '{"boxes": [0, 0, 500, 500]}', write_image(tmp_path / "a.png", 64, 64), "--task", "spatial grounding"
    )
    assert sorted(file.name for file in tmp_path.glob("*.mp4")) == ["walk.mp4"]


def test_without_an_encoder(asked, video, tmp_path, monkeypatch):
    """Another build of PyAV: the picture is there, and the clip's absence is said."""
    monkeypatch.setattr(h264_file, "ENCODER", "libx26x")
    status, out, _ = asked('{"time": [1, 2]}', video, "--task", "temporal grounding")
    said_of_it = f"warning: no clip is written: PyAV {av.__version__} has no H.264 encoder (libx26x)"
    assert status == 0 and out.splitlines()[-2:] == [said_of_it, "picture: walk_answer.png"]
    assert sorted(file.name for file in tmp_path.glob("*.mp4")) == ["walk.mp4"]

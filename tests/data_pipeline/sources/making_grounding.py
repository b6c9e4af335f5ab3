"""Small data sets of our own in the layouts of grounding, tracking and segmentation: each function writes one.

`write_originals` puts all into the folder of a data, where `evaluate/benchmarks` looks for them.
"""

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onethinker_jax.rewards.metrics import encode_rle
from tests.data_pipeline.making import picture, write_video

COCO_NAMES = ("COCO_train2014_000000000001.jpg", "COCO_train2014_000000000002.jpg")
TWO_SQUARES = [[10, 10, 30, 10, 30, 20, 10, 20], [40, 30, 45, 30, 45, 40, 40, 40]]
GOT_FRAMES, GOT_RATE = 12, 4  # 3 seconds
MEVIS_NAMES = [f"{5 * number:05}" for number in range(4)]  # every fifth frame of some film
TUBE_SIZE = 200, 100  # width, height


def write_charades(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / "AB1CD.mp4", [0, 0.5, 1.0])
    path = folder / "charades_sta_test.txt"
    path.write_text(
        "AB1CD 0.0 0.9##a person opens <image> a door.\n\nAB1CD 0.3 1.4##the person ##closes it.\n"
    )
    return path


def write_activitynet(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / "v_xyz.mkv", [0, 0.5, 1.0])
    sentences = {"timestamps": [[0, 0.7], [0.5, 1.5]], "sentences": [" A man. ", "He jumps."]}
    path = folder / "val_2.json"
    path.write_text(json.dumps({"v_xyz": {"duration": 1.5, **sentences}}))
    return path


def write_anet_rtl(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / "v_xyz.mkv", [0, 0.5, 1.0])
    row = {"vid": "xyz", "duration": 1.5, "question_id": 4, "question": "When does she wave?"}
    path = folder / "annot_val_1_q229.json"
    path.write_text(json.dumps([{**row, "answer": "<0.25> <1.5> She waves because she leaves."}]))
    return path


def ref(number: int, split: str, *sentences: str) -> dict[str, Any]:
    """An object of RefCOCO and the sentences about it."""
    return {
        "ref_id": number,
        "ann_id": 70 + number,
        "image_id": number,
        "category_id": 1,
        "split": split,
        "file_name": f"COCO_train2014_00000000000{number}_1.jpg",
        "sent_ids": [10 * number + n for n in range(len(sentences))],
        "sentences": [
            {"sent_id": 10 * number + n, "sent": sent, "raw": sent.upper(), "tokens": sent.split()}
            for n, sent in enumerate(sentences)
        ],
    }


def annotation(number: int, box: Sequence[float], shape: Any) -> dict[str, Any]:
    """COCO's annotation of the object of that number."""
    about = {"id": 70 + number, "image_id": number, "category_id": 1, "iscrowd": 0}
    return {**about, "bbox": box, "segmentation": shape}


def write_refcoco(
    folder: Path, refs: Any = None, annotations: list[dict] | None = None, *, name: str = "refs(unc).p"
) -> Path:
    """By default an object of `testA` with two sentences and polygons, one of `val` with an RLE and a box cut off."""
    mask = np.zeros((40, 50), bool)
    mask[5:9, 0:25] = True
    if refs is None:
        refs = [ref(1, "testA", "left man", "man in café"), ref(2, "val", "dog")]
    if annotations is None:
        shapes = [10, 10, 35, 30], TWO_SQUARES, [-5, 4, 30, 5], encode_rle(mask)
        annotations = [annotation(1, *shapes[:2]), annotation(2, *shapes[2:])]
    images = [{"id": n, "file_name": file, "width": 50, "height": 40} for n, file in enumerate(COCO_NAMES, 1)]
    value = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "instances.json").write_text(json.dumps(value))
    (folder / name).write_bytes(refs if isinstance(refs, bytes) else pickle.dumps(refs, protocol=2))
    return folder / name


def write_coco(folder: Path) -> Path:
    """The pictures that `write_refcoco` is about."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in COCO_NAMES:
        Image.fromarray(picture(40, 50)).save(folder / name)
    return folder


def hc_stvg(**changes: Any) -> dict[str, Any]:
    """Frames 60 to 120 of 600 (30 a second): in frame f the box begins at x = f / 10."""
    entry = {
        "bbox": [[frame / 10, 10, 40, 50] for frame in range(60, 121)],
        "st_time": 2.0,
        "ed_time": 4.03,
        "st_frame": 61,
        "img_num": 600,
        "width": TUBE_SIZE[0],
        "height": TUBE_SIZE[1],
        "caption": "The man in grey sits down.",
    }
    return {**entry, **changes}


def write_hc_stvg(folder: Path, entry: Any = None) -> Path:
    (folder / "3").mkdir(parents=True, exist_ok=True)
    write_video(folder / "3" / "55_abc.mp4", [0, 0.5, 1.0])
    path = folder / "val_v2.json"
    path.write_text(json.dumps({"55_abc.mp4": hc_stvg() if entry is None else entry}))
    return path


def vidstg(**changes: Any) -> dict[str, Any]:
    """A caption and a question about frames 25 to 45 of 100, 10 a second."""
    row = {
        "vid": "107",
        "fps": 10,
        "frame_count": 100,
        "width": TUBE_SIZE[0],
        "height": TUBE_SIZE[1],
        "used_segment": {"begin_fid": 20, "end_fid": 90},
        "temporal_gt": {"begin_fid": 25, "end_fid": 45},
        "captions": [{"description": "a child watches a ball.", "type": "person", "target_id": 2}],
        "questions": [{"description": "what is watched?", "type": "object", "target_id": 7}],
    }
    return {**row, **changes}


def write_vidstg(folder: Path, *rows: dict[str, Any]) -> Path:
    """VidOR's boxes beside it: in frame f object 2 is at x = f; object 7 is not there before frame 40."""
    (folder / "vidor" / "0001").mkdir(parents=True, exist_ok=True)
    write_video(folder / "107.mp4", [0, 0.5, 1.0])

    def box(target: int, x: int) -> dict[str, Any]:
        return {"tid": target, "bbox": {"xmin": x, "ymin": 20, "xmax": x + 20, "ymax": 40}, "generated": 0}

    frames = [[box(2, frame), *([box(7, 100)] if frame >= 40 else [])] for frame in range(100)]
    (folder / "vidor" / "0001" / "107.json").write_text(json.dumps({"trajectories": frames}))
    path = folder / "test_annotations.json"
    path.write_text(json.dumps(rows or [vidstg()]))
    return path


def write_got10k(folder: Path) -> Path:
    """The folder of a split: two sequences, of which `list.txt` names the second first."""
    write_sequence(folder / "GOT-10k_Val_000002", absent=(8,))
    write_sequence(folder / "GOT-10k_Val_000001", 9)
    (folder / "list.txt").write_text("GOT-10k_Val_000002\nGOT-10k_Val_000001\n")
    return folder


def write_sequence(folder: Path, frames: int = GOT_FRAMES, *, absent: tuple[int, ...] = ()) -> Path:
    """In frame f, counted from 0, the box is at x = 2 f + 1."""
    folder.mkdir(parents=True)
    for number in range(frames):
        Image.fromarray(picture(50, 100, number)).save(folder / f"{number + 1:08}.jpg")
    boxes = [f"{2 * frame + 1:.4f},{10:.4f},{20:.4f},{25:.4f}" for frame in range(frames)]
    (folder / "groundtruth.txt").write_text("\n".join(boxes) + "\n")
    (folder / "cover.label").write_text("".join(f"{frame % 9}\n" for frame in range(frames)))
    (folder / "absence.label").write_text("".join(f"{int(frame in absent)}\n" for frame in range(frames)))
    meta = {"url": "https://example.org/%20a", "anno_fps": f"{GOT_RATE}Hz", "resolution": "(100, 50)"}
    lines = "".join(f"{name}: {value}\n" for name, value in meta.items())
    (folder / "meta_info.ini").write_text("[METAINFO]\n" + lines)
    return folder


def video_mask(left: int) -> np.ndarray:
    """bool [30, 40]: the object of MeViS and ReasonVOS, at that column."""
    found = np.zeros((30, 40), bool)
    found[5:15, left : left + 6] = True
    return found


def write_meta(folder: Path, videos: Any) -> None:
    """The expressions of MeViS or ReasonVOS."""
    (folder / "meta_expressions.json").write_text(json.dumps({"videos": videos}))


def _write_frames(folder: Path) -> None:
    (folder / "JPEGImages" / "film").mkdir(parents=True)
    for number, name in enumerate(MEVIS_NAMES):
        Image.fromarray(picture(30, 40, number)).save(folder / "JPEGImages" / "film" / f"{name}.jpg")


def write_mevis(folder: Path) -> Path:
    """Object 11 is at column f in frame f, but not in frame 2; object 12 at column 20 in the last."""
    _write_frames(folder)
    expressions = {
        "0": {"exp": "the dog that runs", "obj_id": [1], "anno_id": [11]},
        "1": {"exp": "both dogs", "obj_id": [1, 2], "anno_id": [11, 12]},
    }
    write_meta(folder, {"film": {"vid_id": 3, "frames": MEVIS_NAMES, "expressions": expressions}})
    masks_of_eleven = [encode_rle(video_mask(number)) if number != 2 else None for number in range(4)]
    masks = {"11": masks_of_eleven, "12": [None, None, None, encode_rle(video_mask(20))]}
    (folder / "mask_dict.json").write_text(json.dumps(masks))
    return folder


def write_reasonvos(folder: Path) -> Path:
    """The object is at column f in frame f, but not in frame 1."""
    _write_frames(folder)
    expressions = {
        "0": {"exp_text": "Who barks?", "obj_id": 4},
        "1": {"exp_text": "Which is the pet?", "obj_id": 4},
    }
    film = {"source": "BURST", "is_sent": 1, "frames": MEVIS_NAMES, "expressions": expressions}
    write_meta(folder, {"film": film})
    masks = folder / "Annotations" / "burst_film_4"
    masks.mkdir(parents=True)
    for number, name in enumerate(MEVIS_NAMES):
        found = video_mask(number) if number != 1 else np.zeros((30, 40), bool)
        Image.fromarray(found.astype(np.uint8) * 255).save(masks / f"{name}.png")
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "charades-sta": write_charades,
    "activitynet-captions": write_activitynet,
    "anet-rtl": write_anet_rtl,
    "refcoco": write_refcoco,
    "refcoco-seg": write_refcoco,
    "hc-stvg": write_hc_stvg,
    "vidstg": write_vidstg,
    "got-10k": write_got10k,
    "mevis": write_mevis,
    "reasonvos": write_reasonvos,
}
"""By layout. Those of RefCOCO also need `write_coco`."""


def write_originals(data: Path) -> None:
    """Every data set of this file where the table of benchmarks looks for it; no file of OneThinker's own."""
    write_charades(data / "charades_sta" / "videos").rename(data / "charades_sta" / "charades_sta_test.txt")
    write_activitynet(data / "activitynet" / "videos").rename(data / "activitynet" / "val_2.json")
    (data / "anet_rtl").mkdir()
    write_anet_rtl(data / "activitynet" / "videos").rename(data / "anet_rtl" / "annot_val_1_q229.json")
    write_coco(data / "train2014")
    for name in ("refcoco", "refcoco+"):
        refs = [ref(1, "testA", "left man"), ref(2, "testB", "dog"), ref(1, "val", "man")]
        refs[2]["sentences"][0]["sent_id"] = 30
        write_refcoco(data / name, refs)
    refs = [ref(1, "test", "the man on the left"), ref(2, "val", "the dog")]
    write_refcoco(data / "refcocog", refs, name="refs(umd).p")
    write_hc_stvg(data / "hcstvg" / "videos").rename(data / "hcstvg" / "val_v2.json")
    write_got10k(data / "got10k" / "val")
    write_mevis(data / "mevis" / "valid_u")
    write_reasonvos(data / "ReasonVOS")

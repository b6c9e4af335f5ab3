"""THE table of layouts: the name that a benchmark or a command gives -> the function that reads it."""

from functools import partial

from onethinker_jax.data_pipeline.sources import onethinker
from onethinker_jax.data_pipeline.sources.grounding import got10k, refcoco, referring_videos, temporal, tubes
from onethinker_jax.data_pipeline.sources.questions import video_mmlu, video_questions, vlmevalkit_tsv
from onethinker_jax.data_pipeline.sources.sample import Layout

LAYOUTS: dict[str, Layout] = {
    "onethinker": onethinker.read,
    "vlmevalkit": vlmevalkit_tsv.read,
    "videommmu": video_questions.read_videommmu,
    "mmvu": video_questions.read_mmvu,
    "video-mme": video_questions.read_videomme,
    "video-mme-subtitles": partial(video_questions.read_videomme, subtitles=True),
    "video-holmes": video_questions.read_video_holmes,
    "longvideobench": video_questions.read_longvideobench,
    "longvideo-reason": video_questions.read_longvideo_reason,
    "videomathqa": video_questions.read_videomathqa,
    "videomathqa-subtitles": partial(video_questions.read_videomathqa, subtitles=True),
    "video-mmlu": video_mmlu.read,
    "charades-sta": temporal.read_charades_sta,
    "charades-sta-lmms": temporal.read_captions,
    "activitynet-captions": temporal.read_activitynet_captions,
    "anet-rtl": temporal.read_anet_rtl,
    "refcoco": refcoco.read_boxes,
    "refcoco-seg": refcoco.read_masks,
    "hc-stvg": tubes.read_hc_stvg,
    "vidstg": tubes.read_vidstg,
    "got-10k": got10k.read,
    "mevis": referring_videos.read,
    "reasonvos": referring_videos.read,
}

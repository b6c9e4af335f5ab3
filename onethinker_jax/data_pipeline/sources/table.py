"""THE table of layouts: the name that a benchmark or a command gives -> the function that reads it."""

from functools import partial

from onethinker_jax.data_pipeline.sources import onethinker, video_mmlu, video_questions, vlmevalkit_tsv
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
}

"""What a finished run shows: the table on the console and the page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from onethinker_jax.data_pipeline.records import Record, task_of
from onethinker_jax.evaluate import Prediction, TaskResult, by_task, over_all
from onethinker_jax.scoring import Scorer
from onethinker_jax.train.config import TrainConfig
from onethinker_jax.train.gallery import GalleryItem, Masks, gallery_item
from onethinker_jax.train.heldout import Answers
from onethinker_jax.train.log import METRICS_FILE, RunLog, read_metrics
from onethinker_jax.train.page import Summary, TaskSummary, write_page
from onethinker_jax.train.rollout_page import ROLLOUTS_INDEX

LABELS = {"fresh": "fresh", "sft": "after SFT", "rl": "after RL"}


def print_summary(config: TrainConfig, answers: Answers, log: RunLog) -> None:
    """A row a task: mean held-out reward at each stage, and at the last the format rate and mask IoU."""
    results = _results(answers.greedy)
    rows = []
    for of_task in results:
        last = of_task[-1]
        rewards = [result.overall for result in of_task]
        rows.append(
            [last.task, last.records, *rewards, rewards[-1] - rewards[-2], last.format, last.mask_iou]
        )
    columns = [
        "task",
        "records",
        *(LABELS[stage] for stage in answers.greedy),
        "gain of RL",
        "format",
        "mask IoU",
    ]
    log.table("Held-out reward (greedy answers)", columns, rows)
    if answers.sampled:
        log.info(_sampled_gain(config, answers))


def write_run_page(
    config: TrainConfig,
    records: Sequence[Record],
    answers: Answers,
    scorer: Scorer,
) -> Path:
    """Writes ``index.html`` into the run's folder: table, curves, and a gallery of the last stage's answers."""
    results = _results(answers.greedy)
    tasks = [
        TaskSummary(
            of_task[0].task,
            of_task[0].records,
            reward=[result.overall for result in of_task],
            format_rate=[result.format for result in of_task],
            mask_iou=[result.mask_iou for result in of_task],
        )
        for of_task in results[:-1]
    ]
    before, after = (result.overall for result in results[-1][-2:])
    gain = f"{after - before:+.3f}, from {before:.3f} to {after:.3f}"
    lead = f"RL changed the mean held-out reward of greedy answers by {gain}."
    if answers.sampled:
        lead += f" {_sampled_gain(config, answers)}."
    summary = Summary(
        tasks,
        stages=[LABELS[stage] for stage in answers.greedy],
        facts={
            "Seed": str(config.seed),
            "SFT": f"{config.sft.steps:,} updates",
            "RL": f"{config.rl.steps:,} steps of {config.rl.prompts} prompts x {config.rl.samples} samples",
            "Method": f"{config.rl.method}, {config.rl.variant} variant",
            "Held out": f"{len(records):,} records",
        },
        lead=lead,
    )
    page = config.directory / "index.html"
    write_page(
        page,
        title=f"onethinker_jax: {config.name}",
        summary=summary,
        curves=read_metrics(config.directory / METRICS_FILE),
        gallery=_gallery(answers.greedy["rl"], config, scorer),
        links={"Rollouts during RL": ROLLOUTS_INDEX} if (config.directory / ROLLOUTS_INDEX).is_file() else {},
    )
    return page


def _sampled_gain(config: TrainConfig, answers: Answers) -> str:
    """What RL did to the very mean that it raises."""
    before, after = (over_all(predictions).overall for predictions in answers.sampled.values())
    return (
        f"Of answers sampled at temperature {config.rl.temperature:g}, as RL samples them: "
        f"{before:.3f} before RL, {after:.3f} after ({after - before:+.3f})"
    )


def _results(predictions: Mapping[str, Sequence[Prediction]]) -> list[list[TaskResult]]:
    """For each task, and last for all of them, the results of every stage in order."""
    stages = [[*by_task(of_stage), over_all(of_stage)] for of_stage in predictions.values()]
    return [list(of_task) for of_task in zip(*stages, strict=True)]


def _gallery(predictions: Sequence[Prediction], config: TrainConfig, scorer: Scorer) -> list[GalleryItem]:
    """The first few held-out records of every task, with masks where box and points prompt some."""
    items, shown = [], dict.fromkeys((task_of(prediction.record) for prediction in predictions), 0)
    for prediction in predictions:
        record, task = prediction.record, task_of(prediction.record)
        if shown[task] >= config.evaluation.gallery:
            continue
        shown[task] += 1
        masks = scorer.predict_masks(record, prediction.response)
        items.append(
            gallery_item(
                record,
                prediction.response,
                prediction.score,
                variant=config.rl.variant,
                settings=config.reward,
                stage=LABELS["rl"],
                masks=None if masks is None else Masks(masks.times, masks.masks),
                extra={} if prediction.mask_iou is None else {"mask IoU": prediction.mask_iou},
                fps=config.data.video_fps,
            )
        )
    return items

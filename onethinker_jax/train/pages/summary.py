"""What a finished run shows: the table on the console and the page."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from onethinker_jax.data_pipeline.records.record import Record, task_of
from onethinker_jax.evaluate.answers.predictions import Prediction, over_all
from onethinker_jax.rewards.score import max_accuracy, max_overall
from onethinker_jax.scoring import Scorer
from onethinker_jax.tasks import Task
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.heldout import Answers
from onethinker_jax.train.log.log import RunLog, read_metrics
from onethinker_jax.train.pages.gallery import GalleryItem, Masks, StageAnswer, gallery_item, stage_answer
from onethinker_jax.train.pages.intervals import METHOD, Change, change
from onethinker_jax.train.pages.page import Summary, TaskSummary, write_page
from onethinker_jax.train.pages.run_facts import run_facts

MOST_SOURCES = 8
"""Held-out records of more sources than this have no row a source."""
LABELS = {"fresh": "fresh", "sft": "after SFT", "rl": "after RL"}


def print_summary(config: TrainConfig, answers: Answers, log: RunLog) -> None:
    """A row a task: mean accuracy of every stage and what RL changed, beside it reward, format and mask IoU.

    Below the tasks stands a row a source, where the records have several.
    """
    *tasks, total = summaries(config, answers.greedy)
    rows = [*tasks, *source_summaries(config, answers.greedy), total]
    bests = {row.best[0] for row in tasks}
    most = f"largest reward {bests.pop():g}" if len(bests) == 1 else ""
    stages = [LABELS[stage].removeprefix("after ") for stage in answers.greedy]
    columns = [
        "task",
        "n",
        *(f"accuracy\n{stage}" for stage in stages),
        "change\n± 95%",
        *(f"reward\n{stage}" for stage in stages[-2:]),
        "change\n",
        *([] if most else ["at most\n"]),
        f"format\n{stages[-1]}",
        "mask\nIoU",
    ]
    table = []
    for row in rows:
        assert row.accuracy_change is not None
        assert row.reward_change is not None
        table.append(
            [
                *(row.task, row.records, *row.accuracy, row.accuracy_change.text(), *row.reward[-2:]),
                row.reward_change.text().partition(" ")[0],
                *([] if most else [f"{row.best[0]:.3g}"]),
                *(row.format_rate[-1], row.mask_iou[-1]),
            ]
        )
    log.table(f"Held-out records, greedy answers{f' ({most})' if most else ''}", columns, table)
    log.info(METHOD)
    if answers.sampled:
        log.info(_sampled_gain(config, answers))


def write_run_page(
    config: TrainConfig,
    records: Sequence[Record],
    answers: Answers,
    scorer: Scorer,
) -> Path:
    """Writes `index.html` into the run's folder: table, answers before and after the last stage, curves."""
    *tasks, total = summaries(config, answers.greedy)
    assert total.accuracy_change is not None
    assert total.reward_change is not None
    *_, last = answers.greedy
    lead = (
        f"{last.upper()} changed the mean held-out accuracy of greedy answers "
        f"{_said(total.accuracy_change, total.accuracy)}; "
        f"their reward, of at most {total.best[0]:.3g}, {_said(total.reward_change, total.reward)}."
    )
    if answers.sampled:
        lead += f" {_sampled_gain(config, answers)}."
    summary = Summary(
        tasks,
        total,
        sources=source_summaries(config, answers.greedy),
        stages=[LABELS[stage] for stage in answers.greedy],
        facts=run_facts(config, records=len(records)),
        lead=lead,
    )
    page, rollouts = config.folder.page, config.folder.rollouts_index
    links = {"Rollouts during RL": str(rollouts.relative_to(page.parent))} if rollouts.is_file() else {}
    write_page(
        page,
        title=f"onethinker_jax: {config.name}",
        summary=summary,
        curves=read_metrics(config.folder.metrics),
        gallery=_gallery(answers.greedy, config, scorer),
        links=links,
    )
    return page


def summaries(config: TrainConfig, predictions: Mapping[str, Sequence[Prediction]]) -> list[TaskSummary]:
    """For each task by its name, and last for all of them, what every stage answered, in order.

    `predictions` are of the same records in the same order at every stage.
    """
    stages = list(predictions.values())
    numbers_of_task: dict[str, list[int]] = defaultdict(list)
    for number, prediction in enumerate(stages[-1]):
        numbers_of_task[str(task_of(prediction.record))].append(number)
    chosen = {task: numbers_of_task[task] for task in sorted(numbers_of_task)}
    chosen |= {"all tasks": list(range(len(stages[-1])))}
    return [
        _summary_of(task, [[predictions[i] for i in numbers] for predictions in stages], config)
        for task, numbers in chosen.items()
    ]


def source_summaries(
    config: TrainConfig, predictions: Mapping[str, Sequence[Prediction]]
) -> list[TaskSummary]:
    """The same for each `data_source`; none where the records have one, or more than `MOST_SOURCES`."""
    stages = list(predictions.values())
    numbers_of_source: dict[str, list[int]] = defaultdict(list)
    for number, prediction in enumerate(stages[-1]):
        numbers_of_source[prediction.record.data_source].append(number)
    if not 1 < len(numbers_of_source) <= MOST_SOURCES:
        return []
    return [
        _summary_of(f"from {source or 'no source'}", [[some[i] for i in numbers] for some in stages], config)
        for source, numbers in sorted(numbers_of_source.items())
    ]


def _summary_of(task: str, stages: Sequence[Sequence[Prediction]], config: TrainConfig) -> TaskSummary:
    """The means of one task's predictions, stage by stage, and the last change."""
    results = [over_all(predictions) for predictions in stages]
    kinds = [(one.record.problem_type, one.record.data_type) for one in stages[-1]]
    settings = config.reward.variant, config.reward
    before, after = stages[-2:]
    return TaskSummary(
        task,
        len(after),
        reward=[result.overall for result in results],
        accuracy=[result.accuracy for result in results],
        format_rate=[result.format for result in results],
        mask_iou=[result.mask_iou for result in results],
        reward_change=change([one.score.overall for one in before], [one.score.overall for one in after]),
        accuracy_change=change([one.score.accuracy for one in before], [one.score.accuracy for one in after]),
        best=(
            float(np.mean([max_overall(*kind, *settings) for kind in kinds])),
            float(np.mean([max_accuracy(*kind, *settings) for kind in kinds])),
        ),
    )


def _said(moved: Change, means: Sequence[float | None]) -> str:
    """A change in words: by +0.063 (95%: +0.021 to +0.105), from 0.528 to 0.590."""
    before, after = means[-2:]
    sure = "" if moved.interval is None else f" (95%: {moved.interval[0]:+.3f} to {moved.interval[1]:+.3f})"
    noise = ": within the noise" if moved.direction == "same" else ""
    return f"by {moved.text().partition(' ')[0]}{sure}, from {before:.3f} to {after:.3f}{noise}"


def _sampled_gain(config: TrainConfig, answers: Answers) -> str:
    """What RL did to the very mean that it raises."""
    before, after = answers.sampled.values()
    moved = change([one.score.overall for one in before], [one.score.overall for one in after])
    means = [over_all(of_stage).overall for of_stage in (before, after)]
    return (
        f"Of answers sampled at temperature {config.rl.rollout.temperature:g}, as RL samples them, it changed "
        f"the reward {_said(moved, means)}"
    )


def _gallery(
    predictions: Mapping[str, Sequence[Prediction]], config: TrainConfig, scorer: Scorer
) -> list[GalleryItem]:
    """The first few held-out records of every task as the last two stages answered them."""
    stages = list(predictions)[-2:]
    items: list[GalleryItem] = []
    shown: dict[Task, int] = defaultdict(int)
    for of_record in zip(*(predictions[stage] for stage in stages), strict=True):
        record = of_record[0].record
        task = task_of(record)
        if shown[task] >= config.evaluation.gallery:
            continue
        shown[task] += 1
        answers = [
            _stage_answer(one, LABELS[stage], scorer) for stage, one in zip(stages, of_record, strict=True)
        ]
        items.append(
            gallery_item(
                record,
                answers,
                settings=config.reward,
                fps=config.data.video_fps,
            )
        )
    return items


def _stage_answer(prediction: Prediction, stage: str, scorer: Scorer) -> StageAnswer:
    """With masks where box and points prompt some."""
    masks = scorer.predict_masks(prediction.record, prediction.response)
    return stage_answer(
        prediction.record,
        prediction.response,
        prediction.score,
        stage=stage,
        masks=None if masks is None else Masks(masks.times, masks.masks),
        extra={} if prediction.mask_iou is None else {"mask IoU": prediction.mask_iou},
    )

"""The RL loop: prompts -> G samples each -> scores -> groups kept -> advantages -> clipped policy updates.

EMA-GRPO (arXiv 2512.03043): a group's rewards are centred by their mean and scaled by a running standard
deviation of their *task*, so that tasks with dense and with sparse rewards pull alike. `dynamic_sampling.py`
fills a step with groups, `policy_update.py` packs them and compiles the update.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from flax import nnx

from onethinker_jax.errors import EndedByStop
from onethinker_jax.model.parameters import join_adapters, split_adapters
from onethinker_jax.processes import HostError
from onethinker_jax.rewards.client.client import RewardUnavailable
from onethinker_jax.tasks import MOMENTS
from onethinker_jax.train.advantages import init_moments
from onethinker_jax.train.config.evaluation import EvaluationSettings
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.health.replay_folder import FailedUpdate
from onethinker_jax.train.health.stage_health import NotFinite, StageHealth, forgiven
from onethinker_jax.train.hosts import Hosts
from onethinker_jax.train.open_run import Run
from onethinker_jax.train.optimizer import make_optimizer
from onethinker_jax.train.pages.rollout_page import RolloutPages
from onethinker_jax.train.policy import Policy
from onethinker_jax.train.rl.dynamic_sampling import Rollout, Rollouts
from onethinker_jax.train.rl.failed_update import failed_update
from onethinker_jax.train.rl.heldout_scores import HeldOutScores
from onethinker_jax.train.rl.learner import Learner
from onethinker_jax.train.rl.redealing import redeal_rollouts
from onethinker_jax.train.rl.rl_metrics import (
    sampled_lengths,
    show_table,
)
from onethinker_jax.train.rl.update_progress import UpdateCut
from onethinker_jax.train.state import TrainState, init_state
from onethinker_jax.train.stopping.notice import Notice, StepCut, StopKind


def train_ema_grpo(
    policy: Policy,
    params: nnx.State,
    rollouts: Rollouts,
    settings: RLSettings,
    run: Run,
    *,
    first_number: int,
    pages: RolloutPages | None = None,
    table_every: int = 0,
    scores: HeldOutScores | None = None,
) -> nnx.State:
    """Trains for `settings.steps` rollout batches, from the newest RL checkpoint if there is one.

    With several processes `rollouts` and `settings` are this one's part. Checkpoints are numbered from
    `first_number`. Every `table_every` steps the console shows a table, `pages` are written of the steps that they
    want, and `scores` made of those that they want, which may end RL early. Raises KeyboardInterrupt, at SIGTERM
    `Terminated`, and what a rollout or a scoring raises (or HostError, where it was another process's), each after a
    checkpoint of the last whole step: RewardUnavailable, ScoringError, NoGroupsLeft, an error that names a bad record,
    or NotFinite after too many updates in a row that were not finite.
    """
    learner, state, base, health = _begin(policy, params, rollouts, settings, run)
    scores = HeldOutScores(EvaluationSettings(), lambda step, params: {}) if scores is None else scores
    state, number, unreported = _resume(state, base, rollouts, scores, first_number, health, run)
    start = number - first_number
    # a line of a process that was killed before the checkpoint had its score comes once more
    run.log.stage("rl", settings.steps, start, recorded=start - (unreported is not None))
    left = _StepEnd(rollouts, scores, health, run, first_number, base)
    compiled, loop = None, run.notice.deferred(run.log, give_up=rollouts.scorer.give_up, cut=rollouts.cut)
    with health, rollouts, loop as notice:
        if unreported is not None:  # by a process that could not score its last step
            run.log.metrics(start, left.scored(start, state, unreported))
            run.add_score(number, scores.at(start))
        for step in range(start + 1, settings.steps + 1):
            if scores.verdict is not None:
                break
            began = time.perf_counter()
            params = join_adapters(state.params, base)
            rollout = left.taken(step, state, params)
            if step < settings.steps and not notice.kind:
                rollouts.start(step + 1, params)
            else:  # a run that goes on for more steps goes on as if it had been longer from the start
                rollouts.hold(params)

            state, advantages, metrics = left.learnt(step, state, rollout, learner, began)
            metrics |= health.metrics(step, metrics)
            _show(step, rollout, advantages, metrics, settings, run, pages)
            metrics = left.scored(step, state, metrics)
            _log(step, metrics, settings, run, scores=scores, table_every=table_every)
            if compiled is not None and (late := run.compilations.since(compiled)):
                run.log.warn(f"compiled after warm-up: {', '.join(late)}")

            if health.failing is not None:
                failed = failed_update(health.failing, rollout.groups, advantages, learner.failing)
                raise left.kept(step, state, failed)
            stopping = notice.agreed(run.hosts)
            if step % settings.save_every == 0 or step == settings.steps or stopping or scores.wanted(step):
                left.save(step, state)
            # Of several processes a first save compiles slices of its own; a step that was cut did not do all of it.
            if rollout.begun is None:
                compiled = run.compilations.count
            health.beat(step)
            if stopping:
                raise notice.stop()
    if scores.verdict is not None:
        run.log.info(f"RL stops after step {scores.last}: {scores.verdict}")
    return join_adapters(state.params, base)


def _begin(
    policy: Policy, params: nnx.State, rollouts: Rollouts, settings: RLSettings, run: Run
) -> tuple[Learner, TrainState, nnx.State | None, StageHealth]:
    """What learns, the state before the first step, the base of its adapters, and the watch over the stage."""
    optimizer = make_optimizer(
        settings.optimizer, settings.steps * settings.num_minibatches, train_vision=True
    )
    trained, base = split_adapters(params)
    health = StageHealth("rl", run)
    learner = Learner(
        policy, optimizer, settings, rollouts, base, stop_after=run.health.max_consecutive_nonfinite
    )
    moments = init_moments(len(MOMENTS))
    state = init_state(trained, optimizer, moments, policy.mesh, reference=settings.loss.kl_coefficient > 0)
    return learner, state, base, health


@dataclass(frozen=True)
class _StepEnd:
    """What is done of a step so that a stop loses none of it: its parts, each of which may end in a checkpoint."""

    rollouts: Rollouts
    scores: HeldOutScores
    health: StageHealth
    run: Run
    first_number: int
    base: nnx.State | None

    def save(self, step: int, state: TrainState, unreported: Mapping[str, float] | None = None) -> None:
        rollouts, run = self.rollouts, self.run
        if run.notice.kind is StopKind.PREEMPTION:
            rollouts.cut()  # of the step that follows: its finished prompts are kept
        mine = rollouts.state()  # which says whether `behaviour` is still needed
        behaviour = None if rollouts.behaviour is None else split_adapters(rollouts.behaviour)[0]
        run.save(
            self.first_number + step,
            replace(state, behaviour=behaviour),
            "rl",
            mine,
            heldout=self.scores.at(step),
            scorings=self.scores.state(),
            unreported=unreported,
            health=self.health.checkpointed(step),
        )
        rollouts.checkpointed(step)

    def taken(self, step: int, state: TrainState, params: nnx.State) -> Rollout:
        """The rollout of the step; what fails is raised after a checkpoint of the step before."""
        try:
            return _take(self.rollouts, step, params, self.run.hosts, self.run.notice)
        except Exception as error:
            self.save(step - 1, state)
            _stop_by(error, self.run)
            raise

    def learnt(
        self, step: int, state: TrainState, rollout: Rollout, learner: Learner, began: float
    ) -> tuple[TrainState, np.ndarray, dict[str, float]]:
        """As `Learner.learn`; where a stop cuts the step, a checkpoint of the one before has what it has come to."""
        run = self.run
        run.log.phase("updating")

        def note(state: TrainState) -> None:
            self.health.note(*(replace(update, step=step) for update in learner.updates))
            self.health.catch_up(step, state)

        try:
            learnt = learner.learn(
                state, rollout, run.hosts, began, cut=lambda: run.notice.cut_agreed(run.hosts)
            )
        except UpdateCut as cut:
            note(cut.state)
            begun = cut.progress if cut.progress.groups else None
            self.rollouts.give_back(replace(rollout, begun=begun))
            self.save(step - 1, cut.state)
            run.notice.agreed(run.hosts)
            raise run.notice.stop() from cut
        note(learnt[0])
        return learnt

    def kept(self, step: int, state: TrainState, failed: FailedUpdate) -> NotFinite:
        """The error of a step that failed, after a checkpoint from which the same command goes on."""
        error = self.health.keep(failed, state)
        self.save(step, forgiven(state))
        return error

    def scored(self, step: int, state: TrainState, metrics: dict[str, float]) -> dict[str, float]:
        """The metrics, with those of the held-out records; where these fail, a checkpoint has what is not reported."""
        if not self.scores.wanted(step):
            return metrics
        try:
            if self.run.notice.agreed(self.run.hosts) is StopKind.PREEMPTION:
                raise StepCut
            with self.health.unwatched():
                return metrics | self.scores.score(step, join_adapters(state.params, self.base))
        except Exception as error:
            self.save(step, state, {name: float(value) for name, value in metrics.items()})
            _stop_by(error, self.run)
            raise


def _resume(
    state: TrainState,
    base: nnx.State | None,
    rollouts: Rollouts,
    scores: HeldOutScores,
    first_number: int,
    health: StageHealth,
    run: Run,
) -> tuple[TrainState, int, dict[str, float] | None]:
    """The state and the checkpoint's number to go on from: the newest one of RL, else `first_number`.

    With them the metrics of the last step, where these were not reported yet.
    """
    saved = run.newest()
    if saved is None or saved[1]["stage"] != "rl":
        health.begin(state)
        return state, first_number, None
    number, host = saved
    mine = run.own(host, redeal_rollouts)
    behaviour, beside = None, None
    if mine["behaviour"]:
        behaviour, beside = split_adapters(rollouts.decoding_copy(join_adapters(state.params, base)))
    with run.log.doing(f"reading checkpoint {number}"):
        state = run.checkpoints.restore(number, replace(state, behaviour=behaviour))
        behaviour = None if state.behaviour is None else join_adapters(state.behaviour, beside)
        rollouts.restore(mine, behaviour)
    rollouts.checkpointed(number - first_number)
    health.begin(state, host["health"])
    scored, unreported = host.get("scorings", []), host.get("unreported")
    if unreported is not None and (late := run.checkpoints.score(number)) is not None:
        scored, unreported = [*scored, [number - first_number, late]], None  # by a process before this one
    scores.restore(scored)
    return replace(state, behaviour=None), number, unreported


def _stop_by(error: Exception, run: Run) -> None:
    """Raises what ends a stopped run, in all processes, where the step failed by the stop itself.

    A scheduler's SIGTERM may reach the reward service too.
    """
    stop = run.notice.agreed(run.hosts)
    others = (RewardUnavailable,) if stop is StopKind.PREEMPTION else ()
    if stop and isinstance(error, (EndedByStop, HostError, *others)):
        raise run.notice.stop() from error


def _take(rollouts: Rollouts, step: int, params: nnx.State, hosts: Hosts, notice: Notice) -> Rollout:
    """The step's rollout, once every process has its own; if one fails, or is to be cut, all give theirs back.

    Raises what failed here, StepCut where the step is cut, or HostError saying what failed elsewhere.
    """
    taken: list[Rollout] = []

    def take() -> None:
        taken.append(rollouts.take(step, params))
        notice.heed_cut()

    try:
        hosts.all_do(take)
    except (HostError, StepCut):
        for rollout in taken:
            rollouts.give_back(rollout)
        raise
    return taken[0]


def _log(
    step: int,
    metrics: dict[str, float],
    settings: RLSettings,
    run: Run,
    *,
    scores: HeldOutScores,
    table_every: int,
) -> None:
    """Logs the metrics of the step, and shows its table, where they are wanted."""
    if step % settings.log_every == 0 or step == settings.steps or scores.wanted(step):
        run.log.metrics(step, metrics)
    if table_every and step % table_every == 0:
        show_table(run.log, step, metrics)


def _show(
    step: int,
    rollout: Rollout,
    advantages: np.ndarray,
    metrics: dict[str, float],
    settings: RLSettings,
    run: Run,
    pages: RolloutPages | None,
) -> None:
    """Writes the page of the step where it is wanted, and logs its lengths."""
    if pages is not None and pages.wanted(step):
        began = time.perf_counter()
        with run.log.doing("writing the page of rollouts"):
            pages.write(step, rollout.groups, advantages, metrics)
        metrics["seconds/page"] = time.perf_counter() - began
    run.log.lengths(step, sampled_lengths(rollout.drawn, settings))

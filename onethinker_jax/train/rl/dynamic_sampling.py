"""The groups of each step: prompts are drawn until enough of their groups pass the filter.

Groups whose mean accuracy is not strictly inside (low, high) are dropped, and surplus ones wait for the next step
(dynamic sampling, DAPO, arXiv 2503.14476). With `rl.overlap` the groups of step t + 1 are sampled on another
thread while the update of step t runs, with the parameters from before that update (one step off-policy,
arXiv 2410.18252).
"""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.batches.prompt_stream import PromptStream
from onethinker_jax.errors import UserError
from onethinker_jax.model.int8_weights import in_decoding_dtypes
from onethinker_jax.model.parameters import join_adapters, split_adapters
from onethinker_jax.model.sharding import DECODE_RULES, tree_shardings
from onethinker_jax.responses import Sampler
from onethinker_jax.scoring import Scorer
from onethinker_jax.train.config.rl import RLSettings
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.rl.rollouts import Group, GroupStats, RolloutWatch, StopFlag, Stopped, roll_out
from onethinker_jax.train.rl.saved_rollouts import SavedRollouts
from onethinker_jax.train.rl.update_progress import UpdateProgress


class NoGroupsLeft(UserError):
    """The filter kept too few groups for too long: rewards are all equal, or all zero, or all full."""


@dataclass(frozen=True)
class Rollout:
    """The groups that one step trains on, those that wait for the next, and statistics of all that were sampled."""

    groups: list[Group]
    surplus: list[Group]
    drawn: list[GroupStats]
    metrics: dict[str, float]
    begun: UpdateProgress | None = None  # what was learnt from it before a stop cut its step

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of a rollout that was made ahead, or whose step was cut."""
        groups, surplus = ([group.to_json() for group in part] for part in (self.groups, self.surplus))
        drawn = [stats.to_json() for stats in self.drawn]
        begun = None if self.begun is None else self.begun.to_json()
        return {
            "groups": groups,
            "surplus": surplus,
            "drawn": drawn,
            "metrics": self.metrics,
            "begun": begun,
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any], stream: RecordStream, sampler: Sampler) -> "Rollout":
        """The rollout again; see `Group.from_json`."""
        groups, surplus = (
            [Group.from_json(group, stream, sampler) for group in saved[part]]
            for part in ("groups", "surplus")
        )
        drawn = [GroupStats.from_json(stats) for stats in saved["drawn"]]
        begun = saved.get("begun")
        begun = None if begun is None else UpdateProgress.from_json(begun)
        return cls(groups, surplus, drawn, dict(saved["metrics"]), begun)


class Rollouts:
    """The rollouts of all steps in order; a context manager, which ends the threads of prompts and of `rl.overlap`.

    `behaviour` is None, or the parameters to sample the next rollout with, where the policy has moved on from them: a
    checkpoint written after that rollout has failed must hold them. Where the next rollout is one whose step was cut
    when the policy had moved, they are for the rollout behind it.
    """

    def __init__(
        self,
        stream: RecordStream,
        sampler: Sampler,
        scorer: Scorer,
        settings: RLSettings,
        *,
        seed: int,
        log: RunLog,
        saved: SavedRollouts | None = None,
    ):
        """`saved` keeps the samples of finished prompts on disk."""
        self.behaviour: nnx.State | None = None
        self.sampler, self.scorer = sampler, scorer
        self._records, self._settings = stream, settings
        self._stream = PromptStream(
            stream,
            sampler.prompt,
            workers=sampler.processor.media.workers,
            ahead=settings.prompts_per_step if settings.prompts_ahead is None else settings.prompts_ahead,
        )
        self._seed, self._log, self._saved = seed, log, saved
        self._carried: tuple[list[GroupStats], int] = (
            [],
            0,
        )  # of a step that was begun: what was drawn, in rounds
        self._waiting: list[Group] = []
        self._next: Future[Rollout] | None = None  # of the step that follows: made ahead, or given back
        self._before = stream.state()  # the newest rollout's place in the stream
        self._stop = StopFlag()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rollout") if settings.overlap else None

    def take(self, step: int, params: nnx.State) -> Rollout:
        """The step's rollout: the one made ahead or given back, else sampled with `params`.

        Raises RewardUnavailable, NoGroupsLeft and what else `roll_out` does; the stream is then where it was.
        """
        began = time.perf_counter()
        try:
            if self._thread is None:
                # Of several processes all move the parameters, also one whose rollout was given back.
                moved = self.sampler.decoding_params(params)
                if self._next is None:
                    self._before = self._stream.state()
                    self._next = _made(self._fill(moved, step))
            elif self._next is None:
                self._submit(step, self.decoding_copy(params) if self.behaviour is None else self.behaviour)
            assert self._next is not None
            rollout = self._next.result()
        except Exception:
            self._stream.restore(self._before)
            raise
        self._waiting, self._next, self._carried = rollout.surplus, None, ([], 0)
        if rollout.begun is None:
            self.behaviour = None
        rollout.metrics["seconds/rollout_wait"] = time.perf_counter() - began
        return rollout

    def give_back(self, rollout: Rollout) -> None:
        """Undoes the newest `take`, which gave this: the next one gives it again, also after a resume.

        With overlap the parameters that it was sampled with are gone, so that it could not be made again. What was
        begun behind it is ended, and its prompts come again.
        """
        if self._next is not None:
            self.cut()
            wait([self._next])
            self._stream.restore(self._before)
        self._next = _made(rollout)

    def start(self, step: int, params: nnx.State) -> None:
        """With overlap, begins the rollout of `step`, the next to be taken; `params` may then be donated."""
        self.hold(params)
        if self._thread is not None:
            assert self.behaviour is not None
            self._submit(step, self.behaviour)

    def hold(self, params: nnx.State) -> None:
        """With overlap, keeps `params` for the next rollout, to be sampled when it is taken or after a resume.

        Those that are kept already, since a cut step had moved the policy, stay.
        """
        if self._thread is not None and self.behaviour is None:
            self.behaviour = self.decoding_copy(params)

    def decoding_copy(self, params: nnx.State) -> nnx.State:
        """The parameters on the sampler's devices as it wants them, those that are trained in buffers of their own."""
        if self._settings.rollout_mesh is None:
            moved = self.sampler.decoding_params(params)
        else:
            mesh, dtype = self.sampler.mesh, self.sampler.compute_dtype
            typed = in_decoding_dtypes(params, dtype, self._settings.rollout.weights_dtype)
            moved = jax.device_put(typed, tree_shardings(typed, mesh, DECODE_RULES))
        (own, base), (trained, _) = split_adapters(moved), split_adapters(params)
        shared = {id(leaf) for leaf in jax.tree.leaves(trained)}
        own = jax.tree.map(lambda leaf: jnp.copy(leaf) if id(leaf) in shared else leaf, own)
        return join_adapters(own, base)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the place in the stream, groups that wait, and a rollout made ahead.

        Waits for the rollout under way. If that fails, what is kept is from before it, and `behaviour` belongs
        to it.
        """
        ahead, waiting, place = None, self._waiting, self._stream.state()
        if self._next is not None:
            if self._next.exception() is None:
                rollout = self._next.result()
                ahead, waiting, place = rollout.to_json(), [], self._stream.state()
                if rollout.begun is None:
                    self.behaviour = None
            else:
                place = self._before
        drawn, rounds = self._carried if ahead is None else ([], 0)
        return {
            "stream": place,
            "waiting": [group.to_json() for group in waiting],
            "ahead": ahead,
            "behaviour": self.behaviour is not None,
            "carried": {"drawn": [stats.to_json() for stats in drawn], "rounds": rounds},
        }

    def cut(self) -> None:
        """Ends the rollout under way, which then raises Stopped, and begins no other."""
        self._stop.set()

    def checkpointed(self, step: int) -> None:
        """A checkpoint of the step is begun, or was read."""
        if self._saved is not None:
            self._saved.checkpointed(step)

    def restore(self, saved: Mapping[str, Any], behaviour: nnx.State | None) -> None:
        """Goes on from what `state` gave, with the checkpoint's `behaviour`."""
        self._stream.restore(saved["stream"])
        self._waiting = [Group.from_json(group, self._records, self.sampler) for group in saved["waiting"]]
        self.behaviour = behaviour
        if "carried" in saved:
            drawn = [GroupStats.from_json(stats) for stats in saved["carried"]["drawn"]]
            self._carried = drawn, saved["carried"]["rounds"]
        if saved["ahead"] is not None:
            self._next = _made(Rollout.from_json(saved["ahead"], self._records, self.sampler))

    def __enter__(self) -> "Rollouts":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind is not None:
            self.scorer.give_up()  # nobody waits for the scores of the rollout under way
        if self._thread is not None:
            self._thread.shutdown()
        self._stream.close()

    def _submit(self, step: int, params: nnx.State) -> None:
        assert self._thread is not None
        self._before = self._stream.state()
        self._next = self._thread.submit(self._fill, params, step)

    def _fill(self, params: nnx.State, step: int) -> Rollout:
        """Draws rounds of `settings.prompts_per_step` prompts until the step is full."""
        with jax.set_mesh(self.sampler.mesh):  # which may not be the trainer's, and is set for one thread
            return self._fill_on_mesh(params, step)

    def _tell(self, rounds: int, kept: int, finished: int) -> None:
        """Says how far the sampling of a step is."""
        prompts, again = self._settings.prompts_per_step, f", round {rounds + 1}" if rounds else ""
        self._log.phase(f"sampling {finished}/{prompts} prompts{again}, {kept}/{prompts} groups kept before")

    def _fill_on_mesh(self, params: nnx.State, step: int) -> Rollout:
        settings, began = self._settings, time.perf_counter()
        low, high = settings.accuracy_low, settings.accuracy_high
        kept, drawn, rounds = list(self._waiting), list(self._carried[0]), self._carried[1]
        watch = RolloutWatch(stop=self._stop)
        saved = None if self._saved is None else self._saved.of_step(step, params, self._records)
        while len(kept) < settings.prompts_per_step and rounds < settings.max_generation_rounds:
            if self._stop.is_set():
                raise Stopped
            watch.tell = partial(self._tell, rounds, len(kept))
            watch.tell(0)
            draw = step * settings.max_generation_rounds + rounds  # keys of a draw are never used again
            groups = roll_out(
                params,
                self._stream,
                settings.prompts_per_step,
                self.sampler,
                self.scorer,
                seed=self._seed,
                step=draw,
                watch=watch,
                saved=saved,
            )
            drawn += [group.stats for group in groups]
            kept += [group for group in groups if low < group.stats.accuracy < high]
            rounds += 1
        if len(kept) < settings.prompts_per_step:
            raise NoGroupsLeft(
                f"step {step}: only {len(kept)} of {settings.prompts_per_step} groups had a mean accuracy inside "
                f"({low}, {high}) after {settings.max_generation_rounds} rounds; are the prompts "
                "too hard, too easy, or the answers cut off?"
            )
        metrics = {
            "rounds": float(rounds),
            "groups_waiting": float(len(kept) - settings.prompts_per_step),
            "seconds/rollout": time.perf_counter() - began,
            "seconds/prompts": watch.seconds.prompts,
            "seconds/reward": watch.seconds.reward,
            "seconds/reward_wait": watch.seconds.reward_wait,
        }
        return Rollout(kept[: settings.prompts_per_step], kept[settings.prompts_per_step :], drawn, metrics)


def _made(rollout: Rollout) -> Future[Rollout]:
    future: Future[Rollout] = Future()
    future.set_result(rollout)
    return future

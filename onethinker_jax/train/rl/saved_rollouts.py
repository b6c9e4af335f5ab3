"""The samples of finished prompts on disk, from when they end until a checkpoint holds what was learnt from them.

    saved_rollouts/STEP/DRAW-NUMBER.npz     the samples of a prompt, written when the last of them has ended
    saved_rollouts/STEP/DRAW-NUMBER.json    their scores, once they are known

NUMBER is the prompt's among those of all processes in a draw, so that another number of processes finds it too. A file
says what its samples are of: the policy's parameters bit for bit, what the sampler draws from, the keys (seed, draw,
number), the record and its prompt. A step that is made again reads what is of all that, and samples the rest anew.
"""

import hashlib
import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from onethinker_jax.data_pipeline.batches.loader import RecordStream
from onethinker_jax.data_pipeline.processor.processor import Example
from onethinker_jax.files import whole_file, write_whole
from onethinker_jax.responses import Sampler, Samples
from onethinker_jax.rewards.score import Score
from onethinker_jax.train.log.log import RunLog
from onethinker_jax.train.rl.policy_digest import policy_digest


class SavedRollouts:
    """The folder of all steps that no checkpoint holds yet."""

    def __init__(self, folder: Path, sampler: Sampler, *, seed: int, log: RunLog):
        """`seed` is what the samples are keyed by beside step, prompt and sample."""
        self._folder, self._sampler, self._seed, self._log = folder, sampler, seed, log
        self._newest = -1  # step of the newest checkpoint that was begun
        self._writes = True

    def of_step(self, step: int, params: nnx.State, stream: RecordStream) -> "SavedStep":
        """Those of a step that is sampled with `params` from `stream`."""
        sampler = self._sampler
        drawn_from = {
            "policy": policy_digest(params),
            "sampling": asdict(sampler.config),
            "stop": sampler.settings.stop,
            "group_size": sampler.settings.group_size,
            "dtypes": [sampler.compute_dtype, sampler.settings.kv_dtype, sampler.settings.weights_dtype],
            "seed": self._seed,
            "records": stream.state()["records"],
        }
        return SavedStep(self, self._folder / str(step), step, _digest(drawn_from), sampler, stream)

    def checkpointed(self, step: int) -> None:
        """A checkpoint of the step is begun, so that the one before it stands: removes what is of steps up to that."""
        before = self._newest
        if step <= before:
            return
        self._newest = step
        if self._sampler.number(0) == 0 and self._folder.is_dir():  # one process does it for all
            for folder in self._folder.iterdir():
                if folder.name.isdecimal() and int(folder.name) <= before:
                    shutil.rmtree(folder, ignore_errors=True)

    def write(self, path: Path, samples: dict[str, np.ndarray] | None, scores: str = "") -> None:
        """Writes one file whole; where the disk takes none, says so once and writes no more."""
        if not self._writes:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if samples is None:
                write_whole(path, scores)
            else:
                with whole_file(path) as aside, aside.open("wb") as file:
                    np.savez(file, **samples)  # type: ignore[arg-type]
        except OSError as error:
            self._writes = False
            self._log.warn(
                f"{path}: cannot be written ({error}): from here on no rollouts are saved, and a step that is cut or "
                "killed is sampled anew"
            )

    def tell(self, found: int, foreign: int, count: int, step: int) -> None:
        """Says how many of a draw's prompts need no sampling, and how many files were of something else."""
        if found:
            self._log.info(f"step {step}: {found} of {count} prompts were sampled before, and are read again")
        if foreign:
            self._log.warn(
                f"step {step}: {foreign} of {count} prompts were saved for another policy, sampler or record, and are "
                "sampled anew"
            )


@dataclass(frozen=True)
class SavedStep:
    """The saved samples of one step; `digest` is what they are all of."""

    all: SavedRollouts
    folder: Path
    step: int
    digest: str
    sampler: Sampler
    stream: RecordStream

    def of_draw(self, draw: int, positions: Sequence[int], prompts: Sequence[Example]) -> "SavedDraw":
        """Those of a draw of these prompts, which are at these positions of the stream."""
        names, digests = [], []
        for own, (position, prompt) in enumerate(zip(positions, prompts, strict=True)):
            number = self.sampler.number(own)
            names.append(f"{draw}-{number}")
            tokens = hashlib.sha256(np.asarray(prompt.tokens, np.int32).tobytes()).hexdigest()
            key = [self.digest, draw, number, self.stream.number(position), tokens, len(prompt.patches)]
            digests.append(_digest(key))
        return SavedDraw(self, names, digests)


@dataclass(frozen=True)
class SavedDraw:
    """The saved samples of one draw of prompts, which are numbered as in a call of the sampler."""

    of: SavedStep
    names: list[str]
    digests: list[str]

    def read(self, prompts: Sequence[Example]) -> dict[int, tuple[Samples, list[Score] | None]]:
        """{number of a prompt: its samples, and their scores where these were known}; says what was found."""
        found: dict[int, tuple[Samples, list[Score] | None]] = {}
        foreign = 0
        for number, prompt in enumerate(prompts):
            saved = _arrays(self._path(number, "npz"))
            if saved is None:
                continue
            if str(saved["digest"]) != self.digests[number]:
                foreign += 1
                continue
            found[number] = self._samples(saved, prompt), self._scores(number)
        self.of.all.tell(len(found), foreign, len(prompts), self.of.step)
        return found

    def keep(self, number: int, samples: Samples) -> None:
        """Writes the samples of a prompt."""
        ends = np.cumsum([len(ids) for ids in samples.tokens])
        arrays = {
            "digest": np.array(self.digests[number]),
            "ends": ends.astype(np.int64),
            "tokens": np.concatenate(samples.tokens).astype(np.int32),
            "logprobs": np.concatenate(samples.logprobs).astype(np.float32),
            "ended": np.array(samples.ended, bool),
        }
        self.of.all.write(self._path(number, "npz"), arrays)

    def keep_scores(self, number: int, scores: Sequence[Score]) -> None:
        """Writes the scores of a prompt's samples."""
        text = json.dumps({"digest": self.digests[number], "scores": [asdict(score) for score in scores]})
        self.of.all.write(self._path(number, "json"), None, text)

    def _path(self, number: int, kind: str) -> Path:
        return self.of.folder / f"{self.names[number]}.{kind}"

    def _samples(self, saved: dict[str, np.ndarray], prompt: Example) -> Samples:
        tokens, logprobs = (np.split(saved[name], saved["ends"][:-1]) for name in ("tokens", "logprobs"))
        texts = [self.of.sampler.processor.response(prompt.opening, ids) for ids in tokens]
        return Samples(tokens, logprobs, saved["ended"].tolist(), texts)

    def _scores(self, number: int) -> list[Score] | None:
        try:
            saved = json.loads(self._path(number, "json").read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # not scored yet, or torn where the machine lost its power
            return None
        if saved["digest"] != self.digests[number]:
            return None
        return [Score(**score) for score in saved["scores"]]


def _arrays(path: Path) -> dict[str, np.ndarray] | None:
    """What `SavedDraw.keep` wrote; None where there is nothing, or it is torn where the machine lost its power."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (FileNotFoundError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest()

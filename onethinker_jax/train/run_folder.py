"""The folder of a run: what each file and folder in it is called, and nowhere else.

    config.json  records.json  data/  base/  lengths/  checkpoints/  saved_rollouts/  heldout/  quarantine/
    rollouts/  metrics.jsonl  lengths.jsonl  tensorboard/  model/  adapter/  index.html, and after trouble  stacks.txt
    replay/

Several processes share the folder. What is each one's own, such as its log, is in `hosts/NUMBER` for all but the
first.
"""

from dataclasses import dataclass
from pathlib import Path

_PAGE = "index.html"


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run at `path`, or of what one of its processes has for itself."""

    path: Path

    def of_process(self, index: int) -> "RunFolder":
        """Where the process of that number writes what is its own."""
        return self if index == 0 else RunFolder(self.path / "hosts" / str(index))

    @property
    def settings(self) -> Path:
        """The run's settings, by which the same command finds it again."""
        return self.path / "config.json"

    @property
    def world(self) -> Path:
        """The records of a world, where the run names none."""
        return self.path / "data"

    @property
    def base(self) -> Path:
        """The model directory without weights."""
        return self.path / "base"

    @property
    def records(self) -> Path:
        """How many records there are for each purpose, and the names of their files."""
        return self.path / "records.json"

    @property
    def lengths(self) -> Path:
        """The lengths of the records, which the same command need not find again."""
        return self.path / "lengths"

    @property
    def checkpoints(self) -> Path:
        """One folder a checkpoint."""
        return self.path / "checkpoints"

    @property
    def saved_rollouts(self) -> Path:
        """The samples of steps that no checkpoint holds yet: one folder a step, shared by all processes."""
        return self.path / "saved_rollouts"

    @property
    def heldout(self) -> Path:
        """The answers to the held-out records."""
        return self.path / "heldout"

    def answers(self, stage: str, *, sampled: bool = False) -> Path:
        """The answers of a stage's model, greedy or `sampled`."""
        return self.heldout / f"{stage}{'_sampled' if sampled else ''}.jsonl"

    def quarantine(self, name: str) -> Path:
        """Bad records: of a file, of a stage ("sft", "rl"), or those that do not fit ("sft_lengths")."""
        return self.path / "quarantine" / f"{name}.jsonl"

    @property
    def rollouts(self) -> Path:
        """The pages of rollouts."""
        return self.path / "rollouts"

    @property
    def rollouts_index(self) -> Path:
        """The list of these pages."""
        return self.rollouts / _PAGE

    @property
    def metrics(self) -> Path:
        """The metrics, one JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def sampled_lengths(self) -> Path:
        """The lengths of the prompts and responses that were sampled, as `plan --lengths` reads them."""
        return self.path / "lengths.jsonl"

    def tensorboard(self, stage: str) -> Path:
        """The event files of a stage."""
        return self.path / "tensorboard" / stage

    @property
    def stacks(self) -> Path:
        """Where the threads of a process were when a step did not end."""
        return self.path / "stacks.txt"

    @property
    def replays(self) -> Path:
        """The updates at which the run stopped because they were not finite."""
        return self.path / "replay"

    def replay(self, stage: str, step: int) -> Path:
        """One of them."""
        return self.replays / f"{stage}_{step:08}"

    @property
    def console(self) -> Path:
        """What a process after the first says."""
        return self.path / "console.log"

    @property
    def reward_socket(self) -> Path:
        """Where a reward service of the run's own listens."""
        return self.path / "reward.sock"

    @property
    def reward_log(self) -> Path:
        """What that service says."""
        return self.path / "reward_server.log"

    @property
    def wandb_id(self) -> Path:
        """The run's name at Weights & Biases."""
        return self.path / "wandb_id"

    @property
    def model(self) -> Path:
        """The trained model, a Hugging Face directory."""
        return self.path / "model"

    @property
    def adapter(self) -> Path:
        """The trained adapters as PEFT reads them, where a run has some."""
        return self.path / "adapter"

    @property
    def page(self) -> Path:
        """The page of results, the last thing that a run writes."""
        return self.path / _PAGE

    @property
    def finished(self) -> bool:
        """Whether the run came to its end."""
        return self.page.is_file() and (self.model / "config.json").is_file()

"""The processes of a run, one a host: each trains on its part of every batch and samples on its own devices.

They agree as all `Processes` do; the methods here concern one process.
"""

from dataclasses import dataclass, replace

from onethinker_jax.host_settings import HostSettings
from onethinker_jax.processes import Processes, join_processes
from onethinker_jax.train.config.checks import SettingError
from onethinker_jax.train.config.hosts import MeshSettings
from onethinker_jax.train.config.run import TrainConfig
from onethinker_jax.train.run_folder import RunFolder


@dataclass(frozen=True)
class Hosts(Processes):
    """This process's number among all, and how many there are."""

    def folder(self, config: TrainConfig) -> RunFolder:
        """Where this process writes what is its own: the run's folder, or one inside it."""
        return config.folder.of_process(self.index)

    def share(self, config: TrainConfig) -> TrainConfig:
        """The settings of this process's part of a run: of its mesh, and of the rows and prompts of a batch.

        Raises SettingError naming a setting that cannot be divided.
        """
        if self.count == 1:
            return config
        if config.rl.overlap:
            raise SettingError("rl.overlap needs a run of one process")

        def part(name: str, size: int) -> int:
            if size % self.count:
                raise SettingError(f"{name} {size} is not a multiple of the {self.count} processes")
            return size // self.count

        sft, rl, evaluation, mesh = config.sft, config.rl, config.evaluation, config.mesh
        if rl.prompts_per_step % (self.count * rl.num_minibatches):
            raise SettingError(
                f"rl.prompts_per_step {rl.prompts_per_step} is not a multiple of {self.count} processes x "
                f"{rl.num_minibatches} rl.num_minibatches"
            )
        slots = rl.rollout.prompt_slots and part("rl.rollout.prompt_slots", rl.rollout.prompt_slots)
        mine = part("evaluation.sampler.prompt_slots", evaluation.sampler.together)
        ahead = rl.prompts_ahead and -(-rl.prompts_ahead // self.count)
        return replace(
            config,
            mesh=MeshSettings(fsdp=part("mesh.data x mesh.fsdp", mesh.data * mesh.fsdp), tensor=mesh.tensor),
            sft=replace(sft, batch=replace(sft.batch, rows=part("sft.batch.rows", sft.batch.rows))),
            rl=replace(
                rl,
                prompts_per_step=part("rl.prompts_per_step", rl.prompts_per_step),
                rollout=replace(rl.rollout, prompt_slots=slots),
                prompts_ahead=ahead,
                batch=replace(rl.batch, rows=part("rl.batch.rows", rl.batch.rows)),
            ),
            evaluation=replace(evaluation, sampler=replace(evaluation.sampler, prompt_slots=mine)),
        )


def join_hosts(settings: HostSettings) -> Hosts:
    """Joins the other processes of the run, once they are there; JAX must not have been used before.

    Raises HostError when they do not come, or the settings do not say who they are.
    """
    joined = join_processes(settings)
    return Hosts(joined.index, joined.count)

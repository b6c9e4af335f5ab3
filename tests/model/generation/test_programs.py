"""What samplers share: whoever samples in the same shapes compiles nothing anew."""

from flax import nnx

from onethinker_jax.model.generation.generate import make_programs
from onethinker_jax.model.qwen3_vl import Qwen3VL
from tests.model import tiny
from tests.model.generation.making import LONG, sampling, shape_of


def test_equal_shapes_and_samplings_are_one_set_of_programs() -> None:
    config = tiny.CONFIGS["tied"]
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: Qwen3VL(config, rngs=nnx.Rngs(0))))
    made = make_programs(graphdef, sampling(), shape_of())
    assert make_programs(graphdef, sampling(), shape_of()) is made

    warmer = make_programs(graphdef, sampling(temperature=0.5), shape_of())
    assert warmer.prefill is made.prefill
    assert warmer.decode_block is not made.decode_block

    small = make_programs(graphdef, sampling(), shape_of(kv_dtype="int8"))
    assert small.prefill is not made.prefill

    shorter = make_programs(graphdef, sampling(max_new_tokens=LONG // 2), shape_of(decode_block=LONG // 2))
    assert shorter.decode_block is not made.decode_block

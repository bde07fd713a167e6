"""What a compiled program moves: programs with known collectives, and lines as TPUs' programs have
them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cegppo_jax.loops import bounded_loop
from cegppo_jax.planning.hlo import parse_module
from cegppo_jax.planning.traffic import group_size, read_traffic

ROWS, COLUMNS = 16, 128  # float32 over 8 devices: 2 rows each


@pytest.fixture
def split():
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    return NamedSharding(mesh, PartitionSpec("x")), NamedSharding(mesh, PartitionSpec())


def traffic_of(function, split, *others):
    by_rows, whole = split
    x = jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.float32, sharding=by_rows)
    jitted = jax.jit(function, out_shardings=whole)
    return read_traffic(jitted.lower(x, *others).compile().as_text())


def test_an_all_gather_receives_what_the_others_hold(split):
    found = traffic_of(lambda x: x * 2, split)
    assert found.outside.collectives == {"all-gather": 1}
    assert found.outside.moved == {"all-gather": 7 * 2 * COLUMNS * 4}
    assert not found.a_pass.collectives


def test_an_all_reduce_goes_around_the_ring_twice(split):
    found = traffic_of(lambda x: x.sum(0), split)
    assert found.outside.collectives == {"all-reduce": 1}
    assert found.outside.moved == {"all-reduce": pytest.approx(2 * 7 / 8 * COLUMNS * 4)}


def gathered_each_time(x, bound):
    """Gathers x in every pass of a loop, from rows that the pass before has changed."""

    def body(_, carried):
        whole = jax.lax.with_sharding_constraint(carried, PartitionSpec())
        mixed = jnp.tanh(whole @ whole.T @ whole)
        return jax.lax.with_sharding_constraint(mixed, PartitionSpec("x"))

    return jax.lax.fori_loop(0, bound, body, x).sum(0)


def test_a_loop_of_known_length_counts_every_pass(split):
    with jax.set_mesh(split[0].mesh):
        once, five = (
            traffic_of(lambda x, n=n: gathered_each_time(x, n), split).outside for n in (1, 5)
        )
    gathers = five.collectives["all-gather"] - once.collectives["all-gather"]
    assert gathers == 4
    moved = five.moved["all-gather"] - once.moved["all-gather"]
    assert moved == 4 * 7 * 2 * COLUMNS * 4
    assert five.hbm_bytes > 3 * once.hbm_bytes


def test_a_loop_of_traced_length_counts_one_pass_apart(split):
    with jax.set_mesh(split[0].mesh):
        bound = jax.ShapeDtypeStruct((), np.int32)
        found = traffic_of(gathered_each_time, split, bound)
    assert found.a_pass.collectives["all-gather"] == 1
    assert "all-gather" not in found.outside.collectives
    whole = found.of(3)
    assert whole.collectives["all-gather"] == 3
    assert whole.hbm_bytes == found.outside.hbm_bytes + 3 * found.a_pass.hbm_bytes


def test_main_memory_of_a_sum_is_its_operands_and_its_result(split):
    x = jax.ShapeDtypeStruct((64, 256), jnp.float32)
    text = jax.jit(lambda x, y: x + y).lower(x, x).compile().as_text()
    assert read_traffic(text).outside.hbm_bytes == 3 * 64 * 256 * 4


def test_a_slice_of_a_stack_is_read_alone(split):
    stack = jax.ShapeDtypeStruct((32, 64, 256), jnp.float32)
    index = jax.ShapeDtypeStruct((), np.int32)
    text = jax.jit(lambda s, i: jnp.sin(s[i])).lower(stack, index).compile().as_text()
    # once read, once written; the index is a few bytes. Not the 32 members of the stack.
    assert read_traffic(text).outside.hbm_bytes < 4 * 64 * 256 * 4


TPU_LIKE = """HloModule jit_f, is_scheduled=true

%fused (p: f32[64,100]) -> f32[100] {
  %p = f32[64,100]{1,0:T(8,128)} parameter(0)
  ROOT %r = f32[100]{0:T(128)} reduce(%p), dimensions={0}
}

%body (t: (s32[], f32[64,100])) -> (s32[], f32[64,100]) {
  %t = (s32[]{:T(128)}, /*index=1*/f32[64,100]{1,0:T(8,128)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  %x = f32[64,100]{1,0:T(8,128)} get-tuple-element(%t), index=1
  %two = s32[]{:T(128)} constant(2)
  %next = s32[]{:T(128)} add(%i, %two)
  %f = f32[100]{0:T(128)S(1)} fusion(%x), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"50"}
  %g = f32[64,100]{1,0:T(8,128)} all-reduce(%x), replica_groups=mesh['a'=2,'b'=4] {'b'}, to_apply=%add
  ROOT %out = (s32[]{:T(128)}, f32[64,100]{1,0:T(8,128)}) tuple(%next, %g)
}

%condition (t: (s32[], f32[64,100])) -> pred[] {
  %t = (s32[]{:T(128)}, f32[64,100]{1,0:T(8,128)}) parameter(0)
  %limit = s32[]{:T(128)} constant(28)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (x: f32[64,100]) -> f32[64,100] {
  %x = f32[64,100]{1,0:T(8,128)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, f32[64,100]{1,0:T(8,128)}) tuple(%zero, %x)
  %loop = (s32[]{:T(128)}, f32[64,100]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  ROOT %done = f32[64,100]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_a_bounded_loop_in_a_loop_of_traced_length_counts_at_most_its_bound():
    """The vocabulary's chunks in the loop over micro-batches: at most all of them."""

    def program(outer, inner, x):
        def once(_, x):
            return bounded_loop(inner, 5, lambda _, x: jnp.sin(x) @ x, x)

        return jax.lax.fori_loop(0, outer, once, x)

    shapes = jnp.int32(0), jnp.int32(0), jnp.zeros((8, 8))
    text = jax.jit(program).lower(*shapes).compile().as_text()
    module = parse_module(text)
    loops = [
        one for lines in module.computations.values() for one in lines if one.opcode == "while"
    ]
    assert [module.trips(one) for one in loops] == [None, None]
    assert sorted(module.at_most(one) or 0 for one in loops) == [0, 5]
    products = read_traffic(text).a_pass.hbm_bytes
    assert products >= 5 * 3 * 8 * 8 * 4  # each reads two matrices and writes one


def test_loops_of_tpu_programs_are_counted_by_their_condition_and_step():
    module = parse_module(TPU_LIKE)
    [loop] = [one for one in module.computations["main"] if one.opcode == "while"]
    assert module.trips(loop) == 14
    found = read_traffic(TPU_LIKE).outside
    padded = 64 * 128 * 4  # rows of 100 fill tiles of 128
    assert found.cycles == 14 * 50
    assert found.collectives == {"all-reduce": 14}
    assert found.moved == {"all-reduce": pytest.approx(14 * 2 * 3 / 4 * padded)}
    # The fusion reads x and writes into the chip's own memory; the all-reduce reads and writes
    # main memory; the counter is added to (three numbers) and compared (two, and a bool)
    assert found.hbm_bytes == 14 * (3 * padded + 3 * 4 + 2 * 4 + 1)


@pytest.mark.parametrize("bound", ["get-tuple-element(%t), index=0", "custom-call()"])
def test_a_loop_with_another_bound_is_traced(bound):
    text = TPU_LIKE.replace("constant(28)", bound)
    found = read_traffic(text)
    assert found.a_pass.cycles == 50
    assert found.outside.cycles == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", 4),
        ("replica_groups=[2,8]<=[16]", 8),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b'}", 8),
        ("replica_groups=mesh['a'=2,'b'=4] {'b':(1)2}", 2),
        ("source_target_pairs={{0,1},{1,0}}", 1),
    ],
)
def test_groups_in_every_spelling(text, size):
    assert group_size(f", {text}, dimensions={{0}}") == size


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        parse_module("HloModule empty\n")

"""On fsdp a weight is gathered once for its product; its gradient is summed once, in float32."""

import jax
import jax.numpy as jnp
import pytest

from cegppo_jax.losses.logprobs import token_statistics
from cegppo_jax.models.layers import Linear
from cegppo_jax.planning.traffic import read_traffic
from cegppo_jax.sharding import MeshShape, make_mesh, named_sharding

ROWS, LENGTH, WIDTH, COLUMNS, SHARDS = 8, 64, 64, 256, 8


@pytest.fixture
def fsdp_mesh():
    mesh = make_mesh(MeshShape(1, SHARDS, 1))
    with jax.set_mesh(mesh):
        yield mesh


def moved_by_gradient(loss, mesh, columns):
    """The traffic of the gradient of loss(weight [D, columns], states [R, C, D] bfloat16)."""
    split = named_sharding(mesh, "width", None)
    by_rows = named_sharding(mesh, "rows", None, None)
    weight = jax.ShapeDtypeStruct((WIDTH, columns), jnp.float32, sharding=split)
    states = jax.ShapeDtypeStruct((ROWS, LENGTH, WIDTH), jnp.bfloat16, sharding=by_rows)
    jitted = jax.jit(jax.grad(loss, argnums=(0, 1)), out_shardings=(split, by_rows))
    return read_traffic(jitted.lower(weight, states).compile().as_text()).outside


def assert_summed_once_in_float32(found, columns):
    # XLA's CPU backend makes no reduce-scatter
    assert found.collectives["all-reduce"] == 1
    around = 2 * (SHARDS - 1) / SHARDS
    assert found.moved["all-reduce"] == pytest.approx(around * 4 * WIDTH * columns)


def test_a_kernel_is_gathered_once_and_its_gradient_summed_in_float32(fsdp_mesh):
    module = Linear((WIDTH,), (COLUMNS,), ("width", "mlp"), jnp.bfloat16)

    def loss(kernel, states):
        out = module.apply({"params": {"kernel": kernel}}, states)
        return jnp.sum(jnp.tanh(out.astype(jnp.float32)))

    found = moved_by_gradient(loss, fsdp_mesh, COLUMNS)
    assert found.collectives["all-gather"] == 1
    assert_summed_once_in_float32(found, COLUMNS)


@pytest.mark.parametrize("chunk", [8, 64])
def test_the_head_is_gathered_once_however_many_chunks(fsdp_mesh, chunk):
    tokens = jnp.zeros((ROWS, LENGTH), jnp.int32)

    def loss(head, states):
        found = token_statistics(
            states,
            head,
            tokens,
            temperature=0.9,
            chunk_tokens=chunk,
            differentiate_entropy=False,
        )
        return found.logprobs.sum()

    found = moved_by_gradient(loss, fsdp_mesh, 500)
    assert found.collectives["all-gather"] == 1
    assert_summed_once_in_float32(found, 500)

"""Checkpoints: what is saved comes back bit for bit, on any mesh, whatever happens meanwhile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cegppo_jax.checkpoint import Checkpointer, CheckpointSettings, Position, abstract_state
from cegppo_jax.sharding import MeshShape, make_mesh
from cegppo_jax.update import TrainState

SETTINGS = CheckpointSettings(every_steps=1, keep=2)
RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.standard_normal((16, 1024)).astype(np.float32)
KERNEL[0, :4] = [np.nan, -0.0, np.inf, 1e-45]  # what a text or a sum would lose


def layout(mesh, spec):
    split = NamedSharding(mesh, spec)
    whole = NamedSharding(mesh, PartitionSpec())
    return TrainState({"kernel": split}, (split, whole), step=whole, updates=whole)


def state_on(shardings, kernel=KERNEL, step=3):
    values = TrainState(
        {"kernel": kernel}, (kernel + 1, np.int32(9)), np.int32(step), np.int32(2 * step)
    )
    return jax.tree.map(jax.device_put, values, shardings)


def restore(workdir, shardings, kernel=KERNEL):
    shapes = jax.eval_shape(lambda: state_on(jax.tree.map(lambda _: None, shardings), kernel))
    with Checkpointer(workdir, SETTINGS) as checkpointer:
        return checkpointer.restore(abstract_state(shapes, shardings))


@pytest.fixture
def by_rows():
    return layout(make_mesh(MeshShape(1, 8, 1)), PartitionSpec("fsdp", None))


def assert_bits(actual, expected):
    assert np.asarray(actual).tobytes() == np.asarray(expected).tobytes()


def test_a_state_comes_back_bit_for_bit_on_another_mesh(by_rows, tmp_path):
    with Checkpointer(tmp_path, SETTINGS) as checkpointer:
        checkpointer.save(state_on(by_rows), Position(step=3, next_prompt=77))
    other = layout(make_mesh(MeshShape(2, 1, 4)), PartitionSpec(None, "tensor"))
    state, position = restore(tmp_path, other)
    assert position == Position(step=3, next_prompt=77)
    assert_bits(state.params["kernel"], KERNEL)
    assert_bits(state.optimizer_state[0], KERNEL + 1)
    assert (int(state.optimizer_state[1]), int(state.step), int(state.updates)) == (9, 3, 6)
    assert state.params["kernel"].sharding == other.params["kernel"]


def test_without_a_checkpoint_there_is_nothing_to_restore(by_rows, tmp_path):
    assert restore(tmp_path, by_rows) is None


def test_the_newest_are_kept_and_the_newest_is_restored(by_rows, tmp_path):
    with Checkpointer(tmp_path, SETTINGS) as checkpointer:
        for step in (0, 1, 2, 10):
            checkpointer.save(state_on(by_rows, KERNEL + step, step), Position(step, step))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["10", "2"]
    state, position = restore(tmp_path, by_rows)
    assert position.step == int(state.step) == 10
    assert_bits(state.params["kernel"], KERNEL + 10)


def test_a_save_in_the_background_is_not_reached_by_the_next_update(by_rows, tmp_path):
    """The update donates its state: the device writes the new parameters over the old ones."""
    large = np.tile(KERNEL, (16, 4))
    add_one = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = state_on(by_rows, large)
    add_one(jax.tree.map(jnp.copy, state))  # compiled ahead, so that the update follows at once
    with Checkpointer(tmp_path, SETTINGS) as checkpointer:
        checkpointer.save(state, Position(3, 0))
        for _ in range(3):
            state = add_one(state)
        jax.block_until_ready(state)
    restored, _ = restore(tmp_path, by_rows, large)
    assert_bits(restored.params["kernel"], large)
    assert int(restored.step) == 3


def test_a_half_written_checkpoint_is_none(by_rows, tmp_path):
    with Checkpointer(tmp_path, SETTINGS) as checkpointer:
        checkpointer.save(state_on(by_rows), Position(3, 0))
    whole = tmp_path / "checkpoints" / "3"
    whole.rename(whole.with_name("4.orbax-checkpoint-tmp"))
    assert restore(tmp_path, by_rows) is None


def test_a_checkpoint_of_another_shape_is_refused(by_rows, tmp_path):
    with Checkpointer(tmp_path, SETTINGS) as checkpointer:
        checkpointer.save(state_on(by_rows), Position(3, 0))
    with pytest.raises(ValueError, match="shape"):
        restore(tmp_path, by_rows, KERNEL[:, :512])


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0)])
def test_settings_that_would_keep_nothing_are_refused(numbers):
    with pytest.raises(ValueError, match="both at least 1"):
        CheckpointSettings(*numbers)

"""Checkpoints: what is saved comes back bit for bit, on any mesh, whatever happens meanwhile."""

import dataclasses
import json
import shutil
import types

import bucket_server
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from cegppo_jax.learner.train_state import TrainState
from cegppo_jax.rollout.carried import CarriedGroups
from cegppo_jax.rollout.difficulty import DifficultyStore, Tally
from cegppo_jax.run import checkpoint
from cegppo_jax.run.checkpoint import Checkpointer, abstract_state, saved_steps
from cegppo_jax.run.position import RunPosition
from cegppo_jax.run.read_back import DamagedCheckpointError, UnreadableCheckpointError
from cegppo_jax.run.restoring import restore_state
from cegppo_jax.run.saved_params import restore_params, save_params
from cegppo_jax.sharding import MeshShape, make_mesh
from cegppo_jax.steering.controller import ControllerState
from cegppo_jax.steering.guard import GuardState
from cegppo_jax.steering.steer import START, SteeringState
from cegppo_jax.storage.bucket import Bucket
from cegppo_jax.storage.mirror import opened_folder, real_place
from cegppo_jax.types import Completion, Outcome, Problem, Prompt, Rollout, Score, StopReason

KEEP = 2
RANDOM = np.random.default_rng(0)
KERNEL = RANDOM.standard_normal((16, 1024)).astype(np.float32)
KERNEL[0, :4] = [np.nan, -0.0, np.inf, 1e-45]  # what a text or a sum would lose
# Numbers that a few decimal digits would change.
STEERED = SteeringState(
    ControllerState(smoothed_entropy=0.1 + 0.2, integral=-1 / 3, acting=True),
    GuardState(2, rollbacks=1, beta_shift=1e-17, candidate_step=None, last_good_step=2),
    entropy_alpha=5e-324,
)


def at(step, next_prompt=0, steering=START):
    return RunPosition(step, next_prompt, steering)


def layout(mesh, spec):
    split = NamedSharding(mesh, spec)
    whole = NamedSharding(mesh, PartitionSpec())
    return TrainState({"kernel": split}, (split, whole), step=whole, updates=whole)


def state_on(shardings, kernel=KERNEL, step=3):
    values = TrainState(
        {"kernel": kernel}, (kernel + 1, np.int32(9)), np.int32(step), np.int32(2 * step)
    )
    return jax.tree.map(jax.device_put, values, shardings)


def abstract(shardings, kernel=KERNEL):
    shapes = jax.eval_shape(lambda: state_on(jax.tree.map(lambda _: None, shardings), kernel))
    return abstract_state(shapes, shardings)


def restore(workdir, shardings, kernel=KERNEL, step=None):
    with Checkpointer(workdir, KEEP) as checkpointer:
        return checkpointer.restore(abstract(shardings, kernel), step)


@pytest.fixture
def by_rows():
    return layout(make_mesh(MeshShape(1, 8, 1)), PartitionSpec("fsdp", None))


def assert_bits(actual, expected):
    assert np.asarray(actual).tobytes() == np.asarray(expected).tobytes()


@pytest.mark.parametrize("steering", [START, STEERED], ids=["start", "steered"])
def test_a_state_comes_back_bit_for_bit_on_another_mesh(by_rows, steering, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), RunPosition(3, next_prompt=77, steering=steering))
    other = layout(make_mesh(MeshShape(2, 1, 4)), PartitionSpec(None, "tensor"))
    state, position = restore(tmp_path, other)
    assert position == RunPosition(step=3, next_prompt=77, steering=steering)
    assert repr(position.steering) == repr(steering)  # types as well
    assert_bits(state.params["kernel"], KERNEL)
    assert_bits(state.optimizer_state[0], KERNEL + 1)
    assert (int(state.optimizer_state[1]), int(state.step), int(state.updates)) == (9, 3, 6)
    assert state.params["kernel"].sharding == other.params["kernel"]


def test_without_a_checkpoint_there_is_nothing_to_restore(by_rows, tmp_path):
    assert restore(tmp_path, by_rows) is None


def test_the_newest_are_kept_and_the_newest_is_restored(by_rows, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        for step in (0, 1, 2, 10):
            checkpointer.save(state_on(by_rows, KERNEL + step, step), at(step, step))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10", "2"]
    state, position = restore(tmp_path, by_rows)
    assert position.step == int(state.step) == 10
    assert_bits(state.params["kernel"], KERNEL + 10)


def test_an_older_one_is_restored_by_its_step(by_rows, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        for step in (4, 6):
            checkpointer.save(state_on(by_rows, KERNEL + step, step), at(step, step))
    state, position = restore(tmp_path, by_rows, step=4)
    assert position.step == int(state.step) == 4
    assert_bits(state.params["kernel"], KERNEL + 4)


def test_what_is_still_being_written_can_be_asked_for(by_rows, tmp_path):
    """A rollback may follow its checkpoint at once, in the same process."""
    large = np.tile(KERNEL, (64, 4))
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(state_on(by_rows, large + step, step), at(step))
            state, position = checkpointer.restore(abstract(by_rows, large), step)
            assert position == at(step)
            assert_bits(state.params["kernel"], large + step)


def test_a_save_in_the_background_is_not_reached_by_the_next_update(by_rows, tmp_path):
    """The update donates its state: the device writes the new parameters over the old ones."""
    large = np.tile(KERNEL, (16, 4))
    add_one = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = state_on(by_rows, large)
    add_one(jax.tree.map(jnp.copy, state))  # compiled ahead, so that the update follows at once
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state, at(3))
        for _ in range(3):
            state = add_one(state)
        jax.block_until_ready(state)
    restored, _ = restore(tmp_path, by_rows, large)
    assert_bits(restored.params["kernel"], large)
    assert int(restored.step) == 3


def test_checkpoints_in_a_bucket_come_back_bit_for_bit(by_rows, monkeypatch):
    """Kept, restored, listed, moved aside and deleted there; nothing is left on this machine."""
    with (
        bucket_server.serving() as url,
        opened_folder("--workdir", f"{url}/run") as folder,
    ):
        workdir, bucket = folder / "checkpoints", Bucket("--workdir", f"{url}/run")
        states = {step: state_on(by_rows, KERNEL + step, step) for step in (1, 2, 3)}
        with Checkpointer(workdir, KEEP) as checkpointer:
            for step, state in states.items():
                checkpointer.save(state, at(step))
        assert sorted(saved_steps(workdir)) == [2, 3]
        save_params(folder / "reference", states[1].params)
        restored, position = restore(workdir, by_rows)
        jax.tree.map(assert_bits, restored, states[3])
        assert position == at(3)
        params = restore_params(folder / "reference", abstract(by_rows).params)
        jax.tree.map(assert_bits, params, states[1].params)
        with Checkpointer(workdir, KEEP) as checkpointer:
            aside = checkpointer.set_aside(3)
            assert str(aside) == f"{url}/run/damaged_checkpoints"
            assert checkpointer.latest_step() == 2
        jax.tree.map(assert_bits, restore(workdir, by_rows)[0], states[2])
        tops = {"/".join(name.split("/")[:2]).split("-")[0] for name in bucket.files()}
        assert {"checkpoints/2", "damaged_checkpoints/3"} <= tops
        assert not {"checkpoints/1", "checkpoints/3"} & tops
        real_place(folder / "reference").rmtree(missing_ok=True)
        real_place(folder / "reference").rmtree(missing_ok=True)
        assert not any(name.startswith("reference") for name in bucket.files())
        assert list(folder.iterdir()) == []


def test_a_half_written_checkpoint_is_none(by_rows, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), at(3))
    whole = tmp_path / "3"
    whole.rename(whole.with_name("4.orbax-checkpoint-tmp"))
    assert restore(tmp_path, by_rows) is None


def test_a_checkpoint_of_another_shape_is_refused(by_rows, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), at(3))
    with pytest.raises(ValueError, match="shape"):
        restore(tmp_path, by_rows, KERNEL[:, :512])


def test_parameters_alone_come_back_bit_for_bit_on_another_mesh(by_rows, tmp_path):
    params = state_on(by_rows).params
    save_params(tmp_path / "reference", params)
    other = layout(make_mesh(MeshShape(2, 1, 4)), PartitionSpec(None, "tensor"))
    restored = restore_params(tmp_path / "reference", abstract(other).params)
    assert_bits(restored["kernel"], KERNEL)
    assert restored["kernel"].sharding == other.params["kernel"]


def test_parameters_that_are_there_already_stay(by_rows, tmp_path):
    """A start that was killed after it saved the reference saves it once."""
    for kernel in (KERNEL, KERNEL + 1):
        save_params(tmp_path / "reference", state_on(by_rows, kernel).params)
    restored = restore_params(tmp_path / "reference", abstract(by_rows).params)
    assert_bits(restored["kernel"], KERNEL)


def test_a_position_with_other_steering_than_this_version_s_is_refused(
    by_rows, tmp_path, monkeypatch
):
    older = dataclasses.asdict(START) | {"betas": [0.5, 1.0]}
    monkeypatch.setattr(SteeringState, "to_json", lambda self: older)
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), at(3))
    with pytest.raises(ValueError, match=r"checkpoint: steering\.betas is not a setting"):
        restore(tmp_path, by_rows)


@pytest.mark.parametrize(
    ("lost", "added", "message"),
    [
        ("carried", {}, r"position: \['carried'\] are missing and \[\] are unknown"),
        ("steering", {"beta": 1}, r"position: \['steering'\] are missing and \['beta'\] are unk"),
        ("carried_tokens", {}, r"arrays: \['carried_tokens'\] are missing and \[\] are unknown"),
        (
            "difficulty_tallies",
            {"difficulty_counts": np.ones((1, 2))},
            r"arrays: \['difficulty_tallies'\] are missing and \['difficulty_counts'\] are unk",
        ),
    ],
)
def test_a_position_of_another_version_is_refused(
    by_rows, tmp_path, monkeypatch, lost, added, message
):
    own = at(3).to_saved()
    saved = [{k: v for k, v in part.items() if k != lost} for part in own]
    for name, value in added.items():
        saved[isinstance(value, np.ndarray)][name] = value
    monkeypatch.setattr(RunPosition, "to_saved", lambda self: saved)
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), at(3))
    monkeypatch.setattr(RunPosition, "to_saved", lambda self: own)
    with pytest.raises(UnreadableCheckpointError, match=rf"/3 cannot be read.*{message}"):
        restore(tmp_path, by_rows)


def test_a_checkpoint_with_arrays_inside_its_json_is_refused(by_rows, tmp_path):
    """As versions before 0.2.0 wrote them."""
    old = {"step": 3, "next_prompt": 0, "steering": START.to_json()}
    old |= {"carried": "UEsDBBQ=", "difficulty": "UEsDBBQ="}
    with ocp.CheckpointManager(tmp_path, item_names=("state", "position")) as manager:
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state_on(by_rows)), position=ocp.args.JsonSave(old)
        )
        manager.save(3, args=items)
    with pytest.raises(UnreadableCheckpointError, match=r"arrays: .*'difficulty_tallies'.*missing"):
        restore(tmp_path, by_rows)


def test_a_damaged_position_is_told_in_one_line(by_rows, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), remembering())
    [array] = (tmp_path / "3" / "arrays").glob("d")
    for path in array.iterdir():
        path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UnreadableCheckpointError) as caught:
        restore(tmp_path, by_rows)
    assert str(tmp_path / "3") in str(caught.value)
    assert "\n" not in str(caught.value)


LOGPROBS = np.array([np.nan, -0.0, 1e-45], np.float32)


def remembering():
    """A position with everything that dynamic sampling remembers."""
    completion = Completion(9, 0, np.arange(3, dtype=np.int32), LOGPROBS, StopReason.EOS, 2)
    silent = Completion(9, 1, np.empty(0, np.int32), LOGPROBS[:0], StopReason.LENGTH, 2)
    prompt = Prompt(Problem("p", "1", "2", "test"), (4, 5), 9)
    scores = Score(1 / 3, Outcome.WRONG, None), Score(np.nan, Outcome.CORRECT, '"\ud83d\x00')
    group = Rollout(prompt, (completion, silent), ("text", ""), scores)
    store = DifficultyStore({"b": Tally(0.1, 0.3, 0.7), "a": Tally(1.0, 8.0, 90.0)})
    return dataclasses.replace(at(3), carried=CarriedGroups((group,)), difficulty=store)


def test_what_dynamic_sampling_remembers_comes_back_bit_for_bit(by_rows, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), remembering())
    _, restored = restore(tmp_path, by_rows)
    assert restored == remembering()
    [back] = restored.carried.groups
    assert_bits(back.completions[0].sampler_logprobs, LOGPROBS)
    assert [type(c.tokens) for c in back.completions] == [np.ndarray] * 2


def test_a_checkpoint_whose_tallies_have_no_tokens_is_restored(by_rows, tmp_path, monkeypatch):
    """As version 0.2 wrote it: two columns."""
    saved = DifficultyStore.to_saved

    def without_tokens(store):
        ids, tallies = saved(store)
        return ids, tallies[:, :2]

    monkeypatch.setattr(DifficultyStore, "to_saved", without_tokens)
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), remembering())
    monkeypatch.undo()
    _, restored = restore(tmp_path, by_rows)
    assert restored.difficulty == DifficultyStore({"b": Tally(0.1, 0.3), "a": Tally(1.0, 8.0)})


def test_arrays_are_arrays_of_the_checkpoint(by_rows, tmp_path):
    """Readable with Orbax alone; the JSON has scalars and texts."""
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), remembering())
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        arrays = reader.restore(tmp_path / "3" / "arrays")
    np.testing.assert_array_equal(arrays["carried_lengths"], [3, 0])
    np.testing.assert_array_equal(arrays["carried_tokens"], [0, 1, 2])
    assert arrays["carried_tokens"].dtype == np.int32
    tallies = [[0.1, 0.3, 0.7], [1.0, 8.0, 90.0]]  # right, judged, tokens
    np.testing.assert_array_equal(arrays["difficulty_tallies"], tallies)
    [position] = (tmp_path / "3" / "position").glob("metadata")
    assert json.loads(position.read_text())["carried"]["texts"] == ["text", ""]


def data_files(folder):
    """The files with numbers, largest first: arrays of the state, or parameters alone."""
    files = [one for item in ("state", "params") for one in (folder / item).rglob("*")]
    files = [path for path in files if path.is_file()]
    return sorted(files, key=lambda path: -path.stat().st_size)


def test_no_flipped_bit_of_a_checkpoint_is_restored_as_another_number(by_rows, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), at(3))
    for state in whole_despite_a_flipped_bit(
        tmp_path / "3", lambda: restore(tmp_path, by_rows)[0], files=4, refused=8
    ):
        assert_bits(state.params["kernel"], KERNEL)
        assert_bits(state.optimizer_state[0], KERNEL + 1)


def test_no_flipped_bit_of_a_reference_is_restored_as_another_number(by_rows, tmp_path):
    save_params(tmp_path / "reference", state_on(by_rows).params)
    for params in whole_despite_a_flipped_bit(
        tmp_path / "reference",
        lambda: restore_params(tmp_path / "reference", abstract(by_rows).params),
        files=2,
        refused=4,
    ):
        assert_bits(params["kernel"], KERNEL)


def whole_despite_a_flipped_bit(folder, read, files, refused):
    """Flips bits, one at a time, anywhere in a folder's largest files. Yields what is read all the
    same; at least so many of the others are refused in a line that names the folder.
    """
    lines, random = [], np.random.default_rng(5)
    for path in data_files(folder)[:files]:
        whole = path.read_bytes()
        for bit in random.integers(0, 8 * len(whole), 4):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            try:
                found = read()
            except DamagedCheckpointError as error:
                lines.append(str(error))
            else:  # a byte that nothing reads
                yield found
        path.write_bytes(whole)
    assert len(lines) >= refused
    assert all(str(folder) in line and "\n" not in line for line in lines)
    read()


@pytest.mark.parametrize("lost", ["params", "checks", "the data"])
def test_a_reference_that_lacks_something_is_told_in_a_line(lost, by_rows, tmp_path):
    save_params(tmp_path / "reference", state_on(by_rows).params)
    if lost == "the data":
        for path in data_files(tmp_path / "reference"):
            path.unlink()
    else:
        shutil.rmtree(tmp_path / "reference" / lost)
    with pytest.raises(DamagedCheckpointError) as caught:
        restore_params(tmp_path / "reference", abstract(by_rows).params)
    assert str(tmp_path / "reference") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reference_without_checksums_is_read(by_rows, tmp_path):
    """As version 0.2 saved it."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "reference", state_on(by_rows).params)
    restored = restore_params(tmp_path / "reference", abstract(by_rows).params)
    assert_bits(restored["kernel"], KERNEL)


def test_parameters_alone_are_checked_as_well(by_rows, tmp_path, monkeypatch):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), at(3))
        params = abstract(by_rows).params
        assert_bits(checkpointer.restore_params(params, 3)["kernel"], KERNEL)
        other = {"params/kernel": [0, 0]}
        monkeypatch.setattr(checkpoint, "tree_checksums", lambda tree: other)
        with pytest.raises(DamagedCheckpointError, match=r"1 of 1 arrays of its state .*kernel"):
            checkpointer.restore_params(params, 3)
        with pytest.raises(DamagedCheckpointError, match="kernel"):
            list(checkpointer.restore_leaves(params, 3))


def test_a_state_of_another_step_than_its_folder_is_damaged(by_rows, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), at(3))
    (tmp_path / "3").rename(tmp_path / "5")
    with pytest.raises(DamagedCheckpointError, match=r"of step 5, its position of 3 .*state of 3"):
        restore(tmp_path, by_rows)


def rewrite_position(folder, change):
    [path] = (folder / "position").glob("metadata")
    saved = json.loads(path.read_text())
    change(saved)
    path.write_text(json.dumps(saved))


def test_a_changed_position_is_damaged_and_a_later_format_is_refused(by_rows, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), remembering())
    rewrite_position(tmp_path / "3", lambda saved: saved.update(next_prompt=9))
    with pytest.raises(DamagedCheckpointError, match="its position has changed"):
        restore(tmp_path, by_rows)
    rewrite_position(tmp_path / "3", lambda saved: saved["checks"].update(format=3))
    with pytest.raises(UnreadableCheckpointError, match=r"has the format 3, and .* reads 2 and 1"):
        restore(tmp_path, by_rows)


def test_a_checkpoint_without_checks_is_of_format_1_and_restored(by_rows, tmp_path):
    with Checkpointer(tmp_path, KEEP) as checkpointer:
        checkpointer.save(state_on(by_rows), remembering())
    rewrite_position(tmp_path / "3", lambda saved: saved.pop("checks"))
    assert restore(tmp_path, by_rows)[1] == remembering()


def learner_of(shardings):
    return types.SimpleNamespace(state_layout=lambda: abstract(shardings, np.abs(KERNEL)))


def finite_state(shardings, step):
    return state_on(shardings, np.nan_to_num(KERNEL, posinf=2.0), step)


def empty(folder):
    for path in list(folder.iterdir()):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut(folder):
    for path in data_files(folder):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_position(folder):
    shutil.rmtree(folder / "position")


def without_state(folder):
    shutil.rmtree(folder / "state")


@pytest.mark.parametrize("damage", [empty, cut, without_position, without_state])
def test_the_one_before_a_damaged_one_is_used_and_a_line_says_so(damage, by_rows, tmp_path):
    folder, said = tmp_path / "checkpoints", []
    with Checkpointer(folder, KEEP) as checkpointer:
        for step in (4, 6):
            checkpointer.save(finite_state(by_rows, step), at(step))
    damage(folder / "6")
    with Checkpointer(folder, KEEP) as checkpointer:
        state, position = restore_state(learner_of(by_rows), checkpointer, said.append)
        assert (int(state.step), position.step) == (4, 4)
        [line] = said
        for part in (str(folder / "6"), str(tmp_path / "damaged_checkpoints"), "step 4 is used"):
            assert part in line
        assert "\n" not in line
        # And the run can save that step again
        checkpointer.save(finite_state(by_rows, 6), at(6))
        assert checkpointer.steps() == [4, 6]
    [aside] = (tmp_path / "damaged_checkpoints").iterdir()
    assert aside.name.startswith("6-")


def test_without_a_whole_one_the_newest_is_named_and_nothing_is_moved(by_rows, tmp_path):
    folder = tmp_path / "checkpoints"
    with Checkpointer(folder, KEEP) as checkpointer:
        for step in (4, 6):
            checkpointer.save(finite_state(by_rows, step), at(step))
    for step in (4, 6):
        cut(folder / str(step))
    with (
        Checkpointer(folder, KEEP) as checkpointer,
        pytest.raises(DamagedCheckpointError, match="/6 "),
    ):
        restore_state(learner_of(by_rows), checkpointer, print)
    assert sorted(path.name for path in folder.iterdir()) == ["4", "6"]

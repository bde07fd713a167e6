"""What splash attention's kernels compute, from a line as a TPU's program has it."""

import pytest

from cegppo_jax.planning.chips import CHIPS
from cegppo_jax.planning.hlo import parse_module
from cegppo_jax.planning.kernels import OF_PEAK, kernel_seconds, kernel_work
from cegppo_jax.planning.traffic import read_traffic

# 2 blocks of 64 queries, and of keys twice as many, for shared prompts; 6 heads of 32 on 2
CALL = """
ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %splash_mha_fwd_segmented_residuals.2 = (f32[64,128]{1,0:T(8,128)}, bf16[6,128,32]{2,1,0}) custom-call(%x), custom_call_target="tpu_custom_call", operand_layout_constraints={s32[1,2,4]{2,1,0}, s32[1,2,4]{2,1,0}, bf16[6,128,32]{2,1,0}, bf16[2,256,32]{2,1,0}}, frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 64}"
}}, metadata={op_name="attention"}
  ROOT %y = f32[8]{0} negate(%x), backend_config={"estimated_cycles":"50"}
}
"""  # noqa: E501


def kernel(text=CALL):
    module = parse_module(text)
    return next(one for one in module.computations["main"] if one.opcode == "custom-call")


def test_a_call_computes_the_blocks_that_causality_leaves_and_one_of_prompts_each():
    work = kernel_work(kernel())
    blocks = 6 * (3 + 2)
    assert work.kind == "fwd"
    assert work.flops == 2 * blocks * (2 * 64 * 64 * 32)
    assert work.fetched_bytes == blocks * 2 * 64 * 32 * 2
    backward = kernel_work(kernel(CALL.replace("mha_fwd", "mha_dkv")))
    assert (backward.kind, backward.flops) == ("dkv", 5 / 2 * work.flops)


def test_without_a_second_copy_of_the_keys_there_are_no_prompts():
    own = CALL.replace("s32[1,2,4]", "s32[1,2,2]").replace("bf16[2,256,32]", "bf16[2,128,32]")
    assert kernel_work(kernel(own)).flops == 3 / 5 * kernel_work(kernel()).flops


def test_a_call_counts_with_what_follows_its_broken_lines():
    """The metadata's JSON ends a line with braces: it does not end the computation."""
    found = read_traffic(CALL).outside
    work = kernel_work(kernel())
    assert found.cycles == 50
    assert found.kernels == {"fwd": work.flops}
    assert found.hbm_bytes > work.fetched_bytes


def test_other_instructions_are_no_kernels_and_unknown_operands_are_refused():
    assert kernel_work(kernel(CALL.replace("splash_mha_fwd", "another"))) is None
    with pytest.raises(ValueError, match=r"splash_mha_fwd_segmented_residuals\.2"):
        kernel_work(
            kernel(CALL.replace("bf16[6,128,32]{2,1,0}, bf16[2", "bf16[6,128]{1,0}, bf16[2"))
        )


def test_the_backward_kernel_runs_on_one_core_of_a_chip():
    flops = OF_PEAK * CHIPS["v5p"].flops_speed
    assert kernel_seconds({"fwd": flops}, CHIPS["v5p"]) == pytest.approx(1)
    assert kernel_seconds({"fwd": flops, "dkv": flops}, CHIPS["v5p"]) == pytest.approx(3)
    v6e = OF_PEAK * CHIPS["v6e"].flops_speed
    assert kernel_seconds({"dkv": v6e}, CHIPS["v6e"]) == pytest.approx(1)


# 3 slots with 4 pages each of a table; 6 heads of 128 on 2; 9 pages of 16
PAGED = """
ENTRY %main (q: f32[3,6,1,128]) -> f32[3,6,1,128] {
  %q = f32[3,6,1,128]{3,2,1,0} parameter(0)
  %keys = bf16[2,9,16,128]{3,2,1,0} parameter(1)
  %values = bf16[2,9,16,128]{3,2,1,0} parameter(2)
  ROOT %paged_attention.2 = f32[3,6,1,128]{3,2,1,0} custom-call(%q, %keys, %values), custom_call_target="tpu_custom_call", operand_layout_constraints={s32[3]{0}, s32[12]{0}, s32[1]{0}, s32[1]{0}, f32[3,6,1,128]{3,2,1,0}, bf16[2,9,16,128]{3,2,1,0}, bf16[2,9,16,128]{3,2,1,0}}, metadata={op_name="attention"}
}
"""  # noqa: E501


def test_pages_are_read_as_far_as_slots_have_got_and_not_all_of_them():
    work = kernel_work(kernel(PAGED))
    assert (work.kind, work.flops) == ("paged", 0)
    assert work.fetched_bytes == -2 * 2 * 9 * 16 * 128 * 2
    query = 3 * 6 * 128 * 4
    assert read_traffic(PAGED).outside.hbm_bytes == 2 * query  # in and out, without pages
    with pytest.raises(ValueError, match="operands of the kernel"):
        kernel_work(kernel(PAGED.replace("bf16[2,9,16,128]{3,2,1,0}}", "bf16[8]{0}}")))

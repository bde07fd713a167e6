"""Problem sets by their short form, as the commands read them."""

from cegppo_jax.data import problem_files


def load_problems(name, fields):
    return problem_files.load_problems(problem_files.named_set(name), fields)

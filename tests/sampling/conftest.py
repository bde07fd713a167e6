"""What the small sampler draws on one device: every other way to draw it gives the same."""

import jax
import pytest
from sampler_cases import sample

from cegppo_jax.sharding import MeshShape, make_mesh


@pytest.fixture(scope="package")
def reference(model, params, prompts):
    mesh = make_mesh(MeshShape(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        return sample(mesh, model, params, prompts)

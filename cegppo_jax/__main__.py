"""`python -m cegppo_jax COMMAND`: the same as `cegppo COMMAND`."""

from cegppo_jax.console.main import main

if __name__ == "__main__":
    main()

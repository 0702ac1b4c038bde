"""Settings of every test: float64, and compiled code kept between runs."""

import os
from pathlib import Path

# BLAS threads wait by spinning: with a second test process on the same cores a small matrix takes ten times as long.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update(
    "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache" / "jax"))
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

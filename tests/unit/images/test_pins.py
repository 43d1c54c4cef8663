"""Which pins of constraints.txt an image installs."""

import pytest

from tools.images import pins
from tools.images.recipes import Recipe, operator, server

LOCK = """# Made by: make lock
numpy==2.0 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via
    #   pyproject.toml
    #   torch
torch==2.15 \\
    --hash=sha256:bb
    # via
    #   pyproject.toml
    #   Sentence_Transformers
nvidia-cublas==13 \\
    --hash=sha256:cc
    # via torch
nvidia-cuda-runtime==13 \\
    --hash=sha256:dd
    # via torch
triton==3 \\
    --hash=sha256:ee
    # via torch
ruff==1 \\
    --hash=sha256:ff
    # via pyproject.toml
"""


@pytest.mark.requirement("O6")
def test_what_is_asked_for_and_what_that_needs() -> None:
    """A root brings along whatever the lock says was wanted because of it, with all hashes, and nothing else."""
    found = pins.read(LOCK)
    assert pins.needed(found, ["torch"]) == ["numpy", "torch", "nvidia-cublas", "nvidia-cuda-runtime", "triton"]
    assert found["numpy"].lines == ("numpy==2.0 \\", "    --hash=sha256:aa \\", "    --hash=sha256:ab")


@pytest.mark.requirement("O6")
def test_without_a_gpu_its_libraries_stay_out() -> None:
    """Of CUDA a CPU keeps the runtime that says there is no GPU."""
    names = pins.needed(pins.read(LOCK), ["torch"])
    assert pins.without_cuda(names) == ["numpy", "torch", "nvidia-cuda-runtime"]


@pytest.mark.requirement("O6")
def test_a_root_that_is_not_pinned_is_refused() -> None:
    """A dependency that the lock does not know yet is named, with what to do."""
    with pytest.raises(ValueError, match="pins no kopf: make lock"):
        pins.needed(pins.read(LOCK), ["kopf"])


@pytest.mark.requirement("O6")
def test_extras_count_and_our_own_packages_do_not() -> None:
    """Roots are what the projects ask for with all extras, but for each other."""
    ours = {"project": {"name": "embedfleet", "dependencies": ["numpy>=2"]}}
    server_ = {
        "project": {
            "name": "embedfleet-server",
            "dependencies": ["embedfleet", "orjson>=3"],
            "optional-dependencies": {"models": ["torch>=2.11"]},
        }
    }
    assert pins.roots([ours, server_]) == ["numpy", "orjson", "torch"]


@pytest.mark.requirement("O6")
@pytest.mark.parametrize("recipe", [server("cpu"), server("cuda"), operator()], ids=lambda recipe: recipe.label)
def test_the_lock_serves_every_image(recipe: Recipe) -> None:
    """Our own lock has all that each image installs: a key of it can be made, the same each time."""
    assert recipe.runtime_key("base") == recipe.runtime_key("base")
    assert recipe.runtime_key("base") != recipe.runtime_key("another")

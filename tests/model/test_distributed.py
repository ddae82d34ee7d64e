"""Two processes over gloo have the gradients of one, and train the same θ.

B = streams in batch, D = source dim, E = target dim, N = pairs of a stream, Q = query pairs,
S = support pairs
"""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.inner import learners
from model.meta import distributed, outer
from model.meta.episodes import EpisodeBatch
from model.meta.parameters import MetaParameters
from model.meta.progress import Saving, seeded
from model.meta.recipe import Recipe
from model.meta.training import Data, train_theta

D, E, B = 4, 3, 3
"""Three streams over two processes: one and two."""
RECIPE = Recipe(
    hidden_dim=6,
    inner_steps=2,
    max_support=5,
    query=4,
    streams=B,
    steps=20,
    rate=1e-2,
    validate_every=5,
    validation_streams=5,
)
TRAINED = {
    "maml": replace(RECIPE, learn_rates=True),
    "adversarial": replace(RECIPE, generator="adversarial", learner="anil"),
    "one_stream": replace(RECIPE, streams=1, generator="adversarial"),
}


class Drawn:
    """Random pairs, ragged supports."""

    source_dim, target_dim = D, E

    def draw(self, generator: torch.Generator, streams: int) -> EpisodeBatch:
        x_BND = torch.randn(streams, 9, D, generator=generator)
        y_BNE = torch.randn(streams, 9, E, generator=generator) + x_BND[..., :E]
        real_BS = torch.arange(5) < torch.randint(2, 6, (streams, 1), generator=generator)
        real_BQ = torch.arange(4) < torch.randint(1, 5, (streams, 1), generator=generator)
        x, y = x_BND, y_BNE
        return EpisodeBatch(x[:, :5], y[:, :5], real_BS, x[:, 5:], y[:, 5:], real_BQ)


def whole_batch(dtype: torch.dtype) -> EpisodeBatch:
    batch = Drawn().draw(seeded(0, "test"), B)
    return EpisodeBatch(*(t.to(dtype) if t.is_floating_point() else t for t in batch))


def gradients(dtype: torch.dtype) -> dict[str, Tensor]:
    """Of every learner, on this process's share, summed over processes; the loss beside them."""
    found: dict[str, Tensor] = {}
    for kind in learners.KINDS:
        recipe = Recipe.from_config(RECIPE.to_config() | {"learner": kind, "learn_rates": True})
        parameters = MetaParameters.fresh(D, E, recipe).to(dtype)
        batch = distributed.share(whole_batch(dtype))
        loss = outer.accumulate(parameters, batch, B)
        learned = [p for p in parameters.parameters() if p.requires_grad]
        found[f"{kind}.loss"] = distributed.sum_gradients(learned, loss.view(1))
        names = [n for n, p in parameters.named_parameters() if p.requires_grad]
        grads = [p.grad for p in learned if p.grad is not None]
        found |= {f"{kind}.{n}": g for n, g in zip(names, grads, strict=True)}
    return found


def all_of_it(folder: Path | None = None) -> dict[str, Tensor]:
    """Gradients in both precisions, and what some trainings end in."""
    found = {f"float32.{n}": g for n, g in gradients(torch.float32).items()}
    found |= {f"float64.{n}": g for n, g in gradients(torch.float64).items()}
    for name, recipe in TRAINED.items():
        saving = None if folder is None else Saving(folder / name, every=10)
        result = train_theta(Data(Drawn(), Drawn()), recipe, saving=saving)
        state = result.parameters.state_dict()
        found |= {f"trained.{name}.{n}": t.contiguous() for n, t in state.items()}
        losses = [row["validation_loss"] for row in result.progress.history]
        found[f"trained.{name}.validation"] = torch.tensor(losses)
    return found


def main(folder: Path) -> None:
    """What each of torchrun's processes does, then once more from the checkpoints of rank 0."""
    torch.set_num_threads(1)
    with distributed.process_group():
        assert distributed.world() == 2
        save_file(all_of_it(folder), folder / f"rank{distributed.rank()}")
        again = all_of_it(folder)
        save_file(again, folder / f"again{distributed.rank()}")


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port), __file__, str(folder)]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_have_the_gradients_of_one(two_processes: Path) -> None:
    theirs, ours = load_file(two_processes / "rank0"), all_of_it()
    for name, gradient in ours.items():
        precision = name.split(".")[0]
        if precision != "trained":
            tolerance = 1e-6 if precision == "float32" else 1e-12
            scale = max(1.0, float(gradient.abs().max()))
            error = float((theirs[name] - gradient).abs().max())
            assert error <= tolerance * scale, f"{name}: {error}"


def test_two_processes_train_the_same_theta(two_processes: Path) -> None:
    theirs, ours = load_file(two_processes / "rank0"), all_of_it()
    trained = [name for name in ours if name.startswith("trained")]
    assert trained
    for name in trained:
        torch.testing.assert_close(theirs[name], ours[name], rtol=2e-4, atol=2e-5, msg=name)


def test_the_processes_agree_to_the_last_bit_and_continue_as_one(two_processes: Path) -> None:
    one, other = (load_file(two_processes / f"rank{r}") for r in (0, 1))
    again = [load_file(two_processes / f"again{r}") for r in (0, 1)]
    for name, tensor in one.items():
        for copy in (other, *again):
            assert torch.equal(copy[name], tensor), name


def test_alone_everything_is_the_identity() -> None:
    batch = whole_batch(torch.float32)
    for whole, mine in zip(batch, distributed.share(batch), strict=True):
        assert torch.equal(whole, mine)
    assert distributed.from_rank_0(b"bytes") == b"bytes"
    assert (distributed.rank(), distributed.world()) == (0, 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import nn
from torch.testing import assert_close

from ctinterp_dagster.errors import CheckpointError, TrainingError
from ctinterp_dagster.latent.denoiser import Denoiser
from ctinterp_dagster.latent.patches import LatentPair, LatentPatches, PatchSettings
from ctinterp_dagster.model.autoencoder import MaisiAutoencoder
from ctinterp_dagster.nullspace.objective import NoisySlabs
from ctinterp_dagster.nullspace.slabs import ThickSlabs
from ctinterp_dagster.nullspace.unet import SliceUNet
from ctinterp_dagster.training.autoencoder import VolumeCrops
from ctinterp_dagster.training.batches import Batches, Plan, seeded
from ctinterp_dagster.training.device_volumes import ThinVolume
from ctinterp_dagster.training.loop import LoopSettings, StepRecord, learning_rate_at, run_loop
from ctinterp_dagster.training.recompute import recomputed
from tests.nullspace.slabs_of import varied


class StopHereError(Exception):
    pass


def stop_at(step: int) -> Callable[[StepRecord], None]:
    def on_step(record: StepRecord) -> None:
        if record.step == step:
            raise StopHereError("stopped on purpose")

    return on_step


class Line(nn.Module):
    """Loss of a line through points, whose minimum is known."""

    def __init__(self, start: float = 0.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([start]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.slope * x - 3.0 * x).square().mean()


class Points:
    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self.batches: list[torch.Tensor] = []

    def plan(self, generator: torch.Generator) -> Plan[tuple[torch.Tensor]]:
        self.batches.append(self.scale * torch.randn(4, generator=generator))
        return Plan((f"case-{len(self.batches)}",), (self.batches[-1],))

    def batch(self, plan: Plan[tuple[torch.Tensor]]) -> tuple[torch.Tensor, ...]:
        return plan.parts

    def fingerprint(self) -> str:
        return f"points {self.scale}"


def settings(**changes: object) -> LoopSettings:
    return replace(tiny.SETTINGS, **changes)


def test_a_run_finds_the_minimum() -> None:
    line = Line()
    history = run_loop(line, Points(), settings(steps=100, learning_rate=0.3, clip_norm=100.0, ema_decay=0.0))
    assert line.slope.item() == pytest.approx(3.0, abs=1e-2)
    assert history[-1].loss < 1e-3 < history[0].loss


def test_a_denoiser_learns_more_than_adding_nothing() -> None:
    untrained = tiny.train(steps=1, learning_rate=0.0)[1][-1].val_loss
    trained = tiny.train(steps=50, learning_rate=8e-3, validate_every=50, ema_decay=0.8)[1][-1].val_loss
    assert trained < 0.7 * untrained


def test_two_runs_end_with_the_same_bits() -> None:
    (first, rows), (second, again) = tiny.train(), tiny.train()
    assert tiny.weights_hash(first) == tiny.weights_hash(second)
    assert rows == again


def bytes_kept(network: nn.Module, given: tuple[object, ...], *, asked: bool) -> int:
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with recomputed(network, asked=asked), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(*given)
        (output if isinstance(output, torch.Tensor) else output[0]).sum().backward()
    return sum(kept)


def test_gradient_checkpointing_changes_no_bit() -> None:
    plain, again = tiny.train()[0], tiny.train(gradient_checkpointing=True)[0]
    assert tiny.weights_hash(plain) == tiny.weights_hash(again)


@pytest.mark.parametrize(
    ("network", "given"),
    [
        (SliceUNet(2, 2, (8, 8, 8), 2, 3), (torch.randn(1, 2, 4, 16, 16), torch.randn(1, 3))),
        (Denoiser(2, 2, (8, 8), 2), (torch.randn(1, 2, 8, 8, 8), torch.randn(1, 2, 8, 8, 8), torch.rand(1))),
        (MaisiAutoencoder((8, 8, 8), 4, 4), (torch.rand(1, 1, 16, 16, 16), torch.Generator())),
    ],
    ids=["slice unet", "denoiser", "autoencoder"],
)
def test_gradient_checkpointing_keeps_less_for_the_way_back(network: nn.Module, given: tuple[object, ...]) -> None:
    plain, again = (bytes_kept(network, given, asked=asked) for asked in (False, True))
    assert again < 0.5 * plain
    assert all("forward" not in module.__dict__ for module in network.modules())


@pytest.mark.parametrize("changes", [{}, {"accumulation": 2}, {"mixed_precision": "bf16"}])
@pytest.mark.parametrize("stop", [3, 4])
def test_a_stopped_and_resumed_run_ends_with_the_same_bits(
    tmp_path: Path, changes: dict[str, object], stop: int
) -> None:
    whole, rows = tiny.train(**changes)
    checkpoint = tmp_path / "resume.pt"
    with pytest.raises(StopHereError, match="stopped on purpose"):
        tiny.train(checkpoint, stop_at(stop), **changes)
    resumed, again = tiny.train(checkpoint, **changes)
    assert tiny.weights_hash(resumed) == tiny.weights_hash(whole)
    assert again == rows


def test_a_resumed_run_only_repeats_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    steps = []
    with pytest.raises(StopHereError, match="stopped on purpose"):
        tiny.train(tmp_path / "resume.pt", stop_at(5))
    tiny.train(tmp_path / "resume.pt", lambda record: steps.append(record.step))
    assert steps == [5, 6]


def test_a_checkpoint_is_read_without_unpickling_and_leaves_no_partial_file(tmp_path: Path) -> None:
    tiny.train(tmp_path / "resume.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["resume.pt"]
    assert set(torch.load(tmp_path / "resume.pt", weights_only=True)) >= {"objective", "optimizer", "ema", "history"}


@pytest.mark.parametrize("changes", [{"seed": 8}, {"learning_rate": 1e-3}, {"steps": 7}])
def test_the_checkpoint_of_other_settings_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    tiny.train(tmp_path / "resume.pt")
    with pytest.raises(TrainingError, match=r"resume.pt is the checkpoint of another run .* remove it to start afresh"):
        tiny.train(tmp_path / "resume.pt", **changes)


def test_the_checkpoint_of_other_data_is_refused(tmp_path: Path) -> None:
    run_loop(Line(), Points(), settings(), checkpoint=tmp_path / "resume.pt")
    with pytest.raises(TrainingError, match="checkpoint of another run"):
        run_loop(Line(), Points(scale=2.0), settings(), checkpoint=tmp_path / "resume.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "resume.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"resume\.pt is not a training checkpoint"):
        tiny.train(tmp_path / "resume.pt")


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    tiny.train(tmp_path / "resume.pt")
    content = (tmp_path / "resume.pt").read_bytes()
    (tmp_path / "resume.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"resume\.pt is not a training checkpoint"):
        tiny.train(tmp_path / "resume.pt")


def test_a_pickle_in_the_place_of_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    torch.save(Payload(trap), tmp_path / "resume.pt")
    with pytest.raises(CheckpointError, match=r"resume\.pt is not a training checkpoint"):
        tiny.train(tmp_path / "resume.pt")
    assert not trap.exists()


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_a_loss_that_is_not_finite_stops_the_run_with_its_cases_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    points, checkpoint = Points(), tmp_path / "checkpoint"
    kept = []

    def spoil(record: StepRecord) -> None:
        if record.step == 2:
            kept.append(checkpoint.read_bytes())
            points.scale = 1e30

    asked = settings(steps=4, accumulation=2, checkpoint_every=2)
    cause = r"diverged at step 3, on case-5, case-6: loss inf, .* lower learning_rate"
    with pytest.raises(TrainingError, match=cause):
        run_loop(Line(), points, asked, checkpoint=checkpoint, on_step=spoil)
    assert [checkpoint.read_bytes()] == kept


def test_every_kind_of_batch_knows_its_cases() -> None:
    hu = torch.zeros(24, 16, 16, dtype=torch.int16)
    volumes = [ThinVolume(hu, (1.0, 1.0, 1.0), case=case) for case in ("a", "b")]
    slabs = ThickSlabs(volumes, varied((4, 16, 16), 1.0), 8)
    latent = torch.zeros(1, 4, 4, 4)
    pairs = [LatentPair(latent, latent, case) for case in ("a", "b")]
    kinds: list[Batches] = [
        slabs,
        NoisySlabs(slabs, 4),
        VolumeCrops(volumes, (4, 8, 8), 8, 1),
        LatentPatches(pairs, PatchSettings((2, 2, 2), (), 0.0), 8),
    ]
    for batches in kinds:
        cases = batches.plan(seeded(1)).cases
        assert len(cases) == 8
        assert set(cases) == {"a", "b"}


def test_the_gradient_is_clipped_and_its_norm_recorded_before_clipping() -> None:
    line = Line(start=1000.0)
    row = run_loop(line, Points(), settings(steps=1, clip_norm=1e-12, warmup_steps=0, ema_decay=0.0))[0]
    assert row.grad_norm > 100
    assert abs(line.slope.item() - 1000.0) < 0.1  # weight decay alone, and not Adam's full step of a scaled gradient


def test_accumulated_batches_make_the_gradient_of_their_mean() -> None:
    points = Points()
    row = run_loop(Line(), points, settings(steps=1, accumulation=3))[0]
    assert len(points.batches) == 3
    assert row.loss == pytest.approx(float(torch.stack(points.batches).mul(3.0).square().mean()), rel=1e-6)
    assert row.grad_norm == pytest.approx(float(torch.stack(points.batches).square().mean() * 6.0), rel=1e-6)


def test_validation_sees_the_averaged_weights() -> None:
    batch = (torch.ones(4),)
    line = Line()
    rows = run_loop(line, Points(), settings(steps=3, validate_every=2, learning_rate=0.1), validation=[batch])
    assert [row.val_loss is None for row in rows] == [True, False, False]
    assert rows[-1].val_loss == pytest.approx(float((line.slope.detach() - 3.0) ** 2), rel=1e-6)


def test_the_learning_rate_rises_linearly_and_falls_as_half_a_cosine() -> None:
    plan = settings(steps=12, warmup_steps=2, learning_rate=1.0)
    rates = [learning_rate_at(step, plan) for step in range(12)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[7] == pytest.approx(0.5)
    assert rates[11] == pytest.approx(0.5 * (1 + math.cos(math.pi * 0.9)))


def test_seeded_streams_differ_in_every_key_and_repeat() -> None:
    draws = {keys: torch.rand(1, generator=seeded(*keys)).item() for keys in ((0, 0), (0, 1), (1, 0), (1, 1))}
    assert len(set(draws.values())) == 4
    assert torch.rand(1, generator=seeded(1, 0)).item() == draws[(1, 0)]


def test_fp16_without_a_gpu_is_refused() -> None:
    with pytest.raises(TrainingError, match="mixed_precision fp16 needs a GPU, the device is cpu: use bf16 or no"):
        tiny.train(mixed_precision="fp16")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_refused() -> None:
    with pytest.raises(TrainingError, match="device cuda is not there, found cpu"):
        tiny.train(device="cuda")


def test_one_process_may_train_in_one_precision_after_another() -> None:
    assert tiny.weights_hash(tiny.train()[0]) != tiny.weights_hash(tiny.train(mixed_precision="bf16")[0])


def test_bf16_on_a_patch_that_halves_to_two_slices_is_refused() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(1, 1, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x[None, None, :2, None, None].expand(1, 1, 2, 4, 4)).float().square().mean()

    with pytest.raises(TrainingError, match="on 2 slices would get wrong gradients in bf16 on a CPU"):
        run_loop(Deep(), Points(), settings(mixed_precision="bf16"))
    run_loop(Deep(), Points(), settings(steps=1))


def test_determinism_flags_are_put_back() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    tiny.train(steps=1)
    assert torch.are_deterministic_algorithms_enabled() == before


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_accumulation(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    run = subprocess.run(
        [*command, tiny.__file__, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stderr
    first, second = ((tmp_path / f"rank{rank}").read_text().split() for rank in (0, 1))
    assert first[0] == "2"
    assert first == second
    together = torch.load(tmp_path / "weights.pt", weights_only=True)
    alone, history = tiny.train(steps=3, accumulation=2)
    assert float(first[2]) == pytest.approx(history[-1].loss, rel=1e-4)
    for name, value in alone.state_dict().items():
        assert_close(together[name], value, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_processes_that_share_the_weights_go_on_after_a_kill_as_if_nothing_had_been(tmp_path: Path) -> None:
    def launch(folder: str, step: int) -> int:
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        command += [str(Path(tiny.__file__).with_name("sharded.py")), str(tmp_path / folder), str(step)]
        return subprocess.run(command, capture_output=True, timeout=300, check=False).returncode

    assert launch("whole", 0) == 0
    assert launch("killed", 5) != 0
    assert launch("killed", 0) == 0
    whole, resumed = (torch.load(tmp_path / n / "weights.pt", weights_only=True) for n in ("whole", "killed"))
    alone, _ = tiny.train(accumulation=2, mixed_precision="bf16")
    for name, value in alone.state_dict().items():
        assert torch.equal(whole[name], resumed[name])
        assert_close(whole[name], value, rtol=0.05, atol=1e-3)

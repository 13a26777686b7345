"""The run: it learns, survives being killed at any moment, splits among processes, and refuses what cannot work.

Long because all of it needs the same short runs, which are expensive and shared.
"""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import av
import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoFramepackTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import clips

from framepack_core.layout import Kernel
from framepack_core.training import preparation, samples, state, train
from framepack_core.training.__main__ import main
from framepack_core.training.settings import Settings

ROOT = Path(__file__).parents[2]
TINY = {
    "heads": 1,
    "blocks": 1,
    "single_blocks": 1,
    "refiner_blocks": 1,
    "precision": "no",
    "layouts": ("framepack", "f1", "important-start"),
    "batch": 2,
    "accumulation": 2,
    "warmup": 2,
    "lr": 1e-3,
    "max_sections": 3,
    "save_minutes": 0.0,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return clips.write_cache(tmp_path_factory.mktemp("cache"))


def settings(cache: Path, output: Path, **changes) -> Settings:
    return Settings(cache, output, **TINY | {"steps": 6, "save_every": 2} | changes)


def arguments(cache: Path, output: Path, **changes) -> list[str]:
    """The command line for the same settings."""
    found = ["train", str(cache), str(output)]
    for name, value in (TINY | {"steps": 6, "save_every": 2} | changes).items():
        found += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return found


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **changes}


def weights(output: Path) -> dict[str, torch.Tensor]:
    """Everything a finished run has: the model, its average and the optimizer's moments."""
    last = state.last_state(output)
    optimizer = torch.load(last / "optimizer.bin", weights_only=True)["state"]
    moments = {f"{index}.{name}": tensor for index, found in optimizer.items() for name, tensor in found.items()}
    model, average = load_file(last / "model.safetensors"), load_file(last / state.EMA)
    return moments | {f"model.{name}": tensor for name, tensor in model.items()} | average


def losses(output: Path) -> list[float]:
    with (output / "losses.csv").open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def straight(cache, tmp_path_factory) -> Path:
    """The output of an uninterrupted run."""
    output = tmp_path_factory.mktemp("straight")
    train.train(settings(cache, output))
    return output


def test_the_loss_falls(cache, tmp_path):
    train.train(settings(cache, tmp_path, steps=60, save_every=60, lr=3e-3, warmup=5, sigmas="uniform", caption_dropout=0.0))

    found = losses(tmp_path)
    assert sum(found[-10:]) < 0.6 * sum(found[:10])


KILLED = """
import os, signal, sys
from framepack_core.training import train
from framepack_core.training.__main__ import main

calls = 0

def dying(function, at):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

if sys.argv[1] == "step":
    train.flow_loss = dying(train.flow_loss, 8)  # the second micro-batch of the fourth step
else:
    rename = os.replace
    def dying_rename(source, target):  # everything is written but the name
        if os.path.basename(target) == "state-00000004":
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)
    os.replace = dying_rename
main(sys.argv[2:])
"""


@pytest.mark.parametrize("moment", ["step", "save"])
@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(cache, straight, tmp_path, moment):
    command = [sys.executable, "-c", KILLED, moment, *arguments(cache, tmp_path)]
    killed = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert [path.name for path in state.states(tmp_path)] == ["state-00000002"]

    train.train(settings(cache, tmp_path))

    expected, found = weights(straight), weights(tmp_path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert losses(tmp_path) == losses(straight)


@pytest.mark.slow
def test_two_processes_match_one(cache, straight, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--cpu", "--num_machines", "2",
              "--num_processes", "2", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_ip", "127.0.0.1",
              "--main_process_port", str(port), "-m", "framepack_core.training"]  # fmt: skip
    ranks = [environment(WORLD_SIZE="2", RANK=str(i), LOCAL_RANK=str(i), LOCAL_WORLD_SIZE="2") for i in (0, 1)]
    both = [subprocess.Popen([*launch, *arguments(cache, tmp_path)], env=rank, cwd=ROOT) for rank in ranks]

    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert sorted(path.name for path in state.last_state(tmp_path).glob("random_states_*")) == [
        "random_states_0.pkl",
        "random_states_1.pkl",
    ]
    expected, found = (load_file(state.last_state(output) / state.EMA) for output in (straight, tmp_path))
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=0, atol=1e-5)


def test_the_export_is_the_average_in_diffusers_names_and_says_what_it_was_trained_with(straight):
    path = straight / "model" / state.WEIGHTS
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    average = load_file(state.last_state(straight) / state.EMA)
    exported = load_file(path)

    assert json.loads(metadata["framepack.layouts"]) == list(TINY["layouts"])
    assert json.loads(metadata["framepack.orders"]) == ["inverted", "forward"]
    assert exported.keys() == average.keys()
    assert all(torch.equal(exported[name], average[name].bfloat16()) for name in average)
    assert "clean_x_embedder.proj_k1h4w2.weight" in exported


def test_an_export_with_the_released_kernels_loads_in_diffusers(cache, tmp_path):
    path = train.train(settings(cache, tmp_path, steps=1, layouts=("framepack",)))

    loaded = HunyuanVideoFramepackTransformer3DModel.from_pretrained(path.parent)

    exported = load_file(path)
    assert loaded.state_dict().keys() == exported.keys()
    assert all(torch.equal(tensor, exported[name].float()) for name, tensor in loaded.state_dict().items())


def test_a_run_starts_from_an_export(cache, straight, tmp_path):
    run = preparation.prepare(settings(cache, tmp_path, start=straight / "model"))

    exported = load_file(straight / "model" / state.WEIGHTS)
    assert all(torch.equal(tensor, exported[name].float()) for name, tensor in run.transformer.state_dict().items())


def test_no_average_exports_the_weights_themselves(cache, tmp_path):
    path = train.train(settings(cache, tmp_path, steps=1, ema=0.0))

    live = load_file(state.last_state(tmp_path) / "model.safetensors")
    assert all(torch.equal(tensor, live[name].bfloat16()) for name, tensor in load_file(path).items())


def test_muon_takes_the_matrices_of_the_blocks(cache, tmp_path):
    run = preparation.prepare(settings(cache, tmp_path, optimizer="muon"))
    adamw, muon = ({id(p) for group in each.param_groups for p in group["params"]} for each in run.optimizers)
    names = {name for name, parameter in run.transformer.named_parameters() if id(parameter) in muon}

    assert "transformer_blocks.0.attn.to_q.weight" in names
    assert "single_transformer_blocks.0.proj_mlp.weight" in names
    assert not any("norm" in name or "embedder" in name or name.endswith("bias") for name in names)
    assert len(adamw) + len(muon) == len(list(run.transformer.parameters()))


@pytest.mark.slow
def test_a_muon_run_in_bf16_resumes_to_the_same_bits(cache, tmp_path):
    changes = {"optimizer": "muon", "precision": "bf16", "steps": 3, "save_every": 1, "motion_weight": 1.0}
    first = settings(cache, tmp_path / "first", **changes)
    train.train(first)
    run = preparation.prepare(settings(cache, tmp_path / "second", **changes))
    (tmp_path / "second").mkdir()
    train.take_step(run, iter(train.drawn_ahead(run)))
    train.save(run)

    train.train(settings(cache, tmp_path / "second", **changes))

    expected, found = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_samples_are_written_with_the_average_and_change_nothing(cache, straight, tmp_path):
    pixels = torch.rand(1, 3, 5, 16, 16) * 2 - 1
    chosen = settings(cache, tmp_path, sample_every=2, sample_steps=2, sample_sections=1, held_out=1)
    train.train(chosen, decode=lambda latents: pixels)

    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["00000002-inverted-framepack.mp4", "00000004-forward-f1.mp4", "00000006-forward-important-start.mp4"]
    expected, found = weights(straight), weights(tmp_path)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_without_a_decoder_samples_are_latents_that_start_with_the_clip(cache, tmp_path):
    train.train(settings(cache, tmp_path, steps=1, sample_every=1, sample_steps=2, sample_sections=2))

    latents = load_file(tmp_path / "samples" / "00000001-inverted-framepack.safetensors")["latents"]
    assert latents.shape == (16, 19, 4, 4)
    assert torch.equal(latents[:, 0], clips.clip(3, 29).latents[:, 0].bfloat16().float())


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_lora_trains_nothing_else_and_resumes(cache, straight, tmp_path, precision):
    changes = {"start": straight / "model", "lora_rank": 2, "steps": 2, "save_every": 1, "precision": precision}
    path = train.train(settings(cache, tmp_path, **changes))
    last = state.last_state(tmp_path)

    assert all(name.startswith("diffusion_model.") for name in load_file(path))
    assert not (last / "model.safetensors").exists()
    assert all(".lora_" in name for name in load_file(last / state.TRAINED))

    run = preparation.prepare(settings(cache, tmp_path, **changes))
    train.resume(run)
    assert run.step == 2
    assert all(torch.equal(tensor, run.trained[name]) for name, tensor in load_file(last / state.TRAINED).items())


def test_other_settings_do_not_resume(cache, straight):
    with pytest.raises(ValueError, match=r"state-00000006 was trained with lr 0\.001, now it is 0\.002"):
        train.train(settings(cache, straight, lr=2e-3))


def test_a_full_disk_is_reported_and_leaves_the_last_good_state(cache, tmp_path, monkeypatch):
    written = []

    def full(tensors, path, *args) -> None:
        written.append(path)
        if len([each for each in written if Path(each).name == state.EMA]) == 2:
            raise OSError(28, "No space left on device")
        save_file(tensors, path, *args)

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(OSError, match=r"state of step 4 was not written .*No space left.*continues from .*state-00000002"):
        train.train(settings(cache, tmp_path))

    assert [path.name for path in tmp_path.glob("*state*")] == ["state-00000002"]
    monkeypatch.undo()
    train.train(settings(cache, tmp_path))
    assert state.read_progress(state.last_state(tmp_path))[0] == 6


def test_a_loss_that_is_not_finite_stops_before_it_spoils_the_weights(cache, tmp_path, monkeypatch):
    flow_loss, calls = train.flow_loss, []

    def broken(*args):
        calls.append(args)
        return flow_loss(*args) * (torch.nan if len(calls) > 6 else 1)

    monkeypatch.setattr(train, "flow_loss", broken)
    with pytest.raises(ValueError, match=r"loss of step 4 is nan.*last good state is .*state-00000002"):
        train.train(settings(cache, tmp_path))


def test_a_batch_must_divide_among_the_processes(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation.Accelerator, "num_processes", 3)
    with pytest.raises(ValueError, match="--batch is 2, which is not a multiple of the 3 processes"):
        preparation.prepare(settings(cache, tmp_path))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda w: {"decoder.conv_in.weight": torch.zeros(1)}, "not a FramePack transformer .it starts with decoder"),
        (lambda w: {"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)}, "has ComfyUI's weight names"),
        (lambda w: {k: v for k, v in w.items() if "clean_x" not in k}, "without FramePack's context embedders"),
        (
            lambda w: {k: v for k, v in w.items() if not k.startswith("transformer_blocks.0.ff.net.2")},
            "lacks 2 weights .transformer_blocks.0.ff.net.2",
        ),
        (lambda w: w | {"extra.weight": torch.zeros(1)}, "1 with unknown names .extra.weight"),
        (lambda w: w | {"proj_out.weight": torch.zeros(64, 3)}, "does not fit its config"),
    ],
)
def test_a_wrong_checkpoint_is_named(straight, tmp_path, spoil, message):
    path = tmp_path / "wrong.safetensors"
    save_file(spoil(load_file(straight / "model" / state.WEIGHTS)), path)

    with pytest.raises(ValueError, match=rf"wrong\.safetensors.*{message}"):
        state.load_transformer(path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"12345678cut")

    with pytest.raises(ValueError, match=r"cut\.safetensors cannot be read"):
        state.load_transformer(tmp_path / "cut.safetensors")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "--batch is 0"),
        ({"ema": 1.0}, "--ema is 1"),
        ({"caption_dropout": 1.5}, "--caption-dropout is 1.5"),
        ({"min_sections": 4}, "--max-sections is 3"),
        ({"lora_rank": 4}, "--lora-rank needs a model"),
        ({"base_kernels": ("k2",)}, "--base-kernels has k2"),
    ],
)
def test_bad_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, tmp_path, **changes)


def test_a_base_kernel_gets_no_convolution(cache, tmp_path):
    run = preparation.prepare(settings(cache, tmp_path, base_kernels=("k1h4w4",)))

    assert Kernel(1, 4, 2) in run.transformer.convolutions
    assert Kernel(1, 4, 4) not in run.transformer.convolutions


def test_a_base_kernel_that_no_layout_has_is_refused(cache, tmp_path):
    with pytest.raises(ValueError, match="--base-kernels has k1h9w9, but the layouts' kernels are k1, k1h4w2"):
        preparation.prepare(settings(cache, tmp_path, base_kernels=("k1h9w9",)))


def test_the_command_line_reports_in_one_line(tmp_path, capsys):
    assert main(["train", str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 1

    assert capsys.readouterr().err.startswith(f"framepack: {tmp_path / 'nowhere'} holds no clips")


def test_the_command_line_is_the_settings(cache, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(train, "train", seen.append)

    assert main(arguments(cache, tmp_path, layouts=("f1:2", "symmetric"), lr=0.5)) == 0
    assert seen == [settings(cache, tmp_path, layouts=("f1:2", "symmetric"), lr=0.5)]


def test_a_caption_dropped_without_an_empty_embedding_names_the_file(cache, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(cache, copied)
    (copied / "empty.safetensors").unlink()

    with pytest.raises(FileNotFoundError, match=r"empty\.safetensors is missing"):
        preparation.prepare(settings(copied, tmp_path))


def test_a_folder_that_is_no_vae_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} is not an AutoencoderKLHunyuanVideo"):
        samples.hunyuan_decoder(tmp_path)


def test_samples_are_decoded_by_hunyuan_videos_vae(tmp_path):
    small = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "layers_per_block": 1}
    AutoencoderKLHunyuanVideo(**small).save_pretrained(tmp_path / "vae")

    path = samples.write_sample(tmp_path / "clip", torch.randn(1, 16, 3, 4, 4), samples.hunyuan_decoder(tmp_path / "vae"))

    with av.open(str(path)) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 32, 3)] * 9


def test_the_log_keeps_whole_lines_up_to_the_state(tmp_path):
    path = tmp_path / "losses.csv"
    log = train.Losses(path, 0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 0.5, "lr": 0.1, "gradient": 1.0, "seconds": 2.0, "draws": "forward/f1"})
    with path.open("a") as file:
        file.write("1,0.")

    train.Losses(path, 2)

    with path.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"]


@pytest.mark.slow
def test_a_compiled_run_learns_the_same(cache, straight, tmp_path):
    train.train(settings(cache, tmp_path, compile=True))

    assert losses(tmp_path) == pytest.approx(losses(straight), rel=1e-3)

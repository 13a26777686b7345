"""What decides a result has the same name in every process, and another one if, and only if, something changes a frame."""

import copy
import os
from contextlib import suppress
from pathlib import Path

import folder_paths
import pytest
import torch
from comfy_execution.graph import DynamicPrompt
from comfy_extras.nodes_custom_sampler import BasicGuider
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from support import given as inputs_given

from framepack_core.comfyui import private, version
from framepack_core.comfyui.loading import loras
from framepack_core.comfyui.loading.checkpoints import load_path
from framepack_core.comfyui.sampling import identity
from framepack_core.comfyui.sampling.request import Request, make_guider
from framepack_core.comfyui.sampling.samplers import sampler_named
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline

INPUTS = inputs_given.inputs()
PROMPT = {
    "1": {"class_type": "FramePack_LoadModel", "inputs": {"model_name": "model.safetensors", "weight_dtype": "default"}},
    "2": {"class_type": "LoraLoaderModelOnly", "inputs": {"model": ["1", 0], "lora_name": "lora.safetensors", "strength": 0.5}},
    "3": {"class_type": "LoadClip", "inputs": {}},
    "4": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["3", 0], "text": "she dances"}},
    "5": {"class_type": "LoadImage", "inputs": {"image": "start.png"}, "is_changed": [float("nan")]},
    "6": {"class_type": "FramePack_Plan", "inputs": {"seconds": 5.0}},
    "7": {
        "class_type": "FramePack_Sampler",
        "inputs": {
            "model": ["2", 0],
            "positive": ["4", 0],
            "plan": ["6", 0],
            "start_latent": ["5", 0],
            "seed": 1,
            "resume": True,
        },
        "_meta": {"title": "Sampler"},
    },
}


@pytest.fixture
def folders(tmp_path, monkeypatch) -> Path:
    """ComfyUI's folders of models and inputs, with the files that the prompt names."""
    for kind in ("diffusion_models", "loras"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], {".safetensors"}))
        (tmp_path / kind).mkdir()
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    (tmp_path / "input").mkdir()
    for name in ("diffusion_models/model.safetensors", "loras/lora.safetensors", "input/start.png"):
        (tmp_path / name).write_text(name)
    return tmp_path


def origin(prompt: dict, node: str = "7") -> str:
    return identity.origin(DynamicPrompt(prompt), node)


def changed(node: str, **entries) -> dict:
    """The prompt with a node's inputs changed."""
    prompt = copy.deepcopy(PROMPT)
    prompt[node]["inputs"] |= entries
    return prompt


# Where models and texts come from


def test_a_renumbered_and_renamed_prompt_has_the_same_origin(folders):
    ids = {old: str(100 - int(old)) for old in PROMPT}
    renumbered = {}
    for old, node in reversed(PROMPT.items()):
        links = {
            name: [ids[value[0]], value[1]] if isinstance(value, list) else value for name, value in node["inputs"].items()
        }
        renumbered[ids[old]] = {**node, "inputs": dict(reversed(links.items())), "_meta": {"title": "Another"}}

    assert origin(renumbered, ids["7"]) == origin(PROMPT)


@pytest.mark.parametrize(
    "other",
    [
        changed("6", seconds=10.0),
        changed("5", image="other.png"),
        changed("7", resume=False, on_cancel="return finished part", preview_vae=["1", 0], seed=2),
        PROMPT | {"8": {"class_type": "SaveLatent", "inputs": {"samples": ["7", 0]}}},
    ],
    ids=["the plan", "the start image", "the sampler's own", "what comes after"],
)
def test_what_counts_by_its_content_or_not_at_all_is_no_part_of_the_origin(folders, other):
    assert origin(other) == origin(PROMPT)


@pytest.mark.parametrize(
    "other",
    [
        changed("2", strength=0.6),
        changed("2", lora_name="none.safetensors"),
        changed("2", model=["1", 1]),
        changed("4", text="she sits down"),
        changed("7", model=["1", 0]),
        changed("7", negative=["4", 0]),
        PROMPT | {"3": {"class_type": "AnotherLoader", "inputs": {}}},
        PROMPT | {"3": {**PROMPT["3"], "is_changed": ["a hash"]}},
    ],
    ids=["strength", "name", "slot", "text", "node left out", "negative", "class", "what the node says of itself"],
)
def test_what_leads_to_models_and_texts_is_part_of_the_origin(folders, other):
    assert origin(other) != origin(PROMPT)


GUIDED = PROMPT | {
    "8": {"class_type": "BasicGuider", "inputs": {"model": ["2", 0], "conditioning": ["4", 0]}},
    "7": {"class_type": "FramePack_SamplerCustom", "inputs": {"guider": ["8", 0], "plan": ["6", 0]}},
}


@pytest.mark.parametrize("prompt", [PROMPT, GUIDED], ids=["positive", "guider"])
def test_prompts_that_count_by_their_content_are_no_part_of_the_origin(folders, prompt, monkeypatch):
    monkeypatch.setitem(private.NODE_CLASS_MAPPINGS, "BasicGuider", BasicGuider)

    def by_content(**nodes: dict) -> str:
        return identity.origin(DynamicPrompt(prompt | nodes), "7", conditioning=False)

    text = {**PROMPT["4"], "inputs": {"clip": ["3", 0], "text": "she sits down"}}
    other_model = changed("2", strength=0.6)["2"]
    patched = changed("2", about=["4", 0])["2"]

    assert by_content() == by_content(**{"4": text}) != identity.origin(DynamicPrompt(prompt), "7")
    assert by_content() != by_content(**{"2": other_model})
    assert by_content(**{"2": patched}) != by_content(**{"2": patched, "4": text}), "a model may be patched with a prompt"


@pytest.mark.parametrize("file", ["diffusion_models/model.safetensors", "loras/lora.safetensors"])
@pytest.mark.parametrize("change", ["time", "size", "gone"])
def test_a_file_that_changed_under_its_name_changes_the_origin(folders, file, change):
    before, path = origin(PROMPT), folders / file
    stat = path.stat()
    if change == "gone":
        path.unlink()
    else:
        path.write_text(path.read_text() if change == "time" else "another size")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + (change == "time")))

    assert origin(PROMPT) != before


@pytest.mark.parametrize("change", ["strength", "file", "no LoRA"])
def test_our_own_lora_loader_is_part_of_the_origin(folders, change):
    own = {"class_type": "FramePack_LoadLora", "inputs": {"model": ["1", 0], "lora_name": "lora.safetensors", "strength": 0.5}}
    before = origin(PROMPT | {"2": own})

    if change == "file":
        (folders / "loras" / "lora.safetensors").write_text("other weights")
    stronger = {**own, "inputs": {**own["inputs"], "strength": 0.6}}

    after = origin(PROMPT | {"2": {"strength": stronger, "file": own, "no LoRA": PROMPT["1"]}[change]})

    assert after != before != origin(PROMPT)


def test_a_folder_of_shards_counts_by_its_files(folders):
    prompt = changed("1", model_name="sharded/")
    shard = folders / "diffusion_models" / "sharded" / "1-of-2.safetensors"
    shard.parent.mkdir()
    shard.write_text("one")
    before = origin(prompt)

    shard.write_text("other weights")

    assert origin(prompt) != before


def test_files_in_a_list_of_loras_count(folders):
    stack = changed("2", stack=[{"on": True, "lora": "lora.safetensors", "strength": 1.0}])
    before = origin(stack)

    (folders / "loras" / "lora.safetensors").write_text("other weights")

    assert identity.named_files([{"lora": "lora.safetensors"}]) and origin(stack) != before


@pytest.mark.parametrize(
    "value", ["", "/", "..", "../..", "a prompt\nof two lines", "x" * 5000, "nul\0", "a star", 7, None, True]
)
def test_other_values_name_no_file(folders, value):
    assert identity.named_files(value) == []


NAMES = st.sampled_from(
    ["", "/", "../", "../../", "~", "~nobody/", "C:\\", "\\\\?\\", "\\\\server\\share\\", "//", "NUL", "COM1:", "loop/"]
)
TEXTS = st.text(st.characters(), max_size=40) | st.text(st.sampled_from("a/.\\:\0\udc80é"), min_size=250, max_size=990)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(NAMES, TEXTS | st.integers(250, 990).map("x".__mul__))
def test_whatever_a_text_says_asking_for_its_file_does_no_harm(folders, start, text):
    """File systems refuse names over 255 bytes, null bytes and what is no Unicode, each in its own way."""
    with suppress(OSError):
        (folders / "input" / "loop").symlink_to("loop")

    assert identity.named_files(start + text) == []
    assert identity.named_files({"text": [start + text]}) == []


@pytest.mark.parametrize("error", [OSError(63, "name too long"), ValueError("null byte"), RuntimeError("loop of links")])
@pytest.mark.parametrize("question", ["is_file", "is_dir", "iterdir", "stat"])
def test_a_file_system_that_raises_has_no_file(folders, monkeypatch, question, error):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(Path, question, refuse)

    assert identity.named_files("../elsewhere") == []
    assert question == "iterdir" or identity.named_files("lora.safetensors") == []


# What a run is given


@pytest.fixture(scope="module")
def model(tmp_path_factory, checkpoint):
    return load_path(str(checkpoint), {})


def name_of(model, **changes) -> str:
    """The name of a run with some of its inputs changed."""
    values = {
        "origin": "a",
        "text": INPUTS.positive[0],
        "pooled": INPUTS.positive[1],
        "cfg": 1.0,
        "guidance": 10.0,
        "sampler": "unipc_bh1",
        "start": INPUTS.start,
        "end": None,
        "image": INPUTS.image,
        "seed": 1,
        "seconds": 5,
    } | changes
    conditioning = [[values["text"], {"pooled_output": values["pooled"]}]]
    request = request_of(
        make_guider(model, conditioning, conditioning, values["cfg"], values["guidance"]),
        Timeline.of(1 + 9 * values["seconds"], {0: values["start"]}, end=values["end"]),
        sampler=values["sampler"],
        seed=values["seed"],
        origin=values["origin"],
        clip_vision_output=None if values["image"] is None else {"last_hidden_state": values["image"]},
    )
    return identity.identity(request).name


def request_of(guider, timeline: Timeline, sampler: str = "euler", seed: int = 1, **options) -> Request:
    return Request(guider, sampler_named(sampler), Plan.of(1.2), timeline, (), [], seed, **options)


def test_the_same_inputs_made_anew_are_one_run(model):
    copies = {"text": INPUTS.positive[0].clone(), "start": INPUTS.start.clone(), "image": INPUTS.image.clone()}

    assert name_of(model, **copies) == name_of(model)


def test_the_length_of_the_video_does_not_enter(model):
    assert name_of(model, seconds=10) == name_of(model)


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "b"},
        {"text": INPUTS.positive[0] + 1e-6},
        {"text": INPUTS.positive[0][:, :8]},
        {"pooled": INPUTS.positive[1] * 2},
        {"cfg": 2.0},
        {"guidance": 9.0},
        {"sampler": "unipc_bh2"},
        {"sampler": "euler"},
        {"start": INPUTS.start + 1e-6},
        {"end": INPUTS.end},
        {"image": None},
        {"image": INPUTS.image * 2},
        {"seed": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_input_enters(model, change):
    assert name_of(model, **change) != name_of(model)


def test_a_lora_and_its_strength_enter(model, folders):
    weights = {"transformer_blocks.0.attn.to_q.lora_A.weight": torch.ones(2, 256),
               "transformer_blocks.0.attn.to_q.lora_B.weight": torch.ones(256, 2)}  # fmt: skip
    save_file(weights, folders / "loras" / "lora.safetensors")

    found = {name_of(loras.load(model, "lora.safetensors", strength)[0]) for strength in (0.0, 0.5, 1.0)}

    assert len(found) == 3 and name_of(model) in found


def test_the_strength_of_a_patch_enters(model):
    def patched(strength: float) -> str:
        patcher = model.clone()
        key = next(key for key in patcher.model_state_dict() if key.endswith("img_in.proj.bias"))
        patcher.add_patches({key: (torch.ones(1),)}, strength)
        return name_of(patcher)

    assert len({patched(0.5), patched(1.0), name_of(model)}) == 3
    assert patched(0.5) == patched(0.5)


def test_a_guider_that_has_sampled_is_the_same_guider(model):
    """Even though it keeps what it worked on."""
    guider = make_guider(model, [[INPUTS.positive[0], {"pooled_output": INPUTS.positive[1]}]], None, 1.0, 10.0)
    timeline = Timeline.of(10, {0: INPUTS.start})
    before = identity.identity(request_of(guider, timeline))
    guider.conds = {"positive": [{"model_conds": INPUTS.image}]}

    assert identity.identity(request_of(guider, timeline)) == before


@pytest.mark.parametrize("name", ["versions", "machine"])
def test_versions_and_the_machine_enter(model, monkeypatch, name):
    before = name_of(model)
    monkeypatch.setattr(identity, name, lambda *device: {"device": "another"})

    assert name_of(model) != before


def test_the_machine_is_named_by_all_that_the_last_bit_hangs_on():
    machine = identity.machine(torch.device("cpu"))

    assert machine["device"] == "cpu" and machine["cpu"][-1] == torch.get_num_threads()
    assert machine["attention"].startswith("attention_")


def test_the_pack_s_version_is_that_of_its_project():
    assert f'version = "{version.pack_version()}"' in version.PYPROJECT.read_text(encoding="utf-8")


def test_upcasting_attention_makes_another_run_and_its_absence_the_one_of_earlier_versions(monkeypatch):
    before = identity.machine(torch.device("cpu"))
    monkeypatch.setattr(identity.args, "force_upcast_attention", True)

    assert "upcast" not in before
    assert identity.machine(torch.device("cpu")) == {**before, "upcast": str({torch.float16: torch.float32})}

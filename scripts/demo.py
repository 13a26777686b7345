"""A video from a picture, with nothing but Python: `python3 scripts/demo.py [--image FILE] [--prompt TEXT] [--serve]`.

Sets up the environment if necessary (see environment.py), starts a real ComfyUI with this pack, runs the example workflow
"FramePack demo" on the small models that come with the pack, and leaves the video in output/framepack_demo.mp4.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.support.environment import ROOT, Environment, prepare_or_exit
from scripts.support.server import Json, RunFailed, Server, ServerError
from scripts.support.websocket import Message
from scripts.support.workflow import to_prompt, with_widgets

WORKFLOW = ROOT / "example_workflows" / "FramePack demo.json"
PICTURE = ROOT / "scripts" / "demo_image.png"
VIDEO = ROOT / "output" / "framepack_demo.mp4"
SERVED = "your_demo"  # the name of the template that --serve opens
FOLDER = "framepack_demo_"
COUNT_FRAMES = "import av, sys; print(sum(1 for _ in av.open(sys.argv[1]).decode(video=0)))"


def main() -> None:
    options = parse_arguments()
    environment = prepare_or_exit(tests=False)
    print("Starting ComfyUI ...", flush=True)
    with Server(environment, Path(tempfile.mkdtemp(prefix=FOLDER)), temporary=True) as server:
        try:
            workflow = chosen_workflow(server, options)
            make_video(server, workflow)
        except RunFailed as failure:
            sys.exit(f"framepack: {failure.message or 'the run was interrupted'}")
        except ServerError as error:
            sys.exit(f"framepack: {error}")
        print(f"{VIDEO}: {count_frames(environment, VIDEO)} frames")
        if options.serve:
            serve(server, with_another_seed(workflow, server))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=picture, default=PICTURE, help="the start image (default: %(default)s)")
    parser.add_argument("--prompt", help="what its shape does, e.g. a red star moves left (default: the workflow's prompt)")
    parser.add_argument("--seconds", type=float, help="length of the video (default: 4.8, which is four sections)")
    parser.add_argument("--seed", type=int, help="seed, for another video of the same scene")
    parser.add_argument("--serve", action="store_true", help="keep ComfyUI running, with the workflow open")
    return parser.parse_args()


def picture(name: str) -> Path:
    if not Path(name).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {name}")
    return Path(name)


def chosen_workflow(server: Server, options: argparse.Namespace) -> Json:
    """The demo workflow with the start image, the prompt and the other options."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    workflow = with_start_image(workflow, server.upload_image(options.image))
    changes = {"text": options.prompt, "seconds": options.seconds, "seed": options.seed}
    changes = {name: value for name, value in changes.items() if value is not None}
    return with_widgets(workflow, server.object_info(), changes)


def with_start_image(workflow: Json, image: str) -> Json:
    """A copy with Load Image in the place of FramePack Demo Image."""
    workflow = copy.deepcopy(workflow)
    (node,) = (node for node in workflow["nodes"] if node["type"] == "FramePack_DemoImage")
    links = node["outputs"][0]["links"]
    outputs = [{"name": "IMAGE", "type": "IMAGE", "links": links}, {"name": "MASK", "type": "MASK", "links": None}]
    node |= {"type": "LoadImage", "inputs": [], "outputs": outputs, "widgets_values": [image, "image"]}
    node["properties"] = {"cnr_id": "comfy-core", "Node name for S&R": "LoadImage"}
    return workflow


def make_video(server: Server, workflow: Json) -> None:
    entry = server.run(to_prompt(workflow, server.object_info()), timeout=3600, on_message=Progress())
    video = next(file for file in server.output_files(entry) if file.suffix == ".mp4")
    VIDEO.parent.mkdir(exist_ok=True)
    shutil.copyfile(video, VIDEO)


def with_another_seed(workflow: Json, server: Server) -> Json:
    """A copy that makes another video of the same scene: ComfyUI would not make the same one again."""
    return with_widgets(workflow, server.object_info(), {"seed": random.randrange(2**32)})


class Progress:
    """Prints the step counts that the server sends, on one line."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, message: Message) -> None:
        data = message["data"]
        if message["type"] == "progress":
            end = "\n" if data["value"] == data["max"] else ""
            seconds = time.monotonic() - self._start
            print(f"\r  step {data['value']} of {data['max']}, {seconds:.0f} s", end=end, flush=True)


def count_frames(environment: Environment, video: Path) -> int:
    command = [environment.python, "-c", COUNT_FRAMES, video]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def serve(server: Server, workflow: Json) -> None:
    print(f"ComfyUI is running with the workflow at {server.offer(SERVED, workflow)}", flush=True)
    print("Press Run there for another video of the same scene, and Ctrl+C here to stop ComfyUI.", flush=True)
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
    print()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nframepack: stopped")

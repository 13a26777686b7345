"""A video from a picture, with nothing but Python: `python3 scripts/demo.py [--seconds S] [--serve]`.

Makes the environment if need be (see environment.py), starts a real ComfyUI with this pack, queues an example
workflow at a small size and leaves the video in output/framepack_demo.mp4. The models are small and random.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from scripts.environment import ROOT, Environment, prepare_or_exit
from scripts.server import Prompt, Server, ServerError
from scripts.stand_ins.models import stand_in_models
from scripts.stand_ins.prompt import with_stand_ins
from scripts.websocket import Message
from scripts.workflow import to_prompt

WORKFLOW = ROOT / "example_workflows" / "FramePack image to video.json"
PICTURE = ROOT / "scripts" / "stand_ins" / "start_image.png"
VIDEO = ROOT / "output" / "framepack_demo.mp4"
SMALL = {"base_resolution": 128}
COUNT_FRAMES = "import av, sys; print(sum(1 for _ in av.open(sys.argv[1]).decode(video=0)))"


def main() -> None:
    options = parse_arguments()
    environment = prepare_or_exit()
    models = stand_in_models(environment)
    print("Starting ComfyUI ...", flush=True)
    with tempfile.TemporaryDirectory() as base, Server(environment, Path(base), models) as server:
        try:
            make_video(server, options)
        except ServerError as error:
            sys.exit(f"framepack: {error}")
        print(f"{VIDEO}: {count_frames(environment, VIDEO)} frames")
        print("The models of this demo are small and random: the picture means nothing, the machinery is real.")
        if options.serve:
            serve(server)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workflow", type=Path, default=WORKFLOW, help="a saved workflow (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="length of the video (default: the workflow's)")
    parser.add_argument("--serve", action="store_true", help="keep ComfyUI running to look around in it")
    return parser.parse_args()


def make_video(server: Server, options: argparse.Namespace) -> None:
    workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
    prompt = with_stand_ins(to_prompt(workflow, server.object_info()))
    changes = {**SMALL, "image": server.upload_image(PICTURE)}
    if options.seconds:
        changes["seconds"] = options.seconds
    entry = server.run(with_values(prompt, changes), timeout=3600, on_message=Progress())
    video = next(file for file in server.output_files(entry) if file.suffix == ".mp4")
    VIDEO.parent.mkdir(exist_ok=True)
    shutil.copyfile(video, VIDEO)


def with_values(prompt: Prompt, changes: dict[str, Any]) -> Prompt:
    """The prompt with every widget of these names changed; links stay."""
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if name in changes and not isinstance(value, list):
                node["inputs"][name] = changes[name]
    return prompt


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


def serve(server: Server) -> None:
    print(f"ComfyUI runs at {server.url}: drop {VIDEO.name} onto the page to open its workflow. Ctrl+C ends it.", flush=True)
    try:
        while True:
            time.sleep(1)
    except KeyboardInterrupt:
        print()


if __name__ == "__main__":
    main()

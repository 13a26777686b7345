// How much of finished sections is kept on disk. framepack_core/comfyui/checkpoints.py reads these from the user's settings.

import { app } from "../../scripts/app.js"

app.registerExtension({
  name: "FramePack.Settings",
  settings: [
    {
      id: "FramePack.CheckpointDays",
      category: ["FramePack", "Finished sections", "days"],
      name: "Keep them for (days since their last use)",
      type: "number",
      defaultValue: 30,
      attrs: { min: 0, minFractionDigits: 0 },
    },
    {
      id: "FramePack.CheckpointGB",
      category: ["FramePack", "Finished sections", "gigabytes"],
      name: "Keep at most (GB)",
      tooltip: "A stopped run goes on from its finished sections. A minute of video at 640x608 takes 0.2 GB. 0 keeps none.",
      type: "number",
      defaultValue: 10,
      attrs: { min: 0, minFractionDigits: 0 },
    },
  ],
})

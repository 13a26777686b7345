// How long finished sections stay on disk, and how much space they may take: read by framepack_core/comfyui/sampling/kept.py.

import { app } from "../../scripts/app.js"

app.registerExtension({
  name: "FramePack.Settings",
  settings: [
    {
      id: "FramePack.CheckpointDays",
      category: ["FramePack", "Finished sections", "days"],
      name: "Keep for (days since last use)",
      type: "number",
      defaultValue: 30,
      attrs: { min: 0, minFractionDigits: 0 },
    },
    {
      id: "FramePack.CheckpointGB",
      category: ["FramePack", "Finished sections", "gigabytes"],
      name: "Keep at most (GB)",
      tooltip: "A stopped run continues from its finished sections. A minute of video at 640x608 takes 0.2 GB. 0 keeps none.",
      type: "number",
      defaultValue: 10,
      attrs: { min: 0, minFractionDigits: 0 },
    },
  ],
})

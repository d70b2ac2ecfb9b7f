"""Runs `sauva eval --json` and refuses figures measured on a model's own calibration text."""

import json
import subprocess


def evaluate(command):
    """The measurement, where nothing of the text is known to have been calibrated on."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, check=True)
    measured = json.loads(done.stdout)
    seen = measured.get("calibration_windows_in_text", 0)
    if seen > 0:
        raise SystemExit(
            f"refused: {seen} of the {measured['calibration_windows']} windows kept of the "
            f"calibration text are in the text measured on; command: {' '.join(words)}"
        )
    return measured

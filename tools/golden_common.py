"""What every fixture says about its own making, and one-case-per-line JSON."""

import hashlib
import json
import platform
from importlib import metadata
from pathlib import Path


def sha256(path: Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def provenance(part: str, packages: list[str], files: dict[str, Path]) -> dict:
    """files: the name to print -> the file whose hash pins the input of this fixture."""
    return {
        "command": f"tools/make_goldens.py --part {part}",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "sha256": {name: sha256(path) for name, path in files.items()},
    }


def write_cases(path: Path, header: dict, lists: dict[str, list]) -> None:
    """Writes {header..., name: [one case per line]}; ASCII only, so that no editor changes it."""
    parts = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in header.items()]
    for name, cases in lists.items():
        lines = ",\n".join("  " + json.dumps(case) for case in cases)
        parts.append(f" {json.dumps(name)}: [\n{lines}\n ]")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")
    print(
        f"{path}: {path.stat().st_size} bytes, "
        + ", ".join(f"{len(c)} {n}" for n, c in lists.items())
    )

#!/usr/bin/env python3
"""Makes the fixtures under tests/golden with other people's implementations.

    tools/make_goldens.py [--part prose|tiny|tokenizers|chat|all] [--data DIR]

DIR/tokenizers/{gpt2,qwen2.5,llama2} hold published tokenizer files; without --data those three
fixtures are left as they are. Versions: tools/requirements.txt.
"""

import argparse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--part", choices=["prose", "tiny", "tokenizers", "chat", "all"], default="all")
    p.add_argument("--model", type=Path, default=ROOT / "models" / "prose")
    p.add_argument("--data", type=Path)
    p.add_argument("--out", type=Path, default=ROOT / "tests" / "golden")
    args = p.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.part in ("tiny", "all"):
        import golden_tiny

        golden_tiny.make(args.out)
    if args.part in ("tokenizers", "all"):
        import golden_tokenizers

        golden_tokenizers.make(args.model, args.data, args.out)
    if args.part in ("chat", "all"):
        import golden_chat

        golden_chat.make(args.out)
    if args.part in ("prose", "all"):
        import golden_prose

        golden_prose.make(args.model, args.out)


if __name__ == "__main__":
    main()

"""Greedy continuations and logits of models/prose by transformers in f32 (eager attention)."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from golden_common import provenance, write_cases

NEW_TOKENS = 64
# A prompt whose two best logits come nearer than this at any step is passed over: another order
# of summation could turn such a near tie, and the test would then fail without a bug.
LEAST_MARGIN = 1e-3
NUM_PROMPTS = 10

LONG = [
    "The road to the village had been broken up by the autumn rains, and the carriage went at"
    " a walk. On both sides lay wet fields, and beyond them a dark line of forest over which "
    "the clouds hung so low that they seemed to touch the tops of the trees. The old coachman"
    " said nothing, but from time to time he looked back at his master and shook his head. "
    "They had left the town early in the morning, before the shops were open, and had met "
    "nobody since but a soldier with a bandaged arm who asked them for bread. The prince had "
    "given him what he had in his pocket and had asked him where his regiment was. The "
    "soldier did not know. He said that the French were on the other side of the river, that "
    "the bridge was burned, and that the general had gone away in the night with all his "
    'staff. "And who commands you now?" the prince had asked. "Who commands us? God knows," '
    "the man answered, and he took off his cap, crossed himself, and went on along the ditch "
    "in the direction from which they had come. All this time the young countess sat in the "
    "corner of the carriage with her eyes closed. She was not asleep. She was thinking of the"
    " house they had left, of the empty rooms, the covered furniture, and of the letter which"
    " lay unopened in her hand. At last, when the first roofs of the village came in sight, "
    "she opened her eyes, looked at her father, and said",
]
SHORT = [
    "The",
    "It was a dreary night of November",
    "The old prince",
    '"What is it?" asked the princess,',
    "In the evening, when the guests had gone, the countess",
    "The Emperor Napoleon looked at the field of battle and",
    "My dear Elizabeth,",
    "I beheld the wretch",
    "On the third of September the army",
    '"Yes, yes," said Prince Andrew.',
    "The cause of this event was",
    "When the sun rose over the hills",
    "He took the letter from the table, read it twice, and",
    "The soldiers, who had not eaten since the morning,",
    "She had never loved anyone as she",
    "CHAPTER IV\n\n",
    "Kutuzov rode slowly along the line of the guards and said to the officer",
    "There was silence in the room.",
    "Pierre",
    "Natasha",
]
LOGITS_PROMPT = (
    "The officer rode up to the general and told him that the French had already crossed "
    "the river and were near the village."
)
LOGITS_TOKENS = 24  # with BOS


def greedy(model, ids: list[int]) -> dict:
    generated, margins, cache = [], [], None
    step = torch.tensor([ids])
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            output = model(step, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        best = output.logits[0, -1].topk(2)
        margins.append((best.values[0] - best.values[1]).item())
        generated.append(best.indices[0].item())
        step = best.indices[:1].view(1, 1)
    # The same tokens must be the best ones without a cache too.
    with torch.no_grad():
        whole = model(torch.tensor([ids + generated]), use_cache=False).logits[0]
    assert whole[len(ids) - 1 : -1].argmax(-1).tolist() == generated
    return {"generated_ids": generated, "least_margin": round(min(margins), 6)}


def make(folder: Path, out: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    files = {
        f"models/prose/{n}": folder / n
        for n in ("model.safetensors", "tokenizer.json", "config.json")
    }
    header = provenance("prose", ["transformers", "torch", "tokenizers", "safetensors"], files)

    cases = []
    for prompt in LONG + SHORT:
        ids = tokenizer.encode(prompt).ids
        case = {"prompt": prompt, "prompt_ids": ids, **greedy(model, ids)}
        case["eos_at"] = case["generated_ids"].index(1) if 1 in case["generated_ids"] else None
        case["text"] = tokenizer.decode(case["generated_ids"], skip_special_tokens=False)
        if case["least_margin"] <= LEAST_MARGIN:
            print(f"passed over (margin {case['least_margin']}): {prompt[:40]!r}")
            continue
        cases.append(case)
        if len(cases) == NUM_PROMPTS:
            break
    assert len(cases) == NUM_PROMPTS, len(cases)
    assert max(len(c["prompt_ids"]) for c in cases) > 250, "the long prompt was passed over"
    distinct = len({i for c in cases for i in c["generated_ids"]})
    assert distinct >= 40, distinct
    rules = {
        "new_tokens": NEW_TOKENS,
        "least_margin_allowed": LEAST_MARGIN,
        "distinct_tokens": distinct,
        "compute": "f16 weights as f32, f32 arithmetic, eager attention; eos does not stop",
    }
    write_cases(out / "prose_greedy.json", header | rules, {"cases": cases})

    ids = torch.tensor(tokenizer.encode(LOGITS_PROMPT).ids[:LOGITS_TOKENS])
    assert len(ids) == LOGITS_TOKENS
    with torch.no_grad():
        output = model(ids[None], output_hidden_states=True)
    positions = torch.tensor([0, 7, 15, LOGITS_TOKENS - 1])
    target = out / "prose_logits.safetensors"
    save_file(
        {
            "input_ids": ids,
            "positions": positions,
            "logits": output.logits[0, positions].contiguous(),
            "last_position_hidden": torch.stack([h[0, -1] for h in output.hidden_states]),
        },
        str(target),
        metadata={key: json.dumps(value) for key, value in header.items()},
    )
    print(f"{target}: {target.stat().st_size} bytes; {distinct} distinct greedy tokens")

"""Token ids of awkward strings by the libraries that define them."""

import json
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from golden_common import provenance, write_cases

STRINGS = [
    "",
    " ",
    "a",
    "Hello",
    "Hello, world!",
    " Hello",
    "Hello ",
    "It was in July, 1805, and the speaker was the well-known Anna Pavlovna.",
    "The quick brown fox jumps over the lazy dog.",
    '"Well, Prince," said she, "so Genoa and Lucca are now just family estates."',
    "I'm sure they'll say we've won, don't you? He'd go; it's what she'd do.",
    "I'M SURE THEY'LL SAY WE'VE WON, DON'T YOU?",
    "'s 't 're 've 'm 'll 'd 'S 'T 'x",
    "can't\u2019t won\u2019t",
    "O'Brien's dogs' bones",
    "  two spaces before and after  ",
    "a  b   c    d     e",
    " " * 17,
    " " * 64 + "x",
    "\n",
    "\n\n",
    "\n\n\n\n",
    "one\ntwo\n\nthree\n\n\nfour",
    "one \n two \n\n three",
    "line\r\nline\r\n\r\nline\rline",
    "\ttab\t\ttabs \t mixed \t",
    "trailing newline\n",
    "\n leading newline",
    "    indented:\n        twice = 1\n    back",
    "1",
    "12 123 1234 12345 1234567890",
    "3.14159, 1,000,000 and 6.02e23",
    "2026-11-22T16:05:50Z",
    "\u00bd \u00b2 \u2167 \u0661\u0662\u0663 \u0967\u0968\u0969",
    "!!! ... --- ??? ;;; ***",
    "#include <stdio.h>\nint main(void) { return 0; }\n",
    "https://example.org/a/b?c=d&e=%20f#g",
    "user.name+tag@example.org",
    "snake_case camelCase kebab-case SCREAMING_CASE x1y2z3",
    "\u00e9 e\u0301 \u00e8 e\u0300 A\u030a \u00c5 \u212b",
    "na\u00efve fa\u00e7ade \u2014 \u201cquoted\u201d \u2018text\u2019\u2026",
    "Stra\u00dfe \u00d8resund \u0141\u00f3d\u017a \u010de\u0161tina",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! "
    "\u041a\u043d\u044f\u0437\u044c \u0410\u043d\u0434\u0440\u0435\u0439",
    "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u6771\u4eac\u306f\u65e5\u672c\u306e\u9996\u90fd\u3067\u3059\u3002",
    "\uc548\ub155\ud558\uc138\uc694 \u1112\u1161\u11ab",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645 "
    "\u05e9\u05dc\u05d5\u05dd",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\U0001f600\U0001f680 \U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 "
    "\U0001f1e7\U0001f1f7",
    "Sa\u00fava \U0001f41c\U0001f343!",
    "x\u200by \u00a0nbsp\u3000wide \u2003em \u2028ls \u2029ps \u0085nel",
    "\u0000\u0001\u001b[31mred\u001b[0m\u007f",
    "\ufeffbyte order mark",
    "\ufffd replacement \ufffd\ufffd \uffff",
    "\U0001d54f\U00020000\U0010ffff",
    "<|begin_of_text|>Once<|end_of_text|>",
    "<|begin_of_text|> <|begin_of_text |> <|begin_of_text <|end_of_text|>|>",
    "<s>[INST] text </s><unk><0x0A> <|endoftext|><|im_start|>user\nhi<|im_end|>\n",
    "\u2581spiece \u2581\u2581 mark",
    "a" * 100,
    "ha" * 40 + "!" * 33,
    "Zzyzx qwrtplk xkcd Mxyzptlk antidisestablishmentarianism",
    "The prince\u0301s e\u0301lan was \u00c9LAN, \u1e9e\u0130\u0131\u017f\u212a 's",
]

# Ids that cut characters apart, for decoders: the bytes of these strings, some dropped.
BROKEN_UTF8 = [
    b"\xe4\xbd",
    b"\xe4\xbd\xa0\xe5",
    b"\xf0\x9f\x98",
    b"\xf0\x9f\x98\x80\xf0\x9f",
    b"ab\xffcd",
    b"\x80\x80",
    b"\xc3(",
    b"\xed\xa0\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xe2\x82\xac\xe2\x82 \xe2",
]


def byte_alphabet() -> dict[int, str]:
    """byte -> the character that stands for it in a byte-level vocabulary (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


def byte_level_cases(tokenizer: Tokenizer, with_special: bool) -> dict:
    cases = []
    for text in STRINGS:
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        case = {"text": text, "ids": plain}
        if with_special:
            case["ids_with_special"] = tokenizer.encode(text).ids
        case["decoded"] = tokenizer.decode(plain, skip_special_tokens=False)
        skipped = tokenizer.decode(plain, skip_special_tokens=True)
        if skipped != case["decoded"]:
            case["decoded_skip_special"] = skipped
        cases.append(case)
    alphabet = byte_alphabet()
    broken = []
    for raw in BROKEN_UTF8:
        ids = [tokenizer.token_to_id(alphabet[b]) for b in raw]
        broken.append({"bytes_hex": raw.hex(), "ids": ids, "decoded": tokenizer.decode(ids)})
    return {"cases": cases, "broken_utf8": broken}


def prose(model: Path, out: Path) -> None:
    file = model / "tokenizer.json"
    header = provenance("tokenizers", ["tokenizers"], {"models/prose/tokenizer.json": file})
    lists = byte_level_cases(Tokenizer.from_file(str(file)), with_special=True)
    write_cases(out / "tokenizer_prose.json", header, lists)


def gpt2(tokenizers_dir: Path, out: Path) -> None:
    file = tokenizers_dir / "gpt2" / "tokenizer.json"
    value = json.loads(file.read_text())
    value["model"]["type"] = "BPE"  # this file does not say it
    header = provenance("tokenizers", ["tokenizers"], {"gpt2/tokenizer.json": file})
    header["note"] = 'model.type "BPE" was filled in before loading; no special tokens are added'
    lists = byte_level_cases(Tokenizer.from_str(json.dumps(value)), with_special=False)
    write_cases(out / "tokenizer_gpt2.json", header, lists)


QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen(tokenizers_dir: Path, out: Path) -> None:
    from transformers import AutoTokenizer

    folder = tokenizers_dir / "qwen2.5"
    tokenizer = Tokenizer(
        models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    for id_text, token in sorted(added.items(), key=lambda item: int(item[0])):
        entry = AddedToken(token["content"], normalized=False, special=token["special"])
        (tokenizer.add_special_tokens if token["special"] else tokenizer.add_tokens)([entry])
        assert tokenizer.token_to_id(token["content"]) == int(id_text)
    lists = byte_level_cases(tokenizer, with_special=False)
    with tempfile.TemporaryDirectory() as copy:  # what transformers itself makes of the folder
        for file in folder.iterdir():
            (Path(copy) / file.name).write_bytes(file.read_bytes())
        (Path(copy) / "config.json").write_text('{"model_type": "qwen2"}')
        peer = AutoTokenizer.from_pretrained(copy)
        for case in lists["cases"]:
            assert peer.encode(case["text"], add_special_tokens=False) == case["ids"], case
    files = {
        f"qwen2.5/{n}": folder / n for n in ("vocab.json", "merges.txt", "tokenizer_config.json")
    }
    header = provenance("tokenizers", ["tokenizers", "transformers"], files)
    header["note"] = (
        "NFC, Qwen2 pattern, added tokens of tokenizer_config.json; equals AutoTokenizer"
    )
    write_cases(out / "tokenizer_qwen2.json", header, lists)


def llama2(tokenizers_dir: Path, out: Path) -> None:
    import sentencepiece

    file = tokenizers_dir / "llama2" / "tokenizer.model"
    sp = sentencepiece.SentencePieceProcessor(model_file=str(file))
    cases = []
    for text in STRINGS:
        ids = sp.encode(text)
        cases.append(
            {
                "text": text,
                "ids": ids,
                "ids_with_bos": [sp.bos_id(), *ids],
                "decoded": sp.decode(ids),
            }
        )
    broken = []
    for raw in BROKEN_UTF8:
        ids = [sp.piece_to_id(f"<0x{b:02X}>") for b in raw]
        broken.append({"bytes_hex": raw.hex(), "ids": ids, "decoded": sp.decode(ids)})
    header = provenance("tokenizers", ["sentencepiece"], {"llama2/tokenizer.model": file})
    header["note"] = "text that looks like a control piece (<s>, </s>) is plain text here"
    write_cases(out / "tokenizer_llama2.json", header, {"cases": cases, "broken_utf8": broken})


def make(model: Path, data: Path | None, out: Path) -> None:
    prose(model, out)
    if data is None:
        print("no --data: the fixtures of gpt2, qwen2 and llama2 stay as they are")
        return
    for part in (gpt2, qwen, llama2):
        part(data / "tokenizers", out)

"""What all tests share: the user's cache and network decide nothing, and tools run as a user runs them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

# Before anything imports huggingface_hub or NumPy: tests load nothing from the network and one worker uses one core.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # the tests that need a GPU do without
    pass
else:  # a busy machine is no defect
    settings.register_profile("amk", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("amk")

Tool = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """AMK's compile cache in a folder that one test session shares."""
    folder = tmp_path_factory.getbasetemp() / "amk-cache"
    monkeypatch.setenv("AMK_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def tool() -> Tool:
    """Runs a tool of this Python's environment as a process: tool("amk-opt", "FILE", stdin="...")."""

    def run(name: str, *args: str | Path, stdin: str = "", env: dict[str, str] | None = None):
        program = Path(sys.executable).with_name(name)
        start = f"from amk.tools.{name.replace('-', '_')} import main; raise SystemExit(main())"
        # not installed, such as on a machine that was lent
        command = [program] if program.exists() else [sys.executable, "-c", start]
        return subprocess.run(
            [*map(str, (*command, *args))],
            input=stdin,
            capture_output=True,
            text=True,
            env={**os.environ, **(env or {})},
            timeout=300,
            check=False,
        )

    return run


@pytest.fixture
def tool_here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Tool:
    """What `tool` returns, of the tool's main function in this process: no second or two of start for each of many runs.

    Each command is also run as a program by some test: in here, all that it has to import may be there already.
    """
    from contextlib import suppress

    from amk.tools import amk, amk_opt

    with suppress(ImportError):
        import torch  # noqa: F401  (the command hides it from transformers where nobody has imported it)
    mains = {"amk": amk.main, "amk-opt": amk_opt.main}

    def run(name: str, *args: str | Path, stdin: str = "", env: dict[str, str] | None = None):
        capsys.readouterr()
        with monkeypatch.context() as context:
            context.setattr(sys, "stdin", TextIOWrapper(BytesIO(stdin.encode()), "utf-8"))
            for variable, value in (env or {}).items():
                context.setenv(variable, value)
            try:
                mains[name]([str(a) for a in args])
                status = 0
            except SystemExit as e:
                status = e.code if isinstance(e.code, int) else int(e.code is not None)
        return subprocess.CompletedProcess([name, *map(str, args)], status, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with random weights and a tokenizer whose tokens are bytes: text in, nonsense out."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    hidden, heads, kv_heads, head_dim, mlp, layers = 32, 4, 2, 8, 48, 2
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: index for index, letter in enumerate([*letters, "<end>", "<start>"])}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(vocab),
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": vocab["<start>"],
        "eos_token_id": vocab["<end>"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens": (len(vocab), hidden), "model.norm": (hidden,)}
    for layer in range(layers):
        shapes |= {
            f"model.layers.{layer}.{name}": shape
            for name, shape in {
                "input_layernorm": (hidden,),
                "post_attention_layernorm": (hidden,),
                "self_attn.q_proj": (heads * head_dim, hidden),
                "self_attn.k_proj": (kv_heads * head_dim, hidden),
                "self_attn.v_proj": (kv_heads * head_dim, hidden),
                "self_attn.o_proj": (hidden, heads * head_dim),
                "mlp.gate_proj": (mlp, hidden),
                "mlp.up_proj": (mlp, hidden),
                "mlp.down_proj": (hidden, mlp),
            }.items()
        }
    random = np.random.default_rng(0)
    weights = {
        f"{name}.weight": (random.standard_normal(shape) / 4 + (len(shape) == 1)).astype(np.float32)
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>", "<start>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<start>",
        "eos_token": "<end>",
        "chat_template": "{% for m in messages %}<start>{{ m.role }}: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<start>assistant: {% endif %}",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    return folder

"""``explain`` by the words of an error or of a server's log."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from glmpatch.catalogue import load_patches
from glmpatch.language import of
from glmpatch.symptoms import SILENT, search, unpatched
from tests.command.test_cli import SCHEMA, here
from tests.support.environment import glmpatch

PATCHES = load_patches()
ERRORS = [(p.id, s) for p in PATCHES for s in p.symptoms if not s.startswith(SILENT)]
ERRORS += [(u.id, s) for u in unpatched() for s in u.symptoms if not s.startswith(SILENT)]
DESCRIBED = [(p.id, s) for p in PATCHES for s in p.symptoms if s.startswith(SILENT)]
DESCRIBED += [(u.id, s) for u in unpatched() for s in u.symptoms if s.startswith(SILENT)]
CHINESE = of(["zh_CN"])
PAGE = Path(__file__).parents[2] / "README.zh.md"
ROW = re.compile(r"^\| (.+) \| .+ \| `glmpatch apply (\S+) --verify` \|$", re.MULTILINE)
PASTED = [
    (name, html.unescape(symptom))
    for symptoms, name in ROW.findall(PAGE.read_text("utf-8"))
    for symptom in symptoms.split("<br>")
]
"""What a reader of the Chinese page has before them, and the patch that its row names."""
LOG = """\
INFO 04-15 12:00:00 [api_server.py:1034] vLLM API server version 0.8.4
\x1b[1;36m(Worker pid=123)\x1b[0;0m ERROR 04-15 12:00:01 [core.py:387]   File "linear.py", line 191
\x1b[1;36m(Worker pid=123)\x1b[0;0m ERROR 04-15 12:00:01 [core.py:387] {error}
INFO: Shutting down
"""


@pytest.mark.parametrize(("name", "symptom"), ERRORS)
def test_every_error_leads_to_its_patch(name: str, symptom: str) -> None:
    error = symptom.replace("...", " of layer 17, 0x7f, ")
    untyped = re.sub(r"^\w+Error: ", "", error)
    quoted = error.replace("'", "`")
    for text in (error, error.upper(), LOG.format(error=error), quoted, untyped):
        first, *_ = search(text, PATCHES)
        assert first.sure
        assert first.about.id == name


@pytest.mark.parametrize(("name", "symptom"), DESCRIBED)
def test_what_one_sees_leads_to_its_patch(name: str, symptom: str) -> None:
    found = search(symptom.removeprefix(SILENT), PATCHES)
    assert name in [match.about.id for match in found]
    assert not any(match.sure for match in found)


@pytest.mark.parametrize(("name", "symptom"), DESCRIBED)
def test_what_one_sees_is_found_in_chinese(name: str, symptom: str) -> None:
    said = CHINESE.gettext(symptom)
    assert said != symptom
    for text in (said, said.partition("：")[2]):
        assert name in [match.about.id for match in search(text, PATCHES)]


def test_every_row_of_the_chinese_page_is_read() -> None:
    assert {name for name, _symptom in PASTED} == {patch.id for patch in PATCHES}


@pytest.mark.parametrize(("name", "symptom"), PASTED)
def test_what_the_chinese_page_shows_leads_to_its_patch(name: str, symptom: str) -> None:
    third = len(symptom) // 3
    parts = () if symptom.isascii() else (symptom[third:], symptom[:-third])
    for text in (symptom, symptom.strip("`"), *parts):
        assert name in [match.about.id for match in search(text, PATCHES)], text


@pytest.mark.parametrize(
    "text", ["流式工具调用的参数出现两次", "输出乱码", "回答全是" + 6 * "\uff01"]
)
def test_chinese_words_are_understood_whatever_the_locale(text: str) -> None:
    done = here("explain", text)
    assert done.returncode == 0, done.stderr
    assert "perhaps" in done.stdout
    assert "apply" not in done.stderr


@pytest.mark.parametrize("text", ["显存不足", "模型加载失败", "工具调用如何开启", "端口被占用"])
def test_chinese_words_of_something_else_lead_nowhere(text: str) -> None:
    assert search(text, PATCHES) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GLM-5 MTP acceptance rate low", "glm-5-mtp"),
        ("GLM-5 MTP 接受率低", "glm-5-mtp"),
        ("GLM-4.5 reasoning <think> in content", "glm4-moe-reasoning-parser"),
        ("!!!!!!", "glm4-float16-guard"),
        ("!!!!!!", "glm4-residual"),
        ("in-place writes of MTP, CUDA graphs", "mtp-in-place-writes"),
        ("chatglm.py garbage", "chatglm-glm4v"),
        ("glm4v.py answers garbage", "chatglm-glm4v"),
    ],
)
def test_words_of_ones_own_are_enough_for_a_perhaps(text: str, name: str) -> None:
    found = search(text, PATCHES)
    assert name in [match.about.id for match in found]
    assert not any(match.sure for match in found)


HEALTHY = """\
INFO 04-15 12:00:00 [__init__.py:239] Automatically detected platform cuda.
INFO 04-15 12:00:01 [api_server.py:1034] vLLM API server version 0.8.4
INFO 04-15 12:00:01 [api_server.py:1035] args: Namespace(model='Qwen/Qwen3-8B', dtype='auto', \
tool_call_parser=None, enable_reasoning=False, speculative_config=None, response_format=None)
INFO 04-15 12:00:09 [config.py:689] This model supports multiple tasks: generate, score, embed.
INFO 04-15 12:00:09 [config.py:1901] Casting float32 weights to half precision, every layer.
INFO 04-15 12:00:12 [core.py:61] Initializing a V1 LLM engine with config: model='Qwen/Qwen3-8B'
WARNING 04-15 12:00:13 [eagle.py:30] The draft layer is optional and does not load here
INFO 04-15 12:00:21 [loader.py:447] Loading weights took 6.03 seconds
INFO 04-15 12:00:44 [gpu_model_runner.py:1600] Graph capturing finished in 21 secs
INFO 04-15 12:00:45 [chat.py:114] Streamed answers use the default sampling params of the model
INFO: Application startup complete.
INFO: 127.0.0.1:4242 - "POST /v1/chat/completions HTTP/1.1" 200 OK
"""


def test_a_healthy_log_is_about_nothing() -> None:
    """Three words of a symptom stand somewhere in it, as in any log, but far apart."""
    assert search(HEALTHY, PATCHES) == []
    assert search(HEALTHY * 50, PATCHES) == []


def test_what_one_sees_is_found_in_a_log_too() -> None:
    seen = "client: every answer of the model is !!!!!!!!\nstarted with --dtype float16\n"
    (match,) = search(HEALTHY + seen + HEALTHY, PATCHES)
    assert (match.about.id, match.sure) == ("glm4-float16-guard", False)


FRAME = 'File "/x/vllm/model_executor/models/{file}.py", line 400, in load_weights\n'
SCALE = "KeyError: 'layers.3.self_attn.qkv_proj.k_scale'"
HEAD = (
    "Following weights were not initialized from checkpoint: "
    "{'model.layers.61.shared_head.head.weight'}"
)
SIZE = "exceeds the pre-allocated encoder cache size "


@pytest.mark.parametrize(
    ("text", "name", "sure"),
    [
        (FRAME.format(file="qwen3_moe") + SCALE, "glm4-moe", False),
        (f"{SCALE} in qwen3_moe.py", "glm4-moe", False),
        (FRAME.format(file="glm4_moe") + FRAME.format(file="utils") + SCALE, "glm4-moe", True),
        (
            FRAME.format(file="glm4_moe") + FRAME.format(file="deepseek_v2") + SCALE,
            "glm4-moe",
            True,
        ),
        (FRAME.format(file="utils") + SCALE, "glm4-moe", True),
        (FRAME.format(file="qwen3_moe") + "other lines\n" * 400 + SCALE, "glm4-moe", True),
        (f"--model /models/qwen_glm {SCALE}", "glm4-moe", True),
        (f"{HEAD} method='deepseek_mtp'", "glm4-moe-mtp", False),
        (FRAME.format(file="deepseek_mtp") + HEAD, "glm4-moe-mtp", False),
        (HEAD, "glm4-moe-mtp", True),
        (f"{SIZE}16384", "glm4-1v", False),
        (f"{SIZE}37210", "glm4-1v", False),
        (f"{SIZE}3721", "glm4-1v", True),
        (f"{SIZE}16384\n{SIZE}6084", "glm4-1v", True),
    ],
)
def test_an_error_is_sure_only_where_it_is_not_another_models(
    text: str, name: str, sure: bool
) -> None:
    first, *_ = search(text, PATCHES)
    assert (first.about.id, first.sure) == (name, sure)


@pytest.mark.parametrize(
    ("text", "sure"), [(f"{SIZE}16384", False), (f"{SIZE}3721", True), ("glm4-1v", True)]
)
def test_only_what_is_sure_is_advised(text: str, sure: bool) -> None:
    done = here("explain", text)
    assert ("perhaps" in done.stdout) is not sure
    assert ("apply glm4-1v --verify" in done.stderr) is (sure and text != "glm4-1v")
    assert ("status glm4-1v" in done.stderr) is not sure
    answer = json.loads(here("explain", text, "--json").stdout)
    jsonschema.Draft202012Validator(SCHEMA).validate(answer)
    assert [each["sure"] for each in answer["patches"]] == [sure]


def test_what_is_not_mended_is_sure_or_not_too() -> None:
    for text, sure in (
        ("No module named transformers.models.glm4", True),
        ("GLM-5 MTP low", False),
    ):
        answer = json.loads(here("explain", text, "--json").stdout)
        jsonschema.Draft202012Validator(SCHEMA).validate(answer)
        assert answer["patches"][0]["sure"] is sure


def test_words_of_something_else_lead_nowhere() -> None:
    assert search("CUDA out of memory. Tried to allocate 2.00 GiB", PATCHES) == []
    assert search("KeyError: 'qwen'", PATCHES) == []


def test_a_log_on_standard_input_is_explained() -> None:
    log = LOG.format(error=PATCHES[[p.id for p in PATCHES].index("glm4-residual")].symptoms[0])
    done = subprocess.run(
        [sys.executable, "-m", "glmpatch", "explain", "-"],
        input=log.encode() + b"\xff\n",
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"glm4-residual: " in done.stdout
    assert b"apply glm4-residual --verify" in done.stderr


def test_the_colours_of_grep_are_not_in_the_way() -> None:
    """It clears to the end of the line after each."""
    error = "argument 'input' (position 1) must be \x1b[01;31m\x1b[KTensor\x1b[m\x1b[K, not tuple"
    first, *_ = search(f"TypeError: linear(): {error}", PATCHES)
    assert first.sure
    assert first.about.id == "glm4-residual"


def test_a_closed_standard_input_is_an_empty_one() -> None:
    command = f"{sys.executable} -m glmpatch explain - <&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no patch is named ''")


def test_what_is_not_mended_says_what_helps() -> None:
    done = here("explain", "ImportError: cannot import name 'Glm4Config' from 'transformers'")
    assert done.returncode == 0
    assert "no patch of glmpatch mends this" in done.stdout
    assert "transformers==4.51.3" in done.stdout


def test_words_that_nobody_knows_are_wrong_usage(tmp_path: Path) -> None:
    for words in (["qwen", "does", "not", "load"], ["glm4-residua"]):
        done = here("explain", *words)
        assert done.returncode == 2
        assert "hint: " in done.stderr
    assert "did you mean glm4-residual?" in here("explain", "glm4-residua").stderr
    assert glmpatch("explain").returncode == 2


@pytest.mark.real
def test_it_says_whether_the_vllm_that_is_named_needs_it(released: Path) -> None:
    error = "linear(): argument 'input' (position 1) must be Tensor, not tuple"
    done = here("explain", error, "--python", str(released))
    assert "here      vLLM 0.8.4: needed" in done.stdout
    assert f"glmpatch apply glm4-residual --verify --python {released}" in done.stderr
    answer = json.loads(here("explain", error, "--json", "--python", str(released)).stdout)
    assert answer["patches"][0]["state"] == "needed"

"""``explain`` by the words of an error or of a server's log."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from glmpatch.catalogue import load_patches
from glmpatch.language import of
from glmpatch.symptoms import SILENT, named, search
from glmpatch.symptoms.errors import ANYBODYS
from glmpatch.symptoms.words import TELLING, _described, _words
from glmpatch.unpatched import unpatched
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
    if ANYBODYS.search(symptom):
        error = f"rotary_embedding.py {error}"
    untyped = re.sub(r"^\w+Error: (?!'\w+'$)", "", error)
    quoted = error.replace("'", "`")
    for text in (error, error.upper(), LOG.format(error=error), quoted, untyped):
        first, *_ = search(text, PATCHES)
        assert first.sure
        assert first.about.id == name


@pytest.mark.parametrize("name", ["glm4v", "glm46v", "glm4_moe", "glm4v_moe", "glm4_moe_lite"])
def test_a_name_is_no_other_that_it_begins_or_whose_number_differs(name: str) -> None:
    for error in (
        f"ModuleNotFoundError: No module named 'transformers.models.{name}'",
        f"KeyError: '{name}'",
        f"model type `{name}` but Transformers does not recognize this architecture",
    ):
        found = [match for match in search(error, PATCHES) if match.sure]
        assert "transformers-too-old" not in [match.about.id for match in found]
        assert all(f"{name}'" in m.symptom or f"{name}`" in m.symptom for m in found)


@pytest.mark.parametrize(
    "error",
    [
        "No module named 'transformers.models.falcon'",
        "KeyError: 'falcon'",
        "Model architectures ['FalconForCausalLM'] are not supported for now",
        "The checkpoint you are trying to load has model type `falcon` but Transformers does not "
        "recognize this architecture",
    ],
)
def test_another_model_that_is_not_known_is_nothing_of_ours(error: str) -> None:
    assert search(error, PATCHES) == []


def test_a_longer_name_of_a_weight_is_only_a_perhaps() -> None:
    """No patch skips block-wise scales."""
    error = "KeyError: 'model.layers.92.shared_head.head.weight_scale_inv'"
    assert [(m.about.id, m.sure) for m in search(error, PATCHES)] == [("glm4-moe-mtp", False)]
    first, *_ = search('File "/x/vllm_ascend/ops/rotary_embedding.py", line 1', PATCHES)
    assert (first.about.id, first.sure) == ("vllm-ascend-rope", True)


@pytest.mark.parametrize(
    ("error", "mended"),
    [
        ("shape '[1, 131072]' is invalid for input of size 4096", True),
        ("The size of tensor a (0) must match the size of tensor b (64) at dimension 3", False),
        (
            "The size of tensor a (0) must match the size of tensor b (64) at non-singleton "
            "dimension 3",
            True,
        ),
        (
            "The size of tensor a (32) must match the size of tensor b (64) at non-singleton "
            "dimension 3",
            False,
        ),
    ],
)
def test_pytorchs_own_errors_are_sure_only_beside_a_file(error: str, mended: bool) -> None:
    """A size of nothing is what glm-rope leads to, and any other number is not."""
    first, *_ = search(error, PATCHES)
    assert (first.about.id, first.sure) == ("glm-rope", False)
    for file in ("models/glm.py", "layers/rotary_embedding.py"):
        first, *_ = search(f'File "/x/vllm/model_executor/{file}"\n{error}', PATCHES)
        assert (first.about.id, first.sure) == ("glm-rope", mended)
    llama = f'File "/x/vllm/model_executor/models/llama.py"\n{error}'
    assert not search(llama, PATCHES)[0].sure


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
        ("GLM-4 answers !!!!", "glm4-float16-guard"),
        ("output is only !!!!!!!!!!", "glm4-residual"),
        ("only exclamation marks", "glm4-residual"),
        ("GLM-4-32B-0414 outputs garbage", "glm4-residual"),
        ("garbage output", "glm4-residual"),
        ("gibberish from GLM-4-0414", "glm4-residual"),
        ("GLM4 一直输出 !!!!!!", "glm4-residual"),
        ("GLM4 一直输出 !!!!!!", "glm4-float16-guard"),
        ("GLM-4-32B-0414 输出全是感叹号", "glm4-residual"),
        ("NVFP4 GLM-4.7 KeyError k_scale", "glm4-moe"),
        ("<think> appears in content third turn glm4.5", "glm4-moe-reasoning-parser"),
        ("GLM-4.5V 图片太大 报错 encoder cache", "glm4-1v"),
        ("glm4.6 mtp 投机解码 加载失败", "glm4-moe-mtp"),
        ("glm4.6 speculative decoding does not load", "glm4-moe-mtp"),
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
        (f"vllm serve deepseek-ai/DeepSeek-V3\n{HEAD}", "glm4-moe-mtp", False),
        (f"model='Qwen/Qwen3-235B-A22B-NVFP4', {SCALE}", "glm4-moe", False),
        (f"--model meta-llama/Llama-4 {SCALE}", "glm4-moe", False),
        (f"model='zai-org/GLM-4.7', draft model='Qwen/Qwen3-8B' {SCALE}", "glm4-moe", True),
        (f"vllm serve deepseek-ai/DeepSeek-V3 {'other lines ' * 400} {HEAD}", "glm4-moe-mtp", True),
        (f"vllm serve /data/my-model {SCALE}", "glm4-moe", True),
        (
            FRAME.format(file="qwen3_moe") + f"glm-4.7 beside it {SCALE}",
            "glm4-moe",
            False,
        ),
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


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "CUDA out of memory",
        "KeyError: 'qwen'",
        "the model answers slowly",
        "connection refused",
        "model does not start, port in use",
        "the output is cut off after 16 tokens",
        "How do I start the server with two GPUs",
        "vllm serve fails with an NCCL error",
        "the request timed out after 30 seconds",
        "weights could not be downloaded from the hub",
        "ModuleNotFoundError: No module named 'flash_attn'",
        "推理速度太慢",
        "模型加载很慢",
        "服务启动失败",
        "how to run glm4 faster",
        "Qwen3 outputs garbage",
        "DeepSeek-V3 输出乱码",
    ],
)
def test_words_of_something_else_lead_nowhere(text: str) -> None:
    assert search(text, PATCHES) == []


def test_a_telling_word_is_that_of_one_or_two_patches() -> None:
    told = {
        patch.id: frozenset().union(
            *(_words(each) for s in _described(patch) for each in (s, CHINESE.gettext(s)))
        )
        for patch in PATCHES
    }
    for word in TELLING:
        assert 1 <= sum(word in words for words in told.values()) <= 2, word


def test_a_telling_word_in_a_log_is_not_enough() -> None:
    assert search(HEALTHY + "garbage collection of the encoder: k_scale 1.0\n", PATCHES) == []


class Counted:
    """A pattern that counts what it is given to read."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern, self.read = pattern, 0

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        self.read += len(text)
        return self.pattern.finditer(text)


def test_a_log_is_read_once_for_models_however_many_errors_stand_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Anew for each error, 2.5 MB of them took 8 seconds."""
    counted = Counted(named.NAMED)
    monkeypatch.setattr(named, "NAMED", counted)
    log = (FRAME.format(file="qwen3_moe") + SCALE + "\n") * 1000
    first, *_ = search(log, PATCHES)
    assert (first.about.id, first.sure) == ("glm4-moe", False)
    assert 0 < counted.read <= len(log)


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


def test_where_nothing_is_found_status_leads_on() -> None:
    done = here("explain", "the model answers slowly")
    assert done.returncode == 2
    assert "glmpatch status finds the defects that this vLLM has" in done.stderr
    assert "glmpatch list names the patches" in done.stderr


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

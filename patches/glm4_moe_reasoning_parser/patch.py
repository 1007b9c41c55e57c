"""GLM-4.5 and 4.6 in vLLM 0.10.0 to 0.11.0: from the second question on, thinking is content.

https://github.com/vllm-project/vllm/pull/27703
"""

from __future__ import annotations

from glmpatch.language import N_
from glmpatch.patch import Answers, Patch, Rewrite

PATCH = Patch(
    id="glm4-moe-reasoning-parser",
    title=N_("GLM-4.5 and 4.6: <think> stands in the content once there was an earlier answer"),
    symptoms=(
        N_(
            "silent: <think> and the model's thinking stand in the content of GLM-4.5 or 4.6 when "
            "an answer with tools is streamed, from the second question of a conversation on"
        ),
        N_(
            "silent: with a response_format or guided decoding GLM-4.5 or 4.6 thinks only in the "
            "first answer of a conversation"
        ),
    ),
    why=N_("""\
Each past answer stands in the prompt with a </think>, and the parser takes any of them for the end
of the thinking that has not begun yet. The serving layer then hands what is streamed to the tool
parser, thinking and all, and structured output forces its grammar onto the thinking."""),
    how=N_("""\
Thinking has ended only where </think> stands after the last <|assistant|>. A tokenizer without
that token is read as before."""),
    upstream="https://github.com/vllm-project/vllm/pull/27703",
    removal=N_("Not needed from vLLM 0.11.1 on. Upgrading vLLM replaces the file and its receipt."),
    versions=">=0.10.0,<0.11.1",
    file="vllm/reasoning/glm4_moe_reasoning_parser.py",
    rewrites=(
        Rewrite(
            "last-answer-only",
            N_("look for </think> after the last <|assistant|> alone, not in the whole prompt"),
        ),
    ),
    proof=Answers(
        asker="reasoning_parser",
        about=N_("vLLM's serving layer with its reasoning parser"),
        questions="glm4_moe_reasoning_parser.questions",
        asks=(
            "imports",
            "logger",
            "_*",
            "Glm4MoeModelReasoningParser.statements",
            "Glm4MoeModelReasoningParser.extract_*",
            "Glm4MoeModelReasoningParser.is_reasoning_end*",
            "Glm4MoeModelReasoningParser._*",
        ),
    ),
)

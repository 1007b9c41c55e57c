"""GLM-4.5, 4.6 and 4.7 in vLLM 0.10.1 to 0.23.0: tool calls lost, cut, or with changed arguments.

https://github.com/vllm-project/vllm/pull/42167
"""

from __future__ import annotations

from glmpatch.language import N_
from glmpatch.patch import Answers, Patch, Rewrite

PATCH = Patch(
    id="glm4-moe-tool-parser",
    title=N_("GLM-4.5, 4.6 and 4.7: tool calls are lost, cut, or come with changed arguments"),
    symptoms=(
        "AttributeError: 'FunctionTool' object has no attribute 'function'",
        "glm4_moe_tool_parser ... AttributeError: 'bool' object has no attribute 'get'",
        "glm4_moe_tool_parser ... AttributeError: 'NoneType' object has no attribute 'get'",
        "glm4_moe_tool_parser ... TypeError: expected string or buffer",
        "Failed to extract tool call spec",
        "Failed to finalize tool call state for tool 0",
        N_(
            "silent: streamed tool calls of GLM-4.5, 4.6 or 4.7 are lost or end early with "
            "speculative decoding (MTP), --stream-interval or whatever else makes several tokens "
            "a delta"
        ),
        N_(
            "silent: the arguments of a streamed tool call come twice, as in "
            '{"city": "Paris","days": 3{"city": "Paris", "days": 3}'
        ),
        N_("silent: code in the arguments of a tool call loses its indentation"),
        N_('silent: an optional string such as "10001" becomes a number'),
        N_("silent: a tool call without arguments is lost"),
    ),
    why=N_("""\
Behind --tool-call-parser glm45 and glm47 stands one file, which had other defects in every
release. A streamed delta gave one event, whatever it held, so that with several tokens a delta
calls were lost and JSON ended early (to 0.19.1; at the end of a stream, and with the Responses
API, to 0.22.1). Streamed arguments had other separators than json.dumps, so that the
serving layer sent them twice (0.16.0 to 0.19.1). Strings lost their indentation (to 0.20.2). Only
"type": "string" counted as a string, and not what may also be null (to 0.21.0). Tools of the
Responses API raised AttributeError (to 0.21.0). Calls without arguments were lost (0.14, 0.20.0
to 0.23.0), and the raw text of numbers and lists was sent before their JSON (0.20.0 to
0.23.0)."""),
    how=N_("""\
Puts a method in front of the streaming one that asks it until the delta holds no more, and hands
over one message with one entry for each call; mends the rest where it stands. Three limits stay.
The Responses API, in another file of vLLM, streams no calls before 0.18.0, and takes one call or
one part of it a delta from 0.18.0 to 0.22.1: the others wait for the next deltas, and what still
waits after the last one is lost; in 0.18 and 0.19 it also begins the first call twice where nothing
came before it, and runs the arguments of several calls together at the end. Content that ends as
a tag begins ("a <") loses that end in a stream (0.16.0 to 0.23.0), as it was released. The
streaming of 0.10.0 is wrong altogether and is not mended: upgrade to 0.10.1, or to a release
without these defects."""),
    upstream="https://github.com/vllm-project/vllm/issues/42167",
    removal=N_(
        "Not needed from vLLM 0.24.0 on, whose parser is another one. Upgrading vLLM replaces "
        "the file and its receipt."
    ),
    versions=">=0.10.1,<0.24",
    file={
        "<0.13": "vllm/entrypoints/openai/tool_parsers/glm4_moe_tool_parser.py",
        ">=0.13": "vllm/tool_parsers/glm4_moe_tool_parser.py",
    },
    rewrites=(
        Rewrite(
            "whole-calls",
            N_("stream every call that a delta completes, and keep its name at the end"),
            versions="<0.14",
        ),
        Rewrite(
            "whole-deltas",
            N_("stream all that a delta holds, as one message with one entry for each call"),
            versions=">=0.14,<0.21",
        ),
        Rewrite(
            "whole-entries",
            N_("the same, where the Responses API takes a name together with its arguments"),
            versions=">=0.21,<0.23",
        ),
        Rewrite(
            "separators",
            N_("stream arguments with json.dumps' separators, or they are sent twice"),
            versions=">=0.16,<0.20",
        ),
        Rewrite(
            "keep-indentation",
            N_("keep white space around a string: it belongs to it"),
            versions="<0.21",
        ),
        Rewrite(
            "optional-strings",
            N_("a string that may be null, or is one of several, is a string"),
            versions="<0.22",
        ),
        Rewrite(
            "tools-of-any-api",
            N_("look for a tool's name where the Responses API has it"),
            versions="<0.22",
        ),
        Rewrite(
            "no-arguments",
            N_("a call without arguments has none, and is no error"),
            versions=">=0.14,<0.15",
        ),
        Rewrite(
            "names-alone",
            N_("a streamed call without arguments ends its name where it ends itself"),
            versions=">=0.20",
        ),
        Rewrite(
            "values-whole",
            N_("stream a value that is no string when it is whole, as JSON"),
            versions=">=0.20",
        ),
        Rewrite(
            "schemas-of-any-shape",
            N_("a tool whose properties are null is no error"),
            versions=">=0.22",
        ),
    ),
    proof=Answers(
        asker="tool_parser",
        about=N_("vLLM's tool parser for GLM-4.5 to 4.7"),
        questions="glm4_moe_tool_parser.questions",
        asks=(
            "imports",
            "logger",
            "_*",
            "Glm4MoeModelToolParser.statements",
            "Glm4MoeModelToolParser.extract_*",
            "Glm4MoeModelToolParser._*",
        ),
    ),
)

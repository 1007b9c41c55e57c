"""Asks a tool parser what a client gets, through the release's own serving class.

A question: ``parser`` (``glm45`` or ``glm47``, whose file is built on the first's), ``pieces`` (the
model's text, token by token), ``tools`` (as a client sends them), ``delta`` (tokens that an engine
hands over at once; 0 for a whole answer), ``finish`` (``last``: the reason comes with the last of
them, ``own``: after it), ``cut`` (the reason is ``max_tokens``), ``beside`` (the pieces of other
requests, streamed in turn with this one) and ``api`` (``chat`` or ``responses``).

An answer: ``content``, ``calls`` (name and arguments as values; arguments that are no JSON as
``broken: `` and the text) and ``finish``, as a client puts them together, and ``ids`` where the
calls have not each one of their own; with ``beside`` it is a list of them. Only the engine is
scripted. The Responses API is asked at its parser: what it hands over are its own tools, and what
it would lose of a message is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import inspect
import json
import re
import types
from typing import Any

from ..outcome import importing_vllm
from ..streams import in_turn
from . import attempt, candidate

NO_PARSER = "this release has no parser for it"
ONE_PART = "this release's Responses API takes no whole answer in one delta"
SERVING = (
    "vllm.entrypoints.openai.chat_completion.serving",
    "vllm.entrypoints.openai.serving_chat",
)
CHAT = ("vllm.entrypoints.openai.chat_completion.protocol", "vllm.entrypoints.openai.protocol")
ENGINE = ("vllm.entrypoints.openai.engine.protocol", "vllm.entrypoints.openai.protocol")
RESPONSES = ("vllm.entrypoints.openai.responses.protocol", "vllm.entrypoints.openai.protocol")
EVENTS = "vllm.entrypoints.openai.responses.streaming_events"
SPLITS, STATES = "def split_delta(", "class SimpleStreamingEventProcessor"
"""What tells how much of a message the Responses API takes."""
PARSERS = {"glm45": "Glm4MoeModelToolParser", "glm47": "Glm47MoeModelToolParser"}
TAG = re.compile(r"</?(?:tool_call|arg_key|arg_value|think)>")
END = 2
"""The token with which a model ends its turn; it has no text."""


def answer(module: str, path: str | None, questions: list[Any]) -> list[Any]:
    with candidate(module, path) as loaded, _registered(), _derived(module) as derived:
        parsers = {"glm45": loaded, "glm47": derived}

        def ask(question: Any) -> Any:
            home = parsers[question["parser"]]
            if home is None:
                return NO_PARSER
            parser = getattr(home, PARSERS[question["parser"]])
            if question["api"] == "responses":
                return _responses(parser, question)
            with _imported():
                return asyncio.run(_chat(parser, question))

        return [attempt(ask, question) for question in questions]


@contextlib.contextmanager
def _imported() -> Any:
    """The serving class imports what it needs as late as it can; what is missing then is no fault
    of the parser, which has been imported."""
    try:
        yield
    except ImportError as error:
        with importing_vllm():
            raise error


@contextlib.contextmanager
def _derived(module: str) -> Any:
    """GLM-4.7's parser, imported anew so that it is built on the candidate; None without one."""
    name = module.replace("glm4_moe", "glm47_moe")
    if name == module or importlib.util.find_spec(name) is None:
        yield None
        return
    with candidate(name, None) as loaded:
        yield loaded


@contextlib.contextmanager
def _registered() -> Any:
    """Old parsers register themselves by name: afterwards the registry is as it was."""
    manager = _first("vllm.tool_parsers", "vllm.entrypoints.openai.tool_parsers").ToolParserManager
    kept = dict(manager.tool_parsers)
    try:
        yield
    finally:
        manager.tool_parsers.clear()
        manager.tool_parsers.update(kept)


def _first(*names: str) -> Any:
    """The first of these modules that there is."""
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if not (error.name and f"{name}.".startswith(f"{error.name}.")):
                raise
    return importlib.import_module(names[-1])


class _Tokenizer:
    """Knows the tags, which are tokens of their own, and no more."""

    all_special_ids = all_special_tokens = ()
    eos_token_id = END

    def __init__(self) -> None:
        self.vocab: dict[str, int] = {}
        for tag in ("tool_call", "arg_key", "arg_value", "think"):
            self.number(f"<{tag}>")
            self.number(f"</{tag}>")
        self.tags = dict(self.vocab)

    def number(self, piece: str) -> int:
        return self.vocab.setdefault(piece, 100 + len(self.vocab))

    def get_vocab(self) -> dict[str, int]:
        return dict(self.tags)

    def convert_tokens_to_ids(self, piece: str) -> int | None:
        return self.tags.get(piece)

    def encode(self, text: str, **_: Any) -> list[int]:
        return [self.tags[tag] for tag in TAG.findall(text)]

    def decode(self, ids: Any, **_: Any) -> str:
        return ""


def _texts(question: Any) -> list[list[str]]:
    """The pieces of the request that is asked for, and of those beside it."""
    return [question["pieces"], *question.get("beside", [])]


async def _chat(parser: Any, question: Any) -> Any:
    """What a client of ``/v1/chat/completions`` gets."""
    if not question["delta"]:
        return _whole(json.loads((await _request(parser, question)).model_dump_json()))
    asked = [_request(parser, {**question, "pieces": pieces}) for pieces in _texts(question)]
    told = [
        _gathered(json.loads(line[6:]) for line in lines if line.startswith("data: {"))
        for lines in await in_turn(asked)
    ]
    return told if "beside" in question else told[0]


def _request(parser: Any, question: Any) -> Any:
    """The answer that the serving class is about to give."""
    stream = question["delta"] > 0
    tokenizer = _Tokenizer()
    request = _first(*CHAT).ChatCompletionRequest(
        model="m",
        messages=[{"role": "user", "content": "x"}],
        stream=stream,
        tool_choice="auto",
        tools=question["tools"],
    )
    serving = _serving(parser)
    given = {
        "request": request,
        "result_generator": _engine(question, tokenizer),
        "request_id": "r",
        "model_name": "m",
        "conversation": [{"role": "user", "content": "x"}],
        "tokenizer": tokenizer,
        "request_metadata": _first(*ENGINE).RequestResponseMetadata(request_id="r"),
        "enable_force_include_usage": False,
        "reasoning_parser": None,
    }
    if not stream and serving.parser_cls is not None:
        given["parser"] = serving.parser_cls(tokenizer, request.tools)
    how = "stream" if stream else "full"
    generate = getattr(serving, f"chat_completion_{how}_generator")
    takes = inspect.signature(generate).parameters
    return generate(**{key: value for key, value in given.items() if key in takes})


def _serving(parser: Any) -> Any:
    """vLLM's serving class, of which only what touches an engine or a model is made up."""
    serving = object.__new__(_first(*SERVING).OpenAIServingChat)
    serving.__dict__.update(
        use_harmony=False,
        response_role="assistant",
        enable_auto_tools=True,
        tool_parser=parser,
        reasoning_parser=None,
        reasoning_parser_cls=None,
        parser_cls=_whole_parser(parser),
        tool_call_id_type="random",
        enable_force_include_usage=False,
        enable_prompt_tokens_details=False,
        enable_log_outputs=False,
        enable_log_deltas=False,
        log_error_stack=False,
        request_logger=None,
        system_fingerprint=None,
        chat_template=None,
        chat_template_content_format="auto",
        chat_template_kwargs={},
        default_chat_template_kwargs={},
        exclude_tools_when_tool_choice_none=False,
        model_config=types.SimpleNamespace(
            hf_config=types.SimpleNamespace(model_type="glm4_moe"), tokenizer=None
        ),
        supports_browsing=False,
        supports_code_interpreter=False,
        browser_tool=None,
        python_tool=None,
    )
    return serving


def _whole_parser(parser: Any) -> Any:
    """What newer serving classes wrap around a tool parser; None for the older ones."""
    if importlib.util.find_spec("vllm.parser") is None:
        return None
    wrappers = importlib.import_module("vllm.parser.abstract_parser")
    if not hasattr(wrappers.DelegatingParser, "parse_delta"):
        return None
    base = getattr(wrappers, "_WrappedParser", wrappers.DelegatingParser)
    return type("Wrapped", (base,), {"reasoning_parser_cls": None, "tool_parser_cls": parser})


def _steps(question: Any) -> list[list[str]]:
    """What an engine hands over at once; all of it, for a whole answer."""
    pieces, size = question["pieces"], question["delta"] or max(1, len(question["pieces"]))
    steps = [pieces[at : at + size] for at in range(0, len(pieces), size)] or [[]]
    return [*steps, []] if question["finish"] == "own" else steps


async def _engine(question: Any, tokenizer: _Tokenizer) -> Any:
    """The outputs of an engine that has generated the pieces."""
    from vllm.outputs import CompletionOutput, RequestOutput

    steps = _steps(question)
    for number, step in enumerate(steps, 1):
        last = number == len(steps)
        ended = last and not question.get("cut")
        output = CompletionOutput(
            index=0,
            text="".join(step),
            token_ids=[tokenizer.number(piece) for piece in step] + ([END] if ended else []),
            cumulative_logprob=None,
            logprobs=None,
            finish_reason=("stop" if ended else "length") if last else None,
            stop_reason=None,
        )
        yield RequestOutput(
            request_id="r",
            prompt="x",
            prompt_token_ids=[1],
            prompt_logprobs=None,
            outputs=[output],
            finished=last,
        )


def _whole(given: dict[str, Any]) -> Any:
    """The answer in what was sent at once."""
    if "choices" not in given:
        return {"raised": json.dumps(given)}
    (choice,) = given["choices"]
    message = choice["message"]
    functions = [call["function"] for call in message.get("tool_calls") or []]
    calls = [(function["name"], function["arguments"]) for function in functions]
    ids = [call.get("id") for call in message.get("tool_calls") or []]
    return _answer(message.get("content"), calls, choice["finish_reason"], ids)


def _gathered(chunks: Any) -> Any:
    """The answer that a client puts together from a stream, as OpenAI's own does."""
    content, finish = "", None
    calls: dict[int, list[str]] = {}
    ids: dict[int, str] = {}
    for chunk in chunks:
        if "choices" not in chunk:
            return {"raised": json.dumps(chunk)}
        for choice in chunk["choices"]:
            content += choice["delta"].get("content") or ""
            finish = choice.get("finish_reason") or finish
            for call in choice["delta"].get("tool_calls") or []:
                kept = calls.setdefault(call["index"], ["", ""])
                ids[call["index"]] = ids.get(call["index"], "") + (call.get("id") or "")
                function = call.get("function") or {}
                kept[0] += function.get("name") or ""
                kept[1] += function.get("arguments") or ""
    given = [calls[index] for index in sorted(calls)]
    return _answer(content, given, finish, list(ids.values()))


def _answer(content: str | None, calls: Any, finish: str | None, ids: Any = None) -> Any:
    """White space of the content counts where there are no calls beside it; ``ids`` are told where
    they are wrong: a client answers each call by its own."""
    text = content or ""
    told = {
        "content": " ".join(text.split()) if calls else text,
        "calls": [[name, _value(arguments)] for name, arguments in calls],
        "finish": finish,
    }
    if ids is not None and not (all(ids) and len({*ids}) == len(ids) == len(calls)):
        told["ids"] = ids
    return told


def _value(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return f"broken: {arguments}"


def _lost(message: Any, events: str) -> str:
    """What the release's Responses API loses of a message; ``events`` is how it makes its own.

    From 0.23 on it takes a message apart, from 0.21 on a name may come with arguments. Before, such
    a name is lost where anything came before it, as the reasoning does.
    """
    if SPLITS in events:
        return ""
    calls = message.tool_calls
    if len(calls) > 1:
        return "Multiple tool calls in one delta is not supported"
    if calls and message.content:
        return "content is lost beside a tool call"
    both = any(call.function.name and call.function.arguments for call in calls)
    if both and events and STATES not in events:
        return "a name is lost beside its arguments"
    return ""


def _source_of(module: str) -> str:
    """The source of a module; empty where there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return ""
    if spec is None or spec.origin is None:
        return ""
    with open(spec.origin, encoding="utf-8") as file:
        return file.read()


def _responses(parser: Any, question: Any) -> Any:
    """What the parser makes of a request of ``/v1/responses``."""
    if not question["delta"]:
        asked, request, _ = _parser_of_responses(parser, question)
        found = asked.extract_tool_calls("".join(question["pieces"]), request)
        made = [(call.function.name, call.function.arguments) for call in found.tool_calls]
        return _answer(found.content, made, "tool_calls" if found.tools_called else "stop")
    events = _source_of(EVENTS)
    if question["delta"] >= len(question["pieces"]) and SPLITS not in events:
        return ONE_PART
    asked = [_messages(parser, {**question, "pieces": pieces}) for pieces in _texts(question)]
    told = [_joined(messages, events) for messages in asyncio.run(in_turn(asked))]
    return told if "beside" in question else told[0]


def _parser_of_responses(parser: Any, question: Any) -> tuple[Any, Any, _Tokenizer]:
    """A parser of its own for a request, the request, and the tokenizer of both."""
    request = _first(*RESPONSES).ResponsesRequest(
        model="m", input="x", tool_choice="auto", tools=question["tools"]
    )
    tokenizer = _Tokenizer()
    takes = "tools" in inspect.signature(parser.__init__).parameters
    return parser(tokenizer, request.tools) if takes else parser(tokenizer), request, tokenizer


async def _messages(parser: Any, question: Any) -> Any:
    """What the parser makes of each delta."""
    asked, request, tokenizer = _parser_of_responses(parser, question)
    text = ""
    ids: list[int] = []
    for step in _steps(question):
        before, text = text, text + "".join(step)
        new = [tokenizer.number(piece) for piece in step]
        yield asked.extract_tool_calls_streaming(
            previous_text=before,
            current_text=text,
            delta_text="".join(step),
            previous_token_ids=ids,
            current_token_ids=ids + new,
            delta_token_ids=new,
            request=request,
        )
        ids = ids + new


def _joined(messages: list[Any], events: str) -> Any:
    """What a client puts together from them; ``events`` is how the release makes its own."""
    content = ""
    calls: dict[int, list[str]] = {}
    for message in messages:
        if message is None:
            continue
        content += message.content or ""
        lost = _lost(message, events)
        if lost:
            return {"raised": lost}
        for call in message.tool_calls:
            kept = calls.setdefault(call.index, ["", ""])
            kept[0] += call.function.name or "" if call.function else ""
            kept[1] += call.function.arguments or "" if call.function else ""
    return _answer(
        content, [calls[index] for index in sorted(calls)], "tool_calls" if calls else "stop"
    )

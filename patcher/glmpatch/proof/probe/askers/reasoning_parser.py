"""Asks a reasoning parser where thinking ends, through the code of vLLM that goes by its word.

A question: ``prompt`` and ``output`` (token by token, as the chat template and the model write
them), ``delta`` (tokens that an engine hands over at once, after ``<think>``; 0 for a whole
answer), ``cut`` (``max_tokens`` ended it) and ``where``:

``chat``: the serving class of ``/v1/chat/completions`` alone; ``tools``: the same with tools, where
the parser's word on the prompt decides who reads the output. The answer: ``reasoning`` and
``content`` as a client puts them together, without the white space around them, and ``read``, what
was given to the tool parser; ``held back`` names what came to the client at once although it was
generated bit by bit. With ``beside``, the output of another request, both are streamed in turn, and
the answer is a list of both.

``grammar``: the manager of structured output. The answer: ``free``, what was generated while no
grammar held, and ``held``, the rest.

``ids``: the parser itself, which of the output's tokens are content; the serving class hands these
to the tool parser. The answer: their text.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import types
from typing import Any

from ..streams import in_turn
from . import attempt, candidate

FIRST = 100
"""Ids of the tokens start here."""


def answer(module: str, path: str | None, questions: list[Any]) -> list[Any]:
    with _registered(), candidate(module, path) as loaded:
        parser = loaded.Glm4MoeModelReasoningParser

        def ask(question: Any) -> Any:
            if question["where"] == "grammar":
                return _grammar(parser, question)
            if question["where"] == "ids":
                return _content(parser, question)
            return asyncio.run(_chat(parser, question))

        return [attempt(ask, question) for question in questions]


@contextlib.contextmanager
def _registered() -> Any:
    """A parser registers itself by name: afterwards the registry is as it was."""
    from vllm.reasoning import ReasoningParserManager

    known = ReasoningParserManager.reasoning_parsers
    kept = dict(known)
    try:
        yield
    finally:
        known.clear()
        known.update(kept)


class _Tokenizer:
    """Each piece that it is shown is a token."""

    all_special_ids: tuple[int, ...] = ()
    all_special_tokens: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.pieces: dict[str, int] = {}
        self.ids(["<think>", "</think>", "<|assistant|>", "<|user|>", "<|observation|>"])

    def ids(self, pieces: list[str]) -> list[int]:
        return [self.pieces.setdefault(piece, FIRST + len(self.pieces)) for piece in pieces]

    def get_vocab(self) -> dict[str, int]:
        return self.pieces

    vocab = property(get_vocab)


def _tool_parser(read: list[str]) -> Any:
    """Takes all that it is given for content, and keeps it."""
    from vllm.entrypoints.openai import protocol

    class Parser:
        def __init__(self, tokenizer: Any) -> None:
            self.prev_tool_call_arr: list[Any] = []
            self.streamed_args_for_tool: list[Any] = []

        def adjust_request(self, request: Any) -> Any:
            return request

        def extract_tool_calls(self, text: str, request: Any) -> Any:
            read.append(text)
            return protocol.ExtractedToolCallInformation(
                tools_called=False, tool_calls=[], content=text
            )

        def extract_tool_calls_streaming(self, *, delta_text: str, **_: Any) -> Any:
            read.append(delta_text)
            return protocol.DeltaMessage(content=delta_text)

    return Parser


async def _chat(parser: Any, question: Any) -> Any:
    """What the clients get: the one that asks, and the one beside it."""
    if not question["delta"]:
        answered, read = _request(parser, question)
        return _gathered([json.loads((await answered).model_dump_json())], read)
    outputs = [question["output"], *question.get("beside", [])]
    asked = [_request(parser, {**question, "output": output}) for output in outputs]
    told = []
    for output, (_, read), lines in zip(
        outputs, asked, await in_turn([answered for answered, _ in asked])
    ):
        sent = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        told.append(_gathered(sent, read, _bit_by_bit(output, question["delta"])))
    return told if "beside" in question else told[0]


def _request(parser: Any, question: Any) -> tuple[Any, list[str] | None]:
    """The answer that the serving class is about to give, and what a tool parser will have read."""
    from vllm.entrypoints.openai import protocol, serving_chat

    tools, stream, read = question["where"] == "tools", question["delta"] > 0, list[str]()
    messages = [{"role": "user", "content": "x"}]
    function = {"name": "look", "parameters": {"type": "object", "properties": {}}}
    serving = object.__new__(serving_chat.OpenAIServingChat)
    serving.__dict__.update(
        response_role="assistant",
        use_harmony=False,
        enable_auto_tools=tools,
        tool_parser=_tool_parser(read) if tools else None,
        reasoning_parser=parser,
        tool_call_id_type="random",
        enable_prompt_tokens_details=False,
        enable_force_include_usage=False,
        enable_log_outputs=False,
        log_error_stack=False,
        request_logger=None,
    )
    tokenizer = _Tokenizer()
    given = {
        "request": protocol.ChatCompletionRequest(
            model="m",
            messages=messages,
            stream=stream,
            **({"tools": [{"type": "function", "function": function}]} if tools else {}),
        ),
        "result_generator": _engine(question, tokenizer),
        "request_id": "r",
        "model_name": "m",
        "conversation": messages,
        "tokenizer": tokenizer,
        "request_metadata": protocol.RequestResponseMetadata(request_id="r"),
        "enable_force_include_usage": False,
    }
    how = "stream" if stream else "full"
    generate = getattr(serving, f"chat_completion_{how}_generator")
    takes = inspect.signature(generate).parameters
    answered = generate(**{key: value for key, value in given.items() if key in takes})
    return answered, read if tools else None


def _gathered(sent: list[Any], read: list[str] | None, bit_by_bit: Any = ()) -> Any:
    """What a client puts together from the answer, or from its chunks."""
    parts: dict[str, list[str]] = {"reasoning": [], "content": []}
    for each in sent:
        if "choices" not in each:
            return {"raised": json.dumps(each)}
        for choice in each["choices"]:
            part = choice.get("delta") or choice.get("message") or {}
            parts["reasoning"].append(part.get("reasoning_content") or part.get("reasoning") or "")
            parts["content"].append(part.get("content") or "")
    told: dict[str, Any] = {key: "".join(texts).strip() for key, texts in parts.items()}
    if read is not None:
        told["read"] = "".join(read).strip()
    at_once = [key for key in bit_by_bit if len([*filter(str.strip, parts[key])]) == 1]
    return {**told, "held back": at_once} if at_once else told


def _bit_by_bit(output: list[str], size: int) -> list[str]:
    """What the engine hands over in several deltas, whatever their bounds are."""
    end = output.index("</think>") if "</think>" in output else -1
    thought = output[:end] if end >= 0 else output
    begun = "<think>" in output
    lengths = {
        "reasoning": len(thought[thought.index("<think>") + 1 :]) if begun else 0,
        "content": len(output[end + 1 :]) if end >= 0 or not begun else 0,
    }
    return [key for key, length in lengths.items() if length >= 3 * size]


async def _engine(question: Any, tokenizer: _Tokenizer) -> Any:
    """The outputs of an engine that has generated the pieces."""
    from vllm.outputs import CompletionOutput, RequestOutput

    pieces, size = question["output"], question["delta"]
    # What comes with <think> in one delta is another matter: no release tells it right.
    begun = pieces.index("<think>") + 1 if "<think>" in pieces else 0
    rest = [pieces[at : at + size] for at in range(begun, len(pieces), size or len(pieces))]
    steps = [[piece] for piece in pieces[:begun]] + rest if size else [pieces]
    # The reason to finish comes with a token that has no text, the end of the turn; with the last
    # token that there was room for, where an answer is cut.
    if not question.get("cut"):
        steps = [*steps, ["<|user|>"]] if size else [[*pieces, "<|user|>"]]
    for number, step in enumerate(steps, 1):
        last = number == len(steps)
        text = "".join(piece for piece in step if piece != "<|user|>")
        output = CompletionOutput(
            index=0,
            text=text,
            token_ids=tokenizer.ids(step),
            cumulative_logprob=None,
            logprobs=None,
            finish_reason=("length" if question.get("cut") else "stop") if last else None,
            stop_reason=None,
        )
        yield RequestOutput(
            request_id="r",
            prompt="x",
            prompt_token_ids=tokenizer.ids(question["prompt"]),
            prompt_logprobs=None,
            outputs=[output],
            finished=last,
        )


def _content(parser: Any, question: Any) -> str:
    """The text of the tokens that the parser takes for content."""
    tokenizer = _Tokenizer()
    ids = tokenizer.ids(question["output"])
    texts = {number: piece for piece, number in tokenizer.pieces.items()}
    return "".join(texts[number] for number in parser(tokenizer).extract_content_ids(ids))


class _Grammar:
    """Tells whether it was asked for what may come next."""

    def __init__(self) -> None:
        self.asked = False

    def is_terminated(self) -> bool:
        return False

    def fill_bitmask(self, bitmask: Any, index: int) -> None:
        self.asked = True


def _grammar(parser: Any, question: Any) -> Any:
    """Which tokens a grammar holds, asked of the manager at each step of the generation."""
    import torch
    from vllm.v1.structured_output import StructuredOutputManager
    from vllm.v1.utils import ConstantList

    tokenizer = _Tokenizer()
    ids = tokenizer.ids(question["prompt"])
    grammar = _Grammar()
    asked = types.SimpleNamespace(reasoning_ended=None, grammar=grammar)
    request = types.SimpleNamespace(
        use_structured_output=True,
        structured_output_request=asked,
        prompt_token_ids=list(ids),
        all_token_ids=ConstantList(ids),
    )
    manager = object.__new__(StructuredOutputManager)
    manager.__dict__.update(
        reasoner=parser(tokenizer),
        _grammar_bitmask=torch.zeros((1, 1), dtype=torch.int32),
        _full_mask=torch.tensor(-1, dtype=torch.int32),
        vllm_config=types.SimpleNamespace(speculative_config=None),
    )
    free, held = "", ""
    for piece in question["output"]:
        if hasattr(manager, "should_fill_bitmask"):
            holds = manager.should_fill_bitmask(request)
        else:
            grammar.asked = False
            manager.grammar_bitmask({"r": request}, {"r": 0}, {})
            holds = grammar.asked
        ids.extend(tokenizer.ids([piece]))
        manager.should_advance(request)
        if holds:
            held += piece
        else:
            free += piece
    return {"free": free, "held": held}

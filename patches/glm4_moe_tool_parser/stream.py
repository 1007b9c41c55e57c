"""The method that is put in front of the released streaming method, then named ``_one_event``."""

from __future__ import annotations

METHOD = '''\
def extract_tool_calls_streaming(
    self,
    previous_text,
    current_text,
    delta_text,
    previous_token_ids,
    current_token_ids,
    delta_token_ids,
    request,
):
    """All that a delta holds, as one message with one entry for each call."""
    # The Responses API: WHY
    is_chat = hasattr(request, "messages")
    event = first = self._one_event(
        previous_text,
        current_text,
        delta_text,
        previous_token_ids,
        current_token_ids,
        delta_token_ids,
        request,
    )
    parts = self.__dict__.setdefault("_waiting", [])
    while event and (event.content or event.tool_calls):
        if event.content:
            parts.append((None, None, event.content))
        for call in event.tool_calls:
            head = call if call.function.name else None
            parts.append((call.index, head, call.function.arguments or ""))
        event = self._one_event(
            current_text, current_text, "", current_token_ids, current_token_ids, [], request
        )
    content, named, arguments, last = "", {}, {}, None
    while parts and (is_chat or last is None or FITS):
        index, head, text = last = parts.pop(0)
        if index is None:
            content += text
            continue
        if head:
            named[index] = head
        arguments[index] = arguments.get(index, "") + text
    if not arguments:
        return DeltaMessage(content=content) if content else first
    # The chat API makes the last message of a stream anew from its first entry, if that has
    # arguments. Where more would get lost, an entry without arguments goes first.
    apart = is_chat and (bool(content) or LOST)
    calls = []
    for index, text in arguments.items():
        entry, function = {"index": index}, {}
        if index in named:
            entry = {"index": index, "id": named[index].id, "type": "function"}
            function = {"name": named[index].function.name}
        if apart and not calls:
            calls.append(DeltaToolCall(**entry, function=DeltaFunctionCall(**function)))
            entry, function = {"index": index}, {}
        function["arguments"] = text
        calls.append(DeltaToolCall(**entry, function=DeltaFunctionCall(**function)))
    if content:
        return DeltaMessage(content=content, tool_calls=calls)
    return DeltaMessage(tool_calls=calls)
'''

APART = "last[0] == parts[0][0] and not (last[1] or parts[0][1])"
ONE = "last[0] == parts[0][0]"


def method(lost: str, fits: str, why: str) -> str:
    """The method for some releases.

    ``lost`` says when the chat API would lose a part of its last message; ``fits`` when the next
    part goes into one message of the Responses API with the last one, and ``why``.
    """
    return METHOD.replace("LOST", lost).replace("FITS", fits).replace("WHY", why)


ENTRIES = "len(arguments) > 1"
WHOLE_CALLS = method(
    f"bool(named) or {ENTRIES}", ONE, "one entry a message, the rest in the next ones."
)
"""Up to 0.13 the chat API's message that is made anew has no name either."""
NAMES_APART = "a name alone, or the arguments of one call, the rest in the next ones."
WHOLE_DELTAS = method(ENTRIES, APART, NAMES_APART)
"""Up to 0.20 the Responses API loses a name that comes with arguments after anything else."""
WHOLE_ENTRIES = method(ENTRIES, ONE, "one entry a message, the rest in the next ones.")
"""To 0.22 it loses all but the first entry; from 0.23 on it takes a message apart itself."""

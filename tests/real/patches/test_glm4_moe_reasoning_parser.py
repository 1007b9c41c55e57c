"""glm4-moe-reasoning-parser on real releases: as released, mended, and mended wrongly."""

from __future__ import annotations

import pytest

from glmpatch.patches.glm4_moe_reasoning_parser.patch import PATCH
from tests.support.proving import mended, prove, released

pytestmark = pytest.mark.real

BODY = b"return self.think_end_token_id in input_ids\n"
ASSISTANT = b'"<|assistant|>"'
WRONG = {
    "balanced tags": b"return input_ids.count(self.think_end_token_id) >= "
    b"input_ids.count(self.think_start_token_id)\n",
    "the last token": b"return input_ids[-1:] == [self.think_end_token_id]\n",
    "never": b"return False\n",
    "only what is short": b"return self.think_end_token_id in input_ids[-8:]\n",
}
CONTENT_IDS = b"return input_ids[input_ids.index(self.think_end_token_id) + 1:]\n"
WHOLE = b"        # Check if the model output contains the <think> and </think> tokens.\n"
THINKING = b"""\
                # <think> in previous, no </think> in previous or delta,
                # reasoning content continues
                return DeltaMessage(reasoning_content=delta_text)
"""
ENDED = b"reasoning_content = delta_text[:end_index]\n"
CLASS = b"class Glm4MoeModelReasoningParser(ReasoningParser):\n"
HELD = b"                self._held.append(delta_text)\n"
WAITING = b"                self._held = [*self._held, delta_text]\n"
ALL = b"reasoning_content = ''.join(self._held) + delta_text[:end_index]\n"
CUT = b"        if self.think_start_token in model_output:\n"
SPOILED = {
    "no content ids": [(CONTENT_IDS, b"return []\n")],
    "content ids from the tag on": [(CONTENT_IDS, CONTENT_IDS.replace(b" + 1", b""))],
    "no whole answer that is cut": [
        (WHOLE, CUT + b"            model_output.split(self.think_end_token)[1]\n" + WHOLE)
    ],
    "nothing of a whole answer that is cut": [
        (
            WHOLE,
            CUT + b"            if self.think_end_token not in model_output:\n"
            b"                return None, None\n" + WHOLE,
        )
    ],
    "one list for all requests, until </think>": [
        (CLASS, CLASS + b"    _held = []\n\n"),
        (THINKING, HELD + b"                return None\n"),
        (ENDED, ALL + b"                self._held.clear()\n"),
    ],
    "until </think>": [
        (CLASS, CLASS + b"    _held = ()\n\n"),
        (THINKING, WAITING + b"                return None\n"),
        (ENDED, ALL),
    ],
    "one list for all requests, one delta late": [
        (CLASS, CLASS + b"    _held = []\n\n"),
        (
            THINKING,
            HELD + b"                held = self._held[:-1]\n"
            b"                del self._held[:-1]\n"
            b"                return DeltaMessage(reasoning_content=''.join(held))\n",
        ),
        (ENDED, ALL + b"                self._held.clear()\n"),
    ],
}
"""What the patch has left alone, spoiled where few would look."""


def spoiled(right: bytes) -> dict[str, bytes]:
    files = {}
    for words, edits in SPOILED.items():
        files[words] = right
        for old, new in edits:
            assert files[words].count(old) == 1, (words, old)
            files[words] = files[words].replace(old, new)
    return files


@pytest.mark.parametrize("release", ["0.10.0", "0.10.2", "0.11.0"])
def test_what_is_wrong_fails_and_what_is_mended_passes(release: str) -> None:
    source, right = released(PATCH, release), mended(PATCH, release)
    assert source.count(BODY) == right.count(ASSISTANT) == 1
    files = {
        "released": source,
        "mended": right,
        "since the user spoke": right.replace(ASSISTANT, b'"<|user|>"'),
        "since the last thought": right.replace(ASSISTANT, b'"<think>"'),
        **{words: source.replace(BODY, body) for words, body in WRONG.items()},
        **spoiled(right),
    }
    found = prove(PATCH, release, files)
    assert {name for name, result in found.items() if result.passed} == {"mended"}
    # What a user sees: the thinking in the content, from the second question on.
    wrong = found["released"].wrong_answers
    assert not any(each.question.startswith("turn 1, thinking") for each in wrong)
    for turn in (2, 3, 4, 5):
        told = [a.answer for a in wrong if a.question.startswith(f"turn {turn}, thinking, tools")]
        assert told
        assert all('"content": "<think>' in answer for answer in told)
    assert any(each.question == "turn 2, thinking, structured" for each in wrong)

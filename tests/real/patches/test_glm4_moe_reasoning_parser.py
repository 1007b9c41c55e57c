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

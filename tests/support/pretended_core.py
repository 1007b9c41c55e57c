"""V1 without its core: everything of vLLM 0.8.4 between ``vllm.LLM`` and the process with the GPU.

Arguments, configuration, tokenizer, requests and outputs are vLLM's own; the core that would open
the GPU is replaced by one that answers each request with numbers drawn beforehand.
"""

from __future__ import annotations

from typing import Any
from unittest import mock


class Core:
    """Answers as the core does: a token of each request a step, the prompt's numbers with the
    first."""

    def __init__(self, vocabulary: int) -> None:
        import torch

        self.vocabulary = vocabulary
        self.generator = torch.Generator().manual_seed(0)
        self.requests: list[Any] = []
        self.told: dict[str, list[dict[int, float]]] = {}
        """Request -> token -> log-probability, at each position but the first."""
        self.engine_core = mock.Mock()  # what ``LLMEngine`` wants of one in its own process

    def add_request(self, request: Any) -> None:
        self.requests.append(request)
        self.told[request.request_id] = []

    def abort_requests(self, ids: list[str]) -> None:
        assert not ids

    def get_output(self) -> Any:
        from vllm.v1.engine import EngineCoreOutput, EngineCoreOutputs, FinishReason
        from vllm.v1.outputs import LogprobsTensors

        outputs = []
        for request in list(self.requests):
            told, prompt = self.told[request.request_id], request.prompt_token_ids
            first = None
            if not told:
                first = LogprobsTensors(*self.draw(told, prompt[1:]))
            tokens, numbers, ranks = self.draw(told, [len(told) % self.vocabulary])
            done = len(told) - len(prompt) + 1 == request.sampling_params.max_tokens
            outputs.append(
                EngineCoreOutput(
                    request_id=request.request_id,
                    new_token_ids=[int(tokens[0][0])],
                    new_logprobs=LogprobsTensors(tokens, numbers, ranks).tolists(),
                    new_prompt_logprobs_tensors=first,
                    finish_reason=FinishReason.LENGTH if done else None,
                )
            )
            if done:
                self.requests.remove(request)
        return EngineCoreOutputs(outputs=outputs)

    def draw(self, told: list[dict[int, float]], tokens: list[int]) -> Any:
        """Tokens, numbers and ranks: of the token that stands there, and of the whole vocabulary,
        as the sampler puts them together."""
        import torch

        numbers = torch.randn(len(tokens), self.vocabulary, generator=self.generator)
        numbers = numbers.log_softmax(-1)
        own = torch.tensor(tokens, dtype=torch.int64).reshape(-1, 1)
        best, order = numbers.sort(-1, descending=True)
        told += [dict(enumerate(row)) for row in numbers.tolist()]
        ranks = (order == own).int().argmax(-1) + 1
        return torch.cat([own, order], 1), torch.cat([numbers.gather(1, own), best], 1), ranks
